//! Between the domain's values and the bytes in the maps: the only place that swaps byte order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::{
    entry::{
        AddressKey, BackendEntry, FAMILY_V4, FAMILY_V6, ServiceEntry, ServiceKey, backend_flags,
        service_flags as flags,
    },
    hash,
    socket::Endpoint,
};

use crate::domain::{
    kernel::{KernelBackend, KernelVip, Treatment, VipKey},
    service::{Affinity, Forwarding},
};

/// Address words as in a packet; IPv4 in the first word.
pub(crate) fn words(ip: IpAddr) -> [u32; 4] {
    match ip {
        IpAddr::V4(ip) => [u32::from_ne_bytes(ip.octets()), 0, 0, 0],
        IpAddr::V6(ip) => {
            let octets = ip.octets();
            std::array::from_fn(|index| {
                let bytes = &octets[index * 4..index * 4 + 4];
                u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
            })
        }
    }
}

/// The address of four words.
pub(crate) fn ip(words: [u32; 4], v6: bool) -> IpAddr {
    if v6 {
        let mut octets = [0; 16];
        for (chunk, word) in octets.chunks_exact_mut(4).zip(words) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        IpAddr::V6(Ipv6Addr::from(octets))
    } else {
        IpAddr::V4(Ipv4Addr::from(words[0].to_ne_bytes()))
    }
}

/// An address as a key.
pub(crate) fn address_key(ip: IpAddr) -> AddressKey {
    match ip {
        IpAddr::V4(_) => AddressKey::v4(words(ip)[0]),
        IpAddr::V6(_) => AddressKey::v6(&words(ip)),
    }
}

/// The word that stands for an address in the destination filter.
pub(crate) fn filter_word(ip: IpAddr) -> u32 {
    match ip {
        IpAddr::V4(_) => words(ip)[0],
        IpAddr::V6(_) => hash::filter_word6(&words(ip)),
    }
}

fn family(address: SocketAddr) -> u8 {
    if address.is_ipv6() {
        FAMILY_V6
    } else {
        FAMILY_V4
    }
}

/// The backend of a map value; `None` where there is none.
pub(crate) fn backend(entry: &BackendEntry) -> Option<KernelBackend> {
    let v6 = match entry.family {
        family if family == u32::from(FAMILY_V4) => false,
        family if family == u32::from(FAMILY_V6) => true,
        _ => return None,
    };
    Some(KernelBackend {
        service: entry.service,
        address: SocketAddr::new(ip(entry.addr, v6), u16::from_be(entry.port)),
        active: entry.flags & backend_flags::ACTIVE != 0,
    })
}

/// What the programs are told of how a service's flows are begun.
pub(crate) fn service_flags(treatment: Treatment) -> u32 {
    let mut bits = match treatment.affinity {
        Affinity::Connection => 0,
        Affinity::Client => flags::BY_CLIENT,
    };
    if treatment.restricted {
        bits |= flags::RESTRICTED;
    }
    bits | match treatment.forwarding {
        Forwarding::Nat => 0,
        Forwarding::DsrL2 => flags::DSR_L2,
        Forwarding::DsrIpip => flags::DSR_IPIP,
    }
}

/// The VIP of a map value.
pub(crate) fn vip(entry: &ServiceEntry) -> KernelVip {
    KernelVip {
        service: entry.id,
        slots: entry.maglev_slots,
        treatment: treatment(entry.flags),
    }
}

/// Map value of a VIP.
pub(crate) fn service_entry(vip: &KernelVip) -> ServiceEntry {
    ServiceEntry {
        id: vip.service,
        maglev_slots: vip.slots,
        flags: service_flags(vip.treatment),
        reserved: 0,
    }
}

/// The reverse of [`service_flags`].
fn treatment(bits: u32) -> Treatment {
    Treatment {
        forwarding: if bits & flags::DSR_L2 != 0 {
            Forwarding::DsrL2
        } else if bits & flags::DSR_IPIP != 0 {
            Forwarding::DsrIpip
        } else {
            Forwarding::Nat
        },
        affinity: if bits & flags::BY_CLIENT != 0 {
            Affinity::Client
        } else {
            Affinity::Connection
        },
        restricted: bits & flags::RESTRICTED != 0,
    }
}

/// Map key of a VIP.
pub(crate) fn service_key(key: &VipKey) -> ServiceKey {
    ServiceKey {
        addr: words(key.address.ip()),
        port: key.address.port().to_be(),
        proto: key.protocol,
        family: family(key.address),
    }
}

/// The VIP of a map key.
pub(crate) fn vip_key(key: &ServiceKey) -> VipKey {
    VipKey {
        address: SocketAddr::new(
            ip(key.addr, key.family == FAMILY_V6),
            u16::from_be(key.port),
        ),
        protocol: key.proto,
    }
}

/// The address of a local client's peer.
pub(crate) fn endpoint(endpoint: &Endpoint) -> VipKey {
    let [first, second] = endpoint.addr;
    // In memory order, as the words of a key are.
    let halves = |word: u64| {
        let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
        [[a, b, c, d], [e, f, g, h]].map(u32::from_ne_bytes)
    };
    let ([a, b], [c, d]) = (halves(first), halves(second));
    vip_key(&ServiceKey {
        addr: [a, b, c, d],
        port: endpoint.port,
        proto: endpoint.proto,
        family: endpoint.family,
    })
}

/// Map value of a backend, with the address that it sees as the client and its next hop.
pub(crate) fn backend_entry(backend: &KernelBackend, source: IpAddr, hop: u32) -> BackendEntry {
    BackendEntry {
        addr: words(backend.address.ip()),
        source: words(source),
        port: backend.address.port().to_be(),
        flags: if backend.active {
            backend_flags::ACTIVE
        } else {
            0
        },
        hop,
        service: backend.service,
        family: u32::from(family(backend.address)),
        reserved: [0; 4],
    }
}

/// The address that is none, of a family.
pub(crate) fn unspecified(v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is encoded stands in memory as in a packet, and comes back the same.
    #[test]
    fn addresses_lie_as_in_a_packet() {
        let v4: IpAddr = "192.0.2.7".parse().unwrap();
        assert_eq!(words(v4)[0].to_ne_bytes(), [192, 0, 2, 7]);
        assert_eq!(ip(words(v4), false), v4);
        let v6: IpAddr = "2001:db8::7".parse().unwrap();
        assert_eq!(words(v6)[0].to_ne_bytes(), [0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!(ip(words(v6), true), v6);
        for address in ["198.51.100.10:443", "[2001:db8::1]:53"] {
            let key = VipKey {
                address: address.parse().unwrap(),
                protocol: 17,
            };
            let encoded = service_key(&key);
            assert_eq!(encoded.port.to_ne_bytes(), key.address.port().to_be_bytes());
            assert_eq!(vip_key(&encoded), key);
            let [a, b, c, d] = encoded.addr.map(u64::from);
            let seen_by_programs = Endpoint {
                addr: [a | b << 32, c | d << 32],
                port: encoded.port,
                proto: encoded.proto,
                family: encoded.family,
                note: 7,
            };
            assert_eq!(endpoint(&seen_by_programs), key);
        }
    }
}
