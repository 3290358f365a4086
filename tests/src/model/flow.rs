//! States and times of flows.

use lb_agent::domain::service::Forwarding;
use lb_common::flow::{
    Kind, State,
    tcp_flags::{ACK, FIN, RST, SYN},
};

use super::{
    Model,
    fault::Fault,
    parse::{Parsed, TCP},
    table::{Half, NO_FLOW, Readiness, Way},
};

/// What a packet does to the flow that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// It is a part of it.
    GoesOn,
    /// It begins another in its place, and nothing remains of this one.
    Over,
    /// It begins another in its place, but the port stays taken for a while.
    Superseded,
    /// The flow has ended, and the packet is treated as if nothing were known of it.
    Stray,
}

/// Seconds after which a flow's time is noted again, and what depends on it.
const REFRESH: u64 = 1;

/// The state after a packet. Every line is a line of the README's or of `lb_common`'s words.
pub fn next_state(state: State, kind: Kind, proto: u8, flags: u8) -> State {
    use State::{
        Answered, ClosingByBackend, ClosingByClient, Established, Finished, HalfOpen, Refused,
        Reset,
    };
    let from_client = kind == Kind::Forward;
    if proto != TCP {
        // A forged address gets an answer sent, but never goes on after it.
        return match (state, from_client) {
            (HalfOpen, false) => Answered,
            (Answered, true) => Established,
            (other, _) => other,
        };
    }
    if flags & RST != 0 {
        return match (state, from_client) {
            (HalfOpen | Refused, false) if flags & ACK != 0 => Refused,
            _ => Reset,
        };
    }
    if flags & FIN != 0 {
        return match (state, from_client) {
            (HalfOpen | Answered | Established, true) => ClosingByClient,
            (HalfOpen | Answered | Established, false) => ClosingByBackend,
            (ClosingByClient, false) | (ClosingByBackend, true) => Finished,
            (other, _) => other,
        };
    }
    match (state, from_client) {
        (HalfOpen, false) => Answered,
        (Answered, true) if flags & SYN == 0 => Established,
        (other, _) => other,
    }
}

/// The state after a packet of a client whose backend's answers do not come by here: the client's
/// going on stands for them.
pub fn next_state_alone(state: State, proto: u8, flags: u8) -> State {
    use State::{Answered, ClosingByClient, Established, HalfOpen, Reset};
    let (reset, ends, begins) = if proto == TCP {
        (flags & RST != 0, flags & FIN != 0, flags & SYN != 0)
    } else {
        (false, false, false)
    };
    match state {
        _ if reset => Reset,
        HalfOpen | Answered | Established if ends => ClosingByClient,
        HalfOpen if !begins => Established,
        other => other,
    }
}

fn is_closing(state: State) -> bool {
    matches!(
        state,
        State::ClosingByClient
            | State::ClosingByBackend
            | State::Finished
            | State::Reset
            | State::Refused
    )
}

impl Model {
    /// How many seconds a half may be idle.
    fn lifetime(&self, half: &Half) -> u64 {
        let times = &self.node.lifetimes;
        u64::from(match (half.key.proto, half.state) {
            (TCP, State::Established) => times.tcp_established,
            (TCP, State::ClosingByClient | State::ClosingByBackend) => times.tcp_closing,
            (TCP, State::Finished | State::Reset | State::Refused) => times.tcp_finished,
            (TCP, _) => times.tcp_half_open,
            (_, State::Established) => times.udp_established,
            _ => times.udp_half_open,
        })
    }

    /// Whether a half has been idle beyond its time.
    pub fn is_over(&self, half: &Half) -> bool {
        self.fault != Some(Fault::NeverExpires) && self.now - half.seen > self.lifetime(half)
    }

    /// How readily a half gives up its place to a new one.
    pub fn readiness(&self, half: &Half) -> Readiness {
        let idle = self.now - half.seen;
        if self.is_over(half) {
            Readiness::Over
        } else if half.is_closed() && !self.errs(Fault::SparesClosed) {
            Readiness::Closed
        } else if matches!(half.state, State::HalfOpen | State::Answered)
            && idle >= self.node.grace
            && !self.errs(Fault::SparesUnanswered)
        {
            Readiness::Unanswered(idle)
        } else {
            Readiness::Never
        }
    }

    /// Takes note of a packet of a known flow.
    pub(super) fn note(&mut self, packet: &Parsed, ingress: u32) -> Noted {
        let now = self.now;
        let flags = packet.transport.flags;
        let key = packet.key();
        let Some(half) = self.tables[usize::from(packet.ip.is_v6())]
            .find(&key)
            .cloned()
        else {
            return Noted::Over;
        };
        let aged = now - half.seen >= REFRESH;
        let is_tcp = key.proto == TCP;
        let from_client = half.kind == Kind::Forward;
        let dead = !self.destinations.is_active(half.backend);

        if from_client && is_tcp {
            let opens = flags & (SYN | ACK | RST) == SYN;
            let anew = is_closing(half.state) || dead;
            if opens && anew && !self.errs(Fault::KeepsClosed) {
                return if self.errs(Fault::ForgetsPorts) {
                    Noted::Over
                } else {
                    Noted::Superseded
                };
            }
        }
        if from_client && !is_tcp && aged && dead && !self.errs(Fault::KeepsDead) {
            return Noted::Over;
        }

        if half.flow == NO_FLOW {
            return Noted::Stray;
        }
        let seen_flags = if self.errs(Fault::OverlooksFin) {
            flags & !FIN
        } else {
            flags
        };
        if half.forwarding != Forwarding::Nat && !self.errs(Fault::WaitsForAnswers) {
            let next = next_state_alone(half.state, key.proto, seen_flags);
            if (next != half.state || aged)
                && let Some(half) = self.table(packet.ip.is_v6()).find_mut(&key)
            {
                half.state = next;
                half.seen = now;
            }
            return Noted::GoesOn;
        }
        let mut next = next_state(half.state, half.kind, key.proto, seen_flags);
        if !is_tcp && next == State::Answered && self.errs(Fault::AnswerEstablishes) {
            next = State::Established;
        }
        if next == half.state && !aged {
            return Noted::GoesOn;
        }
        let learns = aged && from_client && !self.errs(Fault::NeverLearns);
        let arrived = self.way_back(packet, ingress);
        let table = self.table(packet.ip.is_v6());
        let Some(other) = table.other(&half) else {
            // An answer whose forward half is gone is let through; a request without the way back
            // is of no use.
            return if from_client {
                Noted::Over
            } else {
                Noted::GoesOn
            };
        };
        for key in [&key, &other] {
            if let Some(half) = table.find_mut(key) {
                half.state = next;
                half.seen = now;
            }
        }
        if let (true, Some(way), Some(reply)) = (learns, arrived, table.find_mut(&other)) {
            reply.way = way;
        }
        Noted::GoesOn
    }

    /// The way by which a packet came, the other way round: to the same router, with the same tags.
    pub(super) fn way_back(&self, packet: &Parsed, ingress: u32) -> Option<Way> {
        let interface = self.node.interface(ingress)?;
        let mut tags = packet.link.tags.clone();
        if self.errs(Fault::LearnsNoTags) {
            tags.clear();
        }
        Some(Way {
            ifindex: interface.ifindex,
            smac: interface.mac,
            dmac: packet.link.smac,
            tags,
        })
    }

    /// The agent's sweep: frees what has been idle beyond its time.
    pub fn sweep(&mut self) {
        for v6 in [false, true] {
            let over: Vec<_> = self.tables[usize::from(v6)]
                .halves()
                .filter(|(_, half)| self.is_over(half))
                .map(|(_, half)| half.key)
                .collect();
            for key in over {
                self.table(v6).remove(&key);
            }
        }
    }
}
