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
    family::{Key, V4, V6},
    flow,
    forward::note,
    handover,
    packet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, Frame, Ipv4, Ipv6, split_ports},
    parse::{self, Packet},
    pipeline,
    rewrite::{self, Rewrite, RewriteNetwork},
    stats::{count_backend, count_verdict},
};

/// `TC_ACT_SHOT` of include/uapi/linux/pkt_cls.h: the packet is dropped.
pub(crate) const SHOT: u32 = 2;
/// `TC_ACT_UNSPEC`, -1: whatever program comes next, then the stack.
pub(crate) const NEXT: u32 = u32::MAX;

/// Decides on a packet of an interface without XDP.
#[inline(always)]
pub(crate) fn ingress(ctx: &TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the verifier knows the context's fields.
    let (tagged, len) = unsafe { ((*skb).vlan_present, (*skb).len) };
    if tagged != 0 {
        // The kernel keeps the tag beside the frame: it is for the VLAN's own interface.
        count_verdict(Verdict::PassNotIp, len as u64);
        return NEXT as i32;
    }
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
/// routes have sent it. What is no reply is none of ours to count: it was never received.
#[inline(always)]
pub(crate) fn egress(ctx: &TcContext) -> i32 {
    // SAFETY: the verifier knows the context's fields.
    if unsafe { (*ctx.skb.skb).vlan_present } != 0 {
        return NEXT as i32;
    }
    let frame = Frame::from_tc(ctx);
    let Some(verdict) = reverse(&frame) else {
        return NEXT as i32;
    };
    count_verdict(verdict, frame.len() as u64);
    match verdict.action() {
        Action::Drop => SHOT as i32,
        _ => NEXT as i32,
    }
}

#[inline(always)]
fn reverse(frame: &Frame) -> Option<Verdict> {
    let ethernet = frame.at::<Ethernet>(0)?;
    // SAFETY: `at` checked the bounds; the struct is packed.
    match unsafe { (*ethernet).ethertype } {
        ETHERTYPE_IPV4 => {
            let network = parse::ipv4(frame, parse::UNTAGGED).ok()?;
            if network.is_fragment() {
                return None;
            }
            let packet = parse::transport(frame, &network).ok()?;
            reverse_reply::<V4, Ipv4>(frame, &packet, packet.saddr)
        }
        ETHERTYPE_IPV6 => {
            let network = parse::ipv6(frame, parse::UNTAGGED).ok()?;
            if network.is_fragment() {
                return None;
            }
            let packet = parse::transport(frame, &network).ok()?;
            let word = hash::filter_word6(&packet.saddr);
            reverse_reply::<V6, Ipv6>(frame, &packet, word)
        }
        _ => None,
    }
}

/// `None`: no reply of a flow to a process of the node. `word` stands for the source address in
/// the filter.
#[inline(always)]
fn reverse_reply<F, L3>(frame: &Frame, packet: &Packet<L3, F::Addr>, word: u32) -> Option<Verdict>
where
    F: NewFlow,
    Packet<L3, F::Addr>: RewriteNetwork<F::Addr>,
{
    let [port, _] = split_ports(packet.ports);
    if !pipeline::filter_has(hash::filter_bit(word, port, hash::FILTER_LOCAL_BACKEND)) {
        return None;
    }
    let key = Key {
        saddr: packet.saddr,
        daddr: packet.daddr,
        ports: packet.ports,
        proto: packet.proto,
    };
    let found = flow::find::<F>(&key, F::hash(&key))?;
    let half = found.slot.half;
    // SAFETY: map memory; whether it still is this flow's is checked below.
    let (hop, backend) = unsafe { ((*half).hop, (*half).backend) };
    let rewrite = Rewrite::of(half, packet.ttl);
    note::<F, L3>(&found, packet, flow::now());
    if !found.slot.tag().same_identity(found.tag) {
        return Some(Verdict::DropContended);
    }
    if hop != hop_number::LOCAL {
        return None;
    }
    count_backend(backend, Kind::Reply, packet.len);
    // SAFETY: the frame has not been resized since it was parsed.
    unsafe { rewrite::apply(frame, packet, &rewrite) };
    Some(Verdict::ForwardReply)
}
