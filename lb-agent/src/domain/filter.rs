//! Consul's filter expressions, as far as they choose instances of a service.
//!
//! A `service-resolver` names the members of a subset by such an expression. It is evaluated here
//! and not by Consul (`filter=` of a question), because then all subsets of a service come from
//! one answer: no instance is in two subsets or in none for a moment, no subset costs a connection,
//! and instances that Consul lists no longer, but that are kept, stay in theirs.
//!
//! The grammar is that of Consul's documentation (api-docs/features/filtering): `==`, `!=`,
//! `in`, `not in`, `contains`, `not contains`, `is empty`, `is not empty`, `matches`,
//! `not matches`, joined by `and`, `or`, `not` and parentheses. Of the selectors those of
//! [`select`]: what tells one instance from another, its node, and its checks. As in Consul, a test
//! of `Checks.FIELD` holds if it does for any check: `Checks.Status != passing` means that one
//! does not pass, `not Checks.Status == passing` that none does. An entry that a map does not have
//! matches no regular expression, as to all Consuls but old ones (1.8), to which it matches any.

mod parse;
mod select;

use std::fmt;

use regex::Regex;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::select::{Selector, Value};
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
    Test {
        selector: Selector,
        operator: Operator,
        /// Whether it holds where the operator does not.
        negated: bool,
    },
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

    /// Whether it asks about what only [`Instance::detail`] knows.
    pub fn needs_detail(&self) -> bool {
        self.root.needs_detail()
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
            Node::Test {
                selector,
                operator,
                negated,
            } => selector.any(instance, |value| operator.holds(&value) != *negated),
        }
    }

    fn needs_detail(&self) -> bool {
        match self {
            Node::And(a, b) | Node::Or(a, b) => a.needs_detail() || b.needs_detail(),
            Node::Not(inner) => inner.needs_detail(),
            Node::Test { selector, .. } => selector.needs_detail(),
        }
    }
}

impl Operator {
    fn holds(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Operator::Equals(wanted), Value::Text(text)) => text == wanted,
            (Operator::Matches(regex), Value::Text(text)) => regex.is_match(text),
            (Operator::Has(part), Value::Text(text)) => text.contains(part.as_str()),
            (Operator::Has(element), Value::List(list)) => list.contains(element),
            (Operator::Has(key), Value::Map(map)) => map.contains_key(key),
            (Operator::Has(key), Value::Addresses(map)) => map.contains_key(key),
            (Operator::IsEmpty, Value::Text(text)) => text.is_empty(),
            (Operator::IsEmpty, Value::List(list)) => list.is_empty(),
            (Operator::IsEmpty, Value::Map(map)) => map.is_empty(),
            (Operator::IsEmpty, Value::Addresses(map)) => map.is_empty(),
            (Operator::IsEmpty, Value::Count(count)) => *count == 0,
            (Operator::IsEmpty, Value::Absent) => true,
            (Operator::Equals(_) | Operator::Matches(_) | Operator::Has(_), _) => false,
        }
    }
}

#[cfg(test)]
mod mutated;
#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::domain::{
        backend::{CatalogHealth, InstanceId},
        detail::{Check, Detail},
    };

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
            detail: Some(Arc::new(Detail {
                service: "web".into(),
                weights: (3, 1),
                node_address: "10.0.0.7".into(),
                datacenter: "dc1".into(),
                node_meta: [("zone".into(), "a".into()), ("r-k".into(), "7".into())].into(),
                checks: [("alive", "passing", "s1"), ("serf", "warning", "")]
                    .map(|(name, status, service)| Check {
                        id: format!("c:{name}"),
                        name: name.into(),
                        status: status.into(),
                        service_id: service.into(),
                        ..Check::default()
                    })
                    .into(),
                ..Detail::default()
            })),
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
            // The node's address is no address of its own.
            ("Service.Address == \"\"", true),
            ("Service.Weights.Passing == 3", true),
            ("Node.Datacenter == dc1 and Service.Service == web", true),
            ("Node.Meta.zone == a", true),
            ("Node.Meta[\"r-k\"] != 7", false),
            ("Node.Meta.other != 7", true),
            ("zone in Node.Meta", true),
            ("Node.Meta is empty", false),
            ("Checks is empty", false),
            ("Checks.Status == passing", true),
            ("Checks.Status != passing", true),
            ("not Checks.Status == passing", false),
            ("Checks.Status == critical", false),
            ("Checks.Status not matches \"ing$\"", false),
            ("Checks.ServiceID == \"\"", true),
            ("Checks.CheckID contains alive", true),
            ("Checks.ServiceTags is not empty", false),
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

    /// What the file lists has neither node nor checks.
    #[test]
    fn who_has_no_detail_is_asked_all_the_same() {
        let bare = Instance {
            detail: None,
            ..instance()
        };
        let rows = [
            ("Service.Address == 10.0.0.7", true),
            ("Service.Weights.Passing == 1", true),
            ("Node.Meta is empty and Checks is empty", true),
            ("Node.Meta.zone != a", true),
            ("Checks.Status != passing", false),
        ];
        for (text, expected) in rows {
            let filter = Filter::parse(text).unwrap();
            assert_eq!(filter.matches(&bare), expected, "{text}");
            assert!(filter.needs_detail(), "{text}");
        }
        let filter = Filter::parse("Service.Meta.a == b or not v1 in Service.Tags").unwrap();
        assert!(!filter.needs_detail());
    }

    /// Rows of texts that are refused, and a part of the reason.
    #[test]
    fn what_cannot_be_evaluated_is_refused_with_a_reason() {
        let rows = [
            ("", "ends where"),
            ("Service.Tags", "ends where an operator"),
            ("Service.Tags == v1", "`Service.Tags` is a list"),
            ("Service.Meta matches v1", "`Service.Meta` is a list"),
            ("Checks.Definition == a", "`Checks.Definition` is not known"),
            ("Checks contains a", "only `is empty`"),
            ("Checks.ServiceTags == v1", "`Checks.ServiceTags` is a list"),
            ("Node.Zone == a", "`Node.Zone` is not known"),
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
