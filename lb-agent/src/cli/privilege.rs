//! Whether this process may load programs into the kernel, told before anything is tried.

use std::fs;

use super::failure::Failure;

const CAP_NET_ADMIN: u32 = 12;
/// Contains what `CAP_PERFMON` and `CAP_BPF` were split from.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Looks at the capabilities in force (see `capabilities(7)`), not at the user: systemd may have
/// granted just the needed ones to somebody else than root.
pub(super) fn check() -> Result<(), Failure> {
    // Where there is no proc file system to ask, the kernel's own refusal has to do.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    match effective(&status).map(missing).unwrap_or_default() {
        missing if missing.is_empty() => Ok(()),
        missing => Err(Failure::Refused(format!(
            "running the agent takes {}, which this process does not have; run it as root",
            missing.join(", ")
        ))),
    }
}

/// The effective set in the text of `/proc/PID/status`.
fn effective(status: &str) -> Option<u64> {
    let digits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(digits.trim(), 16).ok()
}

fn missing(effective: u64) -> Vec<&'static str> {
    let has = |capability: u32| effective & (1 << capability) != 0;
    [
        (has(CAP_NET_ADMIN), "CAP_NET_ADMIN"),
        (has(CAP_BPF) || has(CAP_SYS_ADMIN), "CAP_BPF"),
        (has(CAP_PERFMON) || has(CAP_SYS_ADMIN), "CAP_PERFMON"),
    ]
    .into_iter()
    .filter(|(has, _)| !has)
    .map(|(_, name)| name)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_found() {
        let status = "Name:\tlb-agent\nCapPrm:\t0000000000000000\nCapEff:\t000000c000001000\n";
        assert_eq!(effective(status), Some(0xc0_0000_1000));
        assert_eq!(effective("Name:\tlb-agent\n"), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let rows: [(u64, &[&str]); 5] = [
            (0x1ff_ffff_ffff, &[]),
            (0xc0_0000_1000, &[]),
            (1 << CAP_NET_ADMIN | 1 << CAP_SYS_ADMIN, &[]),
            (1 << CAP_NET_ADMIN, &["CAP_BPF", "CAP_PERFMON"]),
            (0, &["CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON"]),
        ];
        for (set, expected) in rows {
            assert_eq!(missing(set), expected, "{set:x}");
        }
    }
}
