//! Pauses between tries, each on another backend.

use std::time::Duration;

use super::{
    resilience::{BUSY, quick},
    rig::{Backend, Proxy, local, snapshot},
};
use crate::domain::service::Protocol;

/// Twice what it is given as at most, doubled with each further one up to ten times it, and all of
/// that used (full jitter): of many the mean is about the half.
#[test]
fn pauses_grow_and_vary() {
    const BACKOFF: Duration = Duration::from_millis(20);
    const REQUESTS: usize = 40;
    /// For what the machine takes to notice the end of a pause.
    const SLACK: Duration = Duration::from_millis(500);
    local(async {
        let mut backends = Vec::new();
        for _ in 0..6 {
            backends.push(Backend::answering(BUSY).await.address);
        }
        let mut policy = quick();
        policy.timeouts.total = Duration::from_secs(20);
        policy.timeouts.per_try = None;
        policy.retry.retries = 5;
        policy.retry.backoff = BACKOFF;
        let proxy = Proxy::start(&snapshot(policy, Protocol::Http, &backends)).await;
        let asks = (0..REQUESTS).map(|_| proxy.ask("GET", ""));
        for got in futures_util::future::join_all(asks).await {
            assert_eq!(got.status, 503);
        }
        let mut pauses = [(); 5].map(|()| Vec::new());
        for _ in 0..REQUESTS {
            let tries = proxy.record().await.tries;
            assert_eq!(tries.len(), 6);
            for (pauses, pair) in pauses.iter_mut().zip(tries.windows(2)) {
                pauses.push(pair[1].after - pair[0].waited);
            }
        }
        for (pauses, average) in pauses.iter().zip([1, 2, 4, 8, 10]) {
            let average = BACKOFF * average;
            let most = *pauses.iter().max().unwrap();
            let mean = pauses.iter().sum::<Duration>() / REQUESTS as u32;
            // Five standard deviations of the mean of forty are 46 percent of it.
            assert!(mean > average / 2, "{mean:?} of {average:?}: {pauses:?}");
            assert!(mean < average * 3 / 2 + SLACK, "{mean:?}: {pauses:?}");
            assert!(most < average * 2 + SLACK, "{average:?}: {pauses:?}");
            let least = *pauses.iter().min().unwrap();
            assert!(most > least + average / 2, "all alike: {pauses:?}");
        }
    });
}
