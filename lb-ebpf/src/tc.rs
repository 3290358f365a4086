//! The tc programs: everything behind their entry points that XDP does not share.

use aya_ebpf::programs::TcContext;
use lb_common::{
    entry::hop_number,
    flow::Kind,
    hash,
    verdict::{Action, Verdict},
};

use crate::{
    create::NewFlow,
    family::{V4, V6},
    forward, handover,
    headers::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, Ipv4, Ipv6, split_ports},
    packet::Frame,
    parse::{self, Packet},
    pipeline::{self, Stop},
    rewrite::{self, Rewrite, RewriteNetwork},
    stats::{count_backend, count_verdict},
    vlan,
};

/// `TC_ACT_SHOT` of include/uapi/linux/pkt_cls.h: the packet is dropped.
pub(crate) const SHOT: u32 = 2;
/// `TC_ACT_UNSPEC`, -1: whatever program comes next, then the stack.
pub(crate) const NEXT: u32 = u32::MAX;

/// Decides on a packet of an interface without XDP.
#[inline(always)]
pub(crate) fn ingress(ctx: &TcContext) -> i32 {
    pipeline::process(&Frame::from_tc(ctx)) as i32
}

/// Goes on with what XDP has handed over; everything else has been decided and counted.
#[inline(always)]
pub(crate) fn finish(ctx: &TcContext) -> i32 {
    if !handover::take_mark(ctx) {
        return NEXT as i32;
    }
    pipeline::process(&Frame::from_tc(ctx)) as i32
}

/// Reverses a reply of one of the node's own processes on its way out. It goes where the kernel's
/// routes have sent it, with the tags that they put on. What is no reply is none of ours to count:
/// it was never received.
#[inline(always)]
pub(crate) fn egress(ctx: &TcContext) -> i32 {
    let frame = Frame::from_tc(ctx).leaving(true);
    match reverse(&frame) {
        Ok(verdict) => {
            count_verdict(verdict, frame.len() as u64);
            match verdict.action() {
                Action::Drop => SHOT as i32,
                _ => NEXT as i32,
            }
        }
        Err(Stop::Detour) => {
            frame.detour();
            NEXT as i32
        }
        Err(Stop::Left(_)) => NEXT as i32,
    }
}

#[inline(always)]
fn reverse(frame: &Frame) -> Result<Verdict, Stop> {
    let ethernet = frame.at::<Ethernet>(0).ok_or(Verdict::PassMalformed)?;
    // SAFETY: `at` checked the bounds; the struct is packed.
    match unsafe { (*ethernet).ethertype } {
        ETHERTYPE_IPV4 => {
            let network = parse::ipv4(frame, parse::UNTAGGED)?;
            let word = network.saddr;
            if !pipeline::may_be_ours_at_all(word) {
                return Err(Stop::Left(Verdict::PassForeign));
            }
            pipeline::check_plain(network.is_plain())?;
            let packet = parse::transport(frame, &network)?;
            reverse_reply::<V4, Ipv4>(frame, &packet, word)
        }
        ETHERTYPE_IPV6 => {
            let network = parse::ipv6(frame, parse::UNTAGGED)?;
            let word = hash::filter_word6(&network.saddr);
            if !pipeline::may_be_ours_at_all(word) {
                return Err(Stop::Left(Verdict::PassForeign));
            }
            pipeline::check_plain(network.is_plain())?;
            let packet = parse::transport(frame, &network)?;
            reverse_reply::<V6, Ipv6>(frame, &packet, word)
        }
        tag if vlan::is_tag(tag) => Err(Stop::Detour),
        _ => Err(Stop::Left(Verdict::PassNotIp)),
    }
}

/// `Err`: no reply of a flow to a process of the node. `word` stands for the source address in the
/// filter.
#[inline(always)]
fn reverse_reply<F, L3>(
    frame: &Frame,
    packet: &Packet<L3, F::Addr>,
    word: u32,
) -> Result<Verdict, Stop>
where
    F: NewFlow,
    Packet<L3, F::Addr>: RewriteNetwork<F::Addr>,
{
    let [port, _] = split_ports(packet.ports);
    if !pipeline::filter_has(hash::filter_bit(word, port, hash::FILTER_LOCAL_BACKEND)) {
        return Err(Stop::Left(Verdict::PassForeign));
    }
    let found = forward::leaving_flow_of::<F, L3>(packet)?;
    let half = found.slot.half;
    // SAFETY: map memory; whether it still is this flow's is checked below.
    let (hop, backend) = unsafe { ((*half).hop, (*half).backend) };
    let rewrite = Rewrite::of(half, packet.ttl);
    if !found.slot.tag().same_identity(found.tag) {
        return Ok(Verdict::DropContended);
    }
    if hop != hop_number::LOCAL {
        return Err(Stop::Left(Verdict::PassForeign));
    }
    count_backend(backend, Kind::Reply, packet.len);
    // SAFETY: the frame has not been resized since it was parsed.
    unsafe { rewrite::apply(frame, packet, &rewrite) };
    Ok(Verdict::ForwardReply)
}
