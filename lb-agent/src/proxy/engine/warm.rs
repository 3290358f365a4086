//! Connections that are ready before requests need them: to backends that take requests of services
//! which had some lately.

use std::{
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use super::{
    Shared,
    clock::Clock,
    pools::Pools,
    upstream::{Ends, Lacking, Pool, TlsConfigs, Wish},
    view::Service,
};

/// Connections that one look begins, so that a large service that wakes up is no stampede.
const AT_ONCE: usize = 64;
/// Connections that all threads together have ready for this, however many backends there are.
pub(super) const MOST: u32 = 8192;

/// What connections are made with.
#[derive(Debug)]
pub(super) struct Ways {
    pub(super) clock: Rc<Clock>,
    pub(super) tls: Rc<TlsConfigs>,
    /// Headers that an answer may have.
    pub(super) headers: usize,
}

/// A pool that lacks a connection.
struct Cold<'a> {
    pool: Rc<Pool>,
    service: &'a Arc<Service>,
    lacking: Lacking,
    keep: u32,
}

/// Opens what is lacking, in the background.
pub(super) fn look(pools: &Pools, shared: &Shared, ways: &Rc<Ways>, now: Instant) {
    let second = now.saturating_duration_since(shared.epoch).as_secs();
    let view = shared.view.load();
    let services = view.services.values();
    let asked = services.filter(|service| service.life.budget.is_asked(second));
    let (mut ready, mut cold) = (0, Vec::new());
    for service in asked {
        let policy = &service.policy;
        let keep = shared.share(policy.idle());
        let lacking = Lacking {
            warm: policy.upstream.warm.min(keep),
            // The other half is for requests of now.
            most: policy.limits.connections / 2,
        };
        // The header of the PROXY protocol goes first, and names the client.
        let nameless = policy.upstream.proxy_protocol.is_none();
        if lacking.warm == 0 || lacking.most == 0 || !nameless {
            continue;
        }
        for backend in service.eligible() {
            let pool = pools.of(backend);
            ready += pool.ready().min(lacking.warm as usize);
            if cold.len() < AT_ONCE && pool.is_cold(lacking, now) {
                cold.push(Cold {
                    pool,
                    service,
                    lacking,
                    keep,
                });
            }
        }
    }
    let room = (shared.share(MOST) as usize).saturating_sub(ready);
    for one in cold.into_iter().take(room) {
        let (service, ways) = (Arc::clone(one.service), Rc::clone(ways));
        let (pool, lacking, keep) = (one.pool, one.lacking, one.keep);
        tokio::task::spawn_local(async move {
            pool.warm(&wish(&service, &ways), lacking, keep).await;
        });
    }
}

fn wish<'a>(service: &'a Service, ways: &'a Ways) -> Wish<'a> {
    // Nobody is told of these.
    let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    Wish {
        ends: Ends {
            client: nobody,
            listener: nobody,
        },
        until: Instant::now() + service.policy.timeouts.connect,
        connect: service.policy.timeouts.connect,
        careful: false,
        fresh: true,
        policy: &service.policy,
        life: &service.life,
        tls: &ways.tls,
        clock: &ways.clock,
        headers: ways.headers,
    }
}
