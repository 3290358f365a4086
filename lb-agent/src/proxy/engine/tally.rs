//! Where the requests of one route are counted, looked up once per thread and view.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::view::{Held, Service};
use crate::proxy::telemetry::counts::{Counts, Finished, OfBackend, Share};

/// What this thread counts of a route, and of its backends as they come.
#[derive(Debug)]
pub(super) struct Tally {
    /// `None`: of requests that no route fitted.
    of: Option<Rc<Held>>,
    /// The route's, which is kept so that its address stays its own.
    pub(super) name: Arc<str>,
    share: Arc<Share>,
    /// Without a backend, then by index of the backend.
    backends: RefCell<Vec<Option<Arc<OfBackend>>>>,
}

impl Tally {
    fn new(counts: &Counts, of: Option<&Rc<Held>>, route: &Arc<str>, thread: usize) -> Rc<Self> {
        let service = match of {
            Some(service) => Arc::clone(&service.counts),
            None => counts.service(&"".into()),
        };
        Rc::new(Self {
            share: service.route(route).share(thread),
            of: of.cloned(),
            name: Arc::clone(route),
            backends: RefCell::default(),
        })
    }

    /// A request begins.
    pub(super) fn begin(&self) {
        self.share.active.fetch_add(1, Relaxed);
    }

    /// It goes on elsewhere.
    pub(super) fn leave(&self) {
        self.share.active.fetch_sub(1, Relaxed);
    }

    /// It is over; `index`: of the backend that answered or was tried last.
    pub(super) fn finish(&self, index: Option<usize>, finished: &Finished) {
        self.leave();
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
            self.share.backend(subset.unwrap_or_default(), address)
        });
        self.share.finish(counted, finished);
    }
}

/// What a thread has looked up of a service and one of its routes.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) service: Rc<Held>,
    pub(super) tally: Rc<Tally>,
}

/// By the addresses of service and route name.
type Known = HashMap<(usize, usize), Place>;

/// All that a thread has looked up under its present view.
#[derive(Debug)]
pub(super) struct Tallies {
    thread: usize,
    nowhere: Rc<Tally>,
    version: Cell<u64>,
    known: RefCell<Known>,
}

impl Tallies {
    /// Of the thread of this number.
    pub(super) fn new(counts: &Counts, thread: usize) -> Self {
        Self {
            thread,
            nowhere: Tally::new(counts, None, &"".into(), thread),
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
    ) -> Place {
        let mut known = self.known.borrow_mut();
        if self.version.replace(version) != version {
            known.clear();
        }
        let key = (
            Arc::as_ptr(service).addr(),
            Arc::as_ptr(route).cast::<u8>().addr(),
        );
        let place = known.entry(key).or_insert_with(|| {
            let service = Rc::new(Held(Arc::clone(service)));
            Place {
                tally: Tally::new(counts, Some(&service), route, self.thread),
                service,
            }
        });
        place.clone()
    }
}
