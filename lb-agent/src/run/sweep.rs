//! The sweep of the flow tables, over and over.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, sync::watch};
use tracing::error;

use crate::{
    datapath::{self, FlowTables, Traffic},
    domain::kernel::Census,
};

/// Between two passes over the flow tables.
const SWEEP: Duration = Duration::from_secs(5);

/// Passes from which to the next the flow tables are gone through though no packet has come since
/// they were empty.
const LOOK_ANYWAY: u64 = 12;

/// Passes from which to the next free memory is given back.
const GIVE_BACK: u64 = 3;
/// The same for the pages of the program: what was not needed for a minute is not kept for it.
const LET_GO: u64 = 12;
/// The pass after which both are first done.
const GIVE_BACK_FIRST: u64 = 2;

/// Counts and sweeps the flow tables, as long as anybody wants to know. Blocks.
pub(super) fn keep_swept(
    flows: &FlowTables,
    traffic: &Traffic,
    census: &watch::Sender<Arc<Census>>,
    runtime: &Handle,
) {
    let mut pass = 0;
    let mut judged = flows.judged();
    let mut quiet = None;
    loop {
        // Read before the tables are, for what comes meanwhile may be overlooked there.
        let packets = traffic.packets().ok();
        let nothing_new = packets.is_some() && packets == quiet && pass % LOOK_ANYWAY != 0;
        let found = if nothing_new {
            Ok(flows.nothing())
        } else {
            flows.sweep_noting(&mut judged)
        };
        match found {
            Ok(found) => {
                pass += 1;
                quiet = packets.filter(|_| judged.found_nothing());
                if census.send(Arc::new(Census { pass, ..found })).is_err() {
                    return;
                }
            }
            Err(error) => {
                quiet = None;
                error!(%error, "the flow tables could not be swept");
            }
        }
        // The first of these, when all services have come; then from time to time.
        if pass % GIVE_BACK == GIVE_BACK_FIRST {
            datapath::memory::give_back();
        }
        if pass % LET_GO == GIVE_BACK_FIRST {
            datapath::memory::let_go_of_code();
        }
        // Nothing is waited for in small steps: each would wake a processor.
        let unwanted = runtime.block_on(tokio::time::timeout(SWEEP, census.closed()));
        if unwanted.is_ok() {
            return;
        }
    }
}
