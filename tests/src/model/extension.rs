//! IPv6 extension headers (RFC 8200, section 4): what lies between the header and the transport
//! header. They are followed within bounds; what goes beyond is left to the stack.

use lb_common::verdict::Verdict;

use super::{fault::Fault, parse::word};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
/// RFC 4302.
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
/// Headers that are followed.
const MOST: usize = 6;
/// Bytes that all of them may have together.
const LONGEST: usize = 256;

/// What a fragment says of its place (RFC 791; RFC 8200, section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Offset, in units of eight bytes.
    pub offset: u16,
    /// Others follow.
    pub more: bool,
    /// What all fragments of a packet carry.
    pub id: u32,
}

/// Where the headers end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Protocol of what follows them.
    pub proto: u8,
    /// Bytes of all of them.
    pub length: usize,
    /// The last fragment header.
    pub fragment: Option<Fragment>,
}

fn is_extension(proto: u8) -> bool {
    [
        HOP_BY_HOP,
        ROUTING,
        FRAGMENT,
        AUTHENTICATION,
        DESTINATION_OPTIONS,
    ]
    .contains(&proto)
}

/// Follows the headers that begin at `at` with one of the kind `first`.
///
/// # Errors
///
/// The verdict for headers beyond the bounds or the frame, or for a packet that is still on its
/// way to other addresses.
pub fn follow(frame: &[u8], at: usize, first: u8, fault: Option<Fault>) -> Result<Chain, Verdict> {
    let mut chain = Chain {
        proto: first,
        length: 0,
        fragment: None,
    };
    let mut count = 0;
    while is_extension(chain.proto) {
        count += 1;
        let begin = at + chain.length;
        let beyond = count > MOST && fault != Some(Fault::FollowsAnyNumber);
        if beyond || frame.len() < begin + 8 {
            return Err(Verdict::PassMalformed);
        }
        let header = &frame[begin..begin + 8];
        let bytes = usize::from(header[1]);
        chain.length += match chain.proto {
            FRAGMENT => 8,
            AUTHENTICATION => 4 * (bytes + 2),
            _ => 8 * (bytes + 1),
        };
        let segments_left = header[3];
        if chain.proto == ROUTING && segments_left != 0 && fault != Some(Fault::SkipsStations) {
            return Err(Verdict::PassForeign);
        }
        if chain.length > LONGEST {
            return Err(Verdict::PassMalformed);
        }
        let was_fragment = chain.proto == FRAGMENT;
        chain.proto = header[0];
        if was_fragment {
            let fragment = Fragment {
                offset: word(header, 2) >> 3,
                more: header[3] & 1 != 0,
                id: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            };
            chain.fragment = Some(fragment);
            if fragment.offset != 0 {
                // What follows is the middle of something.
                break;
            }
        }
    }
    Ok(chain)
}
