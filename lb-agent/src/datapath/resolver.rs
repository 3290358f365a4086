//! Keeps the next hops current from the kernel's routes, neighbours and interfaces.
//!
//! Resolution is the kernel's own: the agent only asks it to (`NTF_USE`, net/core/neighbour.c)
//! and reads what came of it.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _};
use lb_common::entry::NextHop;
use rtnetlink::{
    Handle, MulticastGroup, RouteMessageBuilder,
    packet_route::{
        link::LinkAttribute,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourState},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric},
    },
};

use super::{
    addresses,
    nexthop::Hops,
    trunk::{self, Tag},
};
use crate::domain::kernel::KernelError;

/// How often everything is looked at without an event.
const REFRESH: Duration = Duration::from_secs(5);
/// How soon again while an address is unresolved.
const RETRY: Duration = Duration::from_millis(250);
/// Events come in bursts; this many milliseconds of them are handled at once.
const SETTLE: Duration = Duration::from_millis(5);

/// What next hops need to know of an interface.
#[derive(Clone, Copy)]
pub(super) struct Link {
    pub(super) mac: [u8; 6],
    pub(super) mtu: u32,
    /// Of a sub-interface: the one below it, and its tag there.
    pub(super) below: Option<(u32, Tag)>,
}

/// Keeps the table current until it is dropped.
pub struct Resolver {
    handle: Handle,
    hops: Hops,
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
        ];
        let (connection, handle, mut events) =
            rtnetlink::new_multicast_connection(&groups).map_err(failed)?;
        tokio::spawn(connection);
        let resolver = Self {
            handle: handle.clone(),
            hops: hops.clone(),
        };
        resolver.refresh().await?;

        let background = Self { handle, hops };
        tokio::spawn(async move {
            let mut resolved = true;
            loop {
                let pause = if resolved { REFRESH } else { RETRY };
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = background.hops.wanted.notified() => {}
                    event = events.next() => {
                        if event.is_none() {
                            tracing::error!("the netlink connection ended; next hops are no longer kept current");
                            return;
                        }
                        tokio::time::sleep(SETTLE).await;
                        while futures_util::FutureExt::now_or_never(events.next()).flatten().is_some() {}
                    }
                }
                match background.refresh().await {
                    Ok(all) => resolved = all,
                    Err(error) => tracing::warn!(%error, "next hops could not be refreshed"),
                }
            }
        });
        Ok(resolver)
    }

    /// Looks at everything once; answers whether all addresses are resolved.
    async fn refresh(&self) -> Result<bool, KernelError> {
        let links = self.links().await?;
        let own = addresses::read(&self.handle).await?;
        self.hops.set_interfaces(&links, &own)?;
        let addresses = self.hops.addresses();
        if addresses.is_empty() {
            return Ok(true);
        }
        let neighbours = self.neighbours().await?;
        let mut all = true;
        for address in addresses {
            let hop = match self.route(address).await {
                Some(Route {
                    ifindex,
                    gateway,
                    mtu,
                }) => {
                    let mac = neighbours.get(&(ifindex, gateway));
                    match (mac, links.get(&ifindex)) {
                        (
                            Some(Neighbour {
                                mac: Some(mac),
                                fresh,
                            }),
                            Some(link),
                        ) => {
                            if !fresh {
                                self.ask(ifindex, gateway).await;
                            }
                            let ours = |ifindex| self.hops.is_ours(ifindex);
                            let (ifindex, tags) = trunk::below(&links, ifindex, ours);
                            NextHop {
                                ifindex,
                                mtu: mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
                                dmac: *mac,
                                smac: link.mac,
                                tags,
                            }
                        }
                        (_, Some(_)) => {
                            self.ask(ifindex, gateway).await;
                            NextHop::default()
                        }
                        (_, None) => NextHop::default(),
                    }
                }
                None => NextHop::default(),
            };
            all &= hop.ifindex != 0;
            self.hops.set(address, hop)?;
        }
        Ok(all)
    }

    async fn links(&self) -> Result<HashMap<u32, Link>, KernelError> {
        let failed = |error| KernelError::new("reading the node's interfaces", error);
        let mut links = HashMap::new();
        let mut answer = self.handle.link().get().execute();
        while let Some(message) = answer.try_next().await.map_err(failed)? {
            let mut link = Link {
                mac: [0; 6],
                mtu: 0,
                below: None,
            };
            let (mut parent, mut tag) = (None, None);
            for attribute in &message.attributes {
                match attribute {
                    LinkAttribute::Address(mac) => {
                        link.mac = mac.as_slice().try_into().unwrap_or_default();
                    }
                    LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                    LinkAttribute::Link(index) => parent = Some(*index),
                    LinkAttribute::LinkInfo(info) => tag = trunk::tag(info),
                    _ => {}
                }
            }
            link.below = parent.zip(tag);
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

    /// The way to `address`.
    async fn route(&self, address: IpAddr) -> Option<Route> {
        let request = match address {
            IpAddr::V4(ip) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(ip, 32)
                .build(),
            IpAddr::V6(ip) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(ip, 128)
                .build(),
        };
        let mut answer = self.handle.route().get(request).execute();
        let route: RouteMessage = answer.try_next().await.ok()??;
        let mut ifindex = None;
        let mut gateway = address;
        let mut mtu = None;
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => ifindex = Some(*index),
                RouteAttribute::Metrics(metrics) => {
                    mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    });
                }
                RouteAttribute::Gateway(RouteAddress::Inet(ip)) => gateway = IpAddr::V4(*ip),
                RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => gateway = IpAddr::V6(*ip),
                _ => {}
            }
        }
        ifindex.map(|ifindex| Route {
            ifindex,
            gateway,
            mtu,
        })
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

/// What the kernel says of the way to an address.
struct Route {
    ifindex: u32,
    gateway: IpAddr,
    /// Bytes of a packet, where the route knows better than its interface.
    mtu: Option<u32>,
}

struct Neighbour {
    mac: Option<[u8; 6]>,
    /// Confirmed lately; a stale one is still used, but asked for.
    fresh: bool,
}
