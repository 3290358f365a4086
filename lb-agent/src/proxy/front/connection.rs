//! One connection of a client, from its first byte to its last.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead as _, AsyncReadExt as _, ReadBuf},
    time::sleep,
};

use super::{
    Failure,
    accepted::Accepted,
    guard::Tunnel,
    header, http1, http2,
    life::{Life, Stage},
    rounds::Seat,
    stream::ClientStream,
    visit::Visit,
    worker::Ward,
};
use crate::proxy::{engine::Arrival, telemetry::counts::OfListener};

/// What a connection of HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The protocol's name in TLS (RFC 7301).
const H2: &[u8] = b"h2";

/// What is read at first: most requests are shorter.
const FIRST: usize = 2048;

/// Between two looks at a PROXY protocol header that comes in pieces.
const PIECE: Duration = Duration::from_millis(5);

/// What is kept of a connection while nothing comes: as little as can be, for most of them lie idle
/// most of the time.
pub(super) struct Client {
    stream: ClientStream,
    peer: SocketAddr,
    ward: Rc<Ward>,
    life: Arc<Life>,
    seat: Seat,
    /// Of HTTP/1, once it is known to be that.
    visit: Option<Rc<Visit>>,
}

/// A connection whose protocol is known.
struct Opened {
    stream: ClientStream,
    version: Version,
    /// What was read of it.
    begun: Bytes,
    arrival: Arc<Arrival>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

impl Client {
    /// Who has just connected.
    pub(super) fn new(stream: Accepted, peer: SocketAddr, ward: Rc<Ward>, life: Arc<Life>) -> Self {
        Self {
            stream: ClientStream::Plain(stream),
            peer,
            seat: ward.rounds.join(&life),
            ward,
            life,
            visit: None,
        }
    }

    /// Serves the connection to its end, or to the end of its requests under way once all is to end.
    pub(super) async fn serve(mut self) -> Result<(), Failure> {
        loop {
            let Some(begun) = self.wait().await? else {
                return Ok(());
            };
            // What is needed from here on is boxed, so that those who lie idle do not keep its room.
            match Box::pin(self.awake(begun)).await? {
                Some(left) => self = left,
                None => return Ok(()),
            }
        }
    }

    /// Waits for something to come, which may have been read then; `None`: it does not in time.
    async fn wait(&mut self) -> io::Result<Option<Bytes>> {
        let is_new = self.visit.is_none();
        let place = &self.ward.place;
        let is_plain = place.tls.is_none() && !place.proxy_protocol;
        let (stream, seat) = (&mut self.stream, &self.seat);
        let come = poll_fn(|context| {
            seat.attend(context);
            // Of a new socket tokio assumes that there is something.
            let come = match (is_new, is_plain) {
                (true, true) => poll_first(stream, context),
                (true, false) => stream.poll_come(context).map_ok(|()| Some(Bytes::new())),
                (false, _) => stream
                    .poll_readable(context)
                    .map_ok(|()| Some(Bytes::new())),
            };
            match seat.overdue() {
                Some(_) if come.is_pending() => Poll::Ready(Ok(None)),
                _ => come,
            }
        });
        let come = come.await?;
        if come.is_none() {
            http1::close(&mut self.stream).await;
        }
        Ok(come)
    }

    /// Serves what comes; `None`: to the end.
    async fn awake(self, mut begun: Bytes) -> Result<Option<Self>, Failure> {
        let Self {
            mut stream,
            peer,
            ward,
            life,
            seat,
            visit,
        } = self;
        let visit = match visit {
            Some(visit) => visit,
            None => {
                let opened = Box::pin(open(stream, begun, peer, &ward, &life));
                let Some(opened) = seat.within(opened).await?? else {
                    return Ok(None);
                };
                let visit = Rc::new(Visit {
                    engine: Rc::clone(&ward.engine),
                    arrival: opened.arrival,
                    life: Arc::clone(&life),
                    rounds: Rc::clone(&ward.rounds),
                    tunnel: Tunnel::default(),
                });
                (stream, begun) = (opened.stream, opened.begun);
                if opened.version == Version::Http2 {
                    Box::pin(http2::serve(stream, begun, &ward.facts, visit, seat)).await?;
                    return Ok(None);
                }
                visit
            }
        };
        loop {
            let served = http1::serve(stream, begun, &ward.facts, &visit, &seat).await?;
            let Some((left, unread)) = served else {
                return Ok(None);
            };
            // Empty as it is, it may hold the buffer that it was a part of, so it is not kept.
            if unread.is_empty() {
                return Ok(Some(Self {
                    stream: left,
                    peer,
                    ward,
                    life,
                    seat,
                    visit: Some(visit),
                }));
            }
            (stream, begun) = (left, unread);
            life.enter(Stage::Head);
        }
    }
}

/// Everything before HTTP; `None`: there was nothing.
async fn open(
    stream: ClientStream,
    begun: Bytes,
    peer: SocketAddr,
    ward: &Ward,
    life: &Life,
) -> Result<Option<Opened>, Failure> {
    let ClientStream::Plain(mut stream) = stream else {
        return Err("a connection was opened twice".into());
    };
    let (facts, place) = (&ward.facts, &ward.place);
    let listener = match ward.address {
        // One that takes connections to any address is asked for by each.
        any if any.ip().is_unspecified() => stream.local_addr()?,
        own => own,
    };
    let listener = SocketAddr::new(listener.ip().to_canonical(), listener.port());
    let service = place.service.as_deref();
    let mut client = peer;
    if ward.is_told_clients(peer.ip())
        && let Some(told) = read_header(&mut stream).await?
    {
        // As that of a connection is: by IPv6 others tell of clients of IPv4, too.
        client = SocketAddr::new(told.ip().to_canonical(), told.port());
        if !life.present().is_of(&facts.admission, client.ip()) {
            ward.counts.refused.fetch_add(1, Relaxed);
            return Ok(None);
        }
    }
    let arrival = Arc::new(Arrival {
        client,
        peer,
        listener: ward.engine.connected_to(service, listener),
        tls: place.tls.is_some(),
        // One that speaks for others is trusted for what it says of them, not for what they say.
        trusted: facts.trusts(client.ip()),
        service: place.service.clone(),
        headers: facts.bounds.headers,
    });
    let Some(tls) = &place.tls else {
        let Some((version, begun)) = first(&mut stream, begun).await? else {
            return Ok(None);
        };
        return Ok(Some(Opened {
            stream: ClientStream::Plain(stream),
            version,
            begun,
            arrival,
        }));
    };
    let mut failing = Failing(Some(&ward.counts));
    let stream = tls.accept(stream).await?;
    failing.0 = None;
    drop(failing);
    let version = match stream.get_ref().1.alpn_protocol() {
        Some(H2) => Version::Http2,
        _ => Version::Http1,
    };
    Ok(Some(Opened {
        stream: ClientStream::Tls(Box::new(stream)),
        version,
        begun: Bytes::new(),
        arrival,
    }))
}

/// A handshake that has failed if this is dropped.
struct Failing<'a>(Option<&'a OfListener>);

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        if let Some(counts) = self.0 {
            counts.handshakes_failed.fetch_add(1, Relaxed);
        }
    }
}

/// Reads the header of the PROXY protocol, and nothing beyond it.
async fn read_header(stream: &mut Accepted) -> Result<Option<SocketAddr>, Failure> {
    let mut buffer = vec![0; header::LONGEST];
    let stream = stream.known()?;
    loop {
        let seen = stream.peek(&mut buffer).await?;
        if seen == 0 {
            return Err("the connection ended before its PROXY protocol header did".into());
        }
        if let Some(header) = header::parse(&buffer[..seen])? {
            stream.read_exact(&mut buffer[..header.length]).await?;
            return Ok(header.client);
        }
        // Who sends it sends it in one piece, with rare exceptions.
        sleep(PIECE).await;
    }
}

/// Reads what comes first, without room of its own for who sends nothing; `None`: the end.
fn poll_first(
    stream: &mut ClientStream,
    context: &mut Context<'_>,
) -> Poll<io::Result<Option<Bytes>>> {
    let mut room = [MaybeUninit::uninit(); FIRST];
    let mut read = ReadBuf::uninit(&mut room);
    let polled = Pin::new(stream).poll_read(context, &mut read);
    polled.map_ok(|()| {
        let come = read.filled();
        (!come.is_empty()).then(|| Bytes::copy_from_slice(come))
    })
}

/// Reads until the version is known, beginning with what was read; `None`: nothing came.
async fn first(stream: &mut Accepted, begun: Bytes) -> Result<Option<(Version, Bytes)>, Failure> {
    if let Some(version) = version(&begun) {
        return Ok(Some((version, begun)));
    }
    let mut begun = BytesMut::from(begun);
    loop {
        begun.reserve(FIRST);
        let ended = stream.read_buf(&mut begun).await? == 0;
        if begun.is_empty() {
            return Ok(None);
        }
        let version = version(&begun).or(ended.then_some(Version::Http1));
        if let Some(version) = version {
            return Ok(Some((version, begun.freeze())));
        }
    }
}

/// The version that these first bytes tell; `None`: more must come.
fn version(begun: &[u8]) -> Option<Version> {
    if begun.starts_with(PREFACE) {
        return Some(Version::Http2);
    }
    (!PREFACE.starts_with(begun)).then_some(Version::Http1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_the_version() {
        let rows: [(&[u8], Option<Version>); 8] = [
            (b"", None),
            (b"P", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", None),
            (PREFACE, Some(Version::Http2)),
            (
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0",
                Some(Version::Http2),
            ),
            (b"G", Some(Version::Http1)),
            (b"PO", Some(Version::Http1)),
            (b"PRI * HTTP/1.1\r\n", Some(Version::Http1)),
        ];
        for (begun, expected) in rows {
            assert_eq!(version(begun), expected, "{begun:?}");
        }
    }

    /// However much is there: the first byte that differs decides, none before it, and what is
    /// decided stays so.
    #[test]
    fn first_bytes_by_chance() {
        let good: [&[u8]; 4] = [
            PREFACE,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0",
            b"POST / HTTP/1.1\r\n\r\n",
            b"PRI * HTTP/1.1\r\n\r\n",
        ];
        let mut random = crate::domain::chance::of_test(38);
        let mut counts = [0; 3];
        for _ in 0..10_000 {
            let bytes = crate::domain::chance::mutated(&mut random, &good, b"PRISM*\r\n /\0\xff");
            let same = bytes.iter().zip(PREFACE).take_while(|(a, b)| a == b);
            let same = same.count();
            for length in 0..=bytes.len() {
                let expected = match (same >= PREFACE.len(), length > same) {
                    (true, _) => (length >= PREFACE.len()).then_some(Version::Http2),
                    (false, true) => Some(Version::Http1),
                    (false, false) => None,
                };
                assert_eq!(version(&bytes[..length]), expected, "{bytes:?} to {length}");
            }
            counts[match version(&bytes) {
                None => 0,
                Some(Version::Http1) => 1,
                Some(Version::Http2) => 2,
            }] += 1;
        }
        assert!(counts.iter().all(|count| *count > 200), "{counts:?}");
    }
}
