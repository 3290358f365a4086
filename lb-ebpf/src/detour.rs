//! The way of packets that are not plain: VLAN tags, IP options, extension headers, fragments,
//! ICMP, a hop count that ends here, or more bytes than the way out admits.
//!
//! A program of its own, which [`crate::pipeline`] jumps to, so that neither instructions nor
//! stack of plain packets pay for it. It begins anew at the first byte and takes the same
//! decisions by the same tables; nothing has been changed or counted before.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    programs::XdpContext,
};
use lb_common::{
    IPPROTO_ICMP, IPPROTO_ICMPV6, hash,
    verdict::{Action, Verdict},
};

use crate::{
    answer, block,
    create::{NewFlow, REFUSED, created},
    departure::{self, Departure},
    echo,
    family::{V4, V6},
    flow::{Found, SlotRef},
    forward, fragment, icmp,
    maps::OUTLINE,
    outline::Outline,
    packet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, Hook, Ipv4, Ipv6},
    parse::{self, Network, Packet},
    pipeline::{action_of, may_be_ours, may_be_ours_at_all},
    rewrite::{self, RewriteNetwork},
    stats::count_index,
    trace,
    vlan::{self, Link},
};

/// How a packet's way ended: the program's answer, and the verdict.
pub(crate) type Outcome = Result<(u32, Verdict), Verdict>;

/// Decides on a frame, and counts the verdict. Its own stack is next to nothing, which leaves the
/// stages all there is.
#[inline(always)]
pub(crate) fn process(frame: &Frame) -> u32 {
    let length = frame.len() as u64;
    let ctx = frame.ctx.cast();
    let end = match lb_stage(ctx) {
        LATER4 => lb_later4(ctx),
        LATER6 => lb_later6(ctx),
        ECHO4 => lb_echo4(ctx),
        ECHO6 => lb_echo6(ctx),
        ERROR4 => lb_error4(ctx),
        ERROR6 => lb_error6(ctx),
        FLOW4 => answered::<V4>(frame, lb_leave4(ctx, lb_place4(ctx))),
        FLOW6 => answered::<V6>(frame, lb_leave6(ctx, lb_place6(ctx))),
        end => end,
    };
    count_index(end as u32, length);
    trace::tell_index(end as u32);
    (end >> 32) as u32
}

/// Answers of [`lb_stage`] for packets that are ours. No program answers with zero in the upper
/// half, so these are no ends.
const LATER4: u64 = 0;
const LATER6: u64 = 1;
const ECHO4: u64 = 2;
const ECHO6: u64 = 3;
const ERROR4: u64 = 4;
const ERROR6: u64 = 5;
const FLOW4: u64 = 6;
const FLOW6: u64 = 7;

/// An outcome in one register, as the stages below answer with: the program's answer in the upper
/// half, the verdict in the lower one.
#[inline(always)]
fn packed(hook: Hook, outcome: Outcome) -> u64 {
    let (action, verdict) = match outcome {
        Ok(end) => end,
        Err(verdict) if verdict.action() == Action::Answer => (xdp_action::XDP_TX, verdict),
        Err(verdict) => (action_of(hook, verdict), verdict),
    };
    (action as u64) << 32 | verdict as u64
}

/// Finds out which stage a frame is for, or how its way ends already.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_stage(ctx: *mut xdp_md) -> u64 {
    let frame = Frame::from_xdp(&XdpContext::new(ctx)).keeping();
    match stage(&frame) {
        Ok(stage) => stage,
        Err(verdict) => packed(frame.hook, Err(verdict)),
    }
}

#[inline(always)]
fn stage(frame: &Frame) -> Result<u64, Verdict> {
    let link = vlan::read(frame)?;
    match link.ethertype {
        ETHERTYPE_IPV4 => {
            let network = parse::ipv4(frame, link.length())?;
            if block::source4(network.saddr, frame.len()) {
                return Err(Verdict::DropBlocked);
            }
            if !may_be_ours_at_all(network.daddr) {
                return Err(Verdict::PassForeign);
            }
            Outline::write(&link, &network)?;
            Ok(match network.proto {
                _ if network.fragment.later => LATER4,
                IPPROTO_ICMP if echo::is_request4(frame, &network) => ECHO4,
                IPPROTO_ICMP => ERROR4,
                _ => FLOW4,
            })
        }
        ETHERTYPE_IPV6 => {
            let mut network = parse::ipv6(frame, link.length())?;
            if block::source6(&network.saddr, frame.len()) {
                return Err(Verdict::DropBlocked);
            }
            if !may_be_ours_at_all(hash::filter_word6(&network.daddr)) {
                return Err(Verdict::PassForeign);
            }
            network.follow_extensions(frame)?;
            Outline::write(&link, &network)?;
            Ok(match network.proto {
                _ if network.fragment.later => LATER6,
                IPPROTO_ICMPV6 if echo::is_request6(frame, &network) => ECHO6,
                IPPROTO_ICMPV6 => ERROR6,
                _ => FLOW6,
            })
        }
        _ => Err(Verdict::PassNotIp),
    }
}

/// A frame from its first byte to where the stages begin.
pub(crate) struct Arrival<L3, A> {
    pub(crate) frame: Frame,
    pub(crate) link: Link,
    pub(crate) network: Network<L3, A>,
}

#[inline(always)]
pub(crate) fn arrival4(ctx: *mut xdp_md) -> Result<Arrival<Ipv4, u32>, Verdict> {
    let frame = Frame::from_xdp(&XdpContext::new(ctx)).keeping();
    let outline = outline()?;
    let header = frame
        .at::<Ipv4>(outline.l3_offset())
        .ok_or(Verdict::DropInternal)?;
    // SAFETY: `at` checked the bounds; the struct is packed.
    let (saddr, daddr) = unsafe { ((*header).saddr, (*header).daddr) };
    Ok(Arrival {
        frame,
        link: outline.link,
        network: outline.network(header, saddr, daddr),
    })
}

#[inline(always)]
pub(crate) fn arrival6(ctx: *mut xdp_md) -> Result<Arrival<Ipv6, [u32; 4]>, Verdict> {
    let frame = Frame::from_xdp(&XdpContext::new(ctx)).keeping();
    let outline = outline()?;
    let header = frame
        .at::<Ipv6>(outline.l3_offset())
        .ok_or(Verdict::DropInternal)?;
    // SAFETY: as above.
    let (saddr, daddr) = unsafe { ((*header).saddr, (*header).daddr) };
    Ok(Arrival {
        frame,
        link: outline.link,
        network: outline.network(header, saddr, daddr),
    })
}

#[inline(always)]
fn outline() -> Result<&'static Outline, Verdict> {
    let outline = OUTLINE.get_ptr(0).ok_or(Verdict::DropInternal)?;
    // SAFETY: this CPU's scratch memory, and no other packet is handled on this CPU meanwhile.
    Ok(unsafe { &*outline })
}

/// Functions of the program that the verifier checks once and by themselves. What the first one
/// has found out the others read in an [`Outline`].
macro_rules! stages {
    ($($name:ident($arrival:ident $(, $also:ident)?), |$of:ident| $end:expr;)*) => {
        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $name(ctx: *mut xdp_md $(, $also: u64)?) -> u64 {
                match $arrival(ctx) {
                    Ok($of) => $end,
                    Err(verdict) => packed(Hook::Xdp, Err(verdict)),
                }
            }
        )*
    };
}

stages! {
    lb_later4(arrival4), |of|
        packed(of.frame.hook, fragment::later::<V4, Ipv4>(&of.frame, &of.link, &of.network));
    lb_later6(arrival6), |of|
        packed(of.frame.hook, fragment::later::<V6, Ipv6>(&of.frame, &of.link, &of.network));
    lb_echo4(arrival4), |of|
        packed(of.frame.hook, echo::answer4(&of.frame, &of.link, &of.network));
    lb_echo6(arrival6), |of|
        packed(of.frame.hook, echo::answer6(&of.frame, &of.link, &of.network));
    lb_error4(arrival4), |of|
        packed(of.frame.hook, icmp::error4(&of.frame, &of.link, &of.network));
    lb_error6(arrival6), |of|
        packed(of.frame.hook, icmp::error6(&of.frame, &of.link, &of.network));
    lb_place4(arrival4), |of| place::<V4, Ipv4>(&of, of.network.daddr);
    lb_place6(arrival6), |of| place::<V6, Ipv6>(&of, hash::filter_word6(&of.network.daddr));
    lb_leave4(arrival4, placed), |of| packed_leave(of.frame.hook, leave::<V4, Ipv4>(&of, placed));
    lb_leave6(arrival6, placed), |of| packed_leave(of.frame.hook, leave::<V6, Ipv6>(&of, placed));
}

/// Finds the half that a packet belongs to, or makes it. Answers with the slot, and the lower half
/// of its tag above; or with a verdict, and [`NOWHERE`] above.
#[inline(always)]
fn place<F: NewFlow, L3>(of: &Arrival<L3, F::Addr>, word: u32) -> u64 {
    match try_place::<F, L3>(of, word) {
        Ok(Found { slot, tag }) => (tag.0 << 32) | slot.index as u64,
        Err(verdict) => NOWHERE << 32 | verdict as u64,
    }
}

/// No half's: the state bits of a tag are never all set.
const NOWHERE: u64 = 0xff;

#[inline(always)]
fn try_place<F: NewFlow, L3>(
    of: &Arrival<L3, F::Addr>,
    word: u32,
) -> Result<Found<F::Addr>, Verdict> {
    let packet = parse::transport_behind(&of.frame, &of.network, of.link.tags)?;
    if !may_be_ours(word, packet.ports, packet.proto) {
        return Err(Verdict::PassForeign);
    }
    forward::flow_of::<F, L3>(&packet)
}

/// Why [`leave`] does not send a packet.
enum Refusal {
    /// It is left as it is.
    Left(Verdict),
    /// The sender is to be told: the bytes that packets may have, or zero for a hop count that
    /// ends here.
    Answer { mtu: u32 },
}

impl From<Verdict> for Refusal {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        Self::Left(verdict)
    }
}

/// In the upper half of an end that is to be an answer; no program answers with it.
const ANSWER: u64 = u32::MAX as u64;

/// An end of [`leave`] in one register.
#[inline(always)]
fn packed_leave(hook: Hook, outcome: Result<(u32, Verdict), Refusal>) -> u64 {
    match outcome {
        Ok(end) => packed(hook, Ok(end)),
        Err(Refusal::Left(verdict)) => packed(hook, Err(verdict)),
        Err(Refusal::Answer { mtu }) => ANSWER << 32 | mtu as u64,
    }
}

/// Tells the sender where [`leave`] would have it told.
#[inline(always)]
fn answered<F: answer::Answering>(frame: &Frame, end: u64) -> u64 {
    if end >> 32 != ANSWER {
        return end;
    }
    let verdict = match end as u32 {
        0 => answer::time_exceeded::<F>(frame),
        mtu => answer::too_big::<F>(frame, mtu),
    };
    packed(frame.hook, Err(verdict))
}

/// Sends a packet the way of its half. `placed` is what [`place`] answered.
#[inline(always)]
fn leave<F, L3>(of: &Arrival<L3, F::Addr>, placed: u64) -> Result<(u32, Verdict), Refusal>
where
    F: NewFlow + fragment::Followed,
    Packet<L3, F::Addr>: RewriteNetwork<F::Addr>,
{
    let Arrival {
        frame,
        link,
        network,
    } = of;
    if placed >> 32 == NOWHERE {
        return Err(match created(REFUSED + (placed & 0xffff_ffff)) {
            Err(Verdict::DropTtlExceeded) => Refusal::Answer { mtu: 0 },
            Err(verdict) => Refusal::Left(verdict),
            Ok(_) => Refusal::Left(Verdict::DropInternal),
        });
    }
    let slot = SlotRef::at::<F>(placed as u32).ok_or(Verdict::DropInternal)?;
    let tag = slot.tag();
    if (tag.0 ^ (placed >> 32)) & 0xffff_ff00 != 0 || !tag.is_live() {
        return Err(Refusal::Left(Verdict::DropContended));
    }
    let found = Found { slot, tag };
    let departure = departure::of::<F>(frame, &found, network.ttl)?;
    let packet = parse::transport_behind(frame, network, link.tags)?;
    if departure.ends(packet.ttl) {
        return Err(Refusal::Answer { mtu: 0 });
    }
    if packet.l3_length > departure.mtu as usize {
        return Err(Refusal::Answer { mtu: departure.mtu });
    }
    departure.check()?;
    if network.fragment.more {
        fragment::remember::<F, L3>(network, Some(&found));
    }
    departure.count(packet.len);
    let Departure {
        rewrite,
        way,
        verdict,
        ..
    } = departure;
    // SAFETY: the frame has not been resized since it was parsed.
    unsafe { rewrite::apply(frame, &packet, &rewrite) };
    Ok((vlan::send(frame, link, &way)?, verdict))
}
