//! The flows of one family, and where they lie.
//!
//! Who is refused by a full table depends on where the others lie, so the model has the same
//! slots; it finds a half by its key all the same, in a map that knows nothing of slots.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use lb_agent::domain::service::Forwarding;
use lb_common::{
    flow::{Kind, State, WAYS, first_bucket, first_way, second_bucket},
    hash,
};

use super::{Node, link::Tag, parse::TCP};

/// What a half is found by: what its packets carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Source address and port.
    pub src: SocketAddr,
    /// Destination address and port.
    pub dst: SocketAddr,
    /// IANA protocol number.
    pub proto: u8,
}

/// Where a half's packets leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The interface.
    pub ifindex: u32,
    /// Its link address.
    pub smac: [u8; 6],
    /// The neighbour's.
    pub dmac: [u8; 6],
    /// VLAN tags that frames have there.
    pub tags: Vec<Tag>,
}

/// The name of no flow: that of a reply half whose flow a newer one has replaced.
pub const NO_FLOW: u64 = 0;

/// How readily a half gives up its place; what comes later does so sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    /// Not at all.
    Never,
    /// Not established, and idle for this many seconds.
    Unanswered(u64),
    /// Closed by both sides, or reset.
    Closed,
    /// As a free slot does.
    Over,
}

/// One half of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Half {
    /// The flow's name, or [`NO_FLOW`]; both halves carry it.
    pub flow: u64,
    /// The name that it began with.
    pub serial: u64,
    /// Which half.
    pub kind: Kind,
    /// What its packets carry.
    pub key: Key,
    /// Source of what leaves, or of the header around it.
    pub new_src: SocketAddr,
    /// Destination of what leaves, or of the header around it.
    pub new_dst: SocketAddr,
    /// Where it leaves.
    pub way: Way,
    /// How its packets reach the backend.
    pub forwarding: Forwarding,
    /// Id of the flow's backend.
    pub backend: u32,
    /// Where the flow is in its life.
    pub state: State,
    /// When a packet was last noted.
    pub seen: u64,
}

impl Half {
    /// Whose flow it is.
    pub fn client(&self) -> SocketAddr {
        match self.kind {
            Kind::Forward => self.key.src,
            Kind::Reply => self.new_dst,
        }
    }

    /// Whether both sides have closed the flow, or one has reset it.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Finished | State::Reset | State::Refused)
    }

    /// Whether it is there only so that the port of a connection that is over is not another's too soon:
    /// it stays where flows are cut.
    pub fn keeps_port(&self) -> bool {
        self.kind == Kind::Reply && self.key.proto == TCP && self.is_closed()
    }
}

/// Why a half was not inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is one with this key.
    Exists,
    /// None of the slots that it may lie in is given up.
    Full,
}

/// The flows of one family.
#[derive(Clone, Debug, Default)]
pub struct Table {
    seed: u64,
    bucket_mask: u32,
    /// By number.
    slots: Vec<Option<Half>>,
    places: HashMap<Key, usize>,
}

/// Address words as they lie in a packet.
fn words(ip: IpAddr) -> [u32; 4] {
    match ip {
        IpAddr::V4(ip) => [u32::from_ne_bytes(ip.octets()), 0, 0, 0],
        IpAddr::V6(ip) => {
            let octets = ip.octets();
            [0, 4, 8, 12].map(|at| {
                u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
            })
        }
    }
}

impl Table {
    /// An empty one.
    pub fn new(node: &Node) -> Self {
        Self {
            seed: node.seed,
            bucket_mask: node.slots / WAYS - 1,
            slots: vec![None; node.slots as usize],
            places: HashMap::new(),
        }
    }

    /// The hash of a key: what decides on slots, backend and ports.
    pub fn hash(&self, key: &Key) -> u64 {
        let [source, destination] = [key.src, key.dst].map(|end| end.port().to_be_bytes());
        let ports = u32::from_ne_bytes([source[0], source[1], destination[0], destination[1]]);
        let (src, dst) = (words(key.src.ip()), words(key.dst.ip()));
        if key.src.is_ipv6() {
            hash::flow6(self.seed, &src, &dst, ports, key.proto)
        } else {
            hash::flow4(self.seed, src[0], dst[0], ports, key.proto)
        }
    }

    /// The hash of a client alone.
    pub fn client_hash(&self, client: IpAddr) -> u64 {
        let words = words(client);
        if client.is_ipv6() {
            hash::client6(self.seed, &words)
        } else {
            hash::client4(self.seed, words[0])
        }
    }

    /// The half with this key.
    pub fn find(&self, key: &Key) -> Option<&Half> {
        self.slots[*self.places.get(key)?].as_ref()
    }

    /// The same, to be changed.
    pub fn find_mut(&mut self, key: &Key) -> Option<&mut Half> {
        self.slots[*self.places.get(key)?].as_mut()
    }

    /// The key of the other half of a flow, if there is one.
    pub fn other(&self, half: &Half) -> Option<Key> {
        // Its packets are the answers to what leaves by this half.
        let key = Key {
            src: half.new_dst,
            dst: half.new_src,
            proto: half.key.proto,
        };
        let other = self.find(&key)?;
        (other.flow == half.flow && other.kind != half.kind).then_some(key)
    }

    /// The slots that a key may lie in, in the order in which they are tried.
    fn candidates(&self, key: &Key) -> Vec<usize> {
        let hash = self.hash(key);
        let mut candidates = Vec::new();
        for bucket in [
            first_bucket(hash, self.bucket_mask),
            second_bucket(hash, self.bucket_mask),
        ] {
            for step in 0..WAYS {
                let way = (first_way(hash) + step) % WAYS;
                candidates.push((bucket * WAYS + way) as usize);
            }
        }
        candidates
    }

    /// Inserts a half into the slot that is given up most readily, of equal ones the first; the
    /// flow that was there loses its other half too, unless `leaves_other`. A half with the same key
    /// gives way if it is closed, and one of which `takes` says that it may.
    ///
    /// # Errors
    ///
    /// There is such a half, or no slot.
    pub fn insert(
        &mut self,
        half: Half,
        readiness: impl Fn(&Half) -> Readiness,
        takes: impl Fn(&Half) -> bool,
        leaves_other: bool,
    ) -> Result<(), Refused> {
        let slot = if let Some(slot) = self.slot_of(&half.key) {
            let gives_way = |former: &Half| former.is_closed() && takes(former);
            if !self.find(&half.key).is_some_and(gives_way) {
                return Err(Refused::Exists);
            }
            slot
        } else {
            let first = first_bucket(self.hash(&half.key), self.bucket_mask) as usize;
            let ready = |slot: usize| {
                self.slots[slot]
                    .as_ref()
                    .map_or(Readiness::Over, &readiness)
            };
            // Of several that are equal, `min_by_key` takes the first; but of the slots of a
            // bucket a free one comes before one whose flow is over.
            let slot = self.candidates(&half.key).into_iter().min_by_key(|slot| {
                let bucket = usize::from(*slot / WAYS as usize != first);
                let taken = self.slots[*slot].is_some();
                (std::cmp::Reverse(ready(*slot)), bucket, taken)
            });
            slot.filter(|slot| ready(*slot) > Readiness::Never)
                .ok_or(Refused::Full)?
        };
        if let Some(former) = self.slots[slot].clone() {
            if leaves_other {
                self.remove(&former.key);
            } else {
                self.release(&former.key);
            }
        }
        self.places.insert(half.key, slot);
        self.slots[slot] = Some(half);
        Ok(())
    }

    /// Removes the forward half of a flow; the other stays behind, closed, and holds the port: for
    /// the client's next connection if both sides had closed this one.
    pub fn supersede(&mut self, forward: &Key, now: u64) {
        let other = self.find(forward).and_then(|half| self.other(half));
        let closed = self.find(forward).is_some_and(Half::is_closed);
        self.remove(forward);
        if let Some(reply) = other.and_then(|key| self.find_mut(&key)) {
            reply.state = if closed {
                State::Finished
            } else {
                State::Reset
            };
            reply.flow = NO_FLOW;
            reply.seen = now;
        }
    }

    /// Removes one half.
    pub fn remove(&mut self, key: &Key) {
        if let Some(slot) = self.places.remove(key) {
            self.slots[slot] = None;
        }
    }

    /// Removes both halves of a flow.
    pub fn release(&mut self, key: &Key) {
        let Some(half) = self.find(key) else { return };
        if let Some(other) = self.other(half) {
            self.remove(&other);
        }
        self.remove(key);
    }

    /// Removes the halves that `is_hit`.
    pub fn remove_if(&mut self, is_hit: impl Fn(&Half) -> bool) {
        let hit: Vec<Key> = self
            .halves()
            .filter(|(_, half)| is_hit(half))
            .map(|(_, half)| half.key)
            .collect();
        for key in hit {
            self.remove(&key);
        }
    }

    /// All halves, each with the number of its slot.
    pub fn halves(&self) -> impl Iterator<Item = (usize, &Half)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(slot, half)| Some((slot, half.as_ref()?)))
    }

    /// The half in a slot.
    pub fn at(&self, slot: usize) -> Option<&Half> {
        self.slots[slot].as_ref()
    }

    /// Number of the slot in which a key lies.
    pub fn slot_of(&self, key: &Key) -> Option<usize> {
        self.places.get(key).copied()
    }

    /// Number of halves.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}
