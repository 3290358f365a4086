//! `capture`: packets into a file, each with its verdict as comment.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs::OpenOptions,
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use lb_common::trace::TRACE_SNAP;
use pcap_file::{
    DataLink,
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
        },
    },
};
use serde::Serialize;

use super::{
    client::Agent,
    failure::Failure,
    output::Printer,
    packets::{Filter, Packets},
};
use crate::api::proto::PacketEvent;

/// What is captured unless verdicts are named.
const DEFAULT_VERDICTS: [&str; 1] = ["drop"];
/// `if_tsresol` of nanoseconds (pcapng, section 4.2): ten to the minus ninth.
const NANOSECONDS: u8 = 9;

/// What `capture` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// File to write; what was in it is gone
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    filter: Filter,
    /// End after so many packets
    #[arg(long, value_name = "N", default_value_t = 100,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    count: u64,
    /// End after so many seconds
    #[arg(long, value_name = "N", default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Bytes of each packet to keep, from its beginning
    #[arg(long, value_name = "BYTES", default_value_t = TRACE_SNAP as u32,
        value_parser = clap::value_parser!(u32).range(14..=TRACE_SNAP as i64))]
    snaplen: u32,
}

/// What came of it.
#[derive(Serialize)]
struct Captured {
    file: String,
    packets: u64,
}

pub(super) async fn execute(
    args: Args,
    agent: Agent<'_>,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let mut request = args.filter.request(&DEFAULT_VERDICTS)?;
    request.count = args.count;
    request.duration_ms = u64::from(args.seconds) * 1000;
    request.snap = args.snaplen;
    let mut packets = Packets::begin(agent, request).await?;
    // Only now: what can be refused must not empty a file.
    let name = args.file.display().to_string();
    let failed = |what| move |error| Failure::Run(anyhow::Error::new(error).context(what));
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        // What people send is nobody else's business.
        .mode(0o600)
        .open(&args.file)
        .with_context(|| format!("cannot create {name}"))
        .map_err(Failure::Run)?;
    let what = format!("cannot write {name}");
    let mut capture =
        Capture::new(BufWriter::new(file), args.snaplen).map_err(failed(what.clone()))?;
    if printer.is_for_people() {
        eprintln!("lb-agent: capturing into {name}; Ctrl-C ends it");
    }
    let result = loop {
        match packets.next().await {
            Ok(Some(message)) => {
                for event in &message.events {
                    capture.add(event).map_err(failed(what.clone()))?;
                }
                // Whatever ends this, what has been captured is there.
                capture.flush().map_err(|error| {
                    Failure::Run(anyhow::Error::new(error).context(what.clone()))
                })?;
            }
            Ok(None) => break Ok(()),
            Err(failure) => break Err(failure),
        }
    };
    eprintln!("lb-agent: {}", packets.summary());
    result?;
    capture.finish().map_err(failed(what))?;
    let captured = Captured {
        file: name,
        packets: packets.seen,
    };
    printer.print(&captured, |captured| {
        format!("{} holds {} packets", captured.file, captured.packets)
    })?;
    Ok(())
}

/// A file under construction.
struct Capture<W: Write> {
    writer: PcapNgWriter<W>,
    snap: u32,
    /// Number of each interface in the file.
    interfaces: HashMap<String, u32>,
}

impl<W: Write> Capture<W> {
    fn new(file: W, snap: u32) -> Result<Self, pcap_file::PcapError> {
        Ok(Self {
            writer: PcapNgWriter::new(file)?,
            snap,
            interfaces: HashMap::new(),
        })
    }

    fn add(&mut self, event: &PacketEvent) -> Result<(), pcap_file::PcapError> {
        let interface_id = self.interface(&event.interface)?;
        let packet = EnhancedPacketBlock {
            interface_id,
            timestamp: Duration::from_nanos(event.time_unix_ns.max(0).cast_unsigned()),
            original_len: event.length,
            data: Cow::Borrowed(&event.frame),
            options: vec![EnhancedPacketOption::Comment(Cow::Owned(comment(event)))],
        };
        self.writer.write_pcapng_block(packet).map(drop)
    }

    /// The interface's number; it is described before its first packet.
    fn interface(&mut self, name: &str) -> Result<u32, pcap_file::PcapError> {
        if let Some(id) = self.interfaces.get(name) {
            return Ok(*id);
        }
        let description = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: self.snap,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        self.writer.write_pcapng_block(description)?;
        let id = self.interfaces.len() as u32;
        self.interfaces.insert(name.to_owned(), id);
        Ok(id)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.writer.get_mut().flush()
    }

    /// A file without any interface is none to tcpdump, so there is one even without packets.
    fn finish(mut self) -> Result<(), pcap_file::PcapError> {
        if self.interfaces.is_empty() {
            self.interface("none")?;
        }
        self.flush().map_err(pcap_file::PcapError::IoError)
    }
}

/// As in `drop blocked: The source is on the block list.`
fn comment(event: &PacketEvent) -> String {
    format!("{} {}: {}", event.action, event.verdict, event.reason)
}

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;

    fn event(interface: &str, byte: u8) -> PacketEvent {
        PacketEvent {
            time_unix_ns: 1_700_000_000_123_456_789,
            action: "drop".into(),
            verdict: "blocked".into(),
            reason: "The source is on the block list.".into(),
            interface: interface.into(),
            length: 1514,
            frame: vec![byte; 61],
            ..Default::default()
        }
    }

    #[test]
    fn each_interface_is_described_once_and_each_packet_explained() {
        let mut file = Vec::new();
        let mut capture = Capture::new(&mut file, 64).unwrap();
        for event in [event("eth0", 1), event("eth1", 2), event("eth0", 3)] {
            capture.add(&event).unwrap();
        }
        let mut reader = PcapNgReader::new(&file[..]).unwrap();
        let mut packets = Vec::new();
        let mut names = Vec::new();
        while let Some(block) = reader.next_block() {
            match block.unwrap() {
                Block::InterfaceDescription(interface) => {
                    assert_eq!(interface.linktype, DataLink::ETHERNET);
                    names.push(format!("{:?}", interface.options[0]));
                }
                Block::EnhancedPacket(packet) => {
                    assert_eq!(packet.timestamp.as_nanos(), 1_700_000_000_123_456_789);
                    assert_eq!((packet.original_len, packet.data.len()), (1514, 61));
                    let comment = format!("{:?}", packet.options);
                    assert!(comment.contains("drop blocked: The source is on the block list."));
                    packets.push((packet.interface_id, packet.data[0]));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(packets, [(0, 1), (1, 2), (0, 3)]);
        assert_eq!(names.len(), 2, "{names:?}");
    }
}
