//! The budget for new flows, and how the programs count it.

/// How many new flows are admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Budget {
    /// As many as turn the table over within [`super::Options::grace`] several times over: twice its
    /// slots a second.
    #[default]
    Auto,
    /// No limit.
    Unlimited,
    /// So many a second, above zero.
    PerSecond(u32),
}

impl Budget {
    /// Flows for each window, and the window's length as a power of two, in ticks.
    ///
    /// The window is about an eighth of a second: short enough for a burst not to fill the table,
    /// long enough for a hundred flows a second to be counted.
    pub(crate) fn windows(self, flow_slots: u32, ticks_per_second: u32) -> (u32, u32) {
        let per_second = match self {
            Budget::Unlimited => return (0, 0),
            Budget::Auto => flow_slots.saturating_mul(2),
            Budget::PerSecond(flows) => flows,
        };
        let shift = (ticks_per_second / 8).max(1).ilog2();
        let flows = u64::from(per_second) << shift;
        let per_window = flows.div_ceil(u64::from(ticks_per_second));
        (u32::try_from(per_window).unwrap_or(u32::MAX).max(1), shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounded up, so that no budget is none.
    #[test]
    fn budgets_by_the_window() {
        let windows = |budget: Budget, hz| budget.windows(262_144, hz);
        assert_eq!(windows(Budget::Unlimited, 250), (0, 0));
        assert_eq!(windows(Budget::PerSecond(1000), 250), (64, 4));
        assert_eq!(windows(Budget::PerSecond(1), 1000), (1, 6));
        assert_eq!(windows(Budget::Auto, 100), (41_944, 3));
        let (most, _) = windows(Budget::PerSecond(u32::MAX), 1000);
        assert!(most > u32::MAX / 16 - 16);
    }
}
