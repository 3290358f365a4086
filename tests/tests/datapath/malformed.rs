//! Packets that end too early or contradict themselves are the stack's to judge.

use lb_common::verdict::{
    Action,
    Verdict::{ForwardReply, ForwardRequest, PassForeign, PassMalformed},
};
use lb_tests::{
    packet::{ACK, Packet, SYN},
    world::{World, action, answer_to},
};

use crate::{
    row::{Row, Side, check_all, run},
    traffic::{ALL, Traffic, at_client},
};

const PORT: u16 = 20_555;

/// Where the network header begins.
const L3: usize = 14;

/// Where the transport header begins.
fn l4(traffic: Traffic) -> usize {
    if traffic.v6 { 54 } else { 34 }
}

fn with(packet: &Packet, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut frame = packet.build();
    change(&mut frame);
    frame
}

fn set(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// A valid packet that ends early, at every length that the kernel runs (an Ethernet header and
/// more), in both directions; and the whole one after all of them.
#[test]
fn truncated_anywhere() {
    World::with(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let mut request = traffic.request(PORT, SYN);
            if !traffic.v6 {
                request.options = vec![1; 8];
            }
            let sent = traffic.at_backend(&request, 2, PORT);
            let answer = answer_to(&sent, ACK);
            let got = at_client(&request, &answer);
            for (side, packet, verdict, out) in [
                (Side::Front, &request, ForwardRequest, sent),
                (Side::Back, &answer, ForwardReply, got),
            ] {
                let frame = packet.build();
                let rows = (L3..frame.len()).map(|length| {
                    let what = format!("{traffic:?}, {side:?}, cut at {length}");
                    Row::refused(what, side, frame[..length].to_vec(), PassMalformed)
                });
                check_all(world, rows);
                let out = (action::REDIRECT, out);
                Row::forwarded("whole", side, packet, verdict, out).check(world);
            }
        }
    })
    .unwrap();
}

/// Lengths and versions that cannot be.
#[test]
fn headers_that_lie() {
    World::with(|world| {
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let request = traffic.request(PORT, SYN);
            let sent = traffic.at_backend(&request, 2, PORT);
            let answer = answer_to(&sent, ACK);
            let header: u16 = if traffic.tcp { 20 } else { 8 };
            let payload = request.payload.len() as u16;
            for (side, packet) in [(Side::Front, &request), (Side::Back, &answer)] {
                let mut rows: Vec<(String, Vec<u8>)> = Vec::new();
                let mut row = |what: String, change: &dyn Fn(&mut [u8])| {
                    rows.push((what, with(packet, change)));
                };
                let right = if traffic.v6 { 6 } else { 4 };
                for version in (0..16).filter(|version| *version != right) {
                    let change = |f: &mut [u8]| f[L3] = version << 4 | f[L3] & 15;
                    row(format!("version {version}"), &change);
                }
                if traffic.v6 {
                    for length in [0, 1, header - 1, header + payload + 1, 1500, u16::MAX] {
                        row(format!("payload length {length}"), &|f| {
                            set(f, L3 + 4, length)
                        });
                    }
                } else {
                    for words in [0, 1, 4, 15] {
                        row(format!("IHL {words}"), &|f| f[L3] = 0x40 | words);
                    }
                    let whole = 20 + header + payload;
                    for length in [0, 19, 20, 20 + header - 1, whole + 1, 1500, u16::MAX] {
                        row(format!("total length {length}"), &|f| {
                            set(f, L3 + 2, length)
                        });
                    }
                }
                if traffic.tcp {
                    let at = l4(traffic) + 12;
                    for words in [0, 4, 7, 15] {
                        row(format!("data offset {words}"), &|f| f[at] = words << 4);
                    }
                } else {
                    let at = l4(traffic) + 4;
                    for length in [0, 7, header + payload + 1, 1500, u16::MAX] {
                        row(format!("UDP length {length}"), &|f| set(f, at, length));
                    }
                }
                let rows = rows.into_iter().map(|(what, frame)| {
                    let what = format!("{traffic:?}, {side:?}, {what}");
                    Row::refused(what, side, frame, PassMalformed)
                });
                check_all(world, rows);
            }
            // The family of the EtherType is not that of the header.
            let other = if traffic.v6 { 0x0800 } else { 0x86dd };
            let frame = with(&request, |f| set(f, 12, other));
            Row::refused("other EtherType", Side::Front, frame, PassMalformed).check(world);
            // A header that lies is not looked into, so it does not matter whose it is; one that
            // is foreign is not looked at further.
            let foreign = traffic.packet((traffic.client(), 1), (traffic.client(), 2), SYN);
            let lies = with(&foreign, |f| f[L3] = 0);
            let ends = with(&foreign, |f| f[l4(traffic) + 4..].fill(0));
            check_all(
                world,
                [
                    Row::refused("foreign, lies", Side::Front, lies, PassMalformed),
                    Row::refused("foreign, bad transport", Side::Front, ends, PassForeign),
                ],
            );
        }
    })
    .unwrap();
}

/// Valid packets with some bytes changed by chance: whatever the verdict, it fits the action, a
/// packet that is not forwarded leaves as it came (both checked of every frame), and one that is
/// forwarded keeps its length, its protocol and its payload.
#[test]
fn bytes_changed_by_chance() {
    World::with(|world| {
        let mut random = crate::chance::Random::new(0x6c62_6e6f_6973_6521);
        for traffic in ALL {
            traffic.serve(world, &[2]);
            let request = traffic.request(PORT, ACK);
            let sent = traffic.establish(world, &request).unwrap();
            let answer = answer_to(&sent, ACK);
            for (side, packet) in [(Side::Front, &request), (Side::Back, &answer)] {
                let valid = packet.build();
                let mut forwarded = 0;
                for _ in 0..500 {
                    let mut frame = valid.clone();
                    for _ in 0..=random.below(3) {
                        // Anything behind the link addresses.
                        let at = 12 + random.below(frame.len() as u32 - 12) as usize;
                        frame[at] = random.below(256) as u8;
                    }
                    let cut = random.below(4) == 0;
                    if cut {
                        frame.truncate(14 + random.below(frame.len() as u32 - 14) as usize);
                    }
                    let outcome = run(world, side, &frame)
                        .unwrap_or_else(|error| panic!("{traffic:?}: {error}: {frame:02x?}"));
                    if outcome.verdict.action() != Action::Forward {
                        continue;
                    }
                    forwarded += 1;
                    assert_eq!(outcome.frame.len(), frame.len(), "{frame:02x?}");
                    let protocol = if traffic.v6 { 20 } else { 23 };
                    assert_eq!(outcome.frame[protocol], frame[protocol], "{frame:02x?}");
                    // Unless options moved it, the payload is the last there is.
                    let payload = frame.len() - 4..;
                    assert_eq!(
                        outcome.frame[payload.clone()],
                        frame[payload],
                        "{frame:02x?}"
                    );
                }
                assert!(
                    forwarded > 20,
                    "{traffic:?}, {side:?}: {forwarded} forwarded"
                );
            }
        }
    })
    .unwrap();
}
