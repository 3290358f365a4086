//! The peers on the node.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    client::Client,
    namespace::Namespace,
    process::{Process, wait_for},
    topology::Topology,
};

use crate::stand::PORTS;

/// Threads of every proxy.
pub(crate) const THREADS: usize = 2;

/// Connections that a proxy may have: the idle ones and some.
const MAX_CONNECTIONS: usize = 18_000;

/// By which a request and its answer tell the request's id.
const REQUEST_ID: &str = "x-request-id";

/// What lb-agent writes into each request, and its peers as well unless they are bare.
const WRITTEN: [&str; 6] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "forwarded",
    REQUEST_ID,
];

/// What HAProxy is told to write besides `X-Forwarded-For`: the rest of what lb-agent writes.
const HEADERS_OF_HAPROXY: &str = "    unique-id-format %[uuid()]\n    \
    http-request set-header X-Request-Id %[unique-id]\n    \
    http-request set-header X-Forwarded-Proto http\n    \
    http-request set-header X-Forwarded-Host %[req.hdr(host)]\n    \
    http-request set-header X-Forwarded-Port %[dst_port]\n    \
    http-request set-header Forwarded for=%[src];host=%[req.hdr(host)];proto=http\n    \
    http-response set-header X-Request-Id %[unique-id]\n";

/// The same for nginx, as (name, value).
const HEADERS_OF_NGINX: [(&str, &str); 5] = [
    ("X-Request-Id", "$request_id"),
    ("X-Forwarded-Proto", "$scheme"),
    ("X-Forwarded-Host", "$http_host"),
    ("X-Forwarded-Port", "$server_port"),
    (
        "Forwarded",
        "\"for=$remote_addr;host=$http_host;proto=$scheme\"",
    ),
];

/// HAProxy in HTTP mode. A `bare` one writes `X-Forwarded-For` and no other header.
pub(crate) fn haproxy(
    topology: &Topology,
    vip: IpAddr,
    backends: &[SocketAddr],
    bare: bool,
) -> Result<Process> {
    let [http, http2, grpc] = PORTS;
    let servers = |rest: &str| -> String {
        (1..)
            .zip(backends)
            .map(|(number, backend)| format!("    server b{number} {backend}{rest}\n"))
            .collect()
    };
    let headers = if bare { "" } else { HEADERS_OF_HAPROXY };
    // By default it starts only with two descriptors for each connection, although those to the
    // backends are shared.
    let text = format!(
        "global\n    maxconn {MAX_CONNECTIONS}\n    no strict-limits\n    nbthread {THREADS}\n\
         defaults\n    mode http\n    timeout connect 5s\n    timeout client 120s\n    \
         timeout server 30s\n    http-reuse always\n    option forwardfor\n    balance roundrobin\n\
         listen web\n    bind {vip}:{http} backlog 4096\n    bind {vip}:{http2} backlog 4096\n{headers}{}\
         listen rpc\n    bind {vip}:{grpc} backlog 4096\n{headers}{}",
        servers(""),
        servers(" proto h2")
    );
    let directory = topology.directory();
    let config = directory.join("haproxy.cfg");
    write(&config, &text)?;
    let mut command = topology.node().command("haproxy")?;
    command.args(["-db", "-f"]).arg(&config);
    Process::start("haproxy", command, &directory.join("haproxy.log"))
}

/// nginx with connections to the backends that are kept. A `bare` one writes `X-Forwarded-For` and no
/// other header.
pub(crate) fn nginx(
    topology: &Topology,
    vip: IpAddr,
    backends: &[SocketAddr],
    bare: bool,
) -> Result<Process> {
    let [http, http2, grpc] = PORTS;
    let servers: String = backends
        .iter()
        .map(|backend| format!("server {backend}; "))
        .collect();
    let directory = topology.directory();
    let headers = |directive: &str| -> String {
        let forwarded = ("X-Forwarded-For", "$proxy_add_x_forwarded_for");
        let others: &[_] = if bare { &[] } else { &HEADERS_OF_NGINX };
        let all = [&[forwarded], others].concat();
        all.iter()
            .map(|(name, value)| format!("{directive} {name} {value}; "))
            .collect()
    };
    let answered = match bare {
        true => String::new(),
        false => "add_header X-Request-Id $request_id;".to_owned(),
    };
    let keep = "keepalive_requests 100000000; client_max_body_size 10m;";
    let text = format!(
        "user root;\n\
         daemon off;\n\
         worker_processes {THREADS};\n\
         pid {temporary}/nginx.pid;\n\
         error_log stderr warn;\n\
         events {{ worker_connections {MAX_CONNECTIONS}; multi_accept on; }}\n\
         http {{\n\
           access_log off;\n\
           keepalive_timeout 120s;\n\
           client_body_temp_path {temporary}/body;\n\
           proxy_temp_path {temporary}/proxy;\n\
           fastcgi_temp_path {temporary}/fastcgi;\n\
           uwsgi_temp_path {temporary}/uwsgi;\n\
           scgi_temp_path {temporary}/scgi;\n\
           upstream web {{ {servers} keepalive 64; keepalive_requests 100000000; }}\n\
           upstream rpc {{ {servers} keepalive 64; keepalive_requests 100000000; }}\n\
           server {{\n\
             listen {vip}:{http} backlog=4096; listen {vip}:{http2} backlog=4096 http2; {keep}\n\
             location / {{\n\
               proxy_pass http://web; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
               {}{answered}\n\
             }}\n\
           }}\n\
           server {{\n\
             listen {vip}:{grpc} backlog=4096 http2; {keep}\n\
             location / {{ grpc_pass grpc://rpc; {}{answered} }}\n\
           }}\n\
         }}\n",
        headers("proxy_set_header"),
        headers("grpc_set_header"),
        temporary = directory.display()
    );
    let config = directory.join("nginx.conf");
    write(&config, &text)?;
    let mut command = topology.node().command("nginx")?;
    command.args(["-e", "stderr", "-c"]).arg(&config);
    Process::start("nginx", command, &directory.join("nginx.log"))
}

/// Proxies that are not ours listen on the VIP, which therefore is the node's own.
pub(crate) fn own_vip(topology: &Topology, vip: &str) -> Result<()> {
    let address = format!("{vip}/32");
    let arguments = ["address", "add", &address, "dev", "lo"];
    topology.node().tool("ip", &arguments).map(drop)
}

/// Waits for an answer.
pub(crate) fn ready(process: &Process, from: &Namespace, address: SocketAddr) -> Result<()> {
    let client = Client::new(from);
    let what = format!("an answer from {address}");
    wait_for(&what, Duration::from_secs(20), || {
        process.ensure_running()?;
        Ok(client.get(address, "/size/1").ok().map(drop))
    })
}

/// Sees whether a proxy does the same work as all others: the headers, of a request and of its answer.
pub(crate) fn does_the_same(from: &Namespace, address: SocketAddr) -> Result<()> {
    let answer = Client::new(from).get(address, "/head")?;
    let head = std::str::from_utf8(&answer.body).context("the head of a request is no text")?;
    let written = |name: &str| {
        head.lines()
            .filter_map(|line| line.split_once(':'))
            .any(|(held, value)| held.eq_ignore_ascii_case(name) && !value.trim().is_empty())
    };
    for name in WRITTEN {
        ensure!(written(name), "requests get no {name}: {head}");
    }
    let told = answer.headers.contains_key(REQUEST_ID);
    ensure!(told, "answers get no {REQUEST_ID}");
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
