//! Each reader of headers against values made by chance of good ones: nothing panics, nothing is
//! accepted that a second reading of its grammar refuses, and what is written can be read again.

mod several;

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header::HOST};
use rand::Rng as _;
use regex::bytes::Regex;

use super::{
    forwarded::{self, Hop},
    head, hop, plain_path, request_id,
    texts::Texts,
    trace_context::{self, Sampling, TRACEPARENT, TRACESTATE},
};

/// Values of each test.
const COUNT: usize = 10_000;

/// Values made of `good` ones: pieces put together, bytes replaced, doubled and left out.
fn mutated(good: &[&str], count: usize) -> impl Iterator<Item = HeaderValue> {
    const ODD: &[u8] = b"-,;:=\"[]@*/ \t.0aFgz%\\\x80\xff";
    let mut random = crate::domain::chance::of_test(good.len() as u64);
    let good: Vec<Vec<u8>> = good.iter().map(|text| text.as_bytes().to_vec()).collect();
    let values = std::iter::repeat_with(move || {
        let mut bytes = good[random.random_range(0..good.len())].clone();
        for _ in 0..random.random_range(0..4) {
            let at = random.random_range(0..=bytes.len());
            match random.random_range(0..5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, ODD[random.random_range(0..ODD.len())]),
                2 if at < bytes.len() => bytes[at] = ODD[random.random_range(0..ODD.len())],
                3 if at < bytes.len() => drop(bytes.remove(at)),
                _ => {
                    let other = &good[random.random_range(0..good.len())];
                    bytes.extend(&other[random.random_range(0..=other.len())..]);
                }
            }
        }
        HeaderValue::from_bytes(bytes.trim_ascii()).ok()
    });
    values.flatten().take(count)
}

fn regex(text: &str) -> Regex {
    Regex::new(&format!("(?-u)^(?:{text})$")).unwrap()
}

#[test]
fn traceparent() {
    let good = [
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000001-0000000000000001-00",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
    ];
    let grammar = regex(
        "(?:00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2})\
         |(?:[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?)",
    );
    let mut continued = 0;
    for value in mutated(&good, COUNT) {
        let text = value.as_bytes();
        let zero = |from: usize, to: usize| text[from..to].iter().all(|digit| *digit == b'0');
        let fits = grammar.is_match(text)
            && (!text.starts_with(b"00") || text.len() == 55)
            && !text.starts_with(b"ff")
            && !zero(3, 35)
            && !zero(36, 52);
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, value.clone());
        let (own, parent) = trace_context::begin(&mut headers, Sampling::new(0.5), || 7);
        assert_eq!(parent.is_some(), fits, "{value:?}");
        assert!(own.trace != 0 && own.span != 0);
        continued += usize::from(fits);
        // What goes on is read as it was meant.
        trace_context::send(&mut headers, own);
        let (next, parent) = trace_context::begin(&mut headers, Sampling::new(0.5), || 9);
        assert_eq!((next.trace, parent), (own.trace, Some(own.span)));
        assert_eq!(next.sampled, own.sampled);
    }
    assert!((COUNT / 10..COUNT).contains(&continued), "{continued}");
}

#[test]
fn b3() {
    let good = [
        "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90",
        "64fe8b2a57d3eff7-E457B5A2E4D86BD1-0",
        "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1",
        "d",
        "0",
    ];
    let grammar = regex(
        "(?i:(?:[0-9a-f]{16}){1,2}-[0-9a-f]{16})(?:-(?:[01d]|true|false)(?:-(?i:[0-9a-f]{16}))?)?",
    );
    let nothing = regex("(?:0{16}){1,2}-.*|.*-0{16}(?:-[^-]*)?|[^-]*-[^-]*-[^-]*-0{16}");
    let name = HeaderName::from_static("b3");
    let mut continued = 0;
    for value in mutated(&good, COUNT) {
        let mut headers = HeaderMap::new();
        headers.insert(&name, value.clone());
        let (own, parent) = trace_context::begin(&mut headers, Sampling::default(), || 7);
        let text = value.as_bytes();
        let fits = grammar.is_match(text) && !nothing.is_match(text);
        assert_eq!(parent.is_some(), fits, "{value:?}");
        continued += usize::from(fits);
        let kept = headers.contains_key(&name);
        trace_context::send(&mut headers, own);
        assert_eq!(headers.contains_key(&name), kept, "{value:?}");
        headers.remove(TRACEPARENT);
        if kept {
            let (next, parent) = trace_context::begin(&mut headers, Sampling::default(), || 9);
            assert_eq!((next.trace, parent), (own.trace, Some(own.span)));
            assert_eq!(next.sampled, own.sampled);
        }
    }
    assert!((COUNT / 10..COUNT).contains(&continued), "{continued}");
}

#[test]
fn tracestate() {
    let good = [
        "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
        "a=1, b=2 ,\tc = 3",
        "0tenant@system=v,x*/_-=~!",
        ",,a=1,",
    ];
    let member = regex(
        "(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})\
         =[ -+<>-~\\--;]{0,255}[!-+<>-~\\--;]",
    );
    let mut kept = 0;
    for value in mutated(&good, COUNT) {
        let mut headers = HeaderMap::new();
        let traceparent = trace_context::write(super::exchange::SpanContext {
            trace: 1,
            span: 1,
            sampled: true,
        });
        headers.insert(TRACEPARENT, HeaderValue::from_bytes(&traceparent).unwrap());
        headers.insert(TRACESTATE, value.clone());
        trace_context::begin(&mut headers, Sampling::default(), || 7);
        let members: Vec<&[u8]> = value
            .as_bytes()
            .split(|byte| *byte == b',')
            .map(|member| member.trim_ascii())
            .filter(|member| !member.is_empty())
            .collect();
        let mut keys: Vec<_> = members
            .iter()
            .filter_map(|member| member.split(|byte| *byte == b'=').next())
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let fits = members.iter().all(|one| member.is_match(one))
            && keys.len() == members.len()
            && members.len() <= 32;
        assert_eq!(headers.contains_key(TRACESTATE), fits, "{value:?}");
        kept += usize::from(fits);
    }
    assert!((COUNT / 10..COUNT).contains(&kept), "{kept}");
}

#[test]
fn plain_paths() {
    let good = ["/a/./b/../c%2f%2e%2E/", "//a%61//%25", "/a.b/..c/...", "/%"];
    for value in mutated(&good, COUNT) {
        let Ok(path) = value.to_str() else { continue };
        let path = format!("/{path}");
        let plain = plain_path::plain(&path);
        let segments: Vec<&str> = plain.split('/').collect();
        assert_eq!(segments[0], "", "{path}");
        let inner = &segments[1..segments.len() - 1];
        assert!(!inner.contains(&""), "{path}: {plain}");
        let climbs = segments.iter().any(|one| [".", ".."].contains(one));
        assert!(!climbs, "{path}: {plain}");
    }
}

#[test]
fn request_ids() {
    let long = "x".repeat(127);
    let good = ["0190c5a2-1b2c-7000-8000-000000000000", "a", &long];
    let sane = regex("[!-~]{1,128}");
    let mut texts = Texts::default();
    for value in mutated(&good, COUNT) {
        for trusted in [false, true] {
            let mut headers = HeaderMap::new();
            headers.insert(request_id::REQUEST_ID, value.clone());
            let id = request_id::settle(
                &mut headers,
                trusted,
                SystemTime::UNIX_EPOCH,
                || 7,
                &mut texts,
            );
            assert!(sane.is_match(id.as_bytes()), "{id:?}");
            assert_eq!(headers.get(request_id::REQUEST_ID), Some(&id));
            let kept = trusted && sane.is_match(value.as_bytes());
            assert_eq!(id == value, kept, "{value:?}");
        }
    }
}

/// Hosts that are accepted are ones, and what is written of them is a `Forwarded` (RFC 7239,
/// section 4) whatever stood there before.
#[test]
fn hosts_and_forwarded() {
    let good = [
        "web.example:80",
        "[2001:db8::1]:443",
        "web",
        "192.0.2.1:8080",
        "a%20b",
        "x_y",
    ];
    let host = regex("(?:\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9._~%!$&'()*+,;=-]+)(?::[0-9]{0,5})?");
    let own = regex(
        "for=192\\.0\\.2\\.9;host=(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+|\"[\\t !#-\\[\\]-~]*\");proto=http",
    );
    let before = [
        "for=192.0.2.1;proto=https, for=\"[::1]:5\"",
        "192.0.2.1, 192.0.2.2",
        "unknown",
    ];
    let address = regex("192\\.0\\.2\\.9");
    let mut before = mutated(&before, COUNT);
    let mut accepted = 0;
    let mut texts = Texts::default();
    for value in mutated(&good, COUNT) {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, value.clone());
        let uri = Uri::from_static("/");
        let found = head::check(&Method::GET, &uri, Version::HTTP_11, &headers);
        let Ok(found) = found.map(str::to_owned) else {
            continue;
        };
        accepted += 1;
        assert!(host.is_match(value.as_bytes()), "{value:?}");
        assert_eq!(found.as_bytes(), value.as_bytes());
        let before = before.next().unwrap();
        for trusted in [false, true] {
            let mut headers = HeaderMap::new();
            headers.insert("forwarded", before.clone());
            headers.insert("x-forwarded-for", before.clone());
            forwarded::add(
                &mut headers,
                Hop {
                    client: "192.0.2.9:5".parse().unwrap(),
                    listener: "192.0.2.10:80".parse().unwrap(),
                    tls: false,
                    host: &found,
                    trusted,
                },
                &mut texts,
            );
            // The value of the hop is the last, and nothing before it can swallow it.
            let kept = before
                .to_str()
                .ok()
                .filter(|kept| trusted && !kept.is_empty());
            for (name, value) in [("forwarded", &own), ("x-forwarded-for", &address)] {
                let text = headers[name].as_bytes();
                let rest = match kept {
                    None => Some(text),
                    Some(kept) => text
                        .strip_prefix(kept.as_bytes())
                        .and_then(|rest| rest.strip_prefix(b", ")),
                };
                let rest = rest.expect("what was there before stays");
                assert!(value.is_match(rest), "{:?}", headers[name]);
                assert_eq!(headers.get_all(name).iter().count(), 1);
            }
        }
    }
    assert!((COUNT / 10..COUNT).contains(&accepted), "{accepted}");
}

/// Nothing of one hop is left, nothing else is missing but what `Connection` names.
#[test]
fn hops() {
    let names = [
        "te",
        "upgrade",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "x-a",
        "x-b",
        "host",
        "content-length",
        "x-request-id",
    ];
    let good = [
        "keep-alive, x-a",
        "close",
        "Upgrade, X-B",
        "te, host,content-length",
        "x-a,,x-b",
    ];
    for value in mutated(&good, COUNT) {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.insert(name, HeaderValue::from_static("1"));
        }
        headers.insert("connection", value.clone());
        hop::remove(&mut headers);
        let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
        let named = |name: &str| text.split(',').any(|one| one.trim() == name);
        for name in names {
            let left = match name {
                "x-a" | "x-b" => !named(name),
                "host" | "content-length" | "x-request-id" => true,
                _ => false,
            };
            assert_eq!(headers.contains_key(name), left, "{name} by {value:?}");
        }
        assert!(!headers.contains_key("connection"));
    }
}

/// What is accepted of an answer has one length or none.
#[test]
fn lengths_of_answers() {
    let good = [
        "5",
        "5, 5",
        "0",
        "18446744073709551615",
        "chunked",
        "gzip, chunked",
    ];
    let mut codings = mutated(&good, COUNT);
    // Zeros in front mean nothing (RFC 9110, section 8.6), however many there are.
    let (number, chunked) = (regex("0*[0-9]{1,20}"), regex("(?i:chunked)"));
    let mut accepted = 0;
    for (place, value) in mutated(&good, COUNT).enumerate() {
        let mut headers = HeaderMap::new();
        let coding = codings.next().unwrap();
        match place % 3 {
            0 => drop(headers.insert("content-length", value)),
            1 => drop(headers.insert("transfer-encoding", value)),
            _ => {
                headers.append("content-length", value);
                headers.append("content-length", coding);
            }
        }
        let given = headers.clone();
        if head::check_answer(&mut headers).is_err() {
            continue;
        }
        accepted += 1;
        let all: Vec<_> = headers.iter().collect();
        let [(name, value)] = all[..] else {
            panic!("{given:?} became {headers:?}");
        };
        let grammar = if name == "content-length" {
            &number
        } else {
            &chunked
        };
        assert!(
            grammar.is_match(value.as_bytes()),
            "{given:?} became {headers:?}"
        );
    }
    assert!((COUNT / 20..COUNT).contains(&accepted), "{accepted}");
}
