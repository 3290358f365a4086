//! Frames of HTTP/2 that break its rules end their stream or the connection, with the code for it.

use lb_tests::http2::{END_STREAM, End, Hand, block, kind, request};

use crate::{
    proxy_h2::{HTTP, SOON, hand},
    proxy_stage::Stage,
};

/// RFC 9113, section 7.
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;

#[test]
fn frames_out_of_order() {
    let stage = Stage::served(1, HTTP, "");
    type Story = fn(&mut Hand);
    let rows: [(&str, Story, &[End]); 19] = [
        (
            "no window, of a stream",
            |hand| {
                hand.headers(1, &request("GET", "/delay/300"), true)
                    .unwrap();
                hand.open_window(1, 0).unwrap();
            },
            &[End::Reset(PROTOCOL_ERROR), End::GoAway(PROTOCOL_ERROR)],
        ),
        (
            "no window, of the connection",
            |hand| {
                hand.open_window(0, 0).unwrap();
            },
            &[End::GoAway(PROTOCOL_ERROR)],
        ),
        (
            "too much window, of a stream",
            |hand| {
                hand.headers(1, &request("GET", "/delay/300"), true)
                    .unwrap();
                hand.open_window(1, 0x7fff_ffff).unwrap();
            },
            &[
                End::Reset(FLOW_CONTROL_ERROR),
                End::GoAway(FLOW_CONTROL_ERROR),
            ],
        ),
        (
            "too much window, of the connection",
            |hand| {
                hand.open_window(0, 0x7fff_ffff).unwrap();
            },
            &[End::GoAway(FLOW_CONTROL_ERROR)],
        ),
        (
            "too large a window for streams",
            |hand| {
                hand.send(kind::SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0])
                    .unwrap();
            },
            &[End::GoAway(FLOW_CONTROL_ERROR)],
        ),
        (
            "DATA behind the end",
            |hand| {
                hand.headers(1, &request("GET", "/delay/300"), true)
                    .unwrap();
                hand.send(kind::DATA, 0, 1, b"more").unwrap();
            },
            &[End::Reset(STREAM_CLOSED), End::GoAway(STREAM_CLOSED)],
        ),
        (
            "HEADERS behind the end",
            |hand| {
                hand.headers(1, &request("GET", "/delay/300"), true)
                    .unwrap();
                hand.headers(1, &request("GET", "/delay/300"), true)
                    .unwrap();
            },
            &[
                End::Reset(STREAM_CLOSED),
                End::GoAway(STREAM_CLOSED),
                End::GoAway(PROTOCOL_ERROR),
                End::Reset(PROTOCOL_ERROR),
            ],
        ),
        (
            "DATA on a stream that never was",
            |hand| {
                hand.send(kind::DATA, END_STREAM, 1, b"x").unwrap();
            },
            &[End::GoAway(PROTOCOL_ERROR)],
        ),
        (
            "DATA on the connection",
            |hand| {
                hand.send(kind::DATA, END_STREAM, 0, b"x").unwrap();
            },
            &[End::GoAway(PROTOCOL_ERROR)],
        ),
        (
            "RST_STREAM of a stream that never was",
            |hand| {
                hand.send(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]).unwrap();
            },
            &[End::GoAway(PROTOCOL_ERROR)],
        ),
        (
            "a server's stream",
            |hand| {
                hand.headers(2, &request("GET", "/delay/300"), true)
                    .unwrap();
            },
            &[End::GoAway(PROTOCOL_ERROR)],
        ),
        (
            "a stream below another",
            |hand| {
                hand.headers(5, &request("GET", "/delay/300"), true)
                    .unwrap();
                hand.headers(3, &request("GET", "/delay/300"), true)
                    .unwrap();
            },
            &[End::GoAway(PROTOCOL_ERROR), End::GoAway(STREAM_CLOSED)],
        ),
        (
            "too long a frame",
            |hand| {
                hand.headers(1, &request("POST", "/echo"), false).unwrap();
                hand.send(kind::DATA, 0, 1, &[0; 16_385]).unwrap();
            },
            &[End::GoAway(FRAME_SIZE_ERROR), End::Reset(FRAME_SIZE_ERROR)],
        ),
        (
            "a PING of seven bytes",
            |hand| {
                hand.send(kind::PING, 0, 0, &[0; 7]).unwrap();
            },
            &[End::GoAway(FRAME_SIZE_ERROR)],
        ),
        (
            "SETTINGS of five bytes",
            |hand| {
                hand.send(kind::SETTINGS, 0, 0, &[0; 5]).unwrap();
            },
            &[End::GoAway(FRAME_SIZE_ERROR)],
        ),
        (
            "SETTINGS of a stream",
            |hand| {
                hand.send(kind::SETTINGS, 0, 1, &[]).unwrap();
            },
            &[End::GoAway(PROTOCOL_ERROR)],
        ),
        (
            "something within a block of headers",
            |hand| {
                let block = block(&request("GET", "/"));
                hand.send(kind::HEADERS, END_STREAM, 1, &block).unwrap();
                hand.send(kind::PING, 0, 0, &[0; 8]).unwrap();
            },
            &[End::GoAway(PROTOCOL_ERROR)],
        ),
        (
            "CONTINUATION of nothing",
            |hand| {
                hand.send(kind::CONTINUATION, 4, 1, &block(&request("GET", "/")))
                    .unwrap();
            },
            &[End::GoAway(PROTOCOL_ERROR)],
        ),
        (
            "a block of nonsense",
            |hand| {
                hand.send(kind::HEADERS, 5, 1, &[0xff; 40]).unwrap();
            },
            &[End::GoAway(COMPRESSION_ERROR), End::GoAway(PROTOCOL_ERROR)],
        ),
    ];
    let mut wrong = Vec::new();
    for (what, story, ends) in rows {
        let mut hand = hand(&stage);
        story(&mut hand);
        let end = hand.end_of(if what.contains("below") { 3 } else { 1 }, SOON);
        // The general code may stand for a particular one.
        if !ends.contains(&end) && end != End::GoAway(PROTOCOL_ERROR) {
            wrong.push((what, end));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // A connection that is not one of HTTP/2 at all, and one that was good before.
    let mut good = hand(&stage);
    good.headers(1, &request("GET", "/delay/300"), true)
        .unwrap();
    assert_eq!(good.end_of(1, SOON), End::Answer(200));
}
