//! Who gave an order: noted beside what the order brought about, for as long as that is in force.

use std::collections::BTreeMap;

use super::{Command, Controller};
use crate::domain::{author::Author, backend::InstanceId, kernel::Kernel, shift::Steering};

/// What orders bring about, as far as it tells one order from another.
#[derive(PartialEq)]
struct Effect {
    split: Option<(Option<String>, Option<String>)>,
    drained: Vec<InstanceId>,
}

impl<K: Kernel> Controller<K> {
    /// Carries out a command, and notes who gave it.
    pub(super) async fn carry_out_by(&mut self, command: Command) {
        let (author, command) = match command {
            Command::By(author, command) => (author, *command),
            command => return self.carry_out(command).await,
        };
        let service = subject(&command).map(str::to_owned);
        let Some(service) = service else {
            return self.carry_out(command).await;
        };
        let before = self.effect(&service);
        self.carry_out(command).await;
        let after = self.effect(&service);
        if before == after {
            return;
        }
        tracing::info!(service, user = author.user, "ordered by");
        self.sign(&service, &author, &before, &after);
        self.save();
    }

    fn effect(&self, service: &str) -> Effect {
        let splits = self.desired.splits.get(service);
        let shift = self.desired.shifts.get(service).map(Steering::shift);
        let split = splits.map(ToString::to_string);
        let shift = shift.map(|shift| {
            let (subset, phase) = (&shift.subset, shift.phase.name());
            format!("{subset} {phase} {:?}", shift.began)
        });
        let drains = self.desired.drains.get(service);
        Effect {
            split: (split.is_some() || shift.is_some()).then_some((split, shift)),
            drained: drains
                .into_iter()
                .flat_map(BTreeMap::keys)
                .cloned()
                .collect(),
        }
    }

    fn sign(&mut self, service: &str, author: &Author, before: &Effect, after: &Effect) {
        let mut signed = std::mem::take(&mut self.desired.authors);
        let desired = &self.desired;
        if before.split != after.split {
            signed.splits.insert(service.to_owned(), author.clone());
        }
        let new = after.drained.iter();
        for backend in new.filter(|backend| !before.drained.contains(backend)) {
            let drains = signed.drains.entry(service.to_owned()).or_default();
            drains.insert(backend.clone(), author.clone());
        }
        signed.retain(
            |name| desired.splits.contains_key(name) || desired.shifts.contains_key(name),
            |name, backend| {
                let drains = desired.drains.get(name);
                drains.is_some_and(|drains| drains.contains_key(backend))
            },
        );
        self.desired.authors = signed;
    }
}

/// The service that a command changes, if it is one whose author counts.
fn subject(command: &Command) -> Option<&str> {
    match command {
        Command::SplitSet(service, ..)
        | Command::SplitReset(service, _)
        | Command::Shift(service, ..)
        | Command::Promote(service, _)
        | Command::Rollback(service, _)
        | Command::Acknowledge(service, _)
        | Command::Drain(service, ..)
        | Command::Undrain(service, ..) => Some(service),
        _ => None,
    }
}
