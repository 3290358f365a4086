//! Connections that became another protocol: bytes pass both ways until both ends have ended, or
//! nothing moves.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, copy_bidirectional},
    sync::oneshot,
};

use super::{
    Engine,
    clock::Deadline,
    counted::{Counted, OfBackend},
    ledger::Ledger,
    upstream::Lease,
};
use crate::domain::http::exchange::Outcome;

/// Begins to pass bytes as soon as the client's connection is free for it. The ledger that is
/// handed over is closed at the end of that.
pub(super) fn begin(
    engine: &Rc<Engine>,
    client: OnUpgrade,
    lease: Lease,
    counted: Counted<OfBackend>,
    idle: Duration,
) -> oneshot::Sender<Ledger> {
    let (hand_over, ledger) = oneshot::channel::<Ledger>();
    let clock = Rc::clone(&engine.clock);
    tokio::task::spawn_local(async move {
        let _counted = counted;
        let Ok(mut ledger) = ledger.await else { return };
        ledger.ended(Outcome::Upgraded);
        let Lease::Http1(link) = lease else { return };
        let mut deadline = Deadline::new(&clock, Instant::now() + idle);
        let tunnel = async {
            let (client, backend) = tokio::join!(client, link.upgrade());
            let (Ok(client), Ok((backend, early))) = (client, backend) else {
                return;
            };
            let moved = Rc::new(Cell::new(Instant::now()));
            let mut client = Watched {
                stream: TokioIo::new(client),
                moved: Rc::clone(&moved),
            };
            let mut backend = Watched {
                stream: backend,
                moved: Rc::clone(&moved),
            };
            let pass = async {
                client.write_all(&early).await?;
                copy_bidirectional(&mut client, &mut backend).await
            };
            let over = async {
                loop {
                    deadline.met().await;
                    let until = moved.get() + idle;
                    if until <= Instant::now() {
                        break;
                    }
                    deadline.set(until);
                }
            };
            tokio::select! {
                // Who breaks off ends it for both: there is nobody to tell.
                _ = pass => {}
                () = over => {}
            }
        };
        tunnel.await;
    });
    hand_over
}

/// A stream that notes when something moved on it.
struct Watched<S> {
    stream: S,
    moved: Rc<Cell<Instant>>,
}

impl<S> Watched<S> {
    fn note<T>(&self, polled: &Poll<T>) {
        if polled.is_ready() {
            self.moved.set(Instant::now());
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.note(&polled);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(&polled);
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
