//! The one table of what the programs do otherwise than the kernel's NAT, each with its reason.
//! Everything else that differs is a failure, and so is an entry that nothing shows any more.

use super::{
    reading::Reading,
    site::{FRONTS, VIPS},
};

/// Rows that are run together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Single packets.
    Single,
    /// Errors about translated packets.
    Errors,
    /// What the node answers.
    Answers,
    /// The same for what is too long.
    Narrow,
    /// Fragments and extension headers.
    Pieces,
}

/// A field that may differ.
pub(crate) struct Exception {
    /// In a word or two.
    pub(crate) name: &'static str,
    /// The rows that show it.
    pub(crate) shown_by: &'static [Group],
    /// Which field, and of what.
    covers: fn(field: &str, kernel: &Reading, programs: &Reading) -> bool,
    /// Why this is as it should be.
    #[allow(dead_code, reason = "it is there to be read")]
    why: &'static str,
}

/// Fields of frames that both let out.
pub(crate) const EXCEPTIONS: &[Exception] = &[
    Exception {
        name: "padding",
        shown_by: &[Group::Single],
        covers: |field, _, programs| {
            field == "padding" && programs.get(field).is_some_and(|bytes| !bytes.is_empty())
        },
        why: "what a link puts behind a short packet is not the packet's: the kernel cuts it off, \
              the programs leave the frame as long as it was",
    },
    Exception {
        name: "number of the node's own",
        shown_by: &[Group::Single, Group::Answers, Group::Narrow],
        covers: |field, kernel, programs| {
            ["identification", "flags and offset", "flow label"].contains(&field)
                && is_own(kernel)
                && is_own(programs)
        },
        why: "what the node itself sends may be numbered by chance (RFC 6864, section 4; RFC 6437, \
              section 3), and is whole where it says that it may not be fragmented",
    },
    Exception {
        name: "class of the node's errors",
        shown_by: &[Group::Answers, Group::Narrow],
        covers: |field, _, programs| {
            field == "DSCP" && is_own(programs) && programs.get(field) == Some("48")
        },
        why: "internetwork control (RFC 1812, section 4.3.2.5), which Linux gives to errors of IPv4 \
              only",
    },
    Exception {
        name: "source of the node's errors",
        shown_by: &[Group::Answers, Group::Narrow],
        covers: |field, kernel, programs| {
            let own = |address: &str| Some(address) == programs.get(field);
            let vip = |address: &str| Some(address) == kernel.get(field);
            field == "source"
                && is_own(programs)
                && FRONTS.iter().any(|to| own(to))
                && VIPS.iter().any(|to| vip(to))
        },
        why: "an error is from the address of the interface where its cause came in (RFC 1812, \
              section 4.3.2.4), so that the node is a hop to be seen; NAT makes it the VIP's",
    },
    Exception {
        name: "end of the node's quotes",
        shown_by: &[Group::Answers],
        covers: |field, kernel, programs| {
            let length = |reading: &Reading| reading.get("quoted payload").map_or(0, str::len);
            let fields = ["total length", "payload length", "quoted payload"];
            let shorter = length(kernel).saturating_sub(length(programs));
            let starts = kernel
                .get("quoted payload")
                .zip(programs.get("quoted payload"));
            fields.contains(&field)
                && is_own(programs)
                // Two digits for a byte.
                && (1..=6).contains(&shorter)
                && starts.is_some_and(|(longer, shorter)| longer.starts_with(shorter))
        },
        why: "a quote ends with a whole word of four bytes, which sums up quicker: at most three \
              bytes more would be quoted of a packet that is short",
    },
];

/// Whether this is a message of the node's own: it comes with all its hops.
fn is_own(reading: &Reading) -> bool {
    let sent = [("TTL", "64"), ("hop limit", "64")];
    let fresh = sent
        .iter()
        .any(|(field, hops)| reading.get(field) == Some(hops));
    fresh && reading.get("ICMP type").is_some()
}

/// The exception that covers this field of these frames, if any.
pub(crate) fn exception(
    field: &str,
    kernel: &Reading,
    programs: &Reading,
) -> Option<&'static Exception> {
    EXCEPTIONS
        .iter()
        .find(|exception| (exception.covers)(field, kernel, programs))
}

/// Why a row may come out otherwise altogether.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Otherwise {
    /// Connection tracking wants to see how a connection begins.
    AnySegmentBegins,
    /// Connection tracking judges flags and their order.
    FlagsAreNotJudged,
    /// The kernel checks the IPv4 header's checksum of every packet.
    HeaderSumIsKept,
    /// The kernel acts on some IPv4 options.
    OptionsAreCarried,
    /// The kernel checks the ICMP checksum of what it translates or answers.
    ErrorSumIsKept,
    /// The kernel translates source quench.
    QuenchIsDead,
    /// The kernel takes no frame that is for another host of the link.
    DriversFilter,
}

impl Otherwise {
    /// All of them.
    pub(crate) const ALL: &[Self] = &[
        Self::AnySegmentBegins,
        Self::FlagsAreNotJudged,
        Self::HeaderSumIsKept,
        Self::OptionsAreCarried,
        Self::ErrorSumIsKept,
        Self::QuenchIsDead,
        Self::DriversFilter,
    ];

    /// The rows that show it.
    pub(crate) fn shown_by(self) -> &'static [Group] {
        match self {
            Self::ErrorSumIsKept => &[Group::Errors, Group::Answers],
            Self::QuenchIsDead => &[Group::Errors],
            _ => &[Group::Single],
        }
    }

    /// Why this is as it should be.
    pub(crate) fn why(self) -> &'static str {
        match self {
            Self::AnySegmentBegins => {
                "a segment of a connection that the table does not know, but for a reset, finds a \
                 backend: with a consistent table another node's connections live on, and what is \
                 nobody's the backend itself resets"
            }
            Self::FlagsAreNotJudged => {
                "which flags may follow which is the hosts' affair: a balancer that drops what it \
                 holds for wrong breaks what it did not foresee"
            }
            Self::HeaderSumIsKept => {
                "a wrong checksum is sent on with the same error and never mended, so that the \
                 next host refuses it; summing up every header again would cost every packet"
            }
            Self::OptionsAreCarried => {
                "options are for the hosts; recording a route through a balancer tells what nobody \
                 can use, and source routes are refused by every host as they come"
            }
            Self::ErrorSumIsKept => {
                "as with headers: a wrong checksum stays as wrong as it was, and who receives it \
                 refuses it"
            }
            Self::QuenchIsDead => {
                "RFC 6633: source quench is not to be sent, and not to be heeded by anybody"
            }
            Self::DriversFilter => {
                "which frames come in is the interface's affair, which lets in those to its own \
                 address unless it is told to be promiscuous; a look at the link address would cost \
                 every packet"
            }
        }
    }
}
