//! What a figure is to be, and whether it is.

use std::fmt;

/// A bound on a measured figure. What is not a number meets none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// The figure may be this large.
    AtMost(f64),
    /// The figure must be this large.
    AtLeast(f64),
    /// The figure must be larger than this.
    Above(f64),
    /// The figure must be smaller than this.
    Below(f64),
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goal::AtMost(limit) => write!(f, "≤ {limit:.2}"),
            Goal::AtLeast(limit) => write!(f, "≥ {limit:.2}"),
            Goal::Above(limit) => write!(f, "> {limit:.2}"),
            Goal::Below(limit) => write!(f, "< {limit:.2}"),
        }
    }
}

impl Goal {
    /// Whether `figure` is what it is to be.
    pub fn is_met(self, figure: f64) -> bool {
        match self {
            Goal::AtMost(limit) => figure <= limit,
            Goal::AtLeast(limit) => figure >= limit,
            Goal::Above(limit) => figure > limit,
            Goal::Below(limit) => figure < limit,
        }
    }

    /// `met` or `NOT met`.
    pub fn verdict(self, figure: f64) -> &'static str {
        if self.is_met(figure) {
            "met"
        } else {
            "NOT met"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_bounds() {
        for (goal, figure, met) in [
            (Goal::AtMost(50.0), 50.0, true),
            (Goal::AtMost(50.0), 50.1, false),
            (Goal::AtLeast(0.95), 0.95, true),
            (Goal::AtLeast(0.95), 0.94, false),
            (Goal::Above(1.0), 1.0, false),
            (Goal::Above(1.0), 1.1, true),
            (Goal::Below(1.0), 1.0, false),
            (Goal::Below(1.0), 0.9, true),
            (Goal::AtMost(50.0), f64::NAN, false),
            (Goal::AtLeast(50.0), f64::NAN, false),
        ] {
            assert_eq!(goal.is_met(figure), met, "{goal:?} with {figure}");
        }
    }
}
