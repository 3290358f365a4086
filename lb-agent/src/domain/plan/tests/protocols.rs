//! What depends on a service's protocol.

use super::*;

/// The UDP flows of a backend that takes no new ones end at once, whether it is still listed or not.
#[test]
fn udp_flows_of_a_backend_are_cut() {
    let udp = |backends: &[(&str, u32)]| {
        let mut state = service("a", &[VIP], backends);
        let state_of_it = Arc::make_mut(&mut state);
        Arc::make_mut(&mut state_of_it.spec).protocol = Protocol::Udp;
        snapshot(&[state])
    };
    let (mut view, mut ids) = (KernelView::default(), ServiceIds::new());
    let rows = [
        udp(&[("10.0.0.1:80", 1), ("10.0.0.2:80", 0)]),
        udp(&[("10.0.0.1:80", 1)]),
    ];
    for left in rows {
        let both = udp(&[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)]);
        step_to(&both, &mut view, &mut ids, &[1]);
        let steps = step_to(&left, &mut view, &mut ids, &[1]);
        assert!(steps.contains(&Step::CutUdp(1)), "{steps:?}");
    }
}

/// VIPs of the proxy's services go where it listens, but for those that it listens on itself.
#[test]
fn what_the_proxy_listens_on_is_not_steered() {
    let own = "10.0.0.1:8090";
    // where the proxy listens → VIPs in the kernel, and where they lead
    for (sockets, vips, backends) in [
        (
            &[own, "10.0.0.1:40000"][..],
            &[VIP][..],
            &["10.0.0.1:40000"][..],
        ),
        (&["10.0.0.1:40000"], &[VIP, own], &["10.0.0.1:40000"]),
        (&[own], &[], &[]),
        (&[], &[], &[]),
    ] {
        let mut state = service("a", &[VIP, own], &[("10.0.1.1:80", 1)]);
        let proxied = Arc::make_mut(&mut state);
        Arc::make_mut(&mut proxied.spec).protocol = Protocol::Http;
        let sockets = sockets.iter().map(|socket| socket.parse().unwrap());
        proxied.steering = Some(sockets.collect());
        let (mut view, mut ids) = (KernelView::default(), ServiceIds::new());
        step_to(&snapshot(&[state]), &mut view, &mut ids, &[]);
        let expected = |texts: &[&str]| -> BTreeSet<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let steered = view.vips.keys().map(|vip| vip.address);
        assert_eq!(steered.collect::<BTreeSet<_>>(), expected(vips));
        let led = view.backends.values().map(|backend| backend.address);
        assert_eq!(led.collect::<BTreeSet<_>>(), expected(backends));
    }
}
