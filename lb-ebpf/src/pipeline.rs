//! The way of every packet: parse → block list → destination filter → flow → rewrite → out.

use aya_ebpf::bindings::xdp_action;
use lb_common::{
    hash,
    verdict::{Action, Verdict},
};

use crate::{
    announce, block, decapsulate,
    family::{V4, V6},
    forward::{forward4, forward6},
    handover,
    headers::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, split_ports},
    maps::FILTER,
    packet::{Frame, Hook},
    parse::{self, UNTAGGED},
    pending,
    settings::setting,
    stats::count_verdict,
    tc, trace, vlan,
};

/// Why a packet does not leave by the plain way.
pub(crate) enum Stop {
    /// It is left as it is.
    Left(Verdict),
    /// It is not plain: see [`crate::detour`].
    Detour,
}

impl From<Verdict> for Stop {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        Self::Left(verdict)
    }
}

/// Decides on a frame, rewrites it where it is ours, and counts the verdict.
#[inline(always)]
pub(crate) fn process(frame: &Frame) -> u32 {
    trace::note(frame);
    let (action, verdict) = match decide(frame) {
        Ok((action, verdict)) => (action, verdict),
        Err(Stop::Left(verdict)) => (action_of(frame.hook, verdict), verdict),
        Err(Stop::Detour) => {
            frame.detour();
            // The agent has not put the program there.
            (
                action_of(frame.hook, Verdict::DropInternal),
                Verdict::DropInternal,
            )
        }
    };
    if frame.hook == Hook::Xdp && verdict == Verdict::PassUnresolved && handover::mark(frame) {
        // The tc program behind this one goes on with it, and counts.
        return action;
    }
    count_verdict(verdict, frame.len() as u64);
    trace::tell(verdict);
    action
}

/// What a program answers for a frame that is left as it is.
#[inline(always)]
pub(crate) fn action_of(hook: Hook, verdict: Verdict) -> u32 {
    match (hook, verdict.action()) {
        (Hook::Xdp, Action::Drop | Action::Hold) => xdp_action::XDP_DROP,
        (Hook::Xdp, Action::Pass | Action::Forward | Action::Answer) => xdp_action::XDP_PASS,
        (Hook::Tc, Action::Drop | Action::Hold) => tc::SHOT,
        (Hook::Tc, Action::Pass | Action::Forward | Action::Answer) => tc::NEXT,
    }
}

/// `Ok`: forwarded, with the program's answer. `Err`: left as it is, or to be looked at again.
#[inline(always)]
fn decide(frame: &Frame) -> Result<(u32, Verdict), Stop> {
    if frame.tag_beside().is_some() {
        return Err(Stop::Detour);
    }
    let ethernet = frame.at::<Ethernet>(0).ok_or(Verdict::PassMalformed)?;
    // SAFETY: `at` checked the bounds; the struct is packed.
    match unsafe { (*ethernet).ethertype } {
        ETHERTYPE_IPV4 => {
            let network = parse::ipv4(frame, UNTAGGED)?;
            if block::source4(network.saddr, frame.len()) {
                return Err(Stop::Left(Verdict::DropBlocked));
            }
            if setting!(decapsulate) != 0
                && let Some(answer) = decapsulate::packet::<V4>(frame)
            {
                return Ok(answer?);
            }
            if !may_be_ours_at_all(network.daddr) {
                return Err(Stop::Left(Verdict::PassForeign));
            }
            check_plain(network.is_plain())?;
            let packet = parse::transport(frame, &network)?;
            if !may_be_ours(packet.daddr, packet.ports, packet.proto) {
                return Err(Stop::Left(Verdict::PassForeign));
            }
            pending::check::<V4, _>(frame, &network)?;
            forward4(frame, &packet)
        }
        ETHERTYPE_IPV6 => {
            let network = parse::ipv6(frame, UNTAGGED)?;
            if block::source6(&network.saddr, frame.len()) {
                return Err(Stop::Left(Verdict::DropBlocked));
            }
            let word = hash::filter_word6(&network.daddr);
            if setting!(announce) != 0
                && let Some(answer) = announce::neighbour(frame)
            {
                return Ok(answer?);
            }
            if setting!(decapsulate) != 0
                && let Some(answer) = decapsulate::packet::<V6>(frame)
            {
                return Ok(answer?);
            }
            if !may_be_ours_at_all(word) {
                return Err(Stop::Left(Verdict::PassForeign));
            }
            check_plain(network.is_plain())?;
            let packet = parse::transport(frame, &network)?;
            if !may_be_ours(word, packet.ports, packet.proto) {
                return Err(Stop::Left(Verdict::PassForeign));
            }
            pending::check::<V6, _>(frame, &network)?;
            forward6(frame, &packet)
        }
        ETHERTYPE_ARP if setting!(announce) != 0 => Ok(announce::arp(frame)?),
        tag if vlan::is_tag(tag) => Err(Stop::Detour),
        _ => Err(Stop::Left(Verdict::PassNotIp)),
    }
}

/// `Err`: the packet is not plain.
#[inline(always)]
pub(crate) fn check_plain(plain: bool) -> Result<(), Stop> {
    if plain { Ok(()) } else { Err(Stop::Detour) }
}

/// Whether the destination address may be a VIP or an address that flows are translated to.
#[inline(always)]
pub(crate) fn may_be_ours_at_all(addr: u32) -> bool {
    filter_has(hash::filter_bit(addr, 0, 0))
}

/// Whether the destination may be a service, or a port that a flow was given.
#[inline(always)]
pub(crate) fn may_be_ours(addr: u32, ports: u32, proto: u8) -> bool {
    let [_, port] = split_ports(ports);
    let host_order = u16::from_be(port);
    let given = host_order >= setting!(port_first) && host_order <= setting!(port_last);
    given || filter_has(hash::filter_bit(addr, port, proto))
}

#[inline(always)]
pub(crate) fn filter_has(bit: u32) -> bool {
    let Some(filter) = FILTER.get(0) else {
        return true;
    };
    match filter.words.get((bit / 64) as usize) {
        Some(word) => word & (1 << (bit % 64)) != 0,
        None => true,
    }
}
