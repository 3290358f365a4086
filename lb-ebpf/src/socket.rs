//! Local clients: a call to a VIP becomes one to a backend, before there is any packet.
//!
//! The service, its table and its backends are those that packets meet. What was asked for is
//! remembered, so that the socket hears from, and is connected to, the VIP. A service's `allow` is
//! about clients of the network: the node's own processes are admitted by being served at all. For
//! a service whose backends are chosen by the client, all processes of a network namespace are one.
//! The maps are the kernel's
//! own hash tables here: a call costs microseconds anyway, and no packet comes this way.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::programs::SockContext;
use lb_common::{
    entry::{BackendEntry, ServiceEntry, ServiceKey, service_flags},
    flow::Kind,
    hash,
    socket::{Connected, Conversation, ConversationKey, Endpoint},
    verdict::Verdict,
};

use crate::{
    call::Call,
    flow, lookup,
    maps::{BACKEND_STATS, CONVERSATIONS, SOCKET_STATS, SOCKETS},
    settings::setting,
};

/// The call goes on.
pub(crate) const ALLOW: i32 = 1;
/// The call fails with `EPERM`.
const REFUSE: i32 = 0;

/// `connect`, on TCP and UDP sockets.
#[inline(always)]
pub(crate) fn connect(call: &impl Call) -> i32 {
    let Some(peer) = call.peer() else {
        return ALLOW;
    };
    let cookie = call.cookie();
    let Some(service) = service(&peer) else {
        // A socket may be connected anew, and to the same backend by its own address.
        forget(cookie);
        return ALLOW;
    };
    let Ok((id, entry)) = select(call, service, &peer, cookie) else {
        forget(cookie);
        return refuse();
    };
    let backend = endpoint(id, entry, &peer);
    let connected = Connected {
        netns: call.netns(),
        vip: peer,
        backend,
    };
    // Without memory for it the connection is good all the same, and shows the backend as its peer.
    let _ = SOCKETS.insert(cookie, connected, 0);
    call.set_peer(&backend);
    count_translated(id);
    ALLOW
}

/// `sendto` and its like on an unconnected UDP socket. A conversation stays with its backend
/// while that takes new flows and neither side has been silent beyond the life of a UDP flow.
#[inline(always)]
pub(crate) fn send(call: &impl Call) -> i32 {
    let Some(peer) = call.peer() else {
        return ALLOW;
    };
    let Some(service) = service(&peer) else {
        return ALLOW;
    };
    let key = ConversationKey {
        cookie: call.cookie(),
        peer: peer.noting(Kind::Forward as u32),
    };
    if let Some(backend) = proceed(&key, service) {
        call.set_peer(&backend);
        return ALLOW;
    }
    let Ok((id, entry)) = select(call, service, &peer, key.cookie) else {
        return refuse();
    };
    let backend = endpoint(id, entry, &peer);
    let request = Conversation {
        instead: backend,
        seen: flow::now() as u64,
    };
    // Without memory for it the next datagram may go elsewhere, and a reply shows the backend.
    let _ = CONVERSATIONS.insert(key, request, 0);
    remember_reply(&key, &request);
    call.set_peer(&backend);
    count_translated(id);
    ALLOW
}

/// What a UDP socket is told of where a datagram came from.
#[inline(always)]
pub(crate) fn receive(call: &impl Call) -> i32 {
    if call.is_connected() {
        return show(call);
    }
    let Some(peer) = call.peer() else {
        return ALLOW;
    };
    let key = ConversationKey {
        cookie: call.cookie(),
        peer: peer.noting(Kind::Reply as u32),
    };
    if let Some(reply) = CONVERSATIONS.get_ptr_mut(key) {
        // SAFETY: map memory. An entry that is given away meanwhile stays readable, and a time in
        // another's entry prolongs it by one reply at most.
        let vip = unsafe {
            (&raw mut (*reply).seen).write_volatile(flow::now() as u64);
            (*reply).instead
        };
        call.set_peer(&vip);
    }
    ALLOW
}

/// `getpeername`, and the source of what a connected UDP socket receives.
#[inline(always)]
pub(crate) fn show(call: &impl Call) -> i32 {
    let Some(peer) = call.peer() else {
        return ALLOW;
    };
    // SAFETY: map memory; an entry that is given away meanwhile stays readable.
    if let Some(connected) = unsafe { SOCKETS.get(call.cookie()) }
        && connected.backend.is(&peer)
    {
        call.set_peer(&connected.vip);
    }
    ALLOW
}

/// The end of a socket.
#[inline(always)]
pub(crate) fn release(ctx: &SockContext) -> i32 {
    // SAFETY: the helper takes the context of the program.
    forget(unsafe { bpf_get_socket_cookie(ctx.sock.cast()) });
    ALLOW
}

/// The service behind a VIP, if it is one that a backend can serve under its own address: one that
/// answers clients itself serves the VIP's.
#[inline(always)]
fn service(peer: &Endpoint) -> Option<&'static ServiceEntry> {
    // SAFETY: an endpoint begins with the bytes of a key.
    let service = lookup::service(unsafe { &*(&raw const *peer).cast::<ServiceKey>() })?;
    (service.flags & (service_flags::DSR_L2 | service_flags::DSR_IPIP) == 0).then_some(service)
}

/// Chooses a backend for a socket. A retry on the same socket meets the same one.
#[inline(always)]
fn select(
    call: &impl Call,
    service: &ServiceEntry,
    peer: &Endpoint,
    cookie: u64,
) -> Result<(u32, &'static BackendEntry), Verdict> {
    let state = if service.flags & service_flags::BY_CLIENT != 0 {
        hash::mix(setting!(seed), call.netns())
    } else {
        hash::mix(hash::mix(setting!(seed), cookie), peer.port as u64)
    };
    lookup::select(service, hash::finish(state))
}

/// The backend as a peer, its id noted.
#[inline(always)]
fn endpoint(id: u32, backend: &BackendEntry, peer: &Endpoint) -> Endpoint {
    // SAFETY: an array of the same size, in map memory; the verifier admits any alignment there.
    let addr = unsafe {
        (&raw const backend.addr)
            .cast::<[u64; 2]>()
            .read_unaligned()
    };
    Endpoint {
        addr,
        port: backend.port,
        proto: peer.proto,
        family: peer.family,
        note: id,
    }
}

/// Where the next datagram of a conversation goes; `None` if there is none that goes on.
#[inline(always)]
fn proceed(key: &ConversationKey, service: &ServiceEntry) -> Option<Endpoint> {
    let request = CONVERSATIONS.get_ptr_mut(key)?;
    // SAFETY: map memory; an entry that is given away meanwhile stays readable, and what it holds
    // then is checked below like anything else.
    let held = unsafe { *request };
    let id = held.instead.note;
    let entry = lookup::active(id, service)?;
    let backend = endpoint(id, entry, &key.peer);
    // The id may have been given to another backend of the service.
    if !backend.is(&held.instead) {
        return None;
    }
    let now = flow::now();
    let reply_key = reply_key(key, &backend);
    // SAFETY: as above.
    let reply = unsafe { CONVERSATIONS.get(reply_key) };
    let heard = reply.filter(|reply| reply.instead.is(&key.peer));
    let life = setting!(lifetimes.udp_established);
    let recent = |seen: u64| now.wrapping_sub(seen as u32) <= life;
    if !recent(held.seen) && !heard.is_some_and(|reply| recent(reply.seen)) {
        return None;
    }
    // SAFETY: as above.
    unsafe { (&raw mut (*request).seen).write_volatile(now as u64) };
    if heard.is_none() {
        // Forgotten, or the socket talks to the same backend through another VIP as well: the
        // answer is shown as one to the last question.
        remember_reply(key, &held);
    }
    Some(backend)
}

/// Notes what a reply of the backend is to be shown as.
#[inline(always)]
fn remember_reply(key: &ConversationKey, request: &Conversation) {
    let reply = Conversation {
        instead: key.peer.noting(request.instead.note),
        seen: request.seen,
    };
    let _ = CONVERSATIONS.insert(reply_key(key, &request.instead), reply, 0);
}

#[inline(always)]
fn reply_key(key: &ConversationKey, backend: &Endpoint) -> ConversationKey {
    ConversationKey {
        cookie: key.cookie,
        peer: backend.noting(Kind::Reply as u32),
    }
}

/// Forgets where a socket was sent. To look first is cheaper: most sockets were not.
#[inline(always)]
fn forget(cookie: u64) {
    if SOCKETS.get_ptr(cookie).is_some() {
        let _ = SOCKETS.remove(cookie);
    }
}

#[inline(always)]
fn refuse() -> i32 {
    if let Some(stats) = SOCKET_STATS.get_ptr_mut(0) {
        // SAFETY: this CPU's value, in map memory.
        add_one(unsafe { &raw mut (*stats).refused });
    }
    REFUSE
}

#[inline(always)]
fn count_translated(backend: u32) {
    if let Some(stats) = SOCKET_STATS.get_ptr_mut(0) {
        // SAFETY: this CPU's value, in map memory.
        add_one(unsafe { &raw mut (*stats).translated });
    }
    if let Some(stats) = BACKEND_STATS.get_ptr_mut(backend) {
        // SAFETY: the same.
        add_one(unsafe { &raw mut (*stats).flows });
    }
}

/// Adds one in a single instruction: unlike a packet's, this program can be interrupted by another
/// on the same CPU that counts in the same place.
#[inline(always)]
fn add_one(counter: *mut u64) {
    // SAFETY: the caller's pointer into map memory, aligned.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, 1) };
}
