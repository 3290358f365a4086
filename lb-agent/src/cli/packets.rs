//! What `trace` and `capture` have in common: which packets are wanted, the stream of them, and
//! how it ended.

use std::time::{Duration, Instant};

use clap::builder::PossibleValuesParser;
use tokio::signal;
use tonic::Streaming;

use super::{
    client::{self, Agent, Unreachable},
    failure::Failure,
    output::{counted, span},
};
use crate::{
    api::proto::{TraceRequest, TraceResponse},
    domain::{
        block::parse_prefix,
        trace::{PacketProtocol, VerdictSet},
    },
};

/// Which packets are wanted.
#[derive(Debug, clap::Args)]
pub(super) struct Filter {
    /// From this address or prefix, as the packet comes in or as it is sent on
    #[arg(long, value_name = "CIDR")]
    src: Option<String>,
    /// To this address or prefix, as the packet comes in or as it is sent on
    #[arg(long, value_name = "CIDR")]
    dst: Option<String>,
    /// With these verdicts, by name as in `lb-agent status`; `drop`, `pass`, `forward` and
    /// `answer` stand for all of their kind
    #[arg(long = "verdict", value_name = "NAME", value_delimiter = ',')]
    verdicts: Vec<String>,
    /// Of this protocol
    #[arg(long, value_name = "PROTOCOL", value_parser = PossibleValuesParser::new(
        PacketProtocol::ALL.map(PacketProtocol::name)
    ))]
    proto: Option<String>,
    /// With this source or destination port
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// At most so many packets a second on each CPU; what is beyond is counted as lost
    #[arg(long, value_name = "N", default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
}

impl Filter {
    /// As the agent is asked, without limits; `verdicts` count where none are given.
    ///
    /// # Errors
    ///
    /// Everything that is wrong.
    pub(super) fn request(self, verdicts: &[&str]) -> Result<TraceRequest, Failure> {
        let mut findings = Vec::new();
        let mut prefix = |text: Option<String>| {
            let prefix = text.map(|text| parse_prefix(&text)).transpose();
            prefix.unwrap_or_else(|error| {
                findings.push(error.to_string());
                None
            })
        };
        let (src, dst) = (prefix(self.src), prefix(self.dst));
        if let Err(error) = VerdictSet::named(self.verdicts.iter().map(String::as_str)) {
            findings.push(error.to_string());
        }
        if !findings.is_empty() {
            return Err(Failure::Invalid(findings));
        }
        Ok(TraceRequest {
            src: src.map(|net| net.to_string()),
            dst: dst.map(|net| net.to_string()),
            verdicts: if self.verdicts.is_empty() {
                verdicts.iter().map(|name| (*name).to_owned()).collect()
            } else {
                self.verdicts
            },
            protocol: self.proto,
            port: self.port.map(u32::from),
            rate: self.rate,
            ..Default::default()
        })
    }
}

/// Packets as they come.
pub(super) struct Packets {
    stream: Streaming<TraceResponse>,
    begun: Instant,
    /// Packets so far.
    pub(super) seen: u64,
    /// Packets that should have come and did not.
    lost: u64,
}

impl Packets {
    /// Begins to watch; packets count from now on.
    ///
    /// # Errors
    ///
    /// The agent refuses, or is not there.
    pub(super) async fn begin(agent: Agent<'_>, request: TraceRequest) -> Result<Self, Failure> {
        let mut client = agent.connect().await?;
        let stream = client::reply(client.trace(request)).await?;
        Ok(Self {
            stream,
            begun: Instant::now(),
            seen: 0,
            lost: 0,
        })
    }

    /// The next packets; `None`: a limit is reached, or Ctrl-C was pressed.
    ///
    /// # Errors
    ///
    /// The agent ended first.
    pub(super) async fn next(&mut self) -> Result<Option<TraceResponse>, Failure> {
        let message = tokio::select! {
            message = self.stream.message() => message,
            _ = signal::ctrl_c() => return Ok(None),
        };
        let message = message.map_err(|status| match status.code() {
            // The agent was killed.
            tonic::Code::Unknown | tonic::Code::Cancelled => Unreachable::broken(&status).into(),
            _ => Failure::from(status),
        })?;
        if let Some(message) = &message {
            self.seen += message.events.len() as u64;
            self.lost = message.lost;
        }
        Ok(message)
    }

    /// How it went, in a sentence.
    pub(super) fn summary(&self) -> String {
        let took = self.begun.elapsed();
        // From a second on without fractions.
        let took = span(took.max(Duration::from_millis(1)));
        let lost = match self.lost {
            0 => "none lost".to_owned(),
            lost => format!("{lost} more were lost, for there were too many at a time"),
        };
        format!("{} in {took}, {lost}", counted(self.seen, "packet"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(src: &str, dst: &str, verdicts: &[&str]) -> Filter {
        Filter {
            src: Some(src.into()),
            dst: Some(dst.into()),
            verdicts: verdicts.iter().map(|name| (*name).to_owned()).collect(),
            proto: None,
            port: Some(80),
            rate: 7,
        }
    }

    #[test]
    fn faults_are_told_together() {
        let failure = filter("10.0.0.300", "::/129", &["blocked", "bloked"])
            .request(&[])
            .unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        let text = failure.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].contains("`10.0.0.300`") && lines[1].contains("`::/129`"));
        assert!(lines[2].contains("no verdict `bloked`; there are drop (blocked, "));
    }

    #[test]
    fn verdicts_have_a_default() {
        let request = filter("10.0.0.1", "10.0.0.9/24", &[]).request(&["drop"]);
        let request = request.unwrap();
        assert_eq!(request.verdicts, ["drop"]);
        assert_eq!(request.src.as_deref(), Some("10.0.0.1/32"));
        assert_eq!(request.dst.as_deref(), Some("10.0.0.0/24"));
        let request = filter("10.0.0.1", "10.0.0.1", &["pass"]).request(&["drop"]);
        assert_eq!(request.unwrap().verdicts, ["pass"]);
    }
}
