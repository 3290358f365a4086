//! What the stories of the proxy's behaviour begin with: backends whose paths say what they
//! answer, and the agent before them, by VIP and by a listener that all share.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_tests::{
    agent::{Agent, Setup},
    backend::program,
    client::Client,
    namespace::Namespace,
    process::{Process, wait_for},
    topology::Topology,
};

use crate::scene::{METRICS, PATIENCE, VIP, address};

/// A listener of the node that routes by host.
pub(crate) const SHARED: &str = "10.77.0.1:8080";

/// The service `web` of so many backends. Dropped from the top down.
pub(crate) struct Stage {
    pub(crate) agent: Agent,
    pub(crate) webs: Vec<Process>,
    pub(crate) topology: Topology,
}

/// Requests that a backend had.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) total: u64,
    pub(crate) abandoned: u64,
    pub(crate) by_id: BTreeMap<String, u64>,
}

impl Stage {
    /// `backends` of them; `service`: lines of the service, `protocol` among them; `proxy`: lines
    /// of `[proxy]` besides the listener.
    pub(crate) fn new(backends: u8, service: &str, proxy: &str) -> Self {
        Self::of("", backends, |_| String::new(), service, proxy)
    }

    /// The same with lines for the table `[node]`, and answers on the VIP.
    pub(crate) fn on(node: &str, backends: u8, service: &str) -> Self {
        let stage = Self::of(node, backends, |_| String::new(), service, "");
        stage.wait_until_served();
        stage
    }

    /// The same, each backend with further keys.
    fn of(
        node: &str,
        backends: u8,
        keys: impl Fn(u8) -> String,
        service: &str,
        proxy: &str,
    ) -> Self {
        let topology = Topology::new(backends.into()).unwrap();
        let webs = (1..=backends)
            .map(|number| start_web(&topology, number))
            .collect();
        let rows: String = (1..=backends)
            .map(|number| {
                let address = topology.backend_address(number);
                format!("{{ address = \"{address}\"{} }},", keys(number))
            })
            .collect();
        let listen = match proxy.contains("listen =") {
            true => String::new(),
            false => format!("listen = [\"{SHARED}\"]\n"),
        };
        let config = format!(
            "[proxy]\n{listen}{proxy}\n\n[[service]]\nname = \"web\"\nvip = [\"{VIP}\"]\n{service}\n\
             backends = [{rows}]\n\n[metrics]\nlisten = \"{METRICS}\"\n"
        );
        let setup = Setup::new(&topology).node(node).config(&config);
        let agent = setup.start().unwrap();
        Self {
            agent,
            webs,
            topology,
        }
    }

    /// The same, with answers on the VIP.
    pub(crate) fn served(backends: u8, service: &str, proxy: &str) -> Self {
        let stage = Self::new(backends, service, proxy);
        stage.wait_until_served();
        stage
    }

    /// The same, backend N in subset vN.
    pub(crate) fn of_subsets(backends: u8, service: &str) -> Self {
        let keys = |number| format!(", subset = \"v{number}\"");
        let stage = Self::of("", backends, keys, service, "");
        stage.wait_until_served();
        stage
    }

    fn wait_until_served(&self) {
        let client = self.client();
        wait_for("an answer through the VIP", PATIENCE, || {
            self.agent.process().ensure_running()?;
            let url = format!("http://{VIP}/counts");
            let words = ["-sS", "--fail", "--max-time", "2", "-H", "Host: web", &url];
            Ok(client.tool("curl", &words).ok())
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.agent.process().tail()));
    }

    /// The host of the clients.
    pub(crate) fn client(&self) -> &Namespace {
        self.topology.client()
    }

    /// Asks backend `number` (from 1) itself, past the proxy.
    fn ask(&self, number: u8, path: &str) -> String {
        let client = Client::new(self.topology.node());
        let to = self.topology.backend_address(number);
        let response = client.get(to, path).unwrap();
        assert_eq!(response.status, 200);
        response.text()
    }

    /// Has backend `number` answer everything like this path.
    pub(crate) fn always(&self, number: u8, path: &str) {
        self.ask(number, &format!("/always{path}"));
    }

    /// What backend `number` has had.
    pub(crate) fn seen(&self, number: u8) -> Seen {
        let mut seen = Seen::default();
        for line in self.ask(number, "/counts").lines() {
            let (name, count) = line.rsplit_once(' ').unwrap();
            let count = count.parse().unwrap();
            match name {
                "total" => seen.total = count,
                "abandoned" => seen.abandoned = count,
                id => drop(seen.by_id.insert(id.to_owned(), count)),
            }
        }
        seen
    }

    /// The ids that backend `number` has printed, dead or alive.
    pub(crate) fn told(&self, number: u8) -> Vec<String> {
        let output = self.webs[usize::from(number) - 1].output();
        output.lines().map(str::to_owned).collect()
    }

    /// The sum of the series of this name that hold all of these labels.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let page = self.agent.metrics(address(METRICS)).unwrap();
        sum(&page, name, labels)
    }
}

/// The sum of the series on a page.
pub(crate) fn sum(page: &str, name: &str, labels: &[&str]) -> f64 {
    page.lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with('{') && labels.iter().all(|label| rest.contains(label)))
        .filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

/// Starts the backend of this number, and waits until it answers.
pub(crate) fn start_web(topology: &Topology, number: u8) -> Process {
    let host = &topology.backends()[usize::from(number) - 1];
    let listen: SocketAddr = topology.backend_address(number);
    let mut command = host.command(program("web").unwrap()).unwrap();
    command.args(["--tell", "--name", &format!("b{number}")]);
    command.args(["--listen", &listen.to_string()]);
    let log = topology.directory().join(format!("web-{number}.log"));
    let process = Process::start("web", command, &log).unwrap();
    let client = Client::new(host);
    wait_for("the backend to answer", PATIENCE, || {
        process.ensure_running()?;
        Ok(client.get(listen, "/counts").ok())
    })
    .unwrap();
    process
}
