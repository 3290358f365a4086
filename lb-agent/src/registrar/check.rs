//! The health check that a container asks Consul for: `SERVICE_CHECK_…` into Consul's definition.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value, json};

use super::metadata::{Word, Words};

/// Between two checks, unless told otherwise; registrator's default.
const INTERVAL: &str = "10s";

/// What would have Consul run a program, which whoever writes an image must not decide.
const SCRIPTS: [&str; 4] = ["check_script", "check_cmd", "check_docker", "check_args"];

/// The kinds of checks, in the order in which one goes before another.
const KINDS: [&str; 5] = [
    "check_http",
    "check_https",
    "check_tcp",
    "check_grpc",
    "check_ttl",
];

/// Reads and takes everything that begins with `check_`. `None`: no check is asked for, or what is
/// cannot be had; then `complain` says why.
pub(super) fn check(
    words: &mut Words,
    address: IpAddr,
    port: u16,
    complain: &mut impl FnMut(&Word, &str),
) -> Option<Value> {
    for key in SCRIPTS {
        if let Some(word) = words.take(key) {
            complain(
                &word,
                "checks that run a program are not registered; use SERVICE_CHECK_HTTP, _TCP, _GRPC or _TTL",
            );
        }
    }
    let mut kinds = KINDS
        .iter()
        .filter_map(|key| Some((*key, words.take(key)?)));
    let kind = kinds.next();
    let others: Vec<(&str, Word)> = kinds.collect();
    for (_, word) in &others {
        complain(
            word,
            "a service has one check, and another goes before this one",
        );
    }
    let mut options = Options { words, complain };
    let interval = options.duration("check_interval");
    let timeout = options.duration("check_timeout");
    let deregister = options.duration("check_deregister_after");
    let method = options.words.take("check_http_method");
    let insecure = options.flag("check_tls_skip_verify");
    let tls = options.flag("check_grpc_use_tls");
    let status = options.status();
    let (key, word) = kind?;
    let to = SocketAddr::new(address, port);
    let mut check = Map::new();
    let mut set = |key: &str, value: Value| {
        check.insert(key.to_owned(), value);
    };
    match key {
        "check_http" | "check_https" => {
            if !is_path(&word.value) {
                complain(&word, "must be a path that begins with `/`, without blanks");
                return None;
            }
            let scheme = key.trim_start_matches("check_");
            set("HTTP", json!(format!("{scheme}://{to}{}", word.value)));
            if let Some(method) = method {
                set("Method", json!(method.value));
            }
        }
        "check_tcp" => set("TCP", json!(to.to_string())),
        "check_grpc" => {
            let service = match word.value.as_str() {
                "true" | "1" | "yes" => String::new(),
                name => format!("/{name}"),
            };
            set("GRPC", json!(format!("{to}{service}")));
            set("GRPCUseTLS", json!(tls));
        }
        _ => {
            if !is_duration(&word.value) {
                complain(&word, NO_DURATION);
                return None;
            }
            set("TTL", json!(word.value));
        }
    }
    if key != "check_ttl" {
        set("Interval", json!(interval.as_deref().unwrap_or(INTERVAL)));
        if let Some(timeout) = timeout {
            set("Timeout", json!(timeout));
        }
    }
    if insecure {
        set("TLSSkipVerify", json!(true));
    }
    if let Some(status) = status {
        set("Status", json!(status));
    }
    if let Some(deregister) = deregister {
        set("DeregisterCriticalServiceAfter", json!(deregister));
    }
    Some(Value::Object(check))
}

const NO_DURATION: &str = "is no duration as Consul reads them, such as 10s, 500ms or 1m30s";

/// Reads what goes along with a check.
struct Options<'a, F> {
    words: &'a mut Words,
    complain: &'a mut F,
}

impl<F: FnMut(&Word, &str)> Options<'_, F> {
    fn duration(&mut self, key: &str) -> Option<String> {
        let word = self.words.take(key)?;
        if is_duration(&word.value) {
            return Some(word.value);
        }
        (self.complain)(&word, NO_DURATION);
        None
    }

    fn flag(&mut self, key: &str) -> bool {
        let word = self.words.take(key);
        word.is_some_and(|word| !["false", "0", "no"].contains(&word.value.as_str()))
    }

    fn status(&mut self) -> Option<String> {
        let word = self.words.take("check_initial_status")?;
        if ["passing", "warning", "critical"].contains(&word.value.as_str()) {
            return Some(word.value);
        }
        (self.complain)(&word, "must be passing, warning or critical");
        None
    }
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.chars().all(|letter| letter.is_ascii_graphic())
}

/// Whether Go's `time.ParseDuration` takes it and it is above zero: numbers with units, without
/// blanks. Signs and bare fractions have no use here.
fn is_duration(text: &str) -> bool {
    const UNITS: [&str; 6] = ["ns", "us", "ms", "s", "m", "h"];
    let mut rest = text;
    let mut above_zero = false;
    while !rest.is_empty() {
        let digits = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number = &rest[..rest.len() - digits.len()];
        let letters = digits.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let unit = &digits[..digits.len() - letters.len()];
        let Some(number) = number.parse::<f64>().ok().filter(|_| UNITS.contains(&unit)) else {
            return false;
        };
        above_zero |= number > 0.0;
        rest = letters;
    }
    above_zero
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(pairs: &[(&str, &str)]) -> (Option<Value>, Vec<String>) {
        let words = pairs.iter().map(|(key, value)| {
            let word = Word {
                value: (*value).to_owned(),
                place: format!("label {key}"),
                of_port: false,
            };
            ((*key).to_owned(), word)
        });
        let mut words = Words(words.collect());
        let mut complaints = Vec::new();
        let address = "10.0.0.5".parse().unwrap();
        let check = check(
            &mut words,
            address,
            8080,
            &mut |word: &Word, reason: &str| {
                complaints.push(format!("{}: {reason}", word.place));
            },
        );
        assert_eq!(words.0.len(), 0, "left of {pairs:?}: {words:?}");
        (check, complaints)
    }

    #[test]
    fn each_kind_of_check() {
        let rows: [(&[(&str, &str)], Value); 6] = [
            (
                &[
                    ("check_http", "/health?x=1"),
                    ("check_interval", "15s"),
                    ("check_timeout", "1s"),
                ],
                json!({"HTTP": "http://10.0.0.5:8080/health?x=1", "Interval": "15s", "Timeout": "1s"}),
            ),
            (
                &[
                    ("check_https", "/"),
                    ("check_tls_skip_verify", "true"),
                    ("check_http_method", "HEAD"),
                    ("check_initial_status", "passing"),
                    ("check_deregister_after", "1m30s"),
                ],
                json!({
                    "HTTP": "https://10.0.0.5:8080/", "Interval": "10s", "TLSSkipVerify": true,
                    "Method": "HEAD", "Status": "passing", "DeregisterCriticalServiceAfter": "1m30s",
                }),
            ),
            (
                &[("check_tcp", "true")],
                json!({"TCP": "10.0.0.5:8080", "Interval": "10s"}),
            ),
            (
                &[("check_grpc", "true")],
                json!({"GRPC": "10.0.0.5:8080", "GRPCUseTLS": false, "Interval": "10s"}),
            ),
            (
                &[("check_grpc", "my.Service"), ("check_grpc_use_tls", "true")],
                json!({"GRPC": "10.0.0.5:8080/my.Service", "GRPCUseTLS": true, "Interval": "10s"}),
            ),
            (
                &[("check_ttl", "30s"), ("check_interval", "1s")],
                json!({"TTL": "30s"}),
            ),
        ];
        for (pairs, expected) in rows {
            assert_eq!(made(pairs), (Some(expected), vec![]), "{pairs:?}");
        }
        assert_eq!(made(&[]), (None, vec![]));
        assert_eq!(made(&[("check_interval", "1s")]), (None, vec![]));
    }

    #[test]
    fn what_is_refused_is_named() {
        type Row<'a> = (&'a [(&'a str, &'a str)], bool, &'a str);
        let rows: [Row; 7] = [
            (
                &[("check_script", "curl x")],
                false,
                "label check_script: checks that run a program",
            ),
            (
                &[("check_cmd", "x"), ("check_tcp", "1")],
                true,
                "label check_cmd: checks that run",
            ),
            (
                &[("check_http", "health")],
                false,
                "label check_http: must be a path",
            ),
            (
                &[("check_ttl", "30")],
                false,
                "label check_ttl: is no duration",
            ),
            (
                &[("check_tcp", "1"), ("check_interval", "soon")],
                true,
                "label check_interval: is no",
            ),
            (
                &[("check_tcp", "1"), ("check_http", "/")],
                true,
                "label check_tcp: a service has one",
            ),
            (
                &[("check_tcp", "1"), ("check_initial_status", "good")],
                true,
                "label check_initial_status: must be passing",
            ),
        ];
        for (pairs, there, complaint) in rows {
            let (check, complaints) = made(pairs);
            assert_eq!(check.is_some(), there, "{pairs:?}");
            assert_eq!(complaints.len(), 1, "{complaints:?}");
            assert!(complaints[0].starts_with(complaint), "{complaints:?}");
        }
    }

    #[test]
    fn durations_as_go_reads_them() {
        for good in ["1s", "1.5h", "1m30s", "500ms", "10us"] {
            assert!(is_duration(good), "{good}");
        }
        for bad in [
            "", "1", "s", "1 s", "1m 30s", "1d", "0s", "-1s", "1s2", "1.2.3s",
        ] {
            assert!(!is_duration(bad), "{bad}");
        }
    }
}
