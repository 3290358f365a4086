//! Tests of `explain`.

use std::time::SystemTime;

use super::*;
use crate::domain::{route::Text, tag_route::TagRoute};

fn request(host: &str, path: &str) -> Request {
    Request {
        host: host.into(),
        path: path.into(),
        query: None,
        method: http::Method::GET,
        headers: http::HeaderMap::new(),
    }
}

fn route(host: Option<&str>, path: Option<Text>) -> TagRoute {
    TagRoute {
        host: host.map(str::to_owned),
        path,
    }
}

#[test]
fn requests_find_the_routes_that_fit() {
    let prefix = |text: &str| Some(Text::Prefix(text.into()));
    let rows = [
        (None, None, "a.example", "/", true),
        (Some("a.example"), None, "a.example", "/x", true),
        (Some("a.example"), None, "b.example", "/x", false),
        (Some("*.example"), None, "a.b.example", "/x", true),
        (Some("*.example"), None, "example", "/x", false),
        (Some("*.example"), None, "aexample", "/x", false),
        (Some("a"), prefix("/admin"), "a", "/admin/x", true),
        (Some("a"), prefix("/admin"), "a", "/", false),
        (Some("a"), Some(Text::Exact("/x".into())), "a", "/x", true),
        (Some("a"), Some(Text::Exact("/x".into())), "a", "/xy", false),
        (
            None,
            Some(Text::Regex("/v[0-9]+/.*".into())),
            "a",
            "/v12/x",
            true,
        ),
        (
            None,
            Some(Text::Regex("/v[0-9]+".into())),
            "a",
            "/v12/x",
            false,
        ),
    ];
    for (host, path, asked, at, expected) in rows {
        let route = route(host, path);
        assert_eq!(
            request(asked, at).fits(&route),
            expected,
            "{route} {asked}{at}"
        );
    }
    let whole = route(Some("a.example"), None);
    let star = route(Some("*.example"), prefix("/long/path"));
    assert!(Request::rank(&whole) > Request::rank(&star));
    assert!(request("echo.consul.localhost", "/").names("echo"));
    assert!(request("echo", "/").names("Echo"));
    assert!(!request("echoes", "/").names("echo"));
}

#[test]
fn sources_are_told_in_words() {
    let author = Author {
        user: "alice".into(),
        at: SystemTime::UNIX_EPOCH,
    };
    let rows = [
        (
            Source::File {
                path: "/etc/x.toml".into(),
                line: 7,
            },
            "/etc/x.toml:7",
            None,
        ),
        (
            Source::ConsulService {
                service: "echo".into(),
                instance: "n1/echo-1".into(),
                index: 42,
            },
            "Consul service echo, instance n1/echo-1, index 42",
            Some(42),
        ),
        (
            Source::ConsulKey {
                key: "lb/split/echo".into(),
                index: 0,
            },
            "Consul key lb/split/echo, as saved, for Consul has not answered yet",
            Some(0),
        ),
        (
            Source::ConsulEntry {
                kind: "service-splitter",
                name: "echo".into(),
                index: 9,
            },
            "Consul service-splitter echo, index 9",
            Some(9),
        ),
        (Source::Cli(author), "command line, alice", None),
        (Source::Probe(None), "the agent's probes", None),
        (Source::Default, "default", None),
    ];
    for (source, text, index) in rows {
        assert_eq!((source.to_string().as_str(), source.index()), (text, index));
    }
}
