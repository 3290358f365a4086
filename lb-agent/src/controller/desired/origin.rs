//! Where the facts come from, for whoever asks. Looked up when they do.

use std::collections::BTreeMap;

use super::{Desired, consul_key};
use crate::{
    config::ServicePlaces,
    domain::{
        author::Author,
        config_entry::{ConfigEntry, EntryKind},
        explain::{Request, Source},
        fleet,
        route::Route,
        service::{Catalog, ServiceSpec},
        snapshot::{BackendState, ServiceState},
        split::{ActiveSplit, SplitSource},
    },
};

impl Desired {
    /// Where an instance of a service is listed.
    pub(crate) fn origin_of_instance(
        &self,
        spec: &ServiceSpec,
        backend: &BackendState,
        places: &BTreeMap<String, ServicePlaces>,
    ) -> Source {
        let Catalog::Consul { .. } = &spec.catalog else {
            let places = places.get(&spec.name);
            let line = places.and_then(|places| places.backends.get(&backend.address()));
            return Source::File {
                path: spec.origin.file.clone(),
                line: line.copied().unwrap_or(spec.origin.line),
            };
        };
        // A borrowed one carries where it is from, if its identity alone would not tell.
        let id = &*backend.id().0;
        let targets = self.targets(spec);
        let keys = targets
            .iter()
            .map(|target| target.key())
            .chain(consul_key(spec));
        let mut keys: Vec<String> = keys.collect();
        keys.dedup();
        let lists = |key: &&String| {
            let own = id.strip_suffix(&format!("@{key}")).unwrap_or(id);
            let guard = self.guards.get(*key).into_iter();
            guard
                .flat_map(|guard| guard.instances())
                .any(|(one, _)| *one.id.0 == *own && one.address == backend.address())
        };
        let service = keys.iter().find(lists).cloned().unwrap_or_default();
        let watch = self.catalog.watches.get(&format!("health/{service}"));
        Source::ConsulService {
            instance: id.to_owned(),
            index: watch.map_or(0, |watch| watch.index),
            service,
        }
    }

    /// Who says a layer of a split.
    pub(crate) fn origin_of_split(
        &self,
        state: &ServiceState,
        layer: &ActiveSplit,
        places: &BTreeMap<String, ServicePlaces>,
    ) -> Source {
        let name = &state.spec.name;
        let entry = |kind: EntryKind| {
            let believed = self.entries.get(&kind);
            // The one that the service leads to, if it is redirected.
            let own = match layer.origin.rsplit_once(" of ") {
                Some((_, of)) => of.to_owned(),
                None => consul_key(&state.spec).unwrap_or_default(),
            };
            Source::ConsulEntry {
                kind: kind.name(),
                name: own,
                index: believed.map_or(0, |believed| believed.index()),
            }
        };
        match layer.source {
            SplitSource::Cli => match self.authors.splits.get(name) {
                Some(author) => Source::Cli(author.clone()),
                None => Source::Cli(Author {
                    user: "unknown user".into(),
                    at: std::time::SystemTime::UNIX_EPOCH,
                }),
            },
            SplitSource::ConsulKv => {
                let key = fleet::split_key(name);
                let value = key.strip_prefix(fleet::PREFIX);
                let value = value.and_then(|key| self.keys.values().get(key));
                Source::ConsulKey {
                    index: value.map_or(0, |value| value.index),
                    key,
                }
            }
            SplitSource::ServiceSplitter => entry(EntryKind::Splitter),
            SplitSource::ServiceResolver => entry(EntryKind::Resolver),
            SplitSource::File => {
                let line = places.get(name).and_then(|places| places.split);
                Source::File {
                    path: state.spec.origin.file.clone(),
                    line: line.unwrap_or(state.spec.origin.line),
                }
            }
        }
    }

    /// The routes of a service's router, if it has one.
    pub(crate) fn router(&self, spec: &ServiceSpec) -> &[Route] {
        let key = consul_key(spec);
        let entries = self.entries.get(&EntryKind::Router);
        let entry = key.and_then(|key| entries?.values().get(&key));
        match entry {
            Some(ConfigEntry::Router(routes)) => routes,
            _ => &[],
        }
    }

    /// Services that ask for a request, the most particular first; each with the reason in words.
    pub(crate) fn asking_for(&self, request: &Request) -> Vec<(String, &'static str, String)> {
        let mut tagged = Vec::new();
        let mut routed = Vec::new();
        let hosted = self.snapshot.services.iter();
        let hosted = hosted.filter(|(_, state)| !state.spec.http.only_routed);
        for (name, state) in hosted {
            let fitting = state.routes.iter().filter(|route| request.fits(route));
            if let Some(route) = fitting.max_by_key(|route| Request::rank(route)) {
                let because = format!("a tag in Consul asks for {route}");
                tagged.push((Request::rank(route), name.clone(), because));
            }
            let is_named = request.names(name);
            let mut routes = self.router(&state.spec).iter();
            if is_named
                && let Some(route) = routes.find(|route| request.path_fits(&route.fits.path))
            {
                routed.push((
                    name.clone(),
                    "service-router",
                    format!("its service-router says: {route}"),
                ));
            } else if is_named {
                routed.push((name.clone(), "name", format!("the host is named {name}")));
            }
        }
        tagged.sort_by_key(|one| std::cmp::Reverse(one.0));
        let tagged = tagged
            .into_iter()
            .map(|(_, name, because)| (name, "tag", because));
        tagged.chain(routed).collect()
    }
}
