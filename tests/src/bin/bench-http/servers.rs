//! The peers on the node.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
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

/// HAProxy in HTTP mode.
pub(crate) fn haproxy(
    topology: &Topology,
    vip: IpAddr,
    backends: &[SocketAddr],
) -> Result<Process> {
    let [http, http2, grpc] = PORTS;
    let servers = |rest: &str| -> String {
        (1..)
            .zip(backends)
            .map(|(number, backend)| format!("    server b{number} {backend}{rest}\n"))
            .collect()
    };
    // By default it starts only with two descriptors for each connection, although those to the
    // backends are shared.
    let text = format!(
        "global\n    maxconn {MAX_CONNECTIONS}\n    no strict-limits\n    nbthread {THREADS}\n\
         defaults\n    mode http\n    timeout connect 5s\n    timeout client 120s\n    \
         timeout server 30s\n    http-reuse always\n    option forwardfor\n    balance roundrobin\n\
         listen web\n    bind {vip}:{http} backlog 4096\n    bind {vip}:{http2} backlog 4096\n{}\
         listen rpc\n    bind {vip}:{grpc} backlog 4096\n{}",
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

/// nginx with connections to the backends that are kept.
pub(crate) fn nginx(topology: &Topology, vip: IpAddr, backends: &[SocketAddr]) -> Result<Process> {
    let [http, http2, grpc] = PORTS;
    let servers: String = backends
        .iter()
        .map(|backend| format!("server {backend}; "))
        .collect();
    let directory = topology.directory();
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
               proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
             }}\n\
           }}\n\
           server {{\n\
             listen {vip}:{grpc} backlog=4096 http2; {keep}\n\
             location / {{ grpc_pass grpc://rpc; }}\n\
           }}\n\
         }}\n",
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

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
