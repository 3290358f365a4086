//! The harness tested by itself: what the other tests take for granted. Needs root.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use lb_tests::{
    agent::Setup,
    backend::TCP_ECHO_PORT,
    client::{Client, RequestError},
    link,
    load::{Load, Pace},
    namespace::{self, Namespace},
    process::{Process, Signal, wait_for},
    prometheus::{self, Prometheus},
    topology::Topology,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn exists(namespace: &str) -> bool {
    Path::new("/run/netns").join(namespace).exists()
}

fn names(topology: &Topology) -> Vec<String> {
    let mut names = vec![
        topology.client().name().to_owned(),
        topology.node().name().to_owned(),
    ];
    names.extend(
        topology
            .backends()
            .iter()
            .map(|host| host.name().to_owned()),
    );
    names
}

#[test]
fn neighbours_reach_each_other_and_nobody_else() {
    let topology = Topology::new(2).unwrap();
    let _backends = [1, 2].map(|number| topology.start_echo(number).unwrap());
    let node = Client::new(topology.node());
    for (number, name) in [(1, "b1"), (2, "b2")] {
        for address in [
            topology.backend_address(number),
            topology.backend_address6(number),
        ] {
            let response = node.get(address, "/").unwrap();
            assert_eq!(response.backend(), Some(name), "{address}");
        }
    }
    // The node does not forward and the backends have no way back: nothing comes by itself.
    let outsider = Client::new(topology.client()).patience(Duration::from_millis(300));
    for address in [
        topology.backend_address(1),
        topology.backend_address6(1),
        "198.51.100.10:80".parse().unwrap(),
        "[2001:db8:100::10]:80".parse().unwrap(),
    ] {
        let error = outsider.get(address, "/").unwrap_err();
        assert!(
            matches!(
                error,
                RequestError::Connect(_) | RequestError::ConnectTimeout(_)
            ),
            "{address}: {error}"
        );
    }
}

#[test]
fn links_are_fit_for_xdp() {
    let topology = Topology::new(1).unwrap();
    let mut ends = vec![(topology.client(), "eth0".to_owned())];
    ends.push((&topology.backends()[0], "eth0".to_owned()));
    assert_eq!(topology.node_interfaces(), ["to-client", "to-b1"]);
    for interface in topology.node_interfaces() {
        ends.push((topology.node(), interface));
    }
    for (host, interface) in ends {
        let features = host.tool("ethtool", &["-k", &interface]).unwrap();
        for wanted in ["tx-checksumming: off", "generic-receive-offload: on"] {
            assert!(
                features.lines().any(|line| line.trim() == wanted),
                "{interface} of {}: not {wanted}",
                host.name()
            );
        }
    }
    let host = &topology.backends()[0];
    link::set_mtu(host, "eth0", 1300).unwrap();
    assert!(
        host.tool("ip", &["link", "show", "eth0"])
            .unwrap()
            .contains("mtu 1300")
    );
}

#[test]
fn the_second_client_address_is_used_only_on_demand() {
    let topology = Topology::new(0).unwrap();
    // The node answers by itself here, to tell which address it sees.
    let sources = [
        (
            topology.client_addresses(),
            SocketAddr::new("10.77.0.1".parse().unwrap(), 9),
        ),
        (
            topology.client_addresses6(),
            SocketAddr::new("fd77::1".parse().unwrap(), 9),
        ),
    ];
    for ([first, second], node) in sources {
        let seen = |client: Option<std::net::IpAddr>| {
            let server = topology
                .node()
                .run(|| std::net::UdpSocket::bind(node).unwrap());
            topology.client().run(|| {
                let any = client.map_or(SocketAddr::new(unspecified(node), 0), |ip| (ip, 0).into());
                let socket = std::net::UdpSocket::bind(any).unwrap();
                socket.send_to(b"who am I?", node).unwrap();
            });
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            server.recv_from(&mut [0; 64]).unwrap().1.ip()
        };
        assert_eq!(seen(None), first);
        assert_eq!(seen(Some(second)), second);
    }
}

fn unspecified(like: SocketAddr) -> std::net::IpAddr {
    match like {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[test]
fn nothing_is_left_when_a_test_panics() {
    let mut seen = Vec::new();
    let mut directory = PathBuf::new();
    let mut pid = 0;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let topology = Topology::new(1).unwrap();
        seen = names(&topology);
        directory = topology.directory().to_owned();
        let backend = topology.start_echo(1).unwrap();
        pid = backend.process().pid();
        assert!(seen.iter().all(|name| exists(name)) && directory.exists());
        topology.client().run(|| panic!("on purpose"));
    }));
    assert!(outcome.is_err());
    assert_eq!(seen.len(), 3);
    for name in seen {
        assert!(!exists(&name), "{name} is still there");
    }
    assert!(!directory.exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

/// Starts the program `topology` and returns it with the namespaces it has made.
fn held_topology(log: &Path) -> (Process, Vec<String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_topology"));
    command.args(["--backends", "1"]);
    let process = Process::start("topology", command, log).unwrap();
    wait_for("the topology", PATIENCE, || {
        process.ensure_running()?;
        Ok(process.output().contains("ready").then_some(()))
    })
    .unwrap();
    let pid = process.pid();
    let hosts = ["0-client", "1-node", "2-b1"];
    let names: Vec<String> = hosts
        .iter()
        .map(|host| format!("lb-{pid}-{host}"))
        .collect();
    for name in &names {
        assert!(exists(name), "{name} is not there");
    }
    (process, names)
}

#[test]
fn a_signal_removes_everything() {
    let directory = tempfile::tempdir().unwrap();
    let (process, names) = held_topology(&directory.path().join("log"));
    process.signal(Signal::Terminate).unwrap();
    let status = process.wait(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(143), "{}", process.tail());
    for name in names {
        assert!(!exists(&name), "{name} is still there");
    }
}

#[test]
fn what_a_killed_run_leaves_is_swept() {
    let directory = tempfile::tempdir().unwrap();
    let (process, names) = held_topology(&directory.path().join("log"));
    let prefix = format!("lb-{}-", process.pid());
    let scratch = || {
        let entries = fs::read_dir(std::env::temp_dir()).unwrap();
        entries
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter(|name| name.starts_with(&prefix))
            .count()
    };
    assert_eq!(scratch(), 1);
    process.kill().unwrap();
    // A namespace made at the same time by another test may have swept already.
    namespace::sweep();
    for name in names {
        assert!(!exists(&name), "{name} is still there");
    }
    assert_eq!(scratch(), 0);
}

#[test]
fn commands_and_closures_run_inside() {
    let host = Namespace::new("inside").unwrap();
    let outside = fs::read_link("/proc/thread-self/ns/net").unwrap();
    let inside = host.run(|| fs::read_link("/proc/thread-self/ns/net").unwrap());
    assert_ne!(inside, outside);
    let seen = host.tool("readlink", &["/proc/self/ns/net"]).unwrap();
    assert_eq!(Path::new(seen.trim()), inside);
    assert_eq!(fs::read_link("/proc/thread-self/ns/net").unwrap(), outside);
}

#[test]
fn the_echo_service_answers_as_documented() {
    let topology = Topology::new(1).unwrap();
    let mut backend = topology.start_echo(1).unwrap();
    let client = Client::new(topology.node());
    let address = topology.backend_address(1);

    let root = client.get(address, "/").unwrap();
    let json: serde_json::Value = serde_json::from_slice(&root.body).unwrap();
    assert_eq!(json, serde_json::json!({"hostname": "b1", "text": "hello"}));

    let health = || client.get(address, "/health").unwrap().status;
    assert_eq!(health(), 200);
    backend.set_failing(true).unwrap();
    assert_eq!(health(), 503);
    assert_eq!(client.get(address, "/").unwrap().status, 200);
    backend.set_failing(false).unwrap();
    assert_eq!(health(), 200);

    let progress = AtomicU64::new(0);
    let length = 1_000_001;
    let got = client.download(address, length, None, &progress).unwrap();
    assert_eq!(got.backend(), Some("b1"));
    assert_eq!(progress.load(Ordering::Relaxed), length);
    assert_eq!(
        client.upload(address, length).unwrap().backend(),
        Some("b1")
    );
    assert_eq!(client.get(address, "/bytes/x").unwrap().status, 400);
    assert_eq!(client.get(address, "/nothing").unwrap().status, 404);

    for to in [address, topology.backend_address6(1)] {
        assert_eq!(client.udp(to, b"ping").unwrap(), b"b1:ping");
    }
    assert_eq!(client.spread_udp(address, 20, 4).of("b1"), 20);

    let echoed = topology.node().run(|| {
        use std::io::{Read, Write};
        let to = SocketAddr::new(address.ip(), TCP_ECHO_PORT);
        let mut stream = std::net::TcpStream::connect(to).unwrap();
        stream.write_all(b"plain").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    assert_eq!(echoed, "plain");

    backend.process().kill().unwrap();
    assert_eq!(
        client.get(address, "/").unwrap_err(),
        RequestError::Connect(std::io::ErrorKind::ConnectionRefused)
    );
    backend.restart().unwrap();
    assert_eq!(client.get(address, "/").unwrap().backend(), Some("b1"));
    let status = backend.process().stop().unwrap();
    assert!(status.success(), "{}", backend.process().tail());
}

/// A service that sends something else than the pattern is found out.
#[test]
fn a_wrong_byte_fails_a_download() {
    use std::io::{Read, Write};
    let host = Namespace::new("liar").unwrap();
    let address: SocketAddr = "127.0.0.1:80".parse().unwrap();
    let listener = host.run(|| std::net::TcpListener::bind(address).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            let mut body = [0; 100];
            lb_tests::pattern::fill(0, &mut body);
            body[70] ^= 0x80;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
                .unwrap();
            stream.write_all(&body).unwrap();
        });
        let client = Client::new(&host);
        let outcome = client.download(address, 100, None, &AtomicU64::new(0));
        assert_eq!(outcome.unwrap_err(), RequestError::Corrupt(70));
    });
}

#[test]
fn a_chosen_port_can_be_used_again_at_once() {
    let topology = Topology::new(1).unwrap();
    let _backend = topology.start_echo(1).unwrap();
    let mut client = Client::new(topology.node());
    client.options.source = Some("10.77.1.1:4242".parse().unwrap());
    client.options.reset = true;
    for _ in 0..20 {
        let response = client.get(topology.backend_address(1), "/").unwrap();
        assert_eq!(response.local_port, 4242);
    }
}

#[test]
fn load_tells_answers_from_failures() {
    let topology = Topology::new(1).unwrap();
    let backend = topology.start_echo(1).unwrap();
    let client = Client::new(topology.node());
    let pace = Pace {
        threads: 2,
        rate: Some(200.0),
    };
    let load = Load::start(&client, backend.address(), pace);
    let answered = |load: &Load, count| {
        wait_for("answers", PATIENCE, || {
            Ok((load.record().all().answered() >= count).then_some(()))
        })
        .unwrap();
    };
    answered(&load, 20);
    assert_eq!(load.record().all().failed(), 0);
    backend.process().kill().unwrap();
    let dead = load.now();
    wait_for("failures", PATIENCE, || {
        Ok((load.record().all().failed() >= 10).then_some(()))
    })
    .unwrap();
    let record = load.stop();
    let after = record.between(dead, Duration::MAX);
    assert_eq!(after.answered(), 0);
    assert!(after.failed() >= 9, "{after:?}");
    assert!(record.failures().all(|sample| sample.ended <= record.until));
    assert!(record.longest_gap(Duration::ZERO) >= record.until - dead);
}

#[test]
fn prometheus_scrapes_and_answers() {
    let host = Namespace::new("prom").unwrap();
    let directory = tempfile::tempdir().unwrap();
    // It scrapes itself: the one target that is there for certain.
    let own = "127.0.0.1:9090".parse().unwrap();
    let prometheus = Prometheus::start(&host, own, directory.path()).unwrap();
    let up = wait_for("the first scrape", PATIENCE, || {
        prometheus.value("up{job=\"lb-agent\"}")
    });
    assert_eq!(up.unwrap(), 1.0);
    assert_eq!(prometheus.value("no_such_series").unwrap(), None);
    assert!(prometheus.value("this is no query").is_err());
}

#[test]
fn promtool_judges_metrics() {
    let good =
        "# HELP lb_packets_total Packets.\n# TYPE lb_packets_total counter\nlb_packets_total 1\n";
    prometheus::check_metrics(good).unwrap();
    let bad = good.replace("lb_packets_total", "lb_packets");
    let error = prometheus::check_metrics(&bad).unwrap_err().to_string();
    assert!(error.contains("_total"), "{error}");
}

/// Plays `lb-agent`: answers `status` while `run` runs, and tells its arguments.
const FAKE_AGENT: &str = r#"#!/bin/sh
case "$1" in
run)
    config=$3
    bpf=$(sed -n 's/^bpf_dir = "\(.*\)"/\1/p' "$config")
    run=$(sed -n 's/^runtime_dir = "\(.*\)"/\1/p' "$config")
    mkdir -p "$bpf/maps" "$run"
    echo "started $(grep -c . "$config")"
    touch "$run/agent.sock"
    exec sleep 1000 ;;
--socket)
    socket=$2; shift 2
    [ -e "$socket" ] || exit 4
    [ "$1" = status ] && exit 3
    echo "args: $*"
    [ "$1" = status ] || exit 1 ;;
detach)
    echo "$2" > "$(dirname "$0")/detached" ;;
esac
"#;

#[test]
fn an_agent_is_configured_started_and_removed() {
    let topology = Topology::new(2).unwrap();
    let fake = topology.directory().join("fake-agent");
    fs::write(&fake, FAKE_AGENT).unwrap();
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
    let mut agent = Setup::new(&topology)
        .binary(&fake)
        .node("xdp_mode = \"native\"")
        .config("[metrics]\nlisten = \"127.0.0.1:9180\"")
        .start()
        .unwrap();
    let text = fs::read_to_string(agent.config_file()).unwrap();
    assert!(
        text.contains(r#"interfaces = ["to-client", "to-b1", "to-b2"]"#),
        "{text}"
    );
    assert!(
        text.contains("xdp_mode = \"native\"\n") && text.contains("[metrics]\n"),
        "{text}"
    );
    assert!(agent.socket().exists() && agent.pins().exists());

    let output = agent.cli(&["backend", "list"]).unwrap();
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (1, "args: backend list\n")
    );
    let error = agent.command(&["backend", "list"]).unwrap_err().to_string();
    assert!(error.contains("`lb-agent backend list` ended with exit code 1"));

    agent.kill9().unwrap();
    assert!(agent.process().ensure_running().is_err());
    assert!(agent.pins().exists());
    agent.restart().unwrap();
    agent.process().ensure_running().unwrap();

    let pins = agent.pins().to_owned();
    let pid = agent.process().pid();
    drop(agent);
    assert!(!pins.exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    let detached = fs::read_to_string(topology.directory().join("detached")).unwrap();
    assert_eq!(detached, "--bpf-dir\n");
}

#[test]
fn an_agent_that_ends_at_once_is_quoted() {
    let topology = Topology::new(0).unwrap();
    let fake = topology.directory().join("fake-agent");
    fs::write(
        &fake,
        "#!/bin/sh\n[ $1 = run ] || exit 4\necho no such interface >&2; exit 2\n",
    )
    .unwrap();
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
    let error = Setup::new(&topology).binary(&fake).start().unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("exit code 2") && error.contains("no such interface"),
        "{error}"
    );
}

mod consul_server {
    use lb_tests::consul::{Consul, Registration};
    use serde_json::{Value, json};

    use super::*;

    fn passing(consul: &Consul) -> Vec<Value> {
        let answer = consul.get("/v1/health/service/echo?passing").unwrap();
        answer.as_array().unwrap().clone()
    }

    #[test]
    fn serves_what_is_registered() {
        let host = Namespace::new("consul").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut consul = Consul::start(&host, directory.path()).unwrap();
        let register = |consul: &Consul, id| {
            let instance = Registration {
                service: "echo",
                id,
                address: "10.77.1.2:8080".parse().unwrap(),
                tags: &["v1"],
                meta: &[("version", "1")],
                weights: (5, 1),
            };
            consul.register(instance).unwrap();
        };
        register(&consul, "echo-1");
        let only = &passing(&consul)[0]["Service"];
        assert_eq!(only["Address"], "10.77.1.2");
        assert_eq!(only["Port"], 8080);
        assert_eq!(only["Tags"], json!(["v1"]));
        assert_eq!(only["Meta"]["version"], "1");
        assert_eq!(only["Weights"], json!({"Passing": 5, "Warning": 1}));

        consul.set_maintenance("echo-1", true).unwrap();
        wait_for("maintenance", PATIENCE, || {
            Ok(passing(&consul).is_empty().then_some(()))
        })
        .unwrap();
        consul.set_maintenance("echo-1", false).unwrap();
        wait_for("service", PATIENCE, || {
            Ok((passing(&consul).len() == 1).then_some(()))
        })
        .unwrap();

        consul.put_kv("a/key", "value").unwrap();
        assert_eq!(consul.get("/v1/kv/a/key?raw=").ok(), None);
        assert_eq!(consul.get("/v1/kv/a/key").unwrap()[0]["Value"], "dmFsdWU=");
        let snapshot = consul.snapshot().unwrap();
        consul.put_kv("a/key", "other").unwrap();
        consul.restore(snapshot).unwrap();
        assert_eq!(consul.get("/v1/kv/a/key").unwrap()[0]["Value"], "dmFsdWU=");

        consul.restart().unwrap();
        wait_for("echo-1 to be back", PATIENCE, || {
            Ok((passing(&consul).len() == 1).then_some(()))
        })
        .unwrap();
        consul.deregister("echo-1").unwrap();
        assert!(passing(&consul).is_empty());
        register(&consul, "echo-2");
        consul.restart_empty().unwrap();
        assert!(passing(&consul).is_empty());

        consul.pause().unwrap();
        let impatient = Client::new(&host).patience(Duration::from_millis(300));
        let address = lb_tests::consul::ADDRESS.parse().unwrap();
        let error = impatient.get(address, "/v1/status/leader").unwrap_err();
        assert!(matches!(error, RequestError::AnswerTimeout(_)), "{error}");
        consul.resume().unwrap();
        consul.put_kv("a/key", "again").unwrap();
        consul.stop().unwrap();
        assert!(consul.get("/v1/status/leader").is_err());
    }
}
