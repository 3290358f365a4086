//! New flows: service, backend and port are chosen, both halves inserted.

mod families;

use core::{hint::black_box, ptr};

use aya_ebpf::btf_maps::lpm_trie as trie;
use lb_common::{
    checksum,
    entry::{
        NextHop, SOURCE_SERVICE_BITS, ServiceEntry, Source, hop_flags, hop_number, service_flags,
    },
    flow::{ALONE, Half, Kind, NO_PARTNER, State, tcp_flags},
    hash,
    verdict::Verdict,
};

use crate::{
    budget,
    family::{Draft, Key, V4, V6},
    flow::SlotRef,
    headers::{join_ports, split_ports},
    insert::{self, InsertError},
    lookup,
    maps::NEXTHOPS,
    place::place,
    server_return::ServerReturn,
    settings::{client_hop, setting},
    stats::count_flow,
};

/// Ports tried for a new flow before it is refused.
const PORT_PROBES: u32 = 12;
/// From this one on, a port of a flow that both sides have closed will do, although the backend may
/// remember it still: better than none.
const PORT_PROBES_CLOSED: u32 = 8;

/// What a family adds for new flows.
pub(crate) trait NewFlow: ServerReturn {
    /// [`create`] as a function of the program that the verifier checks by itself.
    fn create() -> Created;

    /// `place::place_draft` as such a function.
    fn place(kind: u32) -> u64;

    /// The service that the draft's packet is for.
    fn service(draft: &mut Draft<Self::Addr>) -> Option<&'static ServiceEntry>;

    /// Whether a host may send from this address; not so unspecified, loopback, multicast and
    /// broadcast ones (RFC 1812, section 5.3.7; RFC 4291, section 2).
    fn is_hosts(address: &Self::Addr) -> bool;

    /// Whether the draft's client, looked up as one of the service's, is admitted.
    fn is_admitted(client: &trie::Key<Source<Self::Addr>>) -> bool;

    /// Hash of a client by its address alone.
    fn client_hash(addr: &Self::Addr) -> u64;

    /// Takes an address out of a backend entry.
    fn copy_address(address: &mut Self::Addr, words: &[u32; 4]);

    /// Unfolded checksum delta of one address in place of another.
    fn replace(old: &Self::Addr, new: &Self::Addr) -> u32;
}

/// Answer of [`create`] and [`claim_port`]: a slot number, or a verdict above all slot numbers.
/// One register instead of a `Result`, which would go through memory.
pub(crate) type Created = u64;

/// Added to a verdict to make it a [`Created`].
pub(crate) const REFUSED: u64 = 1 << 32;

#[inline(always)]
const fn refuse(verdict: Verdict) -> Created {
    REFUSED + verdict as u64
}

#[inline(always)]
pub(crate) fn created(answer: Created) -> Result<u32, Verdict> {
    if answer < REFUSED {
        return Ok(answer as u32);
    }
    let verdict = answer - REFUSED;
    for candidate in [
        Verdict::PassForeign,
        Verdict::PassMalformed,
        Verdict::PassUnknownReply,
        Verdict::PassUnresolved,
        Verdict::DropNoBackend,
        Verdict::DropPortsExhausted,
        Verdict::DropTableFull,
        Verdict::DropContended,
        Verdict::DropTtlExceeded,
        Verdict::DropNoFlow,
        Verdict::DropNotAllowed,
        Verdict::DropBudget,
    ] {
        if candidate as u64 == verdict {
            return Err(candidate);
        }
    }
    Err(Verdict::DropInternal)
}

/// Makes a new flow, reply half first; answers with the forward half's slot, or the verdict for a
/// packet that gets no flow.
#[inline(always)]
fn create<F: NewFlow>() -> Created {
    let Some(draft) = F::draft() else {
        return refuse(Verdict::DropInternal);
    };
    match try_create::<F>(draft) {
        Ok(slot) => slot as u64,
        Err(verdict) => refuse(verdict),
    }
}

/// See [`NewFlow::create`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_create4() -> u64 {
    create::<V4>()
}

/// See [`NewFlow::create`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_create6() -> u64 {
    create::<V6>()
}

#[inline(always)]
fn try_create<F: NewFlow>(draft: *mut Draft<F::Addr>) -> Result<u32, Verdict> {
    // SAFETY: this CPU's scratch memory; see `forward`.
    let draft = unsafe { &mut *draft };
    let [client_port, vip_port] = split_ports(draft.key.ports);
    let service = F::service(draft).ok_or_else(|| stranger(vip_port))?;
    // An answer would go nowhere, or to everybody.
    if !F::is_hosts(&draft.key.saddr) {
        return Err(Verdict::PassMalformed);
    }
    if service.flags & service_flags::RESTRICTED != 0 {
        // Field by field, for the stack has no room for the key.
        draft.client.prefix_len = SOURCE_SERVICE_BITS + size_of::<F::Addr>() as u32 * 8;
        draft.client.data.service = service.id;
        draft.client.data.addr = draft.key.saddr;
        if !F::is_admitted(&draft.client) {
            return Err(Verdict::DropNotAllowed);
        }
    }
    if draft.flags & tcp_flags::RST != 0 {
        return Err(Verdict::DropNoFlow);
    }
    if !budget::admits(draft.now) {
        return Err(Verdict::DropBudget);
    }
    let drawn = if service.flags & service_flags::BY_CLIENT != 0 {
        F::client_hash(&draft.key.saddr)
    } else {
        draft.hash
    };
    let (backend_id, backend) = lookup::select(service, drawn)?;
    let next: &NextHop = NEXTHOPS.get(backend.hop).ok_or(Verdict::DropInternal)?;
    // Where a route has only just appeared, the agent has yet to choose the source.
    if next.ifindex == 0 || backend.source == [0; 4] {
        return Err(Verdict::PassUnresolved);
    }
    let local = next.flags & hop_flags::LOCAL != 0;
    // Only now is it sure that the packet is to leave again.
    if draft.ttl <= 1 && !local {
        return Err(Verdict::DropTtlExceeded);
    }
    F::copy_address(&mut draft.destination, &backend.addr);
    if service.flags & (service_flags::DSR_L2 | service_flags::DSR_IPIP) != 0 {
        draft.source = draft.key.saddr;
        draft.half.hop = backend.hop | hop_number::SERVER_RETURN;
        if service.flags & service_flags::DSR_IPIP != 0 {
            F::copy_address(&mut draft.source, &backend.source);
            draft.half.hop |= hop_number::TUNNEL;
        }
        draft.half.backend = backend_id;
        return begin_alone::<F>(draft);
    }
    if local {
        // A process of the node sees the client itself; its replies are met on their way out.
        draft.source = draft.key.saddr;
        draft.half.hop = hop_number::LOCAL;
    } else {
        F::copy_address(&mut draft.source, &backend.source);
        draft.half.hop = client_hop(draft.ingress);
    }
    draft.half.backend = backend_id;
    draft.half.seen = draft.now;
    draft.half.spilled = 0;
    draft.half.partner = NO_PARTNER;
    draft.half.new_ports = join_ports(vip_port, client_port);
    let reply = claim_port::<F>(draft, backend.port, client_port)?;

    let [_, port] = split_ports(draft.half.ports);
    draft.half.ports = draft.key.ports;
    draft.half.new_ports = join_ports(port, backend.port);
    draft.half.hop = backend.hop;
    draft.half.partner = reply;
    match place::<F>(draft, Kind::Forward, false) {
        Ok(slot) => {
            let reply = SlotRef::at::<F>(reply).ok_or(Verdict::DropInternal)?;
            // SAFETY: map memory; the reply half is this CPU's since `claim_port`.
            unsafe { ptr::write_volatile(&raw mut (*reply.half).partner, slot) };
            count_flow(backend_id);
            Ok(slot)
        }
        Err(error) => {
            if let Some(reply) = SlotRef::at::<F>(reply) {
                let tag = reply.tag();
                reply.swap_tag(tag, tag.with_state(State::Free));
            }
            Err(error.verdict())
        }
    }
}

/// Inserts the forward half of a flow whose backend answers the client itself. Its rewrite holds the
/// addresses of the header around the packet, or the backend's for its link address.
#[inline(always)]
fn begin_alone<F: NewFlow>(draft: *mut Draft<F::Addr>) -> Result<u32, Verdict> {
    // SAFETY: this CPU's scratch memory; a pointer came in, as in `claim_port`.
    let draft = unsafe { &mut *draft };
    draft.half.saddr = draft.key.saddr;
    draft.half.daddr = draft.key.daddr;
    draft.half.new_saddr = draft.source;
    draft.half.new_daddr = draft.destination;
    draft.half.ports = draft.key.ports;
    draft.half.new_ports = draft.key.ports;
    draft.half.l3_delta = 0;
    draft.half.l4_delta = 0;
    draft.half.partner = ALONE;
    draft.half.seen = draft.now;
    draft.half.spilled = 0;
    let slot = insert::insert::<F>(draft.hash, Kind::Forward, false);
    let slot = slot.map_err(InsertError::verdict)?;
    count_flow(draft.half.backend);
    Ok(slot)
}

/// Sets both checksum deltas from what the half replaces.
#[inline(always)]
fn set_deltas<F: NewFlow>(half: &mut Half<F::Addr>) {
    let addresses = checksum::fold(
        F::replace(&half.saddr, &half.new_saddr) + F::replace(&half.daddr, &half.new_daddr),
    );
    half.l3_delta = addresses;
    half.l4_delta =
        checksum::fold(addresses as u32 + checksum::replace32(half.ports, half.new_ports));
}

/// Makes the draft's half the reply half, but for what does not depend on the family; answers
/// with its hash.
#[inline(always)]
pub(crate) fn set_reply<F: NewFlow>(draft: &mut Draft<F::Addr>) -> u64 {
    draft.half.saddr = draft.destination;
    draft.half.daddr = draft.source;
    draft.half.new_saddr = draft.key.daddr;
    draft.half.new_daddr = draft.key.saddr;
    // Past the compiler, which would keep all of it on the stack: there is no room.
    let draft = black_box(draft);
    set_deltas::<F>(&mut draft.half);
    let draft = black_box(draft);
    F::hash(&Key {
        saddr: draft.half.saddr,
        daddr: draft.half.daddr,
        ports: draft.half.ports,
        proto: draft.key.proto,
    })
}

/// The same for the forward half, whose hash is known.
#[inline(always)]
pub(crate) fn set_forward<F: NewFlow>(draft: &mut Draft<F::Addr>) {
    draft.half.saddr = draft.key.saddr;
    draft.half.daddr = draft.key.daddr;
    draft.half.new_saddr = draft.source;
    draft.half.new_daddr = draft.destination;
    set_deltas::<F>(&mut black_box(draft).half);
}

/// Finds a port on the node's address (the client's, for a process of the node) that is free towards the backend, by inserting the reply
/// half with it; answers with its slot. The client's own port is kept where it is free and within
/// the node's range.
#[inline(always)]
fn claim_port<F: NewFlow>(
    draft: *mut Draft<F::Addr>,
    backend_port: u16,
    client_port: u16,
) -> Result<u32, Verdict> {
    // SAFETY: this CPU's scratch memory; see `forward`. A pointer came in, for the compiler takes
    // what a parameter borrows for nobody else's, and `place` works on the same memory.
    let draft = unsafe { &mut *draft };
    let (first, last) = (setting!(port_first) as u32, setting!(port_last) as u32);
    let range = last - first + 1;
    let kept = u16::from_be(client_port) as u32;
    let local = draft.half.hop == hop_number::LOCAL;
    let keep = local || kept >= first && kept <= last;
    for probe in 0..PORT_PROBES {
        let port = if probe == 0 && keep {
            client_port
        } else {
            // Finished, for the upper bits of a mix alone hardly move with a small word: all
            // probes would fall on neighbours, where clients' own ports lie close together.
            let drawn = hash::finish(hash::mix(draft.hash, probe as u64 + 1));
            ((first + hash::scale(drawn, range)) as u16).to_be()
        };
        draft.half.ports = join_ports(backend_port, port);
        match place::<F>(draft, Kind::Reply, probe >= PORT_PROBES_CLOSED) {
            Ok(slot) => return Ok(slot),
            // Taken, or its buckets are: another port has other buckets.
            Err(InsertError::Exists) => {}
            Err(InsertError::Full | InsertError::Contended) if probe < 2 => {}
            Err(error) => return Err(error.verdict()),
        }
    }
    Err(Verdict::DropPortsExhausted)
}

/// The verdict for a packet that is neither of a known flow nor for a service.
#[inline(always)]
fn stranger(port: u16) -> Verdict {
    let port = u16::from_be(port);
    if port >= setting!(port_first) && port <= setting!(port_last) {
        Verdict::PassUnknownReply
    } else {
        Verdict::PassForeign
    }
}
