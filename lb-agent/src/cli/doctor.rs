//! `doctor`: whether this node has what the agent needs, without starting or attaching anything.

use std::path::PathBuf;

use serde::Serialize;

use super::{
    detach::DEFAULT_BPF_DIR,
    failure::Failure,
    output::Printer,
    privilege,
    table::{Column, Table},
};
use crate::doctor::{self, Finding, State};

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file, for the directory of the pins (without it, the usual one) and `[docker]`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    able: bool,
    findings: Vec<Finding>,
}

pub(super) async fn execute(args: Args, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let config = args
        .config
        .map(|file| crate::config::load(&file).map_err(Failure::Configuration))
        .transpose()?;
    privilege::check()?;
    let (bpf_dir, docker) = match config {
        Some(config) => (config.node.bpf_dir, config.docker),
        None => (DEFAULT_BPF_DIR.into(), None),
    };
    let findings = doctor::examine(&bpf_dir, docker.map(|docker| docker.socket)).await;
    let complaint = doctor::complaint(&findings);
    let report = Report {
        able: complaint.is_none(),
        findings,
    };
    printer.print(&report, text)?;
    complaint.map_or(Ok(()), |sentence| Err(Failure::Refused(sentence)))
}

fn text(report: &Report) -> String {
    let mut table = Table::new(&[
        Column::Words("STATE"),
        Column::Words("SUBJECT"),
        Column::Words("FOUND"),
    ]);
    let mut mends = String::new();
    for finding in &report.findings {
        let state = match finding.state {
            State::Fine => "fine",
            State::Advice => "advice",
            State::Missing => "missing",
        };
        table.row([state.into(), finding.subject.into(), finding.found.clone()]);
        if let Some(mend) = &finding.mend {
            mends.push_str(&format!("{}: {mend}\n", finding.subject));
        }
    }
    let table = table.render();
    if mends.is_empty() {
        return table;
    }
    format!("{table}\nTo mend:\n{mends}")
}
