//! The agent restarts while streams of HTTP/2, a call of gRPC and a WebSocket are under way: clients
//! are told to go (GOAWAY), lose nothing, and find the next agent.

use std::{
    io,
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

use bytes::Bytes;
use lb_tests::{
    agent::{Agent, Setup},
    authority,
    calls::{Calls, run},
    http2::{ACK, END_STREAM, End, Frame, Hand, kind, request},
    namespace::Namespace,
    pace::at_this_pace,
    process::{Process, Signal, wait_for},
    topology::Topology,
};
use tonic::Request;
use tungstenite::Message;

use crate::{
    guests::{Record, Way, entertained},
    proxy_h2::{HTTP, SOON, hand},
    proxy_stage::{SHARED, Stage, start_web},
    scene::{METRICS, PATIENCE, VIP, address},
};

const SECURE: &str = "10.77.0.1:8443";
const CALLS: &str = "198.51.100.11:80";
const CHAT: &str = "198.51.100.12:80";
/// What the stop has patience for. Nothing here comes near to it.
const SHUTDOWN: Duration = Duration::from_secs(20);

/// Requests, calls and WebSockets, a service each; the last has a backend of its own, the third.
fn start(topology: &Topology) -> (Agent, Vec<Process>) {
    let webs = [1, 2].map(|number| start_web(topology, number)).into();
    let listener = topology.backends()[2]
        .run(|| TcpListener::bind(topology.backend_address(3)))
        .unwrap();
    // It ends with the test, whose namespace nobody reaches any more.
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || echo(stream));
        }
    });
    let directory = topology.directory();
    authority::found(directory).unwrap();
    authority::issue(directory, "web", &["web"]).unwrap();
    let pair = directory.join("web");
    let pair = pair.display();
    let row = |number| format!("{{ address = \"{}\" }}", topology.backend_address(number));
    let (one, two, three) = (row(1), row(2), row(3));
    let config = format!(
        "[proxy]\nshutdown = \"{}s\"\nlisten = [\"{SHARED}\", {{ address = \"{SECURE}\", \
         tls = [{{ cert = \"{pair}.pem\", key = \"{pair}.key\" }}] }}]\n\n\
         [[service]]\nname = \"web\"\nvip = [\"{VIP}\"]\nprotocol = \"http\"\n\
         backends = [{one}, {two}]\n\n\
         [[service]]\nname = \"calls\"\nvip = [\"{CALLS}\"]\nprotocol = \"grpc\"\n\
         backends = [{one}, {two}]\n\n\
         [[service]]\nname = \"chat\"\nvip = [\"{CHAT}\"]\nprotocol = \"http\"\n\
         backends = [{three}]\n\n[metrics]\nlisten = \"{METRICS}\"\n",
        SHUTDOWN.as_secs()
    );
    let agent = Setup::new(topology).config(&config).start().unwrap();
    wait_for("an answer of each", PATIENCE, || {
        agent.process().ensure_running()?;
        let called = run(topology.client(), async || {
            let mut calls = Calls::connect(address(CALLS)).await.ok()?;
            let message = Request::new(Bytes::from_static(b"x"));
            calls.unary("/grpc.Echo/x", message).await.ok()
        });
        let asked = topology.client().tool("curl", &["-sSf", "-m2", &url()]);
        let chats = topology
            .client()
            .run(|| Chat::begin("ws://chat/", CHAT).ok());
        Ok((called.is_some() && asked.is_ok() && chats.is_some()).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", agent.process().tail()));
    (agent, webs)
}

fn url() -> String {
    format!("http://{VIP}/size/1")
}

/// Sends every message back, until its end.
fn echo(stream: TcpStream) {
    let Ok(mut socket) = tungstenite::accept(stream) else {
        return;
    };
    while let Ok(message) = socket.read() {
        if message.is_text() && socket.send(message).is_err() {
            return;
        }
    }
}

struct Chat(tungstenite::WebSocket<TcpStream>);

impl Chat {
    fn begin(url: &str, to: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address(to))?;
        stream.set_read_timeout(Some(at_this_pace(SOON)))?;
        let begun = tungstenite::client(url, stream);
        begun.map_or_else(
            |error| Err(io::Error::other(error.to_string())),
            |(socket, _)| Ok(Self(socket)),
        )
    }

    /// Talks until it is to leave; how many messages came back.
    fn talk(mut self, leave: &AtomicBool, came: &AtomicU64) {
        while !leave.load(Relaxed) {
            let message = Message::text(format!("message {}", came.load(Relaxed)));
            self.0.send(message.clone()).unwrap();
            assert_eq!(self.0.read().unwrap(), message);
            came.fetch_add(1, Relaxed);
            sleep(Duration::from_millis(20));
        }
        self.0.close(None).unwrap();
        assert!(self.0.read().unwrap().is_close());
        // Nothing but the end of the connection follows, and it is no reset.
        let end = self.0.read().unwrap_err();
        assert!(
            matches!(end, tungstenite::Error::ConnectionClosed),
            "{end:?}"
        );
    }
}

/// Takes the messages of a call that has its backend send one each 100 ms.
fn call(client: &Namespace, messages: u64, came: &AtomicU64) {
    run(client, async || {
        let mut calls = Calls::connect(address(CALLS)).await.unwrap();
        let path = format!("/grpc.Repeat/{messages}/100");
        let answer = calls
            .down(&path, Request::new(Bytes::from_static(b"down")))
            .await;
        let mut answer = answer.unwrap().into_inner();
        while let Some(message) = answer.message().await.unwrap() {
            assert_eq!(message, "down");
            came.fetch_add(1, Relaxed);
        }
    });
}

fn assert_no_failures(records: &[Arc<Record>], agent: &Agent) {
    let failures: Vec<_> = records.iter().map(|record| record.failures()).collect();
    assert!(
        failures.iter().all(Vec::is_empty),
        "{failures:#?}\n{}",
        agent.process().tail()
    );
}

/// Has the WebSocket's client leave, at the latest when the story ends early.
struct Leave<'a>(&'a AtomicBool);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn streams_calls_and_tunnels_live_through_a_restart() {
    /// Three seconds of it.
    const MESSAGES: u64 = 30;
    let topology = Topology::new(3).unwrap();
    let (mut agent, _webs) = start(&topology);
    let client = topology.client();
    let tls = authority::connector(topology.directory(), &[b"h2"]).unwrap();
    let ways = [
        Way::Plain(address(SHARED)),
        Way::Plain(address(VIP)),
        Way::Tls(address(SECURE), tls),
    ];
    let (called, chatted) = (AtomicU64::new(0), AtomicU64::new(0));
    let leave = AtomicBool::new(false);
    entertained(client, &ways, |records| {
        thread::scope(|scope| {
            let leaving = Leave(&leave);
            let calling = scope.spawn(|| call(client, MESSAGES, &called));
            let chatting = scope.spawn(|| {
                client.run(|| {
                    Chat::begin("ws://chat/", SHARED)
                        .unwrap()
                        .talk(&leave, &chatted)
                });
            });
            let is_under_way = || called.load(Relaxed) >= 5 && chatted.load(Relaxed) >= 5;
            wait_for("all to be under way", PATIENCE, || {
                let ended = calling.is_finished() || chatting.is_finished();
                Ok((ended || is_under_way()).then_some(()))
            })
            .unwrap();
            let messages = chatted.load(Relaxed);
            let before: Vec<u64> = records
                .iter()
                .map(|one| one.answered.load(Relaxed))
                .collect();
            let asked = Instant::now();
            agent.process().signal(Signal::Terminate).unwrap();
            sleep(Duration::from_millis(1500));
            // Nobody waits for a stop that has something to wait for.
            for (record, before) in records.iter().zip(before) {
                let answered = record.answered.load(Relaxed) - before;
                assert!(answered > 20, "{answered} during the stop");
                assert!(record.left.load(Relaxed) > 0, "nobody told them to go");
            }
            agent.process().ensure_running().unwrap();
            assert!(chatted.load(Relaxed) > messages + 20, "the WebSocket hung");
            drop(leaving);
            chatting.join().unwrap();
            calling.join().unwrap();
            assert_eq!(called.load(Relaxed), MESSAGES);
            let status = agent.process().wait(PATIENCE).unwrap();
            let took = asked.elapsed();
            assert!(status.success(), "{}", agent.process().tail());
            assert!(took < SHUTDOWN / 2, "the stop took {took:?}");
            assert_no_failures(records, &agent);
            agent.restart().unwrap();
            sleep(Duration::from_millis(500));
            let before: Vec<u64> = records
                .iter()
                .map(|one| one.answered.load(Relaxed))
                .collect();
            wait_for("answers of the next agent", PATIENCE, || {
                let mut both = records.iter().zip(&before);
                let goes_on = both.all(|(one, before)| one.answered.load(Relaxed) > before + 20);
                Ok(goes_on.then_some(()))
            })
            .unwrap();
            assert_no_failures(records, &agent);
            eprintln!("the stop took {took:?}; {records:?}");
        });
    });
}

/// The last stream of a GOAWAY.
fn last_of(goaway: &Frame) -> u32 {
    u32::from_be_bytes(goaway.payload[..4].try_into().unwrap())
}

/// The next frame of this kind; what else comes meanwhile is kept.
fn until(hand: &mut Hand, wanted: u8, others: &mut Vec<Frame>) -> Frame {
    let patience = Instant::now() + at_this_pace(SOON);
    loop {
        let frame = hand.next(patience).unwrap().expect("nothing comes");
        if frame.kind == wanted && frame.flags & ACK == 0 {
            return frame;
        }
        others.push(frame);
    }
}

/// RFC 9113, section 6.8: the first GOAWAY names no stream, since the client may have opened some
/// that the proxy does not know yet; the second comes a round trip later, and names the last that is
/// served. All of them are.
#[test]
fn streams_opened_before_the_client_knows_are_served() {
    let stage = Stage::served(1, HTTP, "");
    let mut hand = hand(&stage);
    hand.headers(1, &request("GET", "/size/10"), true).unwrap();
    assert_eq!(hand.end_of(1, SOON), End::Answer(200));
    hand.headers(3, &request("GET", "/delay/700"), true)
        .unwrap();
    sleep(Duration::from_millis(100));
    stage.agent.process().signal(Signal::Terminate).unwrap();
    let mut others = Vec::new();
    let first = until(&mut hand, kind::GOAWAY, &mut others);
    assert_eq!((last_of(&first), first.code()), (0x7fff_ffff, 0));
    hand.headers(5, &request("GET", "/delay/300"), true)
        .unwrap();
    let ping = until(&mut hand, kind::PING, &mut others);
    hand.send(kind::PING, ACK, 0, &ping.payload).unwrap();
    let second = until(&mut hand, kind::GOAWAY, &mut others);
    assert_eq!((last_of(&second), second.code()), (5, 0));
    let patience = Instant::now() + at_this_pace(SOON);
    let end = loop {
        match hand.next(patience) {
            Ok(Some(frame)) => others.push(frame),
            Ok(None) => panic!("no end of the connection: {others:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof, "{end}");
    for stream in [3, 5] {
        let ends = |frame: &&Frame| frame.stream == stream && frame.flags & END_STREAM != 0;
        let ended = others.iter().filter(ends).map(|frame| frame.kind);
        assert_eq!(ended.collect::<Vec<_>>(), [kind::DATA], "{others:?}");
    }
    let status = stage.agent.process().wait(PATIENCE).unwrap();
    assert!(status.success(), "{}", stage.agent.process().tail());
}
