//! One service instance as it is to stand in Consul, and the body that registers it.

use std::{collections::BTreeMap, net::IpAddr};

use lb_common::hash;
use serde_json::{Value, json};

use super::container::Health;

/// Meta entry that tells an agent's own registrations: its prefix. What does not carry it is not
/// touched, whatever its id.
pub(super) const OWNER: &str = "lb-registrar";
/// Meta entry that tells whether a registration is still the one that is wanted, its checks
/// included, whose definitions Consul does not show again.
pub(super) const PRINT: &str = "lb-registration";

/// How long Consul keeps what it was told of a container's health. The agent renews it each time
/// it asks the engine for everything; this long it may be away without taking a backend out.
const HEALTH_TTL: &str = "720h";

/// Most entries, and longest keys and values of a service's meta (`agent/structs` of Consul).
pub(super) const META_LIMITS: (usize, usize, usize) = (64, 128, 512);

/// What is registered.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Registration {
    /// Unique within Consul; begins with the prefix.
    pub(super) id: String,
    /// Name of the service.
    pub(super) name: String,
    /// Where it listens.
    pub(super) address: IpAddr,
    /// Where it listens.
    pub(super) port: u16,
    /// Tags, in the order given.
    pub(super) tags: Vec<String>,
    /// Meta entries of people's own.
    pub(super) meta: BTreeMap<String, String>,
    /// Consul's definition of the check that was asked for.
    pub(super) check: Option<Value>,
    /// What the engine's own health check found.
    pub(super) health: Option<Health>,
    /// Why it is to get nothing new.
    pub(super) maintenance: Option<&'static str>,
    /// The container's name.
    pub(super) container: String,
    /// When it started, in the engine's words.
    pub(super) started: String,
}

impl Registration {
    /// Id of the check that was asked for.
    pub(super) fn check_id(id: &str) -> String {
        format!("{id}:check")
    }

    /// Id of the check that tells what the engine's own found.
    pub(super) fn health_id(id: &str) -> String {
        format!("{id}:health")
    }

    /// Ids of the checks that it has.
    pub(super) fn checks(&self) -> impl Iterator<Item = String> {
        let check = self.check.is_some().then(|| Self::check_id(&self.id));
        let health = self.health.is_some().then(|| Self::health_id(&self.id));
        check.into_iter().chain(health)
    }

    /// Status and output of the check that tells of its health, where that check says this now.
    ///
    /// Some engines (17.x and before) call every container `starting` after a restart of their own,
    /// until they have asked it again. What was healthy before, in the same run, stays so until then.
    pub(super) fn health_status(&self, said: &str) -> Option<(&'static str, String)> {
        let healthy = self.health_output(Health::Healthy);
        match self.health? {
            Health::Healthy => Some(("passing", healthy)),
            Health::Starting if said == healthy => Some(("passing", healthy)),
            // Not yet, and no longer: nothing new either way.
            health => Some(("critical", self.health_output(health))),
        }
    }

    fn health_output(&self, health: Health) -> String {
        let Self {
            container, started, ..
        } = self;
        format!(
            "container {container}, started {started}, is {}",
            health.name()
        )
    }

    /// The meta as registered: people's, owner and print.
    pub(super) fn full_meta(&self, prefix: &str) -> BTreeMap<String, String> {
        let mut meta = self.meta.clone();
        meta.insert(OWNER.to_owned(), prefix.to_owned());
        meta.insert(PRINT.to_owned(), self.print());
        meta
    }

    /// The body of `PUT /v1/agent/service/register`.
    pub(super) fn body(&self, prefix: &str) -> Value {
        let mut checks = Vec::new();
        if let Some(Value::Object(check)) = &self.check {
            let mut check = check.clone();
            check.insert("CheckID".to_owned(), json!(Self::check_id(&self.id)));
            check.insert("Name".to_owned(), json!(format!("check of {}", self.name)));
            checks.push(Value::Object(check));
        }
        if let Some((status, _)) = self.health_status("") {
            checks.push(json!({
                "CheckID": Self::health_id(&self.id),
                "Name": "Docker's health check",
                "TTL": HEALTH_TTL,
                "Status": status,
            }));
        }
        json!({
            "ID": self.id,
            "Name": self.name,
            "Address": self.address,
            "Port": self.port,
            "Tags": self.tags,
            "Meta": self.full_meta(prefix),
            "Checks": checks,
        })
    }

    /// Hash of everything that takes a new registration to change, in hexadecimal. Health and
    /// maintenance have ways of their own.
    fn print(&self) -> String {
        let text = json!([
            self.name,
            self.address,
            self.port,
            self.tags,
            self.meta,
            self.check,
            self.health.is_some(),
            HEALTH_TTL,
        ])
        .to_string();
        let words = text.as_bytes().chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        });
        let state = words.fold(text.len() as u64, hash::mix);
        format!("{:016x}", hash::finish(state))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn registration(id: &str) -> Registration {
        Registration {
            id: id.into(),
            name: "echo".into(),
            address: "10.0.0.5".parse().unwrap(),
            port: 8080,
            tags: vec!["v1".into()],
            meta: BTreeMap::new(),
            check: None,
            health: None,
            maintenance: None,
            container: "web".into(),
            started: "then".into(),
        }
    }

    #[test]
    fn the_body_that_consul_gets() {
        let mut wanted = registration("p:web:80");
        wanted
            .meta
            .insert("lb-vip".into(), "198.51.100.10:80".into());
        wanted.check = Some(json!({"TCP": "10.0.0.5:8080", "Interval": "10s"}));
        wanted.health = Some(Health::Starting);
        let print = wanted.print();
        assert_eq!(
            wanted.body("p:"),
            json!({
                "ID": "p:web:80", "Name": "echo", "Address": "10.0.0.5", "Port": 8080,
                "Tags": ["v1"],
                "Meta": {"lb-vip": "198.51.100.10:80", "lb-registrar": "p:", "lb-registration": print},
                "Checks": [
                    {"CheckID": "p:web:80:check", "Name": "check of echo", "TCP": "10.0.0.5:8080",
                     "Interval": "10s"},
                    {"CheckID": "p:web:80:health", "Name": "Docker's health check", "TTL": "720h",
                     "Status": "critical"},
                ],
            })
        );
        let checks: Vec<_> = wanted.checks().collect();
        assert_eq!(checks, ["p:web:80:check", "p:web:80:health"]);
    }

    #[test]
    fn what_was_healthy_in_this_run_stays_so_while_it_is_asked_again() {
        let mut web = registration("a");
        assert_eq!(web.health_status(""), None);
        let healthy = "container web, started then, is healthy";
        let rows = [
            (
                Health::Starting,
                "",
                "critical",
                "container web, started then, is starting",
            ),
            (Health::Healthy, "", "passing", healthy),
            (Health::Starting, healthy, "passing", healthy),
            (
                Health::Unhealthy,
                healthy,
                "critical",
                "container web, started then, is unhealthy",
            ),
            // That was another run.
            (
                Health::Starting,
                "container web, started before, is healthy",
                "critical",
                "container web, started then, is starting",
            ),
        ];
        for (health, said, status, output) in rows {
            web.health = Some(health);
            assert_eq!(
                web.health_status(said),
                Some((status, output.to_owned())),
                "{said}"
            );
        }
    }

    #[test]
    fn the_print_tells_what_takes_a_new_registration() {
        let first = registration("a");
        let mut prints = vec![first.print()];
        let changes: [fn(&mut Registration); 7] = [
            |r| r.name.push('x'),
            |r| r.address = "10.0.0.6".parse().unwrap(),
            |r| r.port = 1,
            |r| r.tags.clear(),
            |r| drop(r.meta.insert("a".into(), "b".into())),
            |r| r.check = Some(json!({})),
            |r| r.health = Some(Health::Healthy),
        ];
        for change in changes {
            let mut other = registration("a");
            change(&mut other);
            assert!(!prints.contains(&other.print()), "{other:?}");
            prints.push(other.print());
        }
        // These are told otherwise.
        let mut other = registration("a");
        other.maintenance = Some("paused");
        assert_eq!(other.print(), first.print());
        let healthy = prints.pop();
        other.health = Some(Health::Unhealthy);
        assert_eq!(Some(other.print()), healthy);
    }
}
