//! Who gets which requests.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    resilience::{OK, quick},
    rig::{Backend, Proxy, SOON, local, read_request, snapshot, weighted},
};
use crate::domain::{
    http::{exchange::Outcome, policy::Balance},
    route::{Destination, Fits, Route},
    service::Protocol,
};

#[test]
fn a_cookie_leads_to_the_same_backend() {
    local(async {
        let a = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na").await;
        let b = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb").await;
        let mut policy = quick();
        policy.balance = Balance::Cookie("home".into());
        let proxy = Proxy::start(&snapshot(policy, Protocol::Http, &[a.address, b.address])).await;
        let mut homes = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let first = proxy.ask("GET", "").await;
            let cookie = first.head.split("set-cookie: ").nth(1).unwrap();
            let cookie = cookie.split(';').next().unwrap();
            for _ in 0..5 {
                let again = proxy
                    .ask("GET", &format!("Cookie: x=1; {cookie}\r\n"))
                    .await;
                assert_eq!(again.body, first.body);
                assert!(!again.head.contains("set-cookie"));
            }
            homes.insert(first.body);
        }
        assert_eq!(homes.len(), 2);
    });
}

/// The same value, the same backend; when one leaves, the values that it had go to all others, and
/// the rest stays where it was, but for a few (the table is Maglev's, which moves a little more than
/// it has to).
#[test]
fn a_header_leads_to_the_same_backend() {
    const VALUES: usize = 400;
    const ANSWERS: [&str; 4] = [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n0",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n3",
    ];
    async fn homes(proxy: &Proxy) -> Vec<usize> {
        let mut homes = Vec::new();
        for value in 0..VALUES {
            let header = format!("X-User: user-{value}\r\n");
            let got = proxy.ask("GET", &header).await;
            homes.push(got.body.parse().unwrap());
        }
        homes
    }
    local(async {
        let mut backends = Vec::new();
        for answer in ANSWERS {
            backends.push((Backend::answering(answer).await.address, 1));
        }
        let mut policy = quick();
        policy.balance = Balance::Header("x-user".into());
        let all = weighted(1, policy.clone(), Protocol::Http, &backends);
        let proxy = Proxy::start(&all).await;
        let before = homes(&proxy).await;
        assert_eq!(homes(&proxy).await, before);
        for backend in 0..ANSWERS.len() {
            let count = before.iter().filter(|home| **home == backend).count();
            // Five standard deviations around a quarter of them.
            assert!(
                (57..=143).contains(&count),
                "{count} of {VALUES} on {backend}"
            );
        }
        // Without the header, or a value of it, nobody is at home anywhere. A backend that looks slow is
        // seldom asked then, but one alone never has all.
        for header in ["", "X-User:\r\n"] {
            let mut met = std::collections::BTreeSet::new();
            for _ in 0..60 {
                met.insert(proxy.ask("GET", header).await.body);
            }
            assert!(met.len() > 1, "{header}: {met:?} alone");
        }

        backends.remove(1);
        let fewer = weighted(2, policy.clone(), Protocol::Http, &backends);
        proxy.shared.update(&fewer);
        let after = homes(&proxy).await;
        let mut moved = 0;
        let mut heirs = std::collections::BTreeSet::new();
        for (before, after) in before.iter().zip(&after) {
            assert_ne!(*after, 1);
            if *before == 1 {
                heirs.insert(*after);
            } else if before != after {
                moved += 1;
            }
        }
        assert_eq!(heirs.len(), 3);
        assert!(
            moved <= VALUES / 20,
            "{moved} of {VALUES} moved without need"
        );
    });
}

#[test]
fn who_leaves_gets_no_requests_and_keeps_no_connections() {
    local(async {
        let (ended, mut seen) = tokio::sync::mpsc::channel(10);
        let leaving = Backend::start(move |mut stream, _| {
            let ended = ended.clone();
            async move {
                while read_request(&mut stream).await.is_some() {
                    stream.write_all(OK.as_bytes()).await.unwrap();
                }
                let _ = stream.read(&mut [0]).await;
                ended.send(()).await.unwrap();
            }
        })
        .await;
        let staying = Backend::answering(OK).await;
        let proxy = Proxy::start(&snapshot(quick(), Protocol::Http, &[leaving.address])).await;
        assert_eq!(proxy.ask("GET", "").await.status, 200);
        let next = weighted(2, quick(), Protocol::Http, &[(staying.address, 1)]);
        proxy.shared.update(&next);
        for _ in 0..5 {
            assert_eq!(proxy.ask("GET", "").await.status, 200);
        }
        assert_eq!((leaving.connections(), staying.connections()), (1, 1));
        seen.recv().await.unwrap();
        assert_eq!(Rc::strong_count(&proxy.engine), 2);
    });
}

/// A backend that fails at once looks quick. It is not asked again and again before it is ejected,
/// nor does the budget of retries go on it.
#[test]
fn who_fails_fast_is_avoided() {
    const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    local(async {
        // Nobody listens here.
        let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let refusing = refusing.local_addr().unwrap();
        let busy = Backend::answering(BUSY).await;
        for failing in [refusing, busy.address] {
            let staying = Backend::answering(OK).await;
            let mut policy = quick();
            (policy.retry.budget, policy.retry.floor) = (20, 10);
            let backends = [failing, staying.address];
            let proxy = Proxy::start(&snapshot(policy, Protocol::Http, &backends)).await;
            for _ in 0..100 {
                assert_eq!(proxy.ask("GET", "").await.status, 200);
            }
            let view = proxy.shared.view.load();
            let counts = &view.services["web"].counts;
            let retries = counts.retries.load(std::sync::atomic::Ordering::Relaxed);
            assert!(retries <= 2, "{retries} requests went to {failing} first");
        }
    });
}

/// A value that is hashed leads to one backend of a subset too, and to the same as long as that is there.
#[test]
fn a_header_leads_to_the_same_backend_of_a_subset() {
    local(async {
        let answers = ["a", "b", "c", "d", "e"]
            .map(|name| format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{name}").leak());
        let mut backends = Vec::new();
        for answer in answers {
            backends.push(Backend::answering(answer).await);
        }
        let mut policy = quick();
        policy.balance = Balance::Header("x-key".into());
        let to = Destination {
            subset: Some("v2".into()),
            ..Destination::default()
        };
        policy.routes = vec![Arc::new(Route {
            fits: Fits::default(),
            to,
        })];
        // The last two are of the other subset.
        let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
        let of = |version, addresses: &[SocketAddr]| {
            let mut all = snapshot(policy.clone(), Protocol::Http, addresses);
            all.version = version;
            let state = Arc::make_mut(all.services.get_mut("web").unwrap());
            let mut spec = (*state.spec).clone();
            spec.subsets = ["v1", "v2"]
                .map(|name| (name.into(), Default::default()))
                .into();
            state.spec = Arc::new(spec);
            for backend in &mut state.backends {
                let other = addresses[addresses.len() - 2..].contains(&backend.address());
                backend.subset = Some(if other { "v1" } else { "v2" }.into());
            }
            all
        };
        let proxy = Proxy::start(&of(1, &addresses)).await;
        let homes = async || {
            let mut homes = Vec::new();
            for key in 0..60 {
                let header = format!("X-Key: {key}\r\n");
                let first = proxy.ask("GET", &header).await.body;
                for _ in 0..3 {
                    assert_eq!(proxy.ask("GET", &header).await.body, first, "{key}");
                }
                homes.push(first);
            }
            homes
        };
        let before = homes().await;
        for name in ["a", "b", "c"] {
            let share = before.iter().filter(|home| *home == name).count();
            assert!((8..=36).contains(&share), "{name}: {share} of 60");
        }
        // The first leaves: what was not its own stays, but for the few that a table moves.
        proxy.shared.update(&of(2, &addresses[1..]));
        let after = homes().await;
        let moved = before.iter().zip(&after);
        let moved = moved.filter(|(old, new)| *old != "a" && old != new).count();
        assert!(moved <= 6, "{moved} moved: {before:?} {after:?}");
        assert!(!after.contains(&"a".to_owned()));
    });
}

/// A request whose client left counts for the backend that had it, and for nobody else's answer.
#[test]
fn who_left_is_counted_where_it_was() {
    local(async {
        let hangs = Backend::start(|mut stream, _| async move {
            while read_request(&mut stream).await.is_some() {
                tokio::time::sleep(3 * SOON).await;
            }
        })
        .await;
        let proxy = Proxy::start(&snapshot(quick(), Protocol::Http, &[hangs.address])).await;
        let mut stream = tokio::net::TcpStream::connect(proxy.address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
        stream.write_all(request).await.unwrap();
        while hangs.connections() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(stream);
        assert_eq!(proxy.record().await.outcome, Outcome::ClientGone);
        let view = proxy.shared.view.load();
        let routes = view.services["web"].counts.routes.all();
        let (_, route) = &routes[0];
        let backends = route.sum().backends.all();
        let asked: Vec<_> = backends
            .iter()
            .flat_map(|((_, address), of)| of.codes.all().into_iter().map(|one| (*address, one)))
            .collect();
        assert_eq!(asked.len(), 1, "{asked:?}");
        assert_eq!(asked[0].0, Some(hangs.address));
    });
}
