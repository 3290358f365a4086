//! The sources that restricted services admit: prefixes under the ids of the services, in a trie of
//! each address family.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use aya::{
    Ebpf, Pod,
    maps::{LpmTrie, MapData, MapError, lpm_trie::Key},
};
use ipnet::IpNet;
use lb_common::{
    entry::{SOURCE_SERVICE_BITS, Source},
    maps::{MAX_SOURCES, name},
};

use super::{Datapath, encode, loader::map_error, take};
use crate::domain::{block::PrefixSet, kernel::KernelError};

/// The maps, and what is in them.
pub(crate) struct Sources {
    v4: LpmTrie<MapData, Source<u32>, u32>,
    v6: LpmTrie<MapData, Source<[u32; 4]>, u32>,
    /// By service id; not empty.
    held: BTreeMap<u32, BTreeSet<IpNet>>,
}

impl Sources {
    /// Takes the maps, and takes over what a former agent left in them.
    pub(crate) fn open(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let v4: LpmTrie<MapData, Source<u32>, u32> = take(ebpf, name::SOURCES4)?;
        let v6: LpmTrie<MapData, Source<[u32; 4]>, u32> = take(ebpf, name::SOURCES6)?;
        let held = BTreeMap::new();
        let mut sources = Self { v4, v6, held };
        sources.reread()?;
        Ok(sources)
    }

    /// Reads anew what is in the maps; whether it is what was known.
    ///
    /// # Errors
    ///
    /// A map that cannot be read.
    pub(crate) fn reread(&mut self) -> Result<bool, KernelError> {
        let mut held: BTreeMap<u32, BTreeSet<IpNet>> = BTreeMap::new();
        let mut note = |service, ip, length: u32| {
            let length = length.saturating_sub(SOURCE_SERVICE_BITS) as u8;
            held.entry(service)
                .or_default()
                .extend(IpNet::new(ip, length));
        };
        for key in self.v4.keys() {
            let key = key.map_err(|error| map_error(name::SOURCES4, error))?;
            let Source { service, addr } = key.data();
            let ip = encode::ip([addr, 0, 0, 0], false);
            note(service, ip, key.prefix_len());
        }
        for key in self.v6.keys() {
            let key = key.map_err(|error| map_error(name::SOURCES6, error))?;
            let Source { service, addr } = key.data();
            note(service, encode::ip(addr, true), key.prefix_len());
        }
        let same = held == self.held;
        self.held = held;
        Ok(same)
    }

    /// By service id; not empty.
    pub(crate) fn held(&self) -> &BTreeMap<u32, BTreeSet<IpNet>> {
        &self.held
    }

    /// Makes these what a service admits: what is new first, so that whoever stays admitted never
    /// is not.
    pub(crate) fn put(
        &mut self,
        service: u32,
        wanted: &BTreeSet<IpNet>,
    ) -> Result<(), KernelError> {
        let what = || format!("writing the sources that service {service} admits");
        let former = self.held.get(&service).cloned().unwrap_or_default();
        for v6 in [false, true] {
            let of_family = |prefix: &&IpNet| prefix.addr().is_ipv6() == v6;
            let others = self.held.values().flatten().filter(of_family).count()
                - former.iter().filter(of_family).count();
            if others + wanted.iter().filter(of_family).count() > MAX_SOURCES as usize {
                let full = format!("no more than {MAX_SOURCES} of an address family fit");
                return Err(KernelError::new(what(), full));
            }
        }
        let failed = |error: MapError| KernelError::new(what(), error);
        for new in wanted.difference(&former) {
            match new.network() {
                IpAddr::V4(_) => self.v4.insert(&key4(service, new), 1, 0),
                IpAddr::V6(_) => self.v6.insert(&key6(service, new), 1, 0),
            }
            .map_err(failed)?;
            self.held.entry(service).or_default().insert(*new);
        }
        for old in former.difference(wanted) {
            match old.network() {
                IpAddr::V4(_) => self.v4.remove(&key4(service, old)),
                IpAddr::V6(_) => self.v6.remove(&key6(service, old)),
            }
            .map_err(failed)?;
            if let Some(held) = self.held.get_mut(&service) {
                held.remove(old);
            }
        }
        self.held.retain(|_, held| !held.is_empty());
        Ok(())
    }

    /// A test of clients of these services: whether the service, by id, does not admit one.
    pub(crate) fn judge(&self, services: &BTreeSet<u32>) -> impl Fn(u32, IpAddr) -> bool + use<> {
        let admitted: BTreeMap<u32, PrefixSet> = services
            .iter()
            .map(|id| (*id, self.held.get(id).into_iter().flatten().collect()))
            .collect();
        move |service, client| {
            let admitted = admitted.get(&service);
            admitted.is_some_and(|admitted| !admitted.contains(client))
        }
    }
}

impl Datapath {
    /// Ends the flows of these services whose clients are not admitted any more.
    pub(super) fn cut_strangers(&self, services: &BTreeSet<u32>) -> Result<(), KernelError> {
        let service_of: BTreeMap<u32, u32> = self
            .written
            .iter()
            .map(|(id, (backend, _))| (*id, backend.service))
            .collect();
        let is_stranger = self.sources.judge(services);
        wait_for_programs()?;
        let cut = self.flows.cut_flows(|backend, client| {
            let service = service_of.get(&backend);
            service.is_some_and(|service| is_stranger(*service, client))
        })?;
        if cut > 0 {
            tracing::info!(
                flows = cut,
                "cut the flows of clients that are not admitted any more"
            );
        }
        Ok(())
    }
}

/// Waits until no program is at work any more that has read the maps before: `membarrier` waits
/// for a grace period of RCU, which programs run under (kernel/sched/membarrier.c).
fn wait_for_programs() -> Result<(), KernelError> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: three integers, no pointer.
    let answer = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if answer == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EINVAL) || error.raw_os_error() == Some(libc::ENOSYS) {
        // A kernel without it, or with CPUs that take no interrupts. A run takes microseconds.
        std::thread::sleep(std::time::Duration::from_millis(10));
        return Ok(());
    }
    Err(KernelError::new("waiting for the programs", error))
}

fn key4(service: u32, prefix: &IpNet) -> Key<Source<u32>> {
    key(service, prefix, encode::words(prefix.network())[0])
}

fn key6(service: u32, prefix: &IpNet) -> Key<Source<[u32; 4]>> {
    key(service, prefix, encode::words(prefix.network()))
}

fn key<A>(service: u32, prefix: &IpNet, addr: A) -> Key<Source<A>>
where
    Source<A>: Pod,
{
    let length = SOURCE_SERVICE_BITS + u32::from(prefix.prefix_len());
    Key::new(length, Source { service, addr })
}
