//! A frame in memory, and the headers as they lie in it.

use core::{ffi::c_void, mem::offset_of};

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_skb_pull_data,
    programs::{TcContext, XdpContext},
};
use lb_common::{IPPROTO_TCP, IPPROTO_UDP};

/// Where in the kernel a program runs. A constant of each entry point: everything behind it is
/// inlined, so that a branch on it leaves only the one side.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// In the driver, or in the generic receive path.
    Xdp,
    /// In the stack's receive path, after the kernel has made a buffer of its own of the frame; or
    /// where that leaves the stack.
    Tc,
}

/// Bytes of a frame that a tc program wants to have in one piece: Ethernet, the longest IPv4 and
/// TCP headers, and some for what lies between or is quoted.
const HEADERS: u32 = 256;

/// The frame a program was called for: where it lies and where it came from. Contexts differ,
/// frames do not: everything behind the entry points works on this.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    /// The program's context, for helpers that change the frame's size or send it.
    pub(crate) ctx: *mut c_void,
    /// Which kind of context it is.
    pub(crate) hook: Hook,
    start: usize,
    /// End of what can be read directly.
    end: usize,
    /// Bytes of the whole frame.
    len: usize,
    /// Interface it arrived on.
    pub(crate) ingress: u32,
}

impl Frame {
    /// The frame of an XDP program.
    #[inline(always)]
    pub(crate) fn from_xdp(ctx: &XdpContext) -> Self {
        let (start, end) = (ctx.data(), ctx.data_end());
        Self {
            ctx: ctx.as_ptr(),
            hook: Hook::Xdp,
            start,
            end,
            len: end - start,
            ingress: ctx.ingress_ifindex() as u32,
        }
    }

    /// The frame of a tc program. Drivers put as little as the Ethernet header into the first
    /// piece of a buffer; the rest of the headers is pulled in where it is elsewhere.
    #[inline(always)]
    pub(crate) fn from_tc(ctx: &TcContext) -> Self {
        let len = ctx.len();
        if ctx.data() + headers_in(ctx, len) > ctx.data_end() {
            let wanted = if len < HEADERS { len } else { HEADERS };
            // SAFETY: the program's own context. Where there is no memory, `at` finds it short.
            unsafe { bpf_skb_pull_data(ctx.as_ptr().cast(), wanted) };
        }
        Self::as_it_lies(ctx)
    }

    /// The same frame in a function of its own, which is given the context alone.
    #[inline(always)]
    pub(crate) fn again(ctx: *mut c_void, hook: Hook) -> Self {
        match hook {
            Hook::Xdp => Self::from_xdp(&XdpContext::new(ctx.cast())),
            Hook::Tc => Self::as_it_lies(&TcContext::new(ctx.cast())),
        }
    }

    /// The frame of a tc program, as far as its first piece goes.
    #[inline(always)]
    fn as_it_lies(ctx: &TcContext) -> Self {
        Self {
            ctx: ctx.as_ptr(),
            hook: Hook::Tc,
            start: ctx.data(),
            end: ctx.data_end(),
            len: ctx.len() as usize,
            // SAFETY: the verifier knows the context's fields.
            ingress: unsafe { (*ctx.skb.skb).ifindex },
        }
    }

    /// Offset of a header in the frame.
    #[inline(always)]
    pub(crate) fn offset_of<T>(&self, header: *const T) -> usize {
        header as usize - self.start
    }

    /// Length in bytes, with what lies beyond [`Self::end`].
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The address behind the last byte that can be read directly.
    #[inline(always)]
    pub(crate) fn end(&self) -> usize {
        self.end
    }

    /// A pointer to a `T` at `offset`, if the frame reaches that far.
    ///
    /// Headers lie at any address, so `T` must be read and written unaligned, or be `packed`.
    #[inline(always)]
    pub(crate) fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let first = self.start + offset;
        if first + size_of::<T>() > self.end {
            return None;
        }
        Some(first as *mut T)
    }
}

/// Bytes of the headers in a buffer, as far as its first bytes tell; at most all there are.
#[inline(always)]
fn headers_in(ctx: &TcContext, len: u32) -> usize {
    const L3: usize = size_of::<Ethernet>();
    let (start, end) = (ctx.data(), ctx.data_end());
    let known = start + L3 + size_of::<Ipv4>() <= end;
    let headers = if known {
        // SAFETY: within the buffer by the check above; the structs are packed.
        let (ethertype, v4, v6) = unsafe {
            (
                (*(start as *const Ethernet)).ethertype,
                *((start + L3) as *const Ipv4),
                *((start + L3 + offset_of!(Ipv6, next_header)) as *const u8),
            )
        };
        let [_, proto] = v4.ttl_proto.to_ne_bytes();
        if ethertype == ETHERTYPE_IPV4 && has_ports(proto) {
            L3 + (v4.version_ihl & 15) as usize * 4 + size_of::<Tcp>()
        } else if ethertype == ETHERTYPE_IPV6 && has_ports(v6) {
            L3 + size_of::<Ipv6>() + size_of::<Tcp>()
        } else {
            HEADERS as usize
        }
    } else {
        HEADERS as usize
    };
    if headers < len as usize {
        headers
    } else {
        len as usize
    }
}

#[inline(always)]
fn has_ports(proto: u8) -> bool {
    proto == IPPROTO_TCP || proto == IPPROTO_UDP
}

/// Ethernet II (IEEE 802.3, clause 3).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct Ethernet {
    pub(crate) destination: [u8; 6],
    pub(crate) source: [u8; 6],
    /// Network byte order.
    pub(crate) ethertype: u16,
}

/// Copies a link address as two words. The compiler would call a loop over bytes for it, since it
/// cannot know that packet and map do not overlap.
///
/// # Safety
///
/// Both must be valid for six bytes.
#[inline(always)]
pub(crate) unsafe fn copy_mac(from: *const [u8; 6], to: *mut [u8; 6]) {
    // SAFETY: the caller's promise; unaligned, since neither end is aligned.
    unsafe {
        let first = from.cast::<u32>().read_unaligned();
        let last = from.cast::<u16>().add(2).read_unaligned();
        to.cast::<u32>().write_unaligned(first);
        to.cast::<u16>().add(2).write_unaligned(last);
    }
}

/// EtherType of IPv4, network byte order.
pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
/// EtherType of ARP, network byte order.
pub(crate) const ETHERTYPE_ARP: u16 = 0x0806_u16.to_be();
/// EtherType of IPv6, network byte order.
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();

/// IPv4 header without options (RFC 791). All fields in network byte order.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct Ipv4 {
    pub(crate) version_ihl: u8,
    pub(crate) tos: u8,
    pub(crate) total_length: u16,
    pub(crate) id: u16,
    pub(crate) fragment: u16,
    /// TTL in the first byte, protocol in the second: the checksum sees them as one word.
    pub(crate) ttl_proto: u16,
    pub(crate) checksum: u16,
    pub(crate) saddr: u32,
    pub(crate) daddr: u32,
}

/// "More fragments" and the fragment offset, network byte order.
pub(crate) const IPV4_FRAGMENT_BITS: u16 = 0x3fff_u16.to_be();

/// IPv6 header (RFC 8200). All fields in network byte order.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct Ipv6 {
    pub(crate) version_class_label: u32,
    pub(crate) payload_length: u16,
    pub(crate) next_header: u8,
    pub(crate) hop_limit: u8,
    pub(crate) saddr: [u32; 4],
    pub(crate) daddr: [u32; 4],
}

/// Protocol number of IPv4 within another header (RFC 2003).
pub(crate) const IPPROTO_IPIP: u8 = 4;
/// Protocol number of IPv6 within another header (RFC 2473).
pub(crate) const IPPROTO_IPV6: u8 = 41;

/// Next header value of the fragment header (RFC 8200, section 4.5).
pub(crate) const IPPROTO_FRAGMENT: u8 = 44;

/// TCP header without options (RFC 9293). All fields in network byte order.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct Tcp {
    pub(crate) ports: u32,
    pub(crate) sequence: u32,
    pub(crate) acknowledgment: u32,
    pub(crate) data_offset: u8,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) checksum: u16,
    pub(crate) urgent: u16,
}

/// UDP header (RFC 768). All fields in network byte order.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct Udp {
    pub(crate) ports: u32,
    pub(crate) length: u16,
    pub(crate) checksum: u16,
}

/// Source and destination port, in network byte order, out of the header's first four bytes.
#[inline(always)]
pub(crate) fn split_ports(ports: u32) -> [u16; 2] {
    [ports as u16, (ports >> 16) as u16]
}

/// The reverse of [`split_ports`].
#[inline(always)]
pub(crate) fn join_ports(source: u16, destination: u16) -> u32 {
    source as u32 | (destination as u32) << 16
}
