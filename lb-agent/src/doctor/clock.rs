//! The time of day: rules and drains of the fleet end by it, and so do certificates.

use std::time::Duration;

use super::Finding;

const SUBJECT: &str = "clock";

/// Further apart than the second that `Date` is exact to, and the question's way.
const APART: Duration = Duration::from_secs(3);

/// `synchronized` is what the kernel believes; absent: it does not tell.
pub(super) fn finding(synchronized: Option<bool>) -> Option<Finding> {
    Some(match synchronized? {
        true => Finding::fine(SUBJECT, "synchronized"),
        false => Finding::advice(
            SUBJECT,
            "nobody keeps it: rules of the fleet may end too early or too late here",
            "`timedatectl set-ntp true`, or run chrony",
        ),
    })
}

/// How far this node's clock is from Consul's; whether it is ahead.
pub(super) fn skew(apart: Duration, ahead: bool) -> Finding {
    const SUBJECT: &str = "Consul's clock";
    let way = if ahead { "ahead of" } else { "behind" };
    let seconds = apart.as_secs();
    if apart <= APART {
        return Finding::fine(SUBJECT, format!("within {} s", APART.as_secs()));
    }
    Finding::advice(
        SUBJECT,
        format!("this node is {seconds} s {way} it"),
        "`chronyc makestep` or `systemctl restart systemd-timesyncd`, on whichever is wrong",
    )
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    #[test]
    fn clocks_that_nobody_keeps_are_told_of() {
        let rows = [(true, State::Fine), (false, State::Advice)];
        for (synchronized, state) in rows {
            assert_eq!(finding(Some(synchronized)).unwrap().state, state);
        }
        assert_eq!(finding(None), None);
        let rows = [
            (0, true, State::Fine, "within"),
            (3, false, State::Fine, "within"),
            (4, false, State::Advice, "4 s behind"),
            (3600, true, State::Advice, "3600 s ahead of"),
        ];
        for (seconds, ahead, state, words) in rows {
            let finding = skew(Duration::from_secs(seconds), ahead);
            assert_eq!(finding.state, state);
            assert!(finding.found.contains(words), "{finding:?}");
        }
    }
}
