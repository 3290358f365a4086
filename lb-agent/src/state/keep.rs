//! Keeps the file on disk what the state in memory is.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tracing::{error, info};

use super::{PersistedState, StateDir};
use crate::domain::{block_list::Imported, shift::Shift};

/// From a failure to save the state to the next try.
const SAVE_AGAIN: Duration = Duration::from_secs(5);

/// Of the time, at most one part in so many goes into saving what merely follows Consul: with a
/// hundred thousand backends a save takes a good part of a second, and something changes all the
/// time.
const SHARE: u32 = 20;
/// Nor is what Consul lists ever kept from the disk for longer, however slow that was the last time.
const LONGEST_REST: Duration = Duration::from_secs(15);

/// Writes the latest state to disk whenever it changes, and again while that fails; the last one
/// before it ends. What people and gates decided is written at once, what Consul lists as often as
/// [`SHARE`] allows. Imported block lists are written only when they are others than `on_disk`; `shifts`
/// hears of the shifts that are.
pub async fn keep_saved(
    dir: StateDir,
    mut states: watch::Receiver<PersistedState>,
    problem: watch::Sender<Option<String>>,
    shifts: watch::Sender<BTreeMap<String, Shift>>,
    mut on_disk: Arc<Imported>,
) {
    let dir = Arc::new(dir);
    let mut last: Option<PersistedState> = None;
    let mut rested = Instant::now();
    loop {
        let failing = problem.borrow().is_some();
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(SAVE_AGAIN), if failing => {}
        }
        // An error: it is the last state, and written at once.
        let urgent = states.wait_for(|state| {
            let decided = |last: &PersistedState| last.decided_alike(state);
            !last.as_ref().is_some_and(decided)
        });
        let _ = tokio::time::timeout_at(rested, urgent).await.map(drop);
        let state = states.borrow_and_update().clone();
        let begun = Instant::now();
        last = Some(state.clone());
        let dir = dir.clone();
        let (imported, shifts_in_it) = (state.imported.clone(), state.shifts.clone());
        let is_new = !Arc::ptr_eq(&imported, &on_disk);
        let saved = tokio::task::spawn_blocking(move || {
            // The list first: what was unlisted of the former one means nothing to it.
            if is_new {
                dir.save_imported(&state.imported)?;
            }
            dir.save(&state)
        })
        .await;
        let rest = begun.elapsed() * (SHARE - 1);
        rested = Instant::now() + rest.min(LONGEST_REST);
        if matches!(saved, Ok(Ok(()))) {
            on_disk = imported;
            shifts.send_replace(shifts_in_it);
        }
        let failure = match saved {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(format!("saving the state: {error}")),
        };
        problem.send_if_modified(|current| {
            let changed = *current != failure;
            if changed {
                match &failure {
                    Some(failure) => error!("{failure}"),
                    None => info!("the state is saved again"),
                }
            }
            *current = failure;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that was full must not leave an old state behind once there is room again, even if
    /// nothing changes any more.
    #[tokio::test(start_paused = true)]
    async fn a_state_that_could_not_be_saved_is_saved_later() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = StateDir::open(temporary.path()).unwrap();
        let in_the_way = temporary.path().join("state.json.new");
        std::fs::create_dir(&in_the_way).unwrap();
        let (states, receiver) = watch::channel(PersistedState::default());
        let (problem, mut problems) = watch::channel(None);
        let (shifts, on_disk) = watch::channel(BTreeMap::new());
        let saving = tokio::spawn(keep_saved(
            dir.clone(),
            receiver,
            problem,
            shifts,
            Arc::default(),
        ));
        let mut state = PersistedState::default();
        state.catalog.insert("echo".into(), Arc::default());
        let split = crate::domain::split::Shares::parse(&["v1=1"]).unwrap();
        let began = std::time::SystemTime::UNIX_EPOCH;
        let shift = Shift::placed("v2", &split, &split, began);
        state.shifts.insert("echo".into(), shift);
        states.send_replace(state.clone());
        problems.wait_for(Option::is_some).await.unwrap();
        assert_eq!(dir.load().state, PersistedState::default());
        assert!(on_disk.borrow().is_empty());

        std::fs::remove_dir(in_the_way).unwrap();
        problems.wait_for(Option::is_none).await.unwrap();
        assert_eq!(dir.load().state, state);
        assert_eq!(*on_disk.borrow(), state.shifts);
        drop(states);
        saving.await.unwrap();
    }
}
