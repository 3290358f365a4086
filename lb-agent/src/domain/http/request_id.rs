//! The id that a request carries through the system: kept from trusted peers, else made here.

use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::texts::Texts;

/// The header that carries it, to backends and back to the client.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longer ids are not taken over.
const MAX_LEN: usize = 128;
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The id of a request, which its headers hold from now on: what a `trusted` peer sent, if it is
/// one value of 1 to 128 visible ASCII characters, else a new UUID of version 7.
pub fn settle(
    headers: &mut HeaderMap,
    trusted: bool,
    now: SystemTime,
    random: impl FnMut() -> u64,
    texts: &mut Texts,
) -> HeaderValue {
    let mut id = match trusted.then(|| given(headers)).flatten() {
        Some(given) => given.clone(),
        None => {
            let uuid = uuid_v7(now, random);
            texts.room(uuid.len()).extend_from_slice(&uuid);
            HeaderValue::from_maybe_shared(texts.take()).expect("hex digits and dashes")
        }
    };
    // HPACK never puts it into its table then (RFC 7541, section 6.2.3): it does not come again, and would
    // push out what does.
    id.set_sensitive(true);
    headers.insert(REQUEST_ID, id.clone());
    id
}

/// The sane id among these headers, if there is exactly one.
fn given(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut values = headers.get_all(REQUEST_ID).iter();
    let only = values.next()?;
    let sane = (1..=MAX_LEN).contains(&only.len())
        && only.as_bytes().iter().all(u8::is_ascii_graphic)
        && values.next().is_none();
    sane.then_some(only)
}

/// Puts the id into an answer to the client, in place of whatever the backend said.
pub fn give_back(headers: &mut HeaderMap, id: &HeaderValue) {
    headers.insert(REQUEST_ID, id.clone());
}

/// A UUID of version 7 (RFC 9562, section 5.7): 48 bits of milliseconds, then 74 random ones.
pub fn uuid_v7(now: SystemTime, mut random: impl FnMut() -> u64) -> [u8; 36] {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let milliseconds = since.as_millis() as u64;
    let high = milliseconds << 16 | 0x7000 | random() & 0x0fff;
    let low = 1 << 63 | random() >> 2;
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn uuids() {
        let rows = [
            (
                0x0123_4567_89ab,
                u64::MAX,
                "01234567-89ab-7fff-bfff-ffffffffffff",
            ),
            (0, 0, "00000000-0000-7000-8000-000000000000"),
            // The example of RFC 9562, appendix A.6, but for its random bits.
            (
                0x017f_22e2_79b0,
                0xcc3,
                "017f22e2-79b0-7cc3-8000-000000000330",
            ),
        ];
        for (milliseconds, random, text) in rows {
            let now = UNIX_EPOCH + Duration::from_millis(milliseconds);
            assert_eq!(uuid_v7(now, || random), *text.as_bytes(), "{text}");
        }
    }

    #[test]
    fn ids_of_peers() {
        let longest = "x".repeat(128);
        let too_long = "x".repeat(129);
        let rows: [(&[&str], bool, bool); 9] = [
            (&["a"], true, true),
            (&["a"], false, false),
            (&[&longest], true, true),
            (&[&too_long], true, false),
            (&[""], true, false),
            (&["a b"], true, false),
            (&["\u{e4}"], true, false),
            (&["a", "b"], true, false),
            (&[], true, false),
        ];
        for (given, trusted, kept) in rows {
            let mut headers = HeaderMap::new();
            for given in given {
                headers.append(
                    REQUEST_ID,
                    HeaderValue::from_bytes(given.as_bytes()).unwrap(),
                );
            }
            let id = settle(
                &mut headers,
                trusted,
                UNIX_EPOCH,
                || 5,
                &mut Texts::default(),
            );
            let values: Vec<_> = headers.get_all(REQUEST_ID).iter().collect();
            assert_eq!(values, [&id], "{given:?}");
            assert!(values[0].is_sensitive(), "{given:?}");
            let mut answer = HeaderMap::new();
            give_back(&mut answer, &id);
            assert_eq!(answer[REQUEST_ID], id);
            assert!(answer[REQUEST_ID].is_sensitive(), "{given:?}");
            let same = given.first().is_some_and(|given| id == *given);
            assert_eq!(same, kept, "{given:?} {trusted}");
            if !kept {
                assert_eq!(id, "00000000-0000-7005-8000-000000000001");
            }
        }
    }
}
