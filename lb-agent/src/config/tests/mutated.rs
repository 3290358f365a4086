//! Configurations about requests made by chance of good ones: nothing panics, what is refused is
//! refused at a place, and what is read is read again from the same text.

use rand::Rng as _;

use super::{ConfigError, Findings, Place, expand, read};

const WORDS: [&str; 44] = [
    "hosts",
    "routes",
    "timeouts",
    "retry",
    "limits",
    "rate_limit",
    "balance",
    "upstream",
    "hedge",
    "path_prefix",
    "path",
    "headers",
    "query",
    "methods",
    "rewrite",
    "service",
    "subset",
    "regex",
    "exact",
    "invert",
    "allow",
    "proxy_protocol",
    "per",
    "by",
    " = ",
    "{ ",
    " }",
    "[",
    "]",
    ", ",
    "\"/a\"",
    "\"a.example\"",
    "\"*.b\"",
    "\"(\"",
    "\"x+\"",
    "\"1s\"",
    "\"-1s\"",
    "true",
    "0",
    "-1",
    "99999999999999999999",
    "1.5",
    "\n",
    "[[service.routes]]\n",
];

#[test]
fn texts_by_chance() {
    let good = expand(
        "NODE\n[proxy]\nlisten = [\":80\", { address = \"[::1]:1\", proxy_protocol = true }]\n\
         trusted = [\"10.0.0.0/8\"]\nbounds = { head = 8192, per_client = 5 }\n\
         [[service]]\nname = \"web\"\nprotocol = \"http\"\nbackends = []\nhosts = [\"a.example\"]\n\
         timeouts = { total = \"5s\" }\nretry = { retries = 1, on_status = [503] }\n\
         limits = { body = 1000 }\nrate_limit = [{ requests = 1, by = { header = \"x\" } }]\n\
         balance = { cookie = \"lb\" }\nupstream = { version = \"http1\", proxy_protocol = 2 }\n\
         [[service.routes]]\npath_prefix = \"/api\"\nmethods = [\"GET\"]\nservice = \"api\"\n\
         headers = { a = \"1\", d = { regex = \"x+\", invert = true } }\nrewrite = \"/\"\n",
    );
    assert!(read(&good, &[]).is_ok());
    let lines: Vec<&str> = good.split_inclusive('\n').collect();
    let mut random = crate::domain::chance::of_test(8);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..5_000 {
        let mut text: Vec<&str> = lines.clone();
        for _ in 0..random.random_range(1..3) {
            let at = random.random_range(0..text.len());
            match random.random_range(0..3) {
                0 => drop(text.remove(at)),
                1 => text.insert(at, lines[random.random_range(0..lines.len())]),
                _ => text.swap(at, 0),
            }
        }
        let mut text = text.concat();
        for _ in 0..random.random_range(0..3) {
            let at = random.random_range(0..text.len());
            let word = WORDS[random.random_range(0..WORDS.len())];
            match random.random_ratio(1, 2) {
                true => text.insert_str(at, word),
                false => text.replace_range(at..(at + word.len()).min(text.len()), word),
            }
        }
        match read(&text, &[]) {
            Ok(config) => {
                accepted += 1;
                let again = read(&text, &[]).unwrap();
                assert_eq!(format!("{config:?}"), format!("{again:?}"), "{text}");
            }
            Err(ConfigError::Invalid(Findings(findings))) => {
                refused += 1;
                assert!(!findings.is_empty(), "{text}");
                let count = text.lines().count() + 1;
                for finding in findings {
                    let Place::File { line, column, .. } = finding.place else {
                        panic!("{text}\n{finding:?}");
                    };
                    assert!(
                        (1..=count).contains(&line) && column >= 1,
                        "{text}\n{finding:?}"
                    );
                    assert!(!finding.reason.is_empty(), "{text}");
                }
            }
            Err(other) => panic!("{text}\n{other}"),
        }
    }
    assert!(accepted > 50 && refused > 2000, "{accepted} {refused}");
}
