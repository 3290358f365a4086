//! b3 in several headers, each missing, there, or there twice.

use super::*;

const NAMES: [&str; 4] = ["x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags"];

/// The one value of a header that is a text.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let values: Vec<_> = headers.get_all(name).iter().collect();
    match values[..] {
        [value] => value.to_str().ok(),
        _ => None,
    }
}

#[test]
fn b3_in_several_headers() {
    let good: [&[&str]; 4] = [
        &[
            "80f198ee56343ba864fe8b2a57d3eff7",
            "64FE8b2a57d3eff7",
            "0000000000000000000000000000000a",
        ],
        &["e457b5a2e4d86bd1", "000000000000000B"],
        &["1", "0", "d", "true", "false"],
        &["1", "0", "1", "1"],
    ];
    let id = regex("(?i:[0-9a-f]{16})");
    let trace = regex("(?i:(?:[0-9a-f]{16}){1,2})");
    let zero = regex("0*");
    let mut values = good.map(|good| mutated(good, usize::MAX));
    let mut random = crate::domain::chance::of_test(37);
    let (mut continued, mut decided) = (0, 0);
    for _ in 0..COUNT {
        let mut headers = HeaderMap::new();
        for (name, values) in NAMES.iter().zip(&mut values) {
            let count = *crate::domain::chance::one_of(&mut random, &[0, 1, 1, 1, 1, 1, 1, 2]);
            for value in values.by_ref().take(count) {
                headers.append(*name, value);
            }
        }
        let given = headers.clone();
        let [of_trace, of_span, of_decision, of_flags] = NAMES.map(|name| only(&given, name));
        let sane = |text: Option<&str>, grammar: &Regex| {
            let text = text.unwrap_or_default().as_bytes();
            grammar.is_match(text) && !zero.is_match(text)
        };
        let any_id = given.contains_key(NAMES[0]) || given.contains_key(NAMES[1]);
        let ids = sane(of_trace, &trace) && sane(of_span, &id);
        let sampled = match (of_flags, of_decision) {
            (Some("1"), _) | (_, Some("1" | "d" | "true")) => Ok(Some(true)),
            (_, Some("0" | "false")) => Ok(Some(false)),
            (_, None) => Ok(None),
            (_, Some(_)) => Err(()),
        };
        let good = sampled.is_ok() && (ids || !any_id);

        let (own, parent) = trace_context::begin(&mut headers, Sampling::default(), || 7);
        assert_eq!(parent.is_some(), good && ids, "{given:?}");
        if let (Some(parent), Some(span), Some(trace)) = (parent, of_span, of_trace) {
            assert_eq!(u64::from_str_radix(span, 16), Ok(parent), "{given:?}");
            assert_eq!(u128::from_str_radix(trace, 16), Ok(own.trace), "{given:?}");
        }
        let decision = sampled.ok().flatten().filter(|_| good);
        assert_eq!(own.sampled, decision.unwrap_or(false), "{given:?}");
        continued += usize::from(parent.is_some());
        decided += usize::from(decision.is_some());

        // What goes on is read as it was meant, in the form that it came in or not at all.
        let came = NAMES.iter().any(|name| headers.contains_key(*name));
        trace_context::send(&mut headers, own);
        headers.remove(TRACEPARENT);
        assert_eq!(headers.contains_key(NAMES[0]), came, "{given:?}");
        if came {
            let (next, parent) = trace_context::begin(&mut headers, Sampling::default(), || 9);
            assert_eq!(
                (next.trace, parent),
                (own.trace, Some(own.span)),
                "{given:?}"
            );
            assert_eq!(next.sampled, own.sampled, "{given:?}");
        }
    }
    for count in [continued, decided] {
        assert!((COUNT / 100..COUNT).contains(&count), "{count}");
    }
}
