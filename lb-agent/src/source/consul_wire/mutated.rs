//! Answers made by chance of real ones: each entry is an instance that packets can be sent to, left
//! out by name, or of the mesh, and it does not matter how the list is read.

use rand::Rng as _;
use serde_json::{Value, json};

use super::*;
use crate::domain::chance;

const ECHO: &[u8] = include_bytes!("../../../testdata/consul/health-echo.json");
const WEB: &[u8] = include_bytes!("../../../testdata/consul/health-web.json");

const WORDS: [&str; 26] = [
    "Address",
    "Port",
    "Weights",
    "Passing",
    "Warning",
    "Tags",
    "Meta",
    "Kind",
    "ID",
    "Node",
    "Checks",
    "Status",
    "CheckID",
    "passing",
    "warning",
    "critical",
    "_node_maintenance",
    "_service_maintenance:echo-1",
    "connect-proxy",
    "",
    "10.0.0.1",
    "::ffff:10.0.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "2001:db8::1",
    "a\\\"\n\u{e4}",
];

const ADDRESSES: [&str; 6] = [
    "",
    "0.0.0.0",
    "::ffff:224.0.0.1",
    "ff02::1",
    "10.0.0.256",
    "2001:db8::1",
];

#[test]
fn answers_by_chance() {
    let entries: Vec<Value> = [ECHO, WEB]
        .iter()
        .flat_map(|body| serde_json::from_slice::<Vec<Value>>(body).unwrap())
        .collect();
    let mut random = chance::of_test(44);
    let (mut usable, mut unusable) = (0, 0);
    for _ in 0..1_500 {
        let mut list: Vec<Value> = (0..random.random_range(1..4))
            .map(|_| chance::one_of(&mut random, &entries).clone())
            .collect();
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(0..list.len());
            chance::mutate(&mut random, &mut list[at], &WORDS);
            // There are many fields, of which few decide as much as this one.
            if let Some(address) = list[at].pointer_mut("/Service/Address")
                && random.random_ratio(1, 4)
            {
                *address = json!(chance::one_of(&mut random, &ADDRESSES));
            }
        }
        let shown = json!(list).to_string();
        let listing = parse(shown.as_bytes(), false).unwrap();
        let mesh = |entry: &&Value| {
            let kind = entry.pointer("/Service/Kind").and_then(Value::as_str);
            kind.is_some_and(|kind| !kind.is_empty())
        };
        let mesh = list.iter().filter(mesh).count();
        let told = listing.instances.len() + listing.invalid.len();
        // An entry of the mesh that has another form is left out as any other.
        assert!((list.len() - mesh..=list.len()).contains(&told), "{shown}");
        usable += listing.instances.len();
        unusable += listing.invalid.len();
        assert!(
            listing.instances.is_sorted_by_key(|one| one.id.clone()),
            "{shown}"
        );
        for instance in &listing.instances {
            let ip = instance.address.ip();
            assert!(
                instance.address.port() != 0 && ip == ip.to_canonical(),
                "{shown}"
            );
            assert!(!ip.is_unspecified() && !ip.is_multicast(), "{shown}");
            assert!((1..=65_535).contains(&instance.weight), "{shown}");
        }

        // One at a time, and with one among them that is not of the form, they are the same.
        let mut single = Listing::default();
        for entry in &list {
            let alone = parse(json!([entry]).to_string().as_bytes(), false).unwrap();
            single.instances.extend(alone.instances);
            single.invalid.extend(alone.invalid);
        }
        single.instances.sort_by(|a, b| a.id.cmp(&b.id));
        assert_eq!(single.instances, listing.instances, "{shown}");
        assert_eq!(single.invalid.len(), listing.invalid.len(), "{shown}");
        list.push(json!(7));
        let odd = parse(json!(list).to_string().as_bytes(), false).unwrap();
        assert_eq!(odd.instances, listing.instances, "{shown}");
        assert_eq!(odd.invalid.len(), listing.invalid.len() + 1, "{shown}");

        // Whoever asks for more gets the same instances, of those that have that in order.
        let detailed = parse(shown.as_bytes(), true).unwrap();
        assert!(detailed.invalid.len() >= listing.invalid.len(), "{shown}");
        for mut instance in detailed.instances {
            assert!(instance.detail.take().is_some(), "{shown}");
            assert!(listing.instances.contains(&instance), "{shown}");
        }
    }
    assert!(usable > 300 && unusable > 300, "{usable} {unusable}");
}
