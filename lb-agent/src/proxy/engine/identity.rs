//! Which ids a request carries through the system.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::http::exchange::SpanContext;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longer ids are not taken over.
const LONGEST: usize = 128;

/// The id of a request: that of a trusted peer, else a new one, a UUID of version 7 (RFC 9562,
/// section 5.7). It is in the headers from now on.
pub(super) fn request_id(
    headers: &mut HeaderMap,
    trusted: bool,
    mut random: impl FnMut() -> u64,
) -> HeaderValue {
    if let Some(given) = headers.get(REQUEST_ID)
        && trusted
        && (1..=LONGEST).contains(&given.len())
    {
        return given.clone();
    }
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let id = uuid(now.as_millis() as u64, random(), random());
    let value = HeaderValue::from_bytes(&id).unwrap_or(HeaderValue::from_static("-"));
    headers.insert(REQUEST_ID, value.clone());
    value
}

fn uuid(milliseconds: u64, first: u64, second: u64) -> [u8; 36] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let high = milliseconds << 16 | 0x7000 | first & 0x0fff;
    let low = 1 << 63 | second >> 2;
    let bits = u128::from(high) << 64 | u128::from(low);
    let mut text = [b'-'; 36];
    let mut shift = 128;
    for (place, digit) in text.iter_mut().enumerate() {
        if ![8, 13, 18, 23].contains(&place) {
            shift -= 4;
            *digit = DIGITS[(bits >> shift & 0xf) as usize];
        }
    }
    text
}

/// A new trace, which nobody records.
pub(super) fn trace(mut random: impl FnMut() -> u64) -> (SpanContext, Option<u64>) {
    let trace = u128::from(random()) << 64 | u128::from(random() | 1);
    let span = random() | 1;
    let sampled = false;
    (
        SpanContext {
            trace,
            span,
            sampled,
        },
        None,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let text = uuid(0x0123_4567_89ab, u64::MAX, u64::MAX);
        let text = std::str::from_utf8(&text).unwrap();
        assert_eq!(text, "01234567-89ab-7fff-bfff-ffffffffffff");
        for (given, trusted, kept) in [
            (Some("a"), true, true),
            (Some("a"), false, false),
            (Some(""), true, false),
            (None, true, false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(given) = given {
                headers.insert(REQUEST_ID, HeaderValue::from_static(given));
            }
            let id = request_id(&mut headers, trusted, || 5);
            assert_eq!(headers[REQUEST_ID], id);
            assert_eq!(given == id.to_str().ok(), kept, "{given:?} {trusted}");
        }
    }
}
