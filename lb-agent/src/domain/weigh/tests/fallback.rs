//! Shares that count while the backends of others are dead.

use super::*;

/// Rows of which backends are dead, by family, and the shares that come of `a | b | c`.
#[test]
fn a_fallback_counts_while_all_before_it_are_dead() {
    let rows: [(&[usize], [u32; 6]); 7] = [
        (&[], [1, 1, 0, 0, 0, 0]),
        (&[0], [0, 1, 0, 0, 0, 0]),
        (&[0, 1], [0, 0, 1, 0, 0, 0]),
        (&[0, 1, 2], [0, 0, 0, 1, 0, 0]),
        (&[2, 3], [1, 1, 0, 0, 0, 0]),
        // The other family has backends of a alone; nobody is left, so all of a are used.
        (&[4, 5], [1, 1, 0, 0, 1, 1]),
        // Nobody anywhere: the first shares.
        (&[0, 1, 2, 3], [1, 1, 0, 0, 0, 0]),
    ];
    for (row, (dead, expected)) in rows.iter().enumerate() {
        let mut spec = ServiceSpec::clone(&weights(&[], None, None).spec);
        spec.vips.push("[2001:db8::1]:80".parse().unwrap());
        let backends = [
            ("a", false),
            ("a", false),
            ("b", false),
            ("c", false),
            ("a", true),
            ("a", true),
        ];
        let instances = (0..).zip(backends).map(|(index, (subset, v6))| {
            let address = match v6 {
                false => ([10, 0, 0, index], 80).into(),
                true => ([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(index)], 80).into(),
            };
            let instance = Instance {
                id: InstanceId(format!("n/{index}").into()),
                address,
                weight: 1,
                tags: Default::default(),
                meta: Default::default(),
                subset: Some(subset.into()),
                detail: None,
                health: CatalogHealth::Passing,
            };
            (instance, None)
        });
        let observed = |instance: &Instance| {
            let index: usize = instance.id.0[2..].parse().unwrap();
            match dead.contains(&index) {
                true => Observed::Unhealthy {
                    since: SystemTime::UNIX_EPOCH,
                    reason: String::new(),
                },
                false => Observed::Unknown,
            }
        };
        let one = |name: &str| Shares::parse(&[format!("{name}=1")]).unwrap();
        let split = by_hand(one("a"), vec![one("b"), one("c")]);
        let spec = Arc::new(spec);
        let inputs = Inputs {
            instances: instances.collect(),
            observed: &observed,
            answers: &|_| true,
            ejected: &|_| None,
            ramp: &|_| None,
            replaced: Default::default(),
            drains: None,
            splits: SplitStack::of(&spec, [split]),
            shift: None,
        };
        let state = weigh(&spec, inputs);
        let taking = state.backends.iter().map(|b| u32::from(b.weight > 0));
        let mut expected = *expected;
        if !dead.contains(&4) {
            expected[4..].fill(1);
        }
        assert_eq!(taking.collect::<Vec<_>>(), expected, "row {row}");
    }
}
