//! Windows: each measure at its limits, what has no say, time that jumps.

use super::*;
use Verdict::{Failed, Good, Undecided};

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + second)
}

fn spec() -> GateSpec {
    GateSpec {
        latency: Some(Duration::from_millis(100)),
        ..GateSpec::default()
    }
}

fn readings(begun: u64, failed: u64, count: u64, took_us: u64) -> Readings {
    let outcomes = Outcomes {
        begun,
        failed,
        probes: Timed { count, took_us },
        ..Outcomes::default()
    };
    let address = ([10, 0, 0, 1], 80).into();
    [((InstanceId("a".into()), address), outcomes)].into()
}

/// Healthy percent; begun and failed of the subset and of the rest; answers and milliseconds each.
type Row = (
    f64,
    (u64, u64),
    (u64, u64),
    (u64, u64),
    Verdict,
    &'static str,
);

#[test]
fn each_measure_has_a_limit_and_a_band() {
    let rows: [Row; 20] = [
        (100.0, (0, 0), (0, 0), (0, 0), Good, ""),
        (60.0, (0, 0), (0, 0), (0, 0), Good, ""),
        (
            59.0,
            (0, 0),
            (0, 0),
            (0, 0),
            Undecided,
            "59 % of its weight",
        ),
        (
            50.0,
            (0, 0),
            (0, 0),
            (0, 0),
            Undecided,
            "50 % of its weight",
        ),
        (49.0, (0, 0), (0, 0), (0, 0), Failed, "of 50 % at least"),
        (0.0, (0, 0), (0, 0), (0, 0), Failed, "0 % of its weight"),
        // Too few connections say nothing, however bad.
        (100.0, (9, 9), (0, 0), (0, 0), Good, ""),
        (
            100.0,
            (10, 10),
            (0, 0),
            (0, 0),
            Failed,
            "100.0 % of its 10 new",
        ),
        (100.0, (1000, 25), (0, 0), (0, 0), Good, ""),
        (100.0, (1000, 26), (0, 0), (0, 0), Undecided, "2.6 %"),
        (100.0, (1000, 50), (0, 0), (0, 0), Undecided, "5.0 %"),
        (100.0, (1000, 51), (0, 0), (0, 0), Failed, "5.1 %"),
        // What all suffer alike is not the new one's fault.
        (
            100.0,
            (1000, 200),
            (1000, 101),
            (0, 0),
            Undecided,
            "(10.1 % elsewhere)",
        ),
        (100.0, (1000, 200), (1000, 100), (0, 0), Failed, "20.0 %"),
        // Unanswered connections may be counted twice; it is no more than all.
        (100.0, (10, 30), (0, 0), (0, 0), Failed, "100.0 %"),
        (100.0, (0, 0), (0, 0), (5, 80), Good, ""),
        (
            100.0,
            (0, 0),
            (0, 0),
            (5, 81),
            Undecided,
            "took 81ms on average",
        ),
        (100.0, (0, 0), (0, 0), (5, 101), Failed, "of 100ms at most"),
        // The worst counts.
        (55.0, (1000, 500), (0, 0), (5, 90), Failed, "50.0 %"),
        (
            10.0,
            (1000, 500),
            (0, 0),
            (5, 500),
            Failed,
            "10 % of its weight",
        ),
    ];
    for (healthy, own, rest, (answers, ms), verdict, words) in rows {
        let mut first = Sight {
            healthy: healthy / 100.0,
            subset: readings(7, 7, 7, 7),
            rest: readings(3, 3, 0, 0),
            counted: 0,
        };
        let mut window = Window::open(&spec(), at(0), first.clone(), None);
        first.subset = readings(7 + own.0, 7 + own.1, 7 + answers, 7 + answers * ms * 1000);
        first.rest = readings(3 + rest.0, 3 + rest.1, 0, 0);
        first.counted = 1;
        assert_eq!(window.look(&spec(), at(9), &first), Look::Open);
        let Look::Closed(judgement) = window.look(&spec(), at(10), &first) else {
            panic!("still open");
        };
        let case = format!("{healthy} {own:?} {rest:?} {answers} {ms}: {judgement:?}");
        assert_eq!(judgement.verdict, verdict, "{case}");
        assert!(judgement.reason.contains(words), "{case}");
    }
}

/// What clients wait for counts before what probes find, where there is enough of it. Probes and
/// milliseconds of each; the same of requests.
#[test]
fn requests_come_before_probes() {
    let rows = [
        ((5, 1), (10, 101), Failed, "requests took 101ms on average"),
        ((5, 1), (10, 100), Undecided, "requests took 100ms"),
        ((5, 1), (10, 80), Good, ""),
        ((5, 500), (10, 1), Good, ""),
        ((0, 0), (10, 101), Failed, "of 100ms at most"),
        // Too few say nothing.
        ((5, 1), (9, 900), Good, ""),
        ((5, 101), (9, 1), Failed, "probes took 101ms"),
        ((0, 0), (9, 900), Good, ""),
    ];
    for (probes, requests, verdict, words) in rows {
        let timed = |(count, ms): (u64, u64)| Timed {
            count,
            took_us: count * ms * 1000,
        };
        let subset = Outcomes {
            probes: timed(probes),
            requests: timed(requests),
            ..Outcomes::default()
        };
        let judgement = judge(&spec(), 1.0, &subset, None);
        assert_eq!(judgement.verdict, verdict, "{probes:?} {requests:?}");
        assert!(judgement.reason.contains(words), "{judgement:?}");
    }
}

/// A window that no count fell into waits for the next one, but not for ever.
#[test]
fn a_window_waits_for_the_count() {
    let sight = |counted| Sight {
        healthy: 1.0,
        counted,
        ..Sight::default()
    };
    for (counted_at, closed_at) in [(3, 10), (10, 10), (13, 13), (99, 25)] {
        let mut window = Window::open(&spec(), at(0), sight(5), None);
        for second in 1.. {
            let counted = if second >= counted_at { 6 } else { 5 };
            let look = window.look(&spec(), at(second), &sight(counted));
            assert_eq!(window.ends().is_none(), look == Look::Open && second >= 10);
            if look != Look::Open {
                assert_eq!(second, closed_at);
                break;
            }
        }
    }
}

/// Clients that end everything by a reset do so in each subset. Once the others have no connections
/// any more, what they had before is what counts.
#[test]
fn others_without_connections_are_remembered() {
    let sight = |counted, own: (u64, u64), rest: (u64, u64)| Sight {
        healthy: 1.0,
        subset: readings(own.0, own.1, 0, 0),
        rest: readings(rest.0, rest.1, 0, 0),
        counted,
    };
    let rows = [
        // Others with enough connections; then with too few to say anything.
        ((1000, 900), (1000, 900), Some(90.0), Undecided),
        ((1000, 900), (0, 0), Some(90.0), Undecided),
        ((1000, 900), (9, 0), Some(90.0), Undecided),
        ((1000, 900), (1000, 0), Some(0.0), Failed),
        ((1000, 900), (9, 9), Some(0.0), Failed),
    ];
    let mut others = None;
    for (own, rest, expected, verdict) in rows {
        let first = sight(0, (0, 0), (0, 0));
        let mut window = Window::open(&spec(), at(0), first, others);
        let Look::Closed(judgement) = window.look(&spec(), at(10), &sight(1, own, rest)) else {
            panic!("still open");
        };
        others = window.others();
        assert_eq!(
            (others, judgement.verdict),
            (expected, verdict),
            "{own:?} {rest:?}"
        );
    }
}

/// Half the window down is half of it, whenever it was looked.
#[test]
fn health_counts_by_time() {
    let sight = |healthy, counted| Sight {
        healthy,
        counted,
        ..Sight::default()
    };
    for (down_at, percent) in [(2, "20 %"), (4, "40 %")] {
        let mut window = Window::open(&spec(), at(0), sight(1.0, 0), None);
        for second in 1..10 {
            let healthy = if second >= down_at { 0.0 } else { 1.0 };
            let look = window.look(&spec(), at(second), &sight(healthy, 1));
            assert_eq!(look, Look::Open);
        }
        let Look::Closed(judgement) = window.look(&spec(), at(10), &sight(0.0, 1)) else {
            panic!("still open");
        };
        assert_eq!(judgement.verdict, Failed);
        assert!(judgement.reason.starts_with(percent), "{judgement:?}");
    }
}

/// Backends that come within the window count from zero; those that go no longer; a counter that
/// began anew counts what it has.
#[test]
fn outcomes_of_changing_backends() {
    let one = |name: &str, begun| {
        let outcomes = Outcomes {
            begun,
            ..Outcomes::default()
        };
        let address: SocketAddr = ([10, 0, 0, 1], 80).into();
        ((InstanceId(name.into()), address), outcomes)
    };
    let first: Readings = [one("stays", 10), one("goes", 5), one("anew", 100)].into();
    let now: Readings = [one("stays", 15), one("comes", 3), one("anew", 2)].into();
    assert_eq!(since(&now, &first).begun, 5 + 3 + 2);
}

/// A clock set back behind the beginning makes the window worthless; a little back does nothing.
#[test]
fn a_clock_that_steps() {
    let sight = Sight {
        healthy: 1.0,
        ..Sight::default()
    };
    let mut window = Window::open(&spec(), at(0), sight.clone(), None);
    assert_eq!(window.look(&spec(), at(5), &sight), Look::Open);
    assert_eq!(window.look(&spec(), at(3), &sight), Look::Open);
    assert_eq!(
        window.look(&spec(), SystemTime::UNIX_EPOCH, &sight),
        Look::Void
    );
}
