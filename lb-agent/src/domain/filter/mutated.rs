//! Expressions by chance: what is written of a tree must hold where the tree does, and texts made
//! of good ones do no harm.

use rand::{Rng as _, rngs::StdRng};

use super::Filter;
use crate::domain::{
    backend::{CatalogHealth, Instance, InstanceId},
    chance::{self, one_of},
};

fn instance() -> Instance {
    let meta = [("version", "2"), ("a-b", "x y"), ("none", "")];
    let meta = meta.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Instance {
        id: InstanceId("n1/web-1".into()),
        address: "10.0.0.7:8080".parse().unwrap(),
        weight: 1,
        tags: vec!["v2".into(), "blue sky".into()].into(),
        meta: std::collections::BTreeMap::from(meta).into(),
        subset: None,
        health: CatalogHealth::Passing,
        detail: None,
    }
}

/// Tests, and whether they hold for the instance above.
const TESTS: [(&str, bool); 22] = [
    ("Service.Meta.version == 2", true),
    ("Service.Meta.version==\"3\"", false),
    ("Service.Meta[\"a-b\"] != `x y`", false),
    ("Service.Meta[\"a-b\"]==\"x y\"", true),
    ("Service.Meta.gone == 2", false),
    ("Service.Meta.gone!=2", true),
    ("Service.Meta.gone is empty", true),
    ("Service.Meta.none is not empty", false),
    ("Service.Meta.gone matches `.*`", false),
    ("Service.Meta.gone not matches `.*`", true),
    ("Service.Meta.version matches \"^[0-9]$\"", true),
    ("Service.Meta.version contains \"3\"", false),
    ("v2 in Service.Tags", true),
    ("\"v2\" not in Service.Tags", false),
    ("\"blue sky\" in Service.Tags", true),
    ("Service.Tags contains blue", false),
    ("Service.Tags is empty", false),
    ("gone in Service.Meta", false),
    ("version in Service.Meta", true),
    ("Service.Port == 8080", true),
    ("Node.Node != n1", false),
    ("Service.ID == web-1", true),
];

/// A text, whether it holds, and how tightly it is bound: `or` 0, `and` 1, the rest 2.
fn tree(random: &mut StdRng, depth: u32) -> (String, bool, u8) {
    let within = |(text, holds, bound): (String, bool, u8), wanted: u8, gap: &str| {
        let text = match bound < wanted {
            true => format!("({gap}{text}{gap})"),
            false => text,
        };
        (text, holds)
    };
    let gap = *one_of(random, &["", " ", "\n\t"]);
    match random.random_range(0..if depth == 0 { 1 } else { 5 }) {
        0 => {
            let (text, holds) = one_of(random, &TESTS);
            ((*text).to_owned(), *holds, 2)
        }
        1 => {
            let (text, holds) = within(tree(random, depth - 1), 2, gap);
            (format!("not {text}"), !holds, 2)
        }
        2 => {
            let (text, holds, _) = tree(random, depth - 1);
            (format!("({gap}{text}{gap})"), holds, 2)
        }
        3 => {
            let (left, a) = within(tree(random, depth - 1), 1, gap);
            let (right, b) = within(tree(random, depth - 1), 1, gap);
            (format!("{left} and{gap} {right}"), a && b, 1)
        }
        _ => {
            let (left, a) = within(tree(random, depth - 1), 0, gap);
            let (right, b) = within(tree(random, depth - 1), 0, gap);
            (format!("{left}{gap} or {right}"), a || b, 0)
        }
    }
}

#[test]
fn what_is_written_of_a_tree_holds_where_it_does() {
    let mut random = chance::of_test(31);
    let instance = instance();
    for _ in 0..1_500 {
        let (text, holds, _) = tree(&mut random, 4);
        let filter = Filter::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(filter.matches(&instance), holds, "{text}");
        let kept = serde_json::to_string(&filter).unwrap();
        let again: Filter = serde_json::from_str(&kept).unwrap();
        assert_eq!(again.matches(&instance), holds, "{text}");
    }
}

#[test]
fn mutations_do_no_harm() {
    let good = TESTS.map(|(text, _)| text.as_bytes());
    let odd = "()[]\"`\\=! .nota\u{e4}".as_bytes();
    let mut random = chance::of_test(32);
    let instance = instance();
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..6_000 {
        let bytes = chance::mutated(&mut random, &good, odd);
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        if random.random_ratio(1, 4) {
            let word = *one_of(&mut random, &[" and ", " or ", " not ", ") or ("]);
            text = format!("{text}{word}{}", one_of(&mut random, &TESTS).0);
        }
        match Filter::parse(&text) {
            Ok(filter) => {
                accepted += 1;
                let holds = filter.matches(&instance);
                // A bracket that stays open takes in what follows.
                if text.contains('[') {
                    continue;
                }
                for (around, expected) in [
                    (format!("({text})"), holds),
                    (format!("not ({text})"), !holds),
                    (format!("({text}) and not ({text})"), false),
                    (format!("({text}) or not ({text})"), true),
                ] {
                    let filter = Filter::parse(&around).unwrap_or_else(|error| panic!("{error}"));
                    assert_eq!(filter.matches(&instance), expected, "{around}");
                }
            }
            Err(error) => {
                refused += 1;
                assert!(error.text == text && !error.reason.is_empty(), "{error}");
            }
        }
    }
    assert!(accepted > 600 && refused > 600, "{accepted} {refused}");
}
