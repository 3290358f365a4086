//! What is read of headers, and what goes on to backends.

use super::*;

const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const CALLER: u64 = 0x00f0_67aa_0ba9_02b7;
const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const LONG: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn headers(given: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let value = HeaderValue::from_str(value).unwrap();
        headers.append(HeaderName::from_static(name), value);
    }
    headers
}

/// Trace, caller and decision of a request with these headers; new ids are sevens.
fn begun(given: &[(&'static str, &str)]) -> (u128, Option<u64>, bool) {
    let (context, parent) = begin(&mut headers(given), Sampling::new(0.0), || 7);
    assert_eq!(context.span, 7);
    (context.trace, parent, context.sampled)
}

const NEW: (u128, Option<u64>, bool) = (7 << 64 | 7, None, false);

#[test]
fn traceparent() {
    let continued = |sampled| (TRACE, Some(CALLER), sampled);
    let rows = [
        (VALID.to_owned(), continued(true)),
        (format!("00-{LONG}-{SPAN}-00"), continued(false)),
        (format!("00-{LONG}-{SPAN}-ff"), continued(true)),
        (format!("00-{LONG}-{SPAN}-02"), continued(false)),
        // Of versions to come the known part is read.
        (format!("cc-{LONG}-{SPAN}-01"), continued(true)),
        (
            format!("cc-{LONG}-{SPAN}-01-what-the-future-will-be"),
            continued(true),
        ),
        (format!("cc-{LONG}-{SPAN}-01.what"), NEW),
        (format!("00-{LONG}-{SPAN}-01-more"), NEW),
        (format!("00-{LONG}-{SPAN}-01-"), NEW),
        (format!("ff-{LONG}-{SPAN}-01"), NEW),
        (format!("0-{LONG}-{SPAN}-01"), NEW),
        (format!("0x-{LONG}-{SPAN}-01"), NEW),
        (format!("00-{}-{SPAN}-01", LONG.to_uppercase()), NEW),
        (format!("00-{LONG}-{}-01", SPAN.to_uppercase()), NEW),
        (format!("00-{LONG}-{SPAN}-0A"), NEW),
        (format!("00-{}-{SPAN}-01", "0".repeat(32)), NEW),
        (format!("00-{LONG}-{}-01", "0".repeat(16)), NEW),
        (format!("00-{}-{SPAN}-01", &LONG[1..]), NEW),
        (format!("00-{LONG}-{}-01", &SPAN[1..]), NEW),
        (format!("00-{LONG}-{SPAN}-1"), NEW),
        (format!("00-{LONG}-{SPAN}"), NEW),
        (format!("00_{LONG}_{SPAN}_01"), NEW),
        (String::new(), NEW),
    ];
    for (given, expected) in rows {
        assert_eq!(begun(&[("traceparent", &given)]), expected, "{given}");
    }
    assert_eq!(begun(&[]), NEW);
    let twice = [("traceparent", VALID), ("traceparent", VALID)];
    assert_eq!(begun(&twice), NEW);
}

#[test]
fn b3() {
    let single = |value: &str, expected| {
        assert_eq!(begun(&[("b3", value)]), expected, "{value}");
    };
    let continued = |sampled| (TRACE, Some(CALLER), sampled);
    single(&format!("{LONG}-{SPAN}-1"), continued(true));
    single(&format!("{LONG}-{SPAN}-d-{SPAN}"), continued(true));
    single(&format!("{LONG}-{SPAN}-0"), continued(false));
    single(&format!("{LONG}-{SPAN}"), continued(false));
    single(
        &format!("{SPAN}-{SPAN}-1"),
        (CALLER.into(), Some(CALLER), true),
    );
    single("1", (NEW.0, None, true));
    single("0", NEW);
    single(&format!("{LONG}-{SPAN}-1-{SPAN}-1"), NEW);
    single(&format!("{LONG}-{SPAN}-2"), NEW);
    single(&format!("{LONG}-{SPAN}-1-short"), NEW);
    single(&format!("{LONG}-"), NEW);
    single(&format!("{}-{SPAN}-1", "0".repeat(32)), NEW);

    let rows: [(&[(&str, &str)], _); 7] = [
        (
            &[
                ("x-b3-traceid", LONG),
                ("x-b3-spanid", SPAN),
                ("x-b3-sampled", "1"),
            ],
            continued(true),
        ),
        (
            &[
                ("x-b3-traceid", LONG),
                ("x-b3-spanid", SPAN),
                ("x-b3-flags", "1"),
            ],
            continued(true),
        ),
        (
            &[("x-b3-traceid", LONG), ("x-b3-spanid", SPAN)],
            continued(false),
        ),
        (&[("x-b3-sampled", "1")], (NEW.0, None, true)),
        (&[("x-b3-traceid", LONG)], NEW),
        (&[("x-b3-spanid", SPAN)], NEW),
        (
            &[
                ("x-b3-traceid", "x"),
                ("x-b3-spanid", SPAN),
                ("x-b3-sampled", "1"),
            ],
            NEW,
        ),
    ];
    for (given, expected) in rows {
        assert_eq!(begun(given), expected, "{given:?}");
    }
    // b3 is nothing beside a traceparent, be it malformed.
    let b3 = format!("{LONG}-{SPAN}-1");
    assert_eq!(begun(&[("traceparent", "x"), ("b3", &b3)]), NEW);
}

#[test]
fn tracestate() {
    let most = (0..32)
        .map(|n| format!("k{n}=v"))
        .collect::<Vec<_>>()
        .join(",");
    let rows = [
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", true),
        ("fw529a3039@dt=FfAAAAEA", true),
        ("0a@b=1 , \t,c=2", true),
        ("", true),
        (&most, true),
        (&format!("{most},k32=v"), false),
        ("a=1,a=2", false),
        ("a", false),
        ("a=", false),
        ("=1", false),
        ("A=1", false),
        ("1a=1", false),
        ("a@=1", false),
        ("@b=1", false),
        ("a@b@c=1", false),
        ("a@abcdefghijklmno=1", false),
        ("a=b=c", false),
    ];
    for (given, kept) in rows {
        let mut headers = headers(&[("traceparent", VALID), ("tracestate", given)]);
        begin(&mut headers, Sampling::default(), || 7);
        assert_eq!(headers.contains_key(TRACESTATE), kept, "{given}");
    }
    // The state of nobody's trace.
    for given in [None, Some("malformed")] {
        let mut headers = headers(&[("tracestate", "a=1")]);
        if let Some(given) = given {
            headers.insert(TRACEPARENT, HeaderValue::from_static(given));
        }
        begin(&mut headers, Sampling::default(), || 7);
        assert!(headers.is_empty(), "{headers:?}");
    }
    // Members may come in several headers.
    let mut twice = headers(&[
        ("traceparent", VALID),
        ("tracestate", "a=1"),
        ("tracestate", "a=2"),
    ]);
    begin(&mut twice, Sampling::default(), || 7);
    assert!(!twice.contains_key(TRACESTATE));
}

#[test]
fn what_backends_get() {
    let context = SpanContext {
        trace: TRACE,
        span: 0xa,
        sampled: true,
    };
    let parent = format!("00-{LONG}-000000000000000a-01");
    let single = format!("{LONG}-000000000000000a-1");
    let several = [
        ("x-b3-traceid", LONG),
        ("x-b3-spanid", "000000000000000a"),
        ("x-b3-sampled", "1"),
    ];
    type Headers<'a> = &'a [(&'static str, &'a str)];
    type Row<'a> = (Headers<'a>, Vec<(&'static str, &'a str)>);
    let rows: [Row<'_>; 4] = [
        (&[], vec![]),
        (
            &[("traceparent", VALID), ("tracestate", "a=1")],
            vec![("tracestate", "a=1")],
        ),
        (&[("b3", "1")], vec![("b3", &single)]),
        (
            &[
                ("x-b3-traceid", LONG),
                ("x-b3-spanid", SPAN),
                ("x-b3-parentspanid", SPAN),
            ],
            several.to_vec(),
        ),
    ];
    for (given, mut expected) in rows {
        let mut sent = headers(given);
        send(&mut sent, context);
        expected.push(("traceparent", &parent));
        assert_eq!(sent, headers(&expected), "{given:?}");
    }
}

#[test]
fn sampling() {
    let rows = [
        (0.0, 0, false),
        (-1.0, 0, false),
        (f64::NAN, 0, false),
        (1.0, u128::MAX, true),
        (2.0, u128::MAX, true),
        (0.5, u128::from(u64::MAX >> 1), true),
        (0.5, u128::from(u64::MAX >> 1) + 1, false),
        // Only the part that is random in traces of 64 bits, too.
        (0.5, u128::MAX << 64, true),
    ];
    for (ratio, trace, taken) in rows {
        assert_eq!(
            Sampling::new(ratio).takes(trace),
            taken,
            "{ratio} {trace:x}"
        );
    }
    let (context, _) = begin(&mut HeaderMap::new(), Sampling::new(1.0), || 0);
    assert_eq!((context.trace, context.span, context.sampled), (1, 1, true));
}
