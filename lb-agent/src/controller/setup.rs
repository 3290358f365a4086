//! What the controller starts from, and its ends of the channels.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use tokio::sync::{mpsc, watch};

use super::{Command, InterfaceStatus, LocalClientsStatus};
use crate::{
    config::Config,
    domain::{
        gate::Witness,
        http::steering::ProxyReport,
        kernel::Census,
        registration::RegistrarStatus,
        shift::Shift,
        snapshot::Snapshot,
        sync::{CatalogState, Topic},
    },
    probe::HealthEvent,
    state::PersistedState,
};

/// What the controller starts from.
pub struct Setup {
    /// The configuration in force, and where it came from.
    pub config: Config,
    /// Its file, read again on request.
    pub config_path: PathBuf,
    /// What was saved.
    pub state: PersistedState,
    /// What a person should know of the start, e.g. that the saved state could not be read.
    pub problems: Vec<String>,
    /// Interfaces in use, for the status.
    pub interfaces: Vec<InterfaceStatus>,
    /// The cgroup whose processes are served, for the status; its counters are those of the start.
    pub local_clients: Option<LocalClientsStatus>,
    /// Who sees how backends fare, beside the kernel.
    pub witnesses: Vec<Arc<dyn Witness>>,
    /// Finds out what would be foolish to block.
    pub vital: Box<dyn Fn() -> crate::domain::block::Vital + Send>,
}

/// The controller's ends of its channels.
pub struct Channels {
    /// Commands from [`super::Handle`].
    pub commands: mpsc::Receiver<Command>,
    /// Every new snapshot.
    pub snapshots: watch::Sender<Arc<Snapshot>>,
    /// What Consul says.
    pub catalog: watch::Receiver<Arc<CatalogState>>,
    /// What to ask Consul for.
    pub topics: watch::Sender<BTreeSet<Topic>>,
    /// What the probes find.
    pub health: mpsc::Receiver<HealthEvent>,
    /// The latest count of flows.
    pub census: watch::Receiver<Arc<Census>>,
    /// What is to be saved.
    pub state: watch::Sender<PersistedState>,
    /// Why saving fails at present.
    pub save_problem: watch::Receiver<Option<String>>,
    /// How the registration of containers stands.
    pub registrar: watch::Receiver<RegistrarStatus>,
    /// Where the proxy takes connections to VIPs.
    pub proxy: watch::Receiver<ProxyReport>,
    /// The shifts that are on disk.
    pub saved: watch::Receiver<BTreeMap<String, Shift>>,
}
