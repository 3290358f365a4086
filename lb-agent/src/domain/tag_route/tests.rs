//! Tags in, routes or sentences out.

use super::*;

fn told(tag: &str) -> String {
    let (routes, unread) = read(&[tag.to_owned(), "other".to_owned()]);
    let routes = routes.iter().map(ToString::to_string);
    routes.chain(unread).collect::<Vec<_>>().join(" ")
}

/// Rows of a tag and the routes it comes to.
#[test]
fn tags_are_read() {
    let rows = [
        ("urlprefix-/", "*/*"),
        ("urlprefix-/path", "*/path*"),
        ("urlprefix-Web.example/", "web.example/*"),
        (
            "urlprefix-*.web.example:80/a/b strip=/a proto=https",
            "*.web.example/a/b*",
        ),
        (
            "traefik.http.routers.web.rule=Host(`web.example`)",
            "web.example/*",
        ),
        (
            "traefik.http.routers.web.rule=Host(`a.example`, \"b.example\") && PathPrefix(`/x`)",
            "a.example/x* b.example/x*",
        ),
        (
            "traefik.http.routers.w.rule=(Host(`a`)||Host(`b`)) && ( Path(`/x`) || PathPrefix('/y') )",
            "a/x a/y* b/x b/y*",
        ),
        (
            "traefik.http.routers.w.rule=PathPrefix(`/x`) || Host(`a`)",
            "*/x* a/*",
        ),
        ("traefik.http.routers.web.entrypoints=web", ""),
        ("traefik.http.services.web.loadbalancer.server.port=80", ""),
        ("v1", ""),
    ];
    for (tag, expected) in rows {
        assert_eq!(told(tag), expected, "{tag}");
        assert_eq!(any(&[tag.to_owned()]), !expected.is_empty(), "{tag}");
    }
}

/// Rows of a tag and what is said of it.
#[test]
fn what_cannot_be_read_says_so() {
    let deep = "(".repeat(20);
    let wide = format!("Host({})", vec!["`a`"; 65].join(","));
    let rows = [
        ("urlprefix-web.example", "not of the form HOST/PATH"),
        ("urlprefix-:3306 proto=tcp", "`lb-vip` in the meta does"),
        ("urlprefix-we b/", "`we` is not of the form"),
        ("urlprefix-a..b/", "`a..b` is no name of a host"),
        ("rule=Host(`a b`)", "`a b` is no name of a host"),
        ("rule=Host(a)", "not in parentheses and quotes"),
        ("rule=Host(`a`", "not in parentheses and quotes"),
        ("rule=Host(`a", "not in parentheses and quotes"),
        ("rule=(Host(`a`)", "a `)` is missing"),
        ("rule=Host(`a`) Path(`/`)", "`Path(`/`)` is not expected"),
        ("rule=HostRegexp(`a`)", "`HostRegexp` is none of"),
        ("rule=!Host(`a`)", "is none of"),
        ("rule=", "is none of"),
        ("rule=Path(`x`)", "the path `x` does not begin"),
        ("rule=Host(`a`) && Host(`b`)", "two hosts at once"),
        (&format!("rule={deep}"), "too many parentheses"),
        (&format!("rule={wide}"), "more than 64 routes"),
    ];
    for (tag, part) in rows {
        let tag = match tag.starts_with("rule=") {
            true => format!("traefik.http.routers.web.{tag}"),
            false => tag.to_owned(),
        };
        let told = told(&tag);
        assert!(told.contains(part) && told.contains(&tag), "{told}");
        assert!(any(&[tag]));
    }
}

#[test]
fn traefik_is_told_to_look_away() {
    let tags = [
        "traefik.enable=false".to_owned(),
        "traefik.http.routers.web.rule=Host(`web.example`)".to_owned(),
    ];
    assert!(!any(&tags));
    assert!(any(&tags[1..]));
}

/// Rules made by chance of good ones: nothing panics, and what is read is a host and a path that a
/// tag of the other kind would give, too.
#[test]
fn mutated_rules() {
    use rand::Rng as _;
    const WORDS: [&str; 22] = [
        "Host(`a.example`)",
        "Host(`*.b`, \"c\")",
        "Path(`/x`)",
        "PathPrefix('/y')",
        "PathPrefix(`/`)",
        " && ",
        "||",
        "(",
        ")",
        "!",
        "`",
        "\"",
        ",",
        " ",
        "Host",
        "Path(",
        "/z",
        "web.example:80/",
        "urlprefix-",
        " strip=/x",
        "\u{e4}",
        "*",
    ];
    let mut random = crate::domain::chance::of_test(3);
    let mut found = 0;
    for round in 0..20_000 {
        let start = ["urlprefix-", "traefik.http.routers.w.rule="][round % 2];
        let mut tag = start.to_owned();
        for _ in 0..random.random_range(1..7) {
            tag += WORDS[random.random_range(0..WORDS.len())];
        }
        let (routes, unread) = read(std::slice::from_ref(&tag));
        assert!(routes.is_empty() || unread.is_empty(), "{tag}");
        for route in routes {
            found += 1;
            let host = route.host.clone().unwrap_or_default();
            assert_eq!(host, host.to_ascii_lowercase(), "{tag}");
            let path = match &route.path {
                None => "/",
                Some(Text::Prefix(path) | Text::Exact(path)) => path,
                Some(other) => panic!("{tag} became {other:?}"),
            };
            assert!(path.starts_with('/'), "{tag}");
            if path.contains(' ') {
                continue;
            }
            let again = read(&[format!("urlprefix-{host}{path}")]);
            assert!(again.1.is_empty(), "{tag} became {route}: {again:?}");
            let again = again.0.into_iter().next().unwrap();
            assert_eq!(again.host, route.host, "{tag}");
        }
    }
    assert!(found > 1000, "{found}");
}
