//! The PROXY protocol towards backends (HAProxy's `doc/proxy-protocol.txt`, versions 1 and 2).

use std::net::{IpAddr, SocketAddr};

use crate::domain::http::policy::ProxyProtocol;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The header for a connection of `client` to `listener`. Addresses of two families become both
/// IPv6.
pub(super) fn write(version: ProxyProtocol, client: SocketAddr, listener: SocketAddr) -> Vec<u8> {
    let (from, to) = (client.ip().to_canonical(), listener.ip().to_canonical());
    let (from, to) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V6(to)) => (from.to_ipv6_mapped().into(), to.into()),
        (IpAddr::V6(from), IpAddr::V4(to)) => (from.into(), to.to_ipv6_mapped().into()),
        same => same,
    };
    let ports = [client.port(), listener.port()];
    match version {
        ProxyProtocol::V1 => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            let [source, destination] = ports;
            format!("PROXY {family} {from} {to} {source} {destination}\r\n").into_bytes()
        }
        ProxyProtocol::V2 => {
            let mut header = SIGNATURE.to_vec();
            header.extend([PROXY, if from.is_ipv4() { TCP4 } else { TCP6 }]);
            let addresses: Vec<u8> = [from, to].into_iter().flat_map(octets).collect();
            header.extend((addresses.len() as u16 + 4).to_be_bytes());
            header.extend(addresses);
            header.extend(ports.into_iter().flat_map(u16::to_be_bytes));
            header
        }
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions() {
        let signature = b"\r\n\r\n\0\r\nQUIT\n\x21";
        for (client, listener, v1, v2) in [
            (
                "1.2.3.4:258",
                "5.6.7.8:80",
                "PROXY TCP4 1.2.3.4 5.6.7.8 258 80\r\n",
                b"\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x01\x02\x00\x50".to_vec(),
            ),
            (
                "1.2.3.4:258",
                "[fd00::1]:80",
                "PROXY TCP6 ::ffff:1.2.3.4 fd00::1 258 80\r\n",
                [
                    &b"\x21\x00\x24"[..],
                    b"\0\0\0\0\0\0\0\0\0\0\xff\xff\x01\x02\x03\x04",
                    b"\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01",
                    b"\x01\x02\x00\x50",
                ]
                .concat(),
            ),
        ] {
            let (client, listener) = (client.parse().unwrap(), listener.parse().unwrap());
            let header = |version| write(version, client, listener);
            assert_eq!(header(ProxyProtocol::V1), v1.as_bytes());
            let expected = [&signature[..], &v2].concat();
            assert_eq!(header(ProxyProtocol::V2), expected);
        }
    }
}
