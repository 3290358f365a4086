//! Somebody else writes into the maps or takes programs off, under traffic: it is found, mended and
//! counted, and traffic goes on.

use std::{fs, thread, time::Duration};

use lb_tests::{process::wait_for, tamper::Tamper};

use crate::local_clients::{Local, both};
use crate::scene::{Conversation, PATIENCE, Scene, VIP, VIP6, address, reply, sample, udp_service};

/// How many differences of a kind the metrics count.
fn mended(scene: &Scene, kind: &str) -> f64 {
    let label = format!("what=\"{kind}\"");
    sample(&scene.scrape(), "lb_drift_repairs_total", &[&label]).unwrap()
}

/// Does `harm`, and waits until it is mended and counted.
fn is_mended(scene: &Scene, kind: &str, harm: impl FnOnce()) {
    let before = mended(scene, kind);
    harm();
    wait_for(&format!("{kind} to be mended"), PATIENCE, || {
        Ok((mended(scene, kind) > before).then_some(()))
    })
    .unwrap();
}

#[test]
fn maps_are_mended_under_traffic() {
    let scene = Scene::listed_on("drift_check = \"1s\"\n", &["v1", "v2"], "", &udp_service(2));
    let tamper = Tamper::new(scene.agent.pins());
    let (vip, b1) = (address(VIP), scene.topology.backend_address(1));
    let client = scene.topology.client();
    let mut open = Conversation::open(client, vip);
    let who = open.ask();
    let load = scene.load(200.0);

    // Whoever has a connection keeps it, whatever becomes of VIPs, tables and backends.
    is_mended(&scene, "service", || tamper.delete_vip(vip).unwrap());
    assert_eq!(open.ask(), who);
    scene.wait_until_served(&[VIP, VIP6]);
    is_mended(&scene, "service", || tamper.add_vip(vip, 81).unwrap());
    assert!(tamper.vip(address("198.51.100.10:81")).is_err());

    let mut id = 0;
    is_mended(&scene, "backend", || {
        let elsewhere = u32::from_ne_bytes([192, 0, 2, 99]);
        id = tamper
            .change_backend(b1, |entry| entry.addr[0] = elsewhere)
            .unwrap();
    });
    assert_eq!(tamper.change_backend(b1, |_| ()).unwrap(), id);
    is_mended(&scene, "backend", || tamper.add_backend(b1, 900).unwrap());
    assert!(!tamper.has_backend(900).unwrap());
    assert_eq!(open.ask(), who);
    scene.wait_until_served(&[VIP, VIP6]);

    // Another table, and other contents of the same.
    is_mended(&scene, "maglev", || {
        tamper.swap_table(vip, address(VIP6)).unwrap();
    });
    scene.wait_until_served(&[VIP, VIP6]);
    is_mended(&scene, "maglev", || tamper.fill_table(vip, id).unwrap());
    scene.wait_until_served(&[VIP, VIP6]);
    is_mended(&scene, "next_hop", || tamper.misdirect(b1).unwrap());
    is_mended(&scene, "filter", || tamper.clear_filter().unwrap());
    scene.wait_until_served(&[VIP, VIP6]);
    assert_eq!(open.ask(), who);

    // Nothing fails from then on, and nothing more is found.
    let from = load.now();
    let log = |kinds: &[&str]| kinds.iter().map(|kind| mended(&scene, kind)).sum::<f64>();
    let kinds = [
        "service", "backend", "maglev", "next_hop", "filter", "program",
    ];
    let counted = log(&kinds);
    thread::sleep(Duration::from_secs(3));
    assert_eq!(log(&kinds), counted);
    let spread = load.record().between(from, load.now());
    assert!(
        spread.answered() > 300 && spread.failed() == 0,
        "{spread:?}"
    );
    assert!(scene.problems().is_empty());
    eprintln!("{counted} differences mended");
}

#[test]
fn blocks_stay_blocked() {
    let scene = Scene::listed_on("drift_check = \"1s\"\n", &["v1"], "", "");
    let tamper = Tamper::new(scene.agent.pins());
    let client = scene.client().patience(Duration::from_secs(1));
    let own = client.get(address(VIP), "/").is_ok();
    assert!(own);
    for prefix in ["10.78.0.0/16", "2001:db8:9::/48"] {
        scene.agent.command(&["block", "add", prefix]).unwrap();
    }
    is_mended(&scene, "block", || tamper.clear_blocks().unwrap());
    let list = reply(&scene.agent, &["block", "list"]);
    assert_eq!(list["blocks"].as_array().unwrap().len(), 2);
    let counted = mended(&scene, "block");
    thread::sleep(Duration::from_secs(2));
    assert_eq!(mended(&scene, "block"), counted);
    scene.wait_until_served(&[VIP, VIP6]);
}

/// Links are detached, and pins removed: new ones are attached, and traffic goes on.
#[test]
fn programs_are_attached_again() {
    let scene = Scene::listed_on("drift_check = \"1s\"\n", &["v1", "v2"], "", "");
    let tamper = Tamper::new(scene.agent.pins());
    let load = scene.load(100.0);
    for prefix in ["xdp_native_", "tc_egress_"] {
        for link in tamper.links(prefix).unwrap() {
            is_mended(&scene, "program", || tamper.detach(&link).unwrap());
            is_mended(&scene, "program", || fs::remove_file(&link).unwrap());
            assert!(link.exists(), "{}", link.display());
        }
    }
    let hops = tamper.links("hop_").unwrap();
    for link in &hops {
        is_mended(&scene, "program", || tamper.detach(link).unwrap());
    }
    scene.wait_until_served(&[VIP, VIP6]);
    let from = load.now();
    let counted = mended(&scene, "program");
    thread::sleep(Duration::from_secs(3));
    assert_eq!(mended(&scene, "program"), counted);
    let spread = load.record().between(from, load.now());
    assert!(
        spread.answered() > 150 && spread.failed() == 0,
        "{spread:?}"
    );
    let status = scene.agent.command(&["status"]).unwrap();
    assert!(status.contains("drift "), "{status}");
    assert!(status.contains("program="), "{status}");
}

/// The same of the programs on socket calls, which `status` finds missing at once.
#[test]
fn local_clients_are_served_again() {
    let local = Local::new(1, |topology| both(topology, &[(1, 1)]));
    let tamper = Tamper::new(local.agent.pins());
    let talker = local.talker(local.topology.node(), "talker");
    let vip = "198.51.100.10:80";
    assert_eq!(talker.request(&format!("tcp a {vip}")).unwrap(), vip);
    thread::sleep(Duration::from_millis(300));
    let link = tamper.links("cgroup_connect4_").unwrap().remove(0);
    tamper.detach(&link).unwrap();
    let status = reply(&local.agent, &["status"]);
    assert_eq!(status["drift"]["repairs"]["program"], 1, "{status}");
    assert_eq!(talker.request(&format!("tcp b {vip}")).unwrap(), vip);
}

/// Whoever asks for the status does not wait for the next comparison.
#[test]
fn status_compares_at_once() {
    let scene = Scene::listed_on("drift_check = \"1h\"\n", &["v1"], "", "");
    let tamper = Tamper::new(scene.agent.pins());
    thread::sleep(Duration::from_millis(300));
    tamper.delete_vip(address(VIP)).unwrap();
    let status = reply(&scene.agent, &["status"]);
    assert_eq!(status["drift"]["repairs"]["service"], 1);
    assert_eq!(status["drift"]["last"], format!("VIP {VIP} was gone"));
    assert!(tamper.vip(address(VIP)).is_ok());
    scene.wait_until_served(&[VIP]);
    // A restart finds what is there, and nothing to mend.
    let mut scene = scene;
    scene.agent.restart().unwrap();
    let status = reply(&scene.agent, &["status"]);
    assert_eq!(status["drift"]["last"], serde_json::Value::Null);
}

/// Services of a hundred backends each.
const SERVICES: usize = 200;

/// Many services cost little to be compared all the time.
#[test]
fn comparing_is_cheap() {
    let topology = lb_tests::topology::Topology::new(1).unwrap();
    let services: String = (0..SERVICES)
        .map(|number| {
            let (high, low) = (number / 250, number % 250 + 1);
            let rows: String = (1..=100)
                .map(|port| format!("{{ address = \"10.77.1.2:{}\" }},", 8000 + port))
                .collect();
            format!(
                "[[service]]\nname = \"s{number}\"\nvip = [\"198.18.{high}.{low}:80\"]\n\
                 backends = [{rows}]\n"
            )
        })
        .collect();
    let agent = lb_tests::agent::Setup::new(&topology)
        .config(&services)
        .start()
        .unwrap();
    let status = reply(&agent, &["status"]);
    assert_eq!(status["catalog"]["backends"], SERVICES * 100);
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", agent.process().pid())).unwrap();
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let of = |field: usize| fields[field].parse::<f64>().unwrap();
        // Fields 14 and 15 of proc_pid_stat(5), counted from behind the name.
        of(11) + of(12)
    };
    let before = ticks();
    let span = Duration::from_secs(20);
    thread::sleep(span);
    // Ticks are hundredths of a second.
    let percent = (ticks() - before) / span.as_secs_f64();
    eprintln!("{percent:.2} % of a CPU, all of the idle agent's work with {SERVICES} services");
    assert!(percent < 20.0, "{percent}");
    let status = reply(&agent, &["status"]);
    assert_eq!(status["drift"]["last"], serde_json::Value::Null);
}
