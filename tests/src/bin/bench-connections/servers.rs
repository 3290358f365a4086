//! The programs on the hosts: nginx as the backends' server, and the peers.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    client::Client,
    namespace::Namespace,
    process::{Process, wait_for},
    topology::Topology,
};

/// Where Debian puts nginx' stream module.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// Descriptors that a proxy may need: two for each of the connections of `maxconn`, and some.
const MAX_CONNECTIONS: usize = 400;

/// Starts nginx with one small answer for everybody.
pub(crate) fn backend(
    host: &Namespace,
    address: SocketAddr,
    directory: &Path,
    number: u8,
) -> Result<Process> {
    let http = format!(
        "http {{\n\
           access_log off;\n\
           keepalive_requests 100000000;\n\
           client_body_temp_path {temporary}/body;\n\
           proxy_temp_path {temporary}/proxy;\n\
           fastcgi_temp_path {temporary}/fastcgi;\n\
           uwsgi_temp_path {temporary}/uwsgi;\n\
           scgi_temp_path {temporary}/scgi;\n\
           server {{ listen {address} backlog=4096; location / {{ return 200 \"hello\\n\"; }} }}\n\
         }}\n",
        temporary = directory.display()
    );
    let name = format!("backend-{number}");
    let process = nginx(host, directory, &name, "", 1, &http)?;
    ready(&process, host, address)?;
    Ok(process)
}

/// nginx' stream proxy on the node.
pub(crate) fn stream(
    topology: &Topology,
    vip: SocketAddr,
    backends: &[SocketAddr],
) -> Result<Process> {
    ensure!(
        Path::new(STREAM_MODULE).exists(),
        "{STREAM_MODULE} is missing; `cargo xtask setup` installs it"
    );
    own_vip(topology, vip)?;
    let servers: Vec<String> = backends
        .iter()
        .map(|backend| format!("server {backend};"))
        .collect();
    let stream = format!(
        "stream {{\n\
           upstream backends {{ {} }}\n\
           server {{ listen {vip} backlog=4096; proxy_pass backends; }}\n\
         }}\n",
        servers.join(" ")
    );
    let modules = format!("load_module {STREAM_MODULE};\n");
    let node = topology.node();
    let process = nginx(node, topology.directory(), "stream", &modules, 2, &stream)?;
    ready(&process, topology.client(), vip)?;
    Ok(process)
}

fn nginx(
    host: &Namespace,
    directory: &Path,
    name: &str,
    modules: &str,
    workers: u32,
    rest: &str,
) -> Result<Process> {
    let file = |end: &str| directory.join(format!("nginx-{name}.{end}"));
    let config = file("conf");
    let text = format!(
        "{modules}\
         user root;\n\
         daemon off;\n\
         worker_processes {workers};\n\
         pid {};\n\
         error_log stderr warn;\n\
         events {{ worker_connections 4096; multi_accept on; }}\n\
         {rest}",
        file("pid").display()
    );
    fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
    let mut command = host.command("nginx")?;
    command.args(["-e", "stderr", "-c"]).arg(&config);
    Process::start("nginx", command, &file("log"))
}

/// HAProxy in TCP mode on the node.
pub(crate) fn haproxy(
    topology: &Topology,
    vip: SocketAddr,
    backends: &[SocketAddr],
) -> Result<Process> {
    own_vip(topology, vip)?;
    let servers: Vec<String> = (1..)
        .zip(backends)
        .map(|(number, backend)| format!("    server b{number} {backend}\n"))
        .collect();
    // By default it asks for as many descriptors as it may have, which in a container can be so
    // few that it does not start, or so many that it is slow to.
    let text = format!(
        "global\n    maxconn {MAX_CONNECTIONS}\n    nbthread 2\n\
         defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 30s\n    timeout server 30s\n\
         listen web\n    bind {vip} backlog 4096\n    balance roundrobin\n{}",
        servers.concat()
    );
    let directory = topology.directory();
    let config = directory.join("haproxy.cfg");
    fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
    let mut command = topology.node().command("haproxy")?;
    command.args(["-db", "-f"]).arg(&config);
    let process = Process::start("haproxy", command, &directory.join("haproxy.log"))?;
    ready(&process, topology.client(), vip)?;
    Ok(process)
}

/// The kernel's NAT on the node.
pub(crate) fn nftables(
    topology: &Topology,
    vip: SocketAddr,
    backends: &[SocketAddr],
) -> Result<()> {
    let node = topology.node();
    node.sysctl("ipv4.ip_forward", "1")?;
    let choice: Vec<String> = (0..)
        .zip(backends)
        .map(|(number, backend)| format!("{number} : {}", backend.ip()))
        .collect();
    // The port is the same on both sides, and stays.
    let rules = format!(
        "table ip lb {{\n\
           chain in {{\n\
             type nat hook prerouting priority dstnat;\n\
             ip daddr {} tcp dport {} dnat to numgen inc mod {} map {{ {} }}\n\
           }}\n\
           chain out {{\n\
             type nat hook postrouting priority srcnat;\n\
             masquerade\n\
           }}\n\
         }}\n",
        vip.ip(),
        vip.port(),
        backends.len(),
        choice.join(", ")
    );
    let file = topology.directory().join("rules.nft");
    fs::write(&file, rules).with_context(|| format!("cannot write {}", file.display()))?;
    node.tool("nft", &["-f", &file.display().to_string()])?;
    // Otherwise the connections of all rounds lie in its table, two minutes each.
    node.sysctl("netfilter.nf_conntrack_tcp_timeout_time_wait", "5")?;
    Ok(())
}

/// Proxies listen on the VIP, which therefore is the node's own.
fn own_vip(topology: &Topology, vip: SocketAddr) -> Result<()> {
    let address = format!("{}/32", vip.ip());
    let node = topology.node();
    node.tool("ip", &["address", "add", &address, "dev", "lo"])
        .map(drop)
}

fn ready(process: &Process, from: &Namespace, address: SocketAddr) -> Result<()> {
    let client = Client::new(from);
    let what = format!("an answer from {address}");
    wait_for(&what, Duration::from_secs(10), || {
        process.ensure_running()?;
        Ok(client.get(address, "/").ok().map(drop))
    })
}
