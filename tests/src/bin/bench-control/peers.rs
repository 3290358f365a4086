//! The same work as others do it: the whole configuration written anew and loaded.

use std::{
    fmt::Write as _,
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    client::Client,
    namespace::Namespace,
    process::{Process, wait_for},
    scratch::Scratch,
};

use crate::catalog::{address, name, vip};

/// How long a reload may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Where HAProxy tells which configuration it runs by.
const VERSION: &str = "127.0.0.1:8404";

/// The kernel's NAT, with a chain for each service.
pub(crate) struct Nftables {
    namespace: Namespace,
    scratch: Scratch,
    services: usize,
    backends: usize,
}

impl Nftables {
    pub(crate) fn new(services: usize, backends: usize) -> Result<Self> {
        let peer = Self {
            namespace: Namespace::new("nft")?,
            scratch: Scratch::new()?,
            services,
            backends,
        };
        peer.reload(0)?;
        Ok(peer)
    }

    /// Writes the ruleset without one backend of one service, and loads it.
    pub(crate) fn reload(&self, turn: usize) -> Result<Duration> {
        let begun = Instant::now();
        let mut rules = String::from("table ip lb\ndelete table ip lb\ntable ip lb {\n");
        for service in 0..self.services {
            let listed = listed(service, turn, self.services, self.backends);
            let count = listed.len();
            write!(
                rules,
                "chain s{service} {{\nmeta l4proto tcp dnat ip addr . port to numgen inc mod {count} map {{ "
            )?;
            for (number, instance) in listed.into_iter().enumerate() {
                let address = address(service, instance, self.backends);
                write!(rules, "{number} : {} . {}, ", address.ip(), address.port())?;
            }
            rules.push_str("}\n}\n");
        }
        rules.push_str(
            "chain in {\ntype nat hook prerouting priority dstnat\nip daddr . tcp dport vmap { ",
        );
        for service in 0..self.services {
            let vip = vip(service);
            write!(rules, "{} . {} : goto s{service}, ", vip.ip(), vip.port())?;
        }
        rules.push_str(
            "}\n}\nchain out {\ntype nat hook postrouting priority srcnat\nmasquerade\n}\n}\n",
        );
        let file = self.scratch.path().join("rules.nft");
        fs::write(&file, rules).with_context(|| format!("cannot write {}", file.display()))?;
        let file = file.display().to_string();
        self.namespace.tool("nft", &["-f", &file])?;
        Ok(begun.elapsed())
    }
}

/// HAProxy in TCP mode, which is asked to load its file again.
pub(crate) struct Haproxy {
    process: Process,
    namespace: Namespace,
    file: PathBuf,
    _scratch: Scratch,
    services: usize,
    backends: usize,
}

impl Haproxy {
    pub(crate) fn new(services: usize, backends: usize) -> Result<Self> {
        let (namespace, scratch) = (Namespace::new("haproxy")?, Scratch::new()?);
        let local = format!("{}/15", vip(0).ip());
        namespace.tool("ip", &["route", "add", "local", &local, "dev", "lo"])?;
        let file = scratch.path().join("haproxy.cfg");
        fs::write(&file, config(0, services, backends)?)?;
        let mut command = namespace.command("haproxy")?;
        // A master, whose workers come and go.
        command.args(["-W", "-db", "-f"]).arg(&file);
        let log = scratch.path().join("haproxy.log");
        let process = Process::start("haproxy", command, &log)?;
        let peer = Self {
            process,
            namespace,
            file,
            _scratch: scratch,
            services,
            backends,
        };
        peer.wait_for(0)?;
        Ok(peer)
    }

    /// Writes the file without one backend of one service, and has it loaded. `turn` is another
    /// one each time.
    pub(crate) fn reload(&self, turn: usize) -> Result<Duration> {
        let begun = Instant::now();
        fs::write(&self.file, config(turn, self.services, self.backends)?)?;
        let pid = libc::pid_t::try_from(self.process.pid())?;
        // SAFETY: kill(2) takes two integers; the process is a child that nobody has waited for.
        let sent = unsafe { libc::kill(pid, libc::SIGUSR2) };
        ensure!(
            sent == 0,
            "HAProxy's master is gone; {}",
            self.process.tail()
        );
        self.wait_for(turn)?;
        Ok(begun.elapsed())
    }

    /// Waits until new connections meet the configuration of this turn.
    fn wait_for(&self, turn: usize) -> Result<()> {
        let client = Client::new(&self.namespace).patience(Duration::from_secs(1));
        let version = VERSION.parse()?;
        wait_for("HAProxy to follow", PATIENCE, || {
            self.process.ensure_running()?;
            let answer = client.get(version, "/");
            let is = answer.is_ok_and(|answer| answer.text() == turn.to_string());
            if !is {
                thread::sleep(Duration::from_millis(2));
            }
            Ok(is.then_some(()))
        })
    }
}

fn config(turn: usize, services: usize, backends: usize) -> Result<String> {
    // As with the other benchmark: descriptors by what it asks for would keep it from starting.
    let mut text = format!(
        "global\n    maxconn 4000\n    nbthread 2\n\
         defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 30s\n    timeout server 30s\n\
         frontend version\n    mode http\n    bind {VERSION}\n    \
         http-request return status 200 content-type text/plain string \"{turn}\"\n"
    );
    for service in 0..services {
        let (name, vip) = (name(service), vip(service));
        writeln!(
            text,
            "listen {name}\n    bind {vip}\n    balance roundrobin"
        )?;
        for instance in listed(service, turn, services, backends) {
            let address = address(service, instance, backends);
            writeln!(text, "    server i{instance} {address}")?;
        }
    }
    Ok(text)
}

/// Instances of a service in this turn: all but one of the service whose turn it is.
fn listed(service: usize, turn: usize, services: usize, backends: usize) -> Vec<usize> {
    let away = (turn > 0 && service == turn % services).then_some(turn % backends);
    (0..backends)
        .filter(|instance| Some(*instance) != away || backends == 1)
        .collect()
}
