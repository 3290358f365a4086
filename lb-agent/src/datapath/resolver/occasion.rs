//! Why the resolver looks at everything, and what it has to ask for then.

use rtnetlink::{
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
};

/// Why everything is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occasion {
    /// Time has passed, or an address has come.
    Time,
    /// A neighbour has changed.
    Neighbour,
    /// An interface, an address of the node, a route or a rule has changed, or something unknown.
    Routes,
}

impl Occasion {
    pub(super) fn of(event: &NetlinkMessage<RouteNetlinkMessage>) -> Self {
        match &event.payload {
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewNeighbour(_) | RouteNetlinkMessage::DelNeighbour(_),
            ) => Self::Neighbour,
            _ => Self::Routes,
        }
    }

    /// The one that asks for more.
    pub(super) fn and(self, other: Self) -> Self {
        if self == Self::Routes { self } else { other }
    }
}
