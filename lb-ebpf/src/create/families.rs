//! What new flows of each address family differ in.

use aya_ebpf::btf_maps::lpm_trie as trie;
use lb_common::{
    checksum,
    entry::{FAMILY_V4, FAMILY_V6, ServiceEntry, Source},
    hash,
};

use super::{Created, NewFlow, lb_create4, lb_create6};
use crate::{
    answer,
    family::{Draft, V4, V6},
    headers::split_ports,
    lookup,
    maps::{SOURCES4, SOURCES6},
    place::{lb_take_free4, lb_take_free6},
    settings::setting,
};

impl NewFlow for V4 {
    #[inline(always)]
    fn create() -> Created {
        lb_create4()
    }

    #[inline(always)]
    fn place(kind: u32) -> u64 {
        lb_take_free4(kind)
    }

    #[inline(always)]
    fn service(draft: &mut Draft<u32>) -> Option<&'static ServiceEntry> {
        let [_, port] = split_ports(draft.key.ports);
        draft.service.addr = [draft.key.daddr, 0, 0, 0];
        draft.service.port = port;
        draft.service.proto = draft.key.proto;
        draft.service.family = FAMILY_V4;
        lookup::service(&draft.service)
    }

    #[inline(always)]
    fn is_hosts(address: &u32) -> bool {
        answer::may_be_told4(*address)
    }

    #[inline(always)]
    fn is_admitted(client: &trie::Key<Source<u32>>) -> bool {
        SOURCES4.get(client).is_some()
    }

    #[inline(always)]
    fn client_hash(addr: &u32) -> u64 {
        hash::client4(setting!(seed), *addr)
    }

    #[inline(always)]
    fn copy_address(address: &mut u32, words: &[u32; 4]) {
        *address = words[0];
    }

    #[inline(always)]
    fn replace(old: &u32, new: &u32) -> u32 {
        checksum::replace32(*old, *new)
    }
}

impl NewFlow for V6 {
    #[inline(always)]
    fn create() -> Created {
        lb_create6()
    }

    #[inline(always)]
    fn place(kind: u32) -> u64 {
        lb_take_free6(kind)
    }

    #[inline(always)]
    fn service(draft: &mut Draft<[u32; 4]>) -> Option<&'static ServiceEntry> {
        let [_, port] = split_ports(draft.key.ports);
        draft.service.addr = draft.key.daddr;
        draft.service.port = port;
        draft.service.proto = draft.key.proto;
        draft.service.family = FAMILY_V6;
        lookup::service(&draft.service)
    }

    #[inline(always)]
    fn is_hosts(address: &[u32; 4]) -> bool {
        answer::may_be_told6(address)
    }

    #[inline(always)]
    fn is_admitted(client: &trie::Key<Source<[u32; 4]>>) -> bool {
        SOURCES6.get(client).is_some()
    }

    #[inline(always)]
    fn client_hash(addr: &[u32; 4]) -> u64 {
        hash::client6(setting!(seed), addr)
    }

    #[inline(always)]
    fn copy_address(address: &mut [u32; 4], words: &[u32; 4]) {
        *address = *words;
    }

    #[inline(always)]
    fn replace(old: &[u32; 4], new: &[u32; 4]) -> u32 {
        let first = checksum::replace32(old[0], new[0]) + checksum::replace32(old[1], new[1]);
        let last = checksum::replace32(old[2], new[2]) + checksum::replace32(old[3], new[3]);
        checksum::fold(first) as u32 + checksum::fold(last) as u32
    }
}
