//! Conversations by chance: what comes next, and everything about a packet that is not to change.

use super::{
    flow::Flow,
    pair::Step,
    segment::{DF, Segment, Sum, TCP},
};
use crate::chance::Random;

pub(crate) const FIN: u16 = 0x01;
pub(crate) const SYN: u16 = 0x02;
pub(crate) const RST: u16 = 0x04;
pub(crate) const PSH: u16 = 0x08;
pub(crate) const ACK: u16 = 0x10;
pub(crate) const URG: u16 = 0x20;

/// How far a TCP connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    New,
    Asked,
    Answered,
    Open,
    ClosedByClient,
    ClosedByBackend,
    Closed,
    Reset,
}

/// A conversation under way.
#[derive(Clone, Debug)]
pub(crate) struct Talk {
    pub(crate) flow: Flow,
    stage: Stage,
    /// Packets so far.
    pub(crate) packets: u32,
}

fn one<T: Copy>(random: &mut Random, of: &[T]) -> T {
    of[random.below(of.len() as u32) as usize]
}

fn bytes(random: &mut Random, count: u32) -> Vec<u8> {
    (0..count).map(|_| random.below(256) as u8).collect()
}

impl Talk {
    /// One that is yet to begin.
    pub(crate) fn draw(random: &mut Random) -> Self {
        Self {
            flow: Flow::draw(random),
            stage: Stage::New,
            packets: 0,
        }
    }

    /// What comes next, and whether it is a packet of the backend's.
    pub(crate) fn next(&mut self, random: &mut Random) -> Step {
        self.packets += 1;
        let (replies, flags) = if self.flow.proto == TCP {
            self.next_segment(random)
        } else {
            (self.flow.given[1] != 0 && random.below(2) == 1, 0)
        };
        let opens = flags & (SYN | ACK) == SYN || self.flow.proto != TCP && self.packets == 1;
        self.flow.anew = !replies && opens;
        let drawn = if replies {
            dress(random, &self.flow.reply_in_front(), flags)
        } else {
            dress(random, &self.flow.request(), flags)
        };
        // What begins or ends a conversation is honest, so that both nodes agree on where it is.
        let plain = flags & (SYN | FIN | RST) == 0 && self.packets > 1;
        let lie = match Lie::draw(random, &self.flow) {
            lie if plain => lie,
            _ => Lie::None,
        };
        let clothe = |segment: &mut Segment| {
            *segment = Segment {
                proto: segment.proto,
                src: segment.src,
                dst: segment.dst,
                sport: segment.sport,
                dport: segment.dport,
                ..drawn.clone()
            };
        };
        let what = format!("packet {} of {:?}, {lie:?}", self.packets, self.flow);
        let mut step = if replies {
            self.flow.answers(&what, clothe)
        } else {
            self.flow.asks(&what, clothe)
        };
        for (_, frame) in step.frames.iter_mut().flatten() {
            lie.tell(frame, drawn.padding);
        }
        step
    }

    /// Who sends, and with which flags.
    fn next_segment(&mut self, random: &mut Random) -> (bool, u16) {
        use Stage::*;
        let extra = one(random, &[0, 0, PSH, PSH, URG, URG | PSH]);
        let chance = random.below(100);
        let data = (random.below(2) == 1, ACK | extra);
        let (next, sent) = match self.stage {
            New => (Asked, (false, SYN)),
            Asked if chance < 15 => (Asked, (false, SYN)),
            Asked if chance < 20 => (Reset, (true, RST | ACK)),
            Asked => (Answered, (true, SYN | ACK)),
            Answered if chance < 15 => (Answered, (true, SYN | ACK)),
            Answered => (Open, (false, ACK)),
            Open if chance < 75 => (Open, data),
            Open if chance < 84 => (ClosedByClient, (false, FIN | ACK | extra)),
            Open if chance < 93 => (ClosedByBackend, (true, FIN | ACK | extra)),
            Open => (Reset, (random.below(2) == 1, RST | one(random, &[0, ACK]))),
            ClosedByClient if chance < 60 => (ClosedByClient, data),
            ClosedByClient => (Closed, (true, FIN | ACK)),
            ClosedByBackend if chance < 60 => (ClosedByBackend, data),
            ClosedByBackend => (Closed, (false, FIN | ACK)),
            // The last ones on their way; or the same ports once more.
            Closed if chance < 60 => (Closed, (random.below(2) == 1, ACK)),
            Closed | Reset => (Asked, (false, SYN)),
        };
        self.stage = next;
        let bits = if sent.1 & SYN == 0 {
            // Congestion control's, the ninth included (RFC 3168, RFC 3540).
            one(random, &[0, 0, 0x40, 0x80, 0xc0, 0x100, 0x1c0])
        } else {
            one(random, &[0, 0, 0xc0])
        };
        (sent.0, sent.1 | bits)
    }
}

/// A packet with all that packets can have, between the ends that a client sees.
fn dress(random: &mut Random, plain: &Segment, flags: u16) -> Segment {
    let (v4, tcp) = (plain.src.is_ipv4(), plain.proto == TCP);
    // At least one is left after this hop.
    let hops = 2 + random.below(254) as u8;
    let ttl = one(random, &[64, 255, 2, hops]);
    let urgent = random.below(65_536) as u16;
    let urgent = one(random, &[0, 0, urgent]);
    let mut segment = Segment {
        tos: random.below(256) as u8,
        id: random.below(65_536) as u16,
        fragment: one(random, &[0, DF]),
        ttl,
        flags,
        sequence: random.below(u32::MAX),
        acknowledges: random.below(u32::MAX),
        window: random.below(65_536) as u16,
        urgent,
        ..plain.clone()
    };
    if v4 {
        // No operation, end of options, security (RFC 1108), and one that nobody knows.
        let options: [&[u8]; 5] = [
            &[],
            &[],
            &[1, 1, 1, 0],
            &[130, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1],
            &[0x5e, 4, 1, 2, 1, 1, 1, 1],
        ];
        segment.options = one(random, &options).to_vec();
    }
    if tcp {
        let options: [&[u8]; 6] = [
            &[],
            &[],
            &[2, 4, 5, 180],
            &[
                2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7,
            ],
            &[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
            &[1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 9, 254, 4, 1, 2],
        ];
        segment.tcp_options = one(random, &options).to_vec();
    }
    let most = 1500 - segment.packet().len() as u32;
    let length = match random.below(4) {
        0 => 0,
        1 => random.below(8),
        2 => random.below(most + 1),
        _ => random.below(200),
    };
    segment.payload = bytes(random, length);
    segment.sum = match random.below(20) {
        0 => Sum::Wrong(1 + random.below(65_000) as u16),
        1 => Sum::OtherZero,
        2..=5 if !tcp => Sum::Absent,
        _ => Sum::Right,
    };
    // One sum of 65,536 is zero, which is a case of its own: a request that comes with it, a
    // reply that leaves with it.
    if length >= 2 && random.below(10) == 0 {
        make_sum_zero(&mut segment);
    }
    // Ethernet's shortest.
    let short = (60 - 14_usize).saturating_sub(segment.packet().len());
    segment.padding = one(random, &[0, short]);
    segment
}

/// Chooses the payload's first word so that the checksum comes to zero.
fn make_sum_zero(segment: &mut Segment) {
    segment.sum = Sum::Right;
    segment.payload[..2].fill(0);
    let l4 = segment.transport();
    let at = if segment.proto == TCP { 16 } else { 6 };
    let sum = [l4[at], l4[at + 1]];
    segment.payload[..2].copy_from_slice(&sum);
}

/// A header that does not say what is there. Both ought to leave such a packet alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    /// The frame ends after this part of 256 of it.
    CutOff(u32),
    /// The IP header speaks of more or fewer bytes.
    Length(i16),
    /// So does UDP's; or TCP's offset is this.
    Transport(u16),
    /// Another version of IP.
    Version(u8),
}

impl Lie {
    fn draw(random: &mut Random, flow: &Flow) -> Self {
        match random.below(100) {
            0 => Self::CutOff(random.below(256)),
            1 | 2 => Self::Length(random.below(80) as i16 - 40),
            3 | 4 if flow.proto == TCP => Self::Transport(random.below(16) as u16),
            3 | 4 => Self::Transport(random.below(100) as u16),
            5 => Self::Version(one(random, &[0, 5, 7, 15])),
            _ => Self::None,
        }
    }

    fn tell(self, frame: &mut Vec<u8>, padding: usize) {
        let v4 = frame[12] == 0x08;
        let header = if v4 {
            14 + usize::from(frame[14] & 15) * 4
        } else {
            54
        };
        match self {
            Self::None => {}
            Self::CutOff(part) => {
                // An interface takes nothing without a link header.
                let all = frame.len() - padding - 14;
                frame.truncate(14 + all * part as usize / 256);
            }
            Self::Length(more) => {
                let at = if v4 { 16 } else { 18 };
                let length = u16::from_be_bytes([frame[at], frame[at + 1]]);
                let length = length.saturating_add_signed(more);
                frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
            }
            Self::Transport(number) => {
                let tcp = if v4 { frame[23] } else { frame[20] } == TCP;
                if tcp {
                    frame[header + 12] = (number as u8) << 4 | frame[header + 12] & 15;
                } else {
                    frame[header + 4..header + 6].copy_from_slice(&number.to_be_bytes());
                }
            }
            Self::Version(version) => frame[14] = version << 4 | frame[14] & 15,
        }
        if v4 && self != Self::None && frame.len() >= header {
            frame[24..26].fill(0);
            let sum = lb_tests::model::sum::with_error(&frame[14..header], 0, 0);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
    }
}
