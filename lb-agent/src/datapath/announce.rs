//! Tells the neighbours, and has the programs tell those who ask, that the VIPs are here.
//!
//! The answers come from the programs, so that they outlive the agent as the traffic does; the
//! agent only says it once of its own accord, for neighbours that know another node by the VIP.

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use lb_common::checksum;

use super::{Datapath, nexthop};
use crate::domain::kernel::KernelView;

/// An interface that VIPs are announced on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) ifindex: u32,
    pub(super) mac: [u8; 6],
}

impl Datapath {
    /// The VIPs that the programs tell the link address of. The kernel itself answers for addresses
    /// of the node.
    pub(super) fn announced(&self, view: &KernelView) -> BTreeSet<IpAddr> {
        if self.announce.is_empty() || !self.announcing {
            return BTreeSet::new();
        }
        view.vips
            .keys()
            .map(|vip| vip.address.ip())
            .filter(|vip| nexthop::source_towards(*vip).ok() != Some(*vip))
            .collect()
    }

    /// Says once for each of these VIPs that it is here.
    pub(super) fn announce(&mut self, vips: &BTreeSet<IpAddr>) {
        self.told.retain(|address| vips.contains(address));
        let ports = self.hops.ports(&self.announce);
        for &address in vips {
            if !self.told.insert(address) {
                continue;
            }
            for port in &ports {
                if let Err(error) = tell(*port, address) {
                    tracing::warn!(%address, ifindex = port.ifindex, %error, "a VIP could not be announced; who asks is answered");
                }
            }
        }
    }
}

/// Sends a frame that says, unasked, that the address is at the port.
fn tell(port: Port, address: IpAddr) -> io::Result<()> {
    let frame = match address {
        IpAddr::V4(ip) => gratuitous_arp(port.mac, ip.octets()),
        IpAddr::V6(ip) => unsolicited_advertisement(port.mac, ip.octets()),
    };
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: socket(2) takes three integers. Without a protocol nothing is received.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us the descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: plain data, for which all zeroes is a value.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_protocol = u16::from_ne_bytes([frame[12], frame[13]]);
    to.sll_ifindex = port.ifindex.cast_signed();
    to.sll_halen = 6;
    to.sll_addr[..6].copy_from_slice(&frame[..6]);
    // SAFETY: frame and address are valid for their lengths.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// RFC 5227, section 3: a request for one's own address, to everybody.
fn gratuitous_arp(mac: [u8; 6], ip: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(ip);
    frame.extend([0; 6]);
    frame.extend(ip);
    frame
}

/// RFC 4861, section 7.2.6: to all nodes, with "override".
fn unsolicited_advertisement(mac: [u8; 6], ip: [u8; 16]) -> Vec<u8> {
    const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(ip);
    message.extend([2, 1]);
    message.extend(mac);
    let length = message.len() as u16;
    let pseudo: u32 = [&ip[..], &ALL_NODES[..]]
        .concat()
        .chunks_exact(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let sum = checksum::compute(&message, pseudo + u32::from(length) + 58);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = vec![0x33, 0x33, 0, 0, 0, 1];
    frame.extend(mac);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([58, 255]);
    frame.extend(ip);
    frame.extend(ALL_NODES);
    frame.extend(message);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_of_the_standards() {
        let mac = [2, 0, 0, 0, 0, 9];
        let arp = gratuitous_arp(mac, [192, 0, 2, 7]);
        assert_eq!(arp.len(), 42);
        assert_eq!(arp[28..32], arp[38..42], "sender and target are the same");
        let ip: std::net::Ipv6Addr = "2001:db8::7".parse().unwrap();
        let frame = unsolicited_advertisement(mac, ip.octets());
        assert_eq!(frame.len(), 14 + 40 + 32);
        let pseudo: u32 = frame[22..54]
            .chunks_exact(2)
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        assert_eq!(checksum::compute(&frame[54..], pseudo + 32 + 58), 0);
    }
}
