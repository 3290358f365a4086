//! Who is not served.

use std::{sync::Arc, time::Duration};

use super::{
    resilience::{OK, quick},
    rig::{Backend, Proxy, local, snapshot},
};
use crate::domain::{
    http::policy::{RateKey, RateLimit},
    service::Protocol,
    snapshot::Snapshot,
};

#[test]
fn who_comes_too_often_is_told_when_to_come_again() {
    local(async {
        let backend = Backend::answering(OK).await;
        let mut policy = quick();
        policy.rates = vec![RateLimit {
            requests: 1,
            per: Duration::from_secs(3600),
            burst: 2,
            by: RateKey::Header("x-key".into()),
            except: Vec::new(),
            path: None,
        }];
        let limited = snapshot(policy.clone(), Protocol::Http, &[backend.address]);
        let proxy = Proxy::start(&limited).await;
        for (key, status) in [("a", 200), ("a", 200), ("a", 429), ("b", 200)] {
            let answer = proxy.ask("GET", &format!("X-Key: {key}\r\n")).await;
            assert_eq!(answer.status, status, "{}", answer.head);
            let head = answer.head.to_lowercase();
            assert!(head.contains("ratelimit-remaining: "), "{head}");
            assert_eq!(head.contains("retry-after: "), status == 429, "{head}");
        }
        // What was counted outlives a snapshot that names the same limits.
        let mut next = snapshot(policy, Protocol::Http, &[backend.address]);
        next.version += 1;
        proxy.shared.update(&next);
        assert_eq!(proxy.ask("GET", "X-Key: a\r\n").await.status, 429);
    });
}

/// The same snapshot, its service open to these clients alone.
fn open_to(prefix: &str, mut snapshot: Snapshot) -> Snapshot {
    for state in snapshot.services.values_mut() {
        let state = Arc::make_mut(state);
        let mut spec = (*state.spec).clone();
        spec.allow = Some([prefix.parse().unwrap()].into());
        state.spec = Arc::new(spec);
    }
    snapshot
}

#[test]
fn a_service_is_for_whom_it_admits() {
    local(async {
        let backend = Backend::answering(OK).await;
        for (prefix, status) in [("127.0.0.0/8", 200), ("192.0.2.0/24", 403)] {
            let snapshot = snapshot(quick(), Protocol::Http, &[backend.address]);
            let proxy = Proxy::start(&open_to(prefix, snapshot)).await;
            assert_eq!(proxy.ask("GET", "").await.status, status, "{prefix}");
        }
    });
}
