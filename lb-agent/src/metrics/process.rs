//! Metrics of the agent's own process, under the names that Prometheus' client libraries give them.

use std::fs;

use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use super::family::Family;
use crate::surroundings::bytes_of;

/// What the process takes of its host. What /proc does not tell is left out.
pub(super) fn families() -> Vec<Family> {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    let spent = spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9;
    let mut families = vec![
        Family::counter(
            "process_cpu_seconds_total",
            "Processor time that the agent took.",
        )
        .with(spent),
    ];
    let mut gauge = |name, help, value: Option<u64>| {
        families.extend(value.map(|value| Family::gauge(name, help).with(value as f64)));
    };
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    gauge(
        "process_resident_memory_bytes",
        "Memory of the agent that is resident; the kernel's maps are not part of it.",
        bytes_of(&status, "VmRSS:"),
    );
    // The one that lists is open itself.
    let files = fs::read_dir("/proc/self/fd").map(|files| files.count() as u64 - 1);
    gauge(
        "process_open_fds",
        "Files, sockets and maps that the agent has open.",
        files.ok(),
    );
    gauge(
        "process_max_fds",
        "How many it may have open.",
        getrlimit(Resource::Nofile).current,
    );
    families
}
