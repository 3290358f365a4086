//! What goes together, what goes at once, and what an end takes along.

use std::{future::poll_fn, task::Wake};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;

/// A connection, and its other end.
struct Rig {
    near: Option<Deferred<Counting>>,
    far: DuplexStream,
    turns: Turns,
    calls: Rc<Cell<usize>>,
}

/// Counts writes.
struct Counting(DuplexStream, Rc<Cell<usize>>);

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.1.set(self.1.get() + 1);
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.1.set(self.1.get() + 1);
        Pin::new(&mut self.0).poll_write_vectored(context, slices)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

/// Remembers that somebody was woken.
struct Woken(std::sync::atomic::AtomicBool);

impl Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Rig {
    /// Whose other end has room for so many bytes.
    fn new(room: usize) -> Self {
        let (near, far) = tokio::io::duplex(room);
        let (turns, calls) = (Turns::default(), Rc::<Cell<usize>>::default());
        let counting = Counting(near, Rc::clone(&calls));
        let mut near = Deferred::new(counting, turns.clone());
        near.greeted = true;
        Self {
            near: Some(near),
            far,
            turns,
            calls,
        }
    }

    fn near(&mut self) -> &mut Deferred<Counting> {
        self.near.as_mut().unwrap()
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.near().write_all(bytes).await.unwrap();
    }

    /// Answers whether the task was woken by that.
    fn flush(&mut self) -> (Poll<()>, bool) {
        let woken = std::sync::Arc::new(Woken(false.into()));
        let waker = Waker::from(std::sync::Arc::clone(&woken));
        let near = Pin::new(self.near());
        let polled = near.poll_flush(&mut Context::from_waker(&waker));
        let woken = woken.0.load(std::sync::atomic::Ordering::Relaxed);
        (polled.map(Result::unwrap), woken)
    }

    /// What has come to the other end.
    async fn come(&mut self) -> Vec<u8> {
        let mut buffer = vec![0; 1 << 20];
        let mut all = Vec::new();
        loop {
            let mut read = ReadBuf::new(&mut buffer);
            let polled = poll_fn(|context| {
                Poll::Ready(Pin::new(&mut self.far).poll_read(context, &mut read))
            });
            match polled.await {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    all.extend_from_slice(read.filled());
                }
                _ => return all,
            }
        }
    }
}

const DONE: Poll<()> = Poll::Ready(());

#[tokio::test]
async fn short_pieces_go_together_in_the_next_turn() {
    let mut rig = Rig::new(1 << 20);
    assert_eq!(rig.flush(), (DONE, false), "nothing to wait for");
    rig.write(b"one ").await;
    assert_eq!(rig.flush(), (DONE, true));
    rig.write(b"two ").await;
    assert_eq!(rig.flush(), (DONE, false), "once is enough");
    assert_eq!(rig.come().await, b"");
    rig.turns.begin();
    rig.write(b"three").await;
    assert_eq!(rig.flush(), (DONE, false));
    assert_eq!(rig.come().await, b"one two three");
    assert_eq!(rig.calls.get(), 1);
    rig.write(b"four").await;
    assert_eq!(rig.flush(), (DONE, true), "again from the beginning");
    assert_eq!(rig.come().await, b"");
}

#[tokio::test]
async fn nothing_is_kept_before_the_peer_has_spoken() {
    let mut rig = Rig::new(1 << 20);
    rig.near().greeted = false;
    rig.write(b"settings").await;
    assert_eq!(rig.flush(), (DONE, false));
    assert_eq!(rig.come().await, b"settings");
    rig.far.write_all(b"settings").await.unwrap();
    let mut room = [0; 8];
    rig.near().read_exact(&mut room).await.unwrap();
    rig.write(b"ack").await;
    assert_eq!(rig.flush(), (DONE, true));
    assert_eq!(rig.come().await, b"");
}

#[tokio::test]
async fn long_ones_go_at_once_behind_what_is_kept() {
    // The last of these takes a part of what is kept at a time.
    for room in [1 << 20, MOST, 3] {
        let mut rig = Rig::new(room);
        rig.write(b"head").await;
        let long: Vec<u8> = (0..MOST * 3).map(|byte| byte as u8).collect();
        let mut near = rig.near.take().unwrap();
        let write = async {
            near.write_all(&long).await.unwrap();
            near.shutdown().await.unwrap();
        };
        let mut read = Vec::new();
        let (_, count) = tokio::join!(write, rig.far.read_to_end(&mut read));
        assert_eq!(count.unwrap(), 4 + long.len(), "{room}");
        assert_eq!(&read[..4], b"head");
        assert_eq!(&read[4..], long);
    }
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_waited_for() {
    let mut rig = Rig::new(4);
    rig.write(b"one two three").await;
    let _ = rig.flush();
    rig.turns.begin();
    assert_eq!(rig.flush(), (Poll::Pending, false));
    assert_eq!(rig.come().await, b"one ");
    assert_eq!(rig.flush(), (Poll::Pending, false));
    assert_eq!(rig.come().await, b"two ");
    let _ = rig.flush();
    assert_eq!(rig.come().await, b"thre");
    assert_eq!(rig.flush(), (DONE, false));
    assert_eq!(rig.come().await, b"e");
}

#[tokio::test]
async fn an_end_takes_along_what_is_kept() {
    let mut rig = Rig::new(1 << 20);
    rig.write(b"goodbye").await;
    rig.near().shutdown().await.unwrap();
    assert_eq!(rig.come().await, b"goodbye");

    let mut rig = Rig::new(1 << 20);
    rig.write(b"gone").await;
    rig.near = None;
    assert_eq!(rig.come().await, b"gone");
}
