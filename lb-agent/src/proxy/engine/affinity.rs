//! What a request is to meet the same backend by.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use http::{HeaderMap, HeaderValue, header::COOKIE};

use super::{Engine, serve::Marks, view::Service};
use crate::domain::http::policy::Balance;

impl Engine {
    /// What the backend is chosen by; the client is given a cookie if it is to have one.
    pub(super) fn key(
        &self,
        service: &Service,
        headers: &HeaderMap,
        marks: &mut Marks,
    ) -> Option<u64> {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        match &service.policy.balance {
            Balance::PeakEwma => None,
            Balance::Header(name) => {
                let value = headers.get(name).filter(|value| !value.is_empty())?;
                Some(hasher.hash_one(value.as_bytes()))
            }
            Balance::Cookie(name) => {
                if let Some(value) = cookie(headers, name) {
                    return Some(hasher.hash_one(value));
                }
                let value = format!("{:016x}", self.random());
                let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax");
                marks.cookie = HeaderValue::try_from(cookie).ok();
                Some(hasher.hash_one(value.as_bytes()))
            }
        }
    }
}

/// The first cookie of this name that has a value. Others may be of bytes that are no text.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let values = headers.get_all(COOKIE).iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|pair| {
            let pair = pair.trim_ascii();
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            Some((&pair[..equals], &pair[equals + 1..]))
        })
        .find(|(key, value)| *key == name.as_bytes() && !value.is_empty())
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(values: &[&[u8]]) -> Option<Vec<u8>> {
        let values = values.iter();
        let values = values.filter_map(|value| HeaderValue::from_bytes(value).ok());
        let headers = HeaderMap::from_iter(values.map(|value| (COOKIE, value)));
        cookie(&headers, "lb").map(<[u8]>::to_vec)
    }

    /// Values of the header, and the cookie's in them.
    type Row<'a> = (&'a [&'a [u8]], Option<&'a [u8]>);

    #[test]
    fn the_cookie_among_others() {
        let rows: [Row<'_>; 9] = [
            (&[b"lb=1"], Some(b"1")),
            (&[b"a=2; lb=1;b=3"], Some(b"1")),
            (&[b"a=2", b"lb=1"], Some(b"1")),
            (&[b"lb=; lb=1; lb=2"], Some(b"1")),
            (&[b"lb=a=b"], Some(b"a=b")),
            (&[b"a=\xc3\xa4; lb=1"], Some(b"1")),
            (&[b"LB=1; xlb=1; lb", b"lb"], None),
            (&[b"a=lb=1"], None),
            (&[], None),
        ];
        for (values, expected) in rows {
            assert_eq!(found(values).as_deref(), expected, "{values:?}");
        }
    }

    /// Beside an expression that looks for the same from the left.
    #[test]
    fn by_chance() {
        let good: [&[u8]; 6] = [
            b"lb=0123456789abcdef",
            b"a=1; lb=7;  b=2",
            b"session=\xc3\xa4\xff;lb=8",
            b"lb=;lb=\"9\"",
            b"xlb=1;lb.b=2",
            b"; ;=;lb",
        ];
        let reference = regex::bytes::Regex::new(
            "(?s-u)^(?:[^;]*;)*?[ \\t]*lb=([^;]*?[^; \\t])[ \\t]*(?:;.*)?$",
        );
        let reference = reference.unwrap();
        let mut random = crate::domain::chance::of_test(39);
        let mut there = 0;
        for _ in 0..20_000 {
            let value = crate::domain::chance::mutated(&mut random, &good, b"lb=; \t\"\xff");
            if HeaderValue::from_bytes(&value).is_err() {
                continue;
            }
            let expected = reference.captures(&value).map(|parts| parts[1].to_vec());
            let shown = String::from_utf8_lossy(&value);
            assert_eq!(found(&[&value]), expected, "{shown}");
            there += usize::from(expected.is_some());
            // It does not matter over how many headers the pairs are spread.
            let spread: Vec<&[u8]> = value.split(|byte| *byte == b';').collect();
            assert_eq!(found(&spread), expected, "{shown}");
        }
        assert!((5_000..19_000).contains(&there), "{there}");
    }
}
