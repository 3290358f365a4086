//! What has become of the connections that clients opened: each is judged once, whenever a sweep
//! first meets it with an answer or without one for too long.
//!
//! Only TCP, where every host must answer a SYN. A reset in the middle of a connection, which a client
//! can bring about with a backend that works, is counted apart, once as well. A slot that
//! was given away between two sweeps is a connection that nobody judges; what is read is a sample.

use lb_common::{
    IPPROTO_TCP,
    flow::{ALONE, Kind, State, Tag},
    lifetime::is_idle_beyond,
};

use super::Entry;
use crate::domain::kernel::{Attempts, Census};

/// Seconds without an answer from which a connection counts as unanswered. Clients repeat a SYN
/// after one second at the earliest (RFC 6298, section 2), then ever more seldom.
const UNANSWERED: u32 = 1;

/// Which slots hold a flow that has been judged: one byte for each, of which the kernel gives
/// memory when it is first written to.
#[derive(Debug)]
pub struct Judged {
    /// By family; empty: nothing is judged.
    marks: [Vec<u8>; 2],
    /// The first sweep finds what was opened before, for which nobody is to be blamed now.
    begun: bool,
    /// The last sweep found nothing at all in the tables.
    nothing: bool,
}

impl Judged {
    pub(super) fn new(slots: u32) -> Self {
        Self {
            marks: [vec![0; slots as usize], vec![0; slots as usize]],
            begun: false,
            nothing: false,
        }
    }

    pub(super) fn nothing() -> Self {
        Self {
            marks: [Vec::new(), Vec::new()],
            begun: false,
            nothing: false,
        }
    }

    /// Looks at a live half of a family's table, at the tick `now` of so many a second.
    pub(super) fn judge<A>(
        &mut self,
        v6: bool,
        entry: &Entry<A>,
        (now, per_second): (u32, u32),
        census: &mut Census,
    ) {
        let Entry { index, tag, half } = entry;
        // Where the backend answers the client itself nobody sees whether it does.
        let alone = half.partner == ALONE;
        if tag.proto() != IPPROTO_TCP || tag.kind() != Some(Kind::Forward) || alone {
            return;
        }
        let Some(mark) = self.marks[usize::from(v6)].get_mut(*index as usize) else {
            return;
        };
        let own = mark_of(*tag);
        let reset = own | RESET;
        if *mark == reset {
            return;
        }
        if tag.state() == Some(State::Reset) {
            *mark = reset;
            if self.begun {
                census.attempts.entry(half.backend).or_default().reset += 1;
            }
            return;
        }
        if *mark == own {
            return;
        }
        let count: fn(&mut Attempts) -> &mut u64 = match tag.state() {
            Some(State::HalfOpen) if is_idle_beyond(UNANSWERED * per_second, now, half.seen) => {
                |attempts| &mut attempts.unanswered
            }
            Some(State::HalfOpen) | None => return,
            Some(State::Refused) => |attempts| &mut attempts.refused,
            Some(_) => |attempts| &mut attempts.accepted,
        };
        *mark = own;
        if self.begun {
            *count(census.attempts.entry(half.backend).or_default()) += 1;
        }
    }

    /// A sweep has come to its end, having found `something` or nothing in the tables.
    pub(super) fn finish(&mut self, something: bool) {
        self.begun = true;
        self.nothing = !something;
    }

    /// Whether the last sweep found neither flows nor marks: the next one would find the same,
    /// unless a packet has come meanwhile.
    pub fn found_nothing(&self) -> bool {
        self.nothing
    }
}

/// In a mark: the flow's reset has been counted as well.
const RESET: u8 = 0x80;

/// Tells the slot's flow from its former one, by the generation; never 0, and the same for two
/// that are 127 apart.
fn mark_of(tag: Tag) -> u8 {
    1 + tag.generation() % 127
}

#[cfg(test)]
mod tests {
    use lb_common::{
        IPPROTO_UDP,
        flow::{Half, NO_PARTNER},
        vlan::Tags,
    };

    use super::*;

    const PER_SECOND: u32 = 100;

    fn entry(index: u32, generation: u8, kind: Kind, proto: u8, state: State) -> Entry<u32> {
        Entry {
            index,
            tag: Tag::new(7 << 32, generation, kind, proto, state),
            half: Half {
                saddr: 1,
                daddr: 2,
                new_saddr: 3,
                new_daddr: 4,
                ports: 5,
                new_ports: 6,
                l3_delta: 0,
                l4_delta: 0,
                hop: 0,
                partner: NO_PARTNER,
                backend: 9,
                seen: 1000,
                dmac: [0; 6],
                spilled: 0,
                tags: Tags::NONE,
            },
        }
    }

    /// What one flow counts as in three sweeps, so many ticks after its last packet.
    fn counted(states: [State; 3], ticks: u32) -> Vec<(u64, u64, u64)> {
        let mut judged = Judged::new(8);
        judged.finish(true);
        let sweeps = states.iter().map(|state| {
            let mut census = Census::default();
            let entry = entry(3, 1, Kind::Forward, IPPROTO_TCP, *state);
            judged.judge(false, &entry, (1000 + ticks, PER_SECOND), &mut census);
            judged.finish(true);
            let found = census.attempts.get(&9).copied().unwrap_or_default();
            (found.accepted, found.refused, found.unanswered)
        });
        sweeps.collect()
    }

    /// Every state, and that no flow counts twice, whatever becomes of it.
    #[test]
    fn each_flow_counts_once() {
        use State::*;
        let (nothing, accepted, refused, unanswered) = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1));
        let rows = [
            (
                [HalfOpen, HalfOpen, HalfOpen],
                101,
                [unanswered, nothing, nothing],
            ),
            ([HalfOpen, HalfOpen, HalfOpen], 100, [nothing; 3]),
            (
                [HalfOpen, Established, Reset],
                0,
                [nothing, accepted, nothing],
            ),
            ([HalfOpen, Refused, Refused], 5, [nothing, refused, nothing]),
            (
                [HalfOpen, Answered, Established],
                101,
                [unanswered, nothing, nothing],
            ),
            (
                [Answered, Established, Finished],
                500,
                [accepted, nothing, nothing],
            ),
            (
                [ClosingByBackend, Finished, Finished],
                0,
                [accepted, nothing, nothing],
            ),
            ([Reset, Reset, Reset], 500, [nothing; 3]),
        ];
        for (states, ticks, expected) in rows {
            assert_eq!(counted(states, ticks), expected, "{states:?} after {ticks}");
        }
    }

    /// A reset counts once, whether the sweep met the connection before it or not.
    #[test]
    fn a_reset_counts_apart_and_once() {
        use State::*;
        let rows = [
            ([HalfOpen, Established, Reset], [0, 0, 1]),
            ([Established, Reset, Reset], [0, 1, 0]),
            ([Reset, Reset, Reset], [1, 0, 0]),
            ([Refused, Refused, Refused], [0, 0, 0]),
        ];
        for (states, expected) in rows {
            let mut judged = Judged::new(8);
            judged.finish(true);
            let counted = states.map(|state| {
                let mut census = Census::default();
                let entry = entry(3, 255, Kind::Forward, IPPROTO_TCP, state);
                judged.judge(false, &entry, (1000, PER_SECOND), &mut census);
                census.attempts.get(&9).map_or(0, |found| found.reset)
            });
            assert_eq!(counted, expected, "{states:?}");
        }
    }

    /// The first sweep blames nobody; replies, UDP and a table without memory count for nothing;
    /// a slot's next flow counts anew.
    #[test]
    fn what_is_judged() {
        let mut judged = Judged::new(8);
        let refusals = |judged: &mut Judged, v6, generation, kind, proto| {
            let mut census = Census::default();
            let entry = entry(0, generation, kind, proto, State::Refused);
            judged.judge(v6, &entry, (1000, PER_SECOND), &mut census);
            census.attempts.get(&9).map_or(0, |found| found.refused)
        };
        let (forward, reply) = (Kind::Forward, Kind::Reply);
        assert_eq!(refusals(&mut judged, false, 1, forward, IPPROTO_TCP), 0);
        judged.finish(true);
        assert_eq!(refusals(&mut judged, false, 1, forward, IPPROTO_TCP), 0);
        assert_eq!(refusals(&mut judged, false, 2, forward, IPPROTO_TCP), 1);
        assert_eq!(refusals(&mut judged, true, 2, forward, IPPROTO_TCP), 1);
        assert_eq!(refusals(&mut judged, false, 3, reply, IPPROTO_TCP), 0);
        assert_eq!(refusals(&mut judged, false, 3, forward, IPPROTO_UDP), 0);
        let mut nothing = Judged::nothing();
        nothing.finish(true);
        assert_eq!(refusals(&mut nothing, false, 1, forward, IPPROTO_TCP), 0);
    }
}
