//! Imported block lists on disk: a file of their own, so that a change of anything else does not
//! write a million prefixes.
//!
//! ```text
//! lb-agent block list 1 7305210011327751
//! section {"reason":"weekly list","added":{…},"expires":null}
//! 192.0.2.0/24
//! 2001:db8::/32
//! end 2
//! ```
//!
//! The number in the first line is [`Imported::id`]. The last line tells a whole file from one
//! that was cut off.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use ipnet::IpNet;

use crate::domain::block_list::{Imported, Section, Terms};

/// The file's name in the state directory.
pub(super) const FILE: &str = "blocks.list";
const NEW_FILE: &str = "blocks.list.new";
const MAGIC: &str = "lb-agent block list 1";

/// Replaces the file in `dir`; removes it if there is nothing imported.
pub(super) fn save(dir: &Path, list: &Imported) -> io::Result<()> {
    let (file, new) = (dir.join(FILE), dir.join(NEW_FILE));
    if list.sections.is_empty() {
        return match fs::remove_file(&file) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let options = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    let mut out = BufWriter::with_capacity(1 << 16, options);
    writeln!(out, "{MAGIC} {}", list.id)?;
    let mut count = 0_usize;
    for section in &list.sections {
        writeln!(out, "section {}", serde_json::to_string(&section.terms)?)?;
        for prefix in section.prefixes() {
            writeln!(out, "{prefix}")?;
            count += 1;
        }
    }
    writeln!(out, "end {count}")?;
    let written = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    written.sync_all()?;
    fs::rename(new, file)?;
    File::open(dir)?.sync_all()
}

/// Reads the file's content.
///
/// # Errors
///
/// A sentence part that says what is wrong with it.
pub(super) fn decode(bytes: &[u8]) -> Result<Imported, String> {
    let damaged = |what: &str| format!("it is damaged ({what})");
    let text = std::str::from_utf8(bytes).map_err(|error| damaged(&error.to_string()))?;
    let mut lines = text.lines();
    let id = lines
        .next()
        .and_then(|line| line.strip_prefix(MAGIC)?.trim().parse().ok())
        .ok_or_else(|| damaged("the first line is not that of a block list"))?;
    let mut sections = Vec::new();
    let mut open: Option<(Terms, Vec<IpNet>)> = None;
    let mut count = 0_usize;
    for line in &mut lines {
        if let Some(terms) = line.strip_prefix("section ") {
            let terms = serde_json::from_str(terms).map_err(|error| damaged(&error.to_string()))?;
            sections.extend(open.replace((terms, Vec::new())));
        } else if let Some(end) = line.strip_prefix("end ") {
            if end.parse() != Ok(count) {
                return Err(damaged("it does not hold what its last line says"));
            }
            sections.extend(open.take());
            let sections = sections.into_iter();
            return Ok(Imported {
                id,
                sections: sections
                    .map(|(terms, prefixes)| Section::new(terms, prefixes))
                    .collect(),
            });
        } else {
            let prefix = line.parse().ok();
            let (Some(prefix), Some((_, prefixes))) = (prefix, &mut open) else {
                return Err(damaged(&format!("`{line}` is no prefix")));
            };
            prefixes.push(prefix);
            count += 1;
        }
    }
    Err(damaged("its end is missing"))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn list() -> Imported {
        let section = |reason: &str, prefixes: &[&str]| {
            let terms = Terms {
                reason: reason.into(),
                added: SystemTime::UNIX_EPOCH,
                expires: (reason == "b").then_some(SystemTime::UNIX_EPOCH),
            };
            Section::new(terms, prefixes.iter().map(|text| text.parse().unwrap()))
        };
        Imported {
            id: 7,
            sections: vec![
                section("a \"quoted\"", &["10.0.0.0/8", "2001:db8::/32"]),
                section("b", &["0.0.0.0/0"]),
            ],
        }
    }

    #[test]
    fn a_saved_list_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), &list()).unwrap();
        let bytes = fs::read(dir.path().join(FILE)).unwrap();
        assert_eq!(decode(&bytes).unwrap(), list());
        save(dir.path(), &Imported::default()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// A file that is cut off anywhere, or has a foreign line, is not taken for a shorter list.
    #[test]
    fn damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), &list()).unwrap();
        let bytes = fs::read(dir.path().join(FILE)).unwrap();
        for length in 0..bytes.len() - 1 {
            assert!(decode(&bytes[..length]).is_err(), "{length} bytes");
        }
        let text = String::from_utf8(bytes).unwrap();
        assert!(decode(text.replace("10.0.0.0/8", "10.0.0.0/88").as_bytes()).is_err());
        assert!(decode(text.replace("10.0.0.0/8\n", "").as_bytes()).is_err());
        assert!(decode(text.replace("section", "selection").as_bytes()).is_err());
    }
}
