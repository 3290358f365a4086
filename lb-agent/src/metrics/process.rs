//! Metrics of the agent's own process, under the names that Prometheus' client libraries give them.

use std::fs;

use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use super::family::Family;

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
        resident(&status),
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

/// Bytes, of a text like proc_pid_status(5).
fn resident(status: &str) -> Option<u64> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read() {
        let rows = [
            ("VmHWM:\t 9 kB\nVmRSS:\t  12345 kB\n", Some(12_641_280)),
            ("VmRSS:\t12345\n", None),
            ("VmRSS:\tmuch kB\n", None),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(resident(text), expected, "{text:?}");
        }
    }
}
