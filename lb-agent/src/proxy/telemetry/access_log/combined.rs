//! Combined Log Format, as Apache and nginx write it.

use std::io::Write as _;

use crate::domain::http::exchange::Exchange;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Appends `client - - [time] "request" status bytes "referer" "agent"`.
pub(super) fn write(line: &mut Vec<u8>, exchange: &Exchange) {
    put(
        line,
        format_args!("{} - - [", exchange.client.ip().to_canonical()),
    );
    // `2026-11-29T06:32:33Z`
    let time = humantime::format_rfc3339_seconds(exchange.began).to_string();
    let month = time[5..7]
        .parse()
        .ok()
        .and_then(|month: usize| MONTHS.get(month - 1));
    put(
        line,
        format_args!(
            "{}/{}/{}:{} +0000] \"",
            &time[8..10],
            month.unwrap_or(&"-"),
            &time[..4],
            &time[11..19]
        ),
    );
    if exchange.method.is_empty() {
        line.push(b'-');
    } else {
        escape(line, &exchange.method);
        line.push(b' ');
        escape(line, &exchange.target);
        put(line, format_args!(" {}", exchange.version));
    }
    put(
        line,
        format_args!("\" {:03} {} \"", exchange.status, exchange.sent),
    );
    escape(line, exchange.referer.as_deref().unwrap_or("-"));
    line.extend_from_slice(b"\" \"");
    escape(line, exchange.user_agent.as_deref().unwrap_or("-"));
    line.push(b'"');
}

fn put(line: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    line.write_fmt(text).expect("a vector takes everything");
}

/// As nginx does: quotes, backslashes and all but printable ASCII become `\xHH`, so that no
/// client ends a field or a line, or speaks to a terminal.
fn escape(line: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if !matches!(byte, b'"' | b'\\') => line.push(byte),
            _ => put(line, format_args!("\\x{byte:02X}")),
        }
    }
}
