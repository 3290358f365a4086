//! The two address families: keys, hashes, tables. Everything behind is written once over
//! [`Family`].

use aya_ebpf::btf_maps::lpm_trie as trie;
use lb_common::{
    entry::{ServiceKey, Source},
    flow::{Bucket4, Bucket6, Half, Slot4, Slot6},
    hash,
};

use crate::{
    insert::{Victim, lb_insert4, lb_insert6, lb_scan4, lb_scan6, lb_take4, lb_take6},
    maps::{DRAFT4, DRAFT6, FLOWS4, FLOWS6},
    pending::halves,
    settings::setting,
};

/// What a half is found by.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Key<A> {
    pub(crate) saddr: A,
    pub(crate) daddr: A,
    pub(crate) ports: u32,
    pub(crate) proto: u8,
}

/// A new flow in the making. It lies in a per-CPU map: the stack has no room for it, and what is
/// read back from memory is unknown to the verifier, which keeps it from following every case of
/// every field through the functions below.
#[repr(C)]
pub(crate) struct Draft<A> {
    pub(crate) key: Key<A>,
    pub(crate) hash: u64,
    pub(crate) now: u32,
    pub(crate) ingress: u32,
    /// The destination as a service's; here, for the stack has no room for it.
    pub(crate) service: ServiceKey,
    /// The client as one of the service's; where the service admits some only.
    pub(crate) client: trie::Key<Source<A>>,
    pub(crate) flags: u8,
    pub(crate) ttl: u8,
    /// Address of the node towards the backend.
    pub(crate) source: A,
    /// Address of the backend.
    pub(crate) destination: A,
    /// First the reply half, then the forward half.
    pub(crate) half: Half<A>,
    /// Hash of the half's own key.
    pub(crate) half_hash: u64,
    /// What would give way to it.
    pub(crate) victim: Victim,
}

/// An address family's table and hash.
pub(crate) trait Family {
    /// Address as it stands in keys.
    type Addr: Copy + PartialEq + 'static;
    /// Bytes from one slot to the next.
    const STRIDE: usize;

    fn hash(key: &Key<Self::Addr>) -> u64;

    /// What two addresses add to a checksum, unfolded.
    fn sum(saddr: &Self::Addr, daddr: &Self::Addr) -> u32;

    /// The first byte of a bucket.
    fn bucket(index: u32) -> Option<*mut u8>;

    /// This CPU's scratch memory.
    fn draft() -> Option<*mut Draft<Self::Addr>>;

    /// `insert::scan` as such a function.
    fn scan(bucket: u32, hash: u64, own: u32) -> u64;

    /// `insert::take` as such a function; 0: another CPU was faster.
    fn take(hash: u64, how: u32) -> u64;

    /// `insert::insert_draft` as a function of the program that the verifier checks once by itself,
    /// not again for each of its callers and each turn of their loops.
    fn insert(hash: u64, how: u32) -> u64;
}

/// IPv4.
pub(crate) struct V4;
/// IPv6.
pub(crate) struct V6;

impl Family for V4 {
    type Addr = u32;
    const STRIDE: usize = size_of::<Slot4>();

    #[inline(always)]
    fn hash(key: &Key<u32>) -> u64 {
        hash::flow4(setting!(seed), key.saddr, key.daddr, key.ports, key.proto)
    }

    #[inline(always)]
    fn sum(saddr: &u32, daddr: &u32) -> u32 {
        halves(*saddr) + halves(*daddr)
    }

    #[inline(always)]
    fn bucket(index: u32) -> Option<*mut u8> {
        FLOWS4.get_ptr_mut(index).map(<*mut Bucket4>::cast)
    }

    #[inline(always)]
    fn draft() -> Option<*mut Draft<u32>> {
        DRAFT4.get_ptr_mut(0)
    }

    #[inline(always)]
    fn scan(bucket: u32, hash: u64, own: u32) -> u64 {
        lb_scan4(bucket, hash, own)
    }

    #[inline(always)]
    fn take(hash: u64, how: u32) -> u64 {
        lb_take4(hash, how)
    }

    #[inline(always)]
    fn insert(hash: u64, how: u32) -> u64 {
        lb_insert4(hash, how)
    }
}

impl Family for V6 {
    type Addr = [u32; 4];
    const STRIDE: usize = size_of::<Slot6>();

    #[inline(always)]
    fn hash(key: &Key<[u32; 4]>) -> u64 {
        hash::flow6(setting!(seed), &key.saddr, &key.daddr, key.ports, key.proto)
    }

    #[inline(always)]
    fn sum(saddr: &[u32; 4], daddr: &[u32; 4]) -> u32 {
        let mut sum = 0;
        for word in 0..4 {
            sum += halves(saddr[word]) + halves(daddr[word]);
        }
        sum
    }

    #[inline(always)]
    fn bucket(index: u32) -> Option<*mut u8> {
        FLOWS6.get_ptr_mut(index).map(<*mut Bucket6>::cast)
    }

    #[inline(always)]
    fn draft() -> Option<*mut Draft<[u32; 4]>> {
        DRAFT6.get_ptr_mut(0)
    }

    #[inline(always)]
    fn scan(bucket: u32, hash: u64, own: u32) -> u64 {
        lb_scan6(bucket, hash, own)
    }

    #[inline(always)]
    fn take(hash: u64, how: u32) -> u64 {
        lb_take6(hash, how)
    }

    #[inline(always)]
    fn insert(hash: u64, how: u32) -> u64 {
        lb_insert6(hash, how)
    }
}
