//! IPv4 and IPv6 beside each other, and the ends of what weights can be.

use super::*;

/// Each family's backends share among themselves.
#[test]
fn families_are_apart() {
    let mut spec = ServiceSpec::clone(&weights(&[], Some("a=90 b=10"), None).spec);
    spec.vips.push("[2001:db8::1]:80".parse().unwrap());
    let instances = [
        ("a", "10.0.0.1:80"),
        ("a", "10.0.0.2:80"),
        ("b", "10.0.0.3:80"),
    ]
    .into_iter()
    .chain([
        ("a", "[fd00::1]:80"),
        ("b", "[fd00::2]:80"),
        ("b", "[fd00::3]:80"),
    ])
    .map(|(subset, address)| {
        let instance = Instance {
            id: InstanceId(address.into()),
            address: address.parse().unwrap(),
            weight: 1,
            tags: Default::default(),
            meta: Default::default(),
            subset: Some(subset.into()),
            detail: None,
            health: if address.starts_with('[') {
                CatalogHealth::Critical(String::new())
            } else {
                CatalogHealth::Passing
            },
        };
        (instance, None)
    })
    .collect();
    let spec = Arc::new(spec);
    let state = weigh(&spec, unobserved(instances, SplitStack::of(&spec, [])));
    let of = |v6: bool| -> Vec<u32> {
        let all = state
            .backends
            .iter()
            .filter(|b| b.address().is_ipv6() == v6);
        all.map(|backend| backend.weight / SHARE_UNITS as u32)
            .collect()
    };
    assert_eq!(of(false), [45, 45, 10]);
    assert_eq!(of(true), [90, 5, 5]);
    assert!(state.panic);
}

/// The largest shares and weights do not overflow, the smallest do not vanish.
#[test]
fn extremes() {
    let state = weights(
        &[("a", 65_535, Special::None), ("a", 1, Special::None)],
        Some("a=10000"),
        None,
    );
    assert!(state.backends[0].weight > 900_000_000);
    assert!(state.backends[1].weight > 0);
}
