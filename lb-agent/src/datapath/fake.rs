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
    drift::{Difference, Part, Place},
    explain::{HeldBackend, HeldByKernel, HeldTable, HeldVip},
    kernel::{Census, Kernel, KernelBackend, KernelError, KernelView, Step, VipKey},
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
    /// Somebody has taken a program off.
    pub(crate) detached: bool,
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

    fn differences(
        &mut self,
        view: &KernelView,
        part: Part,
    ) -> Result<Vec<Difference>, KernelError> {
        let inside = self.inside();
        let mut found = Vec::new();
        let mut note = |place, text: &str| found.push(Difference::new(place, text));
        let ids = inside.view.backends.keys().chain(view.backends.keys());
        for id in ids.collect::<BTreeSet<_>>() {
            if !part.has(*id) {
                continue;
            }
            match (inside.view.backends.get(id), view.backends.get(id)) {
                (held, wanted) if held == wanted => {}
                (_, Some(_)) => note(Place::Backend(*id), "a backend was another one"),
                (_, None) => note(Place::ForeignBackend(*id), "a backend too many"),
            }
        }
        for (id, recipe) in &view.tables {
            if part.has(*id) && inside.view.tables.get(id) != Some(recipe) {
                note(Place::Table(*id), "a table was another one");
            }
        }
        if part.index == 0 {
            for (key, vip) in &view.vips {
                if inside.view.vips.get(key) != Some(vip) {
                    note(Place::Vip(*key), "a VIP was gone");
                }
            }
            if inside.detached {
                note(Place::Program("xdp_native_1".into()), "it was taken off");
            }
        }
        Ok(found)
    }

    fn mend(&mut self, place: &Place, _view: &KernelView) -> Result<(), KernelError> {
        let mut inside = self.inside();
        if let Some(reason) = &inside.failing {
            return Err(KernelError::new("mending", reason.clone()));
        }
        if matches!(place, Place::Program(_)) {
            inside.detached = false;
        }
        Ok(())
    }

    fn held(
        &self,
        vips: &[VipKey],
        services: &BTreeSet<u32>,
        backends: &BTreeSet<u32>,
    ) -> Result<HeldByKernel, KernelError> {
        let inside = self.inside();
        let view = &inside.view;
        let vip = |key: &VipKey| {
            let vip = view.vips.get(key).copied();
            vip.map(|vip| HeldVip { vip, flags: 0 })
        };
        let table = |id: &u32| {
            let recipe = view.tables.get(id)?;
            Some(HeldTable {
                map: 1000 + id,
                slots: recipe.weights.iter().map(|(_, weight)| weight).sum(),
                by_backend: recipe.weights.iter().copied().collect(),
            })
        };
        let backend = |id: &u32| {
            let backend = *view.backends.get(id)?;
            Some(HeldBackend {
                backend,
                source: "192.0.2.1".parse().ok()?,
                interface: Some("eth0".into()),
                mac: Some("02:00:00:00:00:01".into()),
                mtu: 1500,
                router: None,
            })
        };
        Ok(HeldByKernel {
            vips: vips.iter().map(|key| (*key, vip(key))).collect(),
            tables: services.iter().map(|id| (*id, table(id))).collect(),
            backends: backends.iter().map(|id| (*id, backend(id))).collect(),
        })
    }
}
