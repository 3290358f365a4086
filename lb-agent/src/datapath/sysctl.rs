//! What packets that are handed to the node's own stack need of its settings. What is redirected
//! needs nothing of them: neither forwarding nor the reverse-path filter sees it.

use std::{fs, net::IpAddr, path::Path};

/// What keeps packets from a backend on one of the node's own addresses, and the mend; one sentence
/// each. `interfaces` are those that clients come by, `settings` is /proc/sys/net.
pub(super) fn obstacles(backend: IpAddr, interfaces: &[String], settings: &Path) -> Vec<String> {
    let mut found = Vec::new();
    if backend.is_loopback() {
        found.push(format!(
            "the stack drops what comes from outside for {backend}; have the backend listen on, and \
             be listed with, another address of the node"
        ));
    }
    if backend.is_ipv6() {
        return found;
    }
    let filter = |scope: &str| -> u8 {
        let path = settings.join("ipv4/conf").join(scope).join("rp_filter");
        let text = fs::read_to_string(path).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    };
    for interface in interfaces {
        // The kernel takes the greater of the two (Documentation/networking/ip-sysctl.rst).
        if filter("all").max(filter(interface)) == 1 {
            found.push(format!(
                "{interface} filters by reverse path, strictly: clients whose route leads elsewhere do \
                 not reach the backend {backend}; if there are such, \
                 `sysctl net.ipv4.conf.{interface}.rp_filter=2`"
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obstacles_name_the_mend() {
        let temporary = tempfile::tempdir().unwrap();
        let set = |scope: &str, value: &str| {
            let directory = temporary.path().join("ipv4/conf").join(scope);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("rp_filter"), value).unwrap();
        };
        let of = |backend: &str| {
            let interfaces = ["eth0".to_owned(), "eth1".to_owned()];
            obstacles(backend.parse().unwrap(), &interfaces, temporary.path())
        };
        assert!(of("192.0.2.1").is_empty(), "no such files");
        for (all, eth0, expected) in [
            ("0\n", "0\n", 0),
            ("0\n", "1\n", 1),
            ("1\n", "0\n", 2),
            ("1\n", "2\n", 1),
            ("2\n", "1\n", 0),
        ] {
            set("all", all);
            set("eth0", eth0);
            set("eth1", "0\n");
            let found = of("192.0.2.1");
            assert_eq!(found.len(), expected, "{all}, {eth0}: {found:?}");
            assert!(found.iter().all(|text| text.contains("rp_filter=2")));
            assert!(of("2001:db8::1").is_empty());
        }
        set("all", "0");
        assert!(
            of("127.0.0.1")
                .iter()
                .any(|text| text.contains("another address"))
        );
        assert!(of("::1")[0].contains("another address"));
    }
}
