//! `explain`: each factor of each weight, who says it, and what the kernel holds at this moment.

use std::{net::SocketAddr, time::Duration};

use clap::Args as ClapArgs;

use super::{
    client::{self, Agent},
    failure::Failure,
    output::{Printer, between, percent, span},
    split::shares,
    table::{Column, Table},
};
use crate::api::proto::{
    Backend, BackendExplanation, ExplainRequest, ExplainResponse, ExplainedService, Explanation,
    KernelBackend, KernelTable, KernelVip, Origin, RequestHeader, Service, Treatment,
};

/// What is to be explained.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Name of a service; a VIP or a backend's address, as in 198.51.100.10:80 (with /udp or /tcp
    /// behind it if only that is meant); or, with PATH, the name of a host
    #[arg(value_name = "SERVICE|IP:PORT|HOST")]
    subject: String,
    /// Path of a request to that host, as in /admin
    #[arg(value_name = "PATH")]
    path: Option<String>,
    /// Method of that request
    #[arg(long, requires = "path")]
    method: Option<String>,
    /// A header of that request, as in "x-canary: 1"; may be given several times
    #[arg(long, value_name = "NAME: VALUE", requires = "path")]
    header: Vec<String>,
}

pub(super) async fn execute(
    args: Args,
    agent: Agent<'_>,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let request = request(args)?;
    let mut client = agent.connect().await?;
    let reply = client::reply(client.explain(request)).await?;
    printer.print(&reply, text)?;
    Ok(())
}

fn request(args: Args) -> Result<ExplainRequest, Failure> {
    let Args {
        subject,
        path,
        method,
        header,
    } = args;
    let mut request = ExplainRequest::default();
    if let Some(path) = path {
        if !path.starts_with('/') {
            let text = format!("`{path}` is no path; it begins with a slash, as in /admin");
            return Err(Failure::invalid(text));
        }
        request.host = Some(subject);
        request.path = Some(path);
        request.method = method;
        for text in header {
            let Some((name, value)) = text.split_once(':') else {
                let text = format!("`{text}` is no header; write NAME: VALUE, as in x-canary: 1");
                return Err(Failure::invalid(text));
            };
            request.headers.push(RequestHeader {
                name: name.trim().to_owned(),
                value: value.trim().to_owned(),
            });
        }
        return Ok(request);
    }
    let address = subject.trim_end_matches("/tcp").trim_end_matches("/udp");
    if address.parse::<SocketAddr>().is_ok() {
        request.address = Some(subject);
    } else if subject.contains(['/', ':']) {
        return Err(Failure::invalid(format!(
            "`{subject}` is neither the name of a service nor an address such as 198.51.100.10:80 or \
             [2001:db8::10]:53/udp; for requests give HOST PATH, as in web.example /admin"
        )));
    } else {
        request.service = Some(subject);
    }
    Ok(request)
}

fn text(reply: &ExplainResponse) -> String {
    let parts = reply
        .services
        .iter()
        .map(|one| service(one, reply.now_unix_ms));
    parts.collect::<Vec<_>>().join("\n")
}

fn service(one: &ExplainedService, now_unix_ms: i64) -> String {
    let empty = (Service::default(), Explanation::default());
    let service = one.service.as_ref().unwrap_or(&empty.0);
    let explanation = one.explanation.as_ref().unwrap_or(&empty.1);
    let mut text = format!("service {} ({})", service.name, service.protocol);
    if !one.because.is_empty() {
        text.push_str(&format!(": {}", one.because));
    }
    text.push('\n');
    let routed = matches!(one.matched.as_str(), "tag" | "service-router" | "name");
    if routed && !one.because.is_empty() {
        text.push_str(
            "requests are for a proxy, whose routes come from there; here connections are balanced:\n",
        );
    }
    text.push('\n');
    if !one.routes.is_empty() {
        let mut table = Table::new(&[
            Column::Words("ROUTE"),
            Column::Words("FITS"),
            Column::Words("SOURCE"),
        ]);
        for route in &one.routes {
            let fits = match &route.misfit {
                None => "yes".to_owned(),
                Some(misfit) => format!("no: {misfit}"),
            };
            table.row([route.route.clone(), fits, route.source.clone()]);
        }
        text.push_str(&table.render());
        text.push('\n');
    }
    if !one.treatment.is_empty() {
        text.push_str(&treatment(&one.treatment));
        text.push('\n');
    }
    text.push_str(&sections(service, &one.backends, explanation, now_unix_ms));
    text
}

/// How requests are treated, and who says so.
pub(super) fn treatment(facts: &[Treatment]) -> String {
    let mut table = Table::new(&[
        Column::Words("REQUESTS"),
        Column::Words("VALUE"),
        Column::Words("SOURCE"),
    ]);
    for fact in facts {
        table.row([fact.name.clone(), fact.value.clone(), fact.source.clone()]);
    }
    table.render()
}

/// The layers of the split, the factors of each weight, and what the kernel holds.
pub(super) fn sections(
    service: &Service,
    backends: &[Backend],
    explanation: &Explanation,
    now_unix_ms: i64,
) -> String {
    let mut parts = Vec::new();
    if !service.split_layers.is_empty() {
        parts.push(layers(service, &explanation.split_origins, now_unix_ms));
    }
    if !backends.is_empty() {
        parts.push(factors(backends, &explanation.backends, now_unix_ms));
    }
    parts.push(kernel(&explanation.vips, &explanation.tables));
    parts.join("\n")
}

fn layers(service: &Service, origins: &[Origin], now_unix_ms: i64) -> String {
    let mut table = Table::new(&[
        Column::Words("SPLIT"),
        Column::Words("COUNTS"),
        Column::Words("SOURCE"),
    ]);
    for (index, layer) in service.split_layers.iter().enumerate() {
        let said = layer.split.as_ref();
        let counts = match &layer.idle {
            _ if layer.in_force => "yes".into(),
            Some(idle) => format!("no: {idle}"),
            None => "no: another goes before it".into(),
        };
        let source = origins.get(index).map(|origin| {
            let origin = self::origin(origin, now_unix_ms);
            match said.filter(|split| split.source == "cli") {
                Some(split) => format!("{origin} ({})", split.origin),
                None => origin,
            }
        });
        table.row([
            said.map(|split| shares(&split.shares)).unwrap_or_default(),
            counts,
            source.unwrap_or_default(),
        ]);
    }
    table.render()
}

fn factors(backends: &[Backend], explained: &[BackendExplanation], now_unix_ms: i64) -> String {
    let mut table = Table::new(&[
        Column::Words("BACKEND"),
        Column::Words("FACTOR"),
        Column::Number("VALUE"),
        Column::Words("BECAUSE"),
        Column::Words("SOURCE"),
    ]);
    for (backend, explained) in backends.iter().zip(explained) {
        let address = &backend.address;
        for factor in &explained.factors {
            let source = factor.origin.as_ref();
            table.row([
                address.clone(),
                factor.name.clone(),
                number(factor.value),
                factor.note.clone(),
                source
                    .map(|one| origin(one, now_unix_ms))
                    .unwrap_or_default(),
            ]);
        }
        table.row([
            address.clone(),
            "= weight".into(),
            backend.weight.to_string(),
            backend.reason.clone(),
            format!("{} of new flows", percent(backend.share_percent)),
        ]);
        let (holds, slots) = match &explained.kernel {
            None => ("no entry: it was never given flows".into(), String::new()),
            Some(entry) => (
                held(entry, &backend.address),
                format!(
                    "slots {} for {} asked, {} flows",
                    percent(explained.slots_percent),
                    percent(explained.expected_percent),
                    explained.flows
                ),
            ),
        };
        table.row([
            address.clone(),
            "in kernel".into(),
            explained.slots.to_string(),
            holds,
            slots,
        ]);
    }
    table.render()
}

fn held(entry: &KernelBackend, address: &str) -> String {
    if !entry.present {
        return format!("entry {} is empty", entry.id);
    }
    let state = if entry.active { "active" } else { "not active" };
    let mut text = format!("entry {}, {state}", entry.id);
    if entry.address != *address {
        text.push_str(&format!(", but of {}", entry.address));
    }
    match (&entry.interface, &entry.mac) {
        (None, _) => text.push_str(", no way there is known"),
        (Some(interface), Some(mac)) => text.push_str(&format!(", by {interface} to {mac}")),
        (Some(interface), None) => text.push_str(&format!(", by {interface}")),
    }
    if let Some(router) = &entry.router {
        text.push_str(&format!(" through {router}"));
    }
    text.push_str(&format!(", as {}", entry.source));
    text
}

fn kernel(vips: &[KernelVip], tables: &[KernelTable]) -> String {
    let mut text = String::new();
    for vip in vips {
        text.push_str(&match vip.present {
            true => format!(
                "kernel: VIP {} is service {} with {} slots, flags {}\n",
                vip.vip, vip.service, vip.slots, vip.flags
            ),
            false => format!("kernel: there is no VIP {}\n", vip.vip),
        });
    }
    for table in tables {
        text.push_str(&match (table.present, table.foreign) {
            (false, _) => format!("kernel: service {} has no Maglev table\n", table.service),
            (true, 0) => format!(
                "kernel: the Maglev table of service {} is map {} with {} slots\n",
                table.service, table.map, table.slots
            ),
            (true, foreign) => format!(
                "kernel: the Maglev table of service {} is map {} with {} slots, {foreign} of which lead to \
                 none of its backends\n",
                table.service, table.map, table.slots
            ),
        });
    }
    text
}

/// With its age behind it.
fn origin(origin: &Origin, now_unix_ms: i64) -> String {
    match origin.at_unix_ms {
        Some(at) => {
            let age = between(at, now_unix_ms).as_secs();
            format!("{}, {} ago", origin.text, span(Duration::from_secs(age)))
        }
        None => origin.text.clone(),
    }
}

/// Four digits behind the point at most.
fn number(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests;
