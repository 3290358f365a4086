//! Clients with few ports that come often: another proxy before the node, above all. They use a
//! port again while their last connection from it is still in TIME_WAIT at the other end.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use lb_tests::{namespace::Namespace, pace::at_this_pace};

use crate::{
    proxy_stage::Stage,
    scene::{VIP, address, counter},
};

/// As many ports as the client has, and the node for its flows.
const PORTS: usize = 64;

/// SYNs that were dropped because their timestamps were older than those of a connection in
/// TIME_WAIT (`LINUX_MIB_PAWS_TW_REJECTED` of include/uapi/linux/snmp.h, since Linux 6.16).
fn taken_for_old(host: &Namespace) -> Option<u64> {
    counter(host, "netstat", "TcpExt:", "PAWSTimewait")
}

/// One request on a connection that the other side closes first, as the one that keeps TIME_WAIT.
fn ask() -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address(VIP), Duration::from_secs(10))?;
    stream.set_read_timeout(Some(at_this_pace(Duration::from_secs(5))))?;
    stream.write_all(b"GET /size/10 HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Ten times as many connections as there are ports, within TIME_WAIT: by the proxy, whose sockets
/// see the client's own ports, and by the kernel to a backend, which sees the node's.
#[test]
fn no_connection_is_taken_for_an_old_one() {
    for protocol in ["http", "tcp"] {
        let (first, last) = (50_000, 50_000 + PORTS - 1);
        let stage = Stage::on(
            &format!("nat_ports = \"{first}-{last}\""),
            1,
            &format!("protocol = \"{protocol}\""),
        );
        let client = stage.client();
        let range = format!("{first} {last}");
        client.sysctl("ipv4.ip_local_port_range", &range).unwrap();
        let failed: Vec<String> = client.run(|| {
            let answers = (0..10 * PORTS).map(|number| match ask() {
                Ok(answer) if answer.starts_with("HTTP/1.1 200") => None,
                other => Some(format!("{number}: {other:?}")),
            });
            answers.flatten().collect()
        });
        assert_eq!(failed, [""; 0], "{protocol}");
        let hosts = [stage.topology.node(), &stage.topology.backends()[0]];
        for host in hosts {
            let old = taken_for_old(host).unwrap_or(0);
            assert_eq!(old, 0, "{protocol}, {}", host.name());
        }
    }
}

/// Who was blocked and is let in again finds the node's ports as they were: its former connections' ends,
/// which the backend keeps for a minute, are not met by others of its own.
#[test]
fn a_block_that_ends_leaves_no_old_ones() {
    let (first, last) = (50_000, 50_000 + PORTS - 1);
    let stage = Stage::on(
        &format!("nat_ports = \"{first}-{last}\""),
        1,
        "protocol = \"tcp\"",
    );
    let client = stage.client();
    // Others than the node's, which are therefore not simply the same.
    let range = format!("{} {}", first - PORTS, first - 1);
    client.sysctl("ipv4.ip_local_port_range", &range).unwrap();
    let ask_all = |what: &str| {
        let failed: Vec<String> = client.run(|| {
            let answers = (0..PORTS).map(|number| match ask() {
                Ok(answer) if answer.starts_with("HTTP/1.1 200") => None,
                other => Some(format!("{number}: {other:?}")),
            });
            answers.flatten().collect()
        });
        assert_eq!(failed, [""; 0], "{what}");
    };
    ask_all("before");
    let address = stage.topology.client_addresses()[0].to_string();
    for round in 0..5 {
        stage.agent.command(&["block", "add", &address]).unwrap();
        stage.agent.command(&["block", "del", &address]).unwrap();
        ask_all(&format!("round {round}"));
    }
    let old = taken_for_old(&stage.topology.backends()[0]).unwrap_or(0);
    assert_eq!(old, 0);
}
