//! Test runs of the loaded programs, for the tests and the benchmark.

use aya::programs::{ProgramError, TestRun as _, TestRunOptions, Xdp};
use lb_common::maps::name;

use super::{Datapath, classifier::Role};
use crate::domain::kernel::KernelError;

/// Offset of `ifindex` in `struct __sk_buff` of include/uapi/linux/bpf.h.
const SKB_IFINDEX: usize = 40;
/// Size of that struct.
const SKB: usize = 192;

/// `struct xdp_md` of include/uapi/linux/bpf.h for a frame that comes in on `ifindex`: data, data_end,
/// data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
pub(super) fn xdp_context(frame: &[u8], ifindex: u32) -> Vec<u8> {
    [0, frame.len() as u32, 0, ifindex, 0, 0]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect()
}

impl Datapath {
    /// Descriptor of the XDP program, for a benchmark's driver to call.
    ///
    /// # Errors
    ///
    /// The program is not loaded.
    pub fn program_fd(&self) -> Result<&aya::programs::ProgramFd, KernelError> {
        let what = "looking for the loaded program";
        self.xdp()?
            .fd()
            .map_err(|error| KernelError::new(what, error))
    }

    fn xdp(&self) -> Result<&Xdp, KernelError> {
        let what = "looking for the loaded program";
        self.ebpf
            .program(name::PROGRAM_XDP)
            .ok_or_else(|| KernelError::new(what, "the object has no such program"))?
            .try_into()
            .map_err(|error: ProgramError| KernelError::new(what, error))
    }

    /// Runs the XDP program on a frame as if it came in on `ifindex`; answers with the XDP
    /// action and the frame afterwards, with the metadata in front of it. The counters count it.
    ///
    /// # Errors
    ///
    /// The kernel refuses test runs, or the interface does not exist.
    pub fn test_run(&self, frame: &[u8], ifindex: u32) -> Result<(u32, Vec<u8>), KernelError> {
        let context = xdp_context(frame, ifindex);
        let mut out = vec![0; frame.len() + 256];
        let run = self
            .xdp()?
            .test_run(options(frame, &mut out, &context))
            .map_err(|error| KernelError::new(RUNNING, error))?;
        out.truncate(run.data_size_out as usize);
        Ok((run.return_value, out))
    }

    /// The same with the tc program for interfaces without XDP; answers with the tc action.
    ///
    /// # Errors
    ///
    /// As for [`Self::test_run`].
    pub fn test_run_tc(&self, frame: &[u8], ifindex: u32) -> Result<(u32, Vec<u8>), KernelError> {
        self.run_classifier(Role::Ingress, frame, ifindex)
    }

    /// The same with the tc program for what leaves by `ifindex`.
    ///
    /// # Errors
    ///
    /// As for [`Self::test_run`].
    pub fn test_run_egress(
        &self,
        frame: &[u8],
        ifindex: u32,
    ) -> Result<(u32, Vec<u8>), KernelError> {
        self.run_classifier(Role::Egress, frame, ifindex)
    }

    fn run_classifier(
        &self,
        role: Role,
        frame: &[u8],
        ifindex: u32,
    ) -> Result<(u32, Vec<u8>), KernelError> {
        let mut context = vec![0; SKB];
        context[SKB_IFINDEX..SKB_IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
        let mut out = vec![0; frame.len() + 256];
        let classifiers = self
            .classifiers
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let run = classifiers
            .program(role)
            .test_run(options(frame, &mut out, &context))
            .map_err(|error| KernelError::new(RUNNING, error))?;
        out.truncate(run.data_size_out as usize);
        Ok((run.return_value, out))
    }
}

const RUNNING: &str = "running the program on a frame";

fn options<'a>(frame: &'a [u8], out: &'a mut [u8], context: &'a [u8]) -> TestRunOptions<'a> {
    TestRunOptions {
        data_in: Some(frame),
        data_out: Some(out),
        ctx_in: Some(context),
        ..TestRunOptions::new()
    }
}
