//! What the stories of the proxy begin with: backends that answer as paths say, the agent with a
//! shared listener and a VIP, and clients.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use lb_tests::{
    agent::{Agent, Setup},
    backend::program,
    namespace::Namespace,
    pace::at_this_pace,
    process::{Process, wait_for},
    topology::Topology,
};

use crate::scene::{METRICS, PATIENCE, VIP, address};

/// A listener of the node that routes by host.
pub(crate) const SHARED: &str = "10.77.0.1:8080";

/// The agent and the service `web`. Dropped from the top down: the agent first, the hosts last.
pub(crate) struct Site {
    pub(crate) agent: Agent,
    pub(crate) backends: Vec<Process>,
    pub(crate) topology: Topology,
}

impl Site {
    /// The service `web` of one backend of [`lb_tests::web`], with these further lines of the
    /// service and of `[proxy]`, whose shared listeners come of `listen`.
    pub(crate) fn new(listen: &str, proxy: &str, service: &str) -> Self {
        let topology = Topology::new(1).unwrap();
        let backend = web(&topology, 1);
        Self::with(topology, vec![backend], listen, proxy, service)
    }

    /// The same over other backends, which listen where they always do.
    pub(crate) fn with(
        topology: Topology,
        backends: Vec<Process>,
        listen: &str,
        proxy: &str,
        service: &str,
    ) -> Self {
        let rows: String = (1..=topology.backends().len())
            .map(|number| {
                let number = u8::try_from(number).unwrap();
                format!("{{ address = \"{}\" }}, ", topology.backend_address(number))
            })
            .collect();
        let config = format!(
            "[proxy]\nlisten = [{listen}]\n{proxy}\n\n\
             [[service]]\nname = \"web\"\nvip = [\"{VIP}\"]\nprotocol = \"http\"\n{service}\n\
             backends = [{rows}]\n\n[metrics]\nlisten = \"{METRICS}\"\n"
        );
        let agent = Setup::new(&topology).config(&config).start().unwrap();
        let site = Self {
            agent,
            backends,
            topology,
        };
        let client = site.topology.client();
        wait_for("the VIP to answer", PATIENCE, || {
            site.agent.process().ensure_running()?;
            for backend in &site.backends {
                backend.ensure_running()?;
            }
            Ok(client.run(|| TcpStream::connect(address(VIP)).ok()))
        })
        .unwrap();
        site
    }

    pub(crate) fn client(&self) -> &Namespace {
        self.topology.client()
    }

    /// What curl makes of these arguments.
    pub(crate) fn curl(&self, words: &[&str]) -> Curled {
        curl(self.client(), words)
    }

    /// Waits until curl gets this status.
    pub(crate) fn wait_for_status(&self, words: &[&str], status: u16) -> Curled {
        wait_for(&format!("{status} by {words:?}"), PATIENCE, || {
            self.agent.process().ensure_running()?;
            let curled = self.curl(words);
            Ok((curled.status == status).then_some(curled))
        })
        .unwrap_or_else(|error| {
            let last = self.curl(words);
            panic!("{error:#}: {last:?}\n{}", self.agent.process().tail())
        })
    }

    /// Sends bytes as they are from the client, and answers with all that comes until the end.
    pub(crate) fn raw(&self, to: &str, bytes: &[u8]) -> String {
        let to: SocketAddr = address(to);
        self.client().run(|| {
            let mut stream = TcpStream::connect(to).unwrap();
            stream
                .set_read_timeout(Some(at_this_pace(PATIENCE)))
                .unwrap();
            // What is refused early need not be taken whole.
            let _ = stream.write_all(bytes);
            let mut answer = Vec::new();
            let ended = stream.read_to_end(&mut answer);
            let answer = String::from_utf8_lossy(&answer).into_owned();
            ended.unwrap_or_else(|error| panic!("{error} after {answer:?}"));
            answer
        })
    }
}

/// What curl got.
#[derive(Clone, Debug, Default)]
pub(crate) struct Curled {
    /// 0: no answer.
    pub(crate) status: u16,
    /// The last head of those that came.
    pub(crate) head: Vec<String>,
    pub(crate) body: String,
    /// Of curl itself; 0: it is content.
    pub(crate) code: i32,
}

impl Curled {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find_map(|line| {
            let (own, value) = line.split_once(": ")?;
            own.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// Runs curl with these arguments.
pub(crate) fn curl(from: &Namespace, words: &[&str]) -> Curled {
    let mut command = from.command("curl").unwrap();
    command.args(["--silent", "--include", "--max-time", "20", "--globoff"]);
    command.args(words);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut rest = text.as_str();
    let mut curled = Curled {
        code: output.status.code().unwrap_or(-1),
        ..Curled::default()
    };
    // Answers of 1xx, and those before a redirection, have a head of their own.
    while rest.starts_with("HTTP/") {
        let Some((head, body)) = rest.split_once("\r\n\r\n") else {
            break;
        };
        curled.head = head.split("\r\n").map(str::to_owned).collect();
        let status = curled.head[0].split(' ').nth(1);
        curled.status = status.and_then(|status| status.parse().ok()).unwrap_or(0);
        rest = body;
    }
    curled.body = rest.to_owned();
    curled
}

/// The backend of [`lb_tests::web`] number `number`.
pub(crate) fn web(topology: &Topology, number: u8) -> Process {
    let namespace = &topology.backends()[usize::from(number) - 1];
    let mut command = namespace.command(program("web").unwrap()).unwrap();
    command.args(["--name", &format!("b{number}")]);
    command.args(["--listen", &topology.backend_address(number).to_string()]);
    start(topology, &format!("web{number}"), command)
}

/// nginx on backend `number`, with these lines of its only `server`.
pub(crate) fn nginx(topology: &Topology, number: u8, server: &str) -> Process {
    let directory = topology.directory().display();
    let text = format!(
        "user root;\ndaemon off;\nworker_processes 1;\npid {directory}/nginx{number}.pid;\n\
         error_log stderr warn;\nevents {{}}\nhttp {{\naccess_log off;\n\
         client_body_temp_path {directory}/body;\nproxy_temp_path {directory}/proxy;\n\
         fastcgi_temp_path {directory}/fastcgi;\nuwsgi_temp_path {directory}/uwsgi;\n\
         scgi_temp_path {directory}/scgi;\nserver {{\n{server}\n}}\n}}\n"
    );
    let config = topology.directory().join(format!("nginx{number}.conf"));
    fs::write(&config, text).unwrap();
    let namespace = &topology.backends()[usize::from(number) - 1];
    let mut command = namespace.command("nginx").unwrap();
    command.args(["-e", "stderr", "-c"]).arg(&config);
    start(topology, &format!("nginx{number}"), command)
}

/// HAProxy in a namespace, with these sections.
pub(crate) fn haproxy(topology: &Topology, on: &Namespace, name: &str, sections: &str) -> Process {
    let text = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n{sections}"
    );
    let config = topology.directory().join(format!("{name}.cfg"));
    fs::write(&config, text).unwrap();
    let mut command = on.command("haproxy").unwrap();
    command.args(["-db", "-f"]).arg(&config);
    start(topology, name, command)
}

fn start(topology: &Topology, name: &str, command: std::process::Command) -> Process {
    let log = topology.directory().join(format!("{name}.log"));
    Process::start(name, command, &log).unwrap()
}
