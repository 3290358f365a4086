//! Who gave an order: noted beside what the order brought about, for as long as that is in force.

use super::{Command, Controller};
use crate::domain::{author::Author, kernel::Kernel, shift::Steering};

/// The split that an order brings about, and the shift.
type Effect = Option<(Option<String>, Option<String>)>;

impl<K: Kernel> Controller<K> {
    /// Carries out a command, and notes who gave it.
    pub(super) async fn carry_out_by(&mut self, command: Command) {
        let (author, command) = match command {
            Command::By(author, command) => (author, *command),
            command => return self.carry_out(command).await,
        };
        // What is drained carries its author itself.
        let command = match command {
            Command::Drain(service, backend, mut order, reply) => {
                order.by.get_or_insert_with(|| author.user.clone());
                Command::Drain(service, backend, order, reply)
            }
            Command::DrainNode(mut order, grace, reply) => {
                order.by.get_or_insert_with(|| author.user.clone());
                Command::DrainNode(order, grace, reply)
            }
            command => command,
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
        self.sign(&service, &author);
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
        (split.is_some() || shift.is_some()).then_some((split, shift))
    }

    fn sign(&mut self, service: &str, author: &Author) {
        let splits = &mut self.desired.authors.splits;
        splits.insert(service.to_owned(), author.clone());
        let desired = &mut self.desired;
        let (splits, shifts) = (&desired.splits, &desired.shifts);
        desired
            .authors
            .retain(|name| splits.contains_key(name) || shifts.contains_key(name));
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
        | Command::Acknowledge(service, _) => Some(service),
        _ => None,
    }
}
