//! The guest's root file system: an archive in the kernel's format "newc"
//! (Documentation/driver-api/early-userspace/buffer-format.rst), with the tests, the agent and the
//! programs that they call, each with its libraries.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::run;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// An archive under construction.
#[derive(Default)]
pub(super) struct Initramfs {
    bytes: Vec<u8>,
    entries: u32,
    present: BTreeSet<String>,
}

impl Initramfs {
    /// Adds an executable file; the path begins without a slash.
    pub(super) fn add(&mut self, path: &str, content: &[u8]) {
        self.parents(path);
        self.entry(path, PROGRAM, content);
    }

    /// Adds an empty directory.
    pub(super) fn add_directory(&mut self, path: &str) {
        self.parents(path);
        self.entry(path, DIRECTORY, &[]);
    }

    /// Adds a symbolic link.
    pub(super) fn add_link(&mut self, path: &str, target: &str) {
        self.parents(path);
        self.entry(path, LINK, target.as_bytes());
    }

    /// Adds one of this machine's programs at `path`, without its symbols, and the libraries that
    /// it is linked with where the loader looks for them.
    ///
    /// # Errors
    /// It cannot be read, or `ldd` or `strip` fails.
    pub(super) fn add_program(&mut self, path: &str, program: &Path, scratch: &Path) -> Result<()> {
        let stripped = scratch.join("stripped");
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(&stripped).arg(program);
        run::run(&format!("strip {}", program.display()), &mut strip)?;
        self.add(path, &read(&stripped)?);
        let mut ldd = Command::new("ldd");
        ldd.env("LC_ALL", "C").arg(program);
        let what = format!("list the libraries of {}", program.display());
        for library in libraries_in(&run::output(&what, &mut ldd)?) {
            let path = library.display().to_string();
            self.add(path.trim_start_matches('/'), &read(&library)?);
        }
        Ok(())
    }

    /// The finished archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            self.entry(&path[..at], DIRECTORY, &[]);
        }
    }

    /// The first of a name counts.
    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        if !self.present.insert(path.to_owned()) {
            return;
        }
        self.entries += 1;
        let links = 1;
        let name_length = path.len() as u32 + 1;
        let fields = [
            self.entries,
            mode,
            0, // owner
            0, // group
            links,
            0, // time
            content.len() as u32,
            0, // device
            0,
            0, // device that a special file stands for
            0,
            name_length,
            0, // checksum, of another format
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("could not read {}", path.display()))
}

/// The files in the answer of `ldd`; of a static program there are none.
fn libraries_in(told: &str) -> Vec<PathBuf> {
    told.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found() {
        let told = "\tlinux-vdso.so.1 (0x00007f)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(libraries_in(told), expected);
        assert!(libraries_in("\tnot a dynamic executable\n").is_empty());
    }

    /// Headers of 110 bytes, names and contents padded to four, parents before their children,
    /// nothing twice.
    #[test]
    fn entries_are_aligned_and_in_order() {
        let mut archive = Initramfs::default();
        archive.add("a/bc", b"hello");
        archive.add("a/bc", b"again");
        archive.add_link("a/d", "bc");
        let bytes = archive.finish();
        let mut at = 0;
        let mut found = Vec::new();
        while at < bytes.len() {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |number: usize| {
                let start = at + 6 + number * 8;
                let text = std::str::from_utf8(&bytes[start..start + 8]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (size, name_length) = (field(6), field(11));
            let name = &bytes[at + 110..at + 110 + name_length - 1];
            let start = (at + 110 + name_length).next_multiple_of(4);
            found.push((
                String::from_utf8(name.to_vec()).unwrap(),
                String::from_utf8(bytes[start..start + size].to_vec()).unwrap(),
            ));
            at = (start + size).next_multiple_of(4);
        }
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "a/bc", "a/d", "TRAILER!!!"]);
        assert_eq!((found[1].1.as_str(), found[2].1.as_str()), ("hello", "bc"));
    }
}
