//! Tests of `guard`: stories told in listings.

use super::{super::backend::InstanceId, *};

const HOLD: Duration = Duration::from_secs(600);

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

/// `a` is instance `a` at port 97 (its character); `a:80` at port 80; `a!` in maintenance.
fn instance(word: &str) -> Instance {
    let (word, health) = match word.strip_suffix('!') {
        Some(word) => (word, CatalogHealth::Maintenance("by hand".into())),
        None => (word, CatalogHealth::Passing),
    };
    let (id, port) = match word.split_once(':') {
        Some((id, port)) => (id, port.parse().unwrap()),
        None => (word, u16::from(word.as_bytes()[0])),
    };
    Instance {
        id: InstanceId(id.into()),
        address: ([10, 0, 0, 1], port).into(),
        weight: 1,
        tags: Arc::default(),
        meta: Arc::default(),
        subset: None,
        detail: None,
        health,
    }
}

fn instances(words: &str) -> Arc<Vec<Instance>> {
    Arc::new(words.split_whitespace().map(instance).collect())
}

/// What is in force, held ones in brackets with the seconds since and until.
fn show(guard: &Guard) -> String {
    let seconds = |time: SystemTime| time.duration_since(at(0)).unwrap().as_secs();
    let words: Vec<String> = guard
        .instances()
        .map(|(instance, held)| match held {
            None => instance.id.to_string(),
            Some(Held { since, until }) => {
                format!("[{} {}-{}]", instance.id, seconds(*since), seconds(*until))
            }
        })
        .collect();
    words.join(" ")
}

/// Second, what is listed, which ones our probes believe dead, what is in force then.
type Step = (u64, &'static str, &'static str, &'static str);

fn play(name: &str, mut guard: Guard, steps: &[Step]) {
    for (index, (second, listed, dead, expected)) in steps.iter().enumerate() {
        let believes_dead =
            |each: &Instance| dead.split_whitespace().any(|word| word == &*each.id.0);
        guard.admit(&instances(listed), &believes_dead, at(*second), HOLD);
        assert_eq!(show(&guard), *expected, "{name}, step {index}");
        let untils = guard.instances().filter_map(|(_, held)| Some(held?.until));
        assert_eq!(guard.next_deadline(), untils.min(), "{name}, step {index}");
        // What is saved is what is in force.
        let saved = guard.admitted();
        let in_force = guard.instances().map(|(instance, _)| instance);
        assert!(saved.iter().eq(in_force), "{name}, step {index}");
        // The same listing once more changes nothing.
        guard.admit(&instances(listed), &believes_dead, at(*second), HOLD);
        assert_eq!(show(&guard), *expected, "{name}, step {index} again");
    }
}

/// Every rule of the module's head, as a story told in listings.
#[test]
fn listings_and_what_is_made_of_them() {
    let stories: &[(&str, &[Step])] = &[
        (
            "an empty service stays empty",
            &[(0, "", "", ""), (1, "", "", "")],
        ),
        (
            "additions act at once",
            &[(0, "a", "", "a"), (1, "b a", "", "a b")],
        ),
        (
            "one of one is all: held until the hold ends, not a second longer",
            &[
                (0, "a", "", "a"),
                (5, "", "", "[a 5-605]"),
                (604, "", "", "[a 5-605]"),
                (605, "", "", ""),
            ],
        ),
        (
            "half acts at once",
            &[(0, "a b", "", "a b"), (1, "a", "", "a")],
        ),
        (
            "more than half is held",
            &[
                (0, "a b c", "", "a b c"),
                (1, "a", "", "a [b 1-601] [c 1-601]"),
            ],
        ),
        (
            "halving twice acts twice: each listing is compared with the one before",
            &[
                (0, "a b c d", "", "a b c d"),
                (1, "a b", "", "a b"),
                (2, "a", "", "a"),
                (3, "", "", "[a 3-603]"),
            ],
        ),
        (
            "listed again: the hold is over",
            &[
                (0, "a b", "", "a b"),
                (1, "", "", "[a 1-601] [b 1-601]"),
                (2, "a", "", "a [b 1-601]"),
                (3, "a b", "", "a b"),
            ],
        ),
        (
            "held ones are no part of what later removals are measured by",
            &[
                (0, "a b c", "", "a b c"),
                (1, "a", "", "a [b 1-601] [c 1-601]"),
                (9, "", "", "[a 9-609] [b 1-601] [c 1-601]"),
                (601, "", "", "[a 9-609]"),
            ],
        ),
        (
            "nor do they turn a small removal into a large one",
            &[
                (0, "a b c d e", "", "a b c d e"),
                (1, "a b", "", "a b [c 1-601] [d 1-601] [e 1-601]"),
                (2, "a", "", "a [c 1-601] [d 1-601] [e 1-601]"),
            ],
        ),
        (
            "our own probes let go, at once or later",
            &[
                (0, "a b c", "", "a b c"),
                (1, "", "c", "[a 1-601] [b 1-601]"),
                (2, "", "a c", "[b 1-601]"),
                (3, "", "", "[b 1-601]"),
                (4, "", "b", ""),
            ],
        ),
        (
            "an instance that is listed stays, whatever the probes say",
            &[(0, "a", "a", "a")],
        ),
        (
            "new instances do not make up for lost ones",
            &[
                (0, "a b", "", "a b"),
                (1, "c d", "", "[a 1-601] [b 1-601] c d"),
            ],
        ),
        (
            "the same address under a new identity is a renaming",
            &[(0, "a:80 b:81", "", "a b"), (1, "x:80 y:81", "", "x y")],
        ),
        (
            "a held address that comes back under a new identity ends the hold",
            &[
                (0, "a:80", "", "a"),
                (1, "", "", "[a 1-601]"),
                (2, "x:80", "", "x"),
            ],
        ),
        (
            "maintenance is a person's word: it goes at once",
            &[(0, "a!", "", "a"), (1, "", "", "")],
        ),
        (
            "and it is no part of what others are measured by",
            &[
                (0, "a b! c!", "", "a b c"),
                (1, "b! c!", "", "[a 1-601] b c"),
            ],
        ),
        (
            "a clock set back does not stretch a hold",
            &[
                (500, "a", "", "a"),
                (510, "", "", "[a 510-1110]"),
                (10, "", "", "[a 10-610]"),
                (609, "", "", "[a 10-610]"),
                (610, "", "", ""),
            ],
        ),
        (
            "a clock set forward ends it",
            &[
                (0, "a", "", "a"),
                (1, "", "", "[a 1-601]"),
                (9999, "", "", ""),
            ],
        ),
        (
            "an identity listed twice counts once",
            &[(0, "a a b", "", "a b"), (1, "b", "", "b")],
        ),
    ];
    for (name, steps) in stories {
        play(name, Guard::default(), steps);
    }
}

/// After a restart the first answer is measured by what was in force before.
#[test]
fn a_restart_does_not_make_the_guard_forget() {
    let restored = || Guard::restored(instances("a b c"));
    assert_eq!(restored().next_deadline(), None);
    play(
        "empty first answer",
        restored(),
        &[(0, "", "", "[a 0-600] [b 0-600] [c 0-600]")],
    );
    play("small removal", restored(), &[(0, "a b", "", "a b")]);
}

/// An instance that returns at another address is used there.
#[test]
fn relisting_brings_the_new_address() {
    let mut guard = Guard::default();
    let alive = |_: &Instance| false;
    guard.admit(&instances("a:80"), &alive, at(0), HOLD);
    guard.admit(&instances(""), &alive, at(1), HOLD);
    guard.admit(&instances("a:8080"), &alive, at(2), HOLD);
    assert!(guard.instances().eq([(&instance("a:8080"), None)]));
}

/// Someone who sets the hold to zero wants the catalog believed as it is; a hold that was
/// shortened ends accordingly.
#[test]
fn the_hold_is_the_caller_s() {
    let mut guard = Guard::default();
    let alive = |_: &Instance| false;
    guard.admit(&instances("a b"), &alive, at(0), HOLD);
    guard.admit(&instances(""), &alive, at(1), HOLD);
    guard.admit(&instances(""), &alive, at(2), Duration::from_secs(5));
    assert_eq!(guard.next_deadline(), Some(at(7)));
    guard.admit(&instances(""), &alive, at(3), Duration::ZERO);
    assert_eq!(guard.instances().count(), 0);
}
