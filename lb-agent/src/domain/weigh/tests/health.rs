//! Panic, ejection and slow start as factors of the weights.

use super::*;

#[test]
fn health_by_the_table() {
    let n = Special::None;
    check(&[
        // What traffic says counts as what probes say.
        (
            &[("", 1, n), ("", 3, Ejected)],
            None,
            None,
            &[1000, 0],
            false,
            "ejected for a while: 5 connections in a row failed",
        ),
        (
            &[("", 1, Ejected), ("", 1, ProbeFails)],
            None,
            None,
            &[500, 500],
            true,
            "so all are used",
        ),
        // Half is enough, less is not.
        (
            &[("", 1, n), ("", 1, n), ("", 1, Critical), ("", 1, Ejected)],
            None,
            None,
            &[500, 500, 0, 0],
            false,
            "ejected",
        ),
        (
            &[("", 1, n), ("", 1, Critical), ("", 2, Ill)],
            None,
            None,
            &[250, 250, 500],
            true,
            "too few backends are healthy, so all are used",
        ),
        // Who does not answer is no help to the few, and no reason to panic.
        (
            &[
                ("", 1, n),
                ("", 1, Ill),
                ("", 1, Ejected),
                ("", 2, ProbeFails),
            ],
            None,
            None,
            &[500, 500, 0, 0],
            true,
            "its probes fail: connection refused",
        ),
        (
            &[("", 1, n), ("", 1, Ejected), ("", 2, ProbeFails)],
            None,
            None,
            &[1000, 0, 0],
            false,
            "its probes fail: connection refused",
        ),
        // Who is out by a person's will is no part of the count.
        (
            &[
                ("", 1, n),
                ("", 1, Drained),
                ("", 1, Drained),
                ("", 1, Critical),
            ],
            None,
            None,
            &[1000, 0, 0, 0],
            false,
            "serfHealth",
        ),
        // Under a split each subset is counted apart, and a dead one gives its share away.
        (
            &[("a", 1, n), ("b", 1, Critical), ("b", 1, ProbeFails)],
            Some("a=50 b=50"),
            None,
            &[1000, 0, 0],
            false,
            "refused",
        ),
        (
            &[("a", 1, n), ("b", 1, n), ("b", 1, Critical), ("b", 1, Ill)],
            Some("a=70 b=30"),
            None,
            &[700, 100, 100, 100],
            true,
            "so all are used",
        ),
        // Slow start is within the service, or within the subset: shares stay.
        (
            &[("", 1, n), ("", 1, Starting(1))],
            None,
            None,
            &[909, 90],
            false,
            "weight 1; starting slowly, at 10 % of its share",
        ),
        (
            &[("a", 1, n), ("a", 1, Starting(5)), ("b", 1, Starting(1))],
            Some("a=60 b=40"),
            None,
            &[400, 200, 400],
            false,
            "at 10 %",
        ),
    ]);
}

/// The threshold is the service's own: 0 stands for none healthy at all, 100 for any that is not.
#[test]
fn the_threshold_of_panic() {
    let n = Special::None;
    let rows = [(0, false), (33, false), (34, true), (50, true), (100, true)];
    for (percent, expected) in rows {
        let mut spec = ServiceSpec::clone(&weights(&[], None, None).spec);
        spec.health = HealthPolicy {
            panic: percent,
            ..HealthPolicy::default()
        };
        let like = weights(
            &[("", 1, n), ("", 1, Critical), ("", 1, Critical)],
            None,
            None,
        );
        let all = like
            .backends
            .iter()
            .map(|each| (each.instance.clone(), None));
        let state = weigh(
            &Arc::new(spec),
            unobserved(all.collect(), Default::default()),
        );
        assert_eq!(state.panic, expected, "{percent} %");
    }
}
