//! The words that a container says of its services: labels and environment variables that begin
//! with `SERVICE_`, as registrator has them.
//!
//! `SERVICE_NAME` counts for every port, `SERVICE_80_NAME` for the container's port 80, and goes
//! before the former. A label goes before a variable of the same name: it is what the person who
//! starts a container adds to what its image says.

use std::collections::BTreeMap;

use super::container::Container;

const MARK: &str = "SERVICE_";

/// What is said, by key in lower case without the mark and the port.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    general: BTreeMap<String, Word>,
    of_port: BTreeMap<u16, BTreeMap<String, Word>>,
}

/// One thing said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// What.
    pub(super) value: String,
    /// Where, as in `label SERVICE_NAME`.
    pub(super) place: String,
    /// For one port alone.
    pub(super) of_port: bool,
}

/// What is said of one port; what has been taken is gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Words(pub(super) BTreeMap<String, Word>);

impl Words {
    /// Takes what is said under a key; nothing is as good as an empty text.
    pub(super) fn take(&mut self, key: &str) -> Option<Word> {
        self.0.remove(key).filter(|word| !word.value.is_empty())
    }
}

impl Metadata {
    /// Collects what a container says.
    pub(super) fn of(container: &Container) -> Self {
        let mut metadata = Self::default();
        let variables = container.environment.iter().map(|pair| ("variable", pair));
        let labels = container.labels.iter().map(|pair| ("label", pair));
        for (kind, (name, value)) in variables.chain(labels) {
            let Some(key) = name.strip_prefix(MARK).filter(|key| !key.is_empty()) else {
                continue;
            };
            let key = key.to_ascii_lowercase();
            let port_and_key = key
                .split_once('_')
                .and_then(|(port, key)| Some((port.parse::<u16>().ok()?, key)))
                .filter(|(_, key)| !key.is_empty());
            let word = Word {
                value: value.trim().to_owned(),
                place: format!("{kind} {name}"),
                of_port: port_and_key.is_some(),
            };
            match port_and_key {
                Some((port, key)) => {
                    let words = metadata.of_port.entry(port).or_default();
                    words.insert(key.to_owned(), word);
                }
                None => {
                    metadata.general.insert(key, word);
                }
            }
        }
        metadata
    }

    /// What is said of one port of the container's.
    pub(super) fn about(&self, port: u16) -> Words {
        let mut words = self.general.clone();
        words.extend(
            self.of_port
                .get(&port)
                .into_iter()
                .flatten()
                .map(|(key, word)| (key.clone(), word.clone())),
        );
        Words(words)
    }

    /// Ports that something is said of, with one place where it is.
    pub(super) fn ports(&self) -> impl Iterator<Item = (u16, &str)> {
        self.of_port.iter().filter_map(|(port, words)| {
            let word = words.values().next()?;
            Some((*port, word.place.as_str()))
        })
    }
}

/// The parts of a list with commas; `\,` is a comma within a part. Empty parts are none.
pub(super) fn list(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if letters.peek() == Some(&',') => {
                letters.next();
                parts.last_mut().expect("never empty").push(',');
            }
            ',' => parts.push(String::new()),
            other => parts.last_mut().expect("never empty").push(other),
        }
    }
    parts
        .iter()
        .map(|part| part.trim().to_owned())
        .filter(|part| !part.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(labels: &[(&str, &str)], environment: &[(&str, &str)]) -> Container {
        let map = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            pairs
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect()
        };
        Container {
            labels: map(labels),
            environment: map(environment),
            ..Container::default()
        }
    }

    #[test]
    fn port_goes_before_general_and_label_before_variable() {
        let container = container(
            &[
                ("SERVICE_NAME", "label"),
                ("service_x", "no"),
                ("SERVICE_", "no"),
                ("OTHER", "no"),
            ],
            &[
                ("SERVICE_NAME", "variable"),
                ("SERVICE_80_NAME", "eighty"),
                ("SERVICE_REGION", "us"),
                ("SERVICE_99999_X", "no port"),
            ],
        );
        let metadata = Metadata::of(&container);
        let said = |port| {
            let words = metadata.about(port);
            let pairs = words.0.into_iter();
            pairs
                .map(|(key, word)| format!("{key}={} ({})", word.value, word.place))
                .collect::<Vec<_>>()
        };
        let both = ["99999_x=no port (variable SERVICE_99999_X)"];
        let region = "region=us (variable SERVICE_REGION)";
        assert_eq!(
            said(81),
            [both[0], "name=label (label SERVICE_NAME)", region]
        );
        assert_eq!(
            said(80),
            [both[0], "name=eighty (variable SERVICE_80_NAME)", region]
        );
        let ports: Vec<_> = metadata.ports().collect();
        assert_eq!(ports, [(80, "variable SERVICE_80_NAME")]);
    }

    #[test]
    fn what_is_taken_is_gone_and_empty_is_nothing() {
        let container = container(&[("SERVICE_NAME", " "), ("SERVICE_80_ID", "x")], &[]);
        let mut words = Metadata::of(&container).about(80);
        assert_eq!(words.take("name"), None);
        let id = words.take("id").unwrap();
        assert_eq!((id.value.as_str(), id.of_port), ("x", true));
        assert_eq!(words, Words(BTreeMap::new()));
    }

    #[test]
    fn lists_with_commas() {
        let rows: [(&str, &[&str]); 5] = [
            ("", &[]),
            ("a", &["a"]),
            ("a, b ,,c", &["a", "b", "c"]),
            (r"/(;\,:-_)/,b", &["/(;,:-_)/", "b"]),
            (r"a\b,\", &[r"a\b", r"\"]),
        ];
        for (text, expected) in rows {
            assert_eq!(list(text), expected, "{text}");
        }
    }
}
