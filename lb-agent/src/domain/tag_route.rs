//! Routes that a service asks for by its tags in Consul, as fabio (`urlprefix-web.example/path`) and
//! Traefik (``traefik.http.routers.web.rule=Host(`web.example`)``) read them.
//!
//! They opt a service in, and the proxy routes by them.

mod rule;

use std::{collections::BTreeSet, fmt};

use super::route::Text;

/// Hosts and paths whose requests a service asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TagRoute {
    /// Name of the host in small letters, which may begin with `*.`; `None`: any host.
    pub host: Option<String>,
    /// The path, or how it begins; `None`: any.
    pub path: Option<Text>,
}

/// `web.example/admin*`; `*` for any host.
impl fmt::Display for TagRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.host.as_deref().unwrap_or("*"))?;
        match &self.path {
            Some(path) => write!(f, "{path}"),
            None => f.write_str("/*"),
        }
    }
}

/// What fabio's tags begin with.
const FABIO: &str = "urlprefix-";
/// The same of Traefik's, up to the router's name.
const TRAEFIK: &str = "traefik.http.routers.";

/// Whether any of the tags asks for a route.
pub fn any(tags: &[String]) -> bool {
    asking(tags).next().is_some()
}

/// All routes that the tags ask for, and a sentence on each tag that cannot be read.
pub fn read(tags: &[String]) -> (BTreeSet<TagRoute>, Vec<String>) {
    let (mut routes, mut unread) = (BTreeSet::new(), Vec::new());
    for (tag, wish) in asking(tags) {
        let found = match wish {
            Wish::Fabio(text) => fabio(text).map(|route| vec![route]),
            Wish::Traefik(text) => rule::read(text),
        };
        match found {
            Ok(found) => routes.extend(found),
            Err(reason) => unread.push(format!("its tag {tag} is not followed: {reason}")),
        }
    }
    (routes, unread)
}

enum Wish<'a> {
    Fabio(&'a str),
    Traefik(&'a str),
}

/// Tags that ask for a route.
fn asking(tags: &[String]) -> impl Iterator<Item = (&str, Wish<'_>)> {
    let hidden = tags.iter().any(|tag| tag == "traefik.enable=false");
    tags.iter().filter_map(move |tag| {
        let wish = match tag.strip_prefix(FABIO) {
            Some(text) => Wish::Fabio(text),
            None => {
                let (router, rule) = tag.strip_prefix(TRAEFIK)?.split_once(".rule=")?;
                if hidden || router.is_empty() {
                    return None;
                }
                Wish::Traefik(rule)
            }
        };
        Some((tag.as_str(), wish))
    })
}

/// `HOST/PATH` and options behind it, which say how fabio is to treat requests.
fn fabio(text: &str) -> Result<TagRoute, String> {
    let mut words = text.split_whitespace();
    let source = words.next().unwrap_or_default();
    let streams = ["proto=tcp", "proto=tcp+sni", "proto=tcp-dynamic"];
    if words.any(|word| streams.contains(&word)) {
        return Err("it asks for connections, not for requests; `lb-vip` in the meta does".into());
    }
    let Some((host, path)) = source.split_once('/') else {
        return Err(format!("`{source}` is not of the form HOST/PATH"));
    };
    Ok(TagRoute {
        host: match host {
            "" => None,
            host => Some(host_name(host)?),
        },
        path: match path {
            "" => None,
            path => Some(Text::Prefix(format!("/{path}"))),
        },
    })
}

/// The name of a host in small letters, without the port that requests may carry; it may begin with
/// `*.`.
///
/// # Errors
///
/// It is none; a sentence.
pub fn host_name(text: &str) -> Result<String, String> {
    let name = match text.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => text,
    };
    let labels = name.strip_prefix("*.").unwrap_or(name);
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.chars().all(fits);
    match name.len() <= 253 && labels.split('.').all(is_label) {
        true => Ok(name.to_ascii_lowercase()),
        false => Err(format!("`{text}` is no name of a host")),
    }
}

#[cfg(test)]
mod tests;
