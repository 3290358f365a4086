//! Everything that is wanted written into new maps, before any program uses them.

use super::*;
use crate::state::PersistedState;

/// Creates this schema's maps and brings them to the last known good state, with nothing attached.
/// Done before the programs of another schema are replaced, whose maps cannot be read: with empty
/// ones a VIP would be foreign for a moment.
pub(super) async fn fill_new_maps(
    config: &Config,
    config_path: &Path,
    state: &PersistedState,
    options: &Options,
) -> anyhow::Result<()> {
    let datapath = Datapath::open_detached(options)?;
    // New backends are waited for until packets can be sent to them.
    let _resolver = datapath.start_resolver().await?;
    let setup = Setup {
        config: config.clone(),
        config_path: config_path.to_owned(),
        state: state.clone(),
        problems: Vec::new(),
        interfaces: Vec::new(),
        local_clients: None,
        witnesses: Vec::new(),
        vital: Box::new(Default::default),
    };
    // Nobody is at the other ends: what is saved already is not saved again, and nothing is asked.
    let channels = Channels {
        commands: mpsc::channel(1).1,
        snapshots: watch::channel(Arc::default()).0,
        catalog: watch::channel(Arc::default()).1,
        topics: watch::channel(BTreeSet::new()).0,
        health: mpsc::channel(1).1,
        census: watch::channel(Arc::default()).1,
        state: watch::channel(state.clone()).0,
        save_problem: watch::channel(None).1,
        registrar: watch::channel(Default::default()).1,
        proxy: watch::channel(Default::default()).1,
        saved: watch::channel(state.shifts.clone()).1,
    };
    Controller::start(datapath, setup, channels).await?;
    Ok(())
}
