//! A TOML table as it is read: every key is asked for once, and what was never asked for is
//! unknown. So the keys that exist stand in one place, the code that reads them.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::locate::{Report, Span};

/// A value with its place.
pub(super) type Value<'a> = Spanned<DeValue<'a>>;

/// A table that is being read.
pub(super) struct Table<'a> {
    entries: &'a DeTable<'a>,
    /// The header, or the whole inline table.
    pub(super) span: Span,
    asked: Vec<&'static str>,
}

impl<'a> Table<'a> {
    pub(super) fn new(entries: &'a DeTable<'a>, span: Span) -> Self {
        Self {
            entries,
            span,
            asked: Vec::new(),
        }
    }

    /// The value as a table; a finding if it is none.
    pub(super) fn of(value: &'a Value<'a>, report: &mut Report) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(entries) => Some(Self::new(entries, value.span())),
            other => {
                report.add(
                    &value.span(),
                    format!("must be a table, not {}", kind(other)),
                );
                None
            }
        }
    }

    /// The value of a key.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'a Value<'a>> {
        self.asked.push(key);
        self.entries.get(key)
    }

    /// The value of a key as `read` understands it, with its place. `None` if the key is absent
    /// or, with a finding, if `read` refuses the value.
    pub(super) fn locate<T>(
        &mut self,
        key: &'static str,
        report: &mut Report,
        read: impl FnOnce(&DeValue) -> Result<T, String>,
    ) -> Option<Spanned<T>> {
        let value = self.value(key)?;
        read_at(value, report, read)
    }

    /// Like [`Self::locate`], without the place.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        report: &mut Report,
        read: impl FnOnce(&DeValue) -> Result<T, String>,
    ) -> Option<T> {
        self.locate(key, report, read).map(Spanned::into_inner)
    }

    /// Like [`Self::locate`], with a finding if the key is absent. `example` shows how to write
    /// it.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        example: &str,
        report: &mut Report,
        read: impl FnOnce(&DeValue) -> Result<T, String>,
    ) -> Option<Spanned<T>> {
        if !self.entries.contains_key(key) {
            self.asked.push(key);
            report.add(
                &self.span,
                format!("`{key}` is missing; add it, as in {example}"),
            );
            return None;
        }
        self.locate(key, report, read)
    }

    /// The table under a key.
    pub(super) fn table(&mut self, key: &'static str, report: &mut Report) -> Option<Table<'a>> {
        Table::of(self.value(key)?, report)
    }

    /// Keys and values of a table whose keys are names given by people.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, Span, &'a Value<'a>)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.get_ref().as_ref(), key.span(), value))
    }

    /// Reports every key that was not asked for.
    pub(super) fn close(self, report: &mut Report) {
        for (key, span, _) in self.entries() {
            if self.asked.contains(&key) {
                continue;
            }
            let near = self
                .asked
                .iter()
                .map(|known| (distance(key, known), known))
                .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
                .min();
            let hint = match near {
                Some((_, known)) => format!("did you mean `{known}`?"),
                None => format!("known here are {}", self.asked.join(", ")),
            };
            report.add(&span, format!("unknown key `{key}`; {hint}"));
        }
    }
}

/// The value as `read` understands it, with its place; a finding there if `read` refuses it.
pub(super) fn read_at<T>(
    value: &Value,
    report: &mut Report,
    read: impl FnOnce(&DeValue) -> Result<T, String>,
) -> Option<Spanned<T>> {
    match read(value.get_ref()) {
        Ok(read) => Some(Spanned::new(value.span(), read)),
        Err(reason) => {
            report.add(&value.span(), reason);
            None
        }
    }
}

/// The elements of an array as `read` understands them. `None` with a finding if the value is no
/// array; an element that `read` refuses is left out, with a finding.
pub(super) fn elements<T>(
    value: &Value,
    report: &mut Report,
    read: impl Fn(&DeValue) -> Result<T, String>,
) -> Option<Vec<Spanned<T>>> {
    let DeValue::Array(array) = value.get_ref() else {
        report.add(
            &value.span(),
            format!("must be a list in [ ], not {}", kind(value.get_ref())),
        );
        return None;
    };
    let elements = array.iter();
    Some(
        elements
            .filter_map(|element| read_at(element, report, &read))
            .collect(),
    )
}

/// What a value is, with its article.
pub(super) fn kind(value: &DeValue) -> String {
    let name = value.type_str();
    let article = if name.starts_with(['a', 'i']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {name}")
}

/// Edits (insert, delete, replace) between two words (Levenshtein 1965).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, c) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in to.iter().enumerate() {
            let replace = diagonal + usize::from(c != *other);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let rows = [
            ("", "", 0),
            ("", "abc", 3),
            ("vip", "vips", 1),
            ("interfaecs", "interfaces", 2),
            ("kitten", "sitting", 3),
        ];
        for (from, to, edits) in rows {
            assert_eq!(distance(from, to), edits, "{from} {to}");
            assert_eq!(distance(to, from), edits, "{to} {from}");
        }
    }
}
