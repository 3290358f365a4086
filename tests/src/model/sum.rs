//! Internet checksums (RFC 1071) over whole packets.

use std::net::IpAddr;

use super::parse::{Parsed, UDP};

/// The ones' complement sum of big-endian words, modulo 65,535; an odd last byte is the upper half
/// of a word.
pub fn add(data: &[u8]) -> u64 {
    let mut sum = 0;
    for pair in data.chunks(2) {
        sum += u64::from(pair[0]) * 256 + u64::from(*pair.get(1).unwrap_or(&0));
    }
    sum % 65_535
}

/// The sum of the pseudo-header (RFC 9293, section 3.1; RFC 8200, section 8.1).
pub fn pseudo(src: IpAddr, dst: IpAddr, proto: u8, length: usize) -> u64 {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => add(&ip.octets()),
        IpAddr::V6(ip) => add(&ip.octets()),
    };
    octets(src) + octets(dst) + u64::from(proto) + length as u64
}

/// By how much a packet's sum, its checksum included, misses what it should be; 0: it is right.
///
/// Rewriting must neither break a checksum nor mend one: what arrives with an error must be sent
/// on with the same, or a damaged packet would become a valid one.
pub fn error(data: &[u8], pseudo: u64) -> u64 {
    (add(data) + pseudo) % 65_535
}

/// The checksum that gives `data`, whose checksum field is zero, this [`error`]. Of the two
/// representations of zero it is 0.
pub fn with_error(data: &[u8], pseudo: u64, error: u64) -> u16 {
    let sum = (add(data) + pseudo) % 65_535;
    ((error + 2 * 65_535 - sum) % 65_535) as u16
}

/// Whether a packet, from its transport header on in `data`, has the sum of its pseudo-header alone in
/// place of its checksum (`CHECKSUM_PARTIAL` of the kernel's include/linux/skbuff.h).
pub fn is_pending(data: &[u8], packet: &Parsed) -> bool {
    let at = if packet.transport.proto == UDP { 6 } else { 16 };
    let stands = u64::from(u16::from_be_bytes([data[at], data[at + 1]]));
    let ip = &packet.ip;
    let pseudo = pseudo(ip.src, ip.dst, packet.transport.proto, ip.l4_length);
    // No sum of something is zero.
    stands != 0 && stands % 65_535 == pseudo % 65_535
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071, section 3.
    #[test]
    fn example_of_rfc_1071() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(add(&data), 0xddf2);
        let checksum = with_error(&data, 0, 0);
        assert_eq!(checksum, !0xddf2);
        let whole = [&data[..], &checksum.to_be_bytes()].concat();
        assert_eq!(error(&whole, 0), 0);
    }

    /// An error is kept, not mended.
    #[test]
    fn errors_are_kept() {
        let data = [0x12, 0x34, 0x56];
        for error_in in [0, 1, 0x8000, 65_534] {
            let checksum = with_error(&data, 7, error_in);
            let sum = (add(&data) + 7 + u64::from(checksum)) % 65_535;
            assert_eq!(sum, error_in);
        }
    }
}
