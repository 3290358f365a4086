//! Whether a `tracestate` may be passed on: section 3.3 of the Recommendation.

use http::HeaderMap;

use super::TRACESTATE;

/// Members of a list.
const MAX_MEMBERS: usize = 32;

/// Whether all of these headers' `tracestate`, which may come in parts, is well-formed.
pub(super) fn is_valid(headers: &HeaderMap) -> bool {
    let mut keys: Vec<&[u8]> = Vec::new();
    for value in headers.get_all(TRACESTATE) {
        for member in value.as_bytes().split(|byte| *byte == b',') {
            let member = trim(member);
            if member.is_empty() {
                continue;
            }
            let Some(equals) = member.iter().position(|byte| *byte == b'=') else {
                return false;
            };
            let (key, value) = (&member[..equals], &member[equals + 1..]);
            if !is_key(key) || !is_value(value) || keys.contains(&key) || keys.len() == MAX_MEMBERS
            {
                return false;
            }
            keys.push(key);
        }
    }
    true
}

/// Without spaces and tabs around it.
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// `lcalpha …{0,255}`, or `tenant{1,241}@system{1,14}`.
fn is_key(key: &[u8]) -> bool {
    let small = |byte: &u8| byte.is_ascii_lowercase();
    let allowed = |byte: &u8| {
        small(byte) || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'*' | b'/')
    };
    let mut parts = key.split(|byte| *byte == b'@');
    let parts = (parts.next(), parts.next(), parts.next());
    match parts {
        (Some(simple), None, None) => {
            simple.len() <= 256 && simple.first().is_some_and(small) && simple.iter().all(allowed)
        }
        (Some(tenant), Some(system), None) => {
            (1..=241).contains(&tenant.len())
                && (small(&tenant[0]) || tenant[0].is_ascii_digit())
                && tenant.iter().all(allowed)
                && (1..=14).contains(&system.len())
                && small(&system[0])
                && system.iter().all(allowed)
        }
        _ => false,
    }
}

/// 1 to 256 printable characters without `,` and `=`, the last of them no space.
fn is_value(value: &[u8]) -> bool {
    value.len() <= 256
        && value.last().is_some_and(|last| *last != b' ')
        && value
            .iter()
            .all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'='))
}
