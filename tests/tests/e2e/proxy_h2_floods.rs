//! HTTP/2 that is meant to harm: floods, requests taken back, answers that nobody takes. Memory and
//! work stay bounded, and nobody else notices.

use std::{
    fs,
    time::{Duration, Instant},
};

use lb_tests::{
    http2::{ACK, END_HEADERS, END_STREAM, End, Hand, block, frame, kind, request},
    process::wait_for,
};

use crate::{
    proxy_h2::{HTTP, SOON, assert_others_are_served, hand},
    proxy_stage::{SHARED, Stage},
    scene::{PATIENCE, address},
};

/// RFC 9113, section 7.
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;
/// SETTINGS_INITIAL_WINDOW_SIZE.
const WINDOW: u16 = 4;

fn with(stage: &Stage, settings: &[(u16, u32)]) -> Hand {
    Hand::connect(stage.client(), address(SHARED), settings).unwrap()
}

/// Resident memory of the agent, in bytes.
fn memory(stage: &Stage) -> usize {
    let path = format!("/proc/{}/statm", stage.agent.process().pid());
    let text = fs::read_to_string(path).unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

const MIB: usize = 1 << 20;

/// No client has more streams at a time than it may, and those that it has are not harmed.
#[test]
fn streams_are_bounded() {
    let stage = Stage::served(1, HTTP, "bounds = { streams = 50 }\n");
    let mut hand = hand(&stage);
    for number in 0..60 {
        let stream = number * 2 + 1;
        hand.headers(stream, &request("GET", "/delay/1500"), true)
            .unwrap();
    }
    let until = Instant::now() + SOON;
    let (mut refused, mut answered) = (0, 0);
    while refused + answered < 60 {
        let frame = hand.next(until).unwrap().expect("a word on every stream");
        match frame.kind {
            kind::RST_STREAM => {
                assert_eq!(frame.code(), REFUSED_STREAM);
                refused += 1;
            }
            kind::HEADERS => answered += 1,
            kind::GOAWAY => panic!("the connection ends: {}", frame.code()),
            _ => {}
        }
    }
    assert_eq!((refused, answered), (10, 50));
    assert_eq!(stage.seen(1).by_id["none"], 50);
}

/// Requests that are taken back at once (CVE-2023-44487), in one piece and one by one.
#[test]
fn rapid_resets() {
    let stage = Stage::served(1, HTTP, "");
    let before = memory(&stage);
    let one = |number: u32, path| {
        let stream = number * 2 + 1;
        let head = frame(kind::HEADERS, 5, stream, &block(&request("GET", path)));
        [
            head,
            frame(kind::RST_STREAM, 0, stream, &CANCEL.to_be_bytes()),
        ]
        .concat()
    };
    let mut at_once = hand(&stage);
    let all: Vec<u8> = (0..5000).flat_map(|number| one(number, "/hang")).collect();
    // It is cut off while it speaks.
    let _ = at_once.write(&all);
    let end = at_once.end_of(u32::MAX, SOON);
    assert!(
        [End::GoAway(ENHANCE_YOUR_CALM), End::Closed].contains(&end),
        "{end:?}"
    );
    assert_others_are_served(&stage);

    let mut slowly = hand(&stage);
    let mut sent = 0;
    for number in 0..3000_u32 {
        let stream = number * 2 + 1;
        let path = "/hang";
        if slowly.headers(stream, &request("GET", path), true).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_micros(500));
        if slowly
            .send(kind::RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
            .is_err()
        {
            break;
        }
        sent += 1;
        if sent % 500 == 0 {
            assert_others_are_served(&stage);
        }
    }
    let end = slowly.end_of(u32::MAX, Duration::from_millis(500));
    println!(
        "one by one: {sent} sent, then {end:?}; backend {:?}",
        stage.seen(1).total
    );
    // It was told to go, and did not.
    assert!([End::GoAway(0), End::Closed].contains(&end), "{end:?}");
    assert!(sent < 1100, "{sent}");
    assert_others_are_served(&stage);
    wait_for("nothing to be under way", PATIENCE, || {
        let active = stage.metric("lb_proxy_active_requests", &["service=\"web\""]);
        Ok((active == 0.0).then_some(()))
    })
    .unwrap();
    let grown = memory(&stage).saturating_sub(before);
    assert!(grown < 32 * MIB, "{grown} bytes");
}

/// Who takes back every other request, as clients that ask two and take the first answer do, stays.
#[test]
fn some_requests_taken_back() {
    let stage = Stage::served(1, HTTP, "");
    let mut hand = hand(&stage);
    for number in 0..300_u32 {
        let [kept, taken_back] = [number * 4 + 1, number * 4 + 3];
        hand.headers(kept, &request("GET", "/"), true).unwrap();
        hand.headers(taken_back, &request("GET", "/hang"), true)
            .unwrap();
        hand.send(kind::RST_STREAM, 0, taken_back, &CANCEL.to_be_bytes())
            .unwrap();
        assert_eq!(hand.end_of(kept, SOON), End::Answer(200), "{number}");
    }
}

/// Floods of what costs the sender nothing: the connection ends, or takes no more, in little memory.
#[test]
fn floods() {
    let stage = Stage::served(1, HTTP, "");
    let before = memory(&stage);
    let endless = |first: Vec<u8>, piece: Vec<u8>| {
        let mut hand = hand(&stage);
        hand.write(&first).unwrap();
        let pieces = piece.repeat(64 * 1024 / piece.len() + 1);
        let begun = Instant::now();
        let mut sent = 0;
        // 64 MB, or as much as it takes within a while.
        while sent < 64 * MIB && begun.elapsed() < Duration::from_secs(8) {
            match hand.write(&pieces) {
                Ok(()) => sent += pieces.len(),
                Err(_) => break,
            }
        }
        (hand, sent)
    };
    let more = block(&[(b"x-a", &[b'x'; 4000])]);
    let begun = frame(
        kind::HEADERS,
        END_STREAM,
        1,
        &block(&request("GET", "/size/1")),
    );
    let open = frame(
        kind::HEADERS,
        END_HEADERS,
        1,
        &block(&request("POST", "/echo")),
    );
    for (what, first, piece, ends) in [
        (
            "CONTINUATION",
            begun.clone(),
            frame(kind::CONTINUATION, 0, 1, &more),
            true,
        ),
        (
            "empty CONTINUATION",
            begun,
            frame(kind::CONTINUATION, 0, 1, &[]),
            true,
        ),
        ("PING", Vec::new(), frame(kind::PING, 0, 0, &[0; 8]), false),
        (
            "SETTINGS",
            Vec::new(),
            frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]),
            false,
        ),
        (
            "acknowledgements",
            Vec::new(),
            frame(kind::SETTINGS, ACK, 0, &[]),
            false,
        ),
        ("empty DATA", open, frame(kind::DATA, 0, 1, &[]), false),
        (
            "priorities",
            Vec::new(),
            frame(2, 0, 1, &[0, 0, 0, 3, 7]),
            false,
        ),
    ] {
        let (mut hand, sent) = endless(first, piece);
        let grown = memory(&stage).saturating_sub(before);
        let end = hand.end_of(u32::MAX, Duration::from_millis(300));
        println!("{what}: {sent} bytes sent, {grown} bytes grown, {end:?}");
        assert!(grown < 32 * MIB, "{what}: {grown} bytes");
        if ends {
            assert!(sent < 8 * MIB, "{what}: it took {sent} bytes");
        }
        assert_others_are_served(&stage);
    }
}

/// A client that takes its time gets all of an answer.
#[test]
fn windows_that_open_slowly() {
    const SIZE: usize = 10_000_000;
    let stage = Stage::served(1, HTTP, "");
    let mut hand = with(&stage, &[(WINDOW, 0)]);
    hand.headers(1, &request("GET", "/size/10000000"), true)
        .unwrap();
    let mut came = 0;
    let mut granted = 0;
    loop {
        let frame = hand
            .next(Instant::now() + Duration::from_millis(if came < granted { 5000 } else { 5 }));
        match frame.unwrap() {
            Some(frame) if frame.kind == kind::DATA => {
                came += frame.payload.len();
                assert!(came <= granted, "{came} bytes of {granted}");
                if frame.flags & END_STREAM != 0 {
                    break;
                }
            }
            Some(frame) if [kind::RST_STREAM, kind::GOAWAY].contains(&frame.kind) => {
                panic!("it ends with {} after {came} bytes", frame.code());
            }
            Some(_) => {}
            None if came == granted => {
                // An odd number, so that frames are cut in odd places.
                let more = 99_991;
                hand.open_window(1, more).unwrap();
                hand.open_window(0, more).unwrap();
                granted += more as usize;
            }
            None => panic!("{came} of {granted} bytes granted came"),
        }
    }
    assert_eq!(came, SIZE);
}

/// Answers that nobody takes pile up nowhere, whatever backends are spoken to with, and nobody else
/// waits for them.
#[test]
fn stalled_answers_take_little_memory() {
    for upstream in ["http1", "http2"] {
        let service = format!("{HTTP}upstream = {{ version = \"{upstream}\" }}\n");
        let stage = Stage::served(1, &service, "");
        assert_others_are_served(&stage);
        let before = memory(&stage);
        // Those that take nothing at all, and those that stop after the usual window.
        let mut stalled: Vec<Hand> = [0, 65_535]
            .map(|window| with(&stage, &[(WINDOW, window)]))
            .into();
        for hand in &mut stalled {
            for number in 0..100 {
                hand.headers(number * 2 + 1, &request("GET", "/size/10000000"), true)
                    .unwrap();
            }
        }
        wait_for("the answers to begin", PATIENCE, || {
            Ok((stage.seen(1).total >= 200).then_some(()))
        })
        .unwrap();
        std::thread::sleep(Duration::from_secs(1));
        let grown = memory(&stage).saturating_sub(before);
        println!(
            "{upstream}: {} KiB for each stalled answer",
            grown / 200 / 1024
        );
        assert!(grown < 200 * 320 * 1024, "{upstream}: {grown} bytes");
        assert_others_are_served(&stage);
        // A large one passes as well.
        let mut other = with(&stage, &[(WINDOW, 0x7fff_ffff)]);
        other.open_window(0, 0x3fff_ffff).unwrap();
        other
            .headers(1, &request("GET", "/size/10000000"), true)
            .unwrap();
        let (until, mut came) = (Instant::now() + 2 * SOON, 0);
        while came < 10_000_000 {
            let frame = other.next(until).unwrap();
            let frame = frame.unwrap_or_else(|| panic!("{upstream}: {came} bytes came"));
            if frame.kind == kind::DATA {
                came += frame.payload.len();
            }
        }
        // Those that go leave nothing behind.
        drop(stalled);
        wait_for("the requests to end", PATIENCE, || {
            let active = stage.metric("lb_proxy_active_requests", &["service=\"web\""]);
            Ok((active == 0.0).then_some(()))
        })
        .unwrap();
    }
}
