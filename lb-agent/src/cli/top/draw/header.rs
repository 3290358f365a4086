//! The agent as a whole: one line where room is short, otherwise a few.

use std::time::Duration;

use ratatui::{
    layout::Rect,
    text::{Line, Span},
};

use super::{
    super::{
        model::{Model, Stale},
        picture::Node,
        rate::{Course, shown},
        sheet::Tone,
    },
    MEDIUM, Setting, TALL,
};
use crate::cli::output::{counted, one_line, percent, span};

pub(super) fn lines<'a>(
    model: &Model,
    setting: &Setting,
    now: Duration,
    area: Rect,
) -> Vec<Line<'a>> {
    let node = &model.picture().node;
    let stale = model.stale(now);
    if area.height < MEDIUM {
        let mut spans = vec![state(model, stale.as_ref(), setting)];
        let rates = format!(
            " {} pkt/s  {} new/s  {} drop/s",
            shown(node.packets_per_second),
            shown(node.new_flows_per_second),
            shown(node.drops_per_second)
        );
        spans.push(Span::raw(rates));
        return vec![Line::from(spans)];
    }
    let mut lines = vec![
        identity(model, stale.as_ref(), setting),
        facts(node, setting),
        courses(model, usize::from(area.width), setting),
    ];
    let problems = if area.height < TALL { 1 } else { 3 };
    for problem in node.problems.iter().take(problems) {
        let text = format!(" ✗ {}", one_line(problem));
        lines.push(Line::styled(text, setting.theme.tone(Tone::Bad)));
    }
    if let Some(Stale { why: Some(why), .. }) = stale {
        let text = format!(" ✗ {}", one_line(&why));
        lines.push(Line::styled(text, setting.theme.tone(Tone::Bad)));
    }
    lines
}

fn identity<'a>(model: &Model, stale: Option<&Stale>, setting: &Setting) -> Line<'a> {
    let node = &model.picture().node;
    let uptime = span(Duration::from_secs(node.uptime_ms / 1000));
    Line::from(vec![
        Span::styled(
            format!(" lb-agent {}", node.version),
            setting.theme.strong(),
        ),
        Span::raw(format!(
            " on {}, up {uptime}, state {}  ",
            setting.host, node.state_version
        )),
        state(model, stale, setting),
    ])
}

/// One word on how things are, the gravest.
fn state<'a>(model: &Model, stale: Option<&Stale>, setting: &Setting) -> Span<'a> {
    let node = &model.picture().node;
    let theme = &setting.theme;
    if let Some(stale) = stale {
        let age = span(Duration::from_secs(stale.age.as_secs()));
        let doing = match stale.why {
            Some(_) => "trying again",
            None => "no answer",
        };
        return Span::styled(format!(" STALE {age}, {doing} "), theme.alarm());
    }
    if model.paused {
        return Span::styled(" PAUSED ", theme.selected(true));
    }
    if !node.problems.is_empty() {
        let count = counted(node.problems.len() as u64, "problem");
        return Span::styled(format!("✗ {count}"), theme.tone(Tone::Bad));
    }
    if node.drained {
        return Span::styled("DRAINED", theme.tone(Tone::Warn));
    }
    Span::styled("● healthy", theme.tone(Tone::Good))
}

fn facts<'a>(node: &Node, setting: &Setting) -> Line<'a> {
    let theme = &setting.theme;
    let of = |healthy, all| match healthy == all {
        true => Tone::Plain,
        false => Tone::Warn,
    };
    let (consul, tone) = consul(node);
    let mut parts = vec![
        (format!("consul {consul}"), tone),
        (
            format!("services {}/{}", node.services_healthy, node.services),
            of(node.services_healthy, node.services),
        ),
        (
            format!("backends {}/{}", node.backends_healthy, node.backends),
            of(node.backends_healthy, node.backends),
        ),
        (
            format!(
                "flows {} ({})",
                node.flows,
                percent(node.flow_table_percent)
            ),
            match node.flow_table_percent {
                full if full >= 80.0 => Tone::Bad,
                full if full >= 50.0 => Tone::Warn,
                _ => Tone::Plain,
            },
        ),
    ];
    if node.drained {
        parts.push(("node drained".into(), Tone::Warn));
    }
    let spans = parts.into_iter().flat_map(|(text, tone)| {
        [
            Span::raw(" "),
            Span::styled(text, theme.tone(tone)),
            Span::raw(" "),
        ]
    });
    Line::from(spans.collect::<Vec<_>>())
}

/// How Consul and the agent stand, in short.
fn consul(node: &Node) -> (String, Tone) {
    let Some(consul) = &node.consul else {
        return ("not configured".into(), Tone::Faint);
    };
    let age = |ms: u64| span(Duration::from_secs(ms / 1000));
    match (consul.failing, consul.watches, consul.oldest_answer_ms) {
        (0, 0, _) => ("nothing watched".into(), Tone::Plain),
        (0, _, Some(ms)) => (format!("in sync, heard {} ago", age(ms)), Tone::Good),
        (0, _, None) => ("not heard yet".into(), Tone::Warn),
        (failing, all, _) => (format!("{failing} of {all} watches fail"), Tone::Bad),
    }
}

/// The rates with their courses, beside each other.
fn courses<'a>(model: &Model, width: usize, setting: &Setting) -> Line<'a> {
    let node = &model.picture().node;
    let each = width / 3;
    let rates: [(&str, Option<f64>, &Course, Tone); 3] = [
        (
            "packets/s",
            node.packets_per_second,
            &model.courses.packets,
            Tone::Good,
        ),
        (
            "new flows/s",
            node.new_flows_per_second,
            &model.courses.new_flows,
            Tone::Good,
        ),
        (
            "drops/s",
            node.drops_per_second,
            &model.courses.drops,
            Tone::Bad,
        ),
    ];
    let spans = rates.into_iter().flat_map(|(name, rate, course, tone)| {
        let label = format!(" {name} {:>5} ", shown(rate));
        let room = each.saturating_sub(label.chars().count() + 1);
        let line = course.sparkline(room);
        [
            Span::raw(label),
            Span::styled(format!("{line:<room$} "), setting.theme.tone(tone)),
        ]
    });
    Line::from(spans.collect::<Vec<_>>())
}
