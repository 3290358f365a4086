//! `cargo xtask tidy`: the rules about the source tree that no compiler knows, each a check.
//!
//! The rules look at what git knows or would add, so build products and editors' files don't
//! count. Each finding is one line, `file:line: rule`.

use std::{collections::BTreeMap, fmt, fs, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{run, workspace};

mod imports;
mod layout;
mod lexer;
mod unsafe_code;
mod wording;

/// The source tree in memory: path from the top, with `/`, to content. Content that is not text
/// is empty.
type Tree = BTreeMap<String, String>;

/// One breach of one rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    /// Counted from 1.
    line: usize,
    rule: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.rule)
    }
}

/// Checks the tree and prints what it finds.
///
/// # Errors
/// There are findings, or the tree cannot be read.
pub(crate) fn run() -> Result<()> {
    let findings = check(&read_tree()?);
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        1 => bail!("tidy: one finding, listed above"),
        count => bail!("tidy: {count} findings, listed above"),
    }
}

fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = layout::check_top_level(tree);
    for (path, text) in tree {
        findings.extend(layout::check_file(path, text));
        if path.ends_with(".rs") {
            let source = lexer::Source::read(text);
            findings.extend(imports::check(path, &source));
            findings.extend(unsafe_code::check(path, &source));
            findings.extend(wording::check(path, text, &source));
        }
    }
    findings.sort();
    findings
}

fn read_tree() -> Result<Tree> {
    let root = workspace::root();
    let mut list = Command::new("git");
    list.current_dir(&root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let list = run::output("list the files of the tree", &mut list)?;
    let mut tree = Tree::new();
    for path in list.split_terminator('\0') {
        let file = root.join(path);
        // Deleted but not yet committed, or a link to somewhere else.
        if !fs::symlink_metadata(&file).is_ok_and(|file| file.is_file()) {
            continue;
        }
        let bytes = fs::read(&file).with_context(|| format!("could not read {path}"))?;
        tree.insert(path.into(), String::from_utf8(bytes).unwrap_or_default());
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree without findings.
    fn tidy_tree() -> Tree {
        let mut tree = Tree::new();
        for path in ["Cargo.lock", "README.md", ".gitignore", "compose/README.md"] {
            tree.insert(path.into(), String::new());
        }
        for path in [
            "docs/README.md",
            "vagrant/README.md",
            "proto/lb/v1/agent.proto",
        ] {
            tree.insert(path.into(), String::new());
        }
        tree.insert("Cargo.toml".into(), "[workspace]\n".into());
        for name in ["xtask", "lb-agent", "lb-common", "tests"] {
            tree.insert(
                format!("{name}/Cargo.toml"),
                format!("[package]\nname = \"{name}\"\n\n[lints]\nworkspace = true\n"),
            );
            tree.insert(format!("{name}/src/lib.rs"), "//! For a purpose.\n".into());
        }
        tree.insert("lb-ebpf/Cargo.toml".into(), "[package]\n".into());
        tree
    }

    fn findings_with(path: &str, text: &str) -> Vec<String> {
        let mut tree = tidy_tree();
        tree.insert(path.into(), text.into());
        check(&tree).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_tidy_tree_has_no_findings() {
        assert_eq!(check(&tidy_tree()), []);
    }

    #[test]
    fn what_the_rules_allow() {
        let rows = [
            ("rustfmt.toml", ""),
            ("deny.toml", ""),
            (
                "lb-agent/src/source/file.rs",
                "//! F.\nuse crate::domain::probe;\n",
            ),
            (
                "lb-agent/src/source/file.rs",
                "//! crate::probe in words\n// crate::probe\n",
            ),
            (
                "lb-agent/src/run.rs",
                "//! F.\nuse crate::{probe, source};\n",
            ),
            ("lb-agent/src/datapath/load.rs", "//! F.\nuse aya::Ebpf;\n"),
            (
                "lb-agent/src/datapath/load.rs",
                "//! F.\n// SAFETY: it is.\nlet a =\n    unsafe { b() };\n",
            ),
            (
                "lb-common/src/a.rs",
                "//! F.\n/// # Safety\n/// Don't.\n#[inline]\npub unsafe fn f() {}\n",
            ),
            (
                "lb-ebpf/src/a.rs",
                "//! F.\n#[unsafe(no_mangle)]\nfn f(g: unsafe extern \"C\" fn()) {}\n",
            ),
            (
                "lb-agent/src/a.rs",
                "//! F.\nconst A: &str = r#\"unsafe todo!() \"x\"#;\n",
            ),
            (
                "lb-agent/src/a.rs",
                "//! F.\n/* unsafe { /* todo!() */ } */\nfn f<'a>() {}\n",
            ),
        ];
        for (path, text) in rows {
            assert_eq!(findings_with(path, text), [""; 0], "{path}: {text}");
        }
    }

    #[test]
    fn what_the_rules_find() {
        let long = "//! F.\n".to_string() + &"\n".repeat(400);
        let rows = [
            ("notes/README.md", "", 1, "top level"),
            ("Makefile", "", 1, "top level"),
            ("lb-agent/src/utils.rs", "//! F.\n", 1, "called `utils`"),
            ("lb-agent/src/types/mod.rs", "//! F.\n", 1, "called `types`"),
            ("lb-agent/src/a.rs", "fn f() {}\n", 1, "`//!`"),
            ("lb-agent/src/a.rs", &long, 401, "longer than 400 lines"),
            (
                "xtask/Cargo.toml",
                "[package]\n[lints]\n[x]\nworkspace = true\n",
                1,
                "[lints]",
            ),
            (
                "lb-agent/src/domain/a.rs",
                "//! F.\nuse tokio::sync;\n",
                2,
                "names `tokio`",
            ),
            (
                "lb-agent/src/domain/a.rs",
                "//! F.\n\nuse crate::api;\n",
                3,
                "names `crate::api`",
            ),
            (
                "lb-agent/src/source/a.rs",
                "//! F.\nuse crate::probe::X;\n",
                2,
                "`probe`",
            ),
            (
                "lb-agent/src/probe.rs",
                "//! F.\nuse crate::{\n    domain::{a, b},\n    proxy::C,\n};\n",
                4,
                "`proxy`",
            ),
            (
                "lb-agent/src/proxy/a.rs",
                "//! F.\nuse super::super::source::C;\n",
                2,
                "`source`",
            ),
            (
                "lb-agent/src/controller/a.rs",
                "//! F.\nfn f(e: aya::Ebpf) {}\n",
                2,
                "names `aya`",
            ),
            (
                "lb-agent/src/a.rs",
                "//! F.\n// SAFETY: x\nunsafe { f() }\n",
                3,
                "no `unsafe`",
            ),
            (
                "lb-ebpf/src/a.rs",
                "//! F.\nfn f() {\n    unsafe { g() }\n}\n",
                3,
                "SAFETY",
            ),
            (
                "lb-ebpf/src/a.rs",
                "//! F.\n// SAFETY: a.\nlet a = unsafe { f() };\nlet b = unsafe { f() };\n",
                4,
                "SAFETY",
            ),
            (
                "lb-ebpf/src/a.rs",
                "//! F.\n/// Does.\npub unsafe fn f() {}\n",
                3,
                "# Safety",
            ),
            (
                "lb-common/src/a.rs",
                "//! F.\nunsafe impl A for B {}\n",
                2,
                "SAFETY",
            ),
            (
                "tests/src/a.rs",
                "//! F.\nfn f() { todo!() }\n",
                2,
                "`todo!`",
            ),
            (
                "tests/src/a.rs",
                "//! F.\n#[ignore = \"slow\"]\nfn f() {}\n",
                2,
                "`#[ignore]`",
            ),
        ];
        for (path, text, line, rule) in rows {
            let findings = findings_with(path, text);
            assert!(
                findings.len() == 1
                    && findings[0].starts_with(&format!("{path}:{line}: "))
                    && findings[0].contains(rule),
                "{path}: {text:?} should be found for {rule:?} only: {findings:?}"
            );
        }
    }

    #[test]
    fn what_must_be_there_is_missed() {
        let mut tree = tidy_tree();
        tree.remove("compose/README.md");
        let findings = check(&tree);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].to_string().starts_with("compose:1: "));
    }
}
