//! A frame taken apart into named fields, each checksum recomputed: what two frames are compared
//! by.
//!
//! Checksums of the transport depend on the port that was chosen. What is read of them is whether
//! they are right, or by how much they are not; of a quote that ends early, what they come to with
//! all that a translation changes taken off.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use lb_tests::model::sum;

use super::{
    segment::{ICMP, ICMP6, TCP, UDP},
    site::NODES,
};
use crate::{fuzz::arena::hex, traffic::ip};

/// Names and values, in the order of the frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    fields: Vec<(String, String)>,
    /// The ports beside the node's address, in the order of the frame.
    pub(crate) given: Vec<u16>,
}

/// What a checksum comes to.
fn judged(error: u64) -> String {
    match error {
        0 => "right".into(),
        error => format!("off by {error}"),
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

impl Reading {
    /// Reads a frame; what cannot be read is a field, too.
    pub(crate) fn of(frame: &[u8]) -> Self {
        let mut reading = Self::default();
        if frame.len() < 14 {
            reading.put("frame", hex(frame));
            return reading;
        }
        reading.put("link destination", hex(&frame[..6]));
        reading.put("link source", hex(&frame[6..12]));
        reading.put("ethertype", hex(&frame[12..14]));
        reading.network("", &frame[14..], true);
        reading
    }

    /// The names of the fields that differ, each once.
    pub(crate) fn differing(&self, other: &Self) -> Vec<String> {
        let mut names = Vec::new();
        let longest = self.fields.len().max(other.fields.len());
        for index in 0..longest {
            let (one, two) = (self.fields.get(index), other.fields.get(index));
            if one != two {
                let name = one.or(two).map(|(name, _)| name.clone());
                names.extend(name);
            }
        }
        names
    }

    /// A field's value.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let field = self.fields.iter().find(|(field, _)| field == name);
        field.map(|(_, value)| value.as_str())
    }

    /// The same with other values in fields that are there.
    pub(crate) fn with(mut self, changes: &[(&str, String)]) -> Self {
        for (name, value) in &mut self.fields {
            if let Some((_, new)) = changes.iter().find(|(field, _)| field == name) {
                value.clone_from(new);
            }
        }
        self
    }

    /// All fields in one line.
    pub(crate) fn line(&self) -> String {
        self.fields
            .iter()
            .fold(String::new(), |mut line, (name, value)| {
                let _ = write!(line, "{name} {value}, ");
                line
            })
    }

    fn put(&mut self, name: impl Into<String>, value: impl ToString) {
        self.fields.push((name.into(), value.to_string()));
    }

    /// A port, by the address it stands beside: one that the node has chosen may be any.
    fn port(&mut self, name: String, address: IpAddr, port: u16) {
        if NODES.iter().any(|node| ip(node) == address) {
            self.given.push(port);
            self.put(name, "chosen");
        } else {
            self.put(name, port);
        }
    }

    /// An IP packet; `whole`: it is all there, and what follows it is the link's.
    fn network(&mut self, of: &str, bytes: &[u8], whole: bool) {
        match bytes.first().map(|first| first >> 4) {
            Some(4) if bytes.len() >= 20 && usize::from(bytes[0] & 15) * 4 <= bytes.len() => {
                self.ipv4(of, bytes, whole);
            }
            Some(6) if bytes.len() >= 40 => self.ipv6(of, bytes, whole),
            _ => self.put(format!("{of}bytes"), hex(bytes)),
        }
    }

    fn ipv4(&mut self, of: &str, bytes: &[u8], whole: bool) {
        let length = usize::from(bytes[0] & 15) * 4;
        let total = usize::from(word(bytes, 2));
        let address = |at: usize| {
            let octets: [u8; 4] = bytes[at..at + 4].try_into().expect("four bytes");
            IpAddr::from(Ipv4Addr::from(octets))
        };
        let (src, dst) = (address(12), address(16));
        self.put(format!("{of}header length"), length);
        self.put(format!("{of}DSCP"), bytes[1] >> 2);
        self.put(format!("{of}ECN"), bytes[1] & 3);
        self.put(format!("{of}total length"), total);
        self.put(format!("{of}identification"), word(bytes, 4));
        self.put(
            format!("{of}flags and offset"),
            format!("{:#06x}", word(bytes, 6)),
        );
        self.put(format!("{of}TTL"), bytes[8]);
        self.put(format!("{of}protocol"), bytes[9]);
        let header = bytes.get(..length).unwrap_or(&[]);
        self.put(
            format!("{of}header checksum"),
            judged(sum::error(header, 0)),
        );
        self.put(format!("{of}source"), src);
        self.put(format!("{of}destination"), dst);
        self.put(format!("{of}options"), hex(header.get(20..).unwrap_or(&[])));
        let later = word(bytes, 6) & 0x1fff != 0;
        let part = word(bytes, 6) & 0x3fff != 0;
        let end = total.clamp(length, bytes.len());
        let ends = (src, dst);
        self.rest(
            of,
            bytes[9],
            ends,
            &bytes[length..end],
            (later, !part && total == end),
        );
        if whole {
            self.put("padding", hex(&bytes[end..]));
        }
    }

    fn ipv6(&mut self, of: &str, bytes: &[u8], whole: bool) {
        let address = |at: usize| {
            let octets: [u8; 16] = bytes[at..at + 16].try_into().expect("sixteen bytes");
            IpAddr::from(Ipv6Addr::from(octets))
        };
        let (src, dst) = (address(8), address(24));
        let class = bytes[0] << 4 | bytes[1] >> 4;
        let length = usize::from(word(bytes, 4));
        self.put(format!("{of}DSCP"), class >> 2);
        self.put(format!("{of}ECN"), class & 3);
        self.put(
            format!("{of}flow label"),
            hex(&[bytes[1] & 15, bytes[2], bytes[3]]),
        );
        self.put(format!("{of}payload length"), length);
        self.put(format!("{of}next header"), bytes[6]);
        self.put(format!("{of}hop limit"), bytes[7]);
        self.put(format!("{of}source"), src);
        self.put(format!("{of}destination"), dst);
        let end = (40 + length).min(bytes.len());
        let (mut proto, mut at) = (bytes[6], 40);
        let (mut later, mut part) = (false, false);
        // Hop-by-hop, routing, fragment, destination options (RFC 8200, section 4).
        while [0, 43, 44, 60].contains(&proto) && at + 8 <= end {
            let size = if proto == 44 {
                8
            } else {
                8 + 8 * usize::from(bytes[at + 1])
            };
            let Some(header) = bytes[..end].get(at..at + size) else {
                break;
            };
            if proto == 44 {
                later |= word(header, 2) & 0xfff8 != 0;
                part |= word(header, 2) & 0xfff9 != 0;
            }
            self.put(format!("{of}extension {proto}"), hex(header));
            (proto, at) = (header[0], at + size);
        }
        let all = !part && 40 + length == end;
        self.rest(of, proto, (src, dst), &bytes[at..end], (later, all));
        if whole {
            self.put("padding", hex(&bytes[end..]));
        }
    }

    /// What the IP header is of; `later`: a fragment without the transport header; `all`: nothing
    /// is missing.
    fn rest(
        &mut self,
        of: &str,
        proto: u8,
        ends: (IpAddr, IpAddr),
        l4: &[u8],
        (later, all): (bool, bool),
    ) {
        let pseudo = sum::pseudo(ends.0, ends.1, proto, l4.len());
        match proto {
            TCP | UDP if !later && l4.len() >= 8 => {
                self.ports(of, ends, l4);
                // A whole quote and one that ends a little earlier are to be read alike.
                let whole = all && of.is_empty();
                self.transport(of, proto, l4, whole.then_some(pseudo), ends);
            }
            ICMP | ICMP6 if !later && l4.len() >= 8 => {
                let pseudo = if proto == ICMP { 0 } else { pseudo };
                self.put(format!("{of}ICMP type"), l4[0]);
                self.put(format!("{of}ICMP code"), l4[1]);
                if all {
                    self.put(format!("{of}ICMP checksum"), judged(sum::error(l4, pseudo)));
                }
                self.put(format!("{of}ICMP word"), hex(&l4[4..8]));
                let error = match proto {
                    ICMP => [3, 4, 5, 11, 12].contains(&l4[0]),
                    _ => l4[0] < 128,
                };
                if error && of.is_empty() {
                    self.network("quoted ", &l4[8..], false);
                } else {
                    self.put(format!("{of}ICMP body"), hex(&l4[8..]));
                }
            }
            _ => self.put(format!("{of}payload"), hex(l4)),
        }
    }

    fn ports(&mut self, of: &str, (src, dst): (IpAddr, IpAddr), l4: &[u8]) {
        self.port(format!("{of}source port"), src, word(l4, 0));
        self.port(format!("{of}destination port"), dst, word(l4, 2));
    }

    fn transport(
        &mut self,
        of: &str,
        proto: u8,
        l4: &[u8],
        pseudo: Option<u64>,
        ends: (IpAddr, IpAddr),
    ) {
        let (at, length) = match proto {
            UDP => (6, 8),
            _ => (16, 20),
        };
        if l4.len() < length {
            // A quote of eight bytes: ports and sequence number.
            self.put(format!("{of}transport"), hex(&l4[4..]));
            return;
        }
        let sum = match (word(l4, at), pseudo) {
            (0, _) if proto == UDP => "absent".into(),
            (_, Some(pseudo)) => judged(sum::error(l4, pseudo)),
            (field, None) => {
                let changed = sum::pseudo(ends.0, ends.1, 0, 0) + sum::add(&l4[..4]);
                format!("{} with the rest", (u64::from(field) + changed) % 65_535)
            }
        };
        let (rest, header) = match proto {
            UDP => (&l4[8..], hex(&l4[4..6])),
            _ => {
                let options = (usize::from(l4[12] >> 4) * 4).clamp(20, l4.len());
                self.put(format!("{of}sequence"), hex(&l4[4..8]));
                self.put(format!("{of}acknowledges"), hex(&l4[8..12]));
                self.put(format!("{of}offset and flags"), hex(&l4[12..14]));
                self.put(format!("{of}window"), word(l4, 14));
                self.put(format!("{of}urgent"), word(l4, 18));
                self.put(format!("{of}TCP options"), hex(&l4[20..options]));
                (&l4[options..], String::new())
            }
        };
        if proto == UDP {
            self.put(format!("{of}UDP length"), header);
        }
        self.put(format!("{of}checksum"), sum);
        self.put(format!("{of}payload"), hex(rest));
    }
}
