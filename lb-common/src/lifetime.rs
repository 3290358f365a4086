//! How long idle flows live.

use crate::{IPPROTO_TCP, assert_layout, flow::State};

/// Idle time after which a flow is over, in the unit of the caller (ticks in the kernel).
///
/// Defaults: TCP established 7,440 s (RFC 5382, REQ-5: not less than 2 h 4 min), transitory
/// states 240 s (the same), reset 10 s; UDP 300 s (RFC 4787, REQ-5). Half-open is kept short
/// instead of the RFC's four minutes, for the sake of floods: a SYN is repeated long before.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// TCP, no answer or no confirmation yet.
    pub tcp_half_open: u32,
    /// TCP, both sides heard.
    pub tcp_established: u32,
    /// TCP, one FIN seen.
    pub tcp_closing: u32,
    /// TCP, both FINs seen (TIME_WAIT of the side that closed first) or reset.
    pub tcp_finished: u32,
    /// UDP, no answer yet.
    pub udp_half_open: u32,
    /// UDP, answered.
    pub udp_established: u32,
}

impl Lifetimes {
    /// The defaults, in seconds.
    pub const DEFAULT_SECONDS: Self = Self {
        tcp_half_open: 20,
        tcp_established: 7440,
        tcp_closing: 240,
        tcp_finished: 60,
        udp_half_open: 30,
        udp_established: 300,
    };

    /// The lifetime of a flow in this state.
    #[inline(always)]
    pub const fn of(&self, proto: u8, state_bits: u8) -> u32 {
        match Lifetime::of(proto, state_bits) {
            Lifetime::TcpHalfOpen => self.tcp_half_open,
            Lifetime::TcpEstablished => self.tcp_established,
            Lifetime::TcpClosing => self.tcp_closing,
            Lifetime::TcpFinished => self.tcp_finished,
            Lifetime::UdpHalfOpen => self.udp_half_open,
            Lifetime::UdpEstablished => self.udp_established,
        }
    }

    /// Whether a half in this state, last noted at `seen`, is over at `now`; all in the same unit.
    /// See [`is_idle_beyond`].
    #[inline(always)]
    pub const fn is_over(&self, proto: u8, state_bits: u8, now: u32, seen: u32) -> bool {
        is_idle_beyond(self.of(proto, state_bits), now, seen)
    }

    /// The same times in another unit: each multiplied by `factor`.
    pub const fn scaled(&self, factor: u32) -> Self {
        Self {
            tcp_half_open: self.tcp_half_open.saturating_mul(factor),
            tcp_established: self.tcp_established.saturating_mul(factor),
            tcp_closing: self.tcp_closing.saturating_mul(factor),
            tcp_finished: self.tcp_finished.saturating_mul(factor),
            udp_half_open: self.udp_half_open.saturating_mul(factor),
            udp_established: self.udp_established.saturating_mul(factor),
        }
    }
}

/// Whether more than `lifetime` has gone by at `now` since `seen`; all in the same unit.
///
/// A time of the future is a packet that another CPU noted after `now` was read: the counter went
/// on meanwhile. Such a half lives.
#[inline(always)]
pub const fn is_idle_beyond(lifetime: u32, now: u32, seen: u32) -> bool {
    let idle = now.wrapping_sub(seen);
    idle <= i32::MAX as u32 && idle > lifetime
}

/// The lifetimes there are; each the name of a field of [`Lifetimes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of `Lifetimes` say it")]
pub enum Lifetime {
    TcpHalfOpen,
    TcpEstablished,
    TcpClosing,
    TcpFinished,
    UdpHalfOpen,
    UdpEstablished,
}

impl Lifetime {
    /// The one of a flow in this state.
    #[inline(always)]
    pub const fn of(proto: u8, state_bits: u8) -> Self {
        let established = state_bits == State::Established as u8;
        if proto != IPPROTO_TCP {
            return if established {
                Lifetime::UdpEstablished
            } else {
                Lifetime::UdpHalfOpen
            };
        }
        if established {
            Lifetime::TcpEstablished
        } else if state_bits >= State::Finished as u8 {
            Lifetime::TcpFinished
        } else if state_bits >= State::ClosingByClient as u8 {
            Lifetime::TcpClosing
        } else {
            Lifetime::TcpHalfOpen
        }
    }
}

assert_layout! {
    Lifetimes: size 24, align 4;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The counter wraps, and CPUs do not read it at the same instant.
    #[test]
    fn over_is_what_lies_behind() {
        let lifetimes = Lifetimes::DEFAULT_SECONDS;
        let over = |now, seen| lifetimes.is_over(IPPROTO_TCP, State::Established as u8, now, seen);
        for now in [0, 1, 5000, 1 << 31, u32::MAX] {
            assert!(!over(now, now));
            assert!(!over(now, now.wrapping_add(1)), "noted a tick later");
            assert!(!over(now, now.wrapping_sub(7440)));
            assert!(over(now, now.wrapping_sub(7441)));
        }
    }
}
