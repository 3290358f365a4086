//! Requests, and which of the routes that services ask for fit them.

use std::fmt;

use http::{HeaderMap, Method};

use crate::domain::{http::routing::RequestHead, route::Text, tag_route::TagRoute};

/// Requests for a path of a host, as far as tags and routers decide on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// In small letters, without a port.
    pub host: String,
    /// Begins with a slash.
    pub path: String,
    /// What follows `?`.
    pub query: Option<String>,
    /// The method.
    pub method: Method,
    /// The headers.
    pub headers: HeaderMap,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.path)
    }
}

impl Request {
    /// As routes see it.
    pub fn head(&self) -> RequestHead<'_> {
        RequestHead {
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            method: &self.method,
            headers: &self.headers,
        }
    }

    /// Whether a tag's route asks for them.
    pub fn fits(&self, route: &TagRoute) -> bool {
        let host = match route.host.as_deref() {
            None => true,
            Some(host) => match host.strip_prefix("*.") {
                // One label or more in the place of the star.
                Some(domain) => self
                    .host
                    .strip_suffix(domain)
                    .and_then(|rest| rest.strip_suffix('.'))
                    .is_some_and(|labels| !labels.is_empty()),
                None => host == self.host,
            },
        };
        host && self.path_fits(&route.path)
    }

    /// Whether a condition on paths holds.
    pub fn path_fits(&self, path: &Option<Text>) -> bool {
        match path {
            None | Some(Text::Present) => true,
            Some(Text::Exact(text)) => *text == self.path,
            Some(Text::Prefix(text)) => self.path.starts_with(text),
            Some(Text::Suffix(text)) => self.path.ends_with(text),
            // Consul's routers mean all of the path.
            Some(Text::Regex(text)) => regex::Regex::new(&format!("^(?:{text})$"))
                .is_ok_and(|one| one.is_match(&self.path)),
        }
    }

    /// Whether the host is a service's name, by itself or as the first part of one.
    pub fn names(&self, service: &str) -> bool {
        let rest = self.host.strip_prefix(&service.to_ascii_lowercase());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// How particular a route is: a whole name before a star before none, a long path before a
    /// short one.
    pub fn rank(route: &TagRoute) -> (u8, usize) {
        let host = match route.host.as_deref() {
            None => 0,
            Some(host) if host.starts_with("*.") => 1,
            Some(_) => 2,
        };
        let path = match &route.path {
            Some(Text::Exact(text)) => text.len() * 2 + 1,
            Some(Text::Prefix(text) | Text::Suffix(text) | Text::Regex(text)) => text.len() * 2,
            _ => 0,
        };
        (host, path)
    }
}
