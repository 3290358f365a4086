//! Traefik's rules, as far as they are about hosts and paths: ``Host(`a`, `b`)``,
//! ``PathPrefix(`/p`)`` and ``Path(`/p`)``, joined by `&&`, `||` and parentheses.

use super::{TagRoute, host_name};
use crate::domain::route::Text;

/// Routes of one rule at most; more come of nothing but nested alternatives.
const MOST: usize = 64;
/// Parentheses within parentheses.
const DEEPEST: usize = 16;

/// The alternatives that a rule comes to.
pub(super) fn read(text: &str) -> Result<Vec<TagRoute>, String> {
    let mut rest = Rest { text, depth: 0 };
    let routes = rest.either()?;
    match rest.text.trim_start() {
        "" => Ok(routes),
        left => Err(format!("`{left}` is not expected")),
    }
}

/// What has not been read yet.
struct Rest<'a> {
    text: &'a str,
    depth: usize,
}

impl<'a> Rest<'a> {
    fn take(&mut self, word: &str) -> bool {
        let rest = self.text.trim_start().strip_prefix(word);
        self.text = rest.unwrap_or(self.text);
        rest.is_some()
    }

    fn either(&mut self) -> Result<Vec<TagRoute>, String> {
        let mut routes = self.both()?;
        while self.take("||") {
            routes.extend(self.both()?);
        }
        few(routes)
    }

    fn both(&mut self) -> Result<Vec<TagRoute>, String> {
        let mut routes = self.term()?;
        while self.take("&&") {
            let others = self.term()?;
            let pairs = routes
                .iter()
                .flat_map(|one| others.iter().map(move |other| (one, other)));
            routes = few(pairs.map(joined).collect::<Result<_, _>>()?)?;
        }
        Ok(routes)
    }

    fn term(&mut self) -> Result<Vec<TagRoute>, String> {
        if self.take("(") {
            self.depth += 1;
            if self.depth > DEEPEST {
                return Err("it has too many parentheses".into());
            }
            let routes = self.either()?;
            self.depth -= 1;
            return match self.take(")") {
                true => Ok(routes),
                false => Err("a `)` is missing".into()),
            };
        }
        self.text = self.text.trim_start();
        let end = self
            .text
            .find(|letter: char| !letter.is_ascii_alphanumeric());
        let (name, rest) = self.text.split_at(end.unwrap_or(self.text.len()));
        self.text = rest;
        let route: fn(&str) -> Result<TagRoute, String> = match name {
            "Host" => |text| {
                Ok(TagRoute {
                    host: Some(host_name(text)?),
                    path: None,
                })
            },
            "PathPrefix" => |text| path(Text::Prefix(rooted(text)?)),
            "Path" => |text| path(Text::Exact(rooted(text)?)),
            _ => {
                let what = if name.is_empty() { self.text } else { name };
                return Err(format!(
                    "`{what}` is none of Host, Path and PathPrefix, which are what can be read"
                ));
            }
        };
        self.arguments()?.into_iter().map(route).collect()
    }

    /// Quoted texts in parentheses.
    fn arguments(&mut self) -> Result<Vec<&'a str>, String> {
        let odd = || "what it asks for is not in parentheses and quotes".to_owned();
        if !self.take("(") {
            return Err(odd());
        }
        let mut arguments = Vec::new();
        loop {
            self.text = self.text.trim_start();
            let quote = self.text.chars().next().filter(|c| "`\"'".contains(*c));
            let quote = quote.ok_or_else(odd)?;
            let (argument, rest) = self.text[1..].split_once(quote).ok_or_else(odd)?;
            self.text = rest;
            arguments.push(argument);
            if self.take(")") {
                return Ok(arguments);
            }
            if !self.take(",") {
                return Err(odd());
            }
        }
    }
}

fn few(routes: Vec<TagRoute>) -> Result<Vec<TagRoute>, String> {
    match routes.len() <= MOST {
        true => Ok(routes),
        false => Err(format!("it comes to more than {MOST} routes")),
    }
}

fn path(text: Text) -> Result<TagRoute, String> {
    Ok(TagRoute {
        host: None,
        path: Some(text),
    })
}

fn rooted(text: &str) -> Result<String, String> {
    match text.starts_with('/') {
        true => Ok(text.to_owned()),
        false => Err(format!("the path `{text}` does not begin with `/`")),
    }
}

/// What both ask for.
fn joined((one, other): (&TagRoute, &TagRoute)) -> Result<TagRoute, String> {
    fn the_one<T: Clone>(
        one: &Option<T>,
        other: &Option<T>,
        what: &str,
    ) -> Result<Option<T>, String> {
        match (one, other) {
            (Some(_), Some(_)) => Err(format!("it asks for two {what} at once")),
            (Some(only), None) | (None, Some(only)) => Ok(Some(only.clone())),
            (None, None) => Ok(None),
        }
    }
    Ok(TagRoute {
        host: the_one(&one.host, &other.host, "hosts")?,
        path: the_one(&one.path, &other.path, "paths")?,
    })
}
