//! What the stand-in for Consul lists: many services of many instances, which change one by one.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use tokio::sync::watch;

/// Hosts that the instances are spread over.
const HOSTS: usize = 1000;

/// An answer as it stands: its index and its body.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) index: u64,
    pub(crate) body: Bytes,
}

/// A list that can be asked for, and waited on.
#[derive(Debug)]
pub(crate) struct List {
    answer: watch::Sender<Answer>,
    /// When the present answer was first handed out.
    handed: Mutex<Option<(u64, Instant)>>,
}

impl List {
    fn new(index: u64, body: String) -> Self {
        let body = body.into();
        Self {
            answer: watch::Sender::new(Answer { index, body }),
            handed: Mutex::default(),
        }
    }

    fn put(&self, index: u64, body: String) {
        let body = body.into();
        self.answer.send_replace(Answer { index, body });
    }

    /// Follows the answer.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Answer> {
        self.answer.subscribe()
    }

    /// Notes that an answer of this index goes out now.
    pub(crate) fn note(&self, index: u64) {
        let mut handed = lock(&self.handed);
        if handed.is_none_or(|(known, _)| known != index) {
            *handed = Some((index, Instant::now()));
        }
    }

    /// When the answer of this index first went out.
    pub(crate) fn handed(&self, index: u64) -> Option<Instant> {
        let handed = *lock(&self.handed);
        handed.and_then(|(known, at)| (known == index).then_some(at))
    }
}

/// All services.
#[derive(Debug)]
pub(crate) struct Catalog {
    backends: usize,
    index: AtomicU64,
    /// By the service's number.
    services: Vec<List>,
    /// `/v1/catalog/services`.
    pub(crate) names: List,
    /// `/v1/health/state/critical`.
    pub(crate) critical: List,
    /// Everything else: an empty list that never changes.
    pub(crate) nothing: List,
    /// Instances whose check is critical, as service and instance.
    ill: Mutex<BTreeSet<(usize, usize)>>,
}

impl Catalog {
    pub(crate) fn new(services: usize, backends: usize) -> Self {
        let names: Vec<String> = (0..services)
            .map(|number| format!("\"{}\":[\"v1\"]", name(number)))
            .collect();
        let list = |number| List::new(FIRST, body(number, backends, &BTreeSet::new()));
        Self {
            backends,
            index: AtomicU64::new(FIRST),
            services: (0..services).map(list).collect(),
            names: List::new(FIRST, format!("{{{}}}", names.join(","))),
            critical: List::new(FIRST, "[]".into()),
            nothing: List::new(FIRST, "[]".into()),
            ill: Mutex::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.services.len()
    }

    pub(crate) fn service(&self, number: usize) -> &List {
        &self.services[number]
    }

    /// The list of a service by its name.
    pub(crate) fn named(&self, name: &str) -> Option<&List> {
        let number: usize = name.strip_prefix("service-")?.parse().ok()?;
        self.services.get(number)
    }

    /// An instance falls ill, or recovers; the index of the answer that says so.
    pub(crate) fn toggle(&self, service: usize, instance: usize) -> u64 {
        let mut ill = lock(&self.ill);
        let index = self.index.fetch_add(1, Ordering::SeqCst) + 1;
        let one = (service, instance % self.backends);
        if !ill.remove(&one) {
            ill.insert(one);
        }
        let own = ill.range((service, 0)..(service + 1, 0));
        let own = own.map(|(_, instance)| *instance).collect();
        self.services[service].put(index, body(service, self.backends, &own));
        let checks: Vec<String> = ill
            .iter()
            .map(|(service, instance)| check(*service, *instance, "critical"))
            .collect();
        self.critical.put(index, format!("[{}]", checks.join(",")));
        index
    }
}

/// Consul's index at first.
const FIRST: u64 = 100;

pub(crate) fn name(service: usize) -> String {
    format!("service-{service:05}")
}

/// Where clients find a service.
pub(crate) fn vip(service: usize) -> SocketAddr {
    let number = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + service as u32;
    (Ipv4Addr::from(number), 80).into()
}

/// Where an instance listens: on one of the hosts, at a port of its own.
pub(crate) fn address(service: usize, instance: usize, backends: usize) -> SocketAddr {
    let number = service * backends + instance;
    let host = u32::from(Ipv4Addr::new(10, 64, 0, 1)) + (number % HOSTS) as u32;
    (Ipv4Addr::from(host), 20_000 + (number / HOSTS) as u16).into()
}

/// What Consul 1.8 answers for a service, in its form.
fn body(service: usize, backends: usize, ill: &BTreeSet<usize>) -> String {
    let name = name(service);
    let mut text = String::from("[");
    for instance in 0..backends {
        let address = address(service, instance, backends);
        let (ip, port) = (address.ip(), address.port());
        let separator = if instance == 0 { "" } else { "," };
        let status = match ill.contains(&instance) {
            true => "critical",
            false => "passing",
        };
        let check = check(service, instance, status);
        // A string takes everything.
        let _ = write!(
            text,
            r#"{separator}{{"Node":{{"ID":"0d3830b4-9e15-2eca-5e46-6cbbbd16a426","Node":"host-{ip}","Address":"{ip}","Datacenter":"dc1","TaggedAddresses":{{"lan":"{ip}","lan_ipv4":"{ip}","wan":"{ip}","wan_ipv4":"{ip}"}},"Meta":{{"consul-network-segment":""}},"CreateIndex":10,"ModifyIndex":12}},"Service":{{"ID":"{name}-{instance}","Service":"{name}","Tags":["v1","production"],"Address":"","Meta":{{"version":"1.17.3"}},"Port":{port},"Weights":{{"Passing":1,"Warning":1}},"EnableTagOverride":false,"Proxy":{{"MeshGateway":{{}},"Expose":{{}}}},"Connect":{{}},"CreateIndex":43,"ModifyIndex":43}},"Checks":[{{"Node":"host-{ip}","CheckID":"serfHealth","Name":"Serf Health Status","Status":"passing","Notes":"","Output":"Agent alive and reachable","ServiceID":"","ServiceName":"","ServiceTags":[],"Type":"","Definition":{{}},"CreateIndex":10,"ModifyIndex":10}},{check}]}}"#
        );
    }
    text.push(']');
    text
}

fn check(service: usize, instance: usize, status: &str) -> String {
    let name = name(service);
    format!(
        r#"{{"Node":"host","CheckID":"service:{name}-{instance}","Name":"alive","Status":"{status}","Notes":"","Output":"HTTP GET /health","ServiceID":"{name}-{instance}","ServiceName":"{name}","ServiceTags":["v1","production"],"Type":"http","Definition":{{}},"CreateIndex":44,"ModifyIndex":45}}"#
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
