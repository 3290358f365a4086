//! Enough of Rust's lexical grammar to tell code from comments and literals.

/// A source file, split line by line into its code and its comments.
pub(super) struct Source {
    /// Per line: the code. Comments are gone, literals are empty.
    pub(super) code: Vec<String>,
    /// Per line: the comments, with their slashes.
    pub(super) comments: Vec<String>,
}

/// A word or one sign of punctuation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) text: &'a str,
}

impl Source {
    /// Splits `text`.
    pub(super) fn read(text: &str) -> Self {
        let mut splitter = Splitter {
            rest: text,
            before: '\n',
            source: Self {
                code: vec![String::new()],
                comments: vec![String::new()],
            },
        };
        while !splitter.rest.is_empty() {
            splitter.step();
        }
        splitter.source
    }

    /// The code's words and signs in order; every character of punctuation is one.
    pub(super) fn tokens(&self) -> Vec<Token<'_>> {
        let mut tokens = Vec::new();
        for (index, code) in self.code.iter().enumerate() {
            let mut rest = code.trim_start();
            while let Some(first) = rest.chars().next() {
                let length = if is_word(first) {
                    rest.find(|c| !is_word(c)).unwrap_or(rest.len())
                } else {
                    first.len_utf8()
                };
                let (text, after) = rest.split_at(length);
                tokens.push(Token {
                    line: index + 1,
                    text,
                });
                rest = after.trim_start();
            }
        }
        tokens
    }
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

struct Splitter<'a> {
    rest: &'a str,
    /// The character before `rest`: `r` begins a raw string only where it begins a word.
    before: char,
    source: Source,
}

impl Splitter<'_> {
    fn step(&mut self) {
        if self.rest.starts_with("//") {
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            self.take_comment(end);
        } else if self.rest.starts_with("/*") {
            self.take_comment(block_comment_length(self.rest));
        } else if let Some(length) = literal_length(self.rest, self.before) {
            self.take_literal(length);
        } else {
            self.take_code();
        }
    }

    fn take_comment(&mut self, length: usize) {
        for c in self.take(length).chars() {
            if c == '\n' {
                self.new_line();
            } else if let Some(line) = self.source.comments.last_mut() {
                line.push(c);
            }
        }
    }

    fn take_literal(&mut self, length: usize) {
        let lines = self.take(length).matches('\n').count();
        if let Some(line) = self.source.code.last_mut() {
            line.push_str("\"\"");
        }
        for _ in 0..lines {
            self.new_line();
        }
    }

    fn take_code(&mut self) {
        let Some(c) = self.rest.chars().next() else {
            return;
        };
        self.take(c.len_utf8());
        if c == '\n' {
            self.new_line();
        } else if let Some(line) = self.source.code.last_mut() {
            line.push(c);
        }
    }

    fn new_line(&mut self) {
        self.source.code.push(String::new());
        self.source.comments.push(String::new());
    }
}

impl<'a> Splitter<'a> {
    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.before = taken.chars().next_back().unwrap_or(self.before);
        self.rest = rest;
        taken
    }
}

fn block_comment_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// Length of the string or character literal that `text` begins with, if it does. `before` is the
/// character in front of it.
fn literal_length(text: &str, before: char) -> Option<usize> {
    if !is_word(before) {
        let prefix = text.find(|c| c != 'b' && c != 'c' && c != 'r').unwrap_or(0);
        if text[..prefix].ends_with('r') {
            let hashes = text[prefix..].find(|c| c != '#').unwrap_or(0);
            let body = prefix + hashes;
            if text[body..].starts_with('"') {
                let end = format!("\"{}", "#".repeat(hashes));
                return Some(match text[body + 1..].find(&end) {
                    Some(found) => body + 1 + found + end.len(),
                    None => text.len(),
                });
            }
        }
    }
    if text.starts_with('"') {
        return Some(quoted_length(text, '"'));
    }
    // `'a'` and `'\n'` are characters, `'a` is a lifetime.
    let mut characters = text.chars();
    if characters.next() == Some('\'') {
        let (first, second) = (characters.next(), characters.next());
        if first == Some('\\') || second == Some('\'') {
            return Some(quoted_length(text, '\''));
        }
    }
    None
}

fn quoted_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_comments_and_literals_are_told_apart() {
        let rows = [
            ("a // b", "a ", "// b"),
            ("a /* b /* c */ d */ e", "a  e", "/* b /* c */ d */"),
            (r#"f("a // b") // c"#, r#"f("") "#, "// c"),
            (r#"f("\"") g"#, r#"f("") g"#, ""),
            (r##"f(r#"a" // b"#) g"##, r#"f("") g"#, ""),
            (r#"f(br"\") g"#, r#"f("") g"#, ""),
            (r#"'"' '\'' 'a: &'b"#, r#""" "" 'a: &'b"#, ""),
            ("r#type bar\"x\"", "r#type bar\"\"", ""),
            ("'/' // b", "\"\" ", "// b"),
        ];
        for (text, code, comments) in rows {
            let source = Source::read(text);
            assert_eq!(source.code, [code], "{text}");
            assert_eq!(source.comments, [comments], "{text}");
        }
    }

    #[test]
    fn lines_keep_their_numbers_through_literals_and_comments() {
        let source = Source::read("a \"x\ny\" /* u\nv */ b\nc");
        let tokens = source.tokens();
        let at = |text| tokens.iter().find(|token| token.text == text);
        assert_eq!(at("a").unwrap().line, 1);
        assert_eq!(at("b").unwrap().line, 3);
        assert_eq!(at("c").unwrap().line, 4);
    }
}
