//! Routers as Consul writes them, and what is made of them.

use std::time::Duration;

use super::{
    super::{ConfigEntry, EntryKind, parse},
    *,
};

/// As Consul 1.8.7 writes it.
#[test]
fn a_router_is_read_whole() {
    let body = br#"[{"Kind":"service-router","Name":"web","Routes":[
        {"Match":{"HTTP":{"PathPrefix":"/admin","Header":[
            {"Name":"x-debug","Present":true},{"Name":"x-who","Regex":"^a+$","Invert":true}],
            "QueryParam":[{"Name":"v","Exact":"2"}],"Methods":["get","HEAD"]}},
         "Destination":{"Service":"admin","ServiceSubset":"v2","PrefixRewrite":"/",
            "RequestTimeout":"1.5s","IdleTimeout":"20s","NumRetries":3,"RetryOnConnectFailure":true,
            "RetryOnStatusCodes":[502,503]}},
        {"Match":null,"Destination":{"Service":"web","RequestTimeout":"0s","IdleTimeout":0}}],
        "CreateIndex":7,"ModifyIndex":9}]"#;
    let (entries, invalid) = parse(EntryKind::Router, body).unwrap();
    assert_eq!(invalid, []);
    let ConfigEntry::Router(routes) = &entries["web"] else {
        panic!("{entries:?}");
    };
    let told: Vec<String> = routes.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "GET,HEAD /admin* with header x-debug without header x-who = ~^a+$ with parameter v = 2 to admin.v2",
            "* to the service itself"
        ]
    );
    let to = Destination {
        service: Some("admin".into()),
        subset: Some("v2".into()),
        prefix_rewrite: Some("/".into()),
        timeout: Some(Duration::from_millis(1500)),
        connect: None,
        per_try: None,
        idle: Some(Duration::from_secs(20)),
        retries: Some(3),
        retry_on_connect_failure: true,
        retry_on_status: vec![502, 503],
        ignored: Vec::new(),
    };
    assert_eq!(routes[0].to, to);
    assert_eq!(routes[1].to, Destination::default());
}

/// As Consul 1.18 writes them: what conditions have that those of older ones do not.
#[test]
fn parts_of_texts_and_either_case() {
    let rows = [
        (
            r#"{"PathExact":"/a.b","CaseInsensitive":true}"#,
            r"~(?i:/a\.b)",
        ),
        (
            r#"{"PathPrefix":"/A","CaseInsensitive":true}"#,
            "~(?i:/A(?s:.*))",
        ),
        (r#"{"PathRegex":"/a+","CaseInsensitive":true}"#, "~/a+"),
        (
            r#"{"Header":[{"Name":"x","Contains":"a.","Regex":""}]}"#,
            r"* with header x = ~(?s:.*)a\.(?s:.*)",
        ),
        (
            r#"{"Header":[{"Name":"x","Contains":"a","IgnoreCase":true}]}"#,
            "* with header x = ~(?i:(?s:.*)a(?s:.*))",
        ),
        (
            r#"{"Header":[{"Name":"x","Suffix":"a","IgnoreCase":true}]}"#,
            "* with header x = ~(?i:(?s:.*)a)",
        ),
        (
            r#"{"Header":[{"Name":"x","Regex":"a","IgnoreCase":true}]}"#,
            "* with header x = ~a",
        ),
    ];
    for (http, expected) in rows {
        let body = format!(r#"[{{"Name":"web","Routes":[{{"Match":{{"HTTP":{http}}}}}]}}]"#);
        let (entries, invalid) = parse(EntryKind::Router, body.as_bytes()).unwrap();
        let Some(ConfigEntry::Router(routes)) = entries.get("web") else {
            panic!("{invalid:?}");
        };
        let told = routes[0].to_string();
        assert_eq!(told, format!("{expected} to the service itself"));
    }
}

#[test]
fn what_is_ignored_is_named() {
    let body = br#"[{"Name":"web","Routes":[
        {"Destination":{"RetryOn":["reset"],
            "RequestHeaders":{"Set":{"a":"1"}},"ResponseHeaders":{"Remove":["b"]}}},
        {"Destination":{"RetryOn":[],"IdleTimeout":"0s","RequestHeaders":{"Add":null},
            "ResponseHeaders":null,"Namespace":"default"}}]}]"#;
    let (entries, invalid) = parse(EntryKind::Router, body).unwrap();
    let Some(ConfigEntry::Router(routes)) = entries.get("web") else {
        panic!("{invalid:?}");
    };
    let all = ["RetryOn", "RequestHeaders", "ResponseHeaders"];
    assert_eq!(routes[0].to.ignored, all);
    assert_eq!(routes[1].to, Destination::default());
}

/// Rows of a match and a destination that cannot be used, and what is said of it.
#[test]
fn a_bad_route_is_named() {
    let rows = [
        (
            r#"{"PathExact":"/a","PathPrefix":"/b"}"#,
            "{}",
            "route 1: of PathExact, PathPrefix",
        ),
        (r#"{"PathPrefix":"a"}"#, "{}", "a path is `a`"),
        (r#"{"PathRegex":"("}"#, "{}", "`(` cannot be used"),
        (
            r#"{"PathRegex":"/a)|(?:/b"}"#,
            "{}",
            "`/a)|(?:/b` cannot be used",
        ),
        (
            r#"{"PathRegex":"(?x)/a # b"}"#,
            "{}",
            "`(?x)/a # b` cannot be used",
        ),
        (
            r#"{"Header":[{"Exact":"1"}]}"#,
            "{}",
            "a header has no name",
        ),
        (
            r#"{"Header":[{"Name":"x","Exact":"1","Prefix":"2"}]}"#,
            "{}",
            "only one can be given",
        ),
        (r#"{"Methods":["GE T"]}"#, "{}", "`GE T` is no method"),
        ("{}", r#"{"PrefixRewrite":"/"}"#, "needs a PathPrefix"),
        (
            r#"{"PathPrefix":"/a"}"#,
            r#"{"PrefixRewrite":"b"}"#,
            "PrefixRewrite is `b`",
        ),
        (
            "{}",
            r#"{"RequestTimeout":"soon"}"#,
            "its RequestTimeout is \"soon\"",
        ),
        ("{}", r#"{"RetryOnStatusCodes":[99]}"#, "99 is no status"),
        (
            r#"{"PathPrefix":"/a","CaseInsensitive":true}"#,
            r#"{"PrefixRewrite":"/"}"#,
            "and no CaseInsensitive",
        ),
        (
            r#"{"Header":[{"Name":"x","Contains":"1","Exact":"2"}]}"#,
            "{}",
            "only one can be given",
        ),
        (
            "{}",
            r#"{"Service":"x","Namespace":"team"}"#,
            "Namespace of its destination is not supported",
        ),
    ];
    for (http, to, part) in rows {
        let body = format!(
            r#"[{{"Name":"web","Routes":[{{"Match":{{"HTTP":{http}}},"Destination":{to}}}]}}]"#
        );
        let (entries, invalid) = parse(EntryKind::Router, body.as_bytes()).unwrap();
        assert!(entries.is_empty(), "{body}");
        let told = invalid[0].to_string();
        assert!(told.contains(part) && told.contains("`web`"), "{told}");
    }
}
