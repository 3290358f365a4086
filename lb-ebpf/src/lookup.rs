//! Service → Maglev → backend: the way of a packet that no flow is known for.

use lb_common::{
    entry::{BackendEntry, ServiceEntry, ServiceKey, backend_flags},
    hash,
    verdict::Verdict,
};

use crate::maps::{BACKENDS, MAGLEV, SERVICES};

/// The service behind a VIP, port and protocol.
#[inline(always)]
pub(crate) fn service(key: &ServiceKey) -> Option<&'static ServiceEntry> {
    // SAFETY: a concurrent update replaces the entry, and the old one outlives the program's run
    // (RCU); one that is reused meanwhile holds another entry, whose table is bounds-checked.
    unsafe { SERVICES.get(key) }
}

/// Chooses a backend by the flow's hash.
///
/// # Errors
///
/// The verdict for a service without a backend that takes new flows.
#[inline(always)]
pub(crate) fn select(
    service: &ServiceEntry,
    flow_hash: u64,
) -> Result<(u32, &'static BackendEntry), Verdict> {
    if service.maglev_slots == 0 {
        return Err(Verdict::DropNoBackend);
    }
    let slot = hash::scale(flow_hash, service.maglev_slots);
    let table = MAGLEV.get(service.id).ok_or(Verdict::DropNoBackend)?;
    // A service without backends has a table of one slot, however many its entry names.
    let id = *table.get(slot).ok_or(Verdict::DropNoBackend)?;
    let backend = BACKENDS.get(id).ok_or(Verdict::DropInternal)?;
    if backend.flags & backend_flags::ACTIVE == 0 || backend.service != service.id {
        return Err(Verdict::DropNoBackend);
    }
    Ok((id, backend))
}

/// Whether a backend takes new flows.
#[inline(always)]
pub(crate) fn is_active(backend: u32) -> bool {
    BACKENDS
        .get(backend)
        .is_some_and(|entry| entry.flags & backend_flags::ACTIVE != 0)
}

/// A backend by id, if it takes new flows of this service.
#[inline(always)]
pub(crate) fn active(backend: u32, service: &ServiceEntry) -> Option<&'static BackendEntry> {
    let entry = BACKENDS.get(backend)?;
    (entry.flags & backend_flags::ACTIVE != 0 && entry.service == service.id).then_some(entry)
}
