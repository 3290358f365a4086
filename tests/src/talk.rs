//! A process that makes socket calls on request and keeps its sockets: a local client that a test
//! holds by the hand. The requests are lines on a Unix socket, each with one line of answer, `ok`
//! and a result, or `err` and the kind of the error.
//!
//! | request | result |
//! | --- | --- |
//! | `tcp NAME ADDRESS` | connects; the peer as getpeername tells it |
//! | `peer NAME` | the peer of a TCP socket as getpeername tells it |
//! | `ask NAME` | asks over HTTP who is there |
//! | `udp NAME LOCAL` | binds |
//! | `connect NAME ADDRESS` | connects a UDP socket; the peer |
//! | `send NAME TEXT` | sends to the peer; the answer and where it came from |
//! | `sendto NAME ADDRESS TEXT` | sends there; the same |

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpStream, UdpSocket},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    backend::program,
    cgroup::Cgroup,
    namespace::Namespace,
    process::{Process, wait_for},
};

/// How long any answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running talker.
#[derive(Debug)]
pub struct Talker {
    line: Mutex<BufReader<UnixStream>>,
    _process: Process,
}

impl Talker {
    /// Starts one in a namespace, in `cgroup` if there is one. Its files, under `name`, lie in
    /// `directory`.
    pub fn start(
        namespace: &Namespace,
        cgroup: Option<&Cgroup>,
        directory: &Path,
        name: &str,
    ) -> Result<Self> {
        let socket = directory.join(format!("{name}.sock"));
        let mut command = namespace.command(program("talk")?)?;
        command.arg("--socket").arg(&socket);
        if let Some(cgroup) = cgroup {
            command.arg("--cgroup").arg(cgroup.path());
        }
        let log = directory.join(format!("{name}.log"));
        let process = Process::start(&format!("the talker {name}"), command, &log)?;
        let stream = wait_for("the talker to listen", PATIENCE, || {
            process.ensure_running()?;
            Ok(UnixStream::connect(&socket).ok())
        })?;
        Ok(Self {
            line: Mutex::new(BufReader::new(stream)),
            _process: process,
        })
    }

    /// Makes a request; the result, or the kind of the error as `io::ErrorKind` prints itself.
    ///
    /// # Panics
    ///
    /// The talker has ended.
    pub fn request(&self, words: &str) -> Result<String, String> {
        let mut line = self.line.lock().expect("no request has panicked");
        writeln!(line.get_mut(), "{words}").expect("the talker listens");
        let mut answer = String::new();
        line.read_line(&mut answer).expect("the talker answers");
        match answer.trim_end().split_once(' ') {
            Some(("ok", result)) => Ok(result.to_owned()),
            Some(("err", kind)) => Err(kind.to_owned()),
            _ => panic!("{words}: {answer:?}"),
        }
    }
}

enum Held {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

/// Listens at `socket` and serves the first who comes, until they go.
///
/// # Errors
///
/// The socket cannot be made, or a request is none.
pub fn serve(socket: PathBuf) -> Result<()> {
    let listener = UnixListener::bind(&socket)
        .with_context(|| format!("cannot listen on {}", socket.display()))?;
    let (mut stream, _) = listener.accept()?;
    let mut held = BTreeMap::new();
    for line in BufReader::new(stream.try_clone()?).lines() {
        let answer = match carry_out(&line?, &mut held)? {
            Ok(result) => format!("ok {result}"),
            // Without a kind of its own in the standard library.
            Err(error) if error.raw_os_error() == Some(libc::EDESTADDRREQ) => {
                "err EDESTADDRREQ".into()
            }
            Err(error) => format!("err {:?}", error.kind()),
        };
        writeln!(stream, "{answer}")?;
    }
    Ok(())
}

fn carry_out(line: &str, held: &mut BTreeMap<String, Held>) -> Result<io::Result<String>> {
    let words: Vec<&str> = line.split(' ').collect();
    let (&[verb, name], rest) = words.split_first_chunk().context("too few words")?;
    let answer = match (verb, held.get_mut(name), rest) {
        ("tcp", _, [address]) => {
            let connected = TcpStream::connect(address).and_then(|stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                let peer = stream.peer_addr()?;
                Ok((stream, peer))
            });
            connected.map(|(stream, peer)| {
                held.insert(name.into(), Held::Tcp(stream));
                peer.to_string()
            })
        }
        ("udp", _, [local]) => {
            let bound = UdpSocket::bind(local).and_then(|socket| {
                socket.set_read_timeout(Some(PATIENCE))?;
                Ok(socket)
            });
            bound.map(|socket| {
                held.insert(name.into(), Held::Udp(socket));
                "bound".into()
            })
        }
        ("ask", Some(Held::Tcp(stream)), []) => ask(stream),
        ("connect", Some(Held::Udp(socket)), [address]) => socket
            .connect(address)
            .and_then(|()| socket.peer_addr())
            .map(|peer| peer.to_string()),
        ("send", Some(Held::Udp(socket)), [text]) => {
            socket.send(text.as_bytes()).and_then(|_| receive(socket))
        }
        ("sendto", Some(Held::Udp(socket)), [address, text]) => socket
            .send_to(text.as_bytes(), address)
            .and_then(|_| receive(socket)),
        ("peer", Some(Held::Tcp(stream)), []) => stream.peer_addr().map(|peer| peer.to_string()),
        _ => bail!("not understood: {line}"),
    };
    Ok(answer)
}

fn receive(socket: &UdpSocket) -> io::Result<String> {
    let mut buffer = [0; 1500];
    let (length, from) = socket.recv_from(&mut buffer)?;
    Ok(format!(
        "{} {from}",
        String::from_utf8_lossy(&buffer[..length])
    ))
}

/// Asks the echo service at the other end for its name.
fn ask(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: echo\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    // The body is one JSON object without another in it.
    while !answer.ends_with(b"}\n") {
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => answer.extend_from_slice(&buffer[..length]),
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body: serde_json::Value = serde_json::from_str(body)?;
    Ok(body["hostname"].as_str().unwrap_or_default().to_owned())
}
