//! The stages as functions of the programs that the verifier checks once and by themselves, for each
//! hook. What the first one has found out the others read in an [`crate::outline::Outline`].

use core::ffi::c_void;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use lb_common::{hash, verdict::Verdict};

use super::{
    Arrival, arrival4, arrival6, frame_of, is_leaving, leave, packed, packed_leave, place,
    send_alone, stage,
};
use crate::{
    answer, echo,
    family::{V4, V6},
    fragment,
    headers::{Ipv4, Ipv6},
    icmp,
    packet::Hook,
};

/// The stages at one hook. Each takes the program's context, and answers with an end in one register
/// (see `packed`) unless it says something else.
pub(crate) trait Stages {
    /// Which stage comes next, or an end.
    fn stage(ctx: *mut c_void) -> u64;
    /// A fragment other than the first.
    fn later4(ctx: *mut c_void) -> u64;
    fn later6(ctx: *mut c_void) -> u64;
    /// An echo request.
    fn echo4(ctx: *mut c_void) -> u64;
    fn echo6(ctx: *mut c_void) -> u64;
    /// Any other ICMP message.
    fn error4(ctx: *mut c_void) -> u64;
    fn error6(ctx: *mut c_void) -> u64;
    /// The half that a packet belongs to; see `place`.
    fn place4(ctx: *mut c_void) -> u64;
    fn place6(ctx: *mut c_void) -> u64;
    /// Sends a packet the way of its half, which is the argument; see `leave`.
    fn leave4(ctx: *mut c_void, placed: u64) -> u64;
    fn leave6(ctx: *mut c_void, placed: u64) -> u64;
    /// Sends a packet whose backend answers the client itself; the argument as for `leave`.
    fn alone4(ctx: *mut c_void, placed: u64) -> u64;
    fn alone6(ctx: *mut c_void, placed: u64) -> u64;
    /// Makes an error out of the frame; the argument: the bytes that packets may have, or 0 for a
    /// hop count that ends here. Answers with 0 if the sender is not to be told.
    fn answer4(ctx: *mut c_void, mtu: u64) -> u64;
    fn answer6(ctx: *mut c_void, mtu: u64) -> u64;
}

macro_rules! hook {
    ($(#[$doc:meta])* $at:ident, $hook:ident, $context:ident, $($stage:ident($($argument:ident)?): $name:ident),* $(,)?) => {
        $(#[$doc])*
        pub(crate) struct $at;

        impl Stages for $at {
            $(
                #[inline(always)]
                fn $stage(ctx: *mut c_void $(, $argument: u64)?) -> u64 {
                    $name(ctx.cast() $(, $argument)?)
                }
            )*
        }

        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $name(ctx: *mut $context $(, $argument: u64)?) -> u64 {
                bodies::$stage(ctx.cast(), Hook::$hook $(, $argument)?)
            }
        )*
    };
}

hook! {
    /// Of an XDP program.
    AtXdp, Xdp, xdp_md,
    stage(): lb_stage,
    later4(): lb_later4,
    later6(): lb_later6,
    echo4(): lb_echo4,
    echo6(): lb_echo6,
    error4(): lb_error4,
    error6(): lb_error6,
    place4(): lb_place4,
    place6(): lb_place6,
    leave4(placed): lb_leave4,
    leave6(placed): lb_leave6,
    alone4(placed): lb_alone4,
    alone6(placed): lb_alone6,
    answer4(mtu): lb_answer4,
    answer6(mtu): lb_answer6,
}

hook! {
    /// Of a tc program.
    AtTc, Tc, __sk_buff,
    stage(): lb_tc_stage,
    later4(): lb_tc_later4,
    later6(): lb_tc_later6,
    echo4(): lb_tc_echo4,
    echo6(): lb_tc_echo6,
    error4(): lb_tc_error4,
    error6(): lb_tc_error6,
    place4(): lb_tc_place4,
    place6(): lb_tc_place6,
    leave4(placed): lb_tc_leave4,
    leave6(placed): lb_tc_leave6,
    alone4(placed): lb_tc_alone4,
    alone6(placed): lb_tc_alone6,
    answer4(mtu): lb_tc_answer4,
    answer6(mtu): lb_tc_answer6,
}

/// What the functions do, whichever the hook.
mod bodies {
    use super::*;

    #[inline(always)]
    pub(super) fn stage(ctx: *mut c_void, hook: Hook) -> u64 {
        let frame = frame_of(ctx, hook).leaving(hook == Hook::Tc && is_leaving());
        match super::stage(&frame) {
            Ok(stage) => stage,
            Err(verdict) => packed(hook, Err(verdict)),
        }
    }

    /// The bodies of the other stages: what is done with the frame once it is known where its
    /// headers lie.
    macro_rules! bodies {
        ($($name:ident($arrival:ident), |$of:ident $(, $argument:ident)?| $end:expr;)*) => {
            $(
                #[inline(always)]
                pub(super) fn $name(ctx: *mut c_void, hook: Hook $(, $argument: u64)?) -> u64 {
                    match $arrival(ctx, hook) {
                        Ok($of) => $end,
                        Err(verdict) => packed(hook, Err(verdict)),
                    }
                }
            )*
        };
    }

    bodies! {
        later4(arrival4), |of|
            packed(of.frame.hook, fragment::later::<V4, Ipv4>(&of.frame, &of.link, &of.network));
        later6(arrival6), |of|
            packed(of.frame.hook, fragment::later::<V6, Ipv6>(&of.frame, &of.link, &of.network));
        echo4(arrival4), |of|
            packed(of.frame.hook, echo::answer4(&of.frame, &of.link, &of.network));
        echo6(arrival6), |of|
            packed(of.frame.hook, echo::answer6(&of.frame, &of.link, &of.network));
        error4(arrival4), |of|
            packed(of.frame.hook, icmp::error4(&of.frame, &of.link, &of.network));
        error6(arrival6), |of|
            packed(of.frame.hook, icmp::error6(&of.frame, &of.link, &of.network));
        place4(arrival4), |of| place::<V4, Ipv4>(&of, of.network.daddr);
        place6(arrival6), |of|
            place::<V6, Ipv6>(&of, hash::filter_word6(&of.network.daddr));
        leave4(arrival4), |of, placed|
            packed_leave(of.frame.hook, leave::<V4, Ipv4>(&of, placed));
        leave6(arrival6), |of, placed|
            packed_leave(of.frame.hook, leave::<V6, Ipv6>(&of, placed));
        alone4(arrival4), |of, placed|
            packed(of.frame.hook, send_alone::<V4, Ipv4>(&of, placed));
        alone6(arrival6), |of, placed|
            packed(of.frame.hook, send_alone::<V6, Ipv6>(&of, placed));
    }

    #[inline(always)]
    pub(super) fn answer4(ctx: *mut c_void, hook: Hook, mtu: u64) -> u64 {
        let of: Result<Arrival<_, _>, Verdict> = arrival4(ctx, hook);
        u64::from(of.is_ok_and(|of| answer::answer4(&of, mtu as u32).is_some()))
    }

    #[inline(always)]
    pub(super) fn answer6(ctx: *mut c_void, hook: Hook, mtu: u64) -> u64 {
        let of: Result<Arrival<_, _>, Verdict> = arrival6(ctx, hook);
        u64::from(of.is_ok_and(|of| answer::answer6(&of, mtu as u32).is_some()))
    }
}
