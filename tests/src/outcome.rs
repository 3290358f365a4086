//! What becomes of a frame that is run through a program of a [`crate::world::World`].

use anyhow::Result;
use lb_common::verdict::Verdict;

use crate::packet::{Packet, dissect};

/// `enum xdp_action` of include/uapi/linux/bpf.h.
pub mod action {
    /// Discarded.
    pub const DROP: u32 = 1;
    /// To the stack.
    pub const PASS: u32 = 2;
    /// Out where it came in.
    pub const TX: u32 = 3;
    /// Out of another interface.
    pub const REDIRECT: u32 = 4;
}

/// Where in the kernel a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// In front of the stack.
    Xdp,
    /// At ingress of an interface without XDP.
    Tc,
}

/// What became of a frame.
#[derive(Debug)]
pub struct Outcome {
    /// The XDP action, or what of XDP's a tc action amounts to.
    pub action: u32,
    /// The verdict that was counted; [`Verdict::PassUnresolved`] for a frame that XDP has handed
    /// over, which is not counted.
    pub verdict: Verdict,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

impl Outcome {
    /// The frame, taken apart.
    ///
    /// # Panics
    ///
    /// With what is wrong with it, a checksum for instance.
    pub fn packet(&self) -> Packet {
        dissect(&self.frame).unwrap_or_else(|error| panic!("{error}: {:02x?}", self.frame))
    }
}

/// Bytes of the mark that XDP puts in front of a frame that it hands over.
pub(crate) const METADATA: usize = 8;

/// The XDP action that does what a tc action does (include/uapi/linux/pkt_cls.h).
pub(crate) fn xdp_action(tc: u32) -> Result<u32> {
    Ok(match tc {
        u32::MAX => action::PASS,
        2 => action::DROP,
        7 => action::REDIRECT,
        other => anyhow::bail!("the tc program answers {other}"),
    })
}
