//! Consul's filter expressions, as far as they choose instances of a service.
//!
//! A `service-resolver` names the members of a subset by such an expression. It is evaluated here
//! and not by Consul (`filter=` of a question), because then all subsets of a service come from
//! one answer: no instance is in two subsets or in none for a moment, no subset costs a connection,
//! and instances that Consul lists no longer, but that are kept, stay in theirs.
//!
//! The grammar is that of Consul's documentation (api-docs/features/filtering): `==`, `!=`,
//! `in`, `not in`, `contains`, `not contains`, `is empty`, `is not empty`, `matches`,
//! `not matches`, joined by `and`, `or`, `not` and parentheses. Of the selectors those that an
//! instance is known by: `Service.Tags`, `Service.Meta.KEY`, `Service.Meta["KEY"]`, `Service.ID`,
//! `Service.Port`, `Service.Address`, `Node.Node`.

mod parse;

use std::fmt;

use regex::Regex;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::backend::Instance;

/// An expression that can be evaluated.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Filter {
    text: String,
    root: Node,
}

/// Why a text is no such expression.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the filter `{text}` cannot be used: {reason}")]
pub struct InvalidFilter {
    /// As given.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

#[derive(Clone, Debug)]
enum Node {
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Test(Selector, Operator),
}

/// What an expression can ask about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Selector {
    Tags,
    Meta,
    MetaEntry(String),
    Id,
    Port,
    Address,
    NodeName,
}

#[derive(Clone, Debug)]
enum Operator {
    Equals(String),
    /// The value is among the elements, keys or letters.
    Has(String),
    Matches(Regex),
    IsEmpty,
}

impl Filter {
    /// Reads an expression.
    ///
    /// # Errors
    ///
    /// It is not of the grammar, or asks about what is not known of an instance.
    pub fn parse(text: &str) -> Result<Self, InvalidFilter> {
        let invalid = |reason| InvalidFilter {
            text: text.to_owned(),
            reason,
        };
        Ok(Self {
            text: text.to_owned(),
            root: parse::expression(text).map_err(invalid)?,
        })
    }

    /// Whether the expression holds for an instance.
    pub fn matches(&self, instance: &Instance) -> bool {
        self.root.holds(instance)
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Filter {}

impl TryFrom<String> for Filter {
    type Error = InvalidFilter;

    fn try_from(text: String) -> Result<Self, InvalidFilter> {
        Self::parse(&text)
    }
}

impl From<Filter> for String {
    fn from(filter: Filter) -> Self {
        filter.text
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Node {
    fn holds(&self, instance: &Instance) -> bool {
        match self {
            Node::And(a, b) => a.holds(instance) && b.holds(instance),
            Node::Or(a, b) => a.holds(instance) || b.holds(instance),
            Node::Not(inner) => !inner.holds(instance),
            Node::Test(selector, operator) => test(selector, operator, instance),
        }
    }
}

fn test(selector: &Selector, operator: &Operator, instance: &Instance) -> bool {
    let (node, id) = instance
        .id
        .0
        .split_once('/')
        .unwrap_or(("", &instance.id.0));
    let text = match selector {
        Selector::Tags => {
            return match operator {
                Operator::Has(value) => instance.tags.contains(value),
                Operator::IsEmpty => instance.tags.is_empty(),
                Operator::Equals(_) | Operator::Matches(_) => false,
            };
        }
        Selector::Meta => {
            return match operator {
                Operator::Has(key) => instance.meta.contains_key(key),
                Operator::IsEmpty => instance.meta.is_empty(),
                Operator::Equals(_) | Operator::Matches(_) => false,
            };
        }
        // As in Consul: a key that is not there equals nothing, and is empty.
        Selector::MetaEntry(key) => match instance.meta.get(key) {
            Some(value) => value.clone(),
            None => return matches!(operator, Operator::IsEmpty),
        },
        Selector::Id => id.to_owned(),
        Selector::Port => instance.address.port().to_string(),
        Selector::Address => instance.address.ip().to_string(),
        Selector::NodeName => node.to_owned(),
    };
    match operator {
        Operator::Equals(value) => text == *value,
        Operator::Has(part) => text.contains(part.as_str()),
        Operator::Matches(regex) => regex.is_match(&text),
        Operator::IsEmpty => text.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::backend::{CatalogHealth, InstanceId};

    fn instance() -> Instance {
        Instance {
            id: InstanceId("n1/web-1".into()),
            address: "10.0.0.7:8080".parse().unwrap(),
            weight: 1,
            tags: vec!["v2".into(), "blue".into()].into(),
            meta: std::collections::BTreeMap::from(
                [("version", "2.1"), ("a-b", "x y"), ("none", "")]
                    .map(|(key, value)| (key.to_owned(), value.to_owned())),
            )
            .into(),
            subset: None,
            health: CatalogHealth::Passing,
        }
    }

    /// Rows of expressions, and whether they hold for the instance above.
    #[test]
    fn expressions_are_evaluated() {
        let rows = [
            ("Service.Meta.version == 2.1", true),
            ("Service.Meta.version == \"2.1\"", true),
            ("Service.Meta.version==`2.1`", true),
            ("Service.Meta.version != \"2.1\"", false),
            ("Service.Meta[\"a-b\"] == \"x y\"", true),
            ("Service.Meta.other == \"\"", false),
            ("Service.Meta.other != v1", true),
            ("Service.Meta.other is empty", true),
            ("Service.Meta.none is empty", true),
            ("Service.Meta.version is not empty", true),
            ("v2 in Service.Tags", true),
            ("\"v1\" in Service.Tags", false),
            ("v1 not in Service.Tags", true),
            ("Service.Tags contains blue", true),
            ("Service.Tags not contains blue", false),
            ("Service.Tags is empty", false),
            ("version in Service.Meta", true),
            ("Service.Meta is not empty", true),
            ("Service.Meta.version matches \"^2[.]\"", true),
            ("Service.Meta.version not matches \"^2\"", false),
            ("Service.ID == web-1 and Node.Node == n1", true),
            ("Service.Port == 8080", true),
            ("Service.Address == 10.0.0.8 or Service.Port == 1", false),
            ("not Service.Port == 1", true),
            ("not (v2 in Service.Tags)", false),
            // `and` binds closer than `or`.
            (
                "v2 in Service.Tags or v1 in Service.Tags and x in Service.Tags",
                true,
            ),
            (
                "(v2 in Service.Tags or v1 in Service.Tags) and x in Service.Tags",
                false,
            ),
        ];
        for (text, expected) in rows {
            let filter = Filter::parse(text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(filter.matches(&instance()), expected, "{text}");
        }
    }

    /// Rows of texts that are refused, and a part of the reason.
    #[test]
    fn what_cannot_be_evaluated_is_refused_with_a_reason() {
        let rows = [
            ("", "ends where"),
            ("Service.Tags", "ends where an operator"),
            ("Service.Tags == v1", "`Service.Tags` is a list"),
            ("Service.Meta matches v1", "`Service.Meta` is a list"),
            ("Checks.Status == passing", "`Checks.Status` is not known"),
            ("Node.Meta.zone == a", "`Node.Meta.zone` is not known"),
            ("Service.Meta.a == ", "ends where a value"),
            ("Service.Meta.a == b c", "`c` is too much"),
            ("(Service.Meta.a == b", "a `)` is missing"),
            ("Service.Meta.a == \"b", "a quote is not closed"),
            ("Service.Meta.a is b", "after `is`"),
            ("Service.Meta.a ~ b", "`~`"),
            ("v1 in", "ends where a selector"),
            ("Service.Meta.a matches \"[\"", "no regular expression"),
        ];
        for (text, part) in rows {
            let error = Filter::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
        // Depth is bounded: a filter must not end the agent.
        for (text, times) in [
            ("not ", 900),
            ("(", 3_000),
            ("a in Service.Tags or ", 9_000),
        ] {
            let deep = format!("{}a in Service.Tags", text.repeat(times));
            assert!(Filter::parse(&deep).is_err(), "{text}");
        }
    }
}
