//! `doctor`: whether this node has what the agent needs, without starting or attaching anything.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    detach::DEFAULT_BPF_DIR,
    failure::Failure,
    output::Printer,
    privilege,
    run::DEFAULT_CONFIG,
    table::{Column, Table},
};
use crate::doctor::{self, Finding, State};

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file to look for; without it the usual one or, if there is none, what every
    /// node needs, with the interface of the default route
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    able: bool,
    findings: Vec<Finding>,
}

pub(super) async fn execute(args: Args, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let usual = || {
        Path::new(DEFAULT_CONFIG)
            .exists()
            .then(|| DEFAULT_CONFIG.into())
    };
    let config = args
        .config
        .or_else(usual)
        .map(|file| crate::config::load(&file).map_err(Failure::Configuration))
        .transpose()?;
    privilege::check()?;
    let bpf_dir = config.as_ref().map(|config| config.node.bpf_dir.clone());
    let bpf_dir = bpf_dir.unwrap_or_else(|| DEFAULT_BPF_DIR.into());
    let findings = doctor::examine(config.as_ref(), &bpf_dir).await;
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
        table.row([state.into(), finding.subject.clone(), finding.found.clone()]);
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
