//! Which part of the snapshot may be out of date.
//!
//! With a thousand services, to weigh all of them for the change of one takes longer than all the
//! rest of the way into the kernel. So what is known to concern some services alone notes those;
//! whatever else changes (a command, the configuration, an entry) touches all.

use std::collections::BTreeSet;

/// See the module's documentation. A listing is noted by no one: a guard that has not seen it yet
/// tells.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Anything may be otherwise.
    pub(super) all: bool,
    /// Services of which a probe's verdict has changed, or a failure of traffic was told, or of which
    /// an ejection or a step of a slow start has ended.
    pub(super) services: BTreeSet<String>,
}
