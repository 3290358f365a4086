//! How many connections there may be.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::Poll,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::accepted::{Accepted, Listener};
use crate::domain::http::rate::client_network;

/// Counts the connections of all threads.
#[derive(Debug)]
pub(super) struct Admission {
    all: Arc<Semaphore>,
    per_client: usize,
    clients: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection that counts, until this is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    _one_of_all: OwnedSemaphorePermit,
    client: OnceLock<OfClient>,
}

/// One of its client's.
#[derive(Debug)]
struct OfClient(Arc<Admission>, IpAddr);

impl Admission {
    pub(super) fn new(connections: usize, per_client: usize) -> Arc<Self> {
        let all = connections.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            all: Arc::new(Semaphore::new(all)),
            // No client can have more than there are.
            per_client: if per_client >= connections {
                usize::MAX
            } else {
                per_client
            },
            clients: Mutex::default(),
        })
    }

    /// Waits for a connection, and for room for it: whoever comes while there is none waits in the
    /// kernel. Room is taken before the connection is, so that there are never too many, whatever
    /// other threads do; but nobody holds it who only waits for a connection.
    ///
    /// # Errors
    ///
    /// The connection cannot be taken.
    pub(super) async fn accept(
        &self,
        listener: &Listener,
    ) -> io::Result<(OwnedSemaphorePermit, Accepted, SocketAddr)> {
        let mut waiting = None;
        std::future::poll_fn(|context| {
            let room = match &mut waiting {
                None => Arc::clone(&self.all).try_acquire_owned().ok(),
                Some(_) => None,
            };
            let room = match room {
                Some(room) => room,
                None => {
                    let all = Arc::clone(&self.all);
                    let wait = waiting.get_or_insert_with(|| Box::pin(all.acquire_owned()));
                    let room = std::task::ready!(wait.as_mut().poll(context));
                    waiting = None;
                    room.expect("the semaphore is never closed")
                }
            };
            match listener.poll_accept(context) {
                Poll::Ready(accepted) => {
                    Poll::Ready(accepted.map(|(stream, peer)| (room, stream, peer)))
                }
                // It is woken once there is one.
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Takes a connection into the room, unless its client has as many as it may.
    pub(super) fn admit(
        self: &Arc<Self>,
        room: OwnedSemaphorePermit,
        client: IpAddr,
    ) -> Option<Admitted> {
        let admitted = Admitted::of_nobody(room);
        admitted.is_of(self, client).then_some(admitted)
    }
}

impl Admitted {
    /// Whose client is not known yet.
    pub(super) fn of_nobody(room: OwnedSemaphorePermit) -> Self {
        Self {
            _one_of_all: room,
            client: OnceLock::new(),
        }
    }

    /// Counts among those of this client from now on; `false`: it has as many as it may.
    pub(super) fn is_of(&self, admission: &Arc<Admission>, client: IpAddr) -> bool {
        if admission.per_client == usize::MAX {
            return true;
        }
        let client = client_network(client);
        let clients = admission.clients.lock();
        let mut clients = clients.unwrap_or_else(PoisonError::into_inner);
        let count = clients.entry(client).or_default();
        if *count >= admission.per_client {
            return false;
        }
        *count += 1;
        drop(clients);
        // One that is of a client already gives this back.
        let _ = self.client.set(OfClient(Arc::clone(admission), client));
        true
    }
}

#[cfg(test)]
impl Admitted {
    /// The only one of its kind.
    pub(super) fn one() -> Self {
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned();
        Self::of_nobody(room.unwrap())
    }
}

impl Drop for OfClient {
    fn drop(&mut self) {
        let Self(admission, client) = self;
        let clients = admission.clients.lock();
        let mut clients = clients.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(admission: &Admission) -> OwnedSemaphorePermit {
        Arc::clone(&admission.all).try_acquire_owned().unwrap()
    }

    #[test]
    fn a_client_has_as_many_as_it_may() {
        let admission = Admission::new(10, 2);
        let take = |ip: &str| admission.admit(room(&admission), ip.parse().unwrap());
        let (first, second) = (take("2001:db8::1"), take("2001:db8::2"));
        assert!(first.is_some() && second.is_some());
        assert!(take("2001:db8::3").is_none(), "the same /64");
        assert!(take("2001:db8:0:1::3").is_some());
        assert!(take("::ffff:192.0.2.1").is_some());
        drop(first);
        let again = take("2001:db8::3");
        assert!(again.is_some());
        drop((again, second));
        assert!(admission.clients.lock().unwrap().is_empty());
        assert_eq!(admission.all.available_permits(), 10);
    }
}
