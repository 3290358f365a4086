//! What the service manager is told (sd_notify(3)): when the agent is ready, that it reads its
//! configuration again, that it stops, what it does, and that it is alive. Where nobody has asked for
//! it (`NOTIFY_SOCKET`), nothing is sent.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::{sync::watch, time::MissedTickBehavior};
use tracing::warn;

use super::tasks::Tasks;
use crate::{controller::Handle, domain::snapshot::Snapshot};

/// At least so long between two lines of status: a node whose backends come and go all the time
/// need not tell each of them.
const PAUSE: Duration = Duration::from_secs(1);

/// Sends all of `states` in one message. That the manager cannot be told keeps nothing from working.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, ?states, "the service manager could not be told");
    }
}

/// The first plan is applied and the API answers.
pub(super) fn ready(snapshot: &Snapshot) {
    let status = line(snapshot);
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// Tells, until the agent ends, what it does and that it is alive.
pub(super) fn accompany(
    tasks: &mut Tasks,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    handle: Handle,
) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        // Nobody listens: of many backends, the line of status would be work for nothing.
        return;
    }
    tasks.spawn(
        "the status for the service manager",
        |shutdown| async move {
            tokio::select! {
                () = shutdown => {}
                () = keep_told(snapshots) => {}
            }
            Ok(())
        },
    );
    tasks.spawn("the watchdog", |shutdown| async move {
        tokio::select! {
            () = shutdown => {}
            () = keep_alive(handle) => {}
        }
        Ok(())
    });
}

/// The configuration is read again; until [`reloaded`].
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "the service manager was not told of the reload"),
    }
}

/// The configuration has been read, or refused.
pub(super) fn reloaded() {
    tell(&[NotifyState::Ready]);
}

/// The agent is about to end.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Tells in a line what the agent does, whenever that changes.
async fn keep_told(mut snapshots: watch::Receiver<Arc<Snapshot>>) {
    let mut told = String::new();
    loop {
        let now = line(&snapshots.borrow_and_update());
        if now != told {
            tell(&[NotifyState::Status(&now)]);
            told = now;
        }
        tokio::time::sleep(PAUSE).await;
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

/// Tells the watchdog, twice in the time that it waits, that the agent is alive: that this task is
/// run, and that the controller has answered since the last time. One that hangs is not vouched for,
/// so the manager ends the agent and starts it anew, which traffic does not notice.
async fn keep_alive(handle: Handle) {
    let patience = sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero());
    let Some(patience) = patience else {
        return std::future::pending().await;
    };
    let mut tick = tokio::time::interval(patience / 2);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if handle.alive().await.is_err() {
            // It is about to end.
            return std::future::pending().await;
        }
        tell(&[NotifyState::Watchdog]);
    }
}

/// What `systemctl status` shows.
fn line(snapshot: &Snapshot) -> String {
    let services = snapshot.services.values();
    let (mut all, mut dead) = (0, 0);
    for backend in services.flat_map(|service| &service.backends) {
        all += 1;
        dead += usize::from(backend.is_dead());
    }
    let mut line = format!("services: {}, backends: {all}", snapshot.services.len());
    if dead > 0 {
        line.push_str(&format!(", {dead} of them down"));
    }
    line
}
