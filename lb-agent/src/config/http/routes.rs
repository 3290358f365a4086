//! The key `routes` of a service.

use std::sync::Arc;

use http::Method;
use regex::bytes::Regex;
use toml::{Spanned, de::DeValue};

use super::{
    super::{
        locate::Report,
        scalar,
        table::{Table, Value, elements, kind, read_at},
    },
    STATUS, header, numbers, timeouts,
};
use crate::domain::{
    http::routing::whole,
    route::{Destination, Field, Fits, Route, Text},
};

pub(super) fn routes(table: &mut Table, report: &mut Report) -> Vec<Arc<Route>> {
    let Some(value) = table.value("routes") else {
        return Vec::new();
    };
    let DeValue::Array(array) = value.get_ref() else {
        let reason = format!(
            "must be a list of tables, as in [{{ path_prefix = \"/api\", subset = \"v2\" }}], not {}",
            kind(value.get_ref())
        );
        report.add(&value.span(), reason);
        return Vec::new();
    };
    array
        .iter()
        .filter_map(|value| Some(Arc::new(route(Table::of(value, report)?, report))))
        .collect()
}

fn route(mut table: Table, report: &mut Report) -> Route {
    let fits = Fits {
        path: path(&mut table, report),
        headers: fields(&mut table, "headers", report),
        query: fields(&mut table, "query", report),
        methods: table
            .value("methods")
            .and_then(|value| elements(value, report, method))
            .unwrap_or_default()
            .into_iter()
            .map(Spanned::into_inner)
            .collect(),
    };
    let rewrite = table.locate("rewrite", report, rooted);
    if let Some(rewrite) = &rewrite
        && !matches!(fits.path, Some(Text::Exact(_) | Text::Prefix(_)))
    {
        let reason =
            "`rewrite` stands for what fitted of the path, so it needs `path` or `path_prefix`";
        report.add(&rewrite.span(), reason);
    }
    let on_status: Vec<u16> = numbers(&mut table, "retry_on", STATUS, report)
        .unwrap_or_default()
        .into_iter()
        .collect();
    let times = timeouts::of_route(&mut table, report);
    let to = Destination {
        service: table.get("service", report, scalar::name),
        subset: table.get("subset", report, scalar::name),
        prefix_rewrite: rewrite.map(Spanned::into_inner),
        timeout: times.total,
        connect: times.connect,
        per_try: times.per_try,
        idle: times.idle,
        retries: table.get("retries", report, |value| scalar::integer(value, 0..=10)),
        // What never reached a backend is tried again whatever else is: here statuses are named only.
        retry_on_connect_failure: !on_status.is_empty(),
        retry_on_status: on_status,
        ignored: Vec::new(),
    };
    table.close(report);
    Route { fits, to }
}

fn path(table: &mut Table, report: &mut Report) -> Option<Text> {
    let exact = table.locate("path", report, rooted);
    let prefix = table.locate("path_prefix", report, rooted);
    let regex = table.locate("path_regex", report, expression);
    let mut given = [
        exact.map(|text| (text.span(), Text::Exact(text.into_inner()))),
        prefix.map(|text| (text.span(), Text::Prefix(text.into_inner()))),
        regex.map(|text| (text.span(), Text::Regex(text.into_inner()))),
    ]
    .into_iter()
    .flatten();
    let (_, first) = given.next()?;
    if let Some((span, _)) = given.next() {
        let reason = "of `path`, `path_prefix` and `path_regex` only one can be given";
        report.add(&span, reason);
    }
    Some(first)
}

/// The path of a request, or how it begins.
pub(super) fn rooted(value: &DeValue) -> Result<String, String> {
    let text = scalar::string(value)?;
    let fits = |c: char| c.is_ascii_graphic() && c != '#' && c != '?';
    match text.starts_with('/') && text.chars().all(fits) {
        true => Ok(text),
        false => Err(format!(
            "`{text}` is no path; it must begin with / and have no blanks, `?`, `#` or letters outside \
             ASCII"
        )),
    }
}

fn expression(value: &DeValue) -> Result<String, String> {
    let text = scalar::string(value)?;
    // By itself, too: `a)|(b` is none, though something else is made of it between parentheses.
    match Regex::new(&text).and_then(|_| whole(&text)) {
        Ok(_) => Ok(text),
        Err(error) => {
            // The last line says what, those before it show where.
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default();
            let reason = reason.trim_start_matches("error: ");
            Err(format!("the expression `{text}` cannot be used: {reason}"))
        }
    }
}

fn method(value: &DeValue) -> Result<String, String> {
    let text = scalar::string(value)?;
    match Method::from_bytes(text.as_bytes()) {
        Ok(_) => Ok(text.to_ascii_uppercase()),
        Err(_) => Err(format!("`{text}` is no method, as GET and POST are")),
    }
}

/// Conditions by name.
fn fields(table: &mut Table, key: &'static str, report: &mut Report) -> Vec<Field> {
    let Some(table) = table.table(key, report) else {
        return Vec::new();
    };
    let mut fields = Vec::new();
    for (name, span, value) in table.entries() {
        if key == "headers"
            && let Err(reason) = header(&DeValue::String(name.into()))
        {
            report.add(&span, reason);
        }
        if let Some((text, invert)) = condition(value, report) {
            fields.push(Field {
                name: name.to_owned(),
                text,
                invert,
            });
        }
    }
    fields
}

/// Makes a condition of a text.
type Make = fn(String) -> Text;

/// A text that it must be, `true` or `false` for whether it must be there, or a table.
fn condition(value: &Value, report: &mut Report) -> Option<(Text, bool)> {
    match value.get_ref() {
        DeValue::String(text) => return Some((Text::Exact(text.to_string()), false)),
        DeValue::Boolean(present) => return Some((Text::Present, !present)),
        DeValue::Table(_) => {}
        other => {
            let reason = format!(
                "must be a text, true or false for whether it is there, or a table such as {{ prefix = \
                 \"a\" }}, not {}",
                kind(other)
            );
            report.add(&value.span(), reason);
            return None;
        }
    }
    let mut table = Table::of(value, report)?;
    let keys: [(&str, Make); 4] = [
        ("exact", Text::Exact),
        ("prefix", Text::Prefix),
        ("suffix", Text::Suffix),
        ("regex", Text::Regex),
    ];
    let mut given = Vec::new();
    for (key, make) in keys {
        let Some(value) = table.value(key) else {
            continue;
        };
        let read = if key == "regex" {
            expression
        } else {
            scalar::string
        };
        let text = read_at(value, report, read);
        given.push((value.span(), text.map(|text| make(text.into_inner()))));
    }
    let invert = table.get("invert", report, scalar::boolean);
    let span = table.span.clone();
    table.close(report);
    if let Some((span, _)) = given.get(1) {
        let reason = "of `exact`, `prefix`, `suffix` and `regex` only one can be given";
        report.add(span, reason);
    }
    let Some((_, text)) = given.into_iter().next() else {
        report.add(
            &span,
            "names no condition; add exact = \"TEXT\" or the like",
        );
        return None;
    };
    Some((text?, invert.unwrap_or_default()))
}
