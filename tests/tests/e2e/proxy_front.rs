//! Where requests come in: who is believed of whom he speaks for, who is admitted and how often,
//! VIPs that are the node's own, and protocols that connections change to.

use std::net::TcpStream;

use lb_tests::{process::wait_for, topology::Topology};

use crate::{
    proxy_scene::{SHARED, Site, haproxy, nginx},
    scene::{PATIENCE, VIP, address},
};

/// A listener whose connections begin with a header of the PROXY protocol.
const TOLD: &str = "10.77.0.1:8081";

/// Another load balancer in front of the node says whom it speaks for, and is believed if it is
/// one of those trusted; from all others such a header is no request.
#[test]
fn who_speaks_for_others_is_believed_if_trusted() {
    let listen = format!("\"{SHARED}\", {{ address = \"{TOLD}\", proxy_protocol = true }}");
    let site = Site::new(&listen, "trusted = [\"10.77.0.3/32\"]", "");
    // In front of the node: the client's second address is trusted, its first is not.
    let rows = [
        ("send-proxy", "10.77.0.3", 200, "127.0.0.7"),
        ("send-proxy-v2", "10.77.0.3", 200, "127.0.0.7"),
        ("send-proxy-v2-ssl-cn", "10.77.0.3", 200, "127.0.0.7"),
        ("send-proxy", "10.77.0.2", 400, ""),
        ("send-proxy-v2", "10.77.0.2", 400, ""),
        ("", "10.77.0.2", 200, "10.77.0.2"),
        // It has to say so.
        ("", "10.77.0.3", 0, ""),
    ];
    let sections: String = rows
        .iter()
        .enumerate()
        .map(|(place, (how, source, ..))| {
            format!(
                "listen l{place}\n  bind 127.0.0.1:{}\n  server node {TOLD} source {source} {how}\n",
                9000 + place
            )
        })
        .collect();
    let _front = haproxy(&site.topology, site.client(), "front", &sections);
    for (place, (how, source, status, client)) in rows.into_iter().enumerate() {
        let port = 9000 + place;
        wait_for("HAProxy", PATIENCE, || {
            let to = address(&format!("127.0.0.1:{port}"));
            Ok(site.client().run(|| TcpStream::connect(to).ok()))
        })
        .unwrap();
        let url = format!("http://127.0.0.1:{port}/head");
        let words = [
            "--interface",
            "127.0.0.7",
            "-H",
            "Host: web",
            "-H",
            "X-Forwarded-For: 192.0.2.66",
            &url,
        ];
        let got = site.curl(&words);
        assert_eq!(got.status, status, "{how} from {source}: {got:?}");
        if status == 200 {
            let line = format!("\nx-forwarded-for: {client}\n");
            assert!(
                got.body.contains(&line),
                "{how} from {source}: {}",
                got.body
            );
        }
    }
    // A client that speaks the protocol itself, to a listener that wants it and to one that does not.
    let speaking = |to: &str| {
        let url = format!("http://{to}/head");
        site.curl(&[
            "--haproxy-protocol",
            "--interface",
            "10.77.0.3",
            "-H",
            "Host: web",
            &url,
        ])
    };
    let got = speaking(TOLD);
    assert_eq!(got.status, 200, "{got:?}");
    assert!(
        got.body.contains("\nx-forwarded-for: 10.77.0.3\n"),
        "{}",
        got.body
    );
    let got = speaking(SHARED);
    assert_eq!(got.status, 400, "{got:?}");
    // What a trusted peer says in HTTP is kept.
    let url = format!("http://{SHARED}/head");
    let words = [
        "--interface",
        "10.77.0.3",
        "-H",
        "Host: web",
        "-H",
        "X-Forwarded-For: 192.0.2.66",
        &url,
    ];
    let got = site.curl(&words);
    assert!(
        got.body
            .contains("\nx-forwarded-for: 192.0.2.66, 10.77.0.3\n"),
        "{}",
        got.body
    );
}

/// nginx and HAProxy as backends are told the client by the PROXY protocol, by VIP and by host.
#[test]
fn backends_are_told_the_client() {
    for version in [1, 2] {
        let topology = Topology::new(2).unwrap();
        let server = "listen 8080 proxy_protocol;\nlocation / {\n  \
                      return 200 \"nginx $proxy_protocol_addr $proxy_protocol_server_port\\n\";\n}";
        let sections = "frontend f\n  mode http\n  bind :8080 accept-proxy\n  http-request return status 200 \
                        content-type text/plain lf-string \"haproxy %[src] %[dst_port]\\n\"\n";
        let backends = vec![
            nginx(&topology, 1, server),
            haproxy(&topology, &topology.backends()[1], "behind", sections),
        ];
        let service = format!("upstream = {{ proxy_protocol = {version} }}");
        let site = Site::with(topology, backends, &format!("\"{SHARED}\""), "", &service);
        for (url, port) in [
            (format!("http://{SHARED}/"), 8080),
            (format!("http://{VIP}/"), 80),
        ] {
            for source in ["10.77.0.2", "10.77.0.3"] {
                let words = ["--interface", source, "-H", "Host: web", &url];
                for backend in ["nginx", "haproxy"] {
                    let expected = format!("{backend} {source} {port}\n");
                    wait_for(&format!("{expected:?} by {url}"), PATIENCE, || {
                        site.agent.process().ensure_running()?;
                        let got = site.curl(&words);
                        // Both may answer, but neither takes the client for another.
                        let told = got.body.contains(&format!(" {source} {port}\n"));
                        assert!(got.status != 200 || told, "{version}: {got:?}");
                        Ok((got.body == expected).then_some(()))
                    })
                    .unwrap();
                }
            }
        }
    }
}

/// Only whom the service allows, whichever way he comes.
#[test]
fn clients_that_are_not_allowed_are_told_so() {
    let listen = format!("\"{SHARED}\"");
    let site = Site::new(&listen, "", "allow = [\"10.77.0.2/32\"]");
    let shared = format!("http://{SHARED}/");
    let words = |source| ["--interface", source, "-H", "Host: web", &shared];
    site.wait_for_status(&words("10.77.0.2"), 200);
    let refused = site.curl(&words("10.77.0.3"));
    assert_eq!(refused.status, 403, "{refused:?}");
    // Nobody passes for another by saying so.
    let mut pretending = words("10.77.0.3").to_vec();
    pretending.extend([
        "-H",
        "X-Forwarded-For: 10.77.0.2",
        "-H",
        "Forwarded: for=10.77.0.2",
    ]);
    assert_eq!(site.curl(&pretending).status, 403);
    // By its VIP the kernel turns away whom the service does not allow, before the proxy.
    let vip = format!("http://{VIP}/");
    let by_vip = |source| ["--connect-timeout", "1", "--interface", source, &vip];
    site.wait_for_status(&by_vip("10.77.0.2"), 200);
    let status = site.curl(&by_vip("10.77.0.3")).status;
    assert!(status == 0 || status == 403, "{status}");
}

/// Who comes too often is told so, and when to come again; others are not concerned.
#[test]
fn rates_are_kept() {
    let service = "rate_limit = [{ requests = 6, per = \"1h\", burst = 3, path = \"/size\" }]";
    let site = Site::new(&format!("\"{SHARED}\""), "", service);
    let limited = format!("http://{SHARED}/size/1");
    let from =
        |source: &str, url: &str| site.curl(&["--interface", source, "-H", "Host: web", url]);
    site.wait_for_status(&["-H", "Host: web", &format!("http://{SHARED}/head")], 200);
    for left in [2, 1, 0] {
        let got = from("10.77.0.2", &limited);
        assert_eq!(got.status, 200, "{got:?}");
        assert_eq!(got.header("ratelimit-limit"), Some("3"), "{got:?}");
        assert_eq!(
            got.header("ratelimit-remaining"),
            Some(&*left.to_string()),
            "{got:?}"
        );
    }
    let got = from("10.77.0.2", &limited);
    assert_eq!(got.status, 429, "{got:?}");
    let wait: u64 = got.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=600).contains(&wait), "{got:?}");
    assert_eq!(got.header("ratelimit-remaining"), Some("0"), "{got:?}");
    assert!(got.header("ratelimit-reset").is_some(), "{got:?}");
    // Another client, and another path.
    assert_eq!(from("10.77.0.3", &limited).status, 200);
    assert_eq!(
        from("10.77.0.2", &format!("http://{SHARED}/head")).status,
        200
    );
    // By the VIP as well.
    assert_eq!(
        from("10.77.0.2", &format!("http://{VIP}/size/1")).status,
        429
    );
}

/// A VIP that is an address of the node: nothing is steered, the proxy listens on it.
#[test]
fn a_vip_may_be_the_nodes_own_address() {
    let site = Site::new("", "", "");
    let own = "10.77.0.1:8090";
    let file = site.agent.config_file();
    let text = std::fs::read_to_string(file).unwrap();
    let list = format!("vip = [\"{VIP}\"]");
    assert!(text.contains(&list));
    std::fs::write(
        file,
        text.replace(&list, &format!("vip = [\"{VIP}\", \"{own}\"]")),
    )
    .unwrap();
    site.agent.command(&["reload"]).unwrap();
    let vip = format!("http://{VIP}/head");
    let own = format!("http://{own}/head");
    for (url, port) in [(&own, 8090), (&vip, 80)] {
        // Whatever the host: the VIP says which service is meant.
        let got = site.wait_for_status(&["-H", "Host: anything.example", url], 200);
        assert!(
            got.body.contains("\nx-forwarded-for: 10.77.0.2\n"),
            "{got:?}"
        );
        // The port that the client knows, not the one that packets for the VIP are steered to.
        let port = format!("\nx-forwarded-port: {port}\n");
        assert!(got.body.contains(&port), "{got:?}");
    }
    // From the node itself, too.
    let got = crate::proxy_scene::curl(site.topology.node(), &[&own]);
    assert_eq!(got.status, 200, "{got:?}");
    // It is given up with the service's address.
    let text = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, text.replace(", \"10.77.0.1:8090\"", "")).unwrap();
    site.agent.command(&["reload"]).unwrap();
    site.wait_for_status(&["--connect-timeout", "1", &own], 0);
    assert_eq!(site.curl(&[&vip]).status, 200);
}
