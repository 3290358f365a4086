//! `metrics.md`: every family of a scrape that has something of everything, and the verdicts.

use std::{collections::BTreeMap, fmt::Write as _};

use lb_common::verdict::Verdict;

use super::{cell, settle};

const HEAD: &str = "\
# Metrics

What `/metrics` of the agent serves (by default at `http://127.0.0.1:9180/metrics`), in the text format of Prometheus.
Series of a service, a backend or a rule exist as long as it does. A histogram has the labels shown, and `le`.

| metric | type | labels | meaning |
| --- | --- | --- | --- |
";

const VERDICTS: &str = "
## Verdicts

Every packet ends in exactly one: the labels `action` and `reason` of `lb_packets_total` and `lb_packet_bytes_total`. What
to do about a drop stands in [troubleshooting](../troubleshooting.md#drops-by-reason).

| action | reason | meaning |
| --- | --- | --- |
";

#[tokio::test]
async fn page() {
    let mut page = HEAD.to_owned();
    for (name, Family { kind, help, labels }) in families(&crate::metrics::tests::full_page().await)
    {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = labels.join(", ");
        writeln!(page, "| `{name}` | {kind} | {labels} | {} |", cell(help)).unwrap();
    }
    page.push_str(VERDICTS);
    let mut verdicts: Vec<&Verdict> = Verdict::ALL.iter().collect();
    verdicts.sort_by_key(|verdict| (verdict.action().name(), verdict.name()));
    for verdict in verdicts {
        let (action, reason) = (verdict.action().name(), verdict.name());
        writeln!(
            page,
            "| `{action}` | `{reason}` | {} |",
            cell(verdict.help())
        )
        .unwrap();
    }
    settle("metrics.md", &page);
}

struct Family<'a> {
    kind: &'a str,
    help: &'a str,
    /// In the order they are written, that of the first sample.
    labels: Vec<&'a str>,
}

fn families(text: &str) -> BTreeMap<&str, Family<'_>> {
    let mut families = BTreeMap::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((name, help)) = line
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.split_once(' '))
        else {
            continue;
        };
        let kind = lines
            .next()
            .and_then(|line| line.rsplit_once(' '))
            .unwrap()
            .1;
        let labels = labels(lines.peek().unwrap());
        families.insert(name, Family { kind, help, labels });
    }
    families
}

fn labels(sample: &str) -> Vec<&str> {
    let Some((_, rest)) = sample.split_once('{') else {
        return Vec::new();
    };
    // The values of the fixture's first samples hold no `="`.
    let parts = rest
        .split("=\"")
        .map(|part| part.rsplit([',', '{']).next().unwrap());
    let mut names: Vec<&str> = parts.collect();
    names.pop();
    names.retain(|name| *name != "le");
    names
}

#[test]
fn labels_of_samples() {
    assert_eq!(labels("a 1"), [""; 0]);
    assert_eq!(labels("a{b=\"1,2\",c=\"[::]:80\"} 1"), ["b", "c"]);
    assert_eq!(labels("a_bucket{b=\"\",le=\"0.1\"} 1"), ["b"]);
}
