//! What on this node the agent needs or would like, each with what was found and how to mend it.
//!
//! Every area has a file of its own, with a pure function from what was read to [`Finding`]s, and
//! beside it whatever reads:
//!
//! - [`kernel`], `memory`, `processor`: what programs need, and what makes them slow.
//! - `link`: drivers, and what they do to frames. `routing`, `ports`, `tracking`: settings of the
//!   network.
//! - `clock`, `places`, `cgroup`: the time, directories and ports, groups of processes.
//! - `consul`, [`docker`]: whom the agent asks.

use std::{collections::BTreeSet, fs, net::IpAddr, path::Path};

use lb_common::maps::DEFAULT_FLOW_SLOTS;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use self::routing::Routing;
use crate::{
    config::{Config, NatPorts, XdpMode},
    datapath::feature::wall_clock::is_synchronized,
    domain::service::Catalog,
    run::consul_options,
};

mod cgroup;
mod clock;
mod consul;
pub mod docker;
pub mod kernel;
mod link;
mod memory;
mod places;
mod ports;
mod processor;
mod routing;
mod tracking;

/// How a finding counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Fine,
    /// The agent works, and could do better or more.
    Advice,
    /// The agent does not work.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: String,
    /// How it counts.
    pub state: State,
    /// What it is like.
    pub found: String,
    /// What to do about it; only where it is not fine.
    pub mend: Option<String>,
}

impl Finding {
    fn fine(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            state: State::Fine,
            found: found.into(),
            mend: None,
        }
    }

    fn advice(
        subject: impl Into<String>,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            subject: subject.into(),
            state: State::Advice,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }

    fn missing(
        subject: impl Into<String>,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            state: State::Missing,
            ..Self::advice(subject, found, mend)
        }
    }
}

/// Looks at everything that `config` is about or, without one, at what every node needs, with the
/// interface of the default route; `bpf_dir` is where the maps are pinned. Attaches, changes and
/// leaves nothing.
pub async fn examine(config: Option<&Config>, bpf_dir: &Path) -> Vec<Finding> {
    let mut findings = kernel::examine(bpf_dir);
    findings.extend(processor::findings(&processor::read(Path::new("/"))));
    let slots = config.map_or(DEFAULT_FLOW_SLOTS, |config| config.node.flow_slots);
    findings.extend(memory::finding(
        slots,
        memory::read(Path::new("/proc/meminfo")),
    ));
    let interfaces = config.map_or_else(default_route, |config| config.node.interfaces.clone());
    let mode = config.map_or(XdpMode::default(), |config| config.node.xdp_mode);
    for link in link::read(&interfaces) {
        findings.extend(link::findings(&link, mode));
    }
    let settings = Path::new("/proc/sys/net");
    let routing = Routing {
        vips: config.map_or_else(Vec::new, vips),
        announces: config.is_some_and(|config| !config.node.announce.is_empty()),
        backends: config.map_or(0, listed_backends),
        ..routing::read(settings, &interfaces)
    };
    findings.extend(routing::findings(&routing));
    let ports = config.map_or(NatPorts::Auto, |config| config.node.nat_ports);
    findings.extend(ports::finding(ports::read(settings), ports));
    findings.push(tracking::finding(tracking::read(settings)));
    findings.extend(clock::finding(is_synchronized().ok()));
    if let Some(config) = config {
        findings.extend(of_configured(config).await);
    }
    findings
}

/// What only a configuration asks for.
async fn of_configured(config: &Config) -> Vec<Finding> {
    let node = &config.node;
    let mut findings = vec![
        places::directory("state_dir", &places::look(&node.state_dir)),
        places::directory("runtime_dir", &places::look(&node.runtime_dir)),
        places::port(
            config.metrics.listen,
            &places::try_port(config.metrics.listen),
        ),
    ];
    if !config.proxy.listeners.is_empty() {
        let files = getrlimit(Resource::Nofile).maximum;
        findings.push(places::open_files(files, config.proxy.bounds.connections));
    }
    if node.local_clients {
        findings.push(cgroup::examine(node.cgroup.clone()));
    }
    if let Some(consul) = &config.consul {
        findings.extend(consul::examine(&consul_options(consul)).await);
    }
    if let Some(docker) = &config.docker {
        findings.push(docker::examine(docker.socket.clone()).await);
    }
    findings
}

/// Addresses of all services, each once.
fn vips(config: &Config) -> Vec<IpAddr> {
    let vips = config.services.iter().flat_map(|service| &service.vips);
    let vips: BTreeSet<IpAddr> = vips.map(|vip| vip.ip()).collect();
    vips.into_iter().collect()
}

/// Backends that the file lists; Consul's are not known here.
fn listed_backends(config: &Config) -> usize {
    let addresses: BTreeSet<IpAddr> = config
        .services
        .iter()
        .filter_map(|service| match &service.catalog {
            Catalog::Static(instances) => Some(instances),
            Catalog::Consul { .. } => None,
        })
        .flat_map(|instances| instances.iter().map(|instance| instance.address.ip()))
        .collect();
    addresses.len()
}

/// Interfaces of the default routes, by /proc/net/route: the destination is the second column.
fn default_route() -> Vec<String> {
    let text = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let names: BTreeSet<String> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (name, destination) = (words.next()?, words.next()?);
            (destination == "00000000").then(|| name.to_owned())
        })
        .collect();
    names.into_iter().collect()
}

/// What keeps the agent from working, in one sentence; `None` if nothing does.
pub fn complaint(findings: &[Finding]) -> Option<String> {
    let missing: Vec<String> = findings
        .iter()
        .filter(|finding| finding.state == State::Missing)
        .map(|finding| match &finding.mend {
            Some(mend) => format!("{}: {}; {mend}", finding.subject, finding.found),
            None => format!("{}: {}", finding.subject, finding.found),
        })
        .collect();
    (!missing.is_empty()).then(|| missing.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One thing is not fine, as advice and with these words in its mend; or, if `subject` is empty,
    /// none.
    pub(super) fn nothing_wrong_but(findings: &[Finding], subject: &str, mend: &str) {
        let wrong: Vec<&Finding> = findings
            .iter()
            .filter(|finding| finding.state != State::Fine)
            .collect();
        if subject.is_empty() {
            assert!(wrong.is_empty(), "{wrong:?}");
            return;
        }
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert_eq!(
            (wrong[0].subject.as_str(), wrong[0].state),
            (subject, State::Advice)
        );
        assert!(wrong[0].mend.as_ref().unwrap().contains(mend), "{wrong:?}");
    }

    #[test]
    fn only_what_is_missing_is_a_complaint() {
        let fine = Finding::fine("kernel", "6.1");
        let advice = Finding::advice("tcx", "absent", "upgrade");
        let missing = Finding::missing("pins", "no BPF file system", "mount one");
        assert_eq!(complaint(&[fine.clone(), advice.clone()]), None);
        assert_eq!(
            complaint(&[fine, missing, advice]).unwrap(),
            "pins: no BPF file system; mount one"
        );
    }
}
