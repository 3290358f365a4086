//! `trace`: single packets as they come, one on each line.

use std::time::{Duration, UNIX_EPOCH};

use super::{
    client::Agent,
    failure::Failure,
    output::{Printer, one_line},
    packets::{Filter, Packets},
};
use crate::api::proto::PacketEvent;

/// What `trace` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    filter: Filter,
    /// End after so many packets; 0: no limit
    #[arg(long, value_name = "N", default_value_t = 1000)]
    count: u64,
    /// End after so many seconds; 0: no limit
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// Say what each verdict means
    #[arg(short, long)]
    verbose: bool,
}

const HEADER: &str = "TIME (UTC)       VERDICT                   INTERFACE    PACKET\n";

pub(super) async fn execute(
    args: Args,
    agent: Agent<'_>,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let mut request = args.filter.request(&[])?;
    request.count = args.count;
    request.duration_ms = u64::from(args.seconds) * 1000;
    let mut packets = Packets::begin(agent, request).await?;
    // Not before the agent's first message, which says that packets are watched.
    let mut begun = false;
    while let Some(message) = packets.next().await? {
        if !begun {
            begun = true;
            printer.people(HEADER)?;
        }
        for event in &message.events {
            printer.line(event, |event| line(event, args.verbose))?;
        }
    }
    eprintln!("lb-agent: {}", packets.summary());
    Ok(())
}

/// As in `05:30:01.123456  drop blocked  eth0  tcp 192.0.2.1:4000 -> 198.51.100.10:80 ...`.
fn line(event: &PacketEvent, verbose: bool) -> String {
    let verdict = format!("{} {}", event.action, event.verdict);
    let mut line = format!(
        "{:<15}  {verdict:<24}  {:<11}  {}",
        time(event.time_unix_ns),
        one_line(&event.interface),
        packet(event),
    );
    if verbose {
        line = format!("{line}  # {}", event.reason);
    }
    line
}

fn time(unix_ns: i64) -> String {
    let moment = UNIX_EPOCH + Duration::from_nanos(unix_ns.max(0).cast_unsigned());
    let text = humantime::format_rfc3339_micros(moment).to_string();
    // Between date and zone.
    let time = text.split_once('T').map_or(text.as_str(), |(_, time)| time);
    time.trim_end_matches('Z').to_owned()
}

fn packet(event: &PacketEvent) -> String {
    let mut words = Vec::new();
    match &event.protocol {
        Some(protocol) => words.push(protocol.clone()),
        None => words.push(format!("ethertype {:#06x}", event.ethertype)),
    }
    let arrow = |src: &Option<String>, dst: &Option<String>| {
        Some(format!("{} -> {}", src.as_ref()?, dst.as_ref()?))
    };
    words.extend(arrow(&event.src, &event.dst));
    words.extend(arrow(&event.sent_src, &event.sent_dst).map(|sent| format!("=> {sent}")));
    words.extend(event.tcp_flags.as_ref().map(|flags| format!("[{flags}]")));
    if let (Some(kind), Some(code)) = (event.icmp_type, event.icmp_code) {
        words.push(format!("type {kind} code {code}"));
    }
    if event.fragment {
        words.push("fragment".into());
    }
    words.push(format!("{} bytes", event.length));
    words.extend(
        event
            .service
            .as_ref()
            .map(|name| format!("service {}", one_line(name))),
    );
    let backend = event.backend_id.as_ref().or(event.backend.as_ref());
    words.extend(backend.map(|name| format!("backend {}", one_line(name))));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_a_line() {
        let request = PacketEvent {
            time_unix_ns: 1_700_000_000_123_456_789,
            action: "forward".into(),
            verdict: "request".into(),
            reason: "From a client to a backend.".into(),
            interface: "eth0".into(),
            length: 74,
            protocol: Some("tcp".into()),
            src: Some("10.0.0.2:4000".into()),
            dst: Some("198.51.100.10:80".into()),
            sent_src: Some("10.1.0.1:4000".into()),
            sent_dst: Some("10.1.0.2:8080".into()),
            service: Some("echo".into()),
            backend: Some("10.1.0.2:8080".into()),
            backend_id: Some("n1/echo-1".into()),
            tcp_flags: Some("SYN".into()),
            ..Default::default()
        };
        assert_eq!(
            line(&request, false),
            "22:13:20.123456  forward request           eth0         tcp 10.0.0.2:4000 -> \
             198.51.100.10:80 => 10.1.0.1:4000 -> 10.1.0.2:8080 [SYN] 74 bytes service echo \
             backend n1/echo-1"
        );
        let arp = PacketEvent {
            action: "pass".into(),
            verdict: "not_ip".into(),
            reason: "Neither IPv4 nor IPv6.".into(),
            interface: "eth0".into(),
            ethertype: 0x806,
            length: 42,
            ..Default::default()
        };
        assert_eq!(
            line(&arp, true),
            "00:00:00.000000  pass not_ip               eth0         ethertype 0x0806 42 bytes  \
             # Neither IPv4 nor IPv6."
        );
        let ping = PacketEvent {
            protocol: Some("icmp".into()),
            src: Some("10.0.0.2".into()),
            dst: Some("10.0.0.1".into()),
            icmp_type: Some(8),
            icmp_code: Some(0),
            fragment: true,
            length: 98,
            ..arp
        };
        assert_eq!(
            packet(&ping),
            "icmp 10.0.0.2 -> 10.0.0.1 type 8 code 0 fragment 98 bytes"
        );
        assert!(HEADER.starts_with("TIME (UTC)       VERDICT"));
    }
}
