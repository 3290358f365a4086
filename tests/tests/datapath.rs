//! Rows of {description, state, packet in, verdict, packet out}, run through the loaded program.

use lb_common::verdict::Verdict;
use lb_tests::{
    packet::{ACK, Packet, SYN},
    world::{CLIENT, NODE, World, action, answer_to, backend_mac},
};

const VIP: &str = "198.51.100.10";

#[test]
fn round_trip() {
    World::with(|world| {
        world
            .service(0, "198.51.100.10:80", 6, &["10.99.1.2:8080"])
            .unwrap();
        let syn = Packet::tcp(CLIENT, 40_000, VIP, 80, SYN);
        let out = world.request(&syn);
        println!("{out:?}");
        assert_eq!(out.verdict, Verdict::ForwardRequest);
        assert_eq!(out.action, action::REDIRECT);
        let sent = out.packet();
        assert_eq!(sent.src.to_string(), NODE);
        assert_eq!(sent.dst.to_string(), "10.99.1.2");
        assert_eq!(sent.dport, 8080);
        assert_eq!(sent.ttl, 63);
        assert_eq!(sent.dmac, backend_mac(2));
        let back = world.reply(&answer_to(&sent, SYN | ACK));
        assert_eq!(back.verdict, Verdict::ForwardReply);
        let got = back.packet();
        assert_eq!(
            (got.src, got.sport, got.dst, got.dport),
            (syn.dst, 80, syn.src, 40_000)
        );
        assert_eq!(got.dmac, syn.smac);
    })
    .unwrap();
}
