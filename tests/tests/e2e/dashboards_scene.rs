//! A node at which everything happens that the dashboards show: services in the kernel and behind the
//! proxy, from Consul and from the file, a shift under way and one taken back, blocked packets,
//! failures with retries, a restart; and a Prometheus with our rules that sees it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use hyper::Method;
use lb_tests::{
    agent::{Agent, Setup},
    backend::Backend,
    calls::Calls,
    cgroup::Cgroup,
    client::Client,
    consul::{Consul, Registration},
    crowd::{Ask, Crowd},
    load::{Load, Pace},
    namespace::Entry,
    otlp::Receiver,
    process::{Process, wait_for},
    prometheus::Prometheus,
    talk::Talker,
    topology::Topology,
};
use tonic::Request;

use crate::{
    proxy_stage::start_web,
    scene::{METRICS, PATIENCE, VIP, address, reply},
};

/// Of the service that the proxy serves, and of the one of gRPC.
const WEB: &str = "198.51.100.11:80";
const CALLS: &str = "198.51.100.12:80";
const SPANS: [&str; 2] = ["127.0.0.1:4317", "127.0.0.1:4318"];

/// All of it. Dropped from the top down: traffic first, the hosts last.
pub(crate) struct Node {
    traffic: Traffic,
    pub(crate) prometheus: Prometheus,
    began: SystemTime,
    agent: Agent,
    _local: Talker,
    _spans: Receiver,
    _consul: Consul,
    _webs: Vec<Process>,
    _backends: Vec<Backend>,
    _cgroup: Cgroup,
    topology: Topology,
}

/// What `compose/` holds.
pub(crate) fn compose(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../compose")
        .join(path)
}

impl Node {
    /// Starts everything; Prometheus looks on from before the first request, every `interval` seconds.
    pub(crate) fn start(interval: u64) -> Self {
        let topology = Topology::new(4).unwrap();
        let (node, directory) = (topology.node(), topology.directory());
        let backends = [1, 2].map(|number| topology.start_echo(number).unwrap());
        let webs = [3, 4].map(|number| start_web(&topology, number));
        let consul = Consul::start(node, directory).unwrap();
        for (number, id, tag) in [(1, "b1", "v1"), (2, "b2", "v2")] {
            let instance = Registration {
                service: "echo",
                id,
                address: topology.backend_address(number),
                tags: &[tag],
                meta: &[],
                weights: (1, 1),
            };
            consul.register(instance).unwrap();
        }
        let spans = directory.join("spans");
        let spans = Receiver::start(node, address(SPANS[0]), address(SPANS[1]), &spans).unwrap();
        let cgroup = Cgroup::new("local").unwrap();
        let agent = Setup::new(&topology)
            .node(&format!(
                "local_clients = true\ncgroup = \"{}\"",
                cgroup.path().display()
            ))
            .config(&config(&topology))
            .start()
            .unwrap();
        let prometheus = Prometheus::configured(node, &scraped(interval), directory).unwrap();
        // It knows its targets only after some seconds.
        wait_for("the first scrape", PATIENCE, || {
            prometheus.value("lb_start_time_seconds")
        })
        .unwrap();
        let local = Talker::start(node, Some(&cgroup), directory, "local").unwrap();
        let traffic = Traffic::start(&topology);
        Self {
            traffic,
            prometheus,
            began: SystemTime::now(),
            agent,
            _local: local,
            _spans: spans,
            _consul: consul,
            _webs: webs.into(),
            _backends: backends.into(),
            _cgroup: cgroup,
            topology,
        }
    }

    /// Has everything happen that the dashboards tell of, and so much time pass that rates are known.
    pub(crate) fn live_through(&mut self, calm: Duration) {
        self.pass(calm);
        self.agent.stop().unwrap();
        self.agent.restart().unwrap();
        let blocked = self.topology.client_addresses()[1].to_string();
        self.agent.command(&["block", "add", &blocked]).unwrap();
        self._local.request(&format!("tcp a {VIP}")).unwrap();
        self.pass(calm);
        // One shift that stays under way until the end, one whose new version falls ill.
        let every = format!("{}s", calm.as_secs().max(2));
        for (service, step) in [("echo", "10"), ("web", "25")] {
            let order = [
                "split", "shift", service, "v2", "--to", "50", "--step", step, "--every", &every,
            ];
            self.agent.command(&order).unwrap();
        }
        self.pass(calm);
        let ill = self.topology.backend_address(4);
        let asked = Client::new(self.topology.node()).get(ill, "/always/status/503");
        assert_eq!(asked.unwrap().status, 200);
        wait_for("web's traffic to be taken back", PATIENCE, || {
            let shown = reply(&self.agent, &["split", "show", "web"]);
            let phase = &shown["services"][0]["shift"]["phase"];
            Ok((phase == "returned").then_some(()))
        })
        .unwrap();
        self.pass(calm);
    }

    fn pass(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.agent.process().ensure_running().unwrap();
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// From the beginning until now, in seconds since 1970.
    pub(crate) fn span(&self) -> (u64, u64) {
        let since = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH);
            since.unwrap().as_secs()
        };
        (since(self.began), since(SystemTime::now()))
    }

    /// What the agent shows.
    pub(crate) fn scrape(&self) -> String {
        self.agent.metrics(address(METRICS)).unwrap()
    }

    /// Ends the traffic; how many requests and connections there were.
    pub(crate) fn count(self) -> (usize, usize) {
        let Traffic {
            flows,
            requests,
            others,
        } = self.traffic;
        drop(others);
        (requests.stop().len(), flows.stop().all().answered())
    }
}

fn config(topology: &Topology) -> String {
    let directory = topology.directory().display();
    let [b3, b4] = [3, 4].map(|number| topology.backend_address(number));
    format!(
        "[consul]\naddress = \"http://127.0.0.1:8500\"\n\n\
         [docker]\nendpoint = \"unix://{directory}/no-engine.sock\"\naddress = \"10.77.0.1\"\n\n\
         [metrics]\nlisten = \"{METRICS}\"\n\n\
         [proxy]\nlisten = [\"127.0.0.1:8888\"]\n\
         access_log = {{ file = \"{directory}/access.log\" }}\n\
         traces = {{ endpoint = \"http://{}\", transport = \"grpc\" }}\n\n\
         [[service]]\nname = \"echo\"\nvip = [\"{VIP}\"]\nconsul = {{ service = \"echo\" }}\n\
         subsets = {{ v1 = {{ tag = \"v1\" }}, v2 = {{ tag = \"v2\" }} }}\n\
         split = {{ v1 = 100, v2 = 0 }}\n\n\
         [[service]]\nname = \"web\"\nvip = [\"{WEB}\"]\nprotocol = \"http\"\n\
         backends = [{{ address = \"{b3}\", subset = \"v1\" }}, {{ address = \"{b4}\", subset = \"v2\" }}]\n\
         split = {{ v1 = 100, v2 = 0 }}\ngate = {{ window = \"1s\" }}\n\
         retry = {{ on_status = [503], budget = 10, floor = 1 }}\nhedge = {{ after = \"30ms\" }}\n\
         health = {{ kind = \"http\", path = \"/size/1\", interval = \"500ms\", timeout = \"500ms\" }}\n\n\
         [[service]]\nname = \"calls\"\nvip = [\"{CALLS}\"]\nprotocol = \"grpc\"\n\
         backends = [{{ address = \"{b3}\" }}]\n",
        SPANS[0]
    )
}

/// Our configuration of Prometheus, with another target, at a quicker pace, and its rules.
fn scraped(interval: u64) -> String {
    let text = fs::read_to_string(compose("prometheus/prometheus.yml")).unwrap();
    let rules = compose("prometheus/rules").canonicalize().unwrap();
    let replaced = [
        ("lb-agent:9180".to_owned(), METRICS.to_owned()),
        ("interval: 5s".to_owned(), format!("interval: {interval}s")),
        ("- rules".to_owned(), format!("- {}", rules.display())),
    ];
    replaced.iter().fold(text, |text, (old, new)| {
        assert!(text.contains(old), "no {old:?} in {text}");
        text.replace(old, new)
    })
}

/// What comes in until it is dropped.
struct Traffic {
    flows: Load,
    requests: Crowd,
    others: [Background; 3],
}

impl Traffic {
    fn start(topology: &Topology) -> Self {
        let client = Client::new(topology.client());
        let pace = Pace {
            threads: 2,
            rate: Some(60.0),
        };
        let ask = |client: usize, number: usize| {
            let paths = [
                "/size/2000",
                "/delay/20",
                "/delay/60",
                "/status/404",
                "/size/100",
            ];
            let path = match (client + number) % 40 {
                0 => "/status/503",
                other => paths[other % paths.len()],
            };
            Ask {
                to: address(WEB),
                method: Method::GET,
                path: path.into(),
                body: Bytes::new(),
            }
        };
        let second = client
            .from(topology.client_addresses()[1])
            .patience(Duration::from_millis(200));
        Self {
            flows: Load::start(&client, address(VIP), pace),
            requests: Crowd::start(
                topology.client().entry(),
                6,
                Duration::from_millis(100),
                ask,
            ),
            others: [
                Background::start(topology.client().entry(), call),
                Background::start(topology.client().entry(), babble),
                Background::start(topology.client().entry(), move || {
                    // Answered at first, then blocked.
                    let _ = second.get(address(VIP), "/");
                }),
            ],
        }
    }
}

/// A call that is answered and one that is not.
fn call() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // While the agent restarts there is nobody.
        let Ok(mut calls) = Calls::connect(address(CALLS)).await else {
            return;
        };
        for path in ["/grpc.Echo/Say", "/grpc.Fail/5"] {
            let _ = calls.unary(path, Request::new("x".into())).await;
        }
    });
}

/// No HTTP, to the proxy.
fn babble() {
    // While the agent restarts there is nobody.
    let Ok(mut stream) = TcpStream::connect(address(WEB)) else {
        return;
    };
    let _ = stream.write_all(b"\x16\x03\x01 no HTTP\r\n\r\n");
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Something that is done again and again in a namespace, until dropped.
struct Background {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Background {
    fn start(namespace: Entry, act: impl Fn() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                namespace.enter().unwrap();
                while !stop.load(Ordering::Relaxed) {
                    act();
                    thread::sleep(Duration::from_millis(200));
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(
                ended.is_ok() || thread::panicking(),
                "a background panicked"
            );
        }
    }
}
