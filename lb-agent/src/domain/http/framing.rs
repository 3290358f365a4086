//! Follows how a client frames its requests over HTTP/1.1 (RFC 9112), byte by byte.
//!
//! The HTTP library reads requests; it forgives a bare line feed, takes equal lengths for one, and
//! drops a `Content-Length` beside `Transfer-Encoding` before anybody sees it. Each is how two
//! servers in a row come to disagree where a request ends. This sees the bytes before the library
//! does, and says which of them it must not get. What the library refuses by itself is left to it.

mod chunked;

use self::chunked::{Chunked, Step};

/// Bytes of a line that are kept where it comes in pieces: more than any line needs that counts.
const KEPT: usize = 256;
/// Bytes of its end: a version and the carriage return.
const END: usize = VERSION + 1;
/// As which a connection turns out to speak HTTP/2 (RFC 9113, section 3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0";

/// The library refuses a longer target for its length (its `MAX_URI_LEN`).
const LONGEST_TARGET: usize = (u16::MAX - 1) as usize;
/// What stands behind it.
const VERSION: usize = b" HTTP/1.1".len();

/// What must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFraming {
    /// RFC 9112, section 2.2.
    #[error("a line ends without a carriage return")]
    BareLineFeed,
    /// Section 6.1.
    #[error("both Content-Length and Transfer-Encoding")]
    TwoLengths,
    /// Section 6.3, rule 5.
    #[error("more than one Content-Length")]
    SeveralLengths,
    /// The same.
    #[error("Content-Length is no number")]
    Length,
    /// Section 6.1.
    #[error("more than one Transfer-Encoding")]
    SeveralCodings,
    /// The same: without `chunked` at its end nobody knows where a request ends.
    #[error("Transfer-Encoding does not end with chunked")]
    Coding,
    /// RFC 9110, section 15.6.6.
    #[error("a version of HTTP that is not spoken here")]
    Version,
}

/// Where among the bytes it is, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The byte that must not be read as it is.
    pub at: usize,
    /// Why.
    pub why: InvalidFraming,
}

/// How far a connection is.
#[derive(Debug, Default)]
pub struct Framing {
    state: State,
    head: Head,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    Body(u64),
    Chunked(Chunked),
    /// Refused, here or by the library: no request follows.
    Broken,
    /// Another protocol.
    Other,
}

/// A head as far as it has come.
#[derive(Debug, Default)]
struct Head {
    /// The request line is over.
    begun: bool,
    length: Option<u64>,
    chunked: bool,
    line: Pieces,
    /// A request asked for a target that is too long.
    long_target: bool,
}

/// A line that comes in pieces.
#[derive(Debug, Default)]
struct Pieces {
    /// Its first bytes.
    kept: Vec<u8>,
    /// Its last ones.
    end: Vec<u8>,
    length: usize,
}

/// A line that is over, without what ends it.
#[derive(Clone, Copy, Debug)]
struct Line<'a> {
    /// All of it, unless it is long and came in pieces.
    kept: &'a [u8],
    /// Its last bytes, as many as a version needs or more.
    end: &'a [u8],
    length: usize,
}

impl Framing {
    /// Goes on with what came.
    ///
    /// # Errors
    ///
    /// The first byte that must not be there. Nothing behind it is looked at, now or later.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let mut at = 0;
        while at < bytes.len() {
            match &mut self.state {
                State::Head => {
                    let rest = &bytes[at..];
                    let Some(end) = memchr::memchr(b'\n', rest) else {
                        self.head.line.add(rest);
                        return Ok(());
                    };
                    at += end;
                    match self.head.line(&rest[..end]) {
                        Ok(next) => {
                            if let Some(next) = next {
                                self.head.reset();
                                self.state = next;
                            }
                        }
                        Err(why) => {
                            self.state = State::Broken;
                            return Err(Refused { at, why });
                        }
                    }
                    at += 1;
                }
                State::Body(left) => {
                    let here = (bytes.len() - at) as u64;
                    if here < *left {
                        *left -= here;
                        return Ok(());
                    }
                    at += *left as usize;
                    self.state = State::Head;
                }
                State::Chunked(chunked) => match chunked.step(bytes, &mut at) {
                    Step::More => {}
                    Step::End => self.state = State::Head,
                    Step::Broken => self.state = State::Broken,
                    Step::BareLineFeed => {
                        self.state = State::Broken;
                        let why = InvalidFraming::BareLineFeed;
                        return Err(Refused { at, why });
                    }
                },
                State::Broken | State::Other => return Ok(()),
            }
        }
        Ok(())
    }

    /// The connection has become another protocol.
    pub fn end(&mut self) {
        self.state = State::Other;
    }

    /// The library has refused, or will refuse, a target for its length.
    pub fn has_long_target(&self) -> bool {
        self.head.long_target
    }

    /// The client is in the middle of a request, as far as it has been read.
    pub fn is_within(&self) -> bool {
        match self.state {
            State::Head => self.head.begun || !self.head.line.is_empty(),
            State::Body(_) | State::Chunked(_) | State::Broken => true,
            State::Other => false,
        }
    }
}

impl Head {
    /// A line is over, `end` its last piece without the line feed. Answers what follows the head
    /// if that is over with it.
    fn line(&mut self, end: &[u8]) -> Result<Option<State>, InvalidFraming> {
        if self.line.is_empty() {
            return self.whole(end.strip_suffix(b"\r").map(Line::from));
        }
        self.line.add(end);
        let line = std::mem::take(&mut self.line);
        self.whole(line.whole())
    }

    /// `None`: it did not end with CRLF.
    fn whole(&mut self, line: Option<Line<'_>>) -> Result<Option<State>, InvalidFraming> {
        let line = line.ok_or(InvalidFraming::BareLineFeed)?;
        if !self.begun {
            return self.begin(line);
        }
        let line = line.kept;
        if line.is_empty() {
            return Ok(Some(match (self.chunked, self.length) {
                (true, _) => State::Chunked(Chunked::default()),
                (false, None | Some(0)) => State::Head,
                (false, Some(length)) => State::Body(length),
            }));
        }
        // Most lines are of no interest, and told by their first letter.
        match line[0] {
            b'c' | b'C' => {
                if let Some(value) = value(line, b"content-length:") {
                    self.length(value)?;
                }
            }
            b't' | b'T' => {
                if let Some(value) = value(line, b"transfer-encoding:") {
                    self.coding(value)?;
                }
            }
            _ => {}
        }
        Ok(None)
    }

    /// A request begins by this line, or does not yet: empty ones may come before (section 2.2).
    fn begin(&mut self, line: Line<'_>) -> Result<Option<State>, InvalidFraming> {
        self.begun = line.length > 0;
        if line.kept == HTTP2 {
            return Ok(Some(State::Other));
        }
        if is_of_another_version(line.end) {
            return Err(InvalidFraming::Version);
        }
        if line.length > LONGEST_TARGET {
            let method = memchr::memchr(b' ', line.kept).map_or(0, |space| space + 1);
            self.long_target |= line.length > method + LONGEST_TARGET + VERSION;
        }
        Ok(None)
    }

    fn length(&mut self, value: &[u8]) -> Result<(), InvalidFraming> {
        if self.chunked {
            return Err(InvalidFraming::TwoLengths);
        }
        if self.length.is_some() {
            return Err(InvalidFraming::SeveralLengths);
        }
        // `str::parse` takes a sign, which the grammar does not.
        let digits = value.iter().all(u8::is_ascii_digit);
        let length = std::str::from_utf8(value).ok().filter(|_| digits);
        let length = length.and_then(|length| length.parse().ok());
        self.length = Some(length.ok_or(InvalidFraming::Length)?);
        Ok(())
    }

    fn coding(&mut self, value: &[u8]) -> Result<(), InvalidFraming> {
        if self.length.is_some() {
            return Err(InvalidFraming::TwoLengths);
        }
        if self.chunked {
            return Err(InvalidFraming::SeveralCodings);
        }
        let last = value.rsplit(|byte| *byte == b',').next();
        let last = last.unwrap_or_default().trim_ascii();
        if !last.eq_ignore_ascii_case(b"chunked") {
            return Err(InvalidFraming::Coding);
        }
        self.chunked = true;
        Ok(())
    }

    fn reset(&mut self) {
        self.begun = false;
        self.length = None;
        self.chunked = false;
    }
}

impl Pieces {
    fn add(&mut self, piece: &[u8]) {
        let room = KEPT.saturating_sub(self.kept.len()).min(piece.len());
        self.kept.extend_from_slice(&piece[..room]);
        self.length += piece.len();
        self.end
            .extend_from_slice(&piece[piece.len().saturating_sub(END)..]);
        let over = self.end.len().saturating_sub(END);
        self.end.drain(..over);
    }

    fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// `None`: it does not end with a carriage return.
    fn whole(&self) -> Option<Line<'_>> {
        Some(Line {
            end: self.end.strip_suffix(b"\r")?,
            kept: self.kept.strip_suffix(b"\r").unwrap_or(&self.kept),
            length: self.length - 1,
        })
    }
}

impl<'a> From<&'a [u8]> for Line<'a> {
    fn from(line: &'a [u8]) -> Self {
        Self {
            kept: line,
            end: line,
            length: line.len(),
        }
    }
}

/// A request line ends with a version that is well-formed (RFC 9112, section 2.3), and neither of
/// those that the library reads.
fn is_of_another_version(end: &[u8]) -> bool {
    match end {
        [.., b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor] => {
            let digits = major.is_ascii_digit() && minor.is_ascii_digit();
            digits && !matches!((major, minor), (b'1', b'0' | b'1'))
        }
        _ => false,
    }
}

/// The value of a header line with this name, without the white space around it; nothing of one
/// that is longer than what is kept of pieces. `name` is in small letters and has its colon.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (own, value) = line.split_at_checked(name.len())?;
    let value = if line.len() + 1 < KEPT { value } else { b"" };
    own.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

#[cfg(test)]
mod tests;
