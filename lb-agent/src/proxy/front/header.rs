//! The PROXY protocol's header, as load balancers before this one send it
//! (HAProxy's `doc/proxy-protocol.txt`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// What the binary header begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of text with its end.
const LONGEST_LINE: usize = 107;
/// Bytes of the binary header's fixed part.
const FIXED: usize = 16;
/// Longer ones are refused: addresses and extensions have room in much less.
pub(super) const LONGEST: usize = 4096;

/// A complete header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Where it ends.
    pub(super) length: usize,
    /// The client; `None`: the sender speaks for itself.
    pub(super) client: Option<SocketAddr>,
}

/// The bytes are no header of the PROXY protocol, and cannot become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no header of the PROXY protocol: {0}")]
pub(super) struct InvalidHeader(&'static str);

/// Reads the header that `bytes` begin with; `None`: more must come.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header>, InvalidHeader> {
    let begins = |with: &[u8]| {
        let length = bytes.len().min(with.len());
        bytes[..length] == with[..length]
    };
    if begins(SIGNATURE) {
        if bytes.len() < FIXED {
            return Ok(None);
        }
        return parse_binary(bytes);
    }
    if begins(b"PROXY ") {
        return parse_text(bytes);
    }
    Err(InvalidHeader("it begins otherwise"))
}

fn parse_text(bytes: &[u8]) -> Result<Option<Header>, InvalidHeader> {
    let seen = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = seen.iter().position(|byte| *byte == b'\n') else {
        return match bytes.len() < LONGEST_LINE {
            true => Ok(None),
            false => Err(InvalidHeader("the line does not end")),
        };
    };
    let line = seen[..end]
        .strip_suffix(b"\r")
        .and_then(|line| std::str::from_utf8(line).ok())
        .ok_or(InvalidHeader("the line is not text with CRLF at its end"))?;
    let length = end + 1;
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        // Whatever follows is to be ignored.
        return Ok(Some(Header {
            length,
            client: None,
        }));
    }
    let words: Vec<&str> = words.collect();
    let [source, destination, port, to] = words[..] else {
        return Err(InvalidHeader("it has not two addresses and two ports"));
    };
    let read = |word: &str| -> Option<IpAddr> {
        match family? {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let read_port = |word: &str| -> Option<u16> {
        let plain = word.bytes().all(|byte| byte.is_ascii_digit())
            && (word == "0" || !word.starts_with('0'));
        word.parse().ok().filter(|_| plain)
    };
    let (Some(ip), Some(_), Some(port), Some(_)) = (
        read(source),
        read(destination),
        read_port(port),
        read_port(to),
    ) else {
        return Err(InvalidHeader("an address or a port is not one"));
    };
    Ok(Some(Header {
        length,
        client: Some(SocketAddr::new(ip, port)),
    }))
}

/// At least the fixed part is there.
fn parse_binary(bytes: &[u8]) -> Result<Option<Header>, InvalidHeader> {
    let local = match bytes[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err(InvalidHeader("its version or command is unknown")),
    };
    let rest = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let length = FIXED + rest;
    if length > LONGEST {
        return Err(InvalidHeader("it is too long"));
    }
    if bytes.len() < length {
        return Ok(None);
    }
    let addresses = &bytes[FIXED..length];
    let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
    let client = match bytes[13] {
        _ if local => None,
        0x11 if rest >= 12 => {
            let ip: [u8; 4] = std::array::from_fn(|at| addresses[at]);
            Some(SocketAddr::new(ip.into(), port(8)))
        }
        0x21 if rest >= 36 => {
            let ip: [u8; 16] = std::array::from_fn(|at| addresses[at]);
            Some(SocketAddr::new(ip.into(), port(32)))
        }
        0x11 | 0x21 => return Err(InvalidHeader("it is too short for its addresses")),
        // Other families and protocols say nothing that is understood here.
        _ => None,
    };
    Ok(Some(Header { length, client }))
}

#[cfg(test)]
mod tests {
    use rand::Rng as _;

    use super::*;

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn good() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let four = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x34, 0, 80];
        let mut six = [0; 36];
        six[..2].copy_from_slice(&[0x20, 0x01]);
        six[15] = 9;
        six[32..34].copy_from_slice(&[0, 7]);
        let mut extended = four.to_vec();
        extended.extend([4, 0, 1, 0]);
        let text = |line: &str| line.as_bytes().to_vec();
        vec![
            (
                text("PROXY TCP4 192.0.2.7 198.51.100.1 4660 80\r\n"),
                Some("192.0.2.7:4660"),
            ),
            (
                text("PROXY TCP6 2001:db8::7 2001:db8::1 1 80\r\n"),
                Some("[2001:db8::7]:1"),
            ),
            (text("PROXY UNKNOWN\r\n"), None),
            (text("PROXY UNKNOWN ffff::1 x y z\r\n"), None),
            (binary(0x21, 0x11, &four), Some("192.0.2.7:4660")),
            (binary(0x21, 0x11, &extended), Some("192.0.2.7:4660")),
            (binary(0x21, 0x21, &six), Some("[2001::9]:7")),
            (binary(0x20, 0x00, &[]), None),
            (binary(0x20, 0x11, &four), None),
            (binary(0x21, 0x31, &[0; 216]), None),
        ]
    }

    #[test]
    fn headers_are_read_whole_and_in_pieces() {
        for (bytes, client) in good() {
            let client = client.map(|client| client.parse().unwrap());
            let length = bytes.len();
            let expected = Ok(Some(Header { length, client }));
            assert_eq!(parse(&bytes), expected, "{bytes:?}");
            for cut in 0..length {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut} of {bytes:?}");
            }
            let followed = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&followed), expected, "{followed:?}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let mut long = binary(0x21, 0x11, &[]);
        long[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        let rows = [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4660\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4660 80 1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7  198.51.100.1 4660 80\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::7 198.51.100.1 4660 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 04660 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 +466 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 80\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.7 198.51.100.1 1 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4660 80\n".to_vec(),
            [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat(),
            binary(0x11, 0x11, &[0; 12]),
            binary(0x22, 0x11, &[0; 12]),
            binary(0x21, 0x11, &[0; 11]),
            binary(0x21, 0x21, &[0; 35]),
            long,
        ];
        for row in rows {
            assert!(parse(&row).is_err(), "{:?}", String::from_utf8_lossy(&row));
        }
    }

    /// Whatever comes: no panic, no length beyond what is there, and no header that a byte more
    /// would turn into another.
    #[test]
    fn mutations_do_no_harm() {
        let mut random = crate::domain::chance::of_test(5);
        let good = good();
        for _ in 0..200_000 {
            let mut bytes = good[random.random_range(0..good.len())].0.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            bytes.truncate(random.random_range(0..=bytes.len()));
            let before = parse(&bytes);
            if let Ok(Some(header)) = before {
                assert!(header.length <= bytes.len(), "{bytes:?}");
            }
            bytes.push(random.random());
            if !matches!(before, Ok(None)) {
                assert_eq!(parse(&bytes), before, "{bytes:?}");
            }
        }
    }
}
