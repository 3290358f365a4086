//! Whether packets have come that can have left something in the flow tables: an idle node need not
//! go through all of them every few seconds.

use std::os::fd::OwnedFd;

use aya::maps::{Map, MapData, PerCpuArray};
use lb_common::{entry::Counter, maps::name, verdict::Verdict};

use crate::{datapath::Datapath, domain::kernel::KernelError};

/// The kernel's count of packets that were for this node's services.
pub struct Traffic {
    verdicts: PerCpuArray<MapData, Counter>,
}

impl Traffic {
    /// Reads the map of verdicts, of which this is a descriptor.
    pub(in crate::datapath) fn new(verdicts: OwnedFd) -> Result<Self, KernelError> {
        let failed = |error| KernelError::new(format!("opening {}", name::VERDICT_STATS), error);
        let data = MapData::from_fd(verdicts).map_err(failed)?;
        let verdicts = PerCpuArray::try_from(Map::PerCpuArray(data)).map_err(failed)?;
        Ok(Self { verdicts })
    }

    /// Packets whose way ended in a verdict that a flow may have been made on, up to now. A packet
    /// is counted after all that it writes: as long as this stays the same from before a sweep
    /// that found nothing, there is nothing to find.
    ///
    /// # Errors
    ///
    /// The map cannot be read.
    pub fn packets(&self) -> Result<u64, KernelError> {
        let mut packets = 0;
        for verdict in Verdict::ALL {
            if is_foreign(*verdict) {
                continue;
            }
            let values = self.verdicts.get(&(*verdict as u32), 0);
            let values = values.map_err(|error| {
                KernelError::new(format!("reading {}", name::VERDICT_STATS), error)
            })?;
            packets += values.iter().map(|value| value.packets).sum::<u64>();
        }
        Ok(packets)
    }
}

impl Datapath {
    /// Tells whether packets have come that can have left something in the flow tables.
    ///
    /// # Errors
    ///
    /// No further descriptor.
    pub fn traffic(&self) -> Result<Traffic, KernelError> {
        let failed =
            |error| KernelError::new(format!("opening map {}", name::VERDICT_STATS), error);
        Traffic::new(self.verdicts.try_clone().map_err(failed)?)
    }
}

/// Whether such packets are none of ours, and are let go before there can be a flow.
fn is_foreign(verdict: Verdict) -> bool {
    matches!(
        verdict,
        Verdict::PassNotIp | Verdict::PassForeign | Verdict::PassMalformed
    )
}
