//! Whether a browser asks for this node, or for a name that a web page made point here (DNS
//! rebinding). Such a page calls the node by a name of its own; it cannot call it by an address.

use std::net::{IpAddr, SocketAddr};

/// What a `Host` may say.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    /// Nobody but this machine gets to the listener.
    loopback: bool,
    /// Names in lower case, besides `localhost`.
    named: Vec<String>,
}

impl Hosts {
    /// For a listener at `listen` that is known by these names, too.
    pub(super) fn new(listen: SocketAddr, named: Vec<String>) -> Self {
        Self {
            loopback: is_loopback(listen.ip()),
            named,
        }
    }

    /// Whether this is a name of the node: `localhost`, a configured one, or an address; of a
    /// listener on loopback, a loopback address.
    pub(super) fn knows(&self, host: &str) -> bool {
        let name = without_port(host);
        let bare = name
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(name);
        match bare.parse::<IpAddr>() {
            Ok(address) if self.loopback => is_loopback(address),
            Ok(address) => !address.is_unspecified(),
            Err(_) => {
                let lower = name.to_ascii_lowercase();
                lower == "localhost" || self.named.contains(&lower)
            }
        }
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // The last group of a bare IPv6 address is no port, but such a `Host` is none either.
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_page_could_have_chosen_are_not_known() {
        let named = || vec!["lb1.example".to_owned()];
        let local = Hosts::new(([127, 0, 0, 1], 9180).into(), named());
        let open = Hosts::new(([0, 0, 0, 0], 9180).into(), named());
        // A `Host`; known on loopback; known elsewhere.
        let rows = [
            ("127.0.0.1:9180", true, true),
            ("127.0.0.1", true, true),
            ("127.1.2.3:1", true, true),
            ("[::1]:9180", true, true),
            ("[::1]", true, true),
            ("[::ffff:127.0.0.1]:80", true, true),
            ("localhost:9180", true, true),
            ("LOCALHOST", true, true),
            ("lb1.example:9180", true, true),
            ("LB1.Example", true, true),
            ("198.51.100.7:9180", false, true),
            ("[2001:db8::1]:9180", false, true),
            ("0.0.0.0:9180", false, false),
            ("[::]:9180", false, false),
            ("evil.example:9180", false, false),
            ("localhost.evil.example", false, false),
            ("127.0.0.1.evil.example:9180", false, false),
            ("evil.example:127.0.0.1", false, false),
            ("2130706433", false, false),
            ("0x7f.1", false, false),
            ("", false, false),
            (":9180", false, false),
            ("[]", false, false),
            ("user@127.0.0.1", false, false),
        ];
        for (host, on_loopback, elsewhere) in rows {
            assert_eq!(local.knows(host), on_loopback, "{host:?} on loopback");
            assert_eq!(open.knows(host), elsewhere, "{host:?} elsewhere");
        }
    }
}
