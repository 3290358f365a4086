//! From the text of a filter expression to its tree.

use regex::RegexBuilder;

use super::{Node, Operator, select::Selector};

/// Bytes of an expression; bounds how long a chain of `and` and `or` is.
const LONGEST: usize = 4096;
/// Parentheses and `not`s within each other.
const DEEPEST: usize = 64;
/// Memory that a regular expression may take, in bytes.
const REGEX_SIZE: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// A word: an operator, a selector or a value without quotes.
    Word(String),
    /// A value in quotes.
    Quoted(String),
    Equals,
    Differs,
    Open,
    Close,
}

/// Reads a whole expression; an error is the reason.
pub(super) fn expression(text: &str) -> Result<Node, String> {
    if text.len() > LONGEST {
        return Err(format!("it is longer than {LONGEST} bytes"));
    }
    let mut tokens = Tokens {
        list: tokens(text)?,
        next: 0,
        depth: 0,
    };
    let root = tokens.either()?;
    match tokens.peek() {
        None => Ok(root),
        Some(token) => Err(format!("{} is too much", show(token))),
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut list = Vec::new();
    let mut letters = text.char_indices().peekable();
    while let Some((begin, letter)) = letters.next() {
        match letter {
            _ if letter.is_whitespace() => {}
            '(' => list.push(Token::Open),
            ')' => list.push(Token::Close),
            '=' | '!' if letters.peek().is_some_and(|(_, next)| *next == '=') => {
                letters.next();
                list.push(match letter {
                    '=' => Token::Equals,
                    _ => Token::Differs,
                });
            }
            '"' | '`' => list.push(Token::Quoted(quoted(letter, &mut letters)?)),
            _ => {
                let mut word = String::from(letter);
                // `Service.Meta["a-b"]` is one word.
                let mut in_brackets = letter == '[';
                while let Some((_, next)) = letters.peek() {
                    let ends = next.is_whitespace() || "()=!".contains(*next);
                    if ends && !in_brackets {
                        break;
                    }
                    in_brackets = (in_brackets || *next == '[') && *next != ']';
                    word.push(*next);
                    letters.next();
                }
                if !word.contains(|c: char| c.is_alphanumeric()) {
                    return Err(format!("`{word}` at letter {} means nothing", begin + 1));
                }
                list.push(Token::Word(word));
            }
        }
    }
    Ok(list)
}

/// What stands before the closing quote. Between double quotes a backslash takes the next letter
/// as it is.
fn quoted(
    quote: char,
    letters: &mut impl Iterator<Item = (usize, char)>,
) -> Result<String, String> {
    let mut value = String::new();
    while let Some((_, letter)) = letters.next() {
        match letter {
            _ if letter == quote => return Ok(value),
            '\\' if quote == '"' => match letters.next() {
                // Regular expressions have backslashes of their own.
                Some((_, next @ ('"' | '\\'))) => value.push(next),
                Some((_, next)) => value.extend(['\\', next]),
                None => break,
            },
            _ => value.push(letter),
        }
    }
    Err("a quote is not closed".into())
}

fn show(token: &Token) -> String {
    match token {
        Token::Word(word) => format!("`{word}`"),
        Token::Quoted(value) => format!("`\"{value}\"`"),
        Token::Equals => "`==`".into(),
        Token::Differs => "`!=`".into(),
        Token::Open => "`(`".into(),
        Token::Close => "`)`".into(),
    }
}

struct Tokens {
    list: Vec<Token>,
    next: usize,
    depth: usize,
}

impl Tokens {
    fn peek(&self) -> Option<&Token> {
        self.list.get(self.next)
    }

    fn take(&mut self) -> Option<Token> {
        let token = self.list.get(self.next).cloned();
        self.next += 1;
        token
    }

    /// Takes the word if it is next.
    fn skip(&mut self, word: &str) -> bool {
        let is_next = matches!(self.peek(), Some(Token::Word(next)) if next == word);
        self.next += usize::from(is_next);
        is_next
    }

    fn either(&mut self) -> Result<Node, String> {
        let mut left = self.both()?;
        while self.skip("or") {
            left = Node::Or(Box::new(left), Box::new(self.both()?));
        }
        Ok(left)
    }

    fn both(&mut self) -> Result<Node, String> {
        let mut left = self.single()?;
        while self.skip("and") {
            left = Node::And(Box::new(left), Box::new(self.single()?));
        }
        Ok(left)
    }

    fn single(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("it is nested deeper than {DEEPEST} levels"));
        }
        let node = if self.skip("not") {
            Node::Not(Box::new(self.single()?))
        } else if self.peek() == Some(&Token::Open) {
            self.next += 1;
            let inner = self.either()?;
            if self.take() != Some(Token::Close) {
                return Err("a `)` is missing".into());
            }
            inner
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(node)
    }

    /// `SELECTOR OPERATOR VALUE`, `VALUE in SELECTOR` or `SELECTOR is empty`.
    fn comparison(&mut self) -> Result<Node, String> {
        let first = match self.take() {
            Some(token @ (Token::Word(_) | Token::Quoted(_))) => token,
            Some(token) => return Err(format!("{} stands where a selector should", show(&token))),
            None => return Err("it ends where a selector or a value should stand".into()),
        };
        let operator = match self.take() {
            Some(token) => token,
            None => return Err("it ends where an operator should stand".into()),
        };
        let (operator, negated) = match operator {
            Token::Equals => ("==".to_owned(), false),
            Token::Differs => ("==".to_owned(), true),
            Token::Word(word) if word == "not" => match self.take() {
                Some(Token::Word(word)) => (word, true),
                _ => return Err("after `not`, `in`, `contains` or `matches` must follow".into()),
            },
            Token::Word(word) => (word, false),
            token => return Err(format!("{} is no operator", show(&token))),
        };
        let (selector, operator, negated) = match operator.as_str() {
            "in" => {
                let selector = match self.take() {
                    Some(token) => selector(&token)?,
                    None => return Err("it ends where a selector should stand".into()),
                };
                let (Token::Word(value) | Token::Quoted(value)) = first else {
                    return Err(format!("{} is no value", show(&first)));
                };
                (selector, Operator::Has(value), negated)
            }
            "is" if !negated => {
                let negated = self.skip("not");
                if !self.skip("empty") {
                    return Err("after `is`, `empty` or `not empty` must follow".into());
                }
                (selector(&first)?, Operator::IsEmpty, negated)
            }
            "==" | "contains" | "matches" => {
                let selector = selector(&first)?;
                let value = self.value()?;
                let operator = match operator.as_str() {
                    "contains" => Operator::Has(value),
                    _ if selector.is_list() => {
                        let list = show(&first);
                        return Err(format!("{list} is a list, which `in` and `contains` ask"));
                    }
                    "==" => Operator::Equals(value),
                    _ => {
                        let regex = RegexBuilder::new(&value).size_limit(REGEX_SIZE).build();
                        let regex = regex.map_err(|error| {
                            let reason = error.to_string();
                            let reason = reason.lines().last().unwrap_or_default().to_owned();
                            format!("`{value}` is no regular expression ({reason})")
                        })?;
                        Operator::Matches(regex)
                    }
                };
                (selector, operator, negated)
            }
            other => return Err(format!("`{other}` is no operator")),
        };
        if selector == Selector::Checks && !matches!(operator, Operator::IsEmpty) {
            return Err("of `Checks` itself only `is empty` can be asked".into());
        }
        Ok(Node::Test {
            selector,
            operator,
            negated,
        })
    }

    fn value(&mut self) -> Result<String, String> {
        match self.take() {
            Some(Token::Word(value) | Token::Quoted(value)) => Ok(value),
            Some(token) => Err(format!("{} stands where a value should", show(&token))),
            None => Err("it ends where a value should stand".into()),
        }
    }
}

fn selector(token: &Token) -> Result<Selector, String> {
    let Token::Word(word) = token else {
        return Err(format!("{} is no selector", show(token)));
    };
    Selector::parse(word).ok_or_else(|| {
        format!(
            "`{word}` is not known here; use Service.Tags, Service.Meta.KEY, Service.ID, \
             Service.Port, Service.Address, Node.Node, Node.Meta.KEY, Checks.Status, \
             Checks.CheckID or Checks.Name"
        )
    })
}
