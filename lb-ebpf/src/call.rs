//! The calls that local clients make, as the kernel shows them: which address a call is about,
//! and on which socket.

use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie},
};
use lb_common::{
    IPPROTO_TCP, IPPROTO_UDP,
    entry::{FAMILY_V4, FAMILY_V6},
    socket::Endpoint,
};

/// Third word of an IPv4 address mapped into IPv6 (RFC 4291, section 2.5.5.2), as it lies in
/// memory; the two before are zero.
const MAPPED: u32 = 0xffff_u32.to_be();

/// State of a connected socket, whatever its protocol: `TCP_ESTABLISHED` of
/// include/net/tcp_states.h.
const ESTABLISHED: u32 = 1;

/// A call on a socket with an address in it.
pub(crate) trait Call {
    /// The kernel's context.
    fn ctx(&self) -> *mut bpf_sock_addr;

    /// The address, and [`FAMILY_V4`] or [`FAMILY_V6`]: a mapped IPv4 address is IPv4.
    fn address(&self) -> ([u64; 2], u8);

    /// Replaces the address by another of the same family.
    fn set_address(&self, address: &[u64; 2], family: u8);

    /// The address that the call is about; `None` where the protocol is none that we balance.
    #[inline(always)]
    fn peer(&self) -> Option<Endpoint> {
        // SAFETY: the kernel's context is valid while the program runs; the verifier translates
        // each access.
        let (protocol, port) = unsafe {
            (
                (&raw const (*self.ctx()).protocol).read_volatile(),
                (&raw const (*self.ctx()).user_port).read_volatile(),
            )
        };
        let proto = match protocol {
            protocol if protocol == IPPROTO_TCP as u32 => IPPROTO_TCP,
            protocol if protocol == IPPROTO_UDP as u32 => IPPROTO_UDP,
            _ => return None,
        };
        let (addr, family) = self.address();
        Some(Endpoint {
            addr,
            port: port as u16,
            proto,
            family,
            note: 0,
        })
    }

    /// Makes the call one about another address, of the same family.
    #[inline(always)]
    fn set_peer(&self, peer: &Endpoint) {
        self.set_address(&peer.addr, peer.family);
        // SAFETY: as in `peer`.
        unsafe { (&raw mut (*self.ctx()).user_port).write_volatile(peer.port as u32) };
    }

    /// A number that no other socket has had or will have.
    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: the helper takes the context of the program.
        unsafe { bpf_get_socket_cookie(self.ctx().cast()) }
    }

    /// The same for the socket's network namespace.
    #[inline(always)]
    fn netns(&self) -> u64 {
        // SAFETY: the helper takes the context of the program.
        unsafe { bpf_get_netns_cookie(self.ctx().cast()) }
    }

    /// Whether the socket has one peer that it is connected to.
    #[inline(always)]
    fn is_connected(&self) -> bool {
        // SAFETY: as in `peer`; the socket is never null in these programs.
        let state =
            unsafe { (&raw const (*(*self.ctx()).__bindgen_anon_1.sk).state).read_volatile() };
        state == ESTABLISHED
    }
}

/// A call with an address of `AF_INET`.
pub(crate) struct Call4(pub(crate) *mut bpf_sock_addr);

impl Call for Call4 {
    #[inline(always)]
    fn ctx(&self) -> *mut bpf_sock_addr {
        self.0
    }

    #[inline(always)]
    fn address(&self) -> ([u64; 2], u8) {
        // SAFETY: as in `Call::peer`.
        let word = unsafe { (&raw const (*self.0).user_ip4).read_volatile() };
        ([word as u64, 0], FAMILY_V4)
    }

    #[inline(always)]
    fn set_address(&self, address: &[u64; 2], _family: u8) {
        // SAFETY: as in `Call::peer`.
        unsafe { (&raw mut (*self.0).user_ip4).write_volatile(address[0] as u32) };
    }
}

/// A call with an address of `AF_INET6`, which may be a mapped one.
pub(crate) struct Call6(pub(crate) *mut bpf_sock_addr);

impl Call6 {
    /// A word of the address, where the kernel's context has it.
    #[inline(always)]
    fn word(&self, index: usize) -> *mut u32 {
        // SAFETY: the index is below four at every call.
        unsafe { (&raw mut (*self.0).user_ip6).cast::<u32>().add(index) }
    }
}

impl Call for Call6 {
    #[inline(always)]
    fn ctx(&self) -> *mut bpf_sock_addr {
        self.0
    }

    #[inline(always)]
    fn address(&self) -> ([u64; 2], u8) {
        // SAFETY: as in `Call::peer`. Word by word: the verifier knows each.
        let words = unsafe {
            [
                self.word(0).read_volatile(),
                self.word(1).read_volatile(),
                self.word(2).read_volatile(),
                self.word(3).read_volatile(),
            ]
        };
        if words[0] == 0 && words[1] == 0 && words[2] == MAPPED {
            ([words[3] as u64, 0], FAMILY_V4)
        } else {
            let join = |low: u32, high: u32| low as u64 | (high as u64) << 32;
            let address = [join(words[0], words[1]), join(words[2], words[3])];
            (address, FAMILY_V6)
        }
    }

    #[inline(always)]
    fn set_address(&self, address: &[u64; 2], family: u8) {
        // SAFETY: as in `address`.
        unsafe {
            if family == FAMILY_V4 {
                // The rest says already that it is a mapped one.
                self.word(3).write_volatile(address[0] as u32);
            } else {
                self.word(0).write_volatile(address[0] as u32);
                self.word(1).write_volatile((address[0] >> 32) as u32);
                self.word(2).write_volatile(address[1] as u32);
                self.word(3).write_volatile((address[1] >> 32) as u32);
            }
        }
    }
}
