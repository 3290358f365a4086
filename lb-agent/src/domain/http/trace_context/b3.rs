//! b3, as Zipkin's tracers propagate it: `b3` alone or several `X-B3-…`
//! (github.com/openzipkin/b3-propagation).

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Brought, hex, only};
use crate::domain::http::exchange::SpanContext;

const SINGLE: HeaderName = HeaderName::from_static("b3");
const TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// Whether a header is one of b3's.
pub(super) fn is_one(name: &str) -> bool {
    name == "b3" || name.starts_with("x-b3-")
}

/// What the headers say; the single one is preferred. `None`: nothing, or nothing well-formed.
pub(super) fn read(headers: &HeaderMap) -> Option<Brought> {
    if headers.contains_key(SINGLE) {
        return single(only(headers, &SINGLE)?.to_str().ok()?);
    }
    let sampled = match (text(headers, &FLAGS), text(headers, &SAMPLED)) {
        (Some("1"), _) => Some(true),
        (_, Some(decision)) => Some(decided(decision)?),
        (_, None) => None,
    };
    let ids = match (headers.contains_key(TRACE), headers.contains_key(SPAN)) {
        (false, false) => None,
        _ => Some(ids(text(headers, &TRACE)?, text(headers, &SPAN)?)?),
    };
    (ids.is_some() || sampled.is_some()).then_some(Brought { ids, sampled })
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    only(headers, name)?.to_str().ok()
}

/// `{trace}-{span}[-{decision}[-{parent}]]`, or the decision alone.
fn single(text: &str) -> Option<Brought> {
    let mut parts = text.split('-');
    let (first, second) = (parts.next()?, parts.next());
    let Some(second) = second else {
        return Some(Brought {
            ids: None,
            sampled: Some(decided(first)?),
        });
    };
    let ids = ids(first, second)?;
    let sampled = parts.next().map(|decision| decided(decision).ok_or(()));
    let parent = parts.next().is_none_or(|parent| id(parent, 16).is_some());
    (parent && parts.next().is_none()).then_some(Brought {
        ids: Some(ids),
        sampled: sampled.transpose().ok()?,
    })
}

fn decided(decision: &str) -> Option<bool> {
    match decision {
        "1" | "d" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

/// Trace (64 or 128 bits) and span.
fn ids(trace: &str, span: &str) -> Option<(u128, u64)> {
    let trace = id(trace, 32).or_else(|| id(trace, 16))?;
    Some((trace, id(span, 16)? as u64))
}

/// Not 0, of exactly so many digits. Tracers write small ones, and some read both.
fn id(text: &str, digits: usize) -> Option<u128> {
    let sane = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let value = sane.then(|| u128::from_str_radix(text, 16).ok())??;
    (value != 0).then_some(value)
}

/// Removes all of it.
pub(super) fn remove(headers: &mut HeaderMap) {
    for name in [SINGLE, TRACE, SPAN, PARENT, SAMPLED, FLAGS] {
        headers.remove(name);
    }
}

/// Writes the caller anew in the form, or forms, that are there.
pub(super) fn rewrite(headers: &mut HeaderMap, context: SpanContext) {
    if !headers.keys().any(|name| is_one(name.as_str())) {
        return;
    }
    let several = [TRACE, SAMPLED, FLAGS]
        .iter()
        .any(|name| headers.contains_key(name));
    let alone = headers.contains_key(SINGLE);
    if !several && !alone {
        return;
    }
    remove(headers);
    let mut text = *b"00000000000000000000000000000000-0000000000000000-0";
    hex(&mut text[..32], context.trace);
    hex(&mut text[33..49], context.span.into());
    hex(&mut text[50..], context.sampled.into());
    let value = |text: &[u8]| HeaderValue::from_bytes(text).expect("hex digits and dashes");
    if alone {
        headers.insert(SINGLE, value(&text));
    }
    if several {
        headers.insert(TRACE, value(&text[..32]));
        headers.insert(SPAN, value(&text[33..49]));
        headers.insert(SAMPLED, value(&text[50..]));
    }
}
