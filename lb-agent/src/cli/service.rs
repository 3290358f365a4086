//! `service list` and `service show`.

use std::time::Duration;

use clap::Subcommand;

use super::{
    backend,
    client::{self, Agent},
    failure::Failure,
    output::{Printer, bytes, counted, span},
    shift,
    split::shares,
    table::{Column, Table, facts},
};
use crate::api::proto::{
    GetServiceRequest, GetServiceResponse, ListServicesRequest, ListServicesResponse, Probe,
    Service, TagRoute,
};

/// What can be done with services.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List services
    ///
    /// BACKENDS are healthy ones of all. PACKETS and BYTES count both directions, FLOWS the ones
    /// that exist now.
    List,
    /// Show a service, and its backends with their weights and the reason for each
    Show {
        /// Name of the service
        name: String,
    },
}

impl Command {
    pub(super) async fn execute(
        self,
        agent: Agent<'_>,
        printer: &mut Printer<'_>,
    ) -> Result<(), Failure> {
        let mut client = agent.connect().await?;
        match self {
            Command::List => {
                let reply = client::reply(client.list_services(ListServicesRequest {})).await?;
                printer.print(&reply, list)?;
            }
            Command::Show { name } => {
                let reply = client::reply(client.get_service(GetServiceRequest { name })).await?;
                printer.print(&reply, show)?;
            }
        }
        Ok(())
    }
}

fn list(reply: &ListServicesResponse) -> String {
    if reply.services.is_empty() {
        return "there are no services".into();
    }
    let mut table = Table::new(&[
        Column::Words("NAME"),
        Column::Words("PROTOCOL"),
        Column::Words("VIP"),
        Column::Number("BACKENDS"),
        Column::Words("SPLIT"),
        Column::Number("FLOWS"),
        Column::Number("PACKETS"),
        Column::Number("BYTES"),
    ]);
    for service in &reply.services {
        let counters = service.counters.unwrap_or_default();
        let split = service.split.as_ref();
        table.row([
            service.name.clone(),
            service.protocol.clone(),
            match service.vips.is_empty() {
                true => "-".into(),
                false => service.vips.join(","),
            },
            format!("{}/{}", service.backends_healthy, service.backends),
            split.map(|split| shares(&split.shares)).unwrap_or_default(),
            counters.flows_live.to_string(),
            (counters.packets_in + counters.packets_out).to_string(),
            bytes(counters.bytes_in + counters.bytes_out),
        ]);
    }
    table.render()
}

fn show(reply: &GetServiceResponse) -> String {
    let service = reply.service.clone().unwrap_or_default();
    let counters = service.counters.unwrap_or_default();
    let mut rows = vec![
        ("name", service.name.clone()),
        (
            "protocol",
            format!("{}, forwarding {}", service.protocol, service.forwarding),
        ),
        ("vip", service.vips.join(", ")),
        ("allow", allow(&service)),
        (
            "affinity",
            match service.affinity.as_str() {
                "client" => "client; its address chooses the backend".into(),
                other => other.to_owned(),
            },
        ),
        ("configured", service.origin.clone()),
        ("catalog", catalog(&service)),
        ("probe", service.probe.as_ref().map_or_else(no_probe, probe)),
        (
            "split",
            match &service.split {
                Some(split) => format!(
                    "{} (set by {}: {})",
                    shares(&split.shares),
                    split.source,
                    split.origin
                ),
                None => "none; backends share by their weights".into(),
            },
        ),
        (
            "backends",
            format!(
                "{} of {} healthy, {} taking new flows",
                service.backends_healthy, service.backends, service.backends_active
            ),
        ),
        (
            "flows",
            format!(
                "{} now, {} so far",
                counters.flows_live, counters.flows_created
            ),
        ),
        (
            "from clients",
            format!(
                "{}, {}",
                counted(counters.packets_in, "packet"),
                bytes(counters.bytes_in)
            ),
        ),
        (
            "to clients",
            format!(
                "{}, {}",
                counted(counters.packets_out, "packet"),
                bytes(counters.bytes_out)
            ),
        ),
    ];
    let split = rows.iter().position(|(name, _)| *name == "split");
    let mut at = split.map_or(rows.len(), |at| at + 1);
    if let Some(others) = shift::others(&service.split_layers) {
        rows.insert(at, ("not in force", others));
        at += 1;
    }
    if let Some(shift) = &service.shift {
        rows.insert(at, ("shift", shift::sentence(shift, reply.now_unix_ms)));
    }
    if !service.routes.is_empty() {
        let routes: Vec<String> = service.routes.iter().map(route).collect();
        rows.insert(3, ("routes", routes.join(", ")));
    }
    let mut text = facts(&rows);
    if service.panic {
        text.push_str("✗ no backend is healthy, so all are used\n");
    }
    for note in &service.notes {
        text.push_str(&format!("! {note}\n"));
    }
    text.push('\n');
    text.push_str(&backend::table(&reply.backends));
    text
}

/// As in `web.example/admin*`.
fn route(route: &TagRoute) -> String {
    let host = route.host.as_deref().unwrap_or("*");
    match (&route.path, &route.path_prefix) {
        (Some(path), _) => format!("{host}{path}"),
        (None, Some(prefix)) => format!("{host}{prefix}*"),
        (None, None) => format!("{host}/*"),
    }
}

fn catalog(service: &Service) -> String {
    match &service.consul_service {
        Some(name) => format!("Consul, service {name}"),
        None => "the configuration file".into(),
    }
}

fn allow(service: &Service) -> String {
    if service.restricted {
        service.allow.join(", ")
    } else {
        "everybody".into()
    }
}

fn no_probe() -> String {
    "none; the catalog's word counts".into()
}

fn probe(probe: &Probe) -> String {
    let mut text = probe.kind.clone();
    if let Some(path) = &probe.path {
        text.push_str(&format!(" GET {path}"));
    }
    if let Some(host) = &probe.host {
        text.push_str(&format!(" for host {host}"));
    }
    if let (Some(min), Some(max)) = (probe.status_min, probe.status_max) {
        text.push_str(&format!(" expecting {min}-{max}"));
    }
    if let Some(port) = probe.port {
        text.push_str(&format!(" on port {port}"));
    }
    format!(
        "{text}, every {}, timeout {}, rise {}, fall {}",
        span(Duration::from_millis(probe.interval_ms)),
        span(Duration::from_millis(probe.timeout_ms)),
        probe.rise,
        probe.fall
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::proto::{Counters, Shift, Split, SplitLayer};

    fn echo() -> Service {
        Service {
            name: "echo".into(),
            protocol: "tcp".into(),
            forwarding: "nat".into(),
            vips: vec!["198.51.100.10:80".into(), "[2001:db8::10]:80".into()],
            origin: "/etc/lb-agent/config.toml:12".into(),
            consul_service: Some("echo".into()),
            probe: Some(Probe {
                kind: "http".into(),
                path: Some("/health".into()),
                status_min: Some(200),
                status_max: Some(299),
                port: Some(9000),
                interval_ms: 2000,
                timeout_ms: 500,
                rise: 2,
                fall: 3,
                ..Default::default()
            }),
            split: Some(Split {
                shares: [("v1".into(), 90), ("v2".into(), 10)].into(),
                source: "cli".into(),
                origin: "split set".into(),
            }),
            split_layers: vec![SplitLayer {
                split: Some(Split {
                    shares: [("v1".into(), 100)].into(),
                    source: "file".into(),
                    origin: "/etc/lb-agent/config.toml:12".into(),
                }),
                idle: None,
                in_force: false,
            }],
            shift: Some(Shift {
                subset: "v2".into(),
                phase: "arrived".into(),
                base_shares: [("v1".into(), 100)].into(),
                percent: 10.0,
                ..Default::default()
            }),
            backends: 3,
            backends_healthy: 2,
            backends_active: 1,
            panic: false,
            affinity: "client".into(),
            restricted: true,
            allow: vec!["10.0.0.0/8".into(), "2001:db8::/32".into()],
            notes: vec![],
            routes: vec![],
            counters: Some(Counters {
                packets_in: 1,
                bytes_in: 1024,
                packets_out: 2,
                bytes_out: 1024,
                flows_created: 9,
                flows_live: 4,
            }),
        }
    }

    #[test]
    fn services_are_listed() {
        let plain = Service {
            name: "dns".into(),
            protocol: "udp".into(),
            vips: vec!["198.51.100.53:53".into()],
            ..Default::default()
        };
        let services = vec![plain, echo()];
        assert_eq!(
            list(&ListServicesResponse { services }),
            "\
NAME  PROTOCOL  VIP                                 BACKENDS  SPLIT        FLOWS  PACKETS     BYTES
dns   udp       198.51.100.53:53                         0/0  -                0        0       0 B
echo  tcp       198.51.100.10:80,[2001:db8::10]:80       2/3  v1=90 v2=10      4        3  2.00 KiB
"
        );
    }

    #[test]
    fn a_service_is_shown_with_all_that_is_configured() {
        let reply = |service| GetServiceResponse {
            service: Some(service),
            backends: vec![],
            now_unix_ms: 0,
        };
        assert_eq!(
            show(&reply(echo())),
            "\
name          echo
protocol      tcp, forwarding nat
vip           198.51.100.10:80, [2001:db8::10]:80
allow         10.0.0.0/8, 2001:db8::/32
affinity      client; its address chooses the backend
configured    /etc/lb-agent/config.toml:12
catalog       Consul, service echo
probe         http GET /health expecting 200-299 on port 9000, every 2s, timeout 500ms, rise 2, fall 3
split         v1=90 v2=10 (set by cli: split set)
not in force  v1=100 by file (/etc/lb-agent/config.toml:12)
shift         v2 has 10.0 % and is watched; if its gate fails, back to v1=100
backends      2 of 3 healthy, 1 taking new flows
flows         4 now, 9 so far
from clients  1 packet, 1.00 KiB
to clients    2 packets, 1.00 KiB

there are no backends
"
        );
        let bare = show(&reply(Service {
            panic: true,
            notes: vec!["service-resolver redirects it to other".into()],
            ..Default::default()
        }));
        for expected in [
            "catalog       the configuration file\n",
            "allow         everybody\n",
            "probe         none; the catalog's word counts\n",
            "split         none; backends share by their weights\n",
            "\n✗ no backend is healthy, so all are used\n! service-resolver redirects it to other\n",
        ] {
            assert!(bare.contains(expected), "{bare}");
        }
    }
}
