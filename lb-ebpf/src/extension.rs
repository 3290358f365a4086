//! IPv6 extension headers (RFC 8200, section 4): followed up to the transport header, within
//! bounds.

use lb_common::verdict::Verdict;

use crate::headers::FragmentHeader;
use crate::packet::Frame;

/// Headers that are followed.
const MAX_HEADERS: usize = 6;
/// Bytes that all of them together may have.
const MAX_LENGTH: usize = 256;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// Where the headers end, and what is known then.
#[derive(Clone, Copy)]
pub(crate) struct Chain {
    /// Protocol of what follows.
    pub(crate) proto: u8,
    /// Bytes of all the headers.
    pub(crate) length: usize,
    /// The fragment header of a packet that is, or was, one of several; else zeroes. No `Option`,
    /// whose undefined bytes on the stack Linux before 6.3 does not let a program read.
    pub(crate) fragment: FragmentHeader,
}

/// Follows the headers that begin at `offset` with one of the kind `first`. What lies behind a
/// fragment header other than the first fragment's is payload, and not looked at.
///
/// `Err`: the frame ends among them ([`Verdict::PassMalformed`], as well as for more of them than
/// the bounds admit), or the packet is still to visit other addresses.
#[inline(always)]
pub(crate) fn follow(frame: &Frame, offset: usize, first: u8) -> Result<Chain, Verdict> {
    let mut chain = Chain {
        proto: first,
        length: 0,
        fragment: FragmentHeader {
            next_header: 0,
            reserved: 0,
            offset_more: 0,
            id: 0,
        },
    };
    for _ in 0..MAX_HEADERS {
        let header = match chain.proto {
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS => frame
                .at::<FragmentHeader>(offset + chain.length)
                .ok_or(Verdict::PassMalformed)?,
            _ => return Ok(chain),
        };
        // Every one of them has at least eight bytes.
        // SAFETY: `at` checked the bounds; the struct is packed.
        let header = unsafe { *header };
        let bytes = header.reserved as usize;
        let length = match chain.proto {
            FRAGMENT => {
                chain.fragment = header;
                size_of::<FragmentHeader>()
            }
            // RFC 4302, section 2.2: in units of four, minus two.
            AUTHENTICATION => (bytes + 2) * 4,
            ROUTING => {
                // Segments left: the destination is not the last one (section 4.4).
                if header.offset_more.to_ne_bytes()[1] != 0 {
                    return Err(Verdict::PassForeign);
                }
                (bytes + 1) * 8
            }
            _ => (bytes + 1) * 8,
        };
        let former = chain.proto;
        chain.proto = header.next_header;
        chain.length += length;
        if chain.length > MAX_LENGTH {
            return Err(Verdict::PassMalformed);
        }
        let later = header.offset_more & OFFSET != 0;
        if former == FRAGMENT && later {
            return Ok(chain);
        }
    }
    match chain.proto {
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS => {
            Err(Verdict::PassMalformed)
        }
        _ => Ok(chain),
    }
}

/// The offset in [`FragmentHeader::offset_more`].
pub(crate) const OFFSET: u16 = 0xfff8_u16.to_be();
/// "More fragments" in [`FragmentHeader::offset_more`].
pub(crate) const MORE: u16 = 0x0001_u16.to_be();
