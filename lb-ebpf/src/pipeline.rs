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
    maps::FILTER,
    packet::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, Frame, Hook, split_ports},
    parse,
    settings::setting,
    stats::count_verdict,
    tc, trace,
};

/// Decides on a frame, rewrites it where it is ours, and counts the verdict.
#[inline(always)]
pub(crate) fn process(frame: &Frame) -> u32 {
    trace::note(frame);
    let (action, verdict) = match decide(frame) {
        Ok((action, verdict)) => (action, verdict),
        Err(verdict) => (action_of(frame.hook, verdict), verdict),
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
fn action_of(hook: Hook, verdict: Verdict) -> u32 {
    match (hook, verdict.action()) {
        (Hook::Xdp, Action::Drop) => xdp_action::XDP_DROP,
        (Hook::Xdp, Action::Pass | Action::Forward | Action::Answer) => xdp_action::XDP_PASS,
        (Hook::Tc, Action::Drop) => tc::SHOT,
        (Hook::Tc, Action::Pass | Action::Forward | Action::Answer) => tc::NEXT,
    }
}

/// `Ok`: forwarded, with the program's answer. `Err`: the verdict of a packet that was left as it is.
#[inline(always)]
fn decide(frame: &Frame) -> Result<(u32, Verdict), Verdict> {
    let ethernet = frame.at::<Ethernet>(0).ok_or(Verdict::PassMalformed)?;
    // SAFETY: `at` checked the bounds; the struct is packed.
    match unsafe { (*ethernet).ethertype } {
        ETHERTYPE_IPV4 => {
            let network = parse::ipv4(frame)?;
            if block::source4(network.saddr, frame.len()) {
                return Err(Verdict::DropBlocked);
            }
            if setting!(decapsulate) != 0
                && let Some(answer) = decapsulate::packet::<V4>(frame)
            {
                return answer;
            }
            if !may_be_ours_at_all(network.daddr) {
                return Err(Verdict::PassForeign);
            }
            let packet = parse::transport(frame, &network)?;
            if !may_be_ours(packet.daddr, packet.ports, packet.proto) {
                return Err(Verdict::PassForeign);
            }
            forward4(frame, &packet)
        }
        ETHERTYPE_IPV6 => {
            let network = parse::ipv6(frame)?;
            if block::source6(&network.saddr, frame.len()) {
                return Err(Verdict::DropBlocked);
            }
            let word = hash::filter_word6(&network.daddr);
            if setting!(announce) != 0
                && let Some(answer) = announce::neighbour(frame)
            {
                return answer;
            }
            if setting!(decapsulate) != 0
                && let Some(answer) = decapsulate::packet::<V6>(frame)
            {
                return answer;
            }
            if !may_be_ours_at_all(word) {
                return Err(Verdict::PassForeign);
            }
            let packet = parse::transport(frame, &network)?;
            if !may_be_ours(word, packet.ports, packet.proto) {
                return Err(Verdict::PassForeign);
            }
            forward6(frame, &packet)
        }
        ETHERTYPE_ARP if setting!(announce) != 0 => announce::arp(frame),
        _ => Err(Verdict::PassNotIp),
    }
}

/// Whether the destination address may be a VIP or an address that flows are translated to.
#[inline(always)]
fn may_be_ours_at_all(addr: u32) -> bool {
    filter_has(hash::filter_bit(addr, 0, 0))
}

/// Whether the destination may be a service, or a port that a flow was given.
#[inline(always)]
fn may_be_ours(addr: u32, ports: u32, proto: u8) -> bool {
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
