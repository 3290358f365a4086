//! Which topics have a watch of their own and which are polled. Pure.
//!
//! What is only glanced at never takes a watch from a service that is balanced.

use std::collections::BTreeSet;

use crate::domain::sync::Topic;

/// Who sits where.
#[derive(Debug)]
pub(super) struct Seats {
    capacity: usize,
    watched: BTreeSet<Topic>,
    polled: BTreeSet<Topic>,
}

/// A step from one arrangement to the next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Follow it no longer.
    Stop(Topic),
    /// Give it a watch, if it was polled instead of that.
    Watch(Topic),
    /// Poll it.
    Poll(Topic),
}

impl Seats {
    /// Nobody is followed; at most `capacity` topics are to have a watch.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            watched: BTreeSet::new(),
            polled: BTreeSet::new(),
        }
    }

    /// The steps to follow these topics and no others. Who has a watch keeps it; watches that
    /// become free go to those polled, then to the new.
    pub(super) fn arrange(&mut self, wanted: &BTreeSet<Topic>) -> Vec<Move> {
        let mut moves = Vec::new();
        for seats in [&mut self.watched, &mut self.polled] {
            seats.retain(|topic| {
                let stays = wanted.contains(topic);
                if !stays {
                    moves.push(Move::Stop(topic.clone()));
                }
                stays
            });
        }
        while self.watched.len() < self.capacity
            && let Some(topic) = self.polled.iter().find(|topic| may_watch(topic)).cloned()
        {
            self.polled.remove(&topic);
            moves.push(Move::Watch(topic.clone()));
            self.watched.insert(topic);
        }
        for topic in wanted {
            if self.watched.contains(topic) || self.polled.contains(topic) {
                continue;
            }
            if self.watched.len() < self.capacity && may_watch(topic) {
                moves.push(Move::Watch(topic.clone()));
                self.watched.insert(topic.clone());
            } else {
                moves.push(Move::Poll(topic.clone()));
                self.polled.insert(topic.clone());
            }
        }
        moves
    }
}

fn may_watch(topic: &Topic) -> bool {
    !matches!(topic, Topic::Glance(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a` is the service a, `(a)` a glance at it.
    fn topic(word: &str) -> Topic {
        match word
            .strip_prefix('(')
            .and_then(|word| word.strip_suffix(')'))
        {
            Some(word) => Topic::Glance(word.into()),
            None => Topic::instances(word, None),
        }
    }

    fn name(topic: Topic) -> String {
        match topic {
            Topic::Instances { service, .. } => service,
            Topic::Glance(service) => format!("({service})"),
            topic => panic!("{topic}"),
        }
    }

    #[test]
    fn watches_are_kept_and_free_ones_go_to_the_polled() {
        // Each row: the services wanted, the steps expected; one after the other.
        let rows = [
            ("a c", "+a +c"),
            ("a b c d", "~b ~d"),
            ("a b c d", ""),
            ("b c d", "-a +b"),
            ("b c d e", "~e"),
            ("b c e", "-d"),
            ("c", "-b -e"),
            ("a c", "+a"),
            ("x y z", "-a -c +x +y ~z"),
            ("", "-x -y -z"),
            ("(a) (b)", "~(a) ~(b)"),
            ("(a) b", "-(b) +b"),
            ("(a)", "-b"),
        ];
        let mut seats = Seats::new(2);
        for (wanted, expected) in rows {
            let wanted = wanted.split_whitespace().map(topic).collect();
            let moves: Vec<String> = seats
                .arrange(&wanted)
                .into_iter()
                .map(|step| match step {
                    Move::Stop(topic) => format!("-{}", name(topic)),
                    Move::Watch(topic) => format!("+{}", name(topic)),
                    Move::Poll(topic) => format!("~{}", name(topic)),
                })
                .collect();
            assert_eq!(moves.join(" "), expected, "{wanted:?}");
        }
    }

    #[test]
    fn a_thousand_services_take_no_more_watches_than_allowed() {
        let mut seats = Seats::new(128);
        let all: BTreeSet<_> = (0..1_000)
            .map(|number| topic(&format!("s{number}")))
            .collect();
        let moves = seats.arrange(&all);
        let watches = moves
            .iter()
            .filter(|step| matches!(step, Move::Watch(_)))
            .count();
        assert_eq!((watches, moves.len()), (128, 1_000));
    }
}
