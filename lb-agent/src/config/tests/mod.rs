//! Rows of configuration text: what is wrong with it and where, and what is read from it.
//!
//! A `▶` in a row's text stands where a finding is expected, and is taken out before the text is
//! read. `NODE` and `SERVICE` are replaced by what a row needs but is not about.

mod accepted;
mod consul;
mod docker;
mod http;
mod mutated;
mod page;
mod refused;
mod refused_health;
mod refused_http;
mod refused_proxy;
mod refused_services;

use std::path::Path;

use super::*;

const NODE: &str = "[node]\ninterfaces = [\"eth0\"]";
/// The documentation's example, with what this version has.
const EXAMPLE: &str = r#"
[node]
interfaces = ["eth0"]              # where packets for the VIPs arrive
xdp_mode = "auto"                  # auto | native | generic

[consul]                           # absent: no Consul
address = "http://127.0.0.1:8500"

[metrics]
listen = "127.0.0.1:9180"

[[service]]
name = "echo"
vip = ["198.51.100.10:80"]
protocol = "tcp"                   # tcp | udp
forwarding = "nat"
consul = { service = "echo" }
subsets = { v1 = { tag = "v1" }, v2 = { meta = { version = "2" } } }
split = { v1 = 90, v2 = 10 }
health = { kind = "http", path = "/health", interval = "2s", timeout = "1s", rise = 2, fall = 3 }
"#;
const SERVICE: &str = "[[service]]\nname = \"echo\"\nvip = [\"198.51.100.10:80\"]";

fn read(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment = |name: &str| {
        environment
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    };
    parse_in(text, Path::new("lb.toml"), &environment)
}

fn expand(text: &str) -> String {
    text.replace("NODE", NODE).replace("SERVICE", SERVICE)
}

/// The text without its marks, and line and column of each.
fn unmark(marked: &str) -> (String, Vec<(usize, usize)>) {
    let (mut text, mut marks) = (String::new(), Vec::new());
    let (mut line, mut column) = (1, 1);
    for c in expand(marked).chars() {
        match c {
            '▶' => {
                marks.push((line, column));
                continue;
            }
            '\n' => (line, column) = (line + 1, 1),
            _ => column += 1,
        }
        text.push(c);
    }
    (text, marks)
}

/// Checks that the text is refused at its marks, in their order, with the words given for each.
fn refused(marked: &str, words: &[&str]) {
    let (text, marks) = unmark(marked);
    let error = match read(&text, &[]) {
        Ok(config) => panic!("{text}\nwas accepted as {config:#?}"),
        Err(error) => error,
    };
    let ConfigError::Invalid(Findings(findings)) = &error else {
        panic!("{text}\n{error}")
    };
    let places: Vec<(usize, usize)> = findings
        .iter()
        .map(|finding| match finding.place {
            Place::File { line, column, .. } => (line, column),
            Place::Environment(name) => panic!("{name}"),
        })
        .collect();
    assert_eq!(places, marks, "{text}\n{error}");
    for (finding, word) in findings.iter().zip(words) {
        assert!(
            finding.reason.contains(word),
            "{text}\n{error}\nlacks `{word}`"
        );
        assert!(!finding.reason.ends_with('.'), "{error}");
    }
    assert_eq!(findings.len(), words.len(), "{text}\n{error}");
}
