//! Undoing what outlives a process: namespaces, children, pinned maps, directories.
//!
//! Each such thing is registered with [`on_exit`] *before* it is made. The guard undoes it when
//! it is dropped, also while a panic unwinds; SIGINT, SIGTERM and SIGHUP undo everything that is
//! registered, newest first, and then end the process. Only SIGKILL leaves something behind,
//! which the next run sweeps away (see [`crate::namespace::sweep`]).

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    process,
    sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Duration,
};

use tokio::signal::unix::{Signal, SignalKind, signal};

type Undo = Box<dyn FnOnce() + Send>;

/// How long the end of the process waits for what other threads are undoing at that very moment.
const OTHER_THREADS: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Registry {
    next: u64,
    undo: BTreeMap<u64, Undo>,
    /// Undos that are under way, on whatever thread.
    running: usize,
    /// The process is about to end: nothing new may begin.
    closing: bool,
}

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);
static RUNNING_CHANGED: Condvar = Condvar::new();

fn registry() -> MutexGuard<'static, Registry> {
    // A poisoned registry is still the list of what has to be undone.
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Undoes one thing when dropped.
#[must_use = "dropping the guard undoes what it guards"]
#[derive(Debug)]
pub struct Guard {
    id: u64,
}

/// Registers how to undo what the caller is about to make. `undo` must cope with the thing not
/// being there, and must not drop a [`Guard`] itself.
pub fn on_exit(undo: impl FnOnce() + Send + 'static) -> Guard {
    LazyLock::force(&WATCHER);
    park_if_interrupted();
    let mut registry = registry();
    let id = registry.next;
    registry.next += 1;
    registry.undo.insert(id, Box::new(undo));
    Guard { id }
}

impl Drop for Guard {
    fn drop(&mut self) {
        park_if_interrupted();
        let undo = {
            let mut registry = registry();
            let undo = registry.undo.remove(&self.id);
            registry.running += usize::from(undo.is_some());
            undo
        };
        if let Some(undo) = undo {
            run(undo);
        }
    }
}

/// Stops the calling thread for good if the process is about to end. A program calls it before it prints a
/// result, which would otherwise tell of things vanishing under it.
pub fn park_if_interrupted() {
    if registry().closing {
        loop {
            thread::park();
        }
    }
}

static WATCHER: LazyLock<()> = LazyLock::new(|| {
    let (ready, wait) = mpsc::channel();
    thread::Builder::new()
        .name("cleanup".into())
        .spawn(move || watch(&ready))
        .expect("cannot start the thread that waits for signals");
    wait.recv()
        .expect("the thread that waits for signals ended at once");
});

fn watch(ready: &mpsc::Sender<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("cannot build the runtime that waits for signals");
    let kind = runtime.block_on(async {
        let listen = |kind| signal(kind).expect("cannot listen for signals");
        let mut interrupt = listen(SignalKind::interrupt());
        let mut terminate = listen(SignalKind::terminate());
        let mut hangup = listen(SignalKind::hangup());
        // The receiver waits for this before it registers anything.
        let _ = ready.send(());
        let came = async |stream: &mut Signal, kind: SignalKind| {
            stream.recv().await;
            kind
        };
        tokio::select! {
            kind = came(&mut interrupt, SignalKind::interrupt()) => kind,
            kind = came(&mut terminate, SignalKind::terminate()) => kind,
            kind = came(&mut hangup, SignalKind::hangup()) => kind,
        }
    });
    eprintln!("interrupted; removing what was set up");
    exit(128 + kind.as_raw_value())
}

/// Undoes everything that is registered, newest first, and ends the process with `code`.
pub fn exit(code: i32) -> ! {
    undo_all();
    process::exit(code)
}

fn undo_all() {
    let mut registry = registry();
    registry.closing = true;
    while let Some((_, undo)) = registry.undo.pop_last() {
        registry.running += 1;
        drop(registry);
        run(undo);
        registry = self::registry();
    }
    let _ = RUNNING_CHANGED
        .wait_timeout_while(registry, OTHER_THREADS, |registry| registry.running > 0);
}

/// Runs an undo that has been counted as running.
fn run(undo: Undo) {
    // A panic here would leave the rest behind; one during unwinding would even abort.
    let _ = catch_unwind(AssertUnwindSafe(undo));
    registry().running -= 1;
    RUNNING_CHANGED.notify_all();
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[test]
    fn guard_undoes_once_also_when_unwinding() {
        let count = Arc::new(AtomicUsize::new(0));
        let guard = |count: &Arc<AtomicUsize>| {
            let count = Arc::clone(count);
            on_exit(move || {
                count.fetch_add(1, Ordering::SeqCst);
            })
        };
        drop(guard(&count));
        assert_eq!(count.load(Ordering::SeqCst), 1);
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _guard = guard(&count);
            panic!("on purpose");
        }));
        assert!(unwound.is_err());
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_panicking_undo_does_not_spread() {
        drop(on_exit(|| panic!("on purpose")));
    }
}
