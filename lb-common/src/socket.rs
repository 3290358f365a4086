//! Local clients: what the programs on socket calls remember, so that what a socket was sent to
//! is shown to it as what it asked for.
//!
//! A *connected* socket (TCP, or UDP after `connect`) has one peer and one entry, by its cookie.
//! An unconnected UDP socket may talk to many; each conversation has two halves, found by what
//! the socket sends to and by what answers it.

use crate::assert_layout;

/// An address that a socket sends to or hears from. The first 20 bytes are those of a
/// [`crate::entry::ServiceKey`]; it is aligned to eight bytes and in eights, since the programs build
/// it on their stack, where the verifier admits aligned accesses only.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address in network byte order, in memory order; IPv4 in the first four bytes, the others
    /// zero.
    pub addr: [u64; 2],
    /// Network byte order.
    pub port: u16,
    /// IANA protocol number.
    pub proto: u8,
    /// [`crate::entry::FAMILY_V4`] or [`crate::entry::FAMILY_V6`].
    pub family: u8,
    /// What the holder has to say of it; zero if nothing.
    pub note: u32,
}

impl Endpoint {
    /// Whether both are the same address, port and protocol, whatever is noted.
    #[inline(always)]
    pub const fn is(&self, other: &Self) -> bool {
        self.addr[0] == other.addr[0]
            && self.addr[1] == other.addr[1]
            && self.port == other.port
            && self.proto == other.proto
            && self.family == other.family
    }

    /// The same with a note.
    #[inline(always)]
    pub const fn noting(self, note: u32) -> Self {
        Self { note, ..self }
    }
}

/// Where a connected socket was sent. The key is the socket's cookie (`u64`, host byte order).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Cookie of the socket's network namespace.
    pub netns: u64,
    /// What the socket asked for.
    pub vip: Endpoint,
    /// Where it was sent instead; of the same family and protocol. Noted: the index into
    /// [`crate::maps::name::BACKENDS`] at that time.
    pub backend: Endpoint,
}

/// What a half of a conversation is found by.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConversationKey {
    /// Cookie of the socket.
    pub cookie: u64,
    /// The VIP of a request; the backend of a reply. Noted: [`crate::flow::Kind`].
    pub peer: Endpoint,
}

/// A half of a conversation.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// What takes the peer's place: the backend for a request, the VIP for a reply. Noted: the index
    /// into [`crate::maps::name::BACKENDS`].
    pub instead: Endpoint,
    /// When the last datagram went this way, in ticks (the lower 32 bits).
    pub seen: u64,
}

/// Per-CPU counters of local clients.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SocketStats {
    /// Connections and conversations sent to a backend.
    pub translated: u64,
    /// Calls refused for want of a backend.
    pub refused: u64,
}

assert_layout! {
    Endpoint: size 24, align 8;
    Connected: size 56, align 8;
    ConversationKey: size 32, align 8;
    Conversation: size 32, align 8;
    SocketStats: size 16, align 8;
}
