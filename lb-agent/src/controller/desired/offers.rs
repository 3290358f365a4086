//! What services in Consul ask for, read once from each listing: any change of any service has all
//! offers compared, but few of them are new.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};

use crate::domain::{backend::Instance, guard::Guard, offer, service::ServiceSpec};

/// An offer; `None`: nothing is asked for. An error is a sentence.
pub(super) type Offer = Option<Result<Arc<ServiceSpec>, String>>;

/// See the module's documentation. By what names the service.
#[derive(Debug, Default)]
pub(super) struct Offers {
    read: BTreeMap<String, Read>,
    /// The VIPs that the circles below are of.
    asked: HashSet<SocketAddr>,
    circles: BTreeMap<String, Circles>,
}

#[derive(Debug)]
struct Read {
    listed: Arc<Vec<Instance>>,
    spoken: Option<String>,
    offer: Offer,
}

/// Which of the VIPs that are asked for are addresses of these backends.
#[derive(Debug)]
struct Circles {
    listed: Arc<Vec<Instance>>,
    vips: Vec<SocketAddr>,
}

impl Offers {
    /// The offer of a service that nothing of is held.
    pub(super) fn of_listing(
        &mut self,
        name: &str,
        spoken: Option<&str>,
        listed: &Arc<Vec<Instance>>,
    ) -> Offer {
        if let Some(read) = self.read.get(name)
            && Arc::ptr_eq(&read.listed, listed)
            && read.spoken.as_deref() == spoken
        {
            return read.offer.clone();
        }
        let offer = read(name, spoken, listed.iter());
        let read = Read {
            listed: listed.clone(),
            spoken: spoken.map(str::to_owned),
            offer: offer.clone(),
        };
        self.read.insert(name.to_owned(), read);
        offer
    }

    /// The offer of a service as its guard believes it.
    pub(super) fn of_guard(&mut self, name: &str, spoken: Option<&str>, guard: &Guard) -> Offer {
        match guard.listing() {
            Some(listed) => self.of_listing(name, spoken, listed),
            None => read(name, spoken, guard.instances().map(|(one, _)| one)),
        }
    }

    /// Those of the VIPs `asked` for where a backend listens.
    pub(super) fn circles(
        &mut self,
        asked: HashSet<SocketAddr>,
        guards: &BTreeMap<String, Guard>,
    ) -> HashSet<SocketAddr> {
        if asked != self.asked {
            self.circles.clear();
            self.asked = asked;
        }
        self.circles.retain(|key, _| guards.contains_key(key));
        let mut found = HashSet::new();
        if self.asked.is_empty() {
            return found;
        }
        for (key, guard) in guards {
            let asked = &self.asked;
            let within = |instances: &mut dyn Iterator<Item = &Instance>| -> Vec<SocketAddr> {
                let addresses = instances.map(|one| one.address);
                addresses.filter(|one| asked.contains(one)).collect()
            };
            let Some(listed) = guard.listing() else {
                found.extend(within(&mut guard.instances().map(|(one, _)| one)));
                continue;
            };
            match self.circles.get(key) {
                Some(known) if Arc::ptr_eq(&known.listed, listed) => {
                    found.extend(known.vips.iter().copied());
                }
                _ => {
                    let vips = within(&mut listed.iter());
                    found.extend(vips.iter().copied());
                    let listed = listed.clone();
                    self.circles.insert(key.clone(), Circles { listed, vips });
                }
            }
        }
        found
    }

    /// Drops what is known of services that are not among these.
    pub(super) fn retain(&mut self, exists: impl Fn(&str) -> bool) {
        self.read.retain(|name, _| exists(name));
    }
}

fn read<'a>(
    name: &str,
    spoken: Option<&str>,
    instances: impl Iterator<Item = &'a Instance>,
) -> Offer {
    Some(offer::read(name, spoken, instances)?.map(Arc::new))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::domain::backend::{CatalogHealth, InstanceId};

    fn listed(vip: &str, address: &str) -> Arc<Vec<Instance>> {
        Arc::new(vec![Instance {
            id: InstanceId("n/a".into()),
            address: address.parse().unwrap(),
            weight: 1,
            tags: Arc::default(),
            meta: Arc::new([(offer::VIP.to_owned(), vip.to_owned())].into()),
            subset: None,
            health: CatalogHealth::Passing,
            detail: None,
        }])
    }

    fn spec(offer: Offer) -> Arc<ServiceSpec> {
        offer.expect("an offer").expect("one that can be used")
    }

    #[test]
    fn the_same_listing_gives_the_same_value_and_another_one_its_own() {
        let mut offers = Offers::default();
        let one = listed("198.51.100.1:80", "10.0.0.1:80");
        let first = spec(offers.of_listing("web", None, &one));
        let again = spec(offers.of_listing("web", None, &one));
        assert!(Arc::ptr_eq(&first, &again), "read once");
        let spoken = spec(offers.of_listing("web", Some("http"), &one));
        assert!(spoken.protocol.is_proxied(), "another protocol counts");
        let other = listed("198.51.100.2:80", "10.0.0.1:80");
        let second = spec(offers.of_listing("web", None, &other));
        assert_eq!(second.vips, ["198.51.100.2:80".parse().unwrap()]);
        offers.retain(|_| false);
        assert!(offers.read.is_empty(), "nothing is left of what is gone");
    }

    #[test]
    fn circles_follow_listings_holds_and_what_is_asked_for() {
        let vip: SocketAddr = "198.51.100.1:80".parse().unwrap();
        let now = SystemTime::UNIX_EPOCH;
        let hold = Duration::from_secs(60);
        let mut guards = BTreeMap::from([("web".to_owned(), Guard::default())]);
        let mut offers = Offers::default();
        let mut rows = vec![
            ("elsewhere", listed("", "10.0.0.1:80"), true, false),
            ("at the VIP", listed("", "198.51.100.1:80"), true, true),
            ("not asked for", listed("", "198.51.100.1:80"), false, false),
        ];
        // Gone at once, and therefore held.
        rows.push(("held", Arc::default(), true, true));
        for (what, listed, asks, circle) in rows {
            let guard = guards.get_mut("web").unwrap();
            guard.admit(&listed, &|_| false, now, hold);
            for _ in 0..2 {
                let asked = asks.then_some(vip).into_iter().collect();
                let found = offers.circles(asked, &guards);
                assert_eq!(found.contains(&vip), circle, "{what}");
            }
        }
        guards.clear();
        assert!(offers.circles([vip].into(), &guards).is_empty());
    }
}
