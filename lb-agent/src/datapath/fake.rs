//! A kernel in memory, for tests of the controller. It holds what it is told, refuses what the
//! real one could not do, and fails on demand.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use lb_common::{
    entry::{BackendStats, Counter, EvictionStats},
    socket::SocketStats,
    verdict::VERDICT_COUNT,
};

use crate::domain::{
    kernel::{Census, Kernel, KernelBackend, KernelError, KernelView, Step},
    plan::advance,
};

/// What the fake holds; shared with the test that looks at it.
#[derive(Default)]
pub(crate) struct Inside {
    pub(crate) view: KernelView,
    pub(crate) steps: Vec<Step>,
    pub(crate) blocked: BTreeSet<IpNet>,
    pub(crate) allowed: BTreeSet<IpNet>,
    /// How often the flows of blocked clients were cut.
    pub(crate) cuts: usize,
    /// Backends whose flows were cut, each time anew.
    pub(crate) cut_backends: Vec<u32>,
    /// VIPs are not announced.
    pub(crate) silent: bool,
    /// Backends whose local clients' sockets were closed, each time anew.
    pub(crate) closed: Vec<SocketAddr>,
    /// Closes no sockets, and says so.
    pub(crate) refuse_closing: bool,
    /// Interfaces that have vanished.
    pub(crate) lost_interfaces: Vec<String>,
    /// Routers that addresses are behind.
    pub(crate) routers: BTreeMap<IpAddr, IpAddr>,
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

    fn blocked(&mut self) -> Result<Vec<IpNet>, KernelError> {
        Ok(self.inside().blocked.iter().copied().collect())
    }

    fn block(&mut self, prefixes: &[IpNet]) -> Result<(), KernelError> {
        let mut inside = self.inside();
        if let Some(reason) = &inside.failing {
            return Err(KernelError::new("blocking", reason.clone()));
        }
        inside.blocked.extend(prefixes);
        Ok(())
    }

    fn unblock(&mut self, prefixes: &[IpNet]) -> Result<(), KernelError> {
        let mut inside = self.inside();
        for prefix in prefixes {
            inside.blocked.remove(prefix);
        }
        Ok(())
    }

    fn replace_blocked(&mut self, prefixes: &[IpNet]) -> Result<(), KernelError> {
        let mut inside = self.inside();
        if let Some(reason) = &inside.failing {
            return Err(KernelError::new("replacing", reason.clone()));
        }
        inside.blocked = prefixes.iter().copied().collect();
        Ok(())
    }

    fn allow(&mut self, prefixes: &BTreeSet<IpNet>) -> Result<(), KernelError> {
        self.inside().allowed.clone_from(prefixes);
        Ok(())
    }

    fn cut_blocked(&mut self) -> Result<u64, KernelError> {
        self.inside().cuts += 1;
        Ok(0)
    }

    fn cut_clients(&mut self, _prefixes: &[IpNet]) -> Result<u64, KernelError> {
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

    fn block_stats(&self, prefixes: &[IpNet]) -> Result<Vec<Counter>, KernelError> {
        Ok(vec![Counter::default(); prefixes.len()])
    }

    fn block_top(&self, most: usize) -> Result<Vec<(IpNet, Counter)>, KernelError> {
        let blocked = self.inside().blocked.clone();
        let counted = blocked
            .into_iter()
            .map(|prefix| (prefix, Counter::default()));
        Ok(counted.take(most).collect())
    }

    fn block_mebibytes(&self) -> usize {
        0
    }

    fn close_local(&mut self, gone: &BTreeMap<u32, KernelBackend>) -> Result<usize, KernelError> {
        let mut inside = self.inside();
        if inside.refuse_closing {
            return Err(KernelError::new("closing sockets", "not today"));
        }
        let addresses = gone.values().map(|backend| backend.address);
        inside.closed.extend(addresses);
        Ok(0)
    }

    fn cut_backends(&mut self, ids: &BTreeSet<u32>) -> Result<u64, KernelError> {
        let mut inside = self.inside();
        if let Some(reason) = &inside.failing {
            return Err(KernelError::new("cutting flows", reason.clone()));
        }
        inside.cut_backends.extend(ids);
        Ok(ids.len() as u64)
    }

    fn local_sockets(&self, _backends: &BTreeMap<u32, KernelBackend>) -> Result<u64, KernelError> {
        Ok(0)
    }

    fn announce_vips(&mut self, on: bool) {
        self.inside().silent = !on;
    }

    fn local_stats(&self) -> Result<SocketStats, KernelError> {
        Ok(SocketStats::default())
    }

    fn unresolved(&self, _addresses: &[IpAddr]) -> Result<Vec<IpAddr>, KernelError> {
        Ok(Vec::new())
    }

    fn router_towards(&self, address: IpAddr) -> Option<IpAddr> {
        self.inside().routers.get(&address).copied()
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
