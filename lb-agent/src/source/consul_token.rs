//! The ACL token: given as it is, or in a file that someone else renews.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use reqwest::header::{HeaderValue, InvalidHeaderValue};
use thiserror::Error;

/// Why there is no token to send. Never shows a token.
#[derive(Debug, Error)]
pub(super) enum TokenError {
    #[error("the token file {} cannot be read ({source})", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the token {origin} has characters that no HTTP header may carry")]
    Characters {
        origin: String,
        source: InvalidHeaderValue,
    },
}

/// Where the token comes from. As with Consul's own tools, a file goes before a given token.
pub(super) struct Token {
    given: Option<HeaderValue>,
    file: Option<TokenFile>,
}

struct TokenFile {
    path: PathBuf,
    /// What was read last, and from which version of the file.
    read: Mutex<Option<(Version, Option<HeaderValue>)>>,
}

/// Tells versions of a file apart: inode, size, and time of modification in seconds and
/// nanoseconds.
type Version = (u64, u64, i64, i64);

impl Token {
    /// # Errors
    ///
    /// The given token is no header value. The file is not looked at before the first use: it may
    /// come later than the agent.
    pub(super) fn new(given: Option<&str>, file: Option<PathBuf>) -> Result<Self, TokenError> {
        let given = match given {
            Some(text) => parse(text, || "that was given".into())?,
            None => None,
        };
        let file = file.map(|path| TokenFile {
            path,
            read: Mutex::default(),
        });
        Ok(Self { given, file })
    }

    /// The token to send now; `None`: send none (Consul's anonymous token).
    ///
    /// Asks the file system each time, which for a file of a few bytes needs no thread of its own.
    pub(super) fn current(&self) -> Result<Option<HeaderValue>, TokenError> {
        let from_file = match &self.file {
            Some(file) => file.current()?,
            None => None,
        };
        Ok(from_file.or_else(|| self.given.clone()))
    }

    /// To be called when Consul refused the token: the file is read at the next use, even if it
    /// looks unchanged.
    pub(super) fn refused(&self) {
        if let Some(file) = &self.file {
            *file.read.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

impl TokenFile {
    fn current(&self) -> Result<Option<HeaderValue>, TokenError> {
        let unreadable = |source| TokenError::Unreadable {
            path: self.path.clone(),
            source,
        };
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let meta = fs::metadata(&self.path).map_err(unreadable)?;
        let version = (meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec());
        if let Some((known, token)) = &*read
            && *known == version
        {
            return Ok(token.clone());
        }
        let text = fs::read_to_string(&self.path).map_err(unreadable)?;
        let token = parse(&text, || format!("in {}", self.path.display()))?;
        *read = Some((version, token.clone()));
        Ok(token)
    }
}

/// Surrounding white space is no part of a token; an empty one is none.
fn parse(text: &str, origin: impl Fn() -> String) -> Result<Option<HeaderValue>, TokenError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let mut value = HeaderValue::from_str(text).map_err(|source| TokenError::Characters {
        origin: origin(),
        source,
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(token: &Token) -> Option<String> {
        let value = token.current().unwrap()?;
        Some(value.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_renewed_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let token = Token::new(Some("given"), Some(path.clone())).unwrap();
        let missing = token.current().unwrap_err().to_string();
        assert!(missing.contains(path.to_str().unwrap()), "{missing}");

        fs::write(&path, "first\n").unwrap();
        assert_eq!(text(&token).as_deref(), Some("first"));
        fs::write(&path, "second one\n").unwrap();
        assert_eq!(text(&token).as_deref(), Some("second one"));
        fs::write(&path, "\n").unwrap();
        assert_eq!(text(&token).as_deref(), Some("given"));
    }

    #[test]
    fn a_refused_token_is_read_again_though_the_file_looks_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let token = Token::new(None, Some(path.clone())).unwrap();
        fs::write(&path, "old").unwrap();
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(text(&token).as_deref(), Some("old"));

        fs::write(&path, "new").unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(written).unwrap();
        assert_eq!(text(&token).as_deref(), Some("old"));
        token.refused();
        assert_eq!(text(&token).as_deref(), Some("new"));
    }

    #[test]
    fn errors_do_not_show_the_token() {
        let error = Token::new(Some("se\ncret"), None).err().unwrap();
        assert!(!format!("{error} {error:?}").contains("cret"));
        let token = Token::new(Some("secret"), None).unwrap();
        assert!(!format!("{:?}", token.current()).contains("secret"));
    }
}
