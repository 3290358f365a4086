//! The trace's switch and bounds: on only while it is renewed, no more than the rate and the room
//! admit, and as many bytes as were asked for.

use lb_agent::{
    datapath::Trace,
    domain::trace::{PacketFilter, Tap as _},
};
use lb_tests::{
    packet::{ACK, Packet},
    world::World,
};

use crate::{
    row::{Side, run},
    trace::{everything, one, told, watch},
    traffic::TCP4,
};

const PORT: u16 = 20_444;

/// Off, on, off; a lease that has run out is the same as off, and the program itself throws the
/// switch.
#[test]
fn the_switch() {
    World::with(|world| {
        let mut trace = world.datapath.take_trace().unwrap();
        assert!(world.datapath.take_trace().is_none());
        trace.set(0, Some(&everything())).unwrap();
        let mut packets = |trace: &mut Trace| {
            world.request(&TCP4.request(PORT, ACK));
            told(trace).len()
        };
        assert!(!trace.is_on().unwrap(), "as the programs are loaded");
        assert_eq!(packets(&mut trace), 0);
        trace.switch(true).unwrap();
        assert_eq!(packets(&mut trace), 1);
        trace.switch(false).unwrap();
        assert_eq!(packets(&mut trace), 0);
        trace.lease(-1).unwrap();
        assert!(trace.is_on().unwrap());
        assert_eq!(packets(&mut trace), 0);
        assert!(!trace.is_on().unwrap(), "the packet has thrown it");
        trace.switch(true).unwrap();
        assert_eq!(packets(&mut trace), 1);
        trace.set(0, None).unwrap();
        assert_eq!(packets(&mut trace), 0);
        // Another start begins with it off.
        trace.set(0, Some(&everything())).unwrap();
        world.reopen(|_| {}).unwrap();
        let trace = world.datapath.take_trace().unwrap();
        assert!(!trace.is_on().unwrap());
    })
    .unwrap();
}

/// Beyond the rate, and beyond the room in the buffer, packets are counted instead of told.
#[test]
fn what_is_lost_is_counted() {
    World::with(|world| {
        let slow = PacketFilter {
            rate: 3,
            ..everything()
        };
        let mut trace = watch(world, &slow);
        let packet = TCP4.request(PORT, ACK);
        // Test runs may move from one CPU to another, and a second may end in between.
        for _ in 0..200 {
            world.request(&packet);
        }
        let events = told(&mut trace).len() as u64;
        let counts = trace.counts().unwrap()[0];
        assert!((3..100).contains(&events), "{events}");
        assert_eq!((counts.events, counts.lost), (events, 200 - events));

        let all = PacketFilter {
            snap: 256,
            ..everything()
        };
        trace.set(1, Some(&all)).unwrap();
        let big = Packet {
            payload: vec![1; 300],
            ..packet
        };
        for _ in 0..3000 {
            world.request(&big);
        }
        let counts = trace.counts().unwrap()[1];
        assert!(counts.lost > 0 && counts.events > 2000, "{counts:?}");
        assert_eq!(counts.events + counts.lost, 3000);
        let events = told(&mut trace);
        assert_eq!(events.len() as u64, counts.events);
        assert!(events.iter().all(|event| event.bytes == big.build()[..256]));
        world.request(&big);
        assert_eq!(told(&mut trace).len(), 1, "there is room again");
    })
    .unwrap();
}

/// Every length up to what is kept and beyond: the bytes are those of the frame.
#[test]
fn bytes_of_every_length() {
    World::with(|world| {
        for snap in [14_u16, 100, 255, 256] {
            let filter = PacketFilter {
                snap,
                ..everything()
            };
            let mut trace = world.datapath.take_trace().unwrap();
            trace.set(0, Some(&filter)).unwrap();
            trace.switch(true).unwrap();
            for length in 14..=300_usize {
                let frame: Vec<u8> = (0..length).map(|index| index as u8 ^ 0x5a).collect();
                run(world, Side::Front, &frame).unwrap();
                let event = one(&mut trace);
                assert_eq!(event.bytes, frame[..length.min(snap.into())]);
                assert_eq!(event.length as usize, length);
            }
            world.reopen(|_| {}).unwrap();
        }
    })
    .unwrap();
}
