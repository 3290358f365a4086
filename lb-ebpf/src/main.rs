//! The kernel half of lb-agent: entry points only. Start reading at [`pipeline`].
//!
//! Built by `cargo xtask build-ebpf` for `bpfel-unknown-none`. It also type-checks on the host,
//! so that the linter can read it.

#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![allow(
    missing_docs,
    reason = "the macro of the entry points makes undocumented functions"
)]
#![allow(
    internal_features,
    reason = "compare-and-swap has no stable form on this target"
)]
#![feature(core_intrinsics)]

mod announce;
mod answer;
mod answer_budget;
mod block;
mod budget;
mod call;
mod create;
mod decapsulate;
mod departure;
mod detour;
mod echo;
mod extension;
mod family;
mod flow;
mod forward;
mod fragment;
mod handover;
mod headers;
mod hold;
mod icmp;
mod insert;
mod lease;
mod lookup;
mod maps;
mod outline;
mod packet;
mod parse;
mod pending;
mod pipeline;
mod place;
mod rewrite;
mod server_return;
mod settings;
mod socket;
mod stats;
mod tc;
mod trace;
mod transmit;
mod vlan;

use aya_ebpf::{
    bindings::xdp_action::XDP_PASS,
    macros::{cgroup_sock, cgroup_sock_addr, classifier, xdp},
    programs::{SockAddrContext, SockContext, TcContext, XdpContext},
};

use crate::{
    call::{Call4, Call6},
    packet::Frame,
};

/// Every packet of a configured interface, before the network stack.
#[xdp]
pub fn lb_xdp(ctx: XdpContext) -> u32 {
    pipeline::process(&Frame::from_xdp(&ctx))
}

/// The packets that `lb_xdp` jumps here with.
#[xdp]
pub fn lb_xdp_detour(ctx: XdpContext) -> u32 {
    detour::process::<detour::AtXdp>(&Frame::from_xdp(&ctx))
}

/// Every packet of a configured interface without XDP, and of interfaces that backends are behind.
#[classifier]
pub fn lb_tc_ingress(ctx: TcContext) -> i32 {
    tc::ingress(&ctx)
}

/// On interfaces with XDP, behind it: what XDP cannot send itself.
#[classifier]
pub fn lb_tc_finish(ctx: TcContext) -> i32 {
    tc::finish(&ctx)
}

/// Everything that leaves a configured interface by the stack: replies of the node's own processes.
#[classifier]
pub fn lb_tc_egress(ctx: TcContext) -> i32 {
    tc::egress(&ctx)
}

/// The packets that the other tc programs jump here with.
#[classifier]
pub fn lb_tc_detour(ctx: TcContext) -> i32 {
    let frame = Frame::from_tc_whole(&ctx).leaving(detour::is_leaving());
    detour::process::<detour::AtTc>(&frame) as i32
}

/// For test run only: returns the lower 32 bits of the kernel's tick counter, which the flow
/// table's times are kept in.
#[xdp]
pub fn lb_clock(_ctx: XdpContext) -> u32 {
    flow::now()
}

/// For test run and for peers of redirecting interfaces: passes everything.
#[xdp]
pub fn lb_pass(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// `connect` of a local client, to an address of `AF_INET`.
#[cgroup_sock_addr(connect4)]
pub fn lb_connect4(ctx: SockAddrContext) -> i32 {
    socket::connect(&Call4(ctx.sock_addr))
}

/// `connect` of a local client, to an address of `AF_INET`6.
#[cgroup_sock_addr(connect6)]
pub fn lb_connect6(ctx: SockAddrContext) -> i32 {
    socket::connect(&Call6(ctx.sock_addr))
}

/// `sendto` of a local client, to an address of `AF_INET`.
#[cgroup_sock_addr(sendmsg4)]
pub fn lb_sendmsg4(ctx: SockAddrContext) -> i32 {
    socket::send(&Call4(ctx.sock_addr))
}

/// `sendto` of a local client, to an address of `AF_INET`6.
#[cgroup_sock_addr(sendmsg6)]
pub fn lb_sendmsg6(ctx: SockAddrContext) -> i32 {
    socket::send(&Call6(ctx.sock_addr))
}

/// `recvfrom` of a local client, from an address of `AF_INET`.
#[cgroup_sock_addr(recvmsg4)]
pub fn lb_recvmsg4(ctx: SockAddrContext) -> i32 {
    socket::receive(&Call4(ctx.sock_addr))
}

/// `recvfrom` of a local client, from an address of `AF_INET`6.
#[cgroup_sock_addr(recvmsg6)]
pub fn lb_recvmsg6(ctx: SockAddrContext) -> i32 {
    socket::receive(&Call6(ctx.sock_addr))
}

/// `getpeername` of a local client's socket of `AF_INET`.
#[cgroup_sock_addr(getpeername4)]
pub fn lb_getpeername4(ctx: SockAddrContext) -> i32 {
    socket::show(&Call4(ctx.sock_addr))
}

/// `getpeername` of a local client's socket of `AF_INET`6.
#[cgroup_sock_addr(getpeername6)]
pub fn lb_getpeername6(ctx: SockAddrContext) -> i32 {
    socket::show(&Call6(ctx.sock_addr))
}

/// The end of a local client's socket.
#[cgroup_sock(sock_release)]
pub fn lb_sock_release(ctx: SockContext) -> i32 {
    socket::release(&ctx)
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel admits some helpers to programs under the GPL only.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
