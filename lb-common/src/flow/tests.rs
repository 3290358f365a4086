//! Tests of `flow`.

use super::tcp_flags::{ACK, FIN, RST, SYN};
use super::*;
use crate::{IPPROTO_TCP, IPPROTO_UDP};

/// The whole transition table: rows of state before, half, protocol, flags, state after.
#[test]
fn states_advance_by_the_table() {
    use Kind::{Forward, Reply};
    use State::*;
    const T: u8 = IPPROTO_TCP;
    const U: u8 = IPPROTO_UDP;
    let rows = [
        (HalfOpen, Forward, T, SYN, HalfOpen, "SYN repeated"),
        (
            HalfOpen,
            Forward,
            T,
            ACK,
            HalfOpen,
            "an ACK flood establishes nothing",
        ),
        (HalfOpen, Reply, T, SYN | ACK, Answered, "SYN ACK"),
        (HalfOpen, Reply, T, RST | ACK, Refused, "refused"),
        (Refused, Reply, T, RST | ACK, Refused, "refused twice"),
        (Refused, Forward, T, RST, Reset, "and reset by the client"),
        (HalfOpen, Reply, T, RST, Reset, "no answer to a SYN"),
        (Answered, Reply, T, RST | ACK, Reset, "accepted and reset"),
        (HalfOpen, Forward, T, RST, Reset, "given up by the client"),
        (
            HalfOpen,
            Forward,
            T,
            FIN,
            ClosingByClient,
            "FIN out of the blue",
        ),
        (
            Answered,
            Forward,
            T,
            SYN,
            Answered,
            "SYN repeated after the answer",
        ),
        (Answered, Reply, T, SYN | ACK, Answered, "SYN ACK repeated"),
        (Answered, Forward, T, ACK, Established, "handshake done"),
        (
            Answered,
            Forward,
            T,
            ACK | FIN,
            ClosingByClient,
            "closed at once",
        ),
        (Established, Forward, T, ACK, Established, "data"),
        (Established, Reply, T, ACK, Established, "data"),
        (
            Established,
            Forward,
            T,
            SYN,
            Established,
            "a stray SYN does not reopen",
        ),
        (
            Established,
            Forward,
            T,
            FIN | ACK,
            ClosingByClient,
            "client closes",
        ),
        (
            Established,
            Reply,
            T,
            FIN | ACK,
            ClosingByBackend,
            "backend closes",
        ),
        (
            ClosingByClient,
            Forward,
            T,
            FIN | ACK,
            ClosingByClient,
            "FIN repeated",
        ),
        (
            ClosingByClient,
            Reply,
            T,
            ACK,
            ClosingByClient,
            "half-closed, data goes on",
        ),
        (
            ClosingByClient,
            Reply,
            T,
            FIN | ACK,
            Finished,
            "both closed",
        ),
        (
            ClosingByBackend,
            Reply,
            T,
            FIN | ACK,
            ClosingByBackend,
            "FIN repeated",
        ),
        (
            ClosingByBackend,
            Forward,
            T,
            FIN | ACK,
            Finished,
            "both closed",
        ),
        (Finished, Forward, T, ACK, Finished, "last ACK"),
        (Finished, Reply, T, FIN, Finished, "FIN repeated"),
        (ClosingByClient, Reply, T, RST, Reset, "reset while closing"),
        (Reset, Forward, T, ACK, Reset, "nothing revives"),
        (HalfOpen, Forward, U, 0, HalfOpen, "datagrams one way"),
        (HalfOpen, Reply, U, 0, Answered, "answered"),
        (Answered, Reply, U, 0, Answered, "answered on"),
        (Answered, Forward, U, 0, Established, "gone on"),
        (
            Established,
            Forward,
            U,
            RST,
            Established,
            "UDP has no flags",
        ),
    ];
    for (before, kind, proto, flags, after, what) in rows {
        let got = State::from_bits(advance(before as u8, kind, proto, flags));
        assert_eq!(got, Some(after), "{what}");
    }
}

/// What goes into a tag comes out, and a state is no part of the identity.
#[test]
fn tag_round_trip() {
    let hash = 0xdead_beef_0123_4567;
    let tag = Tag::new(hash, 0xa5, Kind::Reply, IPPROTO_UDP, State::Established);
    assert_eq!(tag.state(), Some(State::Established));
    assert_eq!(tag.kind(), Some(Kind::Reply));
    assert_eq!(tag.proto(), IPPROTO_UDP);
    assert_eq!(tag.generation(), 0xa5);
    assert!(tag.matches(hash, IPPROTO_UDP));
    assert!(!tag.matches(hash, IPPROTO_TCP));
    assert!(!tag.matches(hash ^ (1 << 40), IPPROTO_UDP));
    assert!(!tag.with_state(State::Claimed).matches(hash, IPPROTO_UDP));
    assert!(tag.same_identity(tag.with_state(State::Reset)));
    assert!(!tag.same_identity(Tag::new(
        hash,
        0xa6,
        Kind::Reply,
        IPPROTO_UDP,
        State::Established
    )));
}

/// Each state has the lifetime that its name promises.
#[test]
fn lifetimes_by_state() {
    let times = Lifetimes::DEFAULT_SECONDS;
    assert_eq!(
        times.of(IPPROTO_TCP, State::HalfOpen as u8),
        times.tcp_half_open
    );
    assert_eq!(
        times.of(IPPROTO_TCP, State::Answered as u8),
        times.tcp_half_open
    );
    assert_eq!(
        times.of(IPPROTO_TCP, State::Established as u8),
        times.tcp_established
    );
    assert_eq!(
        times.of(IPPROTO_TCP, State::ClosingByBackend as u8),
        times.tcp_closing
    );
    assert_eq!(
        times.of(IPPROTO_TCP, State::Finished as u8),
        times.tcp_finished
    );
    assert_eq!(
        times.of(IPPROTO_UDP, State::HalfOpen as u8),
        times.udp_half_open
    );
    assert_eq!(
        times.of(IPPROTO_UDP, State::Established as u8),
        times.udp_established
    );
}

/// A flow whose answers are not seen: what the client goes on with establishes it, and its end is
/// the client's.
#[test]
fn states_of_a_flow_alone() {
    use State::{ClosingByClient, Established, HalfOpen, Reset};
    use tcp_flags::{ACK, FIN, RST, SYN};
    let rows = [
        (HalfOpen, IPPROTO_TCP, SYN, HalfOpen),
        (HalfOpen, IPPROTO_TCP, ACK, Established),
        (HalfOpen, IPPROTO_TCP, FIN | ACK, ClosingByClient),
        (HalfOpen, IPPROTO_TCP, RST, Reset),
        (Established, IPPROTO_TCP, ACK, Established),
        (Established, IPPROTO_TCP, SYN, Established),
        (Established, IPPROTO_TCP, FIN, ClosingByClient),
        (ClosingByClient, IPPROTO_TCP, ACK, ClosingByClient),
        (ClosingByClient, IPPROTO_TCP, FIN, ClosingByClient),
        (ClosingByClient, IPPROTO_TCP, RST, Reset),
        (Reset, IPPROTO_TCP, ACK, Reset),
        (Reset, IPPROTO_TCP, FIN, Reset),
        (HalfOpen, crate::IPPROTO_UDP, 0, Established),
        (Established, crate::IPPROTO_UDP, 0, Established),
    ];
    for (state, proto, flags, expected) in rows {
        let next = advance_alone(state as u8, proto, flags);
        assert_eq!(next, expected as u8, "{state:?}, {proto}, {flags:#x}");
    }
}
