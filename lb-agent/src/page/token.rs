//! The secret that orders need: a file that only root and its group may read, read anew for each
//! order, so that a changed one counts at once.

use std::{
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use subtle::ConstantTimeEq as _;
use thiserror::Error;

/// Shorter ones could be guessed.
const SHORTEST: usize = 16;
/// Longer files hold something else.
const LONGEST: usize = 4096;

/// Why no token is valid at present. Never shows one.
#[derive(Debug, Error)]
pub(super) enum TokenError {
    #[error("the token file {} cannot be read: {source}", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the token file {} is no regular file", .0.display())]
    NoFile(PathBuf),
    #[error(
        "the token file {} has mode {mode:04o}, so that everybody may get at it; `chmod o= {0}` \
         mends that",
        .path.display()
    )]
    Open { path: PathBuf, mode: u32 },
    #[error(
        "the token in {} has {length} bytes; {SHORTEST} to {LONGEST} are asked for, as `openssl \
         rand -hex 32` prints",
        .path.display()
    )]
    Length { path: PathBuf, length: usize },
}

/// A file with a token.
#[derive(Clone, Debug)]
pub(super) struct TokenFile(PathBuf);

impl TokenFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Whether `offered` is the token. Takes equally long for all of the same length.
    ///
    /// # Errors
    ///
    /// There is no valid token at present.
    pub(super) fn accepts(&self, offered: &[u8]) -> Result<bool, TokenError> {
        let token = read(&self.0)?;
        Ok(token.as_slice().ct_eq(offered).into())
    }

    /// # Errors
    ///
    /// Why no token is valid at present.
    pub(super) fn check(&self) -> Result<(), TokenError> {
        read(&self.0).map(drop)
    }
}

/// The token without the white space around it. A file of a few bytes needs no thread of its own.
fn read(path: &Path) -> Result<Vec<u8>, TokenError> {
    let unreadable = |source| TokenError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .read(true)
        // A pipe in its place must not hold the agent.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(unreadable)?;
    // Of what was opened, which another file may have replaced by now.
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(TokenError::NoFile(path.to_owned()));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o007 != 0 {
        let path = path.to_owned();
        return Err(TokenError::Open { path, mode });
    }
    let mut bytes = Vec::new();
    file.take(LONGEST as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    let token = bytes.trim_ascii();
    if !(SHORTEST..=LONGEST).contains(&token.len()) {
        return Err(TokenError::Length {
            path: path.to_owned(),
            length: token.len(),
        });
    }
    Ok(token.to_vec())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_token_is_compared_as_a_whole_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page.token");
        let token = TokenFile::new(path.clone());
        write(&path, &format!("{SECRET}\n"), 0o640);
        let rows = [
            (SECRET, true),
            ("0123456789abcdeF", false),
            ("0123456789abcde", false),
            ("0123456789abcdef0", false),
            ("", false),
        ];
        for (offered, accepted) in rows {
            let answer = token.accepts(offered.as_bytes()).unwrap();
            assert_eq!(answer, accepted, "{offered:?}");
        }
        write(&path, "another one of them", 0o600);
        assert!(!token.accepts(SECRET.as_bytes()).unwrap());
        assert!(token.accepts(b"another one of them").unwrap());
    }

    #[test]
    fn files_that_others_may_read_or_that_hold_no_secret_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page.token");
        let token = TokenFile::new(path.clone());
        let refusal = || token.check().unwrap_err().to_string();
        assert!(refusal().contains("cannot be read"), "{}", refusal());
        let rows = [
            (SECRET.to_owned(), 0o644, "mode 0644"),
            (SECRET.to_owned(), 0o642, "everybody"),
            (String::new(), 0o600, "has 0 bytes"),
            ("0123456789abcde\n".into(), 0o600, "has 15 bytes"),
            ("x".repeat(LONGEST + 1), 0o600, "16 to 4096"),
        ];
        for (text, mode, words) in rows {
            write(&path, &text, mode);
            let refusal = refusal();
            assert!(refusal.contains(words), "{refusal}");
            assert!(
                text.is_empty() || !refusal.contains(text.trim()),
                "{refusal}"
            );
            assert!(token.accepts(text.trim().as_bytes()).is_err());
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(refusal().contains("no regular file"), "{}", refusal());
    }
}
