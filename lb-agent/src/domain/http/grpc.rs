//! What makes a request a call of gRPC, and the time that its client gives ("gRPC over HTTP/2").

use std::time::Duration;

use http::{HeaderMap, header::CONTENT_TYPE};

const NAME: &str = "grpc-timeout";
/// Digits at most.
const DIGITS: usize = 8;

/// Whether these are headers of a call.
pub fn is_call(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes());
    kind.and_then(|kind| kind.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The time that is given, if that is a valid one.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    parse(headers.get(NAME)?.as_bytes())
}

fn parse(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("0n", Some(Duration::ZERO)),
            ("123456789n", None),
            ("1", None),
            ("m", None),
            ("", None),
            ("1s", None),
            ("-1S", None),
            ("1 S", None),
            ("1.5S", None),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
    }

    /// Beside the grammar of "gRPC over HTTP/2", and counted in nanoseconds.
    #[test]
    fn by_chance() {
        let good = [
            "1H",
            "20M",
            "3S",
            "250m",
            "99999999u",
            "0n",
            "123456789n",
            "00000001S",
        ];
        let good = good.map(str::as_bytes);
        let grammar = regex::bytes::Regex::new("(?-u)^([0-9]{1,8})([HMSmun])$").unwrap();
        let mut random = crate::domain::chance::of_test(33);
        let mut accepted = 0;
        for _ in 0..20_000 {
            let text = crate::domain::chance::mutated(&mut random, &good, b"09HMSmun -+.s\xff");
            let expected = grammar.captures(&text).map(|parts| {
                let digits = parts[1].iter();
                let number = digits.fold(0, |number, digit| number * 10 + u128::from(digit - b'0'));
                number
                    * match parts[2][0] {
                        b'H' => 3_600_000_000_000,
                        b'M' => 60_000_000_000,
                        b'S' => 1_000_000_000,
                        b'm' => 1_000_000,
                        b'u' => 1_000,
                        _ => 1,
                    }
            });
            let shown = String::from_utf8_lossy(&text);
            assert_eq!(
                parse(&text).map(|time| time.as_nanos()),
                expected,
                "{shown}"
            );
            accepted += usize::from(expected.is_some());
        }
        assert!((4_000..19_000).contains(&accepted), "{accepted}");
    }

    #[test]
    fn calls_by_chance() {
        let good: [&[u8]; 4] = [
            b"application/grpc",
            b"application/grpc+proto",
            b"application/grpc;charset=utf-8",
            b"application/grpc-web",
        ];
        let grammar = regex::bytes::Regex::new("(?s-u)^application/grpc(?:[+;].*)?$").unwrap();
        let mut random = crate::domain::chance::of_test(34);
        let mut calls = 0;
        for _ in 0..10_000 {
            let text = crate::domain::chance::mutated(&mut random, &good, b"+;- ,Ag/\xff");
            let Ok(value) = http::HeaderValue::from_bytes(&text) else {
                continue;
            };
            let expected = grammar.is_match(value.as_bytes());
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, value)]);
            assert_eq!(is_call(&headers), expected, "{headers:?}");
            calls += usize::from(expected);
        }
        assert!((1_000..9_000).contains(&calls), "{calls}");
    }
}
