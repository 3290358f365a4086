//! What each source file begins with, and what must not be left in it.

use super::{
    Finding,
    lexer::{Source, Token},
};

/// Checks one file.
pub(super) fn check(path: &str, text: &str, source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |line, rule: &str| {
        findings.push(Finding {
            path: path.into(),
            line,
            rule: rule.into(),
        });
    };
    if !text.starts_with("//!") {
        find(
            1,
            "must begin with a `//!` comment that says what the file is for",
        );
    }
    let tokens = source.tokens();
    for window in tokens.windows(3) {
        match window
            .iter()
            .map(|Token { text, .. }| *text)
            .collect::<Vec<_>>()[..]
        {
            ["todo", "!", _] => find(window[0].line, "`todo!` left in"),
            ["unimplemented", "!", _] => find(window[0].line, "`unimplemented!` left in"),
            ["#", "[", "ignore"] => {
                find(
                    window[0].line,
                    "`#[ignore]`: a test is run, mended or removed",
                );
            }
            _ => {}
        }
    }
    findings
}
