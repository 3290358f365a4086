//! Where a flow is in its life, and how packets move it on.

use super::Kind;
use crate::IPPROTO_TCP;

/// Where a flow is in its life; both halves carry the same.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Nobody's slot.
    Free = 0,
    /// A writer is at work in it.
    Claimed = 1,
    /// Seen from the client only.
    HalfOpen = 2,
    /// The backend has answered.
    Answered = 3,
    /// The client has gone on after the answer.
    Established = 4,
    /// The client has sent FIN, the backend not yet.
    ClosingByClient = 5,
    /// The backend has sent FIN, the client not yet.
    ClosingByBackend = 6,
    /// Both sides have sent FIN.
    Finished = 7,
    /// Reset, by either side.
    Reset = 8,
    /// The backend has answered the client's SYN with a reset: it does not take connections. Told
    /// apart from [`State::Reset`], which a client can bring about with any backend.
    Refused = 9,
}

impl State {
    /// How many there are, [`State::Free`] and [`State::Claimed`] included.
    pub const COUNT: usize = 10;

    /// The state whose bits these are.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => State::Free,
            1 => State::Claimed,
            2 => State::HalfOpen,
            3 => State::Answered,
            4 => State::Established,
            5 => State::ClosingByClient,
            6 => State::ClosingByBackend,
            7 => State::Finished,
            8 => State::Reset,
            9 => State::Refused,
            _ => return None,
        })
    }

    /// The name on the command line and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            State::Free => "free",
            State::Claimed => "claimed",
            State::HalfOpen => "half_open",
            State::Answered => "answered",
            State::Established => "established",
            State::ClosingByClient => "closing_by_client",
            State::ClosingByBackend => "closing_by_backend",
            State::Finished => "finished",
            State::Reset => "reset",
            State::Refused => "refused",
        }
    }
}

/// TCP flag bits as they stand in byte 13 of the header (RFC 9293, section 3.1).
pub mod tcp_flags {
    /// No more data from sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Acknowledgment field is significant.
    pub const ACK: u8 = 0x10;
}

/// The state after a packet of `kind` with these TCP flags (ignored for UDP), as state bits.
///
/// Flags of a packet that the receiver would refuse (an old duplicate, a forged reset) count as
/// well: the table follows no sequence numbers. What that costs an attacker's victim is bounded
/// by the lifetimes of the closing states, which live traffic keeps renewing.
#[inline(always)]
pub const fn advance(state: u8, kind: Kind, proto: u8, flags: u8) -> u8 {
    if proto != IPPROTO_TCP {
        // A client with a forged address gets an answer sent, but never goes on after it.
        return match (state, kind) {
            (HALF_OPEN, Kind::Reply) => ANSWERED,
            (ANSWERED, Kind::Forward) => ESTABLISHED,
            _ => state,
        };
    }
    if flags & tcp_flags::RST != 0 {
        return match (state, kind) {
            // With ACK it answers a SYN; to a segment of a connection that it does not know, any
            // host answers without (RFC 9293, section 3.10.7.1). The client may repeat its SYN.
            (HALF_OPEN | REFUSED, Kind::Reply) if flags & tcp_flags::ACK != 0 => REFUSED,
            _ => State::Reset as u8,
        };
    }
    if flags & tcp_flags::FIN != 0 {
        return match (state, kind) {
            (CLOSING_BY_CLIENT, Kind::Reply) | (CLOSING_BY_BACKEND, Kind::Forward) => FINISHED,
            (HALF_OPEN | ANSWERED | ESTABLISHED, Kind::Forward) => CLOSING_BY_CLIENT,
            (HALF_OPEN | ANSWERED | ESTABLISHED, Kind::Reply) => CLOSING_BY_BACKEND,
            _ => state,
        };
    }
    match (state, kind) {
        (HALF_OPEN, Kind::Reply) => ANSWERED,
        (ANSWERED, Kind::Forward) if flags & tcp_flags::SYN == 0 => ESTABLISHED,
        _ => state,
    }
}

/// The state after a packet of a client whose backend's answers are not seen, as state bits: the
/// client's going on is all that tells of one. What the backend ends shows only by the client's end.
#[inline(always)]
pub const fn advance_alone(state: u8, proto: u8, flags: u8) -> u8 {
    if proto == IPPROTO_TCP {
        if flags & tcp_flags::RST != 0 {
            return State::Reset as u8;
        }
        if flags & tcp_flags::FIN != 0 {
            return if state < CLOSING_BY_CLIENT {
                CLOSING_BY_CLIENT
            } else {
                state
            };
        }
        if flags & tcp_flags::SYN != 0 {
            return state;
        }
    }
    if state == HALF_OPEN {
        ESTABLISHED
    } else {
        state
    }
}

const HALF_OPEN: u8 = State::HalfOpen as u8;
const ANSWERED: u8 = State::Answered as u8;
const ESTABLISHED: u8 = State::Established as u8;
const CLOSING_BY_CLIENT: u8 = State::ClosingByClient as u8;
const CLOSING_BY_BACKEND: u8 = State::ClosingByBackend as u8;
const FINISHED: u8 = State::Finished as u8;
const REFUSED: u8 = State::Refused as u8;
