//! What the demo plays on: the hosts, a backend on each of three, the catalog, and the agent.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use clap::ValueEnum;
use lb_tests::{
    agent::{Agent, Setup},
    backend::Backend,
    client::Client,
    consul::{Consul, Registration},
    process::{installed, wait_for},
    topology::Topology,
};

/// Where clients find the service.
pub(crate) const VIP: &str = "198.51.100.10:80";
/// The same for IPv6.
pub(crate) const VIP6: &str = "[2001:db8:100::10]:80";
/// Where requests are taken for any service, by their host; the second on every address.
pub(crate) const SHARED: [&str; 2] = ["0.0.0.0:80", ":4140"];
/// Where the agent shows its counters, on the node.
pub(crate) const METRICS: &str = "127.0.0.1:9180";

/// The backends' numbers and the version that each runs.
const VERSIONS: [(u8, &str); 3] = [(1, "v1"), (2, "v1"), (3, "v2")];

/// Time in which a dead backend must be out: two probes that fail, half a second apart, the
/// patience of the second, the jitter between them, and some for a busy machine.
pub(crate) const FALL: Duration = Duration::from_millis(2500);

/// Where the agent learns of the backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Catalog {
    /// Consul if it is installed, the file otherwise.
    Auto,
    /// The agent's configuration file.
    File,
    /// A real Consul server on the node.
    Consul,
}

/// Everything that runs. Dropped from the top down: the agent first, the hosts last.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) agent: Agent,
    pub(crate) backends: Vec<Backend>,
    _consul: Option<Consul>,
    pub(crate) topology: Topology,
}

impl Catalog {
    /// Whether Consul is to be started.
    pub(crate) fn wants_consul(self) -> bool {
        match self {
            Self::Auto => installed("consul"),
            Self::File => false,
            Self::Consul => true,
        }
    }
}

impl Stage {
    /// Sets everything up, and waits until every backend is served on both families.
    pub(crate) fn set_up(with_consul: bool) -> Result<Self> {
        let topology = Topology::new(VERSIONS.len())?;
        let backends = VERSIONS
            .iter()
            .map(|(number, _)| topology.start_echo(*number))
            .collect::<Result<Vec<_>>>()?;
        let consul = if with_consul {
            let consul = Consul::start(topology.node(), topology.directory())?;
            register(&consul, &topology)?;
            Some(consul)
        } else {
            None
        };
        let agent = Setup::new(&topology)
            .config(&config(&topology, with_consul))
            .start()?;
        let stage = Self {
            agent,
            backends,
            _consul: consul,
            topology,
        };
        stage.wait_until_served()?;
        Ok(stage)
    }

    /// Sends from the client's first address.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.topology.client())
    }

    /// Waits until each backend answers through the VIPs, and nothing fails.
    pub(crate) fn wait_until_served(&self) -> Result<()> {
        let client = self.client().patience(Duration::from_millis(500));
        for vip in [VIP, VIP6] {
            let what = format!("all backends to answer through {vip}");
            wait_for(&what, Duration::from_secs(15), || {
                self.agent.process().ensure_running()?;
                let spread = client.spread(address(vip), 40, 8);
                let all = spread.backends.len() == VERSIONS.len() && spread.failed() == 0;
                Ok(all.then_some(()))
            })?;
        }
        Ok(())
    }
}

/// Parses one of the addresses above.
pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("a valid address")
}

/// The instances that the catalog lists: id, version, address.
fn instances(topology: &Topology) -> impl Iterator<Item = (String, &'static str, SocketAddr)> {
    VERSIONS.into_iter().flat_map(|(number, version)| {
        [
            (
                format!("b{number}"),
                version,
                topology.backend_address(number),
            ),
            (
                format!("b{number}-ipv6"),
                version,
                topology.backend_address6(number),
            ),
        ]
    })
}

fn register(consul: &Consul, topology: &Topology) -> Result<()> {
    for (id, version, address) in instances(topology) {
        consul.register(Registration {
            service: "echo",
            id: &id,
            address,
            tags: &[version],
            meta: &[],
            weights: (1, 1),
        })?;
    }
    Ok(())
}

/// The agent's configuration, but for the table `[node]`.
pub(crate) fn config(topology: &Topology, with_consul: bool) -> String {
    let (head, source) = if with_consul {
        let head = "[consul]\naddress = \"http://127.0.0.1:8500\"\n\n";
        (head, "consul = { service = \"echo\" }".to_owned())
    } else {
        let rows: String = instances(topology)
            .map(|(_, version, address)| {
                format!("    {{ address = \"{address}\", tags = [\"{version}\"] }},\n")
            })
            .collect();
        ("", format!("backends = [\n{rows}]"))
    };
    let [first, second] = SHARED;
    format!(
        r#"{head}[metrics]
listen = "{METRICS}"

[proxy]
listen = ["{first}", "{second}"]

[[service]]
name = "echo"
vip = ["{VIP}", "{VIP6}"]
protocol = "tcp"
{source}
subsets = {{ v1 = {{ tag = "v1" }}, v2 = {{ tag = "v2" }} }}
health = {{ kind = "http", path = "/health", interval = "500ms", timeout = "300ms", rise = 2, fall = 2 }}

[[service]]
name = "web"
protocol = "http"
hosts = ["echo", "echo.consul.localhost"]
{source}
health = {{ kind = "http", path = "/health", interval = "500ms", timeout = "300ms", rise = 2, fall = 2 }}
"#
    )
}
