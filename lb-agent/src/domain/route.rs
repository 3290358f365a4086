//! Routes of Consul's service-router and of the configuration: which requests of a service go to which other service or
//! subset, and how. They are for the proxy; the kernel balances connections and reads none.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::http::policy::Timeouts;

/// A route. Of a router's routes the first that fits a request counts; a request that none fits
/// goes to the service itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Which requests it is for: all of this must hold.
    pub fits: Fits,
    /// Where they go.
    pub to: Destination,
}

/// Conditions on a request; without any it fits every one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fits {
    /// On its path.
    pub path: Option<Text>,
    /// On its headers, by name.
    pub headers: Vec<Field>,
    /// On the parameters behind its path, by name.
    pub query: Vec<Field>,
    /// Its method is one of these; none given: any.
    pub methods: Vec<String>,
}

/// A condition on a text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Text {
    /// It is there at all.
    Present,
    /// It is this.
    Exact(String),
    /// It begins so.
    Prefix(String),
    /// It ends so.
    Suffix(String),
    /// This expression fits it. It has been compiled once, so it can be.
    Regex(String),
}

/// A condition on a header or a parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// What is asked of it.
    pub text: Text,
    /// The opposite is asked.
    pub invert: bool,
}

/// Where requests go, and how they are treated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Name in Consul; `None`: the service that is routed.
    pub service: Option<String>,
    /// One of its subsets; `None`: what its splitter and resolver say.
    pub subset: Option<String>,
    /// What stands in the path instead of the prefix that fitted.
    pub prefix_rewrite: Option<String>,
    /// How long an answer may take, all tries together; `None`: as everywhere.
    pub timeout: Option<Duration>,
    /// How long a connection may take to come about; `None`: as everywhere.
    #[serde(default)]
    pub connect: Option<Duration>,
    /// How long one try may take; `None`: as everywhere.
    #[serde(default)]
    pub per_try: Option<Duration>,
    /// How long nothing may come within a request; `None`: as everywhere.
    #[serde(default)]
    pub idle: Option<Duration>,
    /// Tries after the first; `None`: as everywhere.
    #[serde(default)]
    pub retries: Option<u32>,
    /// One of them where no connection came about.
    pub retry_on_connect_failure: bool,
    /// One of them on these answers.
    pub retry_on_status: Vec<u16>,
    /// Fields of Consul's that nothing is made of.
    #[serde(default)]
    pub ignored: Vec<String>,
}

impl Destination {
    /// Those of the route where it has its own, else those of the service.
    pub fn timeouts(&self, of_service: &Timeouts) -> Timeouts {
        Timeouts {
            connect: self.connect.unwrap_or(of_service.connect),
            per_try: self.per_try.or(of_service.per_try),
            total: self.timeout.unwrap_or(of_service.total),
            idle: self.idle.unwrap_or(of_service.idle),
        }
    }
}

impl Route {
    /// The path (and query) that backends see instead of the one that came; `None`: the same.
    pub fn rewritten(&self, target: &str) -> Option<String> {
        let rewrite = self.to.prefix_rewrite.as_deref()?;
        let (Text::Exact(prefix) | Text::Prefix(prefix)) = self.fits.path.as_ref()? else {
            return None;
        };
        let rest = target.strip_prefix(prefix.as_str())?;
        // `/a` for `/` makes `/a/x` of `/x`, and `/` for `/a` the same of `/a/x`.
        let (rewrite, slash) = match (rewrite.strip_suffix('/'), rest.as_bytes().first()) {
            (Some(shorter), Some(b'/')) => (shorter, ""),
            (None, Some(first)) if *first != b'/' && *first != b'?' && prefix.ends_with('/') => {
                (rewrite, "/")
            }
            _ => (rewrite, ""),
        };
        let rooted = [rewrite, slash, rest].concat();
        // Nothing for `/a` leaves no path, or none that begins as one.
        Some(match rooted.starts_with('/') {
            true => rooted,
            false => format!("/{rooted}"),
        })
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Text::Present => f.write_str("any"),
            Text::Exact(text) => f.write_str(text),
            Text::Prefix(text) => write!(f, "{text}*"),
            Text::Suffix(text) => write!(f, "*{text}"),
            Text::Regex(text) => write!(f, "~{text}"),
        }
    }
}

/// In short, for people: `GET /admin* with header x-canary to admin.v2`.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fits {
            path,
            headers,
            query,
            methods,
        } = &self.fits;
        if !methods.is_empty() {
            write!(f, "{} ", methods.join(","))?;
        }
        match path {
            Some(path) => write!(f, "{path}")?,
            None => f.write_str("*")?,
        }
        for (what, fields) in [("header", headers), ("parameter", query)] {
            for field in fields {
                let with = if field.invert { "without" } else { "with" };
                write!(f, " {with} {what} {}", field.name)?;
                if field.text != Text::Present {
                    write!(f, " = {}", field.text)?;
                }
            }
        }
        match (&self.to.service, &self.to.subset) {
            (Some(service), Some(subset)) => write!(f, " to {service}.{subset}"),
            (Some(service), None) => write!(f, " to {service}"),
            (None, Some(subset)) => write!(f, " to subset {subset}"),
            (None, None) => f.write_str(" to the service itself"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of what fitted, what stands for it, what came and what backends see.
    #[test]
    fn paths_are_rewritten() {
        let rows = [
            (Text::Prefix("/a".into()), "/", "/a/x?y=1", Some("/x?y=1")),
            (Text::Prefix("/a".into()), "/", "/a", Some("/")),
            (Text::Prefix("/a".into()), "/", "/a?y", Some("/?y")),
            (Text::Prefix("/a".into()), "/", "/ab", Some("/b")),
            (Text::Prefix("/a/".into()), "/", "/a/x", Some("/x")),
            (Text::Prefix("/a/".into()), "/b", "/a/x", Some("/b/x")),
            (Text::Prefix("/a/".into()), "/b", "/a/", Some("/b")),
            (Text::Prefix("/a".into()), "/b", "/a/x", Some("/b/x")),
            (Text::Prefix("/".into()), "/b/", "/x", Some("/b/x")),
            (Text::Prefix("/".into()), "/b", "/x", Some("/b/x")),
            (Text::Prefix("/a".into()), "", "/a/x", Some("/x")),
            (Text::Prefix("/a".into()), "", "/a?q", Some("/?q")),
            (Text::Prefix("/a".into()), "", "/a", Some("/")),
            (Text::Exact("/a".into()), "/b", "/a?q", Some("/b?q")),
            (Text::Suffix(".png".into()), "/b", "/a.png", None),
        ];
        for (path, rewrite, target, expected) in rows {
            let route = Route {
                fits: Fits {
                    path: Some(path.clone()),
                    ..Fits::default()
                },
                to: Destination {
                    prefix_rewrite: Some(rewrite.into()),
                    ..Destination::default()
                },
            };
            let seen = route.rewritten(target);
            assert_eq!(seen.as_deref(), expected, "{path} {rewrite} {target}");
        }
    }

    #[test]
    fn a_route_in_short() {
        let field = |name: &str, text, invert| Field {
            name: name.into(),
            text,
            invert,
        };
        let mut route = Route {
            fits: Fits {
                path: Some(Text::Prefix("/admin".into())),
                headers: vec![field("x-canary", Text::Present, false)],
                query: vec![field("old", Text::Exact("1".into()), true)],
                methods: vec!["GET".into(), "HEAD".into()],
            },
            to: Destination {
                service: Some("admin".into()),
                subset: Some("v2".into()),
                ..Destination::default()
            },
        };
        assert_eq!(
            route.to_string(),
            "GET,HEAD /admin* with header x-canary without parameter old = 1 to admin.v2"
        );
        route.fits = Fits::default();
        route.to = Destination::default();
        assert_eq!(route.to_string(), "* to the service itself");
    }
}
