//! Memory that the kernel must give at start: the flow tables are laid out as a whole.

use std::{fs, path::Path};

use lb_common::flow::{Slot4, Slot6};

use super::Finding;
use crate::surroundings::bytes_of;

const SUBJECT: &str = "memory";
const MEBIBYTE: u64 = 1024 * 1024;

/// `available` are bytes; absent: the kernel does not tell.
pub(super) fn finding(flow_slots: u32, available: Option<u64>) -> Option<Finding> {
    let available = available?;
    let each = (size_of::<Slot4>() + size_of::<Slot6>()) as u64;
    let needed = u64::from(flow_slots) * each;
    let found = format!(
        "flow tables of {flow_slots} slots take {} MiB of {} that are available",
        needed / MEBIBYTE,
        available / MEBIBYTE
    );
    // As much again is for everything else, and for the tables of a former agent.
    Some(match available / 2 {
        enough if needed <= enough => Finding::fine(SUBJECT, found),
        half => {
            // A power of two, as `flow_slots` must be.
            let slots = (half / each).max(1).ilog2();
            let mend = format!(
                "`flow_slots = {}` under [node], or more memory",
                1_u64 << slots
            );
            match needed <= available {
                true => Finding::advice(SUBJECT, found, mend),
                false => Finding::missing(SUBJECT, found, mend),
            }
        }
    })
}

/// What processes and the kernel could have without swapping, by /proc/meminfo.
pub(super) fn read(meminfo: &Path) -> Option<u64> {
    let text = fs::read_to_string(meminfo).ok()?;
    bytes_of(&text, "MemAvailable:")
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    #[test]
    fn tables_must_fit() {
        let rows = [
            (262_144, 1024, State::Fine, "48 MiB of 1024", ""),
            (262_144, 96, State::Fine, "", ""),
            (262_144, 95, State::Advice, "", "`flow_slots = 131072`"),
            (
                16_777_216,
                2048,
                State::Missing,
                "3072 MiB",
                "`flow_slots = 4194304`",
            ),
        ];
        for (slots, available, state, found, mend) in rows {
            let finding = finding(slots, Some(available * MEBIBYTE)).unwrap();
            assert_eq!(finding.state, state, "{finding:?}");
            assert!(finding.found.contains(found), "{finding:?}");
            assert!(finding.mend.unwrap_or_default().contains(mend), "{slots}");
        }
        assert_eq!(finding(1024, None), None);
        assert!(read(Path::new("/proc/meminfo")).unwrap() > MEBIBYTE);
    }
}
