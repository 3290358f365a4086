//! A second try beside the first.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{io::AsyncWriteExt as _, time::sleep};

use super::{
    resilience::{BUSY, quick},
    rig::{Backend, Proxy, SOON, local, read_request, snapshot},
};
use crate::domain::{http::policy::Hedge, service::Protocol};

const MS: Duration = Duration::from_millis(1);

/// An answer that would not be tried again counts, whatever it says; and one that would be is
/// better than none.
#[test]
fn a_hedge_is_not_waited_for_once_there_is_an_answer() {
    const MISSING: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    local(async {
        // what the first says, and the second does → the status, within
        for (first, second, expected, within) in [
            (MISSING, "hangs", 404, 300 * MS),
            (BUSY, "breaks", 503, 500 * MS),
        ] {
            let asked = Rc::new(Cell::new(0));
            let backend = || {
                let asked = Rc::clone(&asked);
                Backend::start(move |mut stream, _| {
                    let asked = Rc::clone(&asked);
                    async move {
                        while read_request(&mut stream).await.is_some() {
                            asked.set(asked.get() + 1);
                            if asked.get() == 1 {
                                sleep(100 * MS).await;
                                stream.write_all(first.as_bytes()).await.unwrap();
                                continue;
                            }
                            match second {
                                "hangs" => sleep(3 * SOON).await,
                                _ => return sleep(100 * MS).await,
                            }
                        }
                    }
                })
            };
            let backends = [backend().await, backend().await];
            let mut policy = quick();
            policy.timeouts.per_try = None;
            policy.retry.retries = 1;
            policy.hedge = Some(Hedge { after: 30 * MS });
            let backends = backends.map(|backend| backend.address);
            let proxy = Proxy::start(&snapshot(policy, Protocol::Http, &backends)).await;
            let begun = Instant::now();
            assert_eq!(proxy.ask("GET", "").await.status, expected);
            assert!(begun.elapsed() < within, "{first} {second}");
            assert_eq!(asked.get(), 2, "{first} {second}");
        }
    });
}
