//! The same facts, told by the commands and read off the page, as lines of words.

use std::collections::BTreeSet;

use lb_tests::{agent::Agent, browser::Browser};
use serde_json::Value;

use crate::scene::reply;

/// What the page shows, each fact as `kind|key|value|…`.
const SHOWN: &str = include_str!("facts.js");

/// What the page shows.
pub(super) fn shown(browser: &mut Browser) -> BTreeSet<String> {
    let facts = browser.evaluate(SHOWN).unwrap();
    let facts = facts.as_array().unwrap().iter();
    facts
        .map(|fact| fact.as_str().unwrap().to_owned())
        .collect()
}

/// What the commands say.
pub(super) fn said(agent: &Agent) -> BTreeSet<String> {
    let mut facts = BTreeSet::new();
    let mut add = |words: &[&str]| facts.insert(words.join("|"));
    let ask = |args: &[&str]| reply(agent, args);
    for service in list(&ask(&["service", "list"])["services"]) {
        let vips: Vec<&str> = list(&service["vips"]).iter().map(text).collect();
        let kind = format!(
            "{} · {}",
            text(&service["protocol"]),
            text(&service["forwarding"])
        );
        let health = match service["panic"] == true {
            true => "panic: all are used".to_owned(),
            false => format!(
                "{} of {} healthy",
                service["backends_healthy"], service["backends"]
            ),
        };
        add(&[
            "service",
            text(&service["name"]),
            &kind,
            &vips.join("  "),
            &health,
        ]);
    }
    for split in list(&ask(&["split", "show"])["services"]) {
        for subset in list(&split["subsets"]) {
            let share = percent(&subset["share_percent"]);
            add(&[
                "subset",
                text(&split["service"]),
                text(&subset["subset"]),
                &share,
            ]);
        }
    }
    for backend in list(&ask(&["backend", "list"])["backends"]) {
        let words = [
            "backend",
            text(&backend["service"]),
            backend["subset"].as_str().unwrap_or("–"),
            text(&backend["address"]),
            text(&backend["health"]),
            text(&backend["disabled_reason"]),
            text(&backend["reason"]),
            &percent(&backend["share_percent"]),
            &grouped(&backend["weight"]),
            &grouped(&backend["counters"]["flows_live"]),
        ];
        add(&words);
    }
    let output = agent.cli(&["-o", "json", "status"]).unwrap();
    let status: Value = serde_json::from_str(&output.stdout).unwrap();
    for verdict in list(&status["verdicts"]) {
        if verdict["action"] == "drop" && verdict["packets"] != 0 {
            add(&[
                "drop",
                text(&verdict["name"]),
                &grouped(&verdict["packets"]),
            ]);
        }
    }
    for problem in list(&status["problems"]) {
        add(&["problem", text(problem)]);
    }
    for block in list(&ask(&["block", "list"])["blocks"]) {
        let rule = &block["rule"];
        let packets = grouped(&block["dropped_packets"]);
        add(&[
            "block",
            text(&rule["prefix"]),
            text(&rule["reason"]),
            &packets,
        ]);
    }
    for change in list(&ask(&["backend", "history"])["changes"]) {
        add(&[
            "change",
            text(&change["service"]),
            text(&change["address"]),
            text(&change["to"]),
        ]);
    }
    facts
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn percent(value: &Value) -> String {
    format!("{:.1}%", value.as_f64().unwrap())
}

/// A number with its thousands apart.
fn grouped(value: &Value) -> String {
    let digits = value.as_u64().unwrap().to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
