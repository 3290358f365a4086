//! The kernel's route to an address.

use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType},
};

/// The way to an address.
#[derive(Clone, Copy)]
pub(super) struct Route {
    pub(super) ifindex: u32,
    /// Next address on the way: a router, or the address itself.
    pub(super) gateway: IpAddr,
    /// The address is the node's own.
    pub(super) local: bool,
    /// Bytes of a packet, where the route knows better than its interface.
    pub(super) mtu: Option<u32>,
}

/// The kernel's route to `address`.
pub(super) async fn ask(handle: &Handle, address: IpAddr) -> Option<Route> {
    let request = match address {
        IpAddr::V4(ip) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix(ip, 32)
            .build(),
        IpAddr::V6(ip) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
            .destination_prefix(ip, 128)
            .build(),
    };
    let mut answer = handle.route().get(request).execute();
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
    Some(Route {
        ifindex: ifindex?,
        gateway,
        local: route.header.kind == RouteType::Local,
        mtu,
    })
}
