//! Ejection as stories of tallies.

use super::*;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn member(letter: char) -> Member {
    (
        InstanceId(letter.to_string().into()),
        ([10, 0, 0, 1], letter as u16).into(),
    )
}

/// Small letters are well, capitals ill by other signs.
fn members(letters: &str) -> Vec<(Member, bool)> {
    let letters = letters.chars();
    letters
        .map(|letter| {
            (
                member(letter.to_ascii_lowercase()),
                letter.is_ascii_uppercase(),
            )
        })
        .collect()
}

/// `a5-2` is five successes and two failures of `a`.
fn tally(word: &str) -> (Member, Tally) {
    let (letter, counts) = word.split_at(1);
    let (succeeded, failed) = counts.split_once('-').unwrap();
    let tally = Tally {
        witness: Witness::Flows,
        succeeded: succeeded.parse().unwrap(),
        failed: failed.parse().unwrap(),
        failure: "refused".into(),
    };
    (member(letter.chars().next().unwrap()), tally)
}

/// Second, who is there, what is told, what becomes of it.
type Step = (u64, &'static str, &'static str, &'static str);

/// `!a30` is an ejection of 30 s, `=a` its end, `~a` one that there was no room for.
fn show(verdicts: &[Verdict]) -> String {
    let words = verdicts.iter().map(|verdict| match verdict {
        Verdict::Ejected((id, _), ejection) => {
            let span = ejection.until.duration_since(ejection.since).unwrap();
            format!("!{id}{}", span.as_secs())
        }
        Verdict::Returned((id, _), ..) => format!("={id}"),
        Verdict::Spared((id, _), ..) => format!("~{id}"),
    });
    words.collect::<Vec<_>>().join(" ")
}

fn play(steps: &[Step], name: &str) {
    let spec = PassiveSpec::default();
    let mut outliers = Outliers::default();
    for (second, there, told, expected) in steps {
        let now = at(*second);
        for word in told.split_whitespace() {
            let (member, tally) = tally(word);
            outliers.note(member, &tally, now);
        }
        let members = members(there);
        let verdicts = outliers.judge(&spec, &members, now);
        assert_eq!(show(&verdicts), *expected, "{name}, second {second}");
        // Whatever happens, no more than half are out by this.
        let out = members
            .iter()
            .filter(|(each, _)| outliers.ejection(each).is_some());
        let well = members.iter().filter(|(_, ill)| !ill).count();
        assert!(
            out.count() * 2 <= members.len().max(well),
            "{name}, second {second}"
        );
    }
}

/// The rules of the module's head, as stories.
#[test]
fn who_is_ejected_and_for_how_long() {
    let stories: &[(&str, &[Step])] = &[
        (
            "five in a row, one of two",
            &[
                (0, "ab", "a9-0 b0-4", ""),
                (5, "ab", "a9-0 b0-1", "!b30"),
                (34, "ab", "a9-0", ""),
                (35, "ab", "a9-0", "=b"),
            ],
        ),
        (
            "a success between starts the count anew",
            &[
                (0, "ab", "a9-0 b0-4", ""),
                (5, "ab", "a9-0 b1-3", ""),
                (10, "ab", "a9-0 b0-4", ""),
                (15, "ab", "a9-0 b0-1", "!b30"),
            ],
        ),
        ("one alone stays", &[(0, "a", "a0-50", "")]),
        (
            "where all fail it is no backend's fault",
            &[(0, "ab", "a0-50 b0-50", "")],
        ),
        ("nor where nobody else is asked", &[(0, "ab", "a0-50", "")]),
        (
            "others' successes count while they are fresh",
            &[
                (0, "ab", "a9-0", ""),
                (31, "ab", "b0-50", ""),
                (36, "ab", "a1-0", "!b30"),
            ],
        ),
        (
            "half of three is one, the worst",
            &[
                (0, "abc", "a9-0 b0-5 c0-7", "!c30 ~b"),
                (5, "abc", "a9-0 b0-5", ""),
            ],
        ),
        (
            "half of four is two, and the ill count",
            &[(0, "abcd", "a9-0 b0-5 c0-7", "!c30 !b30")],
        ),
        (
            "one ill of four leaves room for one",
            &[(0, "abcD", "a9-0 b0-5 c0-7", "!c30 ~b")],
        ),
        (
            "two ill of four leave none",
            &[(0, "abCD", "a9-0 b0-5", "~b")],
        ),
        (
            "who is ill already is out, and its failures are forgotten",
            &[
                (0, "aB", "a9-0 b0-5", ""),
                (5, "ab", "a9-0 b0-4", ""),
                (10, "ab", "a9-0 b0-1", "!b30"),
            ],
        ),
        (
            "dead by its probes while it is out, and alive again: back at once",
            &[
                (0, "ab", "a9-0 b0-5", "!b30"),
                (5, "aB", "a9-0", ""),
                (10, "ab", "a9-0", "=b"),
                (11, "ab", "a9-0 b0-5", "!b60"),
            ],
        ),
        (
            "a rate far below the others'",
            &[(0, "ab", "a10-0 b4-6", ""), (5, "ab", "a10-0 b4-6", "!b30")],
        ),
        (
            "a rate somewhat below is none",
            &[(0, "ab", "a20-0 b10-10", ""), (5, "ab", "a20-0 b10-10", "")],
        ),
        (
            "where the others are as bad",
            &[(0, "abc", "a4-16 b4-16 c3-17", "")],
        ),
        (
            "n times thirty seconds, at most three hundred, and calm makes n smaller",
            &[
                (0, "ab", "a9-0 b0-5", "!b30"),
                (30, "ab", "a9-0", "=b"),
                (31, "ab", "a9-0 b0-5", "!b60"),
                (91, "ab", "a9-0", "=b"),
                (92, "ab", "a9-0 b0-5", "!b90"),
                (182, "ab", "a9-0", "=b"),
                (481, "ab", "a9-0", ""),
                (482, "ab", "a9-0", ""),
                (483, "ab", "a9-0 b0-5", "!b90"),
                (573, "ab", "", "=b"),
                (2000, "ab", "a9-0 b0-5", "!b30"),
            ],
        ),
        (
            "what is told of one that is out counts for nothing",
            &[
                (0, "ab", "a9-0 b0-5", "!b30"),
                (5, "ab", "b0-99", ""),
                (30, "ab", "a9-0", "=b"),
                (35, "ab", "a9-0", ""),
            ],
        ),
        (
            "who leaves is forgotten",
            &[
                (0, "ab", "a9-0 b0-5", "!b30"),
                (5, "a", "", ""),
                (10, "ab", "a9-0 b0-4", ""),
            ],
        ),
        (
            "a clock set back does not stretch it beyond the longest",
            &[
                (5000, "ab", "a9-0 b0-5", "!b30"),
                (10, "ab", "", ""),
                (309, "ab", "", ""),
                (310, "ab", "", "=b"),
            ],
        ),
        (
            "those that were spared are out when there is room",
            &[
                (0, "abC", "a9-0 b0-5", "~b"),
                (5, "abC", "a9-0 b0-1", ""),
                (10, "abc", "a9-0", "!b30"),
            ],
        ),
    ];
    for (name, steps) in stories {
        play(steps, name);
    }
}

/// The tenth ejection and every later one lasts three hundred seconds.
#[test]
fn the_longest() {
    let (spec, both) = (PassiveSpec::default(), members("ab"));
    let mut outliers = Outliers::default();
    let mut now = at(0);
    for nth in 1..=15u64 {
        for word in ["a9-0", "b0-5"] {
            let (member, tally) = tally(word);
            outliers.note(member, &tally, now);
        }
        let verdicts = outliers.judge(&spec, &both, now);
        assert_eq!(show(&verdicts), format!("!b{}", (30 * nth).min(300)));
        now = outliers.next_deadline().unwrap();
        assert_eq!(show(&outliers.judge(&spec, &both, now)), "=b");
    }
}

/// Each address family has backends of its own.
#[test]
fn families_are_apart() {
    let six = (InstanceId("s".into()), "[2001:db8::1]:80".parse().unwrap());
    let mut outliers = Outliers::default();
    let (a, good) = tally("a9-0");
    let (_, bad) = tally("s0-9");
    outliers.note(a.clone(), &good, at(0));
    outliers.note(six.clone(), &bad, at(0));
    let members = [(a, false), (six, false)];
    assert_eq!(outliers.judge(&PassiveSpec::default(), &members, at(0)), []);
}

/// What is said of it.
#[test]
fn reasons() {
    let reason = |words: &[&str]| {
        let mut outliers = Outliers::default();
        for word in words {
            let (member, tally) = tally(word);
            outliers.note(member, &tally, at(0));
        }
        outliers.judge(&PassiveSpec::default(), &members("ab"), at(0));
        outliers.ejection(&member('b')).unwrap().reason.clone()
    };
    assert_eq!(
        reason(&["a9-0", "b0-7"]),
        "7 connections in a row failed: refused"
    );
    assert_eq!(
        reason(&["a9-1", "b4-16"]),
        "16 of 20 connections failed (refused), with the others 1 of 10"
    );
}
