//! The threads as each of them knows the others. The kernel spreads connections over their sockets by a
//! hash, which leaves some with twice as many as others where there are few that last; what a
//! thread has too many of, it hands to the one with the fewest.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::mpsc::UnboundedSender;

use super::worker::{Handed, Order};

/// All threads, by their number.
#[derive(Debug)]
pub(super) struct Crew(Vec<Member>);

#[derive(Debug)]
struct Member {
    /// Connections that it has.
    open: Arc<AtomicUsize>,
    orders: UnboundedSender<Order>,
}

impl Crew {
    /// Of the threads that follow these orders.
    pub(super) fn new(orders: &[UnboundedSender<Order>]) -> Self {
        let members = orders.iter().map(|orders| Member {
            open: Arc::default(),
            orders: orders.clone(),
        });
        Self(members.collect())
    }

    /// How many connections a thread has.
    pub(super) fn open(&self, number: usize) -> &Arc<AtomicUsize> {
        &self.0[number].open
    }

    /// Who is to serve a connection that a thread has accepted.
    pub(super) fn place(&self, own: usize) -> usize {
        let counts = self.0.iter().map(|member| member.open.load(Relaxed));
        place(own, counts)
    }

    /// Hands a connection over.
    ///
    /// # Errors
    ///
    /// There is no such thread any more; the connection comes back.
    pub(super) fn hand(&self, number: usize, handed: Box<Handed>) -> Result<(), Box<Handed>> {
        let sent = self.0[number].orders.send(Order::Serve(handed));
        sent.map_err(|unsent| match unsent.0 {
            Order::Serve(handed) => handed,
            _ => unreachable!("what comes back is what was sent"),
        })
    }
}

/// The one with the fewest, unless `own` has hardly more: a hand-over costs as much as a few requests.
fn place(own: usize, counts: impl Iterator<Item = usize> + Clone) -> usize {
    let fewest = counts.clone().enumerate().min_by_key(|(_, count)| *count);
    let (Some((other, fewest)), Some(count)) = (fewest, counts.clone().nth(own)) else {
        return own;
    };
    if count > fewest + (fewest / 4).max(2) {
        other
    } else {
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handed_over_where_it_is_worth_it() {
        // own, connections → who serves
        for (own, counts, expected) in [
            (0, &[0][..], 0),
            (0, &[7], 0),
            (0, &[2, 0], 0),
            (0, &[3, 0], 1),
            (1, &[0, 3], 0),
            (1, &[3, 0], 1),
            (0, &[10, 8], 0),
            (0, &[100, 81], 0),
            (0, &[102, 81], 1),
            (2, &[5, 1, 9, 4], 1),
        ] {
            assert_eq!(place(own, counts.iter().copied()), expected, "{counts:?}");
        }
    }
}
