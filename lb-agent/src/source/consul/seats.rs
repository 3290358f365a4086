//! Which services have a watch of their own and which are polled. Pure.

use std::collections::BTreeSet;

/// Who sits where.
#[derive(Debug)]
pub(super) struct Seats {
    capacity: usize,
    watched: BTreeSet<String>,
    polled: BTreeSet<String>,
}

/// A step from one arrangement to the next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Follow it no longer.
    Stop(String),
    /// Give it a watch, if it was polled instead of that.
    Watch(String),
    /// Poll it.
    Poll(String),
}

impl Seats {
    /// Nobody is followed; at most `capacity` services are to have a watch.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            watched: BTreeSet::new(),
            polled: BTreeSet::new(),
        }
    }

    /// The steps to follow these services and no others. Who has a watch keeps it; watches that
    /// become free go to those polled, then to the new.
    pub(super) fn arrange(&mut self, wanted: &BTreeSet<String>) -> Vec<Move> {
        let mut moves = Vec::new();
        for seats in [&mut self.watched, &mut self.polled] {
            seats.retain(|service| {
                let stays = wanted.contains(service);
                if !stays {
                    moves.push(Move::Stop(service.clone()));
                }
                stays
            });
        }
        while self.watched.len() < self.capacity
            && let Some(service) = self.polled.pop_first()
        {
            moves.push(Move::Watch(service.clone()));
            self.watched.insert(service);
        }
        for service in wanted {
            if self.watched.contains(service) || self.polled.contains(service) {
                continue;
            }
            if self.watched.len() < self.capacity {
                moves.push(Move::Watch(service.clone()));
                self.watched.insert(service.clone());
            } else {
                moves.push(Move::Poll(service.clone()));
                self.polled.insert(service.clone());
            }
        }
        moves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        ];
        let mut seats = Seats::new(2);
        for (wanted, expected) in rows {
            let wanted = wanted.split_whitespace().map(String::from).collect();
            let moves: Vec<String> = seats
                .arrange(&wanted)
                .into_iter()
                .map(|step| match step {
                    Move::Stop(service) => format!("-{service}"),
                    Move::Watch(service) => format!("+{service}"),
                    Move::Poll(service) => format!("~{service}"),
                })
                .collect();
            assert_eq!(moves.join(" "), expected, "{wanted:?}");
        }
    }

    #[test]
    fn a_thousand_services_take_no_more_watches_than_allowed() {
        let mut seats = Seats::new(128);
        let all: BTreeSet<_> = (0..1_000).map(|number| format!("s{number}")).collect();
        let moves = seats.arrange(&all);
        let watches = moves
            .iter()
            .filter(|step| matches!(step, Move::Watch(_)))
            .count();
        assert_eq!((watches, moves.len()), (128, 1_000));
    }
}
