//! The programs on a node's interfaces, and what the agent does for them.

use std::{net::IpAddr, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use lb_agent::{
    datapath::{Budget, Datapath, Mode, Options, Resolver},
    domain::{
        kernel::{
            Kernel as _, KernelBackend, KernelView, KernelVip, Recipe, Step, Treatment, VipKey,
        },
        plan::advance,
    },
    fragments,
};
use lb_common::{flow::Lifetimes, maps::MIN_FLOW_SLOTS};
use lb_tests::{pins::Pins, world::PORTS};
use tokio::sync::watch;

use super::site::{BACKENDS, SERVICES, VIPS};

/// Everything that must live as long as they run.
pub(crate) struct Programs {
    _resolver: Resolver,
    // What keeps fragments ends with it.
    _keeping: watch::Sender<bool>,
    _runtime: tokio::runtime::Runtime,
    _datapath: Box<Datapath>,
    _pins: Pins,
}

impl Programs {
    /// Loads and attaches them, with the same services as nftables has; runs in the node.
    pub(crate) fn load(mode: Mode) -> Result<Self> {
        let pins = Pins::new()?;
        let options = Options {
            bpf_dir: pins.path().to_owned(),
            interfaces: vec!["front".into(), "back".into()],
            mode,
            tc_filters: false,
            pending: Some(false),
            announce: Vec::new(),
            flow_slots: MIN_FLOW_SLOTS * 4,
            ports: PORTS,
            lifetimes: Lifetimes::DEFAULT_SECONDS,
            cgroup: None,
            grace: Duration::from_secs(20),
            budget: Budget::Unlimited,
            decapsulate: Vec::new(),
            decapsulate_from: Vec::new(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let mut datapath = Datapath::open(&options)?;
        // In the runtime's context, which the buffers of held fragments are watched in.
        let held = runtime.block_on(async { datapath.hold_fragments() })?;
        let (keeping, stopped) = watch::channel(false);
        runtime.spawn(fragments::keep(held, Arc::default(), stopped));
        let mut steps = Vec::new();
        for v6 in [0, 1] {
            for (number, (protocol, port, to)) in (1..).zip(SERVICES) {
                let service = number + 10 * v6 as u32;
                let backend = KernelBackend {
                    service,
                    address: (BACKENDS[v6].parse::<IpAddr>()?, to).into(),
                    active: true,
                };
                steps.push(Step::PutBackend(service * 16, backend));
                let weights = vec![(service * 16, 1)];
                let slots = 1021;
                steps.push(Step::PutTable(service, Recipe { weights, slots }));
                let address = (VIPS[v6].parse::<IpAddr>()?, port).into();
                let key = VipKey { address, protocol };
                steps.push(Step::PutVip(
                    key,
                    KernelVip {
                        service,
                        slots,
                        treatment: Treatment::default(),
                    },
                ));
            }
        }
        let mut view = KernelView::default();
        for step in &steps {
            advance(&mut view, step);
        }
        datapath.set_filter(&view)?;
        for step in &steps {
            datapath.apply(step)?;
        }
        let backends: Vec<IpAddr> = BACKENDS
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()?;
        let resolver = runtime.block_on(async {
            let resolver = datapath.start_resolver().await?;
            for _ in 0..500 {
                if datapath.unresolved(&backends)?.is_empty() {
                    return anyhow::Ok(resolver);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            bail!("next hops were not resolved")
        })?;
        Ok(Self {
            _resolver: resolver,
            _keeping: keeping,
            _runtime: runtime,
            _datapath: Box::new(datapath),
            _pins: pins,
        })
    }
}
