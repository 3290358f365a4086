//! TLS that ends at the proxy: certificates by name, which are read again when their files change.

use std::fs;

use lb_tests::{authority, process::wait_for, topology::Topology};

use crate::{
    proxy_scene::{Site, web},
    scene::PATIENCE,
};

const SECURE: &str = "10.77.0.1:8443";

/// The certificate that is presented to who asks for a name, or for none: its serial number and
/// its names.
fn presented(site: &Site, name: Option<&str>) -> Option<String> {
    let name = name.map_or("-noservername".to_owned(), |name| {
        format!("-servername {name}")
    });
    let script = format!(
        "openssl s_client -connect {SECURE} {name} </dev/null 2>/dev/null \
         | openssl x509 -noout -serial -ext subjectAltName"
    );
    let text = site.client().tool("sh", &["-c", &script]).ok()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[test]
fn certificates_by_name_and_anew() {
    let topology = Topology::new(1).unwrap();
    let directory = topology.directory().to_owned();
    authority::found(&directory).unwrap();
    authority::issue(&directory, "a", &["a.test", "*.wild.test"]).unwrap();
    authority::issue(&directory, "b", &["b.test"]).unwrap();
    let pair = |stem: &str| {
        let file = directory.join(stem);
        let file = file.display();
        format!("{{ cert = \"{file}.pem\", key = \"{file}.key\" }}")
    };
    let listen = format!(
        "{{ address = \"{SECURE}\", tls = [{}, {}] }}",
        pair("a"),
        pair("b")
    );
    let hosts = "hosts = [\"a.test\", \"b.test\", \"x.wild.test\", \"c.test\"]";
    let backend = web(&topology, 1);
    let site = Site::with(topology, vec![backend], &listen, "", hosts);
    let ca = directory.join(authority::CERTIFICATE).display().to_string();
    let ask = |host: &str, more: &[&str]| {
        let resolve = format!("{host}:8443:10.77.0.1");
        let url = format!("https://{host}:8443/head");
        let mut words = vec!["--cacert", &*ca, "--resolve", &*resolve, &*url];
        words.extend(more);
        site.curl(&words)
    };
    // The client checks the name: each gets the certificate that has it.
    for host in ["a.test", "b.test", "x.wild.test"] {
        for (version, line) in [("--http1.1", "HTTP/1.1 200"), ("--http2", "HTTP/2 200")] {
            let got = ask(host, &[version]);
            assert_eq!(
                (got.code, got.status),
                (0, 200),
                "{host} {version}: {got:?}"
            );
            assert!(got.head[0].starts_with(line), "{host} {version}: {got:?}");
            let told = format!(";host=\"{host}:8443\";proto=https\n");
            assert!(got.body.contains(&told), "{}", got.body);
        }
    }
    // A name that no certificate has: the first, which the client does not take.
    assert_eq!(ask("c.test", &[]).code, 60);
    let first = presented(&site, None).unwrap();
    assert!(first.contains("a.test"), "{first}");
    assert_eq!(presented(&site, Some("c.test")).as_deref(), Some(&*first));
    assert!(presented(&site, Some("B.TEST")).unwrap().contains("b.test"));
    // Whoever speaks without TLS gets nothing of the service.
    assert_eq!(site.curl(&[&format!("http://{SECURE}/head")]).status, 0);

    // New files, new certificate; connections are not disturbed, and the other is the same.
    let other = presented(&site, Some("b.test")).unwrap();
    authority::issue(&directory, "a", &["a.test", "c.test"]).unwrap();
    let renewed = wait_for("the new certificate", PATIENCE, || {
        Ok(presented(&site, None).filter(|now| *now != first))
    })
    .unwrap();
    assert!(renewed.contains("c.test"), "{renewed}");
    assert_eq!(ask("c.test", &[]).status, 200);
    assert_eq!(presented(&site, Some("b.test")).as_deref(), Some(&*other));

    // Bad files, each in its way: what is there goes on, and the agent complains.
    let good = fs::read(directory.join("a.pem")).unwrap();
    let problems = || {
        let status = site.agent.cli(&["-o", "json", "status"]).unwrap().stdout;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["problems"].to_string()
    };
    let other_key = fs::read(directory.join("b.pem")).unwrap();
    for bad in [
        &b"no certificate"[..],
        b"",
        &good[..good.len() / 2],
        &other_key,
    ] {
        fs::write(directory.join("a.pem"), bad).unwrap();
        wait_for("a complaint", PATIENCE, || {
            Ok(problems().contains("a.pem").then_some(()))
        })
        .unwrap();
        assert_eq!(presented(&site, None).as_deref(), Some(&*renewed));
        assert_eq!(ask("a.test", &[]).status, 200);
        assert_eq!(ask("b.test", &[]).status, 200);
    }
    fs::remove_file(directory.join("a.pem")).unwrap();
    assert_eq!(ask("a.test", &[]).status, 200);
    fs::write(directory.join("a.pem"), good).unwrap();
    wait_for("no complaint", PATIENCE, || {
        Ok((!problems().contains("a.pem")).then_some(()))
    })
    .unwrap();
    assert_eq!(presented(&site, None).as_deref(), Some(&*renewed));
}
