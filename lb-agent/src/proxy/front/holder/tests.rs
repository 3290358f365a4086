//! Agents that come and go, and a holder on a thread.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    path::PathBuf,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use super::{serve::serve, *};

/// How long holders of these tests wait for an agent.
const PATIENCE: Duration = Duration::from_secs(2);

fn on_a_thread(listener: OwnedFd) -> io::Result<Option<Child>> {
    thread::spawn(move || serve(&listener, PATIENCE));
    Ok(None)
}

fn never(_: OwnedFd) -> io::Result<Option<Child>> {
    Err(io::ErrorKind::Unsupported.into())
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("held.sock");
    (directory, path)
}

fn key(service: Option<&str>, port: u16) -> Key {
    Key {
        service: service.map(Arc::from),
        address: SocketAddr::from(([127, 0, 0, 1], port)),
    }
}

fn listening(count: usize) -> Vec<TcpListener> {
    (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect()
}

fn addresses(sockets: &[TcpListener]) -> Vec<SocketAddr> {
    let addresses = sockets.iter().map(|socket| socket.local_addr().unwrap());
    addresses.collect()
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// More sockets than one message takes, and what waits at them, outlive an agent; and another one.
#[test]
fn sockets_and_what_waits_at_them_outlive_agents() {
    let (_directory, path) = place();
    let (web, shared) = (key(Some("a web \"service\""), 0), key(None, 80));
    let sockets = listening(link::AT_ONCE + 3);
    let known = addresses(&sockets);
    let mut keep = Keep::find(path.clone(), on_a_thread);
    assert!(keep.take(&web).is_empty());
    keep.hold(&web, &sockets);
    keep.hold(&shared, &listening(1));
    assert_eq!(keep.problem(), None);
    let mode = path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop((keep, sockets));

    let mut waiting = TcpStream::connect(*known.last().unwrap()).unwrap();
    waiting.write_all(b"hello").unwrap();
    drop(Keep::find(path.clone(), never));
    let mut keep = Keep::find(path, never);
    let sockets = keep.take(&web);
    assert_eq!(addresses(&sockets), known);
    assert_eq!(keep.take(&shared).len(), 1);
    assert!(keep.take(&web).is_empty(), "taken once");
    let (mut accepted, _) = sockets.last().unwrap().accept().unwrap();
    let mut words = [0; 5];
    accepted.read_exact(&mut words).unwrap();
    assert_eq!(&words, b"hello");
    // What comes later is added to those that were found.
    keep.hold(&web, &listening(1));
    assert_eq!(keep.problem(), None);
}

#[test]
fn what_is_released_refuses_connections() {
    let (_directory, path) = place();
    let keys = [key(Some("a"), 0), key(Some("b"), 0), key(None, 1)];
    let mut keep = Keep::find(path.clone(), on_a_thread);
    let mut known = Vec::new();
    for key in &keys {
        let sockets = listening(1);
        known.extend(addresses(&sockets));
        keep.hold(key, &sockets);
    }
    keep.release(&keys[0]);
    drop(keep);
    let is_open = |place: usize| TcpStream::connect(known[place]).is_ok();
    wait_for("the first to be closed", || !is_open(0));
    let mut keep = Keep::find(path.clone(), never);
    let taken = keep.take(&keys[1]);
    assert_eq!(taken.len(), 1);
    keep.forget(|key| key.service.is_none());
    wait_for("the third to be closed", || !is_open(2));
    assert!(is_open(1));
    drop((keep, taken));
    assert!(is_open(1), "held on");
    assert_eq!(end(&path).unwrap(), 1);
    wait_for("the second to be closed", || !is_open(1));
    assert!(!path.exists());
    assert_eq!(end(&path).unwrap(), 0, "there is none");
}

/// A connection that nobody takes up is not left waiting; while there is an agent nothing ends.
#[test]
fn a_holder_ends_when_nobody_comes() {
    let (_directory, path) = place();
    let mut keep = Keep::find(path, on_a_thread);
    let sockets = listening(1);
    let address = addresses(&sockets)[0];
    keep.serve();
    keep.hold(&key(None, 1), &sockets);
    drop(sockets);
    thread::sleep(PATIENCE + PATIENCE / 2);
    let mut waiting = TcpStream::connect(address).unwrap();
    let left = Instant::now();
    drop(keep);
    let ended = waiting.read(&mut [0]);
    assert!(ended.is_err(), "{ended:?}");
    assert!(left.elapsed() >= PATIENCE - Duration::from_millis(100));
}

/// An agent that takes its time to start is waited for: the kernel's verifier may be slow.
#[test]
fn one_that_starts_slowly_finds_what_was_held() {
    let (_directory, path) = place();
    let mut keep = Keep::find(path.clone(), on_a_thread);
    let sockets = listening(1);
    let address = addresses(&sockets)[0];
    keep.hold(&key(None, 1), &sockets);
    keep.serve();
    drop((keep, sockets));
    let mut next = Keep::find(path.clone(), never);
    thread::sleep(PATIENCE * 2);
    // It has duplicates of its own, and might not notice; one that comes after it has what is held.
    drop(next.take(&key(None, 1)));
    next.serve();
    drop(next);
    let mut last = Keep::find(path, never);
    let _waiting = TcpStream::connect(address).unwrap();
    let found = last.take(&key(None, 1));
    found[0].accept().unwrap();
}

/// Agents that end before they serve do not make connections wait for ever.
#[test]
fn agents_that_cannot_start_do_not_count() {
    let (_directory, path) = place();
    let mut keep = Keep::find(path.clone(), on_a_thread);
    keep.hold(&key(None, 1), &listening(1));
    keep.serve();
    drop(keep);
    let left = Instant::now();
    while Link::connect(&path).is_ok() {
        let mut failing = Keep::find(path.clone(), never);
        drop(failing.take(&key(None, 1)));
        thread::sleep(PATIENCE / 10);
        assert!(left.elapsed() < PATIENCE * 10);
    }
    assert!(left.elapsed() >= PATIENCE - Duration::from_millis(100));
}

/// One that ends under an agent is replaced with all it had, and one that holds nothing is ended.
#[test]
fn a_holder_is_replaced_or_ended_as_needed() {
    let (_directory, path) = place();
    let mut keep = Keep::find(path.clone(), on_a_thread);
    let (first, second) = (key(None, 1), key(Some("a"), 0));
    keep.hold(&first, &listening(2));
    assert_eq!(end(&path).unwrap(), 2);
    keep.look();
    keep.hold(&second, &listening(1));
    assert_eq!(keep.problem(), None);
    drop(keep);
    let mut keep = Keep::find(path.clone(), never);
    assert_eq!((keep.take(&first).len(), keep.take(&second).len()), (2, 1));
    keep.look();
    assert!(Link::connect(&path).is_ok());
    keep.release(&first);
    keep.release(&second);
    keep.look();
    let asked = Instant::now();
    wait_for("its end", || Link::connect(&path).is_err());
    assert!(asked.elapsed() < PATIENCE, "not of its own accord");
}

#[test]
fn a_holder_that_cannot_begin_is_told_and_tried_again() {
    let (directory, path) = place();
    let mut keep = Keep::find(path.clone(), never);
    keep.hold(&key(None, 1), &listening(1));
    let problem = keep.problem().unwrap().to_owned();
    assert!(problem.contains("over a restart"), "{problem}");
    keep.look();
    assert_eq!(keep.problem(), Some(&*problem));
    drop(directory);
    let mut keep = Keep::find(path, on_a_thread);
    keep.hold(&key(None, 1), &listening(1));
    assert!(keep.problem().is_some(), "there is no directory");
    keep.release(&key(None, 1));
    keep.look();
}

/// What is not understood ends the connection, not the holder.
#[test]
fn nonsense_is_not_listened_to() {
    let (_directory, path) = place();
    let mut keep = Keep::find(path.clone(), on_a_thread);
    keep.hold(&key(None, 1), &listening(1));
    let stranger = Link::connect(&path).unwrap();
    rustix::net::send(&stranger, b"{\"What\":1}", rustix::net::SendFlags::NOSIGNAL).unwrap();
    assert!(!matches!(stranger.receive(), Ok(Some(_))));
    keep.hold(&key(None, 2), &listening(1));
    assert_eq!(keep.problem(), None);
    drop(keep);
    let mut keep = Keep::find(path, never);
    assert_eq!(keep.take(&key(None, 1)).len(), 1);
    assert_eq!(keep.take(&key(None, 2)).len(), 1);
}
