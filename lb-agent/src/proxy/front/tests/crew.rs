//! Several threads, to whose first the kernel gives every connection.

use std::sync::atomic::Ordering::Relaxed;

use tokio::{net::TcpStream, time::sleep};

use super::{
    super::{Place, gathering::Turn},
    rig::{Client, Front, Kind, LONG, OK, SHORT, patient},
};
use crate::{
    domain::http::policy::HttpPolicy,
    proxy::engine::tests::rig::{Backend, local},
};

async fn all_are_served_to_the_end(front: Front, mut clients: Vec<Client>) {
    for client in &mut clients {
        client.ask().await;
    }
    front.tell_stop(LONG);
    for client in &mut clients {
        assert_eq!(client.rest().await, "");
    }
    front.ended().await;
}

/// Connections end up spread, are served wherever they are, and count until they end.
#[test]
fn connections_go_where_there_are_fewest() {
    local(async {
        let backend = Backend::answering(OK).await;
        let policy = HttpPolicy::default();
        let front = Front::of(3, patient(), Kind::Plain, policy, backend.address);
        let mut clients = Vec::new();
        for count in 1..=12 {
            let mut client = front.connect().await;
            client.ask().await;
            clients.push(client);
            front.until_connections(count).await;
        }
        let crew = &front.facts.crew;
        let counts = [0, 1, 2].map(|number| crew.open(number).load(Relaxed));
        assert_eq!(counts.iter().sum::<usize>(), 12);
        // Of three that differ by less than three each.
        assert!(counts.iter().all(|count| *count >= 3), "{counts:?}");
        all_are_served_to_the_end(front, clients).await;
    });
}

/// What comes to another thread's socket is the first one's as long as that gathers, and then its
/// own; whoever waits at the socket meanwhile is taken.
#[test]
fn sockets_are_taken_by_turns() {
    local(async {
        let backend = Backend::answering(OK).await;
        let policy = HttpPolicy::default();
        let front = Front::of(2, patient(), Kind::Plain, policy, backend.address);
        let place = Place {
            service: None,
            proxy_protocol: false,
            tls: None,
        };
        let address = front.open_on(&[(1, Turn::Spread), (0, Turn::Gathered)], place);
        let second = || front.facts.crew.open(1).load(Relaxed);
        let mut clients = Vec::new();
        for (gathered, expected) in [(true, 0), (false, 1), (true, 1)] {
            // Who leads looks now and then, and gathers again where there is little to do.
            for _ in 0..20 {
                front.facts.gathering.set(gathered);
                // Until both have heard of it.
                sleep(if gathered { SHORT } else { SHORT / 10 }).await;
                let mut client = Client(TcpStream::connect(address).await.unwrap());
                client.ask().await;
                clients.push(client);
                if gathered || second() > 0 {
                    break;
                }
            }
            assert_eq!(second(), expected);
        }
        let first = front.facts.crew.open(0).load(Relaxed);
        assert_eq!(first + second(), clients.len());
        all_are_served_to_the_end(front, clients).await;
    });
}
