//! The threads as each of them knows the others. The kernel spreads connections over their sockets by a
//! hash, which leaves some with twice as many as others where there are few that last; what a
//! thread has too many of, it hands to the one with the fewest. Where connections do not last, that
//! evens out by itself, and handing over would cost more than they do.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::mpsc::UnboundedSender;

use super::worker::{Handed, Order};

/// All threads, by their number.
#[derive(Debug)]
pub(super) struct Crew {
    members: Vec<Member>,
    /// Requests that the connections had which ended lately, on average, in [`PART`]s. Threads may
    /// overwrite each other's: it is an estimate.
    requests: AtomicU32,
}

/// Of a request.
const PART: u32 = 1 << 8;

/// Requests from which on a connection counts as one that lasts: a hand-over costs as much as a few.
const LASTING: u32 = 4 * PART;

/// More of a connection are not told from each other, so that a few long ones are soon forgotten.
const MOST: u32 = 16 * PART;

#[derive(Debug)]
struct Member {
    /// Connections that it has.
    open: Arc<AtomicUsize>,
    orders: UnboundedSender<Order>,
}

impl Member {
    /// How many connections it has; `None`: it has failed, or never begun, and follows no orders.
    fn load(&self) -> Option<usize> {
        let follows = !self.orders.is_closed();
        follows.then(|| self.open.load(Relaxed))
    }
}

impl Crew {
    /// Of the threads that follow these orders.
    pub(super) fn new(orders: &[UnboundedSender<Order>]) -> Self {
        let members = orders.iter().map(|orders| Member {
            open: Arc::default(),
            orders: orders.clone(),
        });
        Self {
            members: members.collect(),
            // As long as none has ended, they last.
            requests: AtomicU32::new(MOST),
        }
    }

    /// A connection has ended that had so many requests.
    pub(super) fn ended(&self, requests: u32) {
        let requests = requests.saturating_mul(PART).min(MOST);
        let before = self.requests.load(Relaxed);
        self.requests
            .store(before - before / 8 + requests / 8, Relaxed);
    }

    /// How many connections a thread has.
    pub(super) fn open(&self, number: usize) -> &Arc<AtomicUsize> {
        &self.members[number].open
    }

    /// Who is to serve a connection that a thread has accepted.
    pub(super) fn place(&self, own: usize) -> usize {
        if self.requests.load(Relaxed) < LASTING {
            return own;
        }
        let counts = self.members.iter().map(Member::load);
        place(own, counts)
    }

    /// Hands a connection over.
    ///
    /// # Errors
    ///
    /// There is no such thread any more; the connection comes back.
    pub(super) fn hand(&self, number: usize, handed: Box<Handed>) -> Result<(), Box<Handed>> {
        let sent = self.members[number].orders.send(Order::Serve(handed));
        sent.map_err(|unsent| match unsent.0 {
            Order::Serve(handed) => handed,
            _ => unreachable!("what comes back is what was sent"),
        })
    }
}

/// The one with the fewest, unless `own` has hardly more.
fn place(own: usize, counts: impl Iterator<Item = Option<usize>> + Clone) -> usize {
    let known = counts.clone().enumerate();
    let known = known.filter_map(|(number, count)| Some((number, count?)));
    let fewest = known.min_by_key(|(_, count)| *count);
    let (Some((other, fewest)), Some(Some(count))) = (fewest, counts.clone().nth(own)) else {
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
        let gone = usize::MAX;
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
            (0, &[9, gone], 0),
            (2, &[5, gone, 9, 4], 3),
        ] {
            let known = counts
                .iter()
                .map(|count| Some(*count).filter(|count| *count != gone));
            assert_eq!(place(own, known), expected, "{counts:?}");
        }
    }

    #[test]
    fn not_to_who_never_began_nor_where_connections_are_short() {
        let (orders, mut receivers): (Vec<_>, Vec<_>) = (0..2)
            .map(|_| tokio::sync::mpsc::unbounded_channel())
            .unzip();
        let crew = Crew::new(&orders);
        crew.open(0).store(9, Relaxed);
        assert_eq!(crew.place(0), 1);
        // Connections of a request each.
        for _ in 0..32 {
            crew.ended(1);
        }
        assert_eq!(crew.place(0), 0);
        // Longer ones again, some of which have none.
        for requests in [u32::MAX, 0, 100, 5] {
            crew.ended(requests);
        }
        assert_eq!(crew.place(0), 1);
        // As when its runtime cannot be made.
        drop(receivers.pop());
        assert_eq!(crew.place(0), 0);
    }
}
