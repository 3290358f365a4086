//! The one list of how a packet's way through the programs can end.
//!
//! The programs count by it, and the metrics, the command line and the tests print it.

/// What becomes of the frame, in the reader's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Handed to the node's own network stack, untouched.
    Pass,
    /// Rewritten and sent on.
    Forward,
    /// Turned into an answer of the node's own, and sent back.
    Answer,
    /// Discarded.
    Drop,
    /// Kept by the agent, to be decided on again.
    Hold,
}

macro_rules! verdicts {
    ($($(#[doc = $doc:literal])+ $variant:ident = $index:literal, $action:ident, $name:literal;)+) => {
        /// How a packet's way ended. The discriminant indexes
        /// [`crate::maps::name::VERDICT_STATS`].
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Verdict {
            $($(#[doc = $doc])+ $variant = $index,)+
        }

        impl Verdict {
            /// Every verdict, in the order of the counters.
            pub const ALL: &[Verdict] = &[$(Verdict::$variant,)+];

            /// What becomes of the frame.
            #[inline(always)]
            pub const fn action(self) -> Action {
                match self {
                    $(Verdict::$variant => Action::$action,)+
                }
            }

            /// The name in metrics and on the command line, without the action.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Verdict::$variant => $name,)+
                }
            }

            /// What it means, in a sentence.
            pub const fn help(self) -> &'static str {
                match self {
                    $(Verdict::$variant => concat!($($doc,)+),)+
                }
            }
        }
    };
}

verdicts! {
    /// Neither IPv4 nor IPv6: ARP, more than two VLAN tags and the like.
    PassNotIp = 0, Pass, "not_ip";
    /// For a destination that is none of ours.
    PassForeign = 1, Pass, "foreign";
    /// Too short, with lengths that contradict each other, or from an address that no host has; the
    /// stack judges it.
    PassMalformed = 2, Pass, "malformed";
    /// A fragment for a destination of ours whose first one has not been seen.
    PassFragment = 3, Pass, "fragment";
    /// Towards a translated address and port of the node, but of no known flow.
    PassUnknownReply = 4, Pass, "unknown_reply";
    /// There is no route, or none that the program can send by: the link address is not known, the
    /// interface takes no frames from XDP, or the checksum is yet to be computed, and tc could not be
    /// asked.
    PassUnresolved = 5, Pass, "unresolved_next_hop";
    /// From a client to a backend.
    ForwardRequest = 6, Forward, "request";
    /// From a backend to a client.
    ForwardReply = 7, Forward, "reply";
    /// The source is on the block list.
    DropBlocked = 8, Drop, "blocked";
    /// The service has no backend that takes new flows.
    DropNoBackend = 9, Drop, "no_backend";
    /// No free port on the node's address towards the chosen backend.
    DropPortsExhausted = 10, Drop, "ports_exhausted";
    /// Both candidate buckets of the flow table hold live flows only.
    DropTableFull = 11, Drop, "flow_table_full";
    /// Another CPU was creating the same flow at the same instant.
    DropContended = 12, Drop, "contended";
    /// TTL or hop limit would reach zero.
    DropTtlExceeded = 13, Drop, "ttl_exceeded";
    /// A TCP reset for a flow that does not exist.
    DropNoFlow = 14, Drop, "no_flow";
    /// A map answered in a way it never should; please report it.
    DropInternal = 15, Drop, "internal";
    /// An echo request to a VIP, answered.
    AnswerEcho = 16, Answer, "echo";
    /// TTL or hop limit would reach zero, and the sender is told.
    AnswerTimeExceeded = 17, Answer, "time_exceeded";
    /// Longer than the way to the backend or client admits, and the sender is told.
    AnswerTooBig = 18, Answer, "too_big";
    /// An ICMP error about a flow, translated and sent on.
    ForwardError = 19, Forward, "icmp_error";
    /// Freed of the header that another node put around it, and handed to the stack.
    PassDecapsulated = 20, Pass, "decapsulated";
    /// The service does not admit this source.
    DropNotAllowed = 21, Drop, "source_not_allowed";
    /// More new flows than the budget admits.
    DropBudget = 22, Drop, "new_flow_budget";
    /// A question for the link address of a VIP (ARP, neighbour solicitation), answered.
    AnswerNeighbour = 23, Answer, "neighbour";
    /// Longer than the way to the backend or client admits, and the sender is not told.
    DropTooBig = 24, Drop, "too_big";
    /// A fragment that came before the first one of its packet; the agent gives it back to the
    /// programs, where it counts again, once that has come.
    HoldFragment = 25, Hold, "fragment";
}

/// Number of verdicts: the size of their counter map.
pub const VERDICT_COUNT: u32 = Verdict::ALL.len() as u32;

impl Action {
    /// The label in metrics and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Action::Pass => "pass",
            Action::Forward => "forward",
            Action::Answer => "answer",
            Action::Drop => "drop",
            Action::Hold => "hold",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The discriminants count up from zero, and no two verdicts print the same.
    #[test]
    fn indices_and_names_are_distinct() {
        let mut seen = std::collections::HashSet::new();
        for (index, verdict) in Verdict::ALL.iter().enumerate() {
            assert_eq!(*verdict as usize, index);
            assert!(seen.insert((verdict.action(), verdict.name())));
            assert!(verdict.help().trim().ends_with('.'), "{verdict:?}");
        }
    }
}
