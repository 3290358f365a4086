//! Local clients whose backend is lost: their sockets are closed, and nobody else's.

use std::fs;

use lb_tests::{process::wait_for, talk::Talker};

use crate::{
    local_clients::{Local, service},
    scene::PATIENCE,
};

const HEALTH: &str = "health = { kind = \"http\", path = \"/health\", interval = \"200ms\", \
                      timeout = \"200ms\", rise = 1, fall = 1 }";

/// TCP and UDP on the same VIPs; backends are checked over HTTP.
fn checked(count: u8) -> Local {
    Local::new(usize::from(count), |topology| {
        let vips = "vip = [\"198.51.100.10:80\", \"[2001:db8:100::10]:80\"]";
        let backends: Vec<(u8, u32)> = (1..=count).map(|number| (number, 1)).collect();
        service("echo", &format!("{vips}\n{HEALTH}"), topology, &backends)
            + &service(
                "datagrams",
                &format!("{vips}\nprotocol = \"udp\"\n{HEALTH}"),
                topology,
                &backends,
            )
    })
}

/// A socket under `name` that was sent to `backend`.
fn sent_to(talker: &Talker, backend: &str, name: &str, open: &[String], ask: &str) {
    wait_for(&format!("{name} to be sent to {backend}"), PATIENCE, || {
        for words in open {
            talker.request(words).unwrap();
        }
        let answer = talker.request(ask).unwrap();
        Ok(answer.starts_with(backend).then_some(()))
    })
    .unwrap();
}

/// One of each kind, on `backend`: what to ask of each, and whether it came through the agent.
fn sockets(talker: &Talker, local: &Local, backend: u8) -> Vec<(String, bool)> {
    let mut asks = Vec::new();
    let name = format!("b{backend}");
    let forms = [
        ("198.51.100.10:80", "0.0.0.0:0"),
        ("[2001:db8:100::10]:80", "[::]:0"),
        ("[::ffff:198.51.100.10]:80", "[::]:0"),
    ];
    for (number, (vip, any)) in forms.iter().enumerate() {
        let tcp = format!("{name}-tcp{number}");
        let ask = format!("ask {tcp}");
        sent_to(talker, &name, &tcp, &[format!("tcp {tcp} {vip}")], &ask);
        asks.push((ask, true));
        let udp = format!("{name}-udp{number}");
        let ask = format!("send {udp} x");
        let open = [format!("udp {udp} {any}"), format!("connect {udp} {vip}")];
        sent_to(talker, &name, &udp, &open, &ask);
        asks.push((ask, true));
    }
    let direct = local.topology.backend_address(backend);
    talker
        .request(&format!("tcp {name}-direct {direct}"))
        .unwrap();
    asks.push((format!("ask {name}-direct"), false));
    talker
        .request(&format!("udp {name}-own 0.0.0.0:0"))
        .unwrap();
    talker
        .request(&format!("connect {name}-own {direct}"))
        .unwrap();
    asks.push((format!("send {name}-own x"), false));
    asks
}

/// Those that came through the agent are closed, the others live.
fn assert_closed(talker: &Talker, asks: &[(String, bool)]) {
    for (ask, _) in asks.iter().filter(|(_, ours)| *ours) {
        let error = wait_for(&format!("{ask} to fail"), PATIENCE, || {
            Ok(talker.request(ask).err())
        });
        let error = error.unwrap();
        // A UDP socket is no longer connected, and a send says no more than that.
        let expected: &[&str] = match ask.starts_with("ask") {
            true => &["ConnectionAborted"],
            false => &["ConnectionAborted", "EDESTADDRREQ"],
        };
        assert!(expected.contains(&&*error), "{ask}: {error}");
    }
    for (ask, _) in asks.iter().filter(|(_, ours)| !ours) {
        talker.request(ask).unwrap();
    }
}

fn assert_alive(talker: &Talker, asks: &[(String, bool)]) {
    for (ask, _) in asks {
        let answer = talker.request(ask);
        assert!(answer.is_ok(), "{ask}: {answer:?}");
    }
}

/// A dead backend loses its local clients' sockets, a draining one keeps them, though its checks
/// fail as well; a removed one loses them.
#[test]
fn dead_draining_and_removed_backends() {
    let local = checked(3);
    let talker = local.talker(local.topology.node(), "talker");
    let [dying, draining, removed] = [1, 2, 3].map(|number| sockets(&talker, &local, number));
    let second = local.topology.backend_address(2).to_string();
    let second6 = local.topology.backend_address6(2).to_string();
    for service in ["echo", "datagrams"] {
        for address in [&second, &second6] {
            local.agent.command(&["drain", service, address]).unwrap();
        }
    }
    local.backends[1].set_failing(true).unwrap();
    local.backends[0].set_failing(true).unwrap();
    assert_closed(&talker, &dying);
    assert_alive(&talker, &removed);
    assert_alive(&talker, &draining);

    let file = local.agent.config_file().to_owned();
    let text = fs::read_to_string(&file).unwrap();
    let without: String = text
        .lines()
        .filter(|line| !line.contains("10.77.3.2:") && !line.contains("[fd77:3::2]:"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(text.lines().count() - without.lines().count(), 4);
    // With nobody left all would be used.
    local.backends[0].set_failing(false).unwrap();
    wait_for("b1 to be back", PATIENCE, || {
        let list = local.agent.command(&["backend", "list", "echo"]).unwrap();
        Ok((list.matches("unhealthy").count() == 2).then_some(()))
    })
    .unwrap();
    fs::write(&file, without).unwrap();
    local.agent.command(&["reload"]).unwrap();
    assert_closed(&talker, &removed);
    assert_alive(&talker, &draining);
    let log = local.agent.process().output();
    assert!(log.contains("closed local clients' sockets"), "{log}");
}

/// The same for a client in a network namespace other than the agent's, as in a container.
#[test]
fn clients_in_other_namespaces() {
    let local = checked(1);
    let contained = local.talker(&local.topology.backends()[0], "contained");
    let asks = sockets(&contained, &local, 1);
    assert_alive(&contained, &asks);
    let file = local.agent.config_file().to_owned();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        text.replace("10.77.1.2:", "10.77.1.3:")
            .replace("[fd77:1::2]:", "[fd77:1::3]:"),
    )
    .unwrap();
    local.agent.command(&["reload"]).unwrap();
    assert_closed(&contained, &asks);
}
