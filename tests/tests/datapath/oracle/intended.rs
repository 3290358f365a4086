//! The one table of what the programs do otherwise than the kernel's NAT, each with its reason.
//! Everything else that differs is a failure, and so is an entry that nothing shows any more.

use super::{
    reading::Reading,
    site::{FRONTS, NODES, VIPS},
};

/// A field that may differ.
pub(crate) struct Exception {
    /// In a word or two.
    pub(crate) name: &'static str,
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
        covers: |field, _, programs| {
            field == "padding"
                && programs
                    .get("padding")
                    .is_some_and(|bytes| !bytes.is_empty())
        },
        why: "what a link puts behind a short packet is not the packet's: the kernel cuts it off, \
              the programs leave the frame as long as it was",
    },
    Exception {
        name: "identification of the node's own",
        covers: |field, kernel, programs| {
            let own = |reading: &Reading| {
                let source = reading.get("source");
                let node = [NODES, FRONTS, VIPS].concat();
                node.iter().any(|address| Some(*address) == source)
                    && reading.get("protocol") == Some("1")
            };
            field == "identification" && own(kernel) && own(programs)
        },
        why: "what the node itself sends may be numbered by chance (RFC 6864, section 4)",
    },
];

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
        Self::DriversFilter,
    ];

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
            Self::DriversFilter => {
                "which frames come in is the interface's affair, which lets in those to its own \
                 address unless it is told to be promiscuous; a look at the link address would cost \
                 every packet"
            }
        }
    }
}
