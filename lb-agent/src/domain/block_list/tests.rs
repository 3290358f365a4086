//! What becomes of a prefix that several sources name.

use std::time::Duration;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn section(reason: &str, expires: Option<SystemTime>, prefixes: &[&str]) -> Section {
    let terms = Terms {
        reason: reason.into(),
        added: SystemTime::UNIX_EPOCH,
        expires,
    };
    Section::new(terms, prefixes.iter().map(|text| net(text)))
}

fn by_hand(prefix: &str) -> BlockRule {
    BlockRule {
        prefix: net(prefix),
        reason: "by hand".into(),
        added: SystemTime::UNIX_EPOCH,
        expires: None,
        origin: Origin::Operator,
    }
}

fn told(rules: &BlockRules) -> Vec<(String, String)> {
    let all = rules.after(None, usize::MAX);
    assert_eq!(all.len(), rules.len());
    let mut prefixes: Vec<IpNet> = rules.prefixes().collect();
    prefixes.sort();
    assert!(prefixes.iter().eq(all.iter().map(|rule| &rule.prefix)));
    all.into_iter()
        .map(|rule| (rule.prefix.to_string(), rule.reason))
        .collect()
}

fn expect(rules: &BlockRules, expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(prefix, reason)| ((*prefix).to_owned(), (*reason).to_owned()))
        .collect();
    assert_eq!(told(rules), expected);
}

/// Whatever happens, a prefix has one rule; by hand wins over imported, later over earlier.
#[test]
fn one_rule_a_prefix() {
    let mut rules = BlockRules::default();
    rules.insert(by_hand("10.0.0.0/8"));
    let first = section("a", None, &["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"]);
    rules = rules.with_import(1, first, false);
    let (hand, a) = ("by hand", "a");
    let all = [
        ("10.0.0.0/8", hand),
        ("192.0.2.0/24", a),
        ("2001:db8::/32", a),
    ];
    expect(&rules, &all);
    rules = rules.with_import(
        2,
        section("b", None, &["192.0.2.0/24", "10.1.1.1/32"]),
        false,
    );
    let all = [
        ("10.0.0.0/8", hand),
        ("10.1.1.1/32", "b"),
        ("192.0.2.0/24", "b"),
        ("2001:db8::/32", a),
    ];
    expect(&rules, &all);
    // By hand takes it over; deleted, it is gone, not back from the list.
    rules.insert(by_hand("192.0.2.0/24"));
    assert_eq!(rules.get(&net("192.0.2.0/24")).unwrap().reason, hand);
    assert!(rules.remove(&net("192.0.2.0/24")));
    assert!(!rules.remove(&net("192.0.2.0/24")) && !rules.contains(&net("192.0.2.0/24")));
    assert!(rules.remove(&net("2001:db8::/32")));
    expect(&rules, &[("10.0.0.0/8", hand), ("10.1.1.1/32", "b")]);
    // As saved and read back.
    let saved: Vec<IpNet> = rules.unlisted().collect();
    let again = BlockRules::new(rules.operator().cloned(), rules.imported().clone(), saved);
    assert_eq!(told(&again), told(&rules));
    // The next import forgets what was unlisted; a replacement leaves what is by hand.
    rules = rules.with_import(3, section("c", None, &["2001:db8::/32"]), true);
    expect(&rules, &[("10.0.0.0/8", hand), ("2001:db8::/32", "c")]);
    assert_eq!(rules.unlisted().count(), 0);
}

#[test]
fn sections_end_as_a_whole() {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let mut rules = BlockRules::default();
    rules = rules.with_import(
        1,
        section("a", Some(at(10)), &["10.0.0.1/32", "10.0.0.2/32"]),
        false,
    );
    rules = rules.with_import(2, section("b", Some(at(20)), &["10.0.0.3/32"]), false);
    rules.remove(&net("10.0.0.2/32"));
    assert_eq!(rules.next_expiry(), Some(at(10)));
    assert!(rules.take_expired(3, at(9)).is_empty());
    assert_eq!(rules.imported().id, 2);
    assert_eq!(rules.take_expired(3, at(10)), [net("10.0.0.1/32")]);
    expect(&rules, &[("10.0.0.3/32", "b")]);
    assert_eq!(rules.unlisted().count(), 0);
    assert_eq!(rules.next_expiry(), Some(at(20)));
}

/// Pages of any size hold every rule once, in order.
#[test]
fn pages_follow_each_other() {
    let mut rules = BlockRules::default();
    let prefixes: Vec<String> = (0..50).map(|n| format!("10.0.{n}.0/24")).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    rules = rules.with_import(1, section("a", None, &prefixes), false);
    rules.insert(by_hand("10.0.7.7/32"));
    rules.insert(by_hand("::/1"));
    rules = rules.with_import(2, section("b", None, &["fd00::/8", "10.0.9.0/25"]), false);
    let all = rules.after(None, usize::MAX);
    for size in [1, 7, 100] {
        let mut paged = Vec::new();
        loop {
            let page = rules.after(paged.last().map(|rule: &BlockRule| rule.prefix), size);
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, all);
    }
}

/// What holds for the fleet stands beside this node's own rules, and neither ends the other.
#[test]
fn rules_of_the_fleet_and_own_ones_of_the_same_prefix() {
    let fleet = |prefix: &str, expires| BlockRule {
        reason: "fleet".into(),
        expires,
        origin: Origin::Fleet,
        ..by_hand(prefix)
    };
    let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    let mut rules = BlockRules::default();
    let all = [
        fleet("192.0.2.1/32", None),
        fleet("192.0.2.2/32", Some(at(5))),
        fleet("192.0.2.3/32", Some(at(5))),
        fleet("192.0.2.4/32", None),
    ];
    let all = all.map(|rule| (rule.prefix, rule));
    assert!(rules.set_fleet(all.into()).is_empty());
    rules.insert(by_hand("192.0.2.1/32"));
    rules.insert(by_hand("192.0.2.3/32"));
    let mut rules = rules.with_import(1, section("list", None, &["192.0.2.4/32"]), false);
    expect(
        &rules,
        &[
            ("192.0.2.1/32", "by hand"),
            ("192.0.2.2/32", "fleet"),
            ("192.0.2.3/32", "by hand"),
            ("192.0.2.4/32", "fleet"),
        ],
    );
    // What ends for the fleet stays blocked where this node wants it.
    assert_eq!(rules.next_expiry(), Some(at(5)));
    assert_eq!(rules.take_expired(2, at(5)), [net("192.0.2.2/32")]);
    assert!(rules.remove(&net("192.0.2.1/32")) && !rules.remove(&net("192.0.2.1/32")));
    assert!(rules.contains(&net("192.0.2.1/32")) && !rules.contains_own(&net("192.0.2.1/32")));
    rules.set_fleet(BTreeMap::new());
    expect(
        &rules,
        &[("192.0.2.3/32", "by hand"), ("192.0.2.4/32", "list")],
    );
}
