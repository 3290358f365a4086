//! A kernel in memory, for tests of the controller. It holds what it is told, refuses what the
//! real one could not do, and fails on demand.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use lb_common::{
    entry::{BackendStats, Counter, EvictionStats},
    verdict::VERDICT_COUNT,
};

use crate::domain::{
    kernel::{Census, Kernel, KernelError, KernelView, Step},
    plan::advance,
};

/// What the fake holds; shared with the test that looks at it.
#[derive(Default)]
pub(crate) struct Inside {
    pub(crate) view: KernelView,
    pub(crate) steps: Vec<Step>,
    pub(crate) blocked: BTreeMap<IpNet, u32>,
    pub(crate) cut: Vec<IpNet>,
    /// Interfaces that have vanished.
    pub(crate) lost_interfaces: Vec<String>,
    /// Refuses the next steps, with this reason.
    pub(crate) failing: Option<String>,
    /// Has no room for this backend.
    pub(crate) refused: Option<SocketAddr>,
}

/// See the module's documentation. Clones share what they hold.
#[derive(Clone, Default)]
pub(crate) struct FakeKernel(Arc<Mutex<Inside>>);

impl FakeKernel {
    pub(crate) fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Weight of each backend address in the tables of all services.
    pub(crate) fn weights(&self) -> BTreeMap<String, u32> {
        let inside = self.inside();
        let tables = inside.view.tables.values().flat_map(|table| &table.weights);
        tables
            .map(|(id, weight)| (inside.view.backends[id].address.to_string(), *weight))
            .collect()
    }
}

impl Kernel for FakeKernel {
    fn adopt(&mut self) -> Result<KernelView, KernelError> {
        // What tables were built from cannot be read back from the real one either.
        let view = self.inside().view.clone();
        Ok(KernelView {
            tables: BTreeMap::new(),
            ..view
        })
    }

    fn apply(&mut self, step: &Step) -> Result<(), KernelError> {
        let mut inside = self.inside();
        if let Some(reason) = &inside.failing {
            return Err(KernelError::new(
                format!("applying {step:?}"),
                reason.clone(),
            ));
        }
        if let Step::PutBackend(_, backend) = step
            && inside.refused == Some(backend.address)
        {
            let what = format!("writing backend {}", backend.address);
            return Err(KernelError::new(what, "no room"));
        }
        advance(&mut inside.view, step);
        inside.steps.push(step.clone());
        Ok(())
    }

    fn set_filter(&mut self, _view: &KernelView) -> Result<(), KernelError> {
        Ok(())
    }

    fn blocked(&mut self) -> Result<BTreeMap<IpNet, u32>, KernelError> {
        Ok(self.inside().blocked.clone())
    }

    fn block(&mut self, prefix: IpNet, counter: u32) -> Result<(), KernelError> {
        let mut inside = self.inside();
        if let Some(reason) = &inside.failing {
            return Err(KernelError::new(
                format!("blocking {prefix}"),
                reason.clone(),
            ));
        }
        inside.blocked.insert(prefix, counter);
        Ok(())
    }

    fn unblock(&mut self, prefix: IpNet) -> Result<(), KernelError> {
        self.inside().blocked.remove(&prefix);
        Ok(())
    }

    fn cut_clients(&mut self, prefixes: &[IpNet]) -> Result<u64, KernelError> {
        self.inside().cut.extend(prefixes);
        Ok(0)
    }

    fn verdicts(&self) -> Result<Vec<Counter>, KernelError> {
        Ok(vec![Counter::default(); VERDICT_COUNT as usize])
    }

    fn evictions(&self) -> Result<EvictionStats, KernelError> {
        Ok(EvictionStats::default())
    }

    fn backend_stats(&self, id: u32) -> Result<BackendStats, KernelError> {
        let inbound = Counter {
            packets: u64::from(id) + 1,
            bytes: 100,
        };
        Ok(BackendStats {
            inbound,
            ..BackendStats::default()
        })
    }

    fn block_stats(&self, counter: u32) -> Result<Counter, KernelError> {
        Ok(Counter {
            packets: u64::from(counter),
            bytes: 0,
        })
    }

    fn unresolved(&self, _addresses: &[IpAddr]) -> Result<Vec<IpAddr>, KernelError> {
        Ok(Vec::new())
    }

    fn lost_interfaces(&self) -> Vec<String> {
        self.inside().lost_interfaces.clone()
    }

    fn refresh_sources(&mut self) -> Result<usize, KernelError> {
        Ok(0)
    }

    fn sweep(&self) -> Result<Census, KernelError> {
        Ok(Census::default())
    }
}
