//! What a key is declared to be. `checks` holds each declaration against the reader.

/// A table of the file.
pub(super) struct Section {
    /// Its name in the file, as in `proxy.bounds`; `NAME` stands for one that people give.
    pub(super) path: &'static str,
    /// How it is written: the header that `frame` ends with, or that of several.
    pub(super) help: &'static str,
    /// A file that lacks nothing but the section's keys, and ends with its header.
    pub(super) frame: &'static str,
    /// Keys that have to be there, with a value each.
    pub(super) given: &'static [(&'static str, &'static str)],
    pub(super) keys: &'static [Key],
}

/// A key of a section.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Absent,
    /// A value other than the default.
    pub(super) example: &'static str,
    pub(super) help: &'static str,
    /// Keys that must stand beside it for the others to make sense; an empty value takes one away
    /// that is `given`.
    pub(super) beside: &'static [(&'static str, &'static str)],
    /// Keys that must not be there without it.
    pub(super) with: &'static [(&'static str, &'static str)],
}

/// What a value may be.
pub(super) enum Kind {
    /// From and to, both included.
    Duration(&'static str, &'static str),
    /// From and to, both included.
    Integer(i64, i64),
    /// One of these.
    Words(&'static [&'static str]),
    Boolean,
    /// An absolute path.
    Path,
    /// The table of that path.
    Table(&'static str),
    /// Something, or the table of that path.
    OrTable(&'static str, &'static str),
    /// A list of tables of that path.
    Tables(&'static str),
    /// In words.
    Other(&'static str),
}

/// What counts if a key is absent.
pub(super) enum Absent {
    /// The file is refused, for the reason in words, if any.
    Refused(&'static str),
    /// The same as with this value.
    Is(&'static str),
    /// In words.
    Means(&'static str),
}

/// A key that needs no others.
pub(super) const fn key(
    name: &'static str,
    kind: Kind,
    default: Absent,
    example: &'static str,
    help: &'static str,
) -> Key {
    Key {
        name,
        kind,
        default,
        example,
        help,
        beside: &[],
        with: &[],
    }
}

impl Key {
    pub(super) const fn beside(self, beside: &'static [(&'static str, &'static str)]) -> Self {
        Self { beside, ..self }
    }

    pub(super) const fn with(self, with: &'static [(&'static str, &'static str)]) -> Self {
        Self { with, ..self }
    }
}
