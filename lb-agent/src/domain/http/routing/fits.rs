//! The conditions of a route, made ready: expressions are compiled once.

use std::{borrow::Cow, fmt};

use http::{HeaderName, Method};
use regex::bytes::Regex;

use super::RequestHead;
use crate::domain::route::{Field, Fits, Text};

/// Conditions that a head can be held against at once.
#[derive(Debug)]
pub(super) struct Ready {
    methods: Vec<Method>,
    path: Option<ReadyText>,
    headers: Vec<ReadyField<HeaderName>>,
    query: Vec<ReadyField<String>>,
}

/// The first condition that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// The method is another.
    Method,
    /// The path is another.
    Path,
    /// That of the header at this place.
    Header(usize),
    /// That of the parameter at this place.
    Query(usize),
}

#[derive(Debug)]
struct ReadyField<N> {
    /// `None`: nothing can have this name.
    name: Option<N>,
    text: ReadyText,
    invert: bool,
}

#[derive(Debug)]
enum ReadyText {
    Present,
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Regex(Regex),
    /// An expression that cannot be compiled fits nothing.
    Never,
}

/// An expression that must fit all of a text, as those of Consul and Envoy.
///
/// # Errors
///
/// It cannot be compiled.
pub fn whole(expression: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!("^(?:{expression})$"))
}

impl ReadyText {
    fn new(text: &Text) -> Self {
        match text {
            Text::Present => Self::Present,
            Text::Exact(text) => Self::Exact(text.as_str().into()),
            Text::Prefix(text) => Self::Prefix(text.as_str().into()),
            Text::Suffix(text) => Self::Suffix(text.as_str().into()),
            Text::Regex(text) => whole(text).map_or(Self::Never, Self::Regex),
        }
    }

    fn fits(&self, value: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(text) => text.as_bytes() == value,
            Self::Prefix(text) => value.starts_with(text.as_bytes()),
            Self::Suffix(text) => value.ends_with(text.as_bytes()),
            Self::Regex(expression) => expression.is_match(value),
            Self::Never => false,
        }
    }
}

impl<N> ReadyField<N> {
    fn new(field: &Field, name: Option<N>) -> Self {
        Self {
            name,
            text: ReadyText::new(&field.text),
            invert: field.invert,
        }
    }

    /// Whether one of the values fits, or none if the opposite is asked.
    fn holds<'v>(&self, mut values: impl Iterator<Item = Cow<'v, [u8]>>) -> bool {
        values.any(|value| self.text.fits(&value)) != self.invert
    }
}

impl Ready {
    pub(super) fn new(fits: &Fits) -> Self {
        let method = |name: &String| Method::from_bytes(name.as_bytes()).ok();
        let header = |field: &Field| ReadyField::new(field, field.name.parse().ok());
        let parameter = |field: &Field| ReadyField::new(field, Some(field.name.clone()));
        Self {
            methods: fits.methods.iter().filter_map(method).collect(),
            path: fits.path.as_ref().map(ReadyText::new),
            headers: fits.headers.iter().map(header).collect(),
            query: fits.query.iter().map(parameter).collect(),
        }
    }

    /// The first condition that does not hold of the head.
    pub(super) fn misfit(&self, head: &RequestHead<'_>) -> Option<Misfit> {
        if !self.methods.is_empty() && !self.methods.contains(head.method) {
            return Some(Misfit::Method);
        }
        if let Some(path) = &self.path
            && !path.fits(head.path.as_bytes())
        {
            return Some(Misfit::Path);
        }
        let header = self.headers.iter().position(|field| {
            let values = field.name.iter();
            let values = values.flat_map(|name| head.headers.get_all(name));
            !field.holds(values.map(|value| Cow::Borrowed(value.as_bytes())))
        });
        if let Some(place) = header {
            return Some(Misfit::Header(place));
        }
        let parameter = self.query.iter().position(|field| {
            let query = head.query.unwrap_or_default();
            let all = form_urlencoded::parse(query.as_bytes());
            let own = all.filter(|(name, _)| Some(name.as_ref()) == field.name.as_deref());
            !field.holds(own.map(|(_, value)| match value {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            }))
        });
        parameter.map(Misfit::Query)
    }
}

/// Why a route does not fit, for people.
pub(super) struct Told<'a>(pub(super) Misfit, pub(super) &'a Fits);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(misfit, fits) = self;
        let field = |f: &mut fmt::Formatter<'_>, what: &str, field: &Field| {
            let not = if field.invert {
                "must not be"
            } else {
                "is not"
            };
            match (&field.text, field.invert) {
                (Text::Present, false) => write!(f, "there is no {what} {}", field.name),
                (Text::Present, true) => write!(f, "there is a {what} {}", field.name),
                (text, _) => write!(f, "{what} {} {not} {text}", field.name),
            }
        };
        match misfit {
            Misfit::Method => write!(f, "the method is not {}", fits.methods.join(" or ")),
            Misfit::Path => match &fits.path {
                Some(path) => write!(f, "the path is not {path}"),
                None => f.write_str("the path is another"),
            },
            Misfit::Header(place) => field(f, "header", &fits.headers[*place]),
            Misfit::Query(place) => field(f, "parameter", &fits.query[*place]),
        }
    }
}
