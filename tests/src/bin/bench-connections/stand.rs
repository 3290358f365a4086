//! One side: a client, the node with its balancer, two backends.
//!
//! All are laid out alike, with the same offloads (`tx off`, `gro on`, see
//! [`lb_tests::link::connect`]), the same ports for the client, and TCP timestamps without random
//! offsets: behind a masquerading node, one backend sees many connections of one address, and
//! would refuse a SYN that meets a TIME_WAIT with a later timestamp.

use std::net::SocketAddr;

use anyhow::Result;
use lb_tests::{
    agent::{Agent, Setup},
    link,
    process::Process,
    topology::Topology,
};

use crate::servers;

/// Where clients connect to, but for the side that is routed directly. The port is the backends'.
const VIP: &str = "198.51.100.10";

/// Who brings the packets to the backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The node's forwarding alone: clients choose their backend themselves.
    Direct,
    /// The kernel's NAT: dnat and masquerade.
    Nftables,
    /// HAProxy in TCP mode.
    Haproxy,
    /// nginx' stream proxy.
    Nginx,
    /// Us as by default, which on a veth is without XDP.
    Agent,
    /// Us with XDP on the veths.
    AgentXdp,
}

impl Side {
    /// All of them, in the order of the tables; [`Side::Direct`] first.
    pub(crate) const ALL: [Side; 6] = [
        Side::Direct,
        Side::Nftables,
        Side::Haproxy,
        Side::Nginx,
        Side::Agent,
        Side::AgentXdp,
    ];

    /// The name in tables and files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Direct => "routed directly",
            Side::Nftables => "nftables dnat",
            Side::Haproxy => "HAProxy tcp",
            Side::Nginx => "nginx stream",
            Side::Agent => "lb-agent",
            Side::AgentXdp => "lb-agent, XDP",
        }
    }
}

/// A side, ready for requests.
pub(crate) struct Stand {
    pub(crate) side: Side,
    /// Where the client sends its requests.
    pub(crate) targets: Vec<SocketAddr>,
    // The balancer and the backends end before their hosts go.
    _agent: Option<Agent>,
    _processes: Vec<Process>,
    pub(crate) topology: Topology,
}

impl Stand {
    /// Lays out the hosts and starts what runs on them.
    pub(crate) fn new(side: Side) -> Result<Self> {
        let topology = Topology::new(2)?;
        topology.congestion_control_of_every_kernel()?;
        let backends = [topology.backend_address(1), topology.backend_address(2)];
        topology
            .client()
            .sysctl("ipv4.ip_local_port_range", "1024 60999")?;
        for host in topology
            .backends()
            .iter()
            .chain([topology.client(), topology.node()])
        {
            host.sysctl("ipv4.tcp_timestamps", "2")?;
        }
        let mut processes = Vec::new();
        for (number, backend) in (1..).zip(topology.backends()) {
            let address = topology.backend_address(number);
            processes.push(servers::backend(
                backend,
                address,
                topology.directory(),
                number,
            )?);
        }
        let vip = SocketAddr::new(VIP.parse()?, backends[0].port());
        let mut agent = None;
        let mut targets = vec![vip];
        match side {
            Side::Direct => {
                route(&topology)?;
                targets = backends.to_vec();
            }
            Side::Nftables => servers::nftables(&topology, vip, &backends)?,
            Side::Haproxy => processes.push(servers::haproxy(&topology, vip, &backends)?),
            Side::Nginx => processes.push(servers::stream(&topology, vip, &backends)?),
            Side::Agent => agent = Some(start_agent(&topology, vip, &backends, "auto")?),
            Side::AgentXdp => agent = Some(start_agent(&topology, vip, &backends, "native")?),
        }
        Ok(Self {
            side,
            targets,
            _agent: agent,
            _processes: processes,
            topology,
        })
    }
}

/// The node forwards, and client and backends know the way to each other.
fn route(topology: &Topology) -> Result<()> {
    topology.node().sysctl("ipv4.ip_forward", "1")?;
    for (number, backend) in (1..).zip(topology.backends()) {
        let via = format!("10.77.{number}.1").parse()?;
        link::route(backend, "10.77.0.0/24".parse()?, via)?;
        let network = format!("10.77.{number}.0/24").parse()?;
        link::route(topology.client(), network, "10.77.0.1".parse()?)?;
    }
    Ok(())
}

fn start_agent(
    topology: &Topology,
    vip: SocketAddr,
    backends: &[SocketAddr],
    mode: &str,
) -> Result<Agent> {
    // The client's ports are the agent's to give; those of the node itself lie above.
    topology
        .node()
        .sysctl("ipv4.ip_local_port_range", "61000 65535")?;
    let backends: Vec<String> = backends
        .iter()
        .map(|address| format!("{{ address = \"{address}\" }}"))
        .collect();
    Setup::new(topology)
        // Closed flows are kept for a minute: room for those of all rounds.
        .node(&format!(
            "flow_slots = 1048576\nnat_ports = \"1024-60999\"\nxdp_mode = {mode:?}"
        ))
        .config(&format!(
            "[[service]]\nname = \"web\"\nvip = [\"{vip}\"]\nbackends = [{}]",
            backends.join(", ")
        ))
        .start()
}
