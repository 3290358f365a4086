//! Spans of requests, as a receiver of OTLP gets them: one trace holds client, proxy and every try;
//! a receiver that is away costs spans and no request.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use lb_tests::{
    agent::{Agent, Setup},
    backend::program,
    load::{Load, Pace},
    namespace::Namespace,
    otlp::Receiver,
    process::{Process, wait_for},
    topology::Topology,
};
use serde_json::Value;

use crate::scene::{METRICS, PATIENCE, VIP, address};

const SHARED: &str = "10.77.0.1:8080";
const GRPC: &str = "127.0.0.1:4317";
const HTTP: &str = "127.0.0.1:4318";
/// The client's own span.
const PARENT: &str = "00f067aa0ba902b7";

fn receive(topology: &Topology, name: &str) -> Receiver {
    let log = topology.directory().join(name);
    Receiver::start(topology.node(), address(GRPC), address(HTTP), &log).unwrap()
}

fn start(topology: &Topology, backends: u8, transport: &str, log: &Path) -> Agent {
    let rows: String = (1..=backends)
        .map(|number| format!("{{ address = \"{}\" }},", topology.backend_address(number)))
        .collect();
    let endpoint = if transport == "grpc" { GRPC } else { HTTP };
    let config = format!(
        "[proxy]\nlisten = [\"{SHARED}\"]\naccess_log = {{ file = \"{}\" }}\n\
         traces = {{ endpoint = \"http://{endpoint}\", transport = \"{transport}\" }}\n\n\
         [[service]]\nname = \"web\"\nvip = [\"{VIP}\"]\nprotocol = \"http\"\n\
         backends = [{rows}]\n\n[metrics]\nlisten = \"{METRICS}\"\n",
        log.display()
    );
    Setup::new(topology).config(&config).start().unwrap()
}

fn web(topology: &Topology, number: u8) -> Process {
    let mut command = topology.backends()[usize::from(number) - 1]
        .command(program("web").unwrap())
        .unwrap();
    let address = topology.backend_address(number);
    command.args(["--name", &format!("b{number}"), "--listen"]);
    command.arg(address.to_string());
    let log = topology.directory().join(format!("web-{number}.log"));
    Process::start("a backend", command, &log).unwrap()
}

/// Asks for the head that the backend gets; that of the answer and its body.
fn ask(
    client: &Namespace,
    to: SocketAddr,
    trace: &str,
    flags: &str,
    id: &str,
) -> anyhow::Result<(String, String)> {
    let traceparent = format!("traceparent: 00-{trace}-{PARENT}-{flags}");
    let id = format!("x-id: {id}");
    let url = format!("http://{to}/head");
    let words = [
        "-sS",
        "-i",
        "--fail",
        "--max-time",
        "5",
        "-H",
        "Host: web",
        "-H",
        &traceparent,
        "-H",
        "tracestate: vendor=1",
        "-H",
        "x-fail: 1",
        "-H",
        &id,
        &url,
    ];
    let printed = client.tool("curl", &words)?;
    let (head, body) = printed.split_once("\r\n\r\n").unwrap_or_default();
    Ok((head.replace('\r', ""), body.to_owned()))
}

/// The value of a header in lines.
fn header(head: &str, name: &str) -> String {
    let start = format!("{name}: ");
    let mut lines = head.lines();
    let value = lines.find_map(|line| line.strip_prefix(&*start));
    value.unwrap_or_default().trim().to_owned()
}

/// Spans of a trace, once there are so many; the request's first, then the tries by number.
fn spans(receiver: &Receiver, trace: &str, count: usize) -> Vec<Value> {
    let found = wait_for("the spans", PATIENCE, || {
        let mut spans = receiver.spans();
        spans.retain(|span| span["trace"] == trace);
        Ok((spans.len() >= count).then_some(spans))
    });
    let mut spans = found.unwrap_or_else(|error| {
        panic!("{error:#}: {:?}", receiver.spans());
    });
    assert_eq!(spans.len(), count, "{spans:?}");
    let place = |span: &Value| {
        let number = span["attributes"]["http.request.resend_count"].as_i64();
        (span["kind"].as_i64(), number)
    };
    spans.sort_by_key(place);
    spans
}

#[test]
fn one_trace_holds_client_proxy_and_tries() {
    for transport in ["grpc", "http"] {
        let topology = Topology::new(2).unwrap();
        let _backends = [1, 2].map(|number| web(&topology, number));
        let receiver = receive(&topology, "spans");
        let log = topology.directory().join("access.log");
        let agent = start(&topology, 2, transport, &log);
        let (client, shared) = (topology.client(), address(SHARED));
        wait_for("a first answer", PATIENCE, || {
            agent.process().ensure_running()?;
            let asked = ask(client, shared, &"9".repeat(32), "00", "first");
            Ok(asked.ok())
        })
        .unwrap();

        // The second backend has had its failure for these ids, the first has it still.
        let (mut trace, mut head, mut got) = Default::default();
        for number in 1.. {
            assert!(number < 60, "the first backend is never the first");
            let id = format!("r{number}");
            trace = format!("{number:032x}");
            let direct = topology.backend_address(2);
            let _ = ask(topology.node(), direct, &trace, "00", &id);
            (head, got) = ask(client, shared, &trace, "01", &id).unwrap();
            let line = wait_for("the line in the log", PATIENCE, || {
                let text = fs::read_to_string(&log)?;
                let line = text.lines().find(|line| line.contains(&trace));
                Ok(line.map(|line| serde_json::from_str::<Value>(line).unwrap()))
            })
            .unwrap();
            let id = header(&head, "x-request-id");
            assert!(!id.is_empty(), "{head}");
            assert_eq!(header(&got, "x-request-id"), id, "the backend's is another");
            assert_eq!(line["request_id"], *id, "the log's is another");
            if line["tries"].as_array().unwrap().len() == 2 {
                break;
            }
        }

        let spans = spans(&receiver, &trace, 3);
        let [server, first, second] = &spans[..] else {
            unreachable!("as many as were waited for");
        };
        let [of_server, of_first, of_second] =
            [server, first, second].map(|span| &span["attributes"]);
        assert_eq!(server["parent"], PARENT);
        assert_eq!((&server["kind"], &first["kind"]), (&2.into(), &3.into()));
        for one in [first, second] {
            assert_eq!(one["parent"], server["span"], "{one}");
            assert_eq!(one["attributes"]["service.name"], "lb-agent");
        }
        for span in &spans {
            assert_eq!(span["state"], "vendor=1", "{span}");
        }
        assert_eq!(of_server["http.response.status_code"], 200);
        assert_eq!(of_server["url.path"], "/head");
        assert_eq!(of_first["http.response.status_code"], 503);
        assert_eq!(
            (&first["status"], &second["status"]),
            (&2.into(), &0.into())
        );
        assert_eq!(of_second["http.response.status_code"], 200);
        assert_eq!(of_second["http.request.resend_count"], 1);
        let servers = [of_first, of_second].map(|one| one["server.address"].as_str().unwrap());
        let backends = [1, 2].map(|number| topology.backend_address(number).ip().to_string());
        assert_eq!(servers, backends.each_ref().map(|backend| &**backend));
        // What the backend was told is the span of its try.
        let told = second["span"].as_str().unwrap();
        assert_eq!(header(&got, "traceparent"), format!("00-{trace}-{told}-01"));
        assert_eq!(header(&got, "tracestate"), "vendor=1");
        let id = header(&head, "x-request-id");
        assert_eq!(of_second["http.request.header.x-request-id"][0], *id);

        // Who does not want to be recorded is not, and what waits at the end is sent.
        let unseen = "8".repeat(32);
        ask(client, shared, &unseen, "00", "first").unwrap();
        let last = "7".repeat(32);
        ask(client, shared, &last, "01", "first").unwrap();
        agent.stop().unwrap();
        let all = receiver.spans();
        let count = |trace: &str| all.iter().filter(|span| span["trace"] == *trace).count();
        assert_eq!((count(&last), count(&unseen)), (2, 0), "by {transport}");
    }
}

/// Spans so far, by what became of them.
fn counted(agent: &Agent, result: &str) -> f64 {
    let page = agent.metrics(address(METRICS)).unwrap();
    let start = format!("lb_proxy_spans_total{{result=\"{result}\"}} ");
    let mut lines = page.lines();
    let value = lines.find_map(|line| line.strip_prefix(&*start));
    value.unwrap_or_else(|| panic!("{page}")).parse().unwrap()
}

#[test]
fn a_receiver_that_is_away_costs_spans_only() {
    let topology = Topology::new(1).unwrap();
    let _backend = topology.start_echo(1).unwrap();
    let log = topology.directory().join("access.log");
    let agent = start(&topology, 1, "grpc", &log);
    let client = lb_tests::client::Client::new(topology.client());
    wait_for("an answer", PATIENCE, || {
        agent.process().ensure_running()?;
        Ok(client.get(address(VIP), "/").ok())
    })
    .unwrap();
    let pace = Pace {
        threads: 4,
        rate: None,
    };
    let load = Load::start(&client, address(VIP), pace);
    let long = Duration::from_secs(120);
    wait_for("the queue to be full", long, || {
        Ok((counted(&agent, "lost") > 0.0).then_some(()))
    })
    .unwrap();
    assert_eq!(counted(&agent, "exported"), 0.0);
    let record = load.stop();
    assert_eq!(
        record.failures().count(),
        0,
        "{:?}",
        record.failures().next()
    );

    let receiver = receive(&topology, "spans");
    wait_for("the exporter to come back", long, || {
        Ok((counted(&agent, "exported") > 0.0).then_some(()))
    })
    .unwrap();
    // The queue has emptied.
    wait_for("the newest spans", long, || {
        let trace = format!("{:032x}", receiver.spans().len() + 1);
        ask(topology.client(), address(SHARED), &trace, "01", "x")?;
        std::thread::sleep(Duration::from_millis(1500));
        let spans = receiver.spans();
        Ok(spans
            .iter()
            .any(|span| span["trace"] == *trace)
            .then_some(()))
    })
    .unwrap();
    let exported = counted(&agent, "exported");
    assert!(receiver.spans().len() as f64 >= exported, "{exported}");
}
