//! Next hops: one entry per backend address, kept current from the kernel's routes and
//! neighbours, so that no packet has to ask.
//!
//! The programs read the entries; the resolver writes them.

mod check;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use aya::maps::{Array, MapData};
use lb_common::{
    entry::{InterfaceAddresses, NextHop},
    maps::{MAX_INTERFACES, MAX_NEXTHOPS},
};
use tokio::sync::Notify;

use super::{
    announce::Port,
    coverage::Coverage,
    resolver::{self, Link},
    route_changes::RouteChanges,
    sysctl,
};
use crate::domain::kernel::KernelError;

/// The table of next hops, shared by the writer, which hands out entries, and the resolver.
#[derive(Clone)]
pub(crate) struct Hops {
    inner: Arc<Mutex<Inner>>,
    /// Where replies are looked at; none where nothing is attached at all.
    coverage: Arc<Mutex<Option<Coverage>>>,
    /// See [`super::Datapath::trust_untold_interfaces`].
    trust_untold: Arc<AtomicBool>,
    /// Whether the routes that the entries follow have changed.
    pub(super) routes: RouteChanges,
    /// Rings when an address has been added.
    pub(super) wanted: Arc<Notify>,
}

struct Inner {
    map: Array<MapData, NextHop>,
    addresses: Array<MapData, InterfaceAddresses>,
    entries: HashMap<IpAddr, Entry>,
    /// Interfaces that the programs run on, by position.
    interfaces: Vec<Interface>,
    free: Vec<u32>,
    next: u32,
    /// Addresses of the node that are backends, once looked at.
    own: HashSet<IpAddr>,
}

struct Entry {
    index: u32,
    hop: NextHop,
    /// What the packets are sent to, if it is not the address itself.
    router: Option<IpAddr>,
}

struct Interface {
    name: String,
    ifindex: u32,
    /// It does not exist at present. One that comes back under another index, as a new one does,
    /// is another interface without a program.
    lost: bool,
}

impl Hops {
    /// Which of these addresses packets cannot be sent to yet. Asking begins their resolution.
    ///
    /// # Errors
    ///
    /// The table of next hops is full.
    pub(super) fn unresolved(&self, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, KernelError> {
        let mut unresolved = Vec::new();
        for address in addresses {
            self.index(*address)?;
            if !self.is_resolved(*address) {
                unresolved.push(*address);
            }
        }
        Ok(unresolved)
    }

    /// A table over `map`; `taken` are the entries that a former agent's backends use,
    /// `addresses` holds the node's own ones by
    /// position, `interfaces` the names and indices of those that the programs run on.
    pub(crate) fn new(
        map: Array<MapData, NextHop>,
        addresses: Array<MapData, InterfaceAddresses>,
        taken: &BTreeMap<IpAddr, u32>,
        interfaces: Vec<(String, u32)>,
    ) -> Result<Self, KernelError> {
        let mut entries = HashMap::new();
        let mut next = MAX_INTERFACES as u32;
        for (address, index) in taken {
            let hop = map
                .get(index, 0)
                .map_err(|error| KernelError::new(format!("reading next hop {index}"), error))?;
            let entry = Entry {
                index: *index,
                hop,
                router: None,
            };
            entries.insert(*address, entry);
            next = next.max(index + 1);
        }
        let used: HashSet<u32> = taken.values().copied().collect();
        let free = (MAX_INTERFACES as u32..next)
            .filter(|index| !used.contains(index))
            .collect();
        let mut inner = Inner {
            map,
            addresses,
            entries,
            interfaces: interfaces
                .into_iter()
                .map(|(name, ifindex)| Interface {
                    name,
                    ifindex,
                    lost: false,
                })
                .collect(),
            free,
            next,
            own: HashSet::new(),
        };
        inner.clear_former()?;
        Ok(Self {
            inner: Arc::new(Mutex::new(inner)),
            coverage: Arc::default(),
            trust_untold: Arc::default(),
            routes: RouteChanges::default(),
            wanted: Arc::new(Notify::new()),
        })
    }

    pub(super) fn trust_untold(&self) {
        self.trust_untold.store(true, Ordering::Relaxed);
    }

    pub(super) fn trusts_untold(&self) -> bool {
        self.trust_untold.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry of an address, made if there is none.
    ///
    /// # Errors
    ///
    /// The table is full or cannot be written.
    pub(crate) fn index(&self, address: IpAddr) -> Result<u32, KernelError> {
        let mut inner = self.lock();
        if let Some(entry) = inner.entries.get(&address) {
            return Ok(entry.index);
        }
        let index = match inner.free.pop() {
            Some(index) => index,
            None if inner.next < MAX_NEXTHOPS => {
                inner.next += 1;
                inner.next - 1
            }
            None => {
                let full = format!("all {MAX_NEXTHOPS} entries are in use");
                return Err(KernelError::new(
                    format!("adding a next hop for {address}"),
                    full,
                ));
            }
        };
        inner.write(index, NextHop::default())?;
        inner.entries.insert(
            address,
            Entry {
                index,
                hop: NextHop::default(),
                router: None,
            },
        );
        drop(inner);
        self.wanted.notify_one();
        Ok(index)
    }

    /// Gives an entry back. No flow and no backend uses it any more.
    pub(crate) fn release(&self, address: IpAddr) {
        let mut inner = self.lock();
        if let Some(entry) = inner.entries.remove(&address) {
            inner.free.push(entry.index);
        }
    }

    /// Whether packets to the address can be sent now.
    pub(crate) fn is_resolved(&self, address: IpAddr) -> bool {
        self.lock()
            .entries
            .get(&address)
            .is_some_and(|entry| resolver::is_resolved(&entry.hop))
    }

    /// From now on programs are attached to every interface that a next hop leads to.
    pub(crate) fn attach_by(&self, coverage: Coverage) {
        *self.coverage() = Some(coverage);
    }

    fn coverage(&self) -> MutexGuard<'_, Option<Coverage>> {
        self.coverage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether replies on this interface are looked at, now at the latest.
    pub(super) fn cover(&self, ifindex: u32, ethernet: bool) -> bool {
        match &mut *self.coverage() {
            Some(coverage) => coverage.cover(ifindex, ethernet),
            None => true,
        }
    }

    /// Forgets the interfaces that are gone.
    pub(super) fn retain_coverage(&self, exists: impl Fn(u32) -> bool) {
        if let Some(coverage) = &mut *self.coverage() {
            coverage.retain(exists);
        }
    }

    /// Tells in the journal, once, what keeps packets from a backend on an address of the node.
    pub(super) fn warn_of_obstacles(&self, address: IpAddr) {
        let mut inner = self.lock();
        if !inner.own.insert(address) {
            return;
        }
        let interfaces = inner.interfaces.iter();
        let named: Vec<String> = interfaces.map(|each| each.name.clone()).collect();
        drop(inner);
        for obstacle in sysctl::obstacles(address, &named, Path::new("/proc/sys/net")) {
            tracing::warn!("{obstacle}");
        }
    }

    /// Those of the named interfaces that exist and whose link address is known.
    pub(super) fn ports(&self, names: &[String]) -> Vec<Port> {
        let inner = self.lock();
        let mut ports = Vec::new();
        for (position, interface) in (0..).zip(&inner.interfaces) {
            let hop = inner.map.get(&position, 0).unwrap_or_default();
            if hop.ifindex != 0 && names.contains(&interface.name) {
                ports.push(Port {
                    ifindex: hop.ifindex,
                    mac: hop.smac,
                });
            }
        }
        ports
    }

    /// Names of interfaces that the programs ran on and that no longer exist.
    pub(crate) fn lost_interfaces(&self) -> Vec<String> {
        let inner = self.lock();
        let lost = inner.interfaces.iter().filter(|interface| interface.lost);
        lost.map(|interface| interface.name.clone()).collect()
    }

    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.lock().entries.keys().copied().collect()
    }

    /// Notes the router that an address is behind, if it is.
    pub(super) fn note_router(&self, address: IpAddr, router: Option<IpAddr>) {
        if let Some(entry) = self.lock().entries.get_mut(&address) {
            entry.router = router;
        }
    }

    /// The router that an address is behind, if it is.
    pub(crate) fn router_towards(&self, address: IpAddr) -> Option<IpAddr> {
        self.lock().entries.get(&address)?.router
    }

    pub(super) fn set(&self, address: IpAddr, hop: NextHop) -> Result<(), KernelError> {
        let mut inner = self.lock();
        let Some(entry) = inner.entries.get(&address) else {
            return Ok(());
        };
        if entry.hop == hop {
            return Ok(());
        }
        let index = entry.index;
        inner.write(index, hop)?;
        if let Some(entry) = inner.entries.get_mut(&address) {
            entry.hop = hop;
        }
        tracing::debug!(%address, ifindex = hop.ifindex, "next hop changed");
        Ok(())
    }

    /// Whether the programs run on an interface.
    pub(super) fn is_ours(&self, ifindex: u32) -> bool {
        let inner = self.lock();
        ifindex != 0 && inner.interfaces.iter().any(|each| each.ifindex == ifindex)
    }

    pub(super) fn set_interfaces(
        &self,
        links: &HashMap<u32, Link>,
        addresses: &HashMap<u32, InterfaceAddresses>,
    ) -> Result<(), KernelError> {
        let mut inner = self.lock();
        for position in 0..inner.interfaces.len() {
            let Interface {
                name,
                ifindex,
                lost,
            } = &mut inner.interfaces[position];
            let ifindex = *ifindex;
            if ifindex == 0 {
                continue;
            }
            let Some(link) = links.get(&ifindex) else {
                if !*lost {
                    tracing::warn!(interface = %name, "the interface is gone; the others go on");
                    *lost = true;
                }
                continue;
            };
            *lost = false;
            let hop = NextHop {
                ifindex,
                mtu: link.mtu,
                smac: link.mac,
                flags: link.flags,
                ..NextHop::default()
            };
            inner.write(position as u32, hop)?;
            let own = addresses.get(&ifindex).copied().unwrap_or_default();
            let what = || format!("writing the addresses of interface {ifindex}");
            inner
                .addresses
                .set(position as u32, own, 0)
                .map_err(|error| KernelError::new(what(), error))?;
        }
        Ok(())
    }
}

impl Inner {
    /// Clears the positions that another interface had.
    fn clear_former(&mut self) -> Result<(), KernelError> {
        let interfaces: Vec<u32> = self.interfaces.iter().map(|each| each.ifindex).collect();
        for (position, ifindex) in (0..).zip(interfaces) {
            let former = self
                .map
                .get(&position, 0)
                .map_err(|error| KernelError::new(format!("reading next hop {position}"), error))?
                .ifindex;
            if ifindex != 0 && former != 0 && former != ifindex {
                self.write(position, NextHop::default())?;
            }
        }
        Ok(())
    }

    fn write(&mut self, index: u32, hop: NextHop) -> Result<(), KernelError> {
        self.map
            .set(index, hop, 0)
            .map_err(|error| KernelError::new(format!("writing next hop {index}"), error))
    }
}

/// The address of this node that packets to `destination` carry as their source; the kernel
/// decides by its routes. No packet is sent.
pub(crate) fn source_towards(destination: IpAddr) -> std::io::Result<IpAddr> {
    let any: SocketAddr = if destination.is_ipv6() {
        "[::]:0".parse().map_err(std::io::Error::other)?
    } else {
        "0.0.0.0:0".parse().map_err(std::io::Error::other)?
    };
    let socket = UdpSocket::bind(any)?;
    // The port is never used: connecting a UDP socket only looks up the route.
    socket.connect(SocketAddr::new(destination, 9))?;
    Ok(socket.local_addr()?.ip())
}
