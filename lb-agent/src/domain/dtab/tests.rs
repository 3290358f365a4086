//! The parser: rows of what is read, rows of what is refused where, and noise.

use rand::{Rng, seq::IndexedRandom};

use super::*;

/// Shares and fallbacks as typed on the command line, joined by `|`.
fn shown(dentry: &Dentry) -> String {
    let all = std::iter::once(&dentry.shares).chain(&dentry.fallback);
    let all: Vec<String> = all.map(ToString::to_string).collect();
    format!("{}: {}", dentry.service, all.join(" | "))
}

#[test]
fn tables_are_read() {
    let rows = [
        ("", ""),
        (" \n;".trim_end_matches(';'), ""),
        (
            "/svc/echo => 1 * /#/echo/v2 & 9 * /#/echo/v1",
            "echo: v1=9 v2=1",
        ),
        ("/svc/echo=>1*/#/a/v2&9*/#/b/v1;", "echo: v1=9 v2=1"),
        ("/svc/echo => /#/v1", "echo: v1=1"),
        (
            "/svc/echo => /#/io.l5d.consul/dc1/v1 & /#/io.l5d.consul/dc1/v2",
            "echo: v1=1 v2=1",
        ),
        (
            "/svc/echo => 0.9 * /#/x/v1 & 0.1 * /#/x/v2",
            "echo: v1=9 v2=1",
        ),
        (
            "/svc/echo => 90 * /#/x/v1 & 10 * /#/x/v2",
            "echo: v1=90 v2=10",
        ),
        (
            "/svc/echo => .25 * /#/x/v1 & 00.750 * /#/x/v2",
            "echo: v1=1 v2=3",
        ),
        (
            "/svc/echo => 0 * /#/x/v1 & 10000 * /#/x/v2",
            "echo: v1=0 v2=10000",
        ),
        (
            "/svc/echo => /#/x/v1 | 1 * /#/x/v2 & 3 * /#/x/v3 | /#/x/v4",
            "echo: v1=1 | v2=1 v3=3 | v4=1",
        ),
        (
            "# all\n/svc/a => /#/x/v1 ; # one\n\n/svc/b-2.c => /#/x/v2 ;\n",
            "a: v1=1, b-2.c: v2=1",
        ),
    ];
    for (text, expected) in rows {
        let dentries = parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let read: Vec<String> = dentries.iter().map(shown).collect();
        assert_eq!(read.join(", "), expected, "{text:?}");
        // What is written is read as the same.
        assert_eq!(parse(&render(&dentries)).unwrap(), dentries);
        for dentry in &dentries {
            let prefix = format!("/svc/{}", dentry.service);
            let again = parse_halves(&prefix, &destination(dentry)).unwrap();
            assert_eq!(&again, dentry);
        }
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let rows = [
        ("echo", 1, 1, "not of the form `/svc/NAME`"),
        ("=> /#/x", 1, 1, "expected `/svc/NAME`, not `=`"),
        (";", 1, 1, "expected `/svc/NAME`, not `;`"),
        (
            "/srv/echo => /#/x/v1",
            1,
            1,
            "`/srv/echo` is not of the form",
        ),
        ("/svc => /#/x/v1", 1, 1, "`/svc` is not of the form"),
        ("/svc/a/b => /#/x/v1", 1, 1, "`/svc/a/b` is not"),
        (
            "/svc/echo",
            1,
            10,
            "expected `=>` behind the name, not the end",
        ),
        (
            "/svc/echo = /#/x",
            1,
            11,
            "expected `=>` behind the name, not `=`",
        ),
        (
            "/svc/echo =>",
            1,
            13,
            "expected a path such as `/#/echo/v1`, not the end",
        ),
        (
            "/svc/echo => v1",
            1,
            14,
            "`v1` is not of the form `/#/…/SUBSET`",
        ),
        ("/svc/echo => /host/v1", 1, 14, "`/host/v1` is not"),
        ("/svc/echo => /#/", 1, 14, "`/#/` is not"),
        ("/svc/echo => /#/x/", 1, 14, "`/#/x/` is not"),
        ("/svc/echo => /#/x/v:1", 1, 14, "`/#/x/v:1` is not"),
        ("/svc/echo => (/#/x/v1)", 1, 14, "`(` is no part"),
        ("/svc/echo => !", 1, 14, "`!` is no part"),
        ("/svc/echo => /#/x/v1 &", 1, 23, "not the end"),
        ("/svc/echo => /#/x/v1 | | /#/x/v2", 1, 24, "expected a path"),
        (
            "/svc/echo => /#/x/v1 /#/x/v2",
            1,
            22,
            "expected `;`, `&`, `|` or the end, not `/`",
        ),
        (
            "/svc/echo => 5 /#/x/v1",
            1,
            16,
            "expected `*` behind the weight, not `/`",
        ),
        (
            "/svc/echo => 1.2.3 * /#/x/v1",
            1,
            14,
            "`1.2.3` is no number",
        ),
        ("/svc/echo => . * /#/x/v1", 1, 14, "`.` is no number"),
        (
            "/svc/echo => 0.12345 * /#/x/v1",
            1,
            14,
            "more than 4 decimals",
        ),
        ("/svc/echo => 10001 * /#/x/v1", 1, 14, "above 10000"),
        ("/svc/echo => 10000.1 * /#/x/v1", 1, 14, "above 10000"),
        (
            "/svc/echo => 99999999999999999999999 * /#/x/v1",
            1,
            14,
            "above 10000",
        ),
        (
            "/svc/echo => -1 * /#/x/v1",
            1,
            14,
            "`-1` is not of the form",
        ),
        ("/svc/echo => 0 * /#/x/v1", 1, 14, "all shares are 0"),
        (
            "/svc/echo => 5000.1 * /#/x/v1 & 1 * /#/x/v2",
            1,
            14,
            "too far apart",
        ),
        (
            "/svc/echo => /#/x/v1 & /#/y/v1",
            1,
            24,
            "subset `v1` is given twice",
        ),
        (
            "/svc/echo => /#/x/v1;\n /svc/echo => /#/x/v2",
            2,
            2,
            "`/svc/echo` is given twice",
        ),
        (
            "/svc/a => /#/x/v1;\n# ä\n/svc/b => /#/é/v1",
            3,
            11,
            "`/#/` is not of the form",
        ),
    ];
    for (text, line, column, words) in rows {
        let error = parse(text).expect_err(text);
        assert!(error.reason.contains(words), "{text:?}: {error}");
        assert_eq!(
            (error.line, error.column),
            (line, column),
            "{text:?}: {error}"
        );
    }
    let halves = [
        ("/svc/echo x", "/#/v1", false, "expected the end, not `x`"),
        ("", "/#/v1", false, "not the end"),
        (
            "/svc/echo",
            "/#/v1 ; /svc/b => /#/v1",
            true,
            "expected the end, not `;`",
        ),
        ("/svc/echo", "", true, "expected a path"),
    ];
    for (prefix, destination, second, words) in halves {
        let (where_, error) = parse_halves(prefix, destination).expect_err(destination);
        assert_eq!(where_, second);
        assert!(error.reason.contains(words), "{destination}: {error}");
    }
}

/// Random texts of the language's own pieces and of any characters: each is read, and then is read
/// again as the same from what is written of it, or is refused with a place inside.
#[test]
fn noise_neither_panics_nor_is_misread() {
    let pieces = [
        "/svc/echo",
        "/svc/",
        "/svc/b",
        "=>",
        " ",
        "\n",
        "&",
        "|",
        ";",
        "*",
        "1",
        "0",
        "0.5",
        "9999",
        "10000",
        "/#/x/v1",
        "/#/x/v2",
        "/#/v3",
        "#",
        "/",
        ".",
        "ä",
        "\u{1F980}",
        "\0",
        "(",
        "-",
        "\r",
        " => 1 * /#/x/v1 & 3 * /#/x/v2 ",
    ];
    let mut rng = crate::domain::chance::of_test(4);
    let mut valid = 0;
    for round in 0..60_000 {
        // Every other one begins well.
        let mut text = match round % 2 {
            0 => String::new(),
            _ => "/svc/echo => 1 * /#/x/v1 ".to_owned(),
        };
        for _ in 0..rng.random_range(0..14) {
            match rng.random_range(0..12) {
                0 => text.push(rng.random()),
                _ => text.push_str(pieces.choose(&mut rng).copied().unwrap_or_default()),
            }
        }
        match parse(&text) {
            Ok(dentries) => {
                valid += usize::from(!dentries.is_empty());
                assert_eq!(
                    parse(&render(&dentries)).unwrap(),
                    dentries,
                    "{round}: {text:?}"
                );
            }
            Err(error) => {
                let line = text
                    .split('\n')
                    .nth(error.line - 1)
                    .expect("a line of the text");
                assert!(
                    error.column <= line.chars().count() + 1,
                    "{text:?}: {error}"
                );
            }
        }
        let _ = parse_halves(&text, &text);
    }
    assert!(valid > 1000, "only {valid} were tables");
}

#[test]
fn versions_differ_with_the_table() {
    let of = |text: &str| version(&parse(text).unwrap());
    let first = of("/svc/echo => 1 * /#/x/v1 & 9 * /#/x/v2");
    assert_eq!(first, of("/svc/echo=>1*/#/y/v1&9*/#/y/v2;"));
    assert_ne!(first, of("/svc/echo => 2 * /#/x/v1 & 9 * /#/x/v2"));
    assert_ne!(
        first,
        of("/svc/echo => 1 * /#/x/v1 & 9 * /#/x/v2 | /#/x/v3")
    );
    assert_eq!(first.len(), 16);
}
