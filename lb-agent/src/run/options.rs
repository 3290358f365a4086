//! From the configuration to what the parts take.

use super::*;

/// How long an unanswered flow is safe from a flood: a round trip to nearly anywhere.
const GRACE: Duration = Duration::from_millis(200);

pub(super) fn datapath_options(config: &Config) -> anyhow::Result<Options> {
    let ports = match config.node.nat_ports {
        NatPorts::Range { first, last } => (first, last),
        NatPorts::Auto => free_port_range()?,
    };
    let cgroup = match (config.node.local_clients, &config.node.cgroup) {
        (false, _) => None,
        (true, Some(path)) => Some(path.clone()),
        (true, None) => Some(datapath::cgroup_root()?),
    };
    info!(
        first = ports.0,
        last = ports.1,
        "ports for translated flows"
    );
    Ok(Options {
        bpf_dir: config.node.bpf_dir.clone(),
        interfaces: config.node.interfaces.clone(),
        announce: config.node.announce.clone(),
        mode: match config.node.xdp_mode {
            XdpMode::Auto => Mode::Auto,
            XdpMode::Native => Mode::Native,
            XdpMode::Generic => Mode::Generic,
            XdpMode::Off => Mode::Off,
        },
        tc_filters: false,
        pending: None,
        flow_slots: config.node.flow_slots,
        ports,
        lifetimes: Lifetimes::DEFAULT_SECONDS,
        cgroup,
        grace: GRACE,
        decapsulate: config.node.decapsulate.clone(),
        decapsulate_from: config.node.decapsulate_from.clone(),
        budget: match config.node.new_flows {
            NewFlows::Auto => Budget::Auto,
            NewFlows::Unlimited => Budget::Unlimited,
            NewFlows::PerSecond(flows) => Budget::PerSecond(flows),
        },
    })
}

pub(crate) fn consul_options(config: &ConsulConfig) -> ConsulOptions {
    let (token, token_file) = match &config.token {
        Token::None => (None, None),
        Token::Inline(token) => (Some(token.clone()), None),
        Token::File(path) => (None, Some(path.clone())),
    };
    ConsulOptions {
        address: config.address.clone(),
        token,
        token_file,
        ca_cert: config.ca_cert.clone(),
        client_cert: config
            .client_identity
            .as_ref()
            .map(|identity| identity.cert.clone()),
        client_key: config
            .client_identity
            .as_ref()
            .map(|identity| identity.key.clone()),
        tls_server_name: config.tls_server_name.clone(),
        datacenter: config.datacenter.clone(),
        wait: config.wait,
    }
}

/// What the ids of this node's registrations begin with.
///
/// # Errors
///
/// The kernel does not say the node's name, or that is no part of an id.
pub(super) fn registration_prefix(config: &DockerConfig) -> anyhow::Result<String> {
    if let Some(prefix) = &config.prefix {
        return Ok(prefix.clone());
    }
    let name = host_name().context("reading /proc/sys/kernel/hostname")?;
    if ["", "(none)", "localhost"].contains(&name.as_str()) {
        bail!(
            "the ids of containers begin with the node's name, which is `{name}` here, as on others; set docker.prefix"
        );
    }
    Ok(format!("lb-agent:{name}:"))
}
