//! Who may name whom inside the agent.

use super::{
    Finding,
    lexer::{Source, Token},
};

/// The parts that meet only through channels, wired in `run`.
const AREAS: [&str; 4] = ["source", "probe", "datapath", "proxy"];

/// What decisions must not depend on.
const IMPURE: [&str; 4] = ["tokio", "aya", "hyper", "tonic"];

/// Checks one file of the agent; other crates have no such rules.
pub(super) fn check(path: &str, source: &Source) -> Vec<Finding> {
    let Some(inside) = path.strip_prefix("lb-agent/src/") else {
        return Vec::new();
    };
    let part = inside.split(['/', '.']).next().unwrap_or(inside);
    let tokens = source.tokens();
    let mut findings = Vec::new();
    let mut find = |line, rule| {
        findings.push(Finding {
            path: path.into(),
            line,
            rule,
        });
    };

    for token in &tokens {
        if part == "domain" && IMPURE.iter().any(|name| is_crate(token, name)) {
            let rule = format!("names `{}`: domain/ is pure", token.text);
            find(token.line, rule);
        } else if part != "datapath" && is_crate(token, "aya") {
            let rule = format!("names `{}`: only datapath/ does", token.text);
            find(token.line, rule);
        }
    }
    for (root, named) in named_through_crate(&tokens) {
        if part == "domain" && root == "crate" && named.text != "domain" {
            let rule = format!("names `crate::{}`: domain/ knows nothing else", named.text);
            find(named.line, rule);
        } else if AREAS.contains(&part) && AREAS.contains(&named.text) && named.text != part {
            let rule = format!("names `{}`: {part} knows domain, not {0}", named.text);
            find(named.line, rule);
        }
    }
    findings
}

/// Whether the token is the name of a crate or of one of its companions, such as `aya_obj`.
fn is_crate(token: &Token<'_>, name: &str) -> bool {
    token
        .text
        .strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// The first name behind each `crate::` and each chain of `super::`, with the word the path
/// begins with; of a group in braces, the first name of each of its paths.
fn named_through_crate<'a>(tokens: &[Token<'a>]) -> Vec<(&'a str, Token<'a>)> {
    let mut named = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        if !matches!(token.text, "crate" | "super") {
            continue;
        }
        let Some(rest) = after_colons(&tokens[index + 1..]) else {
            continue;
        };
        match rest.first() {
            Some(first) if first.text == "{" => {
                named.extend(group_heads(rest).map(|head| (token.text, head)));
            }
            // The next of the chain is looked at in its turn.
            Some(first) if first.text != "super" => named.push((token.text, *first)),
            _ => {}
        }
    }
    named
}

fn after_colons<'t, 'a>(tokens: &'t [Token<'a>]) -> Option<&'t [Token<'a>]> {
    match tokens {
        [first, second, rest @ ..] if first.text == ":" && second.text == ":" => Some(rest),
        _ => None,
    }
}

/// `group` begins with the opening brace.
fn group_heads<'t, 'a>(group: &'t [Token<'a>]) -> impl Iterator<Item = Token<'a>> + use<'t, 'a> {
    let mut depth = 0;
    let mut at_head = false;
    group
        .iter()
        .map_while(move |token| {
            let head = at_head && depth == 1;
            at_head = false;
            match token.text {
                "{" => {
                    depth += 1;
                    at_head = depth == 1;
                }
                "}" => depth -= 1,
                "," => at_head = depth == 1,
                _ if head => return Some(Some(*token)),
                _ => {}
            }
            (depth > 0).then_some(None)
        })
        .flatten()
}
