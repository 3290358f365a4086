//! The way of packets that are not plain: VLAN tags, IP options, extension headers, fragments,
//! ICMP, a hop count that ends here, or more bytes than the way out admits.
//!
//! A program of its own for each hook, which [`crate::pipeline`] and [`crate::tc`] jump to, so that
//! neither instructions nor stack of plain packets pay for it. It begins anew at the first byte and
//! takes the same decisions by the same tables; nothing has been changed or counted before, unless the
//! flow has taken note of the packet already (see [`Outline::keep_placed`]).

mod stages;

use core::ffi::c_void;

use aya_ebpf::programs::{TcContext, XdpContext};
use lb_common::{IPPROTO_ICMP, IPPROTO_ICMPV6, hash, verdict::Verdict};

pub(crate) use self::stages::{AtTc, AtXdp, Stages};
use crate::{
    block,
    create::{NewFlow, REFUSED, created},
    departure, echo,
    flow::{Found, SlotRef},
    forward, fragment, handover,
    headers::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ipv4, Ipv6},
    maps::OUTLINE,
    outline::Outline,
    packet::{Frame, Hook},
    parse::{self, Network, Packet},
    pending,
    pipeline::{action_of, may_be_ours, may_be_ours_at_all},
    rewrite::{self, RewriteNetwork},
    server_return,
    stats::count_index,
    tc, trace, transmit,
    vlan::{self, Link},
};

/// How a packet's way ended: the program's answer, and the verdict.
pub(crate) type Outcome = Result<(u32, Verdict), Verdict>;

/// Decides on a frame, and counts the verdict. Its own stack is next to nothing, which leaves the
/// stages all there is.
#[inline(always)]
pub(crate) fn process<S: Stages>(frame: &Frame) -> u32 {
    let length = frame.len() as u64;
    let ctx = frame.ctx;
    let end = match S::stage(ctx) {
        LATER4 => S::later4(ctx),
        LATER6 => S::later6(ctx),
        ECHO4 => S::echo4(ctx),
        ECHO6 => S::echo6(ctx),
        ERROR4 => S::error4(ctx),
        ERROR6 => S::error6(ctx),
        FLOW4 => {
            let placed = S::place4(ctx);
            match S::leave4(ctx, placed) {
                end if end >> 32 == ALONE => S::alone4(ctx, placed),
                end => answered(frame, end, S::answer4),
            }
        }
        FLOW6 => {
            let placed = S::place6(ctx);
            match S::leave6(ctx, placed) {
                end if end >> 32 == ALONE => S::alone6(ctx, placed),
                end => answered(frame, end, S::answer6),
            }
        }
        end => end,
    };
    let (action, verdict) = ((end >> 32) as u32, end as u32);
    if frame.leaving && !is_of_ours(verdict) {
        return tc::NEXT;
    }
    let unresolved = verdict == Verdict::PassUnresolved as u32;
    if frame.hook == Hook::Xdp && unresolved && handover::mark(frame) {
        // The tc program behind goes on with it, and counts.
        return action;
    }
    count_index(verdict, length);
    if !frame.leaving {
        trace::tell_index(verdict);
    }
    action
}

/// Whether a verdict is that of a packet which leaves the node and belongs to a flow of ours. What
/// does not was never received, and is none of ours to count.
#[inline(always)]
fn is_of_ours(verdict: u32) -> bool {
    [
        Verdict::ForwardReply,
        Verdict::ForwardError,
        Verdict::DropContended,
    ]
    .map(|ours| ours as u32)
    .contains(&verdict)
}

/// Answers of [`Stages::stage`] for packets that are ours. No program answers with zero in the
/// upper half, so these are no ends.
const LATER4: u64 = 0;
const LATER6: u64 = 1;
const ECHO4: u64 = 2;
const ECHO6: u64 = 3;
const ERROR4: u64 = 4;
const ERROR6: u64 = 5;
const FLOW4: u64 = 6;
const FLOW6: u64 = 7;

/// An outcome in one register, as the stages answer with: the program's answer in the upper half,
/// the verdict in the lower one.
#[inline(always)]
fn packed(hook: Hook, outcome: Outcome) -> u64 {
    let (action, verdict) = match outcome {
        Ok(end) => end,
        Err(verdict) => (action_of(hook, verdict), verdict),
    };
    (action as u64) << 32 | verdict as u64
}

/// The frame that a program's context is for, as the stages want it.
#[inline(always)]
fn frame_of(ctx: *mut c_void, hook: Hook) -> Frame {
    match hook {
        Hook::Xdp => Frame::from_xdp(&XdpContext::new(ctx.cast())),
        Hook::Tc => Frame::from_tc_whole(&TcContext::new(ctx.cast())),
    }
    .keeping()
}

/// Finds out which stage a frame is for. `Err`: how its way ends already.
#[inline(always)]
fn stage(frame: &Frame) -> Result<u64, Verdict> {
    let link = vlan::read(frame)?;
    match link.ethertype {
        ETHERTYPE_IPV4 => {
            let network = parse::ipv4(frame, link.length())?;
            let ours = if frame.leaving {
                network.saddr
            } else {
                if block::source4(network.saddr, frame.len()) {
                    return Err(Verdict::DropBlocked);
                }
                network.daddr
            };
            if !may_be_ours_at_all(ours) {
                return Err(Verdict::PassForeign);
            }
            Outline::write(frame, &link, &network)?;
            Ok(match network.proto {
                _ if network.fragment.later => LATER4,
                IPPROTO_ICMP if !frame.leaving && echo::is_request4(frame, &network) => ECHO4,
                IPPROTO_ICMP => ERROR4,
                _ => FLOW4,
            })
        }
        ETHERTYPE_IPV6 => {
            let mut network = parse::ipv6(frame, link.length())?;
            let ours = if frame.leaving {
                &network.saddr
            } else {
                if block::source6(&network.saddr, frame.len()) {
                    return Err(Verdict::DropBlocked);
                }
                &network.daddr
            };
            if !may_be_ours_at_all(hash::filter_word6(ours)) {
                return Err(Verdict::PassForeign);
            }
            network.follow_extensions(frame)?;
            Outline::write(frame, &link, &network)?;
            Ok(match network.proto {
                _ if network.fragment.later => LATER6,
                IPPROTO_ICMPV6 if !frame.leaving && echo::is_request6(frame, &network) => ECHO6,
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
pub(crate) fn arrival4(ctx: *mut c_void, hook: Hook) -> Result<Arrival<Ipv4, u32>, Verdict> {
    let outline = outline()?;
    let frame = arrived(ctx, hook, outline);
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
pub(crate) fn arrival6(ctx: *mut c_void, hook: Hook) -> Result<Arrival<Ipv6, [u32; 4]>, Verdict> {
    let outline = outline()?;
    let frame = arrived(ctx, hook, outline);
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

/// Whether the frame that a tc program jumped here with is on its way out of the node.
#[inline(always)]
pub(crate) fn is_leaving() -> bool {
    outline().is_ok_and(Outline::is_leaving)
}

#[inline(always)]
fn arrived(ctx: *mut c_void, hook: Hook, outline: &Outline) -> Frame {
    Frame::again(ctx, hook)
        .keeping()
        .leaving(hook == Hook::Tc && outline.is_leaving())
}

#[inline(always)]
fn outline() -> Result<&'static Outline, Verdict> {
    let outline = OUTLINE.get_ptr(0).ok_or(Verdict::DropInternal)?;
    // SAFETY: this CPU's scratch memory, and no other packet is handled on this CPU meanwhile.
    Ok(unsafe { &*outline })
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
    if !of.frame.leaving && !may_be_ours(word, packet.ports, packet.proto) {
        return Err(Verdict::PassForeign);
    }
    pending::check::<F, L3>(&of.frame, &of.network)?;
    if let Some(found) = Outline::take_placed::<F>()
        && forward::is_of::<F, L3>(&found, &packet)
    {
        return Ok(found);
    }
    if of.frame.leaving {
        forward::leaving_flow_of::<F, L3>(&packet)
    } else {
        forward::flow_of::<F, L3>(&packet)
    }
}

/// Why [`leave`] does not send a packet.
enum Refusal {
    /// It is left as it is.
    Left(Verdict),
    /// The sender is to be told: the bytes that packets may have, or zero for a hop count that
    /// ends here.
    Answer { mtu: u32 },
    /// The backend answers the client itself: see [`send_alone`].
    Alone,
}

impl From<Verdict> for Refusal {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        Self::Left(verdict)
    }
}

/// In the upper half of an end that is to be an answer; no program answers with it.
const ANSWER: u64 = i32::MAX as u64;
/// The same for [`Refusal::Alone`].
const ALONE: u64 = ANSWER - 1;

/// An end of [`leave`] in one register.
#[inline(always)]
fn packed_leave(hook: Hook, outcome: Result<(u32, Verdict), Refusal>) -> u64 {
    match outcome {
        Ok(end) => packed(hook, Ok(end)),
        Err(Refusal::Left(verdict)) => packed(hook, Err(verdict)),
        Err(Refusal::Answer { mtu }) => ANSWER << 32 | mtu as u64,
        Err(Refusal::Alone) => ALONE << 32,
    }
}

/// Tells the sender where [`leave`] would have it told, by a stage that makes an error out of the
/// frame.
#[inline(always)]
fn answered(frame: &Frame, end: u64, tell: fn(*mut c_void, u64) -> u64) -> u64 {
    if end >> 32 != ANSWER {
        return end;
    }
    let mtu = end as u32;
    let told = tell(frame.ctx, mtu as u64) != 0;
    let verdict = match (told, mtu) {
        (true, 0) => Verdict::AnswerTimeExceeded,
        (true, _) => Verdict::AnswerTooBig,
        (false, 0) => Verdict::DropTtlExceeded,
        (false, _) => Verdict::DropTooBig,
    };
    let outcome = if told {
        Ok((transmit::send_back(frame), verdict))
    } else {
        Err(verdict)
    };
    packed(frame.hook, outcome)
}

/// Sends a packet whose backend answers the client itself, which [`leave`] leaves to this.
#[inline(always)]
fn send_alone<F: NewFlow, L3>(of: &Arrival<L3, F::Addr>, placed: u64) -> Outcome {
    let Found { slot, tag } = found_at::<F>(placed)?;
    let length = of.frame.len() as u64;
    server_return::send_untagged::<F>(&of.frame, &of.link, slot.index, tag, length)
}

/// The half that [`place`] has answered with.
#[inline(always)]
fn found_at<F: NewFlow>(placed: u64) -> Result<Found<F::Addr>, Verdict> {
    let slot = SlotRef::at::<F>(placed as u32).ok_or(Verdict::DropInternal)?;
    let tag = slot.tag();
    if (tag.0 ^ (placed >> 32)) & 0xffff_ff00 != 0 || !tag.is_live() {
        return Err(Verdict::DropContended);
    }
    Ok(Found { slot, tag })
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
    let found = found_at::<F>(placed)?;
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
    if departure.is_alone() {
        return Err(Refusal::Alone);
    }
    departure.count(frame.len() as u64);
    // SAFETY: the frame has not been resized since it was parsed.
    unsafe { rewrite::apply(frame, &packet, &departure.rewrite) };
    Ok((departure.send(frame, link)?, departure.verdict))
}
