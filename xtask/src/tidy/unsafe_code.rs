//! Where `unsafe` may stand, and that each one says why it is sound.
//!
//! Clippy checks the comments too, and more finely, but only where its lints are on; this covers
//! every file, whatever target and feature it is built for.

use super::{Finding, lexer::Source};

/// Where `unsafe` may stand, and why there.
const ALLOWED: [(&str, &str); 5] = [
    ("lb-ebpf/", "packets and maps are pointers in the kernel"),
    ("lb-common/", "implements aya's marker of plain data"),
    (
        "lb-agent/src/datapath/",
        "system calls and memory shared with the kernel",
    ),
    (
        "lb-agent/src/proxy/front/accepted.rs",
        "a listening socket is watched without the runtime taking its connections",
    ),
    ("tests/", "namespaces and raw sockets are system calls"),
];

/// Checks each `unsafe` of one file.
pub(super) fn check(path: &str, source: &Source) -> Vec<Finding> {
    let tokens = source.tokens();
    let mut findings = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        if token.text != "unsafe" {
            continue;
        }
        let next = |offset: usize| tokens.get(index + offset).map_or("", |token| token.text);
        // `extern "C"` is three tokens: the word and the two quotes of the emptied literal.
        let after = if next(1) == "extern" { 4 } else { 1 };
        let is_function = next(after) == "fn";
        // `#[unsafe(no_mangle)]` and the type `unsafe fn()` do nothing unsafe.
        if next(1) == "(" || is_function && next(after + 1) == "(" {
            continue;
        }
        let rule = if !ALLOWED.iter().any(|(prefix, _)| path.starts_with(prefix)) {
            "no `unsafe` here: only in lb-ebpf, lb-common, lb-agent/src/datapath, the proxy's \
             accepted.rs and tests"
        } else if is_function && !is_explained(source, token.line, "# Safety") {
            "this `unsafe fn` needs a `# Safety` section in its documentation"
        } else if !is_function && !is_explained(source, token.line, "SAFETY:") {
            "this `unsafe` needs a `// SAFETY:` comment above it"
        } else {
            continue;
        };
        findings.push(Finding {
            path: path.into(),
            line: token.line,
            rule: rule.into(),
        });
    }
    findings
}

/// Whether `mark` stands in a comment on `line` (from 1) or above the statement it is part of.
fn is_explained(source: &Source, line: usize, mark: &str) -> bool {
    if source.comments[line - 1].contains(mark) {
        return true;
    }
    for above in (0..line - 1).rev() {
        let code = source.code[above].trim();
        if !code.is_empty() {
            // Attributes belong to what follows; anything else that ends here is another
            // statement, and its comment another's.
            if !code.starts_with("#[") && code.ends_with([';', '{', '}']) {
                return false;
            }
        } else if source.comments[above].is_empty() {
            return false;
        }
        if source.comments[above].contains(mark) {
            return true;
        }
    }
    false
}
