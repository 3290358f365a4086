//! A frame in memory: where it lies, where it came from, and how it grows and shrinks.

use core::{ffi::c_void, mem::offset_of};

use aya_ebpf::{
    EbpfContext as _,
    bindings::__sk_buff,
    helpers::generated::{
        bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_pull_data, bpf_xdp_adjust_head,
        bpf_xdp_adjust_tail,
    },
    programs::{TcContext, XdpContext},
};
use lb_common::{IPPROTO_TCP, IPPROTO_UDP, maps::detour};

use crate::{
    headers::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, Ipv4, Ipv6, Tcp},
    maps::{DETOURS, TC_DETOURS},
    outline::Outline,
};

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
/// The same for what is not plain: extension headers and quotes besides.
const ALL_HEADERS: u32 = 512;

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
    /// See [`Self::keeping`]. A constant, as is [`Self::hook`].
    keeps: bool,
    /// On its way out of the node, as its routes have it.
    pub(crate) leaving: bool,
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
            keeps: false,
            leaving: false,
        }
    }

    /// The same frame, whose pointers the compiler must keep. Otherwise it may check one and use
    /// another, made anew from the same parts, of which the verifier does not know that it is the
    /// same. Costs a store and a load each: for what lies off the plain way.
    #[inline(always)]
    pub(crate) fn keeping(self) -> Self {
        Self {
            keeps: true,
            ..self
        }
    }

    /// Jumps to the program for what is not plain. Returns only if there is none.
    #[inline(always)]
    pub(crate) fn detour(&self) {
        match self.hook {
            Hook::Xdp => {
                let ctx = XdpContext::new(self.ctx.cast());
                // SAFETY: the context that this program was called with.
                unsafe { DETOURS.tail_call(&ctx, detour::XDP) };
            }
            Hook::Tc => {
                let ctx = TcContext::new(self.ctx.cast());
                Outline::begin(self.leaving);
                // SAFETY: as above.
                unsafe { TC_DETOURS.tail_call(&ctx, detour::TC) };
            }
        }
    }

    /// Moves the frame's beginning: forward for a positive `delta`, back for a negative one.
    /// Answers with the frame as it is then; all pointers into the former one are dead. `None`:
    /// there is no room, or no such means at this hook, as moving forward in tc.
    #[inline(always)]
    pub(crate) fn move_start(&self, delta: i32) -> Option<Frame> {
        match self.hook {
            Hook::Xdp => {
                let ctx = self.ctx.cast();
                // SAFETY: the context that this program was called with.
                if unsafe { bpf_xdp_adjust_head(ctx, delta) } != 0 {
                    return None;
                }
                Some(self.anew())
            }
            Hook::Tc if delta < 0 => {
                // SAFETY: as above. The new bytes are zero, and the link header begins with them.
                if unsafe { bpf_skb_change_head(self.ctx.cast(), -delta as u32, 0) } != 0 {
                    return None;
                }
                Some(self.anew())
            }
            Hook::Tc => None,
        }
    }

    /// Moves the frame's end by `delta` bytes; otherwise as [`Self::move_start`].
    #[inline(always)]
    pub(crate) fn move_end(&self, delta: i32) -> Option<Frame> {
        match self.hook {
            Hook::Xdp => {
                let ctx = self.ctx.cast();
                // SAFETY: the context that this program was called with.
                if unsafe { bpf_xdp_adjust_tail(ctx, delta) } != 0 {
                    return None;
                }
                Some(self.anew())
            }
            Hook::Tc => {
                let length = self.len as i32 + delta;
                // SAFETY: as above. All of it lies in one piece afterwards, and is one packet
                // where it was to be cut into several.
                if unsafe { bpf_skb_change_tail(self.ctx.cast(), length as u32, 0) } != 0 {
                    return None;
                }
                Some(self.anew())
            }
        }
    }

    /// The same frame after a helper has changed it.
    #[inline(always)]
    pub(crate) fn anew(&self) -> Self {
        Self {
            keeps: self.keeps,
            leaving: self.leaving,
            ..Self::again(self.ctx, self.hook)
        }
    }

    /// The VLAN tag that the kernel keeps beside a buffer: EtherType and control information.
    #[inline(always)]
    pub(crate) fn tag_beside(&self) -> Option<(u16, u16)> {
        if self.hook == Hook::Xdp {
            return None;
        }
        let skb = self.ctx.cast::<__sk_buff>();
        // SAFETY: the verifier knows the context's fields.
        unsafe {
            if (*skb).vlan_present == 0 {
                return None;
            }
            let ethertype = u16::from_be((*skb).vlan_proto as u16);
            Some((ethertype, (*skb).vlan_tci as u16))
        }
    }

    /// Payload bytes of each of the packets that a buffer is cut into when it is sent; 0 for one
    /// that is not.
    #[inline(always)]
    pub(crate) fn segment(&self) -> usize {
        match self.hook {
            Hook::Xdp => 0,
            // SAFETY: as above.
            Hook::Tc => unsafe { (*self.ctx.cast::<__sk_buff>()).gso_size as usize },
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

    /// The same frame, which may be on its way out.
    #[inline(always)]
    pub(crate) fn leaving(self, leaving: bool) -> Self {
        Self { leaving, ..self }
    }

    /// The frame of a tc program for what is not plain, with all headers in one piece.
    #[inline(always)]
    pub(crate) fn from_tc_whole(ctx: &TcContext) -> Self {
        let len = ctx.len();
        let wanted = if len < ALL_HEADERS { len } else { ALL_HEADERS };
        if ctx.data() + wanted as usize > ctx.data_end() {
            // SAFETY: as above.
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
            keeps: false,
            leaving: false,
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
        let mut first = self.start + offset;
        if self.keeps {
            first = core::hint::black_box(first);
        }
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
