//! Resolvers as Consul writes them, and what is made of them.

use super::{
    super::{ConfigEntry, EntryKind, parse},
    *,
};

/// The resolver of `web` with these fields.
fn read(fields: &str) -> Result<Resolver, String> {
    let body = format!(r#"[{{"Kind":"service-resolver","Name":"web",{fields}}}]"#);
    let (mut entries, invalid) = parse(EntryKind::Resolver, body.as_bytes()).unwrap();
    match entries.remove("web") {
        Some(ConfigEntry::Resolver(resolver)) => Ok(resolver),
        _ => Err(invalid[0].to_string()),
    }
}

fn shown(targets: &[Target]) -> Vec<String> {
    targets.iter().map(ToString::to_string).collect()
}

/// As Consul 1.15 writes it.
#[test]
fn targets_of_a_failover_in_their_order() {
    let resolver = read(
        r#""Failover":{"*":{"Service":"","Datacenters":null,"Targets":[
            {"Service":"backup","ServiceSubset":"v2","Namespace":"default","Partition":"default"},
            {"Service":"far","Peer":"dc9"},
            {"Datacenter":"dc2"},
            {"ServiceSubset":"old","Namespace":"team"},
            {"ServiceSubset":"v2","Datacenter":"dc2"}]},
          "v1":{"Targets":[{"Peer":"dc9"}]},
          "v2":{"Service":"spare","SamenessGroup":"near"},
          "v3":{"Targets":[]}}"#,
    )
    .unwrap();
    assert_eq!(
        shown(&resolver.failover["*"]),
        ["backup, subset v2", "web, datacenter dc2"]
    );
    // There is an entry for it, so that of the others does not count.
    assert_eq!(resolver.failover["v1"], []);
    assert_eq!(resolver.failover["v2"], []);
    assert_eq!(shown(&resolver.failover["v3"]), ["web"]);
    assert_eq!(
        resolver.left_out,
        [
            "target 2 of the Failover of * is left out: Peer is not supported",
            "target 4 of the Failover of * is left out: Namespace is not supported",
            "target 5 of the Failover of * is left out: a ServiceSubset of a datacenter is not supported",
            "target 1 of the Failover of v1 is left out: Peer is not supported",
            "the Failover of v2 is left out: SamenessGroup is not supported",
        ]
    );
    assert_eq!(resolver.ignored, [""; 0]);
}

/// Rows of what would have another meaning here, and what is said of it.
#[test]
fn what_cannot_be_followed_is_refused() {
    for (fields, part) in [
        (
            r#""Failover":{"*":{"Service":"a","Targets":[{"Service":"b"}]}}"#,
            "has Targets beside a Service",
        ),
        (
            r#""Failover":{"*":{"Datacenters":["a"],"Targets":[{"Service":"b"}]}}"#,
            "has Targets beside a Service",
        ),
        (
            r#""Redirect":{"Service":"a","Peer":"dc9"}"#,
            "Peer of its Redirect is not supported",
        ),
        (
            r#""Redirect":{"Service":"a","Partition":"p"}"#,
            "Partition of its Redirect",
        ),
    ] {
        let told = read(fields).unwrap_err();
        assert!(told.contains(part) && told.contains("`web`"), "{told}");
    }
    let redirect = read(r#""Redirect":{"Service":"a","Namespace":"default"}"#);
    assert!(redirect.unwrap().redirect.is_some());
}

#[test]
fn what_is_ignored_is_named() {
    for (fields, expected) in [
        (r#""LoadBalancer":null,"RequestTimeout":"0s""#, &[][..]),
        (r#""LoadBalancer":{"Policy":"least_request"}"#, &[]),
        (
            r#""LoadBalancer":{"Policy":"maglev","HashPolicies":[{"SourceIP":true}]}"#,
            &["LoadBalancer"],
        ),
        (
            r#""RequestTimeout":"5s","PrioritizeByLocality":{"Mode":"failover"}"#,
            &["PrioritizeByLocality"],
        ),
        (
            r#""Failover":{"*":{"Service":"b","Policy":{"Mode":"order-by-locality"}}}"#,
            &["Policy of the Failover of *"],
        ),
    ] {
        assert_eq!(read(fields).unwrap().ignored, expected, "{fields}");
    }
}

/// Rows of how requests are bound to backends, and by what they are here.
#[test]
fn what_requests_are_bound_by() {
    let header = |name: &str| Some(HashBy::Header(name.into()));
    let cookie = |name: &str| Some(HashBy::Cookie(name.into()));
    for (balancer, expected) in [
        (
            r#"{"Policy":"maglev","HashPolicies":[{"Field":"header","FieldValue":"X-User"}]}"#,
            header("x-user"),
        ),
        (
            r#"{"Policy":"ring_hash","RingHashConfig":{"MinimumRingSize":9},"HashPolicies":[
                {"Field":"cookie","FieldValue":"lb","CookieConfig":{"Session":true},"SourceIP":false}]}"#,
            cookie("lb"),
        ),
        (
            r#"{"Policy":"maglev","HashPolicies":[
                {"Field":"cookie","FieldValue":"lb","CookieConfig":{"TTL":"1h","Path":"/"}}]}"#,
            cookie("lb"),
        ),
        // The service sets it.
        (
            r#"{"Policy":"maglev","HashPolicies":[{"Field":"cookie","FieldValue":"JSESSIONID"}]}"#,
            None,
        ),
        (
            r#"{"Policy":"maglev","HashPolicies":[{"Field":"header","FieldValue":"a b"}]}"#,
            None,
        ),
        (
            r#"{"Policy":"maglev","HashPolicies":[{"Field":"query_parameter","FieldValue":"u"}]}"#,
            None,
        ),
        (
            r#"{"Policy":"maglev","HashPolicies":[{"SourceIP":true}]}"#,
            None,
        ),
        (
            r#"{"Policy":"maglev","HashPolicies":[
                {"Field":"header","FieldValue":"a"},{"Field":"header","FieldValue":"b"}]}"#,
            None,
        ),
        (
            r#"{"Policy":"random","HashPolicies":[{"Field":"header","FieldValue":"a"}]}"#,
            None,
        ),
        (r#"{"Policy":"maglev"}"#, None),
    ] {
        let resolver = read(&format!(r#""LoadBalancer":{balancer}"#)).unwrap();
        let hash = resolver.requests.and_then(|requests| requests.hash);
        assert_eq!(hash, expected, "{balancer}");
        let told = expected.is_none() && !balancer.contains("random");
        assert_eq!(resolver.ignored.len(), usize::from(told), "{balancer}");
    }
    let resolver = read(r#""RequestTimeout":"5s","ConnectTimeout":0"#).unwrap();
    let requests = resolver.requests.unwrap();
    assert_eq!(requests.timeout, Some(std::time::Duration::from_secs(5)));
    assert_eq!(requests.hash, None);
    assert_eq!(resolver.connect_timeout, None);
    assert!(
        read(r#""RequestTimeout":"soon""#)
            .unwrap_err()
            .contains("its RequestTimeout is")
    );
}
