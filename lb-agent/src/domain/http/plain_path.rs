//! Paths as servers read them, whatever the spelling.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The path with `%41` decoded, and without `//`, `/./` and `/../` (RFC 3986, sections 6.2.2.2 and 5.2.4;
/// the rest is what most servers do).
///
/// Who is limited at `/login` should not pass as `/%6cogin` or `//login`. Nothing is sent on like that.
pub(super) fn plain(path: &str) -> Cow<'_, str> {
    let odd = |mark: &str| path.contains(mark);
    if !(odd("%") || odd("//") || odd("/.")) {
        return path.into();
    }
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_open = false;
    for segment in decoded.split('/') {
        ends_open = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            name => kept.push(name),
        }
    }
    let mut plain = String::with_capacity(decoded.len());
    for segment in &kept {
        plain.push('/');
        plain.push_str(segment);
    }
    if ends_open {
        plain.push('/');
    }
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        for (path, expected) in [
            ("/", "/"),
            ("/login", "/login"),
            ("/login/", "/login/"),
            ("//login", "/login"),
            ("///", "/"),
            ("/%6cogin", "/login"),
            ("/%6Cogin%2fa", "/login/a"),
            ("/a/../login", "/login"),
            ("/a/%2e%2E/login", "/login"),
            ("/../../login", "/login"),
            ("/./login/.", "/login/"),
            ("/login/..", "/"),
            ("/.login", "/.login"),
            ("/login//a", "/login/a"),
            ("/%", "/%"),
            ("/%zz/%4", "/%zz/%4"),
            ("/%ff", "/\u{fffd}"),
            ("/%00", "/\0"),
            ("*", "*"),
        ] {
            assert_eq!(plain(path), expected, "{path}");
        }
    }
}
