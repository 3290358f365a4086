//! Where the requests of one route are counted, looked up once per thread and view.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::view::Service;
use crate::proxy::telemetry::counts::{Counts, Finished, OfBackend, OfRoute, OfService};

/// Counters of a route, and of its backends as they come.
#[derive(Debug)]
pub(super) struct Tally {
    service: Arc<OfService>,
    /// `None`: of requests that no route fitted.
    of: Option<Arc<Service>>,
    route: Arc<OfRoute>,
    /// Without a backend, then by index of the backend.
    backends: RefCell<Vec<Option<Arc<OfBackend>>>>,
}

impl Tally {
    fn new(counts: &Counts, of: Option<&Arc<Service>>, route: &Arc<str>) -> Rc<Self> {
        let service = match of {
            Some(service) => Arc::clone(&service.counts),
            None => counts.service(&"".into()),
        };
        Rc::new(Self {
            route: service.route(route),
            service,
            of: of.cloned(),
            backends: RefCell::default(),
        })
    }

    /// A request begins.
    pub(super) fn begin(&self) {
        self.service.active.fetch_add(1, Relaxed);
    }

    /// It goes on elsewhere.
    pub(super) fn leave(&self) {
        self.service.active.fetch_sub(1, Relaxed);
    }

    /// It is over; `index`: of the backend that answered or was tried last.
    pub(super) fn finish(&self, index: Option<usize>, finished: &Finished) {
        self.service.active.fetch_sub(1, Relaxed);
        let mut backends = self.backends.borrow_mut();
        let place = index.map_or(0, |index| index + 1);
        if backends.len() <= place {
            backends.resize(place + 1, None);
        }
        let counted = backends[place].get_or_insert_with(|| {
            let of = self.of.as_ref().zip(index);
            let backend = of.and_then(|(service, index)| service.backends.get(index));
            let subset = backend.and_then(|backend| backend.subset.clone());
            let address = backend.map(|backend| backend.address);
            self.route.backend(subset.unwrap_or_default(), address)
        });
        self.route.finish(counted, finished);
    }
}

/// By the addresses of service and route name; the name is kept so that its address stays its own.
type Known = HashMap<(usize, usize), (Arc<str>, Rc<Tally>)>;

/// All that a thread has looked up under its present view.
#[derive(Debug)]
pub(super) struct Tallies {
    nowhere: Rc<Tally>,
    version: Cell<u64>,
    /// By where service and name of the route lie; the name is held, so that its place stays its
    /// own.
    known: RefCell<Known>,
}

impl Tallies {
    pub(super) fn new(counts: &Counts) -> Self {
        Self {
            nowhere: Tally::new(counts, None, &"".into()),
            version: Cell::new(0),
            known: RefCell::default(),
        }
    }

    /// Of requests that no route fitted.
    pub(super) fn nowhere(&self) -> &Rc<Tally> {
        &self.nowhere
    }

    /// Of a route of the view of this version.
    pub(super) fn of(
        &self,
        counts: &Counts,
        version: u64,
        service: &Arc<Service>,
        route: &Arc<str>,
    ) -> Rc<Tally> {
        let mut known = self.known.borrow_mut();
        if self.version.replace(version) != version {
            known.clear();
        }
        let key = (
            Arc::as_ptr(service).addr(),
            Arc::as_ptr(route).cast::<u8>().addr(),
        );
        let (_, tally) = known.entry(key).or_insert_with(|| {
            let tally = Tally::new(counts, Some(service), route);
            (Arc::clone(route), tally)
        });
        Rc::clone(tally)
    }
}
