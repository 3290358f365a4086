//! Who speaks when: answers before the request is over, `100 Continue`, half-closed connections.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

use super::stage::{Got, SOON, Stage, statuses};

fn head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head");
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .expect("the end, and no reset");
    bytes
}

/// A client that waits for it gets `100 Continue`, and the backend no `Expect`.
#[test]
fn who_waits_is_told_to_continue() {
    let stage = Stage::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut stream = stage.connect();
    let request = "POST / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    assert_eq!(head(&mut stream), "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").unwrap();
    let got = Got::read(&rest(&mut stream));
    assert_eq!((got.status, &*got.text()), (200, "ok"));
    let seen = stage.take();
    assert_eq!((seen[0].header("expect"), &*seen[0].body), (None, "hello"));
}

/// Who is refused before its body is asked for is not told to send it.
#[test]
fn who_is_refused_is_not_told_to_continue() {
    let stage = Stage::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    for (host, status) in [("nobody", 404), ("we b", 400)] {
        let mut stream = stage.connect();
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {host}\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(statuses(&rest(&mut stream)), [status], "{host}");
    }
    assert!(stage.take().is_empty());
}

/// A backend that answers before it has the body: the client gets that answer whole, though it
/// goes on sending for a while, and its connection is not used for what it might take for another.
#[test]
fn an_early_answer_reaches_who_still_sends() {
    let answer = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 7\r\n\r\nenough!";
    let later = Stage::early(answer, SOON / 3);
    // Its end may be there before its answer was read.
    let at_once = Stage::early(answer, Duration::ZERO);
    thread::scope(|scope| {
        for stage in [&later; 4].into_iter().chain([&at_once; 16]) {
            scope.spawn(|| sends_on(stage));
        }
    });
}

/// A client that sends far more than the backend waits for.
fn sends_on(stage: &Stage) {
    let mut stream = stage.connect();
    let length = 20_usize << 30;
    let request = format!("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let writing = thread::spawn(move || {
        let chunk = vec![b'x'; 1 << 16];
        let mut sent = 0_usize;
        while sent < length && writer.write_all(&chunk).is_ok() {
            sent += chunk.len();
        }
        sent
    });
    let got = Got::read(&rest(&mut stream));
    assert_eq!((got.status, &*got.text()), (413, "enough!"), "{got:?}");
    drop(stream);
    assert!(
        writing.join().unwrap() < length,
        "all was taken of what nobody wants"
    );
}

/// What the proxy itself refuses in the middle of a body is answered as readably.
#[test]
fn a_refusal_reaches_who_still_sends() {
    let stage = Stage::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    for (head, status) in [
        (
            "Content-Length: 50000000\r\nTransfer-Encoding: chunked\r\nHost: web\r\n",
            400,
        ),
        ("Content-Length: 50000000\r\nHost: nobody\r\n", 404),
        ("Content-Length: 50000000\r\nHost: we b\r\n", 400),
    ] {
        let mut stream = stage.connect();
        stream.set_write_timeout(Some(SOON)).unwrap();
        stream
            .write_all(format!("POST / HTTP/1.1\r\n{head}\r\n").as_bytes())
            .unwrap();
        let _ = stream.write_all(&vec![b'x'; 10_000_000]);
        assert_eq!(statuses(&rest(&mut stream)), [status], "{head:?}");
    }
    assert!(stage.take().is_empty());
}

/// A client that has ended its side gets its answers, late ones too.
#[test]
fn half_closed_clients_are_answered() {
    let stage = Stage::with(|_, stream| {
        thread::sleep(Duration::from_millis(200));
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")?;
        thread::sleep(Duration::from_millis(200));
        stream.write_all(b"0\r\n\r\n")
    });
    for request in [
        "GET / HTTP/1.1\r\nHost: web\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        let mut stream = stage.connect();
        stream.write_all(request.repeat(2).as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let answers = rest(&mut stream);
        assert_eq!(statuses(&answers), [200, 200], "{request:?}");
        assert!(answers.ends_with(b"5\r\nhello\r\n0\r\n\r\n"), "{request:?}");
    }
}

/// A body that a client does not finish is never finished for it.
#[test]
fn half_a_body_is_no_request() {
    let stage = Stage::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    for request in [
        "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 10\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "POST / HTTP/1.1\r\nHost: web\r\nContent-Le",
    ] {
        let mut stream = stage.connect();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let found = statuses(&rest(&mut stream));
        assert!(found.is_empty() || found == [400], "{request:?}: {found:?}");
        assert_eq!(stage.take(), [], "{request:?}");
    }
}

/// Requests one behind the other without waiting are answered in their order.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let stage = Stage::with(|seen, stream| {
        let path = seen.head[0].split(' ').nth(1).unwrap().to_owned();
        let length = path.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{path}"
        )?;
        io::Result::Ok(())
    });
    let mut requests: String = (0..50)
        .map(|number| {
            format!("POST /x{number}y HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc")
        })
        .collect();
    requests += "GET /xendy HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";
    let answers = String::from_utf8(stage.raw(requests.as_bytes())).unwrap();
    let paths: Vec<&str> = answers
        .split("/x")
        .skip(1)
        .map(|rest| rest.split('y').next().unwrap())
        .collect();
    let expected: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    assert_eq!(paths[..50], expected[..]);
    assert_eq!(paths[50..], ["end"]);
}
