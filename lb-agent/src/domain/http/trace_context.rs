//! Which trace a request belongs to: W3C Trace Context (Recommendation of 2021-11-23), else b3.
//!
//! A malformed `traceparent` begins a new trace, as the Recommendation demands; so does none. b3
//! (single and multiple headers) counts where there is no `traceparent` at all, and is written
//! again where it came, so that backends that know only b3 stay within the trace.

mod b3;
mod tracestate;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::exchange::SpanContext;

/// Trace, calling span and flags.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What tracing systems add of their own.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const DIGITS: &[u8; 16] = b"0123456789abcdef";
/// Bytes of a `traceparent` of version 00.
const LEN: usize = 55;

/// Part of the traces begun here that are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampling(u64);

impl Sampling {
    /// `ratio` from 0 (none) to 1 (all).
    pub fn new(ratio: f64) -> Self {
        // Saturates: 1 is all, what is less than 0 or no number is none.
        Self((ratio * (1_u64 << 63) as f64) as u64)
    }

    /// By the trace's id alone, so that all who decide by the same ratio decide alike.
    pub fn takes(self, trace: u128) -> bool {
        (trace as u64 >> 1) < self.0
    }
}

/// What a request brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Brought {
    /// Trace and calling span.
    ids: Option<(u128, u64)>,
    /// Whether the caller records it; `None`: it left that open.
    sampled: Option<bool>,
}

/// The trace that a request belongs to without a span of the proxy's, [`SpanContext::NONE`] if to none,
/// and the span that it came with. The headers are the backend's as they are.
pub fn brought(headers: &HeaderMap) -> (SpanContext, Option<u64>) {
    let Some(Brought { ids, sampled }) = read(headers) else {
        return (SpanContext::NONE, None);
    };
    let (trace, parent) = ids.unzip();
    let context = SpanContext {
        trace: trace.unwrap_or_default(),
        span: 0,
        sampled: sampled.unwrap_or_default(),
    };
    (context, parent)
}

fn read(headers: &HeaderMap) -> Option<Brought> {
    match headers.contains_key(TRACEPARENT) {
        true => only(headers, &TRACEPARENT).and_then(parse),
        false => b3::read(headers),
    }
}

/// The proxy's own span for a request, and the one that the request came with. Headers that
/// belong to a trace that is not continued are removed.
pub fn begin(
    headers: &mut HeaderMap,
    sampling: Sampling,
    mut random: impl FnMut() -> u64,
) -> (SpanContext, Option<u64>) {
    let w3c = headers.contains_key(TRACEPARENT);
    let brought = read(headers);
    // Without a valid traceparent there is nobody whose state this could be.
    if !w3c || brought.is_none() || !tracestate::is_valid(headers) {
        headers.remove(TRACESTATE);
    }
    if brought.is_none() {
        headers.remove(TRACEPARENT);
        b3::remove(headers);
    }
    let ids = brought.and_then(|brought| brought.ids);
    let trace = ids.map_or_else(
        || nonzero(&mut || u128::from(random()) << 64 | u128::from(random())),
        |(trace, _)| trace,
    );
    let span = span(random);
    let sampled = brought
        .and_then(|brought| brought.sampled)
        .unwrap_or_else(|| sampling.takes(trace));
    let context = SpanContext {
        trace,
        span,
        sampled,
    };
    (context, ids.map(|(_, parent)| parent))
}

/// A new span of a trace.
pub fn span(mut random: impl FnMut() -> u64) -> u64 {
    nonzero(&mut random)
}

/// Draws until it is not 0; a source that gives nothing else gets 1.
fn nonzero<N: PartialEq + From<u8>>(random: &mut impl FnMut() -> N) -> N {
    (0..8)
        .map(|_| random())
        .find(|drawn| *drawn != N::from(0))
        .unwrap_or(N::from(1))
}

/// What tracing systems have added of their own, as one value.
pub fn state(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(TRACESTATE).iter();
    let texts: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
    (!texts.is_empty()).then(|| texts.join(","))
}

/// Makes `context` the caller of the request with these headers: its span is that of the try.
pub fn send(headers: &mut HeaderMap, context: SpanContext) {
    let value = HeaderValue::from_bytes(&write(context)).expect("hex digits and dashes");
    headers.insert(TRACEPARENT, value);
    b3::rewrite(headers, context);
}

/// `traceparent` of version 00.
pub fn write(context: SpanContext) -> [u8; LEN] {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    hex(&mut text[3..35], context.trace);
    hex(&mut text[36..52], context.span.into());
    hex(&mut text[53..], context.sampled.into());
    text
}

/// The digits of `value`, as many as fit.
fn hex(text: &mut [u8], mut value: u128) {
    for digit in text.iter_mut().rev() {
        *digit = DIGITS[(value & 0xf) as usize];
        value >>= 4;
    }
}

/// Section 3.2: strict for version 00, and of later versions what they must have in common.
fn parse(value: &HeaderValue) -> Option<Brought> {
    let text = value.as_bytes();
    let (version, trace, parent, flags) = (
        text.get(0..2)?,
        text.get(3..35)?,
        text.get(36..52)?,
        text.get(53..55)?,
    );
    let version = number(version)?;
    let whole = match text.get(LEN) {
        None => true,
        Some(next) => version != 0 && *next == b'-',
    };
    let dashes = [2, 35, 52].iter().all(|at| text[*at] == b'-');
    if version == 0xff || !whole || !dashes {
        return None;
    }
    let ids = (number(trace)?, number(parent)? as u64);
    let flags = number(flags)?;
    (ids.0 != 0 && ids.1 != 0).then_some(Brought {
        ids: Some(ids),
        sampled: Some(flags & 1 == 1),
    })
}

/// A number of small hexadecimal digits, at most 32 of them.
fn number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = DIGITS.iter().position(|known| known == digit)?;
        Some(number << 4 | digit as u128)
    })
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests;
