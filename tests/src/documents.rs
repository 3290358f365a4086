//! The README and everything under `docs/`, taken apart for the tests that hold them to the code.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A file of Markdown.
pub struct Document {
    /// From the top of the tree.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// A fenced block.
pub struct Block {
    /// The word behind the fence.
    pub language: String,
    /// What is within, without the indentation of the fence.
    pub text: String,
}

/// The top of the tree.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The README and the guides and references.
///
/// # Panics
/// One of them cannot be read.
pub fn all() -> Vec<Document> {
    let mut documents = vec![read("README.md")];
    let mut open = vec!["docs".to_owned()];
    while let Some(directory) = open.pop() {
        let entries = fs::read_dir(top().join(&directory)).expect("a directory of documents");
        for entry in entries {
            let entry = entry.expect("an entry");
            let path = format!("{directory}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                open.push(path);
            } else if path.ends_with(".md") {
                documents.push(read(&path));
            }
        }
    }
    documents.sort_by(|one, other| one.path.cmp(&other.path));
    documents
}

/// One of them.
///
/// # Panics
/// It cannot be read.
pub fn read(path: &str) -> Document {
    let text =
        fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    Document {
        path: path.to_owned(),
        text,
    }
}

impl Document {
    /// The fenced blocks.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<(usize, Block)> = None;
        for line in self.text.lines() {
            let indent = line.len() - line.trim_start().len();
            match (&mut open, line.trim_start().strip_prefix("```")) {
                (None, Some(language)) => {
                    let (language, text) = (language.to_owned(), String::new());
                    open = Some((indent, Block { language, text }));
                }
                (Some(_), Some(_)) => blocks.extend(open.take().map(|(_, block)| block)),
                (Some((indent, block)), None) => {
                    block.text.push_str(line.get(*indent..).unwrap_or_default());
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        blocks
    }

    /// What stands outside of fences.
    pub fn prose(&self) -> String {
        let mut within = false;
        let lines = self.text.lines().filter(|line| {
            let fence = line.trim_start().starts_with("```");
            within ^= fence;
            !within && !fence
        });
        lines.map(|line| format!("{line}\n")).collect()
    }

    /// Code within lines.
    pub fn spans(&self) -> Vec<String> {
        let prose = self.prose();
        let spans = prose.split('`').skip(1).step_by(2);
        // Lines are wrapped within code, too.
        spans
            .map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    }

    /// Targets of links.
    pub fn links(&self) -> Vec<String> {
        let prose = self.prose();
        let targets = prose.split("](").skip(1);
        targets
            .filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()))
            .collect()
    }

    /// What links may name behind `#`: headings as GitHub calls them, and named places.
    pub fn anchors(&self) -> BTreeSet<String> {
        let prose = self.prose();
        let headings = prose.lines().filter_map(|line| {
            let rest = line.trim_start_matches('#');
            (rest.len() < line.len())
                .then(|| rest.strip_prefix(' '))
                .flatten()
        });
        let named = prose.split("<a id=\"").skip(1);
        let named = named.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()));
        headings.map(anchor).chain(named).collect()
    }
}

/// What GitHub calls a heading.
fn anchor(heading: &str) -> String {
    let kept = heading
        .trim()
        .chars()
        .filter(|c| c.is_alphanumeric() || "_- ".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Words of a command line; quotes hold words together.
pub fn words(line: &str) -> Vec<String> {
    line.split('"')
        .enumerate()
        .flat_map(|(index, part)| {
            if index % 2 == 1 {
                vec![part.to_owned()]
            } else {
                part.split_whitespace().map(str::to_owned).collect()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_taken_apart() {
        let text = "# `One`, two\n\n<a id=\"x\"></a>\n\nSee [a](b.md#c) and `lb-agent\nstatus`.\n\n1. x\n\n   ```sh\n   ls\n   ```\n";
        let document = Document {
            path: String::new(),
            text: text.into(),
        };
        let anchors: Vec<String> = document.anchors().into_iter().collect();
        assert_eq!(anchors, ["one-two", "x"]);
        assert_eq!(document.links(), ["b.md#c"]);
        assert_eq!(document.spans(), ["One", "lb-agent status"]);
        let blocks = document.blocks();
        assert_eq!(blocks.len(), 1);
        assert_eq!((&*blocks[0].language, &*blocks[0].text), ("sh", "ls\n"));
        assert_eq!(words("a \"b c\" d"), ["a", "b c", "d"]);
    }
}
