//! Facts without a controller: a configuration, what Consul says, and what is made of both.

use std::{path::Path, time::SystemTime};

use super::*;
use crate::{config, state::PersistedState};

const CONFIG: &str = r#"
    [node]
    interfaces = ["eth0"]
    [consul]
    auto_publish = ["198.51.100.0/24", "10.0.0.0/8"]
    [[service]]
    name = "echo"
    vip = ["198.51.100.10:80"]
    consul = { service = "echo" }
"#;

/// Facts, and how they change.
pub(super) struct Rig {
    pub(super) desired: Desired,
    pub(super) catalog: CatalogState,
    pub(super) index: u64,
}

impl Rig {
    pub(super) fn new(more: &str) -> Self {
        let text = format!("{CONFIG}{more}");
        let config = config::parse_in(&text, Path::new("test.toml"), &|_| None).unwrap();
        Self {
            desired: Desired::new(&config, &PersistedState::default()),
            catalog: CatalogState::default(),
            index: 1,
        }
    }

    /// A service lists these: `2` is n/2 at 10.0.0.2:80 with version 2 in its meta, `2!` is critical.
    pub(super) fn list(&mut self, key: &str, words: &str) {
        let instances = words.split_whitespace().map(|word| {
            let number: u8 = word.trim_end_matches('!').parse().unwrap();
            Instance {
                id: InstanceId(format!("n/{number}").into()),
                address: ([10, 0, 0, number], 80).into(),
                weight: 1,
                tags: Default::default(),
                meta: BTreeMap::from([("version".to_owned(), number.to_string())]).into(),
                subset: None,
                detail: None,
                health: match word.ends_with('!') {
                    true => CatalogHealth::Critical("test".into()),
                    false => CatalogHealth::Passing,
                },
            }
        });
        let instances = Arc::new(instances.collect());
        self.catalog.services.insert(key.into(), instances);
    }

    pub(super) fn entry(&mut self, kind: EntryKind, service: &str, entry: Option<ConfigEntry>) {
        self.index += 1;
        let listed = self.catalog.entries.entry(kind).or_default();
        listed.index = self.index;
        let values = Arc::make_mut(&mut listed.values);
        match entry {
            Some(entry) => values.insert(service.into(), entry),
            None => values.remove(service),
        };
    }

    pub(super) fn resolver(&mut self, service: &str, resolver: Resolver) {
        let entry = ConfigEntry::Resolver(resolver);
        self.entry(EntryKind::Resolver, service, Some(entry));
    }

    pub(super) fn splitter(&mut self, service: &str, legs: &[(u32, &str, &str)]) {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let legs = legs.iter().map(|(share, service, subset)| Leg {
            share: *share,
            service: given(service),
            subset: given(subset),
            ignored: Vec::new(),
        });
        let entry = ConfigEntry::Splitter(legs.collect());
        self.entry(EntryKind::Splitter, service, Some(entry));
    }

    pub(super) fn key(&mut self, key: &str, text: &str) {
        self.index += 1;
        let listed = self.catalog.keys.get_or_insert_default();
        listed.index = self.index;
        let value = KeyValue {
            text: text.into(),
            index: self.index,
        };
        Arc::make_mut(&mut listed.values).insert(key.into(), value);
    }

    /// Percent of new flows by backend, who set them, as in `n/1=90 n/2=10 by file`.
    pub(super) fn shares(&mut self) -> String {
        self.desired.set_catalog(Arc::new(self.catalog.clone()));
        self.desired.touch_all();
        self.desired.rebuild(SystemTime::now());
        let snapshot = self.desired.snapshot();
        let echo = &snapshot.services["echo"];
        let total: u64 = echo.backends.iter().map(|b| u64::from(b.weight)).sum();
        let mut words: Vec<String> = echo
            .backends
            .iter()
            .filter(|backend| backend.weight > 0)
            .map(|backend| {
                format!(
                    "{}={}",
                    backend.id(),
                    u64::from(backend.weight) * 100 / total
                )
            })
            .collect();
        if let Some(split) = &echo.split {
            words.push(format!("by {}", split.source.name()));
        }
        words.join(" ")
    }

    pub(super) fn notes(&self) -> String {
        self.desired.snapshot().services["echo"].notes.join("; ")
    }

    pub(super) fn problems(&self) -> String {
        let problems = self.desired.consul_problems();
        let problems: Vec<String> = problems.chain(self.desired.idle_splits()).collect();
        problems.join("; ")
    }
}

/// Subsets v1, v2, and so on, by version.
pub(super) fn versions(count: u8) -> BTreeMap<String, ResolverSubset> {
    (1..=count)
        .map(|number| {
            let filter = Filter::parse(&format!("Service.Meta.version == {number}"));
            let subset = ResolverSubset {
                filter: Ok(Some(filter.unwrap())),
                only_passing: false,
            };
            (format!("v{number}"), subset)
        })
        .collect()
}

pub(super) fn target(service: &str, subset: Option<&str>, datacenter: Option<&str>) -> Target {
    Target {
        service: service.into(),
        subset: subset.map(Into::into),
        datacenter: datacenter.map(Into::into),
    }
}
