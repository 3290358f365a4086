//! Local clients: what the programs on socket calls remember, so that what a socket was sent to
//! is shown to it as what it asked for.
//!
//! A *connected* socket (TCP, or UDP after `connect`) has one peer and one entry, by its cookie.
//! An unconnected UDP socket may talk to many; each conversation has two halves, found by what
//! the socket sends to and by what answers it.

use crate::{assert_layout, entry::ServiceKey};

/// Where a connected socket was sent. The key is the socket's cookie (`u64`, host byte order).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Cookie of the socket's network namespace.
    pub netns: u64,
    /// What the socket asked for.
    pub vip: ServiceKey,
    /// Where it was sent instead; of the same family and protocol.
    pub backend: ServiceKey,
    /// Index into [`crate::maps::name::BACKENDS`] at that time.
    pub id: u32,
    /// Keeps the size a multiple of eight; zero.
    pub reserved: u32,
}

/// What a half of a conversation is found by.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConversationKey {
    /// Cookie of the socket.
    pub cookie: u64,
    /// The VIP of a request; the backend of a reply.
    pub peer: ServiceKey,
    /// [`crate::flow::Kind`].
    pub kind: u32,
}

/// A half of a conversation.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// What takes the peer's place: the backend for a request, the VIP for a reply.
    pub instead: ServiceKey,
    /// Index into [`crate::maps::name::BACKENDS`].
    pub backend: u32,
    /// When the last datagram went this way, in ticks.
    pub seen: u32,
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
    Connected: size 56, align 8;
    ConversationKey: size 32, align 8;
    Conversation: size 28, align 4;
    SocketStats: size 16, align 8;
}
