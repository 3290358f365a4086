//! What is to be done in Consul so that it holds what is wanted: pure.
//!
//! Only what carries both the prefix in its id and the owner's mark in its meta is ever changed or
//! removed. What has the id of something wanted without being the agent's is left alone, and told.

use std::collections::BTreeMap;

use super::{
    registration::{OWNER, Registration},
    translate::{PAUSED, STOPPING},
};
use crate::source::consul_agent::{AgentCheck, AgentService};

/// What Consul's agent holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Present {
    /// By id.
    pub(super) services: BTreeMap<String, AgentService>,
    /// By id.
    pub(super) checks: BTreeMap<String, AgentCheck>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step<'a> {
    /// Register it, or register it anew.
    Register(&'a Registration),
    /// Remove one of its checks, which it no longer has.
    DropCheck {
        /// The check's id.
        check: String,
    },
    /// Say how its container is.
    SetHealth {
        /// The check's id.
        check: String,
        /// As Consul calls it.
        status: &'static str,
        /// For people.
        output: String,
    },
    /// Take new connections away from it, or give them back.
    SetMaintenance {
        /// The registration's id.
        id: String,
        /// `None`: give them back.
        reason: Option<&'static str>,
    },
    /// Remove it.
    Deregister {
        /// The registration's id.
        id: String,
        /// Name of its service.
        name: String,
    },
}

impl Step<'_> {
    /// Whose registration it is about, for errors.
    pub(super) fn object(&self) -> &str {
        match self {
            Self::Register(registration) => &registration.id,
            Self::DropCheck { check } | Self::SetHealth { check, .. } => check,
            Self::SetMaintenance { id, .. } | Self::Deregister { id, .. } => id,
        }
    }
}

/// Steps to what is wanted, and sentences on what stands in their way. With `renew` every health is
/// told again, so that Consul does not take it for forgotten. What comes goes before what leaves.
pub(super) fn plan<'a>(
    wanted: &'a BTreeMap<String, Registration>,
    present: &Present,
    prefix: &str,
    renew: bool,
) -> (Vec<Step<'a>>, Vec<String>) {
    let mut steps = Vec::new();
    let mut foreign = Vec::new();
    for (id, registration) in wanted {
        match present.services.get(id) {
            Some(service) if !is_own(id, service, prefix) => {
                foreign.push(format!(
                    "Consul holds {id} of the service {}, which this agent did not register; it is left alone, and container {} is not registered",
                    service.name, registration.container
                ));
                continue;
            }
            Some(service) if is_current(registration, service, present, prefix) => {}
            _ => {
                // Its checks come with it; how they are is seen next time.
                steps.push(Step::Register(registration));
            }
        }
        amend(registration, present, renew, &mut steps);
    }
    let gone = present
        .services
        .iter()
        .filter(|(id, service)| is_own(id, service, prefix) && !wanted.contains_key(*id));
    steps.extend(gone.map(|(id, service)| Step::Deregister {
        id: id.clone(),
        name: service.name.clone(),
    }));
    (steps, foreign)
}

/// How many of what Consul holds are this agent's.
pub(super) fn own_count(present: &Present, prefix: &str) -> usize {
    let own = |(id, service): &(&String, &AgentService)| is_own(id, service, prefix);
    present.services.iter().filter(own).count()
}

fn is_own(id: &str, service: &AgentService, prefix: &str) -> bool {
    let owner = service.meta.get(OWNER).map(String::as_str);
    id.starts_with(prefix) && owner == Some(prefix)
}

fn is_current(
    registration: &Registration,
    service: &AgentService,
    present: &Present,
    prefix: &str,
) -> bool {
    service.name == registration.name
        && service.address == registration.address.to_string()
        && service.port == i64::from(registration.port)
        && service.tags == registration.tags
        && service.meta == registration.full_meta(prefix)
        && registration
            .checks()
            .all(|check| present.checks.contains_key(&check))
}

/// What is told otherwise than by registering.
fn amend(registration: &Registration, present: &Present, renew: bool, steps: &mut Vec<Step<'_>>) {
    let id = &registration.id;
    let checks: Vec<String> = registration.checks().collect();
    for check in [Registration::check_id(id), Registration::health_id(id)] {
        if present.checks.contains_key(&check) && !checks.contains(&check) {
            steps.push(Step::DropCheck { check });
        }
    }
    let check = Registration::health_id(id);
    if let Some(now) = present.checks.get(&check)
        && let Some((status, output)) = registration.health_status(&now.output)
        && (renew || now.status != status || now.output != output)
    {
        steps.push(Step::SetHealth {
            check,
            status,
            output,
        });
    }
    // Maintenance that somebody else has ordered stays until they take it back.
    let ordered = present.checks.get(&format!("_service_maintenance:{id}"));
    let reason = match (registration.maintenance, ordered) {
        (Some(reason), None) => Some(Some(reason)),
        (None, Some(check)) if [PAUSED, STOPPING].contains(&check.notes.as_str()) => Some(None),
        _ => None,
    };
    if let Some(reason) = reason {
        let id = id.clone();
        steps.push(Step::SetMaintenance { id, reason });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{container::Health, registration::tests::registration},
        *,
    };

    const P: &str = "p:";

    /// What Consul holds once it has registered this.
    fn hold(present: &mut Present, registration: &Registration) {
        let service = AgentService {
            name: registration.name.clone(),
            address: registration.address.to_string(),
            port: registration.port.into(),
            tags: registration.tags.clone(),
            meta: registration.full_meta(P),
        };
        present.services.insert(registration.id.clone(), service);
        for check in registration.checks() {
            let status = registration.health_status("").map(|(status, _)| status);
            present.checks.insert(
                check,
                AgentCheck {
                    status: status.unwrap_or("critical").into(),
                    ..AgentCheck::default()
                },
            );
        }
    }

    fn wanted(registrations: &[&Registration]) -> BTreeMap<String, Registration> {
        let pairs = registrations.iter();
        pairs
            .map(|each| (each.id.clone(), (*each).clone()))
            .collect()
    }

    fn steps<'a>(wanted: &'a BTreeMap<String, Registration>, present: &Present) -> Vec<Step<'a>> {
        let (steps, foreign) = plan(wanted, present, P, false);
        assert_eq!(foreign, Vec::<String>::new());
        steps
    }

    #[test]
    fn what_comes_stays_and_goes() {
        let (a, b) = (registration("p:a"), registration("p:b"));
        let mut present = Present::default();
        let first = wanted(&[&a]);
        assert_eq!(steps(&first, &present), [Step::Register(&a)]);
        hold(&mut present, &a);
        assert_eq!(own_count(&present, P), 1);
        assert_eq!(steps(&first, &present), []);
        // The new one first.
        let gone = Step::Deregister {
            id: "p:a".into(),
            name: "echo".into(),
        };
        assert_eq!(steps(&wanted(&[&b]), &present), [Step::Register(&b), gone]);
    }

    #[test]
    fn what_was_changed_is_registered_anew() {
        let mut a = registration("p:a");
        a.check = Some(json!({"TCP": "10.0.0.5:8080"}));
        let mut present = Present::default();
        hold(&mut present, &a);
        let as_it_was = wanted(&[&a]);
        assert_eq!(steps(&as_it_was, &present), []);
        type Change = fn(&mut Present);
        let changes: [Change; 6] = [
            |present| present.checks.clear(),
            |present| present.services.get_mut("p:a").unwrap().port = 1,
            |present| present.services.get_mut("p:a").unwrap().tags.clear(),
            |present| present.services.get_mut("p:a").unwrap().name = "x".into(),
            |present| present.services.get_mut("p:a").unwrap().address = "x".into(),
            |present| {
                let meta = &mut present.services.get_mut("p:a").unwrap().meta;
                meta.insert("x".into(), "y".into());
            },
        ];
        for change in changes {
            let mut present = present.clone();
            change(&mut present);
            assert_eq!(steps(&as_it_was, &present), [Step::Register(&a)]);
        }
        // A check that is no longer asked for goes.
        let without = wanted(&[&registration("p:a")]);
        let found = steps(&without, &present);
        let drop = Step::DropCheck {
            check: "p:a:check".into(),
        };
        assert_eq!(found, [Step::Register(&without["p:a"]), drop]);
    }

    #[test]
    fn what_is_not_ones_own_is_left_alone() {
        let a = registration("p:a");
        let mut present = Present::default();
        hold(&mut present, &a);
        let mut other = present.services["p:a"].clone();
        // The prefix without the mark, another's mark, the mark without the prefix.
        other.meta.remove(OWNER);
        present.services.insert("p:x".into(), other.clone());
        other.meta.insert(OWNER.into(), "p:sub:".into());
        present.services.insert("p:sub:y".into(), other.clone());
        other.meta.insert(OWNER.into(), P.into());
        present.services.insert("q:z".into(), other);
        let none = wanted(&[]);
        let gone = Step::Deregister {
            id: "p:a".into(),
            name: "echo".into(),
        };
        assert_eq!(steps(&none, &present), [gone]);
        // Nor is it taken over.
        let mut x = registration("p:x");
        x.maintenance = Some(PAUSED);
        let both = wanted(&[&a, &x]);
        let (steps, foreign) = plan(&both, &present, P, true);
        assert_eq!(steps, []);
        assert_eq!(foreign.len(), 1);
        assert!(
            foreign[0].starts_with("Consul holds p:x of the service echo"),
            "{foreign:?}"
        );
    }

    #[test]
    fn health_and_maintenance_follow_the_container() {
        let mut a = registration("p:a");
        a.health = Some(Health::Starting);
        let mut present = Present::default();
        hold(&mut present, &a);
        let told = |health, word: &'static str, status| {
            let check = "p:a:health".to_owned();
            let output = format!("container web, started then, is {word}");
            (
                health,
                Step::SetHealth {
                    check,
                    status,
                    output,
                },
            )
        };
        for (health, step) in [
            told(Health::Healthy, "healthy", "passing"),
            told(Health::Unhealthy, "unhealthy", "critical"),
        ] {
            a.health = Some(health);
            assert_eq!(steps(&wanted(&[&a]), &present), std::slice::from_ref(&step));
            let Step::SetHealth {
                check,
                status,
                output,
            } = step
            else {
                unreachable!()
            };
            let check = present.checks.get_mut(&check).unwrap();
            (check.status, check.output) = (status.into(), output);
            let same = wanted(&[&a]);
            assert_eq!(steps(&same, &present), []);
            assert_eq!(plan(&same, &present, P, true).0.len(), 1);
        }

        a.maintenance = Some(PAUSED);
        let on = |reason| Step::SetMaintenance {
            id: "p:a".into(),
            reason,
        };
        assert_eq!(steps(&wanted(&[&a]), &present), [on(Some(PAUSED))]);
        for (notes, ends) in [(PAUSED, true), (STOPPING, true), ("by hand", false)] {
            let check = AgentCheck {
                status: "critical".into(),
                notes: notes.into(),
                ..AgentCheck::default()
            };
            present
                .checks
                .insert("_service_maintenance:p:a".into(), check);
            a.maintenance = Some(PAUSED);
            assert_eq!(steps(&wanted(&[&a]), &present), []);
            a.maintenance = None;
            let expected = if ends { vec![on(None)] } else { vec![] };
            assert_eq!(steps(&wanted(&[&a]), &present), expected);
        }
    }
}
