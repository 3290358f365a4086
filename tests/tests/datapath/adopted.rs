//! What an agent finds that is started anew, with flows alive and perhaps another configuration.

use std::process::Command;

use lb_agent::domain::kernel::{Kernel as _, Step};
use lb_common::{
    maps::{MAX_BACKENDS, MIN_FLOW_SLOTS},
    verdict::Verdict::PassForeign,
};
use lb_tests::{
    packet::{ACK, Packet, SYN},
    world::{World, answer_to},
};

use crate::{
    memory,
    row::{Row, Side},
    traffic::{ALL, TCP4, Traffic, at_client, forwarded},
};

const PORT: u16 = 20_555;

/// A flow that was there before goes on, both ways.
fn goes_on(world: &mut World, traffic: Traffic, request: &Packet, sent: &Packet) {
    let again = forwarded(world.request(request)).unwrap_or_else(|v| panic!("{traffic:?}: {v:?}"));
    assert_eq!((again.dst, again.sport), (sent.dst, sent.sport));
    let answer = answer_to(sent, ACK);
    let got = forwarded(world.reply(&answer)).unwrap_or_else(|v| panic!("{traffic:?}: {v:?}"));
    assert_eq!(got, at_client(request, &answer), "{traffic:?}");
}

/// A flow of each kind.
fn flows(world: &mut World) -> Vec<(Traffic, Packet, Packet)> {
    ALL.map(|traffic| {
        traffic.serve(world, &[2]);
        let request = traffic.request(PORT, ACK);
        let sent = traffic.establish(world, &request).unwrap();
        (traffic, request, sent)
    })
    .into()
}

/// A VIP that is deleted keeps its flows over a restart.
#[test]
fn flows_of_deleted_vips() {
    World::with(|world| {
        let flows = flows(world);
        for (traffic, ..) in &flows {
            world.apply(&[Step::DeleteVip(traffic.key())]).unwrap();
        }
        world.reopen(|_| {}).unwrap();
        // The next change of anything writes the filter anew.
        world.apply(&[]).unwrap();
        for (traffic, request, sent) in &flows {
            goes_on(world, *traffic, request, sent);
            let new = traffic.request(PORT + 1, SYN).build();
            Row::refused("new", Side::Front, new, PassForeign).check(world);
        }
    })
    .unwrap();
}

/// Other ports are given from now on; the flows there are keep theirs.
#[test]
fn another_range_of_ports() {
    World::with(|world| {
        let flows = flows(world);
        world
            .reopen(|options| options.ports = (40_000, 40_999))
            .unwrap();
        for _ in 0..2 {
            for (traffic, request, sent) in &flows {
                goes_on(world, *traffic, request, sent);
            }
            world.apply(&[]).unwrap();
        }
    })
    .unwrap();
}

/// The node's routes prefer another source; flows keep theirs, with and without a restart.
#[test]
fn another_source() {
    let ip = |args: &str| {
        let status = Command::new("ip").args(args.split(' ')).status().unwrap();
        assert!(status.success(), "ip {args}");
    };
    World::with(|world| {
        let flows = flows(world);
        ip("address add 10.99.1.200/24 dev back");
        ip("route replace 10.99.1.0/24 dev back src 10.99.1.200");
        assert_eq!(world.datapath.refresh_sources().unwrap(), 2);
        world.apply(&[]).unwrap();
        for (traffic, request, sent) in &flows {
            goes_on(world, *traffic, request, sent);
        }
        world.reopen(|_| {}).unwrap();
        world.apply(&[]).unwrap();
        for (traffic, request, sent) in &flows {
            goes_on(world, *traffic, request, sent);
        }
        let new = forwarded(world.request(&TCP4.request(PORT + 1, SYN))).unwrap();
        assert_eq!(new.src, "10.99.1.200".parse::<std::net::IpAddr>().unwrap());
    })
    .unwrap();
}

/// The order of the interfaces in the configuration is nothing to the flows.
#[test]
fn interfaces_in_another_order() {
    World::with(|world| {
        let flows = flows(world);
        world
            .reopen(|options| options.interfaces.reverse())
            .unwrap();
        for (traffic, request, sent) in &flows {
            goes_on(world, *traffic, request, sent);
        }
        // Neither to new ones.
        let traffic = TCP4;
        let request = traffic.request(PORT + 1, ACK);
        let sent = traffic.establish(world, &request).unwrap();
        goes_on(world, traffic, &request, &sent);
    })
    .unwrap();
}

/// Maps of another size, left by an agent that ended before it said so, are made anew.
#[test]
fn half_made_maps() {
    World::with(|world| {
        memory::forget_meta(world);
        world.reopen(|options| options.flow_slots *= 128).unwrap();
        let slots = MIN_FLOW_SLOTS * 128;
        assert_eq!(world.datapath.flow_slots(), slots);
        let census = world.datapath.flows().sweep().unwrap();
        assert_eq!(census.slots, u64::from(slots));
    })
    .unwrap();
}

/// However far apart the ids of backends lie, all are found.
#[test]
fn sparse_backends() {
    World::with(|world| {
        let Step::PutBackend(_, backend) = TCP4.put_backend(2, true) else {
            unreachable!("a step that puts a backend")
        };
        let ids = [3, 9000, MAX_BACKENDS - 2];
        for id in ids {
            world.apply(&[Step::PutBackend(id, backend)]).unwrap();
        }
        world.reopen(|_| {}).unwrap();
        let view = world.datapath.adopt().unwrap();
        assert_eq!(view.backends.into_keys().collect::<Vec<_>>(), ids);
    })
    .unwrap();
}
