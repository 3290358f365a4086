//! Features of the kernel, found out by trying them: a distribution's kernel may have what its
//! version does not promise, or lack what it does.
//!
//! All else that the programs and the agent use is older than compare-and-swap: bounded loops
//! (5.3), mappable arrays and `bpf_jiffies64` (5.5), XDP links (5.9), inner maps of different sizes
//! (5.10).

pub(crate) mod driver;
pub mod ethtool;
pub mod wall_clock;

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

pub use super::features::xdp_features;
use super::link::bpf;
use crate::domain::kernel::KernelError;

/// The oldest Linux with [`compare_and_swap`].
pub const COMPARE_AND_SWAP_SINCE: &str = "5.12";
/// The oldest Linux with [`tcx`].
pub const TCX_SINCE: &str = "6.6";

/// `BPF_PROG_LOAD` of include/uapi/linux/bpf.h.
const PROG_LOAD: libc::c_long = 5;
/// `BPF_LINK_CREATE`.
const LINK_CREATE: libc::c_long = 28;
/// `BPF_PROG_TYPE_SCHED_CLS`.
const SCHED_CLS: u32 = 3;
/// `BPF_PROG_TYPE_XDP`.
const XDP: u32 = 6;
/// `BPF_TCX_INGRESS`.
const TCX_INGRESS: u32 = 46;
/// No interface has this index.
const NO_INTERFACE: u32 = i32::MAX as u32;

/// The part of `union bpf_attr` that [`PROG_LOAD`] reads.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The part of `union bpf_attr` that [`LINK_CREATE`] reads.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// One instruction (Documentation/bpf/standardization/instruction-set.rst): operation, registers
/// (destination in the lower half), offset, immediate.
const fn instruction(operation: u8, registers: u8, offset: i16, immediate: i32) -> u64 {
    let [low, high] = offset.to_ne_bytes();
    let [a, b, c, d] = immediate.to_ne_bytes();
    u64::from_ne_bytes([operation, registers, low, high, a, b, c, d])
}

/// r0 = 0; return.
const NOTHING: [u64; 2] = [instruction(0xb7, 0, 0, 0), instruction(0x95, 0, 0, 0)];

/// Swaps a word on the stack if it is still zero.
const SWAP: [u64; 6] = [
    // *(u64 *)(r10 - 8) = 0; r0 = 0; r1 = 1
    instruction(0x7a, 10, -8, 0),
    instruction(0xb7, 0, 0, 0),
    instruction(0xb7, 1, 0, 1),
    // r0 = cmpxchg_64(r10 - 8, r0, r1)
    instruction(0xdb, 0x1a, -8, 0xf1),
    NOTHING[0],
    NOTHING[1],
];

/// Whether programs can compare and swap, which the flow table is kept with.
///
/// # Errors
///
/// The kernel refuses even a program that does nothing.
pub fn compare_and_swap() -> Result<bool, KernelError> {
    match load(XDP, &SWAP) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let what = "loading a program that does nothing";
            load(XDP, &NOTHING)
                .map(|_| false)
                .map_err(|error| KernelError::new(what, error))
        }
        Err(error) => {
            let what = "loading a program that compares and swaps";
            Err(KernelError::new(what, error))
        }
    }
}

/// Whether programs can be attached to an interface's traffic control by links.
///
/// # Errors
///
/// The kernel refuses a program that does nothing, or answers what tells nothing.
pub fn tcx() -> Result<bool, KernelError> {
    let what = "attaching a program to no interface";
    let program = load(SCHED_CLS, &NOTHING).map_err(|error| KernelError::new(what, error))?;
    let create = LinkCreate {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_ifindex: NO_INTERFACE,
        attach_type: TCX_INGRESS,
        flags: 0,
    };
    // SAFETY: the attributes hold no pointer.
    let error = match unsafe { bpf(LINK_CREATE, &create) } {
        // SAFETY: the kernel has just given us the descriptor; closing it detaches.
        Ok(fd) => {
            // SAFETY: the kernel has just given us the descriptor; closing it detaches.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
            return Ok(true);
        }
        Err(error) => error,
    };
    match error.raw_os_error() {
        // It looked for the interface; before, it would have stumbled over the kind of attachment.
        Some(libc::ENODEV) => Ok(true),
        Some(libc::EINVAL) => Ok(false),
        _ => Err(KernelError::new(what, error)),
    }
}

fn load(prog_type: u32, instructions: &[u64]) -> io::Result<OwnedFd> {
    let attributes = ProgLoad {
        prog_type,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    // SAFETY: instructions and licence outlive the call, and the count is that of the slice.
    let fd = unsafe { bpf(PROG_LOAD, &attributes) }?;
    // SAFETY: the kernel has just given us the descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel's own BPF_ATOMIC_OP and BPF_MOV64_IMM make them (include/linux/filter.h).
    #[test]
    fn instructions_are_encoded() {
        assert_eq!(
            SWAP[3].to_ne_bytes(),
            [0xdb, 0x1a, 0xf8, 0xff, 0xf1, 0, 0, 0]
        );
        assert_eq!(SWAP[2].to_ne_bytes(), [0xb7, 0x01, 0, 0, 1, 0, 0, 0]);
    }
}
