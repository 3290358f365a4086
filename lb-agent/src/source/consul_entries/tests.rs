//! Bodies as a Consul 1.8.7 writes them, and what is made of them.

use super::*;
use crate::domain::filter::Filter;

#[test]
fn a_resolver_is_read_whole() {
    let body = br#"[{"Kind":"service-resolver","Name":"web","DefaultSubset":"v1",
        "Subsets":{"v1":{"Filter":"Service.Meta.version == v1"},"all":{"OnlyPassing":true},
                   "odd":{"Filter":"Node.Zone == a"}},
        "Redirect":{"Service":"other","ServiceSubset":"v9","Datacenter":"dc2"},
        "Failover":{"*":{"Service":"spare"},"v1":{"Datacenters":["dc2","dc3"]}},
        "ConnectTimeout":"1m30s","CreateIndex":7,"ModifyIndex":9}]"#;
    let (entries, invalid) = parse(EntryKind::Resolver, body).unwrap();
    assert_eq!(invalid, []);
    let ConfigEntry::Resolver(resolver) = &entries["web"] else {
        panic!("{entries:?}");
    };
    assert_eq!(resolver.default_subset.as_deref(), Some("v1"));
    assert_eq!(resolver.connect_timeout, Some(Duration::from_secs(90)));
    let filter = Filter::parse("Service.Meta.version == v1").unwrap();
    assert_eq!(resolver.subsets["v1"].filter, Ok(Some(filter)));
    assert_eq!(resolver.subsets["all"].filter, Ok(None));
    assert!(resolver.subsets["all"].only_passing);
    let reason = resolver.subsets["odd"].filter.clone().unwrap_err();
    assert!(reason.contains("`Node.Zone` is not known"), "{reason}");
    let redirect = resolver.redirect.as_ref().unwrap().to_string();
    assert_eq!(redirect, "other, subset v9, datacenter dc2");
    let failover = |subset| {
        let targets = resolver.failover[subset].iter().map(ToString::to_string);
        targets.collect::<Vec<_>>()
    };
    assert_eq!(failover("*"), ["spare"]);
    assert_eq!(
        failover("v1"),
        ["web, datacenter dc2", "web, datacenter dc3"]
    );
}

#[test]
fn splitters_and_defaults_are_read() {
    let body = br#"[{"Kind":"service-splitter","Name":"web","Splits":[
        {"Weight":89.95,"ServiceSubset":"v1"},{"Weight":10.05,"Service":"other"},
        {"Weight":0,"Service":"web"}]}]"#;
    let (entries, invalid) = parse(EntryKind::Splitter, body).unwrap();
    assert_eq!(invalid, []);
    let leg = |share, service: Option<&str>, subset: Option<&str>| Leg {
        share,
        service: service.map(Into::into),
        subset: subset.map(Into::into),
        ignored: Vec::new(),
    };
    let legs = vec![
        leg(8995, None, Some("v1")),
        leg(1005, Some("other"), None),
        leg(0, None, None),
    ];
    assert_eq!(entries["web"], ConfigEntry::Splitter(legs));

    let body = br#"[{"Kind":"service-defaults","Name":"web","Protocol":"http","MeshGateway":{}},
        {"Kind":"service-defaults","Name":"db"}]"#;
    let (entries, _) = parse(EntryKind::Defaults, body).unwrap();
    assert_eq!(entries["web"], ConfigEntry::Defaults("http".into()));
    assert_eq!(entries["db"], ConfigEntry::Defaults(String::new()));
    assert_eq!(parse(EntryKind::Defaults, b"null").unwrap().0.len(), 0);
}

/// Rows of an entry that cannot be used, and what is said of it. The other one is read.
#[test]
fn one_bad_entry_is_left_out_and_named() {
    let good = r#"{"Name":"good","Splits":[{"Weight":100}]}"#;
    let rows = [
        (r#"{"Name":"bad","Splits":[{"Weight":101}]}"#, "101"),
        (r#"{"Name":"bad","Splits":[{"Weight":-1}]}"#, "-1"),
        (
            r#"{"Name":"bad","Splits":[]}"#,
            "all weights in `bad` are 0",
        ),
        (r#"{"Name":"bad","Splits":7}"#, "`bad` has not the form"),
        (r#"{"Splits":7}"#, "`entry 1` has not the form"),
        ("7", "`entry 1` has not the form"),
    ];
    for (bad, part) in rows {
        let body = format!("[{bad},{good}]");
        let (entries, invalid) = parse(EntryKind::Splitter, body.as_bytes()).unwrap();
        assert!(entries.contains_key("good"), "{bad}");
        let [error] = &invalid[..] else {
            panic!("{bad}: {invalid:?}");
        };
        assert!(error.to_string().contains(part), "{bad}: {error}");
    }
    assert!(parse(EntryKind::Splitter, b"{}").is_err());
    let odd = br#"[{"Name":"bad","ConnectTimeout":"soon"}]"#;
    let (_, invalid) = parse(EntryKind::Resolver, odd).unwrap();
    assert!(
        invalid[0]
            .to_string()
            .contains("ConnectTimeout is \"soon\"")
    );
}

#[test]
fn what_is_ignored_of_a_split_is_named() {
    let body = br#"[{"Name":"web","Splits":[
        {"Weight":50,"RequestHeaders":{"Set":{"x":"1"}},"ResponseHeaders":{"Add":{}}},
        {"Weight":50,"ServiceSubset":"v2","Namespace":"default","ResponseHeaders":{"Add":{"x":"1"}}}]}]"#;
    let (entries, invalid) = parse(EntryKind::Splitter, body).unwrap();
    let Some(ConfigEntry::Splitter(legs)) = entries.get("web") else {
        panic!("{invalid:?}");
    };
    let ignored: Vec<_> = legs.iter().map(|leg| &leg.ignored[..]).collect();
    assert_eq!(ignored, [["RequestHeaders"], ["ResponseHeaders"]]);
    let elsewhere = br#"[{"Name":"web","Splits":[{"Weight":100,"Partition":"p"}]}]"#;
    let (_, invalid) = parse(EntryKind::Splitter, elsewhere).unwrap();
    let told = invalid[0].to_string();
    assert_eq!(
        told,
        "`web` cannot be followed: Partition of a split is not supported"
    );
}

#[test]
fn keys_and_names_are_read() {
    let body = br#"[{"Key":"lb/split/echo","Value":"djE9OTAgdjI9MTA=","ModifyIndex":12},
        {"Key":"lb/block/","Value":null,"ModifyIndex":3}]"#;
    let keys = parse_keys(body).unwrap();
    let split = KeyValue {
        text: "v1=90 v2=10".into(),
        index: 12,
    };
    assert_eq!(keys["split/echo"], split);
    assert_eq!(keys["block/"].text, "");
    let names = parse_names(br#"{"consul":[],"web":["b","a"],"db":null}"#).unwrap();
    assert_eq!(names["web"], ["a", "b"]);
    assert_eq!(names.len(), 3);
}

#[test]
fn base64_both_ways() {
    for (plain, text) in [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("\u{ff}~?", "w79+Pw=="),
    ] {
        assert_eq!(to_base64(plain.as_bytes()), text);
        assert_eq!(base64(text), plain.as_bytes());
    }
}
