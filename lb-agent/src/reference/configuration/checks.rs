//! Every declaration of the reference, held against the reader of the configuration.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use super::{
    schema::{Absent, Key, Kind, Section},
    sections,
};
use crate::config::{self, Config};

/// Close to no key, so that the reader lists all it knows.
const UNKNOWN: &str = "an_unknown_key_that_no_one_would_ever_take_for_another = 1";

fn read(text: &str) -> Result<Config, String> {
    let config = config::parse_in(text, Path::new("lb.toml"), &|_| None);
    config.map_err(|error| error.to_string())
}

/// The section's frame with everything that has to be there for `key`, which has this value.
fn text(section: &Section, key: &Key, value: Option<&str>) -> String {
    let with = key.with.iter().filter(|_| value.is_some());
    let beside: Vec<_> = key.beside.iter().chain(with).collect();
    let given = section.given.iter();
    let given = given.filter(|(name, _)| !beside.iter().any(|(other, _)| other == name));
    let lines = given.chain(beside.iter().copied());
    let lines = lines.filter(|(name, value)| *name != key.name && !value.is_empty());
    let mut text = section.frame.to_owned();
    for (name, value) in lines.copied().chain(value.map(|value| (key.name, value))) {
        text.push_str(&format!("{name} = {value}\n"));
    }
    text
}

fn accept(section: &Section, key: &Key, value: Option<&str>) -> Config {
    let text = text(section, key, value);
    let mut config = read(&text)
        .unwrap_or_else(|error| panic!("{}.{}: {error}\n{text}", section.path, key.name));
    // Who said it is no part of what is said.
    for service in &mut config.services {
        let spec = Arc::make_mut(service);
        Arc::make_mut(&mut spec.http).said = Default::default();
    }
    config
}

fn refuse(section: &Section, key: &Key, value: Option<&str>) {
    let text = text(section, key, value);
    assert!(
        read(&text).is_err(),
        "{}.{} should be refused:\n{text}",
        section.path,
        key.name
    );
}

/// What the reader knows in a section is what is declared there, in both directions.
#[test]
fn every_key_of_the_reader_is_declared() {
    let root = format!("{UNKNOWN}\n[node]\ninterfaces = [\"eth0\"]\n");
    let declared = sections().filter(|section| !section.path.contains('.'));
    same_keys("the file", &root, declared.map(|section| section.path));
    for section in sections() {
        let given = section.given.iter();
        let given: String = given
            .map(|(name, value)| format!("{name} = {value}\n"))
            .collect();
        let text = format!("{}{given}{UNKNOWN}\n", section.frame);
        same_keys(section.path, &text, section.keys.iter().map(|key| key.name));
    }
}

fn same_keys(what: &str, text: &str, declared: impl Iterator<Item = &'static str>) {
    let error = read(text).unwrap_err();
    let (_, known) = error
        .split_once("known here are ")
        .unwrap_or_else(|| panic!("{what}: {error}"));
    let known: BTreeSet<&str> = known.lines().next().unwrap().split(", ").collect();
    let declared: BTreeSet<&str> = declared.collect();
    assert_eq!(known, declared, "{what}");
}

/// Tables that keys name are declared, and those that are declared are named.
#[test]
fn every_table_has_its_section() {
    let named: BTreeSet<&str> = sections()
        .flat_map(|section| section.keys)
        .filter_map(|key| match key.kind {
            Kind::Table(path) | Kind::OrTable(_, path) | Kind::Tables(path) => Some(path),
            _ => None,
        })
        .collect();
    let within = sections().map(|section| section.path);
    let within: BTreeSet<&str> = within.filter(|path| path.contains('.')).collect();
    assert_eq!(named, within);
}

/// What is said to be the default is, and the example is something else.
#[test]
fn defaults_are_those_of_the_reader() {
    for section in sections() {
        for key in section.keys {
            let place = format!("{}.{}", section.path, key.name);
            let example = accept(section, key, Some(key.example));
            let absent = match key.default {
                Absent::Refused(_) => {
                    refuse(section, key, None);
                    continue;
                }
                Absent::Is(value) => {
                    let absent = accept(section, key, None);
                    assert_eq!(accept(section, key, Some(value)), absent, "{place}");
                    absent
                }
                Absent::Means(_) => accept(section, key, None),
            };
            assert_ne!(example, absent, "the example of {place} is the default");
        }
    }
}

/// What a value is said to be is accepted, what lies just beyond is not, nor is a date.
#[test]
fn values_are_as_declared() {
    for section in sections() {
        for key in section.keys {
            refuse(section, key, Some("1979-05-27"));
            match key.kind {
                Kind::Duration(from, to) => {
                    let time = |text| humantime::parse_duration(text).unwrap();
                    let step = Duration::from_nanos(1);
                    let quoted = |time| format!("\"{}\"", humantime::format_duration(time));
                    accept(section, key, Some(&quoted(time(from))));
                    accept(section, key, Some(&quoted(time(to))));
                    if let Some(below) = time(from).checked_sub(step) {
                        refuse(section, key, Some(&quoted(below)));
                    }
                    refuse(section, key, Some(&quoted(time(to) + step)));
                }
                Kind::Integer(from, to) => {
                    accept(section, key, Some(&from.to_string()));
                    accept(section, key, Some(&to.to_string()));
                    refuse(section, key, Some(&(i128::from(from) - 1).to_string()));
                    refuse(section, key, Some(&(i128::from(to) + 1).to_string()));
                }
                Kind::Words(words) => {
                    for word in words {
                        accept(section, key, Some(&format!("\"{word}\"")));
                    }
                    refuse(section, key, Some("\"nonsense\""));
                }
                Kind::Boolean => {
                    let [yes, no] =
                        ["true", "false"].map(|value| accept(section, key, Some(value)));
                    assert_ne!(yes, no, "{}.{}", section.path, key.name);
                }
                Kind::Path => refuse(section, key, Some("\"relative\"")),
                Kind::Table(_) | Kind::Tables(_) | Kind::OrTable(..) | Kind::Other(_) => {
                    refuse(section, key, Some("0.5e400"));
                }
            }
        }
    }
}
