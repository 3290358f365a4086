//! What the head of an answer must be like: the other end must not be told of two lengths.

use http::{
    HeaderMap, HeaderValue,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};

/// Why an answer of a backend is not passed on (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAnswer {
    /// As in the splitting of answers.
    #[error("the answer has both Content-Length and Transfer-Encoding")]
    TwoLengths,
    /// Nobody but us takes codings off, and we know chunked only.
    #[error("the answer has a transfer coding other than chunked")]
    Coding,
    /// It is no number, or they are several.
    #[error("the answer has no single Content-Length")]
    Length,
}

/// Checks the headers of an answer. Equal lengths become one.
///
/// # Errors
///
/// What is wrong with them.
pub fn check_answer(headers: &mut HeaderMap) -> Result<(), InvalidAnswer> {
    if let Some(coding) = headers.get(TRANSFER_ENCODING) {
        if headers.contains_key(CONTENT_LENGTH) {
            return Err(InvalidAnswer::TwoLengths);
        }
        let alone = headers.get_all(TRANSFER_ENCODING).iter().count() == 1;
        if !alone || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(InvalidAnswer::Coding);
        }
        return Ok(());
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else {
        return Ok(());
    };
    if lengths.next().is_none() && number(first.as_bytes()).is_some() {
        return Ok(());
    }
    let all = headers.get_all(CONTENT_LENGTH).iter();
    let all = all.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut lengths = all.map(|length| number(length.trim_ascii()));
    let first = lengths.next().flatten().ok_or(InvalidAnswer::Length)?;
    if lengths.any(|other| other != Some(first)) {
        return Err(InvalidAnswer::Length);
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(first));
    Ok(())
}

/// `str::parse` takes a sign, which the grammar does not.
fn number(text: &[u8]) -> Option<u64> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn one_length_or_chunked() {
        use InvalidAnswer::{Coding, Length, TwoLengths};
        // lengths, codings → the length
        type Row = (
            &'static [&'static str],
            &'static [&'static str],
            Result<Option<&'static str>, InvalidAnswer>,
        );
        let rows: &[Row] = &[
            (&[], &[], Ok(None)),
            (&["5"], &[], Ok(Some("5"))),
            (&["5", "5"], &[], Ok(Some("5"))),
            (&["5, 05"], &[], Ok(Some("5"))),
            (&["5", "6"], &[], Err(Length)),
            (&["5, 6"], &[], Err(Length)),
            (&["5,"], &[], Err(Length)),
            (&["+5"], &[], Err(Length)),
            (&[""], &[], Err(Length)),
            (&["18446744073709551616"], &[], Err(Length)),
            (&[], &["Chunked"], Ok(None)),
            (&[], &["gzip"], Err(Coding)),
            (&[], &["gzip, chunked"], Err(Coding)),
            (&[], &["chunked", "chunked"], Err(Coding)),
            (&["5"], &["chunked"], Err(TwoLengths)),
        ];
        for (lengths, codings, expected) in rows {
            let mut headers = HeaderMap::new();
            let mut add = |name: HeaderName, values: &[&'static str]| {
                for &value in values {
                    headers.append(&name, HeaderValue::from_static(value));
                }
            };
            add(CONTENT_LENGTH, lengths);
            add(TRANSFER_ENCODING, codings);
            let found = check_answer(&mut headers);
            let left: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().collect();
            match expected {
                Err(expected) => assert_eq!(found, Err(*expected), "{lengths:?} {codings:?}"),
                Ok(expected) => {
                    assert_eq!(found, Ok(()), "{lengths:?} {codings:?}");
                    let expected: Vec<_> = expected.iter().collect();
                    assert_eq!(left, expected, "{lengths:?} {codings:?}");
                }
            }
        }
    }
}
