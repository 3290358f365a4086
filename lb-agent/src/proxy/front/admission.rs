//! How many connections there may be.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
    client: Option<(Arc<Admission>, IpAddr)>,
}

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

    /// Waits until there is room for one more: whoever comes meanwhile waits in the kernel.
    pub(super) async fn room(&self) -> OwnedSemaphorePermit {
        let room = Arc::clone(&self.all).acquire_owned().await;
        room.expect("the semaphore is never closed")
    }

    /// Takes a connection into the room, unless its client has as many as it may.
    pub(super) fn admit(
        self: &Arc<Self>,
        room: OwnedSemaphorePermit,
        client: IpAddr,
    ) -> Option<Admitted> {
        let mut admitted = Admitted {
            _one_of_all: room,
            client: None,
        };
        if self.per_client < usize::MAX {
            let client = client_network(client);
            let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
            let count = clients.entry(client).or_default();
            if *count >= self.per_client {
                return None;
            }
            *count += 1;
            admitted.client = Some((Arc::clone(self), client));
        }
        Some(admitted)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Some((admission, client)) = self.client.take() else {
            return;
        };
        let clients = admission.clients.lock();
        let mut clients = clients.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_has_as_many_as_it_may() {
        let admission = Admission::new(10, 2);
        let take = async |ip: &str| {
            let room = admission.room().await;
            admission.admit(room, ip.parse().unwrap())
        };
        let (first, second) = (take("2001:db8::1").await, take("2001:db8::2").await);
        assert!(first.is_some() && second.is_some());
        assert!(take("2001:db8::3").await.is_none(), "the same /64");
        assert!(take("2001:db8:0:1::3").await.is_some());
        assert!(take("::ffff:192.0.2.1").await.is_some());
        drop(first);
        let again = take("2001:db8::3").await;
        assert!(again.is_some());
        drop((again, second));
        assert!(admission.clients.lock().unwrap().is_empty());
        assert_eq!(admission.all.available_permits(), 10);
    }
}
