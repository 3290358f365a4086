//! Keeps the next hops current from the kernel's routes, neighbours and interfaces.
//!
//! Resolution is the kernel's own: the agent only asks it to (`NTF_USE`, net/core/neighbour.c)
//! and reads what came of it.
//!
//! Interfaces and neighbours are read as a whole, in one question each. The route to an address is a
//! question of its own: it is asked when the address is new, when the kernel says that anything has
//! changed that routes depend on, and now and then, for there are things that it does not tell of
//! (what it has learnt of the way's MTU).

mod occasion;
mod route;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    ops::Range,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use lb_common::{
    entry::{NextHop, hop_flags},
    vlan::Tags,
};
use rtnetlink::{
    Handle, MulticastGroup,
    packet_route::{
        link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourState},
    },
};

use self::{occasion::Occasion, route::Route};
use super::{
    addresses, features,
    nexthop::Hops,
    trunk::{self, Tag},
};
use crate::domain::kernel::KernelError;

/// How often everything is looked at without an event.
const REFRESH: Duration = Duration::from_secs(5);
/// Looks without an event from which to the next every route has been asked for again; each look
/// asks for its share.
const ROUTES: usize = 12;
/// How soon again while an address is unresolved.
const RETRY: Duration = Duration::from_millis(250);
/// Events come in bursts; this many milliseconds of them are handled at once.
const SETTLE: Duration = Duration::from_millis(5);

/// What next hops need to know of an interface.
#[derive(Clone, Copy)]
pub(super) struct Link {
    pub(super) mac: [u8; 6],
    pub(super) mtu: u32,
    /// Frames begin with an Ethernet header.
    pub(super) ethernet: bool,
    /// [`hop_flags`] of everything that leaves by it.
    pub(super) flags: u32,
    /// Of a sub-interface: the one below it, and its tag there.
    pub(super) below: Option<(u32, Tag)>,
}

/// Keeps the table current until it is dropped.
pub struct Resolver {
    handle: Handle,
    hops: Hops,
    /// By address: the way to it when it was last asked for.
    routes: HashMap<IpAddr, Route>,
    /// Which share of them is asked for again next.
    share: usize,
}

impl Resolver {
    /// Opens the netlink sockets and fills in the interfaces, which every flow needs.
    ///
    /// # Errors
    ///
    /// No netlink socket, or the interfaces cannot be read.
    pub(crate) async fn start(hops: Hops) -> Result<Self, KernelError> {
        let failed = |error| KernelError::new("opening a netlink socket", error);
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Rule,
            MulticastGroup::Nexthop,
        ];
        let (connection, handle, mut events) =
            rtnetlink::new_multicast_connection(&groups).map_err(failed)?;
        tokio::spawn(connection);
        let resolver = || Self {
            handle: handle.clone(),
            hops: hops.clone(),
            routes: HashMap::new(),
            share: 0,
        };
        let mut background = resolver();
        background.refresh(Occasion::Routes).await?;
        hops.routes.begin();

        tokio::spawn(async move {
            let mut resolved = true;
            loop {
                let pause = if resolved { REFRESH } else { RETRY };
                let mut occasion = Occasion::Time;
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = background.hops.wanted.notified() => {}
                    event = events.next() => {
                        let Some((event, _)) = event else {
                            background.hops.routes.end();
                            tracing::error!("the netlink connection ended; next hops are no longer kept current");
                            return;
                        };
                        occasion = Occasion::of(&event);
                        tokio::time::sleep(SETTLE).await;
                        while let Some((event, _)) = events.next().now_or_never().flatten() {
                            occasion = occasion.and(Occasion::of(&event));
                        }
                    }
                }
                match background.refresh(occasion).await {
                    Ok(all) => resolved = all,
                    Err(error) => {
                        // What this look was to find out is still to be found out.
                        background.routes.clear();
                        tracing::warn!(%error, "next hops could not be refreshed");
                    }
                }
            }
        });
        Ok(resolver())
    }

    /// Looks at everything once; answers whether all addresses are resolved.
    async fn refresh(&mut self, occasion: Occasion) -> Result<bool, KernelError> {
        if occasion == Occasion::Routes {
            self.routes.clear();
            if self.hops.routes.count().is_some() {
                self.hops.routes.note();
            }
        }
        let links = self.links().await?;
        let own = addresses::read(&self.handle).await?;
        self.hops.set_interfaces(&links, &own)?;
        self.hops
            .retain_coverage(|ifindex| links.contains_key(&ifindex));
        let addresses = self.hops.addresses();
        let neighbours = match addresses.is_empty() {
            true => HashMap::new(),
            false => self.neighbours().await?,
        };
        let again = match occasion {
            Occasion::Time => self.next_share(addresses.len()),
            Occasion::Neighbour | Occasion::Routes => 0..0,
        };
        let mut known = HashMap::with_capacity(addresses.len());
        let mut asked = HashSet::new();
        let mut all = true;
        for (number, address) in addresses.into_iter().enumerate() {
            let former = self.routes.get(&address).copied();
            let former = former.filter(|_| !again.contains(&number));
            let route = match former {
                Some(route) => Some(route),
                None => route::ask(&self.handle, address).await,
            };
            let routed = route.as_ref().filter(|route| !route.local);
            let router = routed.map(|route| route.gateway);
            self.hops
                .note_router(address, router.filter(|router| *router != address));
            let hop = match &route {
                Some(route) if route.local => self.local(address, route, &links),
                Some(route) => self.hop(route, &links, &neighbours, &mut asked).await,
                None => NextHop::default(),
            };
            let resolved = is_resolved(&hop);
            all &= resolved;
            // Of one that cannot be sent to, nothing is taken for granted.
            if let (Some(route), true) = (route, resolved) {
                known.insert(address, route);
            }
            self.hops.set(address, hop)?;
        }
        self.routes = known;
        Ok(all)
    }

    /// Which of so many addresses are asked for again.
    fn next_share(&mut self, addresses: usize) -> Range<usize> {
        let bound = |share| addresses * share / ROUTES;
        let share = self.share;
        self.share = (share + 1) % ROUTES;
        bound(share)..bound(share + 1)
    }

    /// The next hop to one of the node's own addresses.
    fn local(&self, address: IpAddr, route: &Route, links: &HashMap<u32, Link>) -> NextHop {
        self.hops.warn_of_obstacles(address);
        NextHop {
            ifindex: route.ifindex,
            mtu: links.get(&route.ifindex).map_or(0, |link| link.mtu),
            flags: hop_flags::LOCAL,
            ..NextHop::default()
        }
    }

    /// The next hop at the end of a route, over `link`.
    async fn hop(
        &self,
        route: &Route,
        links: &HashMap<u32, Link>,
        neighbours: &HashMap<(u32, IpAddr), Neighbour>,
        asked: &mut HashSet<(u32, IpAddr)>,
    ) -> NextHop {
        let Some(link) = links.get(&route.ifindex) else {
            return NextHop::default();
        };
        let Route {
            ifindex,
            gateway,
            mtu,
            ..
        } = *route;
        let (below, tags) = trunk::below(links, ifindex, |ifindex| self.hops.is_ours(ifindex));
        // With the tags on, the frame is the lower interface's, and so is what it takes.
        let out = links.get(&below).unwrap_or(link);
        let hop = NextHop {
            ifindex: below,
            mtu: mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
            smac: link.mac,
            flags: out.flags,
            tags,
            ..NextHop::default()
        };
        // Replies that nobody looks at would end the connection.
        if !self.hops.cover(below, out.ethernet) {
            return NextHop::default();
        }
        let neighbour = neighbours.get(&(ifindex, gateway));
        let stale = neighbour.is_none_or(|neighbour| !neighbour.fresh);
        // Many may be behind one router.
        if stale && asked.insert((ifindex, gateway)) {
            self.ask(ifindex, gateway).await;
        }
        match neighbour.and_then(|neighbour| neighbour.mac) {
            Some(mac) => NextHop { dmac: mac, ..hop },
            // The kernel finds it on the interface of the route, and puts the tags on.
            None => NextHop {
                ifindex,
                tags: Tags::NONE,
                flags: hop.flags | hop_flags::NEIGHBOUR,
                ..hop
            },
        }
    }

    async fn links(&self) -> Result<HashMap<u32, Link>, KernelError> {
        let failed = |error| KernelError::new("reading the node's interfaces", error);
        let targets = features::redirect_targets().ok();
        let mut links = HashMap::new();
        let mut answer = self.handle.link().get().execute();
        while let Some(message) = answer.try_next().await.map_err(failed)? {
            let mut link = Link {
                mac: [0; 6],
                mtu: 0,
                ethernet: message.header.link_layer_type == LinkLayerType::Ether,
                flags: 0,
                below: None,
            };
            let (mut parent, mut tag) = (None, None);
            let mut kind = None;
            for attribute in &message.attributes {
                match attribute {
                    LinkAttribute::Address(mac) => {
                        link.mac = mac.as_slice().try_into().unwrap_or_default();
                    }
                    LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                    LinkAttribute::Link(index) => parent = Some(*index),
                    LinkAttribute::LinkInfo(infos) => {
                        tag = trunk::tag(infos);
                        kind = infos.iter().find_map(|info| match info {
                            LinkInfo::Kind(kind) => Some(kind),
                            _ => None,
                        });
                    }
                    _ => {}
                }
            }
            link.below = parent.zip(tag);
            let takes = match &targets {
                Some(targets) => targets.get(&message.header.index) == Some(&true),
                // A device of hardware has no kind. Of the others a kernel this old does not tell,
                // and what it has not got is lost; tc is the safe way.
                None => kind.is_none() || self.hops.trusts_untold(),
            };
            if !takes {
                link.flags |= hop_flags::NO_XDP;
            }
            if kind == Some(&InfoKind::Veth) {
                link.flags |= hop_flags::NO_TX;
            }
            links.insert(message.header.index, link);
        }
        Ok(links)
    }

    async fn neighbours(&self) -> Result<HashMap<(u32, IpAddr), Neighbour>, KernelError> {
        let failed = |error| KernelError::new("reading the node's neighbours", error);
        let mut neighbours = HashMap::new();
        let mut answer = self.handle.neighbours().get().execute();
        while let Some(message) = answer.try_next().await.map_err(failed)? {
            let mut address = None;
            let mut mac = None;
            for attribute in &message.attributes {
                match attribute {
                    NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                        address = Some(IpAddr::V4(*ip));
                    }
                    NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                        address = Some(IpAddr::V6(*ip));
                    }
                    NeighbourAttribute::LinkLayerAddress(bytes) => {
                        mac = bytes.as_slice().try_into().ok();
                    }
                    _ => {}
                }
            }
            let fresh = match message.header.state {
                NeighbourState::Reachable
                | NeighbourState::Permanent
                | NeighbourState::Noarp
                | NeighbourState::Delay
                | NeighbourState::Probe => true,
                NeighbourState::Stale => false,
                _ => {
                    mac = None;
                    false
                }
            };
            if let Some(address) = address {
                neighbours.insert((message.header.ifindex, address), Neighbour { mac, fresh });
            }
        }
        Ok(neighbours)
    }

    /// Asks the kernel to resolve, or to confirm, a neighbour.
    async fn ask(&self, ifindex: u32, address: IpAddr) {
        let request = self
            .handle
            .neighbours()
            .add(ifindex, address)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace();
        if let Err(error) = request.execute().await {
            tracing::debug!(%address, ifindex, %error, "the kernel would not resolve a neighbour");
        }
    }
}

/// Whether packets can be sent by this next hop without asking the kernel.
pub(super) fn is_resolved(hop: &NextHop) -> bool {
    hop.ifindex != 0 && hop.flags & hop_flags::NEIGHBOUR == 0
}

struct Neighbour {
    mac: Option<[u8; 6]>,
    /// Confirmed lately; a stale one is still used, but asked for.
    fresh: bool,
}
