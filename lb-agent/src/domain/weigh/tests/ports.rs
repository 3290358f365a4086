//! Ports that a way of forwarding does not translate.

use super::*;

/// Where ports are kept, a backend on another one is out, says so, and does not count for panic.
#[test]
fn ports_that_cannot_be_translated() {
    let n = Special::None;
    let nat = weights(&[("", 1, n), ("", 1, n)], None, None);
    for forwarding in [Forwarding::DsrL2, Forwarding::DsrIpip] {
        let mut spec = ServiceSpec::clone(&nat.spec);
        spec.forwarding = forwarding;
        let mut instances: Vec<Instance> = nat
            .backends
            .iter()
            .map(|backend| backend.instance.clone())
            .collect();
        instances[1].address.set_port(8080);
        let instances = instances.into_iter().map(|instance| (instance, None));
        let state = weigh(
            &Arc::new(spec),
            unobserved(instances.collect(), Default::default()),
        );
        assert_eq!(permille(&state), [1000, 0]);
        assert!(!state.panic);
        let expected = format!(
            "listens on port 8080, but {} cannot translate the VIP's port 80",
            forwarding.name()
        );
        assert_eq!(*state.backends[1].reason, *expected);
    }
}
