//! One side: a client, the node with its proxy, two backends.

use std::net::SocketAddr;

use anyhow::Result;
use clap::ValueEnum;
use lb_tests::{
    agent::{Agent, Setup},
    backend::program,
    link,
    process::Process,
    topology::Topology,
};

use crate::{case::Over, servers, usage::Usage};

/// Where clients connect to, but for the side that is asked directly.
const VIP: &str = "198.51.100.10";
/// Ports of the VIP: HTTP/1.1, HTTP/2, gRPC. Three, since nginx takes one of the first two on a
/// port without TLS.
pub(crate) const PORTS: [u16; 3] = [8080, 8081, 8082];

/// Who brings the requests to the backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    /// A backend, asked by the client itself
    Direct,
    /// HAProxy in HTTP mode
    Haproxy,
    /// nginx with proxy_pass and grpc_pass
    Nginx,
    /// Us as by default, which on a veth is without XDP
    Agent,
    /// Us with XDP on the veths, each packet copied for it, as no network card's driver does
    AgentXdp,
}

impl Side {
    /// All of them, in the order of the tables.
    pub(crate) const ALL: [Side; 5] = [
        Side::Direct,
        Side::Haproxy,
        Side::Nginx,
        Side::Agent,
        Side::AgentXdp,
    ];

    /// The name in tables and files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Direct => "direct",
            Side::Haproxy => "HAProxy",
            Side::Nginx => "nginx",
            Side::Agent => "lb-agent",
            Side::AgentXdp => "lb-agent, XDP",
        }
    }
}

/// A side, ready for requests.
pub(crate) struct Stand {
    pub(crate) side: Side,
    /// What the proxy uses.
    pub(crate) usage: Usage,
    target: std::net::IpAddr,
    // The proxy and the backends end before their hosts go.
    _agent: Option<Agent>,
    _processes: Vec<Process>,
    pub(crate) topology: Topology,
}

impl Stand {
    /// Lays out the hosts and starts what runs on them. Peers that are not `bare` write the same headers
    /// as lb-agent.
    pub(crate) fn new(side: Side, bare: bool) -> Result<Self> {
        let topology = Topology::new(2)?;
        topology.congestion_control_of_every_kernel()?;
        let mut processes = Vec::new();
        let mut backends = Vec::new();
        for (number, host) in (1..).zip(topology.backends()) {
            let address = topology.backend_address(number);
            backends.push(address);
            let name = format!("b{number}");
            let mut command = host.command(program("web")?)?;
            command.args(["--name", &name]);
            for port in PORTS {
                let listen = SocketAddr::new(address.ip(), port);
                command.args(["--listen", &listen.to_string()]);
            }
            let log = topology.directory().join(format!("web-{number}.log"));
            let process = Process::start("web", command, &log)?;
            servers::ready(&process, host, address)?;
            processes.push(process);
        }
        let mut target = VIP.parse()?;
        let mut agent = None;
        let mut usage = Usage(None);
        match side {
            Side::Direct => {
                target = backends[0].ip();
                route(&topology)?;
            }
            Side::Haproxy | Side::Nginx => {
                servers::own_vip(&topology, VIP)?;
                let start = match side {
                    Side::Haproxy => servers::haproxy,
                    _ => servers::nginx,
                };
                let process = start(&topology, target, &backends, bare)?;
                usage = Usage(Some(process.pid()));
                processes.push(process);
            }
            Side::Agent | Side::AgentXdp => {
                let mode = match side {
                    Side::Agent => "auto",
                    _ => "native",
                };
                let started = start_agent(&topology, &backends, mode)?;
                usage = Usage(Some(started.process().pid()));
                agent = Some(started);
            }
        }
        let stand = Self {
            side,
            usage,
            target,
            _agent: agent,
            _processes: processes,
            topology,
        };
        if let Some(last) = stand._processes.last() {
            let to = stand.target(Over::KeptConnection);
            servers::ready(last, stand.topology.client(), to)?;
            if side != Side::Direct && !bare {
                servers::does_the_same(stand.topology.client(), to)?;
            }
        }
        Ok(stand)
    }

    /// Where the client sends such requests.
    pub(crate) fn target(&self, over: Over) -> SocketAddr {
        let port = match over {
            Over::KeptConnection | Over::NewConnection => PORTS[0],
            Over::Http2 => PORTS[1],
            Over::Grpc => PORTS[2],
        };
        SocketAddr::new(self.target, port)
    }
}

/// The node forwards, and client and backend 1 know the way to each other.
fn route(topology: &Topology) -> Result<()> {
    topology.node().sysctl("ipv4.ip_forward", "1")?;
    let via = "10.77.1.1".parse()?;
    link::route(&topology.backends()[0], "10.77.0.0/24".parse()?, via)?;
    link::route(
        topology.client(),
        "10.77.1.0/24".parse()?,
        "10.77.0.1".parse()?,
    )
}

fn start_agent(topology: &Topology, backends: &[SocketAddr], mode: &str) -> Result<Agent> {
    let service = |name: &str, protocol: &str, ports: &[u16]| {
        let vips: Vec<String> = ports
            .iter()
            .map(|port| format!("\"{VIP}:{port}\""))
            .collect();
        let backends: Vec<String> = backends
            .iter()
            .map(|address| format!("{{ address = \"{address}\" }}"))
            .collect();
        format!(
            "[[service]]\nname = \"{name}\"\nprotocol = \"{protocol}\"\nvip = [{}]\nbackends = [{}]\n",
            vips.join(", "),
            backends.join(", ")
        )
    };
    let web = service("web", "http", &PORTS[..2]);
    let rpc = service("rpc", "grpc", &PORTS[2..]);
    Setup::new(topology)
        .node(&format!("xdp_mode = {mode:?}"))
        .config(&format!(
            "[proxy]\nthreads = {}\n{web}{rpc}",
            servers::THREADS
        ))
        .start()
}
