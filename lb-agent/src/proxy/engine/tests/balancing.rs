//! Who gets which requests.

use std::rc::Rc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    resilience::{OK, quick},
    rig::{Backend, Proxy, local, read_request, snapshot, weighted},
};
use crate::domain::{http::policy::Balance, service::Protocol};

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
        // Without the header nobody is at home anywhere. A backend that looks slow is seldom asked
        // then, but one alone never has all.
        let mut met = std::collections::BTreeSet::new();
        for _ in 0..60 {
            met.insert(proxy.ask("GET", "").await.body);
        }
        assert!(met.len() > 1, "{met:?} alone");

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
