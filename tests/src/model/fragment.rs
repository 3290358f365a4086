//! Fragments: the first one, which has the ports, is decided on like any packet, and the others of
//! the same packet follow it for a while.

use std::net::IpAddr;

use lb_common::verdict::Verdict;

use super::{
    Model, Prediction,
    fault::Fault,
    link::Link,
    parse::Ip,
    rewrite,
    table::{Half, Key},
};

/// Seconds after the first fragment within which the others must come.
pub const LIFETIME: u64 = 30;

/// What all fragments of a packet carry, and no other packet's: addresses and identification, and
/// with IPv4 the protocol (RFC 791; RFC 8200, section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whole {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Identification.
    pub id: u32,
    /// Protocol; `None` with IPv6.
    pub proto: Option<u8>,
}

/// Where a first fragment went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// By the half with this key, and this name among all that ever had it.
    Half(Key, u64),
    /// Back to where it came from: an echo request.
    Back,
}

/// What is remembered of a first fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    /// Where it went.
    pub place: Place,
    /// When it came.
    pub seen: u64,
}

impl Whole {
    /// The packet that a fragment is of.
    fn of(ip: &Ip, fault: Option<Fault>) -> Self {
        let id = ip.fragment.map_or(0, |fragment| fragment.id);
        Self {
            src: ip.src,
            dst: ip.dst,
            id: if fault == Some(Fault::MixesFragments) {
                0
            } else {
                id
            },
            proto: (!ip.is_v6()).then_some(ip.proto),
        }
    }
}

impl Model {
    /// Remembers where a first fragment goes, if it is one.
    pub(super) fn remember(&mut self, ip: &Ip, half: Option<&Half>) {
        if !ip.has_more() {
            return;
        }
        let place = half.map_or(Place::Back, |half| Place::Half(half.key, half.serial));
        let first = First {
            place,
            seen: self.now,
        };
        self.fragments.insert(Whole::of(ip, self.fault), first);
    }

    /// Sends a fragment other than the first where that one went.
    pub(super) fn follow_first(
        &mut self,
        frame: &[u8],
        link: &Link,
        ip: &Ip,
        ingress: u32,
    ) -> Result<Prediction, Verdict> {
        let first = self.fragments.get(&Whole::of(ip, self.fault));
        let first = *first.ok_or(Verdict::PassFragment)?;
        if self.now - first.seen > LIFETIME && !self.errs(Fault::FollowsForever) {
            return Err(Verdict::PassFragment);
        }
        let (key, serial) = match first.place {
            Place::Back if link.is_to_group() => return Err(Verdict::PassFragment),
            Place::Back => return self.turn_round(frame, link, ip, ingress),
            Place::Half(key, serial) => (key, serial),
        };
        let half = self.table(ip.is_v6()).find(&key).cloned();
        let half = half
            .filter(|half| half.serial == serial)
            .ok_or(Verdict::PassFragment)?;
        let departure = self.departure(&half)?;
        Self::untagged(link, &half, &departure)?;
        // Nobody is told about what has no ports (RFC 1122, section 3.2.2).
        if ip.ttl <= 1 {
            return Err(Verdict::DropTtlExceeded);
        }
        if ip.length() > departure.mtu && !self.errs(Fault::IgnoresMtu) {
            return Err(Verdict::DropTooBig);
        }
        if half.is_alone() {
            let (of, by) = ((link, ip), (&half, &departure));
            return self.pass_on(Self::forwarded(&half), frame, of, by, ingress);
        }
        self.count(&half, frame);
        let out = rewrite::headers(frame, ip, &half, self.fault);
        Ok(self.send(Self::forwarded(&half), out, link, &departure.way, ingress))
    }
}
