//! What Consul is asked for, and services that publish themselves there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::SystemTime,
};

use ipnet::IpNet;

use super::{Desired, consul_key, offers::Offer};
use crate::{
    config::Publish,
    domain::{
        config_entry::EntryKind,
        fleet::{Fleet, FleetBlock},
        service::{Protocol, ServiceSpec},
        sync::Topic,
    },
};

/// Consul's own entry in its catalog.
const CONSUL: &str = "consul";

impl Desired {
    /// Everything that is to be asked of Consul.
    pub(super) fn topics(&self) -> BTreeSet<Topic> {
        let Some(auto_publish) = &self.auto_publish else {
            return BTreeSet::new();
        };
        let mut topics = BTreeSet::from([Topic::Keys]);
        topics.extend(self.instance_topics());
        if topics.len() > 1 {
            topics.extend(EntryKind::ALL.map(Topic::Entries));
        }
        if *auto_publish != Publish::Nobody {
            topics.insert(Topic::Names);
            let names = self
                .catalog
                .names
                .iter()
                .flat_map(|names| names.values.keys());
            // One that publishes itself is glanced at until its watch has answered.
            let glanced = names.filter(|name| {
                *name != CONSUL && !self.guards.contains_key(*name) && !self.is_configured(name)
            });
            topics.extend(glanced.cloned().map(Topic::Glance));
        }
        topics
    }

    /// The same if it may have changed since the last time.
    pub(crate) fn new_topics(&mut self) -> Option<BTreeSet<Topic>> {
        std::mem::take(&mut self.asks_anew).then(|| self.topics())
    }

    /// Keys of the services in Consul that backends are taken from.
    pub(super) fn watched(&self) -> BTreeSet<String> {
        self.users().into_keys().collect()
    }

    /// By the key of a service in Consul: the services that take backends from it.
    pub(super) fn users(&self) -> BTreeMap<String, Vec<String>> {
        let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for spec in self.all() {
            for target in self.targets(spec) {
                users
                    .entry(target.key())
                    .or_default()
                    .push(spec.name.clone());
            }
        }
        users
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<ServiceSpec>> {
        let own = self.services.values();
        own.chain(self.offered.values()).chain(self.routed.values())
    }

    fn is_configured(&self, consul_service: &str) -> bool {
        let mut keys = self.services.values().filter_map(|spec| consul_key(spec));
        keys.any(|key| key == consul_service)
    }

    /// Takes in configuration entries and keys, as far as they are to be believed.
    pub(super) fn believe(&mut self, now: SystemTime) {
        for (kind, listed) in &self.catalog.entries {
            let believed = self.entries.entry(*kind).or_default();
            believed.take(listed.index, &listed.values, now, self.hold);
        }
        if let Some(listed) = &self.catalog.keys {
            let keys = &mut self.keys;
            if keys.take(listed.index, &listed.values, now, self.hold) {
                self.fleet = Fleet::read(self.keys.values());
                for text in &self.fleet.malformed {
                    tracing::warn!("{text}");
                }
            }
        }
    }

    /// Finds the services that publish themselves. One that clashes with another is left out.
    pub(super) fn find_offers(&mut self) {
        self.offer_problems.clear();
        let former = std::mem::take(&mut self.offered);
        if !self.publishes() {
            return;
        }
        let mut taken: HashMap<(SocketAddr, Protocol), String> = HashMap::new();
        for spec in self.services.values() {
            for vip in &spec.vips {
                taken.insert((*vip, spec.protocol), spec.name.clone());
            }
        }
        let mut cache = std::mem::take(&mut self.offers);
        let mut offers: BTreeMap<&str, Offer> = BTreeMap::new();
        for (name, listed) in &self.catalog.glanced {
            offers.insert(name, cache.of_listing(name, self.spoken(name), listed));
        }
        // Those of other datacenters are published there.
        let own = self.guards.iter().filter(|(key, _)| !key.contains('@'));
        for (key, guard) in own {
            offers.insert(key, cache.of_guard(key, self.spoken(key), guard));
        }
        cache.retain(|name| offers.contains_key(name));
        let asked: HashSet<SocketAddr> = offers
            .values()
            .flatten()
            .flatten()
            .flat_map(|spec| spec.vips.iter().copied())
            .collect();
        let circles = cache.circles(asked, &self.guards);
        let (mut offered, mut problems) = (BTreeMap::new(), Vec::new());
        for (name, offer) in offers {
            let Some(offer) = offer else { continue };
            match offer.and_then(|spec| self.admissible(spec, &mut taken, &circles)) {
                Ok(Some(spec)) => {
                    if !former.contains_key(name) {
                        tracing::info!(service = name, origin = %spec.origin, "publishes itself");
                    }
                    // What has not changed stays the same value.
                    let spec = match former.get(name) {
                        Some(known) if *known == spec => known.clone(),
                        _ => spec,
                    };
                    offered.insert(name.to_owned(), spec);
                }
                Ok(None) => {}
                Err(problem) => problems.push(problem),
            }
        }
        self.offered = offered;
        self.offer_problems = problems;
        self.offers = cache;
    }

    /// Whether a service that publishes itself leaves alone what others have.
    fn admissible(
        &self,
        spec: Arc<ServiceSpec>,
        taken: &mut HashMap<(SocketAddr, Protocol), String>,
        circles: &HashSet<SocketAddr>,
    ) -> Result<Option<Arc<ServiceSpec>>, String> {
        let name = &spec.name;
        let refused = |why: String| {
            format!(
                "the service {name} in Consul is not published: {why} ({})",
                spec.origin
            )
        };
        let own = |vip: &SocketAddr| taken.get(&(*vip, spec.protocol));
        // Its routes are those of the configured one.
        if spec.vips.is_empty() && (self.services.contains_key(name) || self.is_configured(name)) {
            return Ok(None);
        }
        if let Some(configured) = self.services.get(name) {
            // Whoever configures it as it publishes itself has said the same twice.
            let same = configured.vips.iter().collect::<BTreeSet<_>>()
                == spec.vips.iter().collect::<BTreeSet<_>>();
            return match same && configured.protocol == spec.protocol {
                true => Ok(None),
                false => Err(refused(format!(
                    "a service of this name is configured in {} with other addresses for clients, and goes before it",
                    configured.origin
                ))),
            };
        }
        if let Some(Publish::Within(prefixes)) = &self.auto_publish {
            let inside = |vip: &&SocketAddr| prefixes.iter().any(|net| net.contains(&vip.ip()));
            if let Some(vip) = spec.vips.iter().find(|vip| !inside(vip)) {
                return Err(refused(format!("{vip} is in no prefix of `auto_publish`")));
            }
        }
        if let Some(vip) = spec.vips.iter().find(|vip| circles.contains(vip)) {
            return Err(refused(format!(
                "{vip} is where a backend listens, so packets would go in circles"
            )));
        }
        if let Some((vip, owner)) = spec.vips.iter().find_map(|vip| Some((vip, own(vip)?))) {
            return Err(refused(format!(
                "{vip} ({}) belongs to service {owner}",
                spec.protocol
            )));
        }
        for vip in &spec.vips {
            taken.insert((*vip, spec.protocol), name.clone());
        }
        Ok(Some(spec))
    }

    /// Rules of the block list for the whole fleet.
    pub(crate) fn fleet_blocks(&self) -> &BTreeMap<IpNet, FleetBlock> {
        &self.fleet.blocks
    }

    /// What a person should know of all that comes from Consul, each a sentence.
    pub(crate) fn consul_problems(&self) -> impl Iterator<Item = String> {
        let kept = |what: String, count: usize| {
            (count > 0).then(|| {
                format!("Consul lists {count} {what} no longer, but its index did not go up; they count until the hold ends")
            })
        };
        let entries = self.entries.iter().filter_map(move |(kind, believed)| {
            kept(format!("{kind} entries"), believed.kept().count())
        });
        let keys = kept("keys of the fleet".into(), self.keys.kept().count());
        let own = self.consul_problems.values().flatten();
        let own = own.chain(&self.offer_problems);
        let own = own.chain(&self.fleet.malformed).cloned();
        own.chain(entries).chain(keys)
    }
}
