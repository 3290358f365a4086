//! Consul's JSON of `service-router` entries.

use std::time::Duration;

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use super::{Elsewhere, given, ignored, timeout};
use crate::domain::{
    http::routing::whole,
    route::{Destination, Field, Fits, Route, Text},
};

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
    case_insensitive: bool,
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
    contains: Option<String>,
    regex: Option<String>,
    #[serde(default)]
    ignore_case: bool,
    #[serde(default)]
    invert: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireDestination {
    service: Option<String>,
    service_subset: Option<String>,
    prefix_rewrite: Option<String>,
    request_timeout: Option<Value>,
    #[serde(default)]
    num_retries: u32,
    #[serde(default)]
    retry_on_connect_failure: bool,
    retry_on_status_codes: Option<Vec<u16>>,
    retry_on: Option<Value>,
    idle_timeout: Option<Value>,
    request_headers: Option<Value>,
    response_headers: Option<Value>,
    #[serde(flatten)]
    elsewhere: Option<Elsewhere>,
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
        let path = match path {
            // Expressions say it themselves.
            Some(path @ (Text::Exact(_) | Text::Prefix(_))) if self.case_insensitive => {
                Some(whatever_case(&path))
            }
            path => path,
        };
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
        let regex = given(self.regex);
        let is_expression = regex.is_some();
        let text = [
            self.present.then_some(Text::Present),
            given(self.exact).map(Text::Exact),
            given(self.prefix).map(Text::Prefix),
            given(self.suffix).map(Text::Suffix),
            given(self.contains).map(|part| Text::Regex(containing(&part))),
            regex.map(Text::Regex),
        ];
        let text = the_one(text, "Present, Exact, Prefix, Suffix, Contains and Regex")?;
        // Consul takes no condition for "it is there".
        let text = text.unwrap_or(Text::Present);
        Ok(Field {
            text: match self.ignore_case && !is_expression {
                true => whatever_case(&text),
                false => text,
            },
            name: self.name,
            invert: self.invert,
        })
    }
}

impl WireDestination {
    fn into_destination(self, name: &str, fits: &Fits) -> Result<Destination, String> {
        if let Some(field) = self.elsewhere.and_then(|elsewhere| elsewhere.field()) {
            return Err(format!("{field} of its destination is not supported"));
        }
        let rewrite = given(self.prefix_rewrite);
        if let Some(text) = &rewrite {
            rooted("PrefixRewrite", text)?;
            if !matches!(&fits.path, Some(Text::Exact(_) | Text::Prefix(_))) {
                return Err(
                    "PrefixRewrite needs a PathPrefix or PathExact, and no CaseInsensitive".into(),
                );
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
            ignored: ignored([
                ("RetryOn", &self.retry_on),
                ("RequestHeaders", &self.request_headers),
                ("ResponseHeaders", &self.response_headers),
            ]),
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

/// An expression, which fits a text as a whole, for one with this part.
fn containing(part: &str) -> String {
    format!("(?s:.*){}(?s:.*)", regex::escape(part))
}

/// The same condition for small and capital letters alike.
fn whatever_case(text: &Text) -> Text {
    let expression = match text {
        Text::Present => return Text::Present,
        Text::Exact(text) => regex::escape(text),
        Text::Prefix(text) => format!("{}(?s:.*)", regex::escape(text)),
        Text::Suffix(text) => format!("(?s:.*){}", regex::escape(text)),
        Text::Regex(text) => text.clone(),
    };
    Text::Regex(format!("(?i:{expression})"))
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
        // By itself, too: `a)|(b` is none, though something else is made of it between parentheses.
        && let Err(error) = Regex::new(text).map(drop).and(whole(text).map(drop))
    {
        return Err(format!("the expression `{text}` cannot be used: {error}"));
    }
    Ok(first)
}

#[cfg(test)]
mod tests;
