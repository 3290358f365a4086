//! Consul's JSON of `service-router` entries.

use std::time::Duration;

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use super::{given, timeout};
use crate::domain::route::{Destination, Field, Fits, Route, Text};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct WireRouter {
    routes: Option<Vec<WireRoute>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireRoute {
    r#match: Option<WireMatch>,
    destination: Option<WireDestination>,
}

#[derive(Deserialize)]
struct WireMatch {
    #[serde(rename = "HTTP")]
    http: Option<WireHttp>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct WireHttp {
    path_exact: Option<String>,
    path_prefix: Option<String>,
    path_regex: Option<String>,
    header: Option<Vec<WireField>>,
    query_param: Option<Vec<WireField>>,
    methods: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireField {
    #[serde(default)]
    name: String,
    #[serde(default)]
    present: bool,
    exact: Option<String>,
    prefix: Option<String>,
    suffix: Option<String>,
    regex: Option<String>,
    #[serde(default)]
    invert: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct WireDestination {
    service: Option<String>,
    service_subset: Option<String>,
    prefix_rewrite: Option<String>,
    request_timeout: Option<Value>,
    idle_timeout: Option<Value>,
    num_retries: u32,
    retry_on_connect_failure: bool,
    retry_on_status_codes: Option<Vec<u16>>,
}

impl WireRouter {
    /// The routes of the service `name`, or what is wrong with one of them, in words.
    pub(super) fn into_routes(self, name: &str) -> Result<Vec<Route>, String> {
        let routes = self.routes.unwrap_or_default().into_iter().enumerate();
        let read = |(index, wire): (usize, WireRoute)| {
            let http = wire.r#match.and_then(|wire| wire.http).unwrap_or_default();
            let route = http.into_fits().and_then(|fits| {
                let to = wire.destination.unwrap_or_default();
                let to = to.into_destination(name, &fits)?;
                Ok(Route { fits, to })
            });
            route.map_err(|reason| format!("route {}: {reason}", index + 1))
        };
        routes.map(read).collect()
    }
}

impl WireHttp {
    fn into_fits(self) -> Result<Fits, String> {
        let path = [
            given(self.path_exact).map(Text::Exact),
            given(self.path_prefix).map(Text::Prefix),
            given(self.path_regex).map(Text::Regex),
        ];
        let path = the_one(path, "PathExact, PathPrefix and PathRegex")?;
        if let Some(Text::Exact(text) | Text::Prefix(text)) = &path {
            rooted("a path", text)?;
        }
        let fields = |fields: Option<Vec<WireField>>, what| {
            let fields = fields.unwrap_or_default().into_iter();
            let read = fields.map(|field| field.into_field(what));
            read.collect::<Result<Vec<_>, _>>()
        };
        let methods = self.methods.unwrap_or_default();
        let is_odd = |method: &&String| {
            method.is_empty() || !method.bytes().all(|letter| letter.is_ascii_alphabetic())
        };
        if let Some(odd) = methods.iter().find(is_odd) {
            return Err(format!("`{odd}` is no method"));
        }
        Ok(Fits {
            path,
            headers: fields(self.header, "header")?,
            query: fields(self.query_param, "parameter")?,
            methods: methods.iter().map(|m| m.to_ascii_uppercase()).collect(),
        })
    }
}

impl WireField {
    fn into_field(self, what: &str) -> Result<Field, String> {
        if self.name.is_empty() {
            return Err(format!("a {what} has no name"));
        }
        let text = [
            self.present.then_some(Text::Present),
            given(self.exact).map(Text::Exact),
            given(self.prefix).map(Text::Prefix),
            given(self.suffix).map(Text::Suffix),
            given(self.regex).map(Text::Regex),
        ];
        let text = the_one(text, "Present, Exact, Prefix, Suffix and Regex")?;
        Ok(Field {
            // Consul takes no condition for "it is there".
            text: text.unwrap_or(Text::Present),
            name: self.name,
            invert: self.invert,
        })
    }
}

impl WireDestination {
    fn into_destination(self, name: &str, fits: &Fits) -> Result<Destination, String> {
        let rewrite = given(self.prefix_rewrite);
        if let Some(text) = &rewrite {
            rooted("PrefixRewrite", text)?;
            if !matches!(&fits.path, Some(Text::Exact(_) | Text::Prefix(_))) {
                return Err("PrefixRewrite needs a PathPrefix or PathExact".into());
            }
        }
        let wait = time("RequestTimeout", self.request_timeout)?;
        let idle = time("IdleTimeout", self.idle_timeout)?;
        let codes = self.retry_on_status_codes.unwrap_or_default();
        if let Some(odd) = codes.iter().find(|code| !(100..=599).contains(*code)) {
            return Err(format!("{odd} is no status of an answer"));
        }
        Ok(Destination {
            service: given(self.service).filter(|service| service != name),
            subset: given(self.service_subset),
            prefix_rewrite: rewrite,
            timeout: wait,
            connect: None,
            per_try: None,
            idle,
            // Consul writes 0 for what was not given.
            retries: Some(self.num_retries).filter(|retries| *retries > 0),
            retry_on_connect_failure: self.retry_on_connect_failure,
            retry_on_status: codes,
        })
    }
}

/// Consul writes 0 for what was not given.
fn time(what: &str, value: Option<Value>) -> Result<Option<Duration>, String> {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    let time = timeout(&value).ok_or_else(|| format!("its {what} is {value}"))?;
    Ok(Some(time).filter(|time| !time.is_zero()))
}

fn rooted(what: &str, text: &str) -> Result<(), String> {
    match text.starts_with('/') {
        true => Ok(()),
        false => Err(format!("{what} is `{text}`, which does not begin with `/`")),
    }
}

/// The condition that is given, if one is; an expression only if it can be used.
fn the_one<const N: usize>(given: [Option<Text>; N], names: &str) -> Result<Option<Text>, String> {
    let mut given = given.into_iter().flatten();
    let first = given.next();
    if given.next().is_some() {
        return Err(format!("of {names} only one can be given"));
    }
    if let Some(Text::Regex(text)) = &first
        && let Err(error) = Regex::new(text)
    {
        return Err(format!("the expression `{text}` cannot be used: {error}"));
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
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
        };
        assert_eq!(routes[0].to, to);
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
}
