//! Entries, keys and names by chance: one that is odd is left out or read as what can be used, and
//! takes no other one with it.

use rand::Rng as _;
use serde_json::json;

use super::*;
use crate::domain::{
    chance::{self, one_of},
    config_entry::Resolver,
    http::routing::whole,
    route::{Route, Text},
};

/// Entries of each kind that say much.
fn good(kind: EntryKind) -> Value {
    let headers = json!({"Set": {"a": "1"}});
    match kind {
        EntryKind::Defaults => json!({"Name": "odd", "Protocol": "http"}),
        EntryKind::Resolver => json!({"Name": "odd", "DefaultSubset": "v1",
            "Subsets": {"v1": {"Filter": "Service.Meta.v == 1"}, "v2": {"OnlyPassing": true}},
            "Redirect": {"Service": "b", "ServiceSubset": "v1", "Datacenter": "dc2"},
            "Failover": {"*": {"Targets": [{"Service": "b"}, {"Peer": "p"}, {"Datacenter": "dc2"}]},
                "v1": {"Service": "b", "Datacenters": ["dc2", "dc3"]}, "v2": {"Service": "c"}},
            "ConnectTimeout": "5s", "LoadBalancer": {"Policy": "maglev"}}),
        EntryKind::Router => json!({"Name": "odd", "Routes": [
            {"Match": {"HTTP": {"PathPrefix": "/a", "Methods": ["GET"], "CaseInsensitive": false}},
             "Destination": {"Service": "b", "PrefixRewrite": "/", "RequestTimeout": "5s",
                "NumRetries": 2, "RetryOnStatusCodes": [503], "RetryOn": ["reset"]}},
            {"Match": {"HTTP": {"PathRegex": "/a|/b", "QueryParam": [{"Name": "q", "Present": true}],
                "Header": [{"Name": "x", "Contains": "a", "IgnoreCase": true}]}},
             "Destination": {"ServiceSubset": "v1", "ResponseHeaders": headers}}]}),
        EntryKind::Splitter => json!({"Name": "odd", "Splits": [
            {"Weight": 89.95, "ServiceSubset": "v1", "RequestHeaders": headers},
            {"Weight": 10.05, "Service": "b"}, {"Weight": 0}]}),
    }
}

const WORDS: [&str; 34] = [
    "Service",
    "ServiceSubset",
    "Datacenter",
    "Datacenters",
    "Namespace",
    "Partition",
    "Peer",
    "SamenessGroup",
    "Targets",
    "Failover",
    "Redirect",
    "Filter",
    "Weight",
    "PathExact",
    "PathPrefix",
    "PathRegex",
    "Exact",
    "Contains",
    "Regex",
    "Invert",
    "PrefixRewrite",
    "Methods",
    "default",
    "*",
    "",
    "/",
    "/a",
    "(",
    "(?x)a # b",
    "a)|(?:b",
    "5s",
    "-1s",
    "1.5h",
    "\u{e4}",
];

#[test]
fn entries() {
    let mut random = chance::of_test(41);
    for kind in EntryKind::ALL {
        let (mut accepted, mut refused) = (0, 0);
        for _ in 0..1_000 {
            let mut odd = good(kind);
            for _ in 0..random.random_range(1..4) {
                chance::mutate(&mut random, &mut odd, &WORDS);
            }
            let mut sound = good(kind);
            sound["Name"] = json!("sound");
            let (alone, _) = parse(kind, json!([sound]).to_string().as_bytes()).unwrap();
            let body = json!([odd, sound]).to_string();
            let (mut entries, invalid) = parse(kind, body.as_bytes()).unwrap();
            assert_eq!(
                entries.remove("sound"),
                alone.get("sound").cloned(),
                "{body}"
            );
            assert_eq!(entries.len() + invalid.len(), 1, "{body}");
            for error in &invalid {
                refused += 1;
                assert!(error.to_string().contains('`'), "{error}");
            }
            for (name, entry) in entries {
                accepted += 1;
                let kept = serde_json::to_string(&entry).unwrap();
                let again: ConfigEntry = serde_json::from_str(&kept).unwrap();
                assert_eq!(again, entry, "{body}");
                match &entry {
                    ConfigEntry::Defaults(_) => {}
                    ConfigEntry::Resolver(resolver) => check_resolver(resolver, &odd, &name),
                    ConfigEntry::Router(routes) => routes.iter().for_each(check_route),
                    ConfigEntry::Splitter(legs) => {
                        let shares = legs.iter().map(|leg| leg.share);
                        assert!(shares.clone().all(|share| share <= 10_000), "{body}");
                        assert!(shares.sum::<u32>() > 0, "{body}");
                        let own = legs.iter().filter_map(|leg| leg.service.as_ref());
                        assert!(own.clone().all(|own| !own.is_empty() && **own != name));
                    }
                }
            }
        }
        assert!(
            accepted > 100 && refused > 30,
            "{kind}: {accepted} {refused}"
        );
    }
}

/// Every target is gone to, or told of.
fn check_resolver(resolver: &Resolver, odd: &Value, name: &str) {
    let said = odd.get("Failover").and_then(Value::as_object);
    assert_eq!(resolver.failover.len(), said.map_or(0, |said| said.len()));
    for (subset, said) in said.into_iter().flatten() {
        let targets = &resolver.failover[subset];
        let count = |field: &str| {
            said.get(field)
                .and_then(Value::as_array)
                .map_or(0, Vec::len)
        };
        let wanted = count("Targets").max(count("Datacenters")).max(1);
        let told = |what: String| {
            let told = resolver.left_out.iter();
            told.filter(|told| told.contains(&what)).count()
        };
        let of_all = told(format!("the Failover of {subset} is left out: Peer"))
            + told(format!("the Failover of {subset} is left out: S"))
            + told(format!("the Failover of {subset} is left out: N"))
            + told(format!("the Failover of {subset} is left out: Part"));
        let of_one = (1..=wanted).map(|n| {
            told(format!(
                "target {n} of the Failover of {subset} is left out"
            ))
        });
        let all = targets.len() + of_one.sum::<usize>();
        assert!(
            all == wanted || of_all > 0 && all == 0,
            "{odd} became {resolver:?}"
        );
        for target in targets {
            assert!(!target.service.is_empty(), "{odd}");
            let given = said.to_string().contains("\"Service\"");
            assert!(given || target.service == name, "{odd} became {resolver:?}");
        }
    }
    let redirect = resolver.redirect.iter();
    let mut texts = redirect.flat_map(|to| [Some(&to.service), to.subset.as_ref()]);
    assert!(texts.all(|text| text.is_none_or(|text| !text.is_empty())));
    assert!(resolver.connect_timeout.is_none_or(|time| !time.is_zero()));
}

fn check_route(route: &Route) {
    let Route { fits, to } = route;
    let fields = fits.headers.iter().chain(&fits.query);
    for text in fields.map(|field| &field.text).chain(&fits.path) {
        if let Text::Regex(expression) = text {
            assert!(whole(expression).is_ok(), "{route}");
            assert!(regex::Regex::new(expression).is_ok(), "{route}");
        }
    }
    if let Some(Text::Exact(path) | Text::Prefix(path)) = &fits.path {
        assert!(path.starts_with('/'), "{route}");
        if to.prefix_rewrite.is_some() {
            let seen = route.rewritten(&format!("{path}/x?y"));
            assert!(seen.is_some_and(|seen| seen.starts_with('/')), "{route}");
        }
    }
    assert!(
        to.retry_on_status
            .iter()
            .all(|code| (100..600).contains(code))
    );
    assert!(to.retries != Some(0) && to.timeout.is_none_or(|time| !time.is_zero()));
    assert!(
        fits.methods
            .iter()
            .all(|method| method.bytes().all(|byte| byte.is_ascii_uppercase()))
    );
}

/// What is written is read again, whatever stands between the letters.
#[test]
fn keys_of_any_bytes() {
    let mut random = chance::of_test(42);
    for _ in 0..2_000 {
        let mut pairs = Vec::new();
        let mut expected = BTreeMap::new();
        for number in 0..random.random_range(0..5) {
            let length = random.random_range(0..40);
            let bytes: Vec<u8> = (0..length).map(|_| random.random()).collect();
            let text = to_base64(&bytes);
            assert_eq!(text.len(), bytes.len().div_ceil(3) * 4);
            assert_eq!(base64(&text), bytes);
            // RFC 2045's lines.
            let broken: Vec<char> = text.chars().collect();
            let lines: Vec<String> = broken.chunks(5).map(|line| line.iter().collect()).collect();
            let value = match random.random_range(0..3) {
                0 => lines.join("\r\n"),
                1 => text.trim_end_matches('=').to_owned(),
                _ => text,
            };
            let prefix = *one_of(&mut random, &[fleet::PREFIX, fleet::PREFIX, "other/"]);
            let index: u64 = random.random_range(0..1 << 40);
            pairs.push(json!({"Key": format!("{prefix}{number}"), "Value": value,
                "ModifyIndex": index, "Flags": 0, "Session": null}));
            if prefix == fleet::PREFIX {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                expected.insert(number.to_string(), KeyValue { text, index });
            }
        }
        let body = Value::Array(pairs).to_string();
        assert_eq!(parse_keys(body.as_bytes()).unwrap(), expected, "{body}");
    }
}

#[test]
fn answers_of_another_form() {
    let keys = json!([{"Key": "lb/split/echo", "Value": "djE9OTA=", "ModifyIndex": 12},
        {"Key": "lb/block/", "Value": null}]);
    let names = json!({"consul": [], "web": ["b", "a", "c"], "db": null});
    let mut random = chance::of_test(43);
    let mut read = [0; 2];
    for _ in 0..10_000 {
        let (mut keys, mut names) = (keys.clone(), names.clone());
        chance::mutate(
            &mut random,
            &mut keys,
            &["Key", "Value", "lb/", "lb/a", "=", "Zg"],
        );
        chance::mutate(&mut random, &mut names, &["b", "a", "web", ""]);
        if let Ok(pairs) = parse_keys(keys.to_string().as_bytes()) {
            read[0] += 1;
            assert!(pairs.len() <= keys.as_array().map_or(0, Vec::len), "{keys}");
        }
        if let Ok(tags) = parse_names(names.to_string().as_bytes()) {
            read[1] += 1;
            assert!(tags.keys().eq(names.as_object().unwrap().keys()), "{names}");
            for (name, tags) in tags {
                assert!(tags.is_sorted(), "{names}");
                let said = names[&name].as_array().map_or(0, Vec::len);
                assert_eq!(tags.len(), said, "{names}");
            }
        }
        // Cut anywhere, it is no list.
        let whole = keys.to_string();
        let cut = random.random_range(0..whole.len());
        if keys.is_array() {
            assert!(
                parse_keys(&whole.as_bytes()[..cut]).is_err(),
                "{whole} to {cut}"
            );
        }
    }
    assert!(read.iter().all(|count| *count > 500), "{read:?}");
}
