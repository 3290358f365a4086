//! HTTP/2 by hand, frame by frame (RFC 9113), to send what no client would.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::namespace::Namespace;

/// Types of frames.
pub mod kind {
    #![expect(missing_docs, reason = "RFC 9113, section 6")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flag of DATA and HEADERS: the last of the stream.
pub const END_STREAM: u8 = 1;
/// Flag of SETTINGS and PING: an acknowledgement.
pub const ACK: u8 = 1;
/// Flag of HEADERS and CONTINUATION: the last of the block.
pub const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: usize = 9;
/// SETTINGS_HEADER_TABLE_SIZE = 0: what comes can be read without a table.
const NO_TABLE: [u8; 6] = [0, 1, 0, 0, 0, 0];

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// One of [`kind`].
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// Stream; 0: the connection.
    pub stream: u32,
    /// What is in it.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of a RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == kind::GOAWAY { 4 } else { 0 };
        let bytes = self.payload.get(at..at + 4);
        bytes.map_or(u32::MAX, |bytes| {
            u32::from_be_bytes(bytes.try_into().expect("four bytes"))
        })
    }

    /// The status in a HEADERS frame, if that is where it begins.
    fn status(&self) -> u16 {
        // A change of the table's size may come first.
        let block = match self.payload.first() {
            Some(first) if first & 0xe0 == 0x20 => &self.payload[1..],
            _ => &self.payload[..],
        };
        match block {
            // RFC 7541, appendix A.
            [indexed @ 0x88..=0x8e, ..] => {
                [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)]
            }
            [0x08 | 0x18 | 0x48, length, value @ ..] => {
                let value = &value[..usize::from(length & 0x7f).min(value.len())];
                match length & 0x80 {
                    0 => std::str::from_utf8(value).map_or(0, |text| text.parse().unwrap_or(0)),
                    _ => digits(value),
                }
            }
            _ => 0,
        }
    }
}

/// Three digits in Huffman's code (RFC 7541, appendix B: five bits for 0 to 2, six for others).
fn digits(bytes: &[u8]) -> u16 {
    let mut bits = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let mut number = 0;
    for _ in 0..3 {
        let mut code = 0;
        for _ in 0..5 {
            code = code << 1 | u16::from(bits.next().unwrap_or(1));
        }
        let digit = match code {
            0..=2 => code,
            _ => (code << 1 | u16::from(bits.next().unwrap_or(1))).saturating_sub(0x19) + 3,
        };
        number = number * 10 + digit;
    }
    number
}

/// How a stream or its connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// An answer, with this status.
    Answer(u16),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code.
    GoAway(u32),
    /// The connection was closed without a word.
    Closed,
    /// Nothing came.
    Silence,
}

/// A header's name and value.
pub type Header<'a> = (&'a [u8], &'a [u8]);

/// A block of headers, each a literal that is in no table.
pub fn block(headers: &[Header<'_>]) -> Vec<u8> {
    let mut block = Vec::new();
    let text = |text: &[u8]| {
        // RFC 7541, section 5.1: seven bits, then more.
        let mut length = text.len();
        let mut prefix = Vec::new();
        if length < 127 {
            prefix.push(length as u8);
        } else {
            prefix.push(127);
            length -= 127;
            while length >= 128 {
                prefix.push((length % 128 + 128) as u8);
                length /= 128;
            }
            prefix.push(length as u8);
        }
        [&prefix, text].concat()
    };
    for (name, value) in headers {
        block.push(0);
        block.extend(text(name));
        block.extend(text(value));
    }
    block
}

/// The four that each request needs.
pub fn request<'a>(method: &'a str, path: &'a str) -> Vec<Header<'a>> {
    vec![
        (b":method", method.as_bytes()),
        (b":scheme", b"http"),
        (b":authority", b"web"),
        (b":path", path.as_bytes()),
    ]
}

/// A connection.
#[derive(Debug)]
pub struct Hand {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Hand {
    /// Connects from `namespace`, and begins with these settings besides no table.
    ///
    /// # Errors
    ///
    /// There is no connection.
    pub fn connect(
        namespace: &Namespace,
        to: SocketAddr,
        settings: &[(u16, u32)],
    ) -> io::Result<Self> {
        let stream = namespace.run(|| TcpStream::connect(to))?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(Duration::from_secs(20)))?;
        let mut hand = Self {
            stream,
            buffer: Vec::new(),
        };
        let mut payload = NO_TABLE.to_vec();
        for (name, value) in settings {
            payload.extend(name.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        hand.write(PREFACE)?;
        hand.send(kind::SETTINGS, 0, 0, &payload)?;
        Ok(hand)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    ///
    /// The connection is gone, or takes nothing.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a frame.
    ///
    /// # Errors
    ///
    /// The connection is gone, or takes nothing.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.write(&frame(kind, flags, stream, payload))
    }

    /// Sends the head of a request, the last of its stream or not.
    ///
    /// # Errors
    ///
    /// The connection is gone, or takes nothing.
    pub fn headers(&mut self, stream: u32, headers: &[Header<'_>], last: bool) -> io::Result<()> {
        let flags = END_HEADERS | if last { END_STREAM } else { 0 };
        self.send(kind::HEADERS, flags, stream, &block(headers))
    }

    /// Lets so many bytes more come, on a stream or on the connection.
    ///
    /// # Errors
    ///
    /// The connection is gone, or takes nothing.
    pub fn open_window(&mut self, stream: u32, bytes: u32) -> io::Result<()> {
        self.send(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
    }

    /// The next frame; `None`: none came by `until`. Settings are acknowledged.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub fn next(&mut self, until: Instant) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take() {
                if frame.kind == kind::SETTINGS && frame.flags & ACK == 0 {
                    // Who floods has no ear for it.
                    let _ = self.send(kind::SETTINGS, ACK, 0, &[]);
                }
                return Ok(Some(frame));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut bytes = [0; 64 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.buffer.extend_from_slice(&bytes[..read]),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let head = self.buffer.get(..HEAD)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes(head[5..9].try_into().ok()?) & 0x7fff_ffff;
        let (kind, flags) = (head[3], head[4]);
        let payload = self.buffer.get(HEAD..HEAD + length)?.to_vec();
        self.buffer.drain(..HEAD + length);
        Some(Frame {
            kind,
            flags,
            stream,
            payload,
        })
    }

    /// What becomes of a stream, or of the connection before that.
    pub fn end_of(&mut self, stream: u32, patience: Duration) -> End {
        let until = Instant::now() + patience;
        loop {
            match self.next(until) {
                Err(_) => return End::Closed,
                Ok(None) => return End::Silence,
                Ok(Some(frame)) => match frame.kind {
                    kind::HEADERS if frame.stream == stream => return End::Answer(frame.status()),
                    kind::RST_STREAM if frame.stream == stream => return End::Reset(frame.code()),
                    kind::GOAWAY => return End::GoAway(frame.code()),
                    _ => {}
                },
            }
        }
    }
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("a frame is short")
        .to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read() {
        // RFC 7541, appendices C.4 to C.6, and literals.
        for (payload, status) in [
            (&[0x88][..], 200),
            (&[0x20, 0x8c], 400),
            (&[0x48, 0x82, 0x64, 0x02], 302),
            (&[0x48, 0x83, 0x64, 0x0e, 0xff], 307),
            (&[0x08, 0x03, b'5', b'0', b'3'], 503),
            (&[0x82], 0),
        ] {
            let frame = Frame {
                kind: kind::HEADERS,
                flags: 0,
                stream: 1,
                payload: payload.to_vec(),
            };
            assert_eq!(frame.status(), status, "{payload:?}");
        }
    }

    #[test]
    fn lengths_are_of_seven_bits_and_more() {
        let long = [b'x'; 1337];
        let block = block(&[(b"a", &long)]);
        // RFC 7541, appendix C.1.2, with seven bits.
        assert_eq!(block[..5], [0, 1, b'a', 127, 0xba]);
        assert_eq!(block[5], 9);
        assert_eq!(block.len(), 6 + 1337);
    }
}
