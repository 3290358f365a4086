//! The last good state on disk: what the agent must still know after a restart.
//!
//! One JSON file, replaced as a whole. A file that cannot be read never keeps the agent from
//! starting: it is set aside for a person to look at, and the agent begins with nothing.

mod keep;
mod list;

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufWriter, ErrorKind},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::keep::keep_saved;
use crate::domain::{
    author::Authors,
    backend::{Instance, InstanceId},
    block::BlockRule,
    block_list::Imported,
    config_entry::{ConfigEntry, EntryKind},
    drain::{Drain, NodeDrain},
    health::Down,
    shift::Shift,
    split::Shares,
    sync::KeyValue,
    vanished::Believed,
};

/// Version of the file's format. Fields may be added without raising it: a missing one takes its
/// default, an unknown one is ignored.
const VERSION: u32 = 1;

const FILE: &str = "state.json";
const NEW_FILE: &str = "state.json.new";

/// Bytes of the file that are written at once.
const BUFFER: usize = 256 * 1024;

/// What outlives the agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PersistedState {
    /// Splits set on the command line, by service name.
    pub splits: BTreeMap<String, Shares>,
    /// What counts instead where the backends of those are all dead, by service name.
    pub fallbacks: BTreeMap<String, Vec<Shares>>,
    /// Shifts under way, by service name.
    pub shifts: BTreeMap<String, Shift>,
    /// Backends drained by a person, by service name and identity.
    pub drains: BTreeMap<String, BTreeMap<InstanceId, Drain>>,
    /// Backends in maintenance in Consul, the same.
    pub maintenance: BTreeMap<String, BTreeMap<InstanceId, Drain>>,
    /// The node, drained by a person.
    pub node_drain: Option<NodeDrain>,
    /// What people put on the block list.
    pub blocks: Vec<BlockRule>,
    /// What was imported into it; in a file of its own.
    #[serde(skip)]
    pub imported: Arc<Imported>,
    /// Imported prefixes that do not count any more, and the list that they belong to.
    pub unlisted: Unlisted,
    /// Prefixes that people excepted from the block list, and when.
    pub allowed: BTreeMap<ipnet::IpNet, SystemTime>,
    /// Instances that were in force, by the service's name in Consul.
    pub catalog: BTreeMap<String, Arc<Vec<Instance>>>,
    /// Backends that the probes found down, by service name.
    pub down: BTreeMap<String, Vec<Down>>,
    /// Configuration entries of Consul that were in force.
    pub entries: BTreeMap<EntryKind, Believed<ConfigEntry>>,
    /// The same of the fleet's keys.
    pub keys: Believed<KeyValue>,
    /// Who set the splits and drained the backends.
    pub authors: Authors,
}

impl PersistedState {
    /// Whether they differ in nothing but what sources and probes say of backends.
    fn decided_alike(&self, other: &Self) -> bool {
        // All fields by name, so that a new one is not forgotten.
        let Self {
            splits,
            fallbacks,
            shifts,
            drains,
            maintenance,
            node_drain,
            blocks,
            imported,
            unlisted,
            allowed,
            catalog: _,
            down: _,
            entries,
            keys,
            authors,
        } = self;
        *splits == other.splits
            && *fallbacks == other.fallbacks
            && *shifts == other.shifts
            && *drains == other.drains
            && *maintenance == other.maintenance
            && *blocks == other.blocks
            && Arc::ptr_eq(imported, &other.imported)
            && *unlisted == other.unlisted
            && *allowed == other.allowed
            && *entries == other.entries
            && *keys == other.keys
            && *node_drain == other.node_drain
            && *authors == other.authors
    }
}

/// Prefixes of one imported list that do not count any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlisted {
    /// [`Imported::id`].
    pub list: u64,
    /// The prefixes.
    pub prefixes: Vec<ipnet::IpNet>,
}

/// What was found on disk.
#[derive(Debug)]
pub struct Loaded {
    /// The state; empty where none was saved or it could not be read.
    pub state: PersistedState,
    /// Why the saved state could not be used, in a sentence for people. `None`: it was used, or
    /// there was none.
    pub problem: Option<String>,
}

/// Why the state could not be kept.
#[derive(Debug, Error)]
pub enum StateError {
    /// The directory does not exist and could not be made.
    #[error(
        "cannot use the state directory {}: {source}; create it, or set `state_dir` under [node] \
         to a directory that the agent may write to",
        .path.display()
    )]
    Open {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file could not be written.
    #[error(
        "cannot save the agent's state to {}: {source}; make sure that its directory exists, is \
         writable and has space left",
        .path.display()
    )]
    Save {
        /// The file that was being written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The directory that the state lives in.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

/// The file as a whole, for writing.
#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    #[serde(flatten)]
    state: &'a PersistedState,
}

/// The part of the file that every version has.
#[derive(Deserialize)]
struct Header {
    version: u32,
}

impl StateDir {
    /// Opens the directory; makes it (mode 0750, and its parents) where it does not exist.
    ///
    /// # Errors
    ///
    /// [`StateError::Open`].
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let open = || {
            DirBuilder::new().recursive(true).mode(0o750).create(path)?;
            fs::read_dir(path).map(drop)
        };
        open().map_err(|source| StateError::Open {
            path: path.into(),
            source,
        })?;
        Ok(Self { path: path.into() })
    }

    /// Reads the state. What cannot be read or understood is renamed to `state.json.corrupt-UNIXTIME`.
    pub fn load(&self) -> Loaded {
        let mut loaded = self.load_document();
        let (imported, problem) = self.load_imported();
        loaded.state.imported = Arc::new(imported);
        loaded.problem = match (loaded.problem, problem) {
            (Some(first), Some(second)) => Some(format!("{first}; {second}")),
            (first, second) => first.or(second),
        };
        loaded
    }

    /// The imported block lists, and why they could not be used.
    fn load_imported(&self) -> (Imported, Option<String>) {
        let file = self.path.join(list::FILE);
        let reason = match fs::read(&file) {
            Ok(bytes) => match list::decode(&bytes) {
                Ok(imported) => return (imported, None),
                Err(reason) => reason,
            },
            Err(error) if error.kind() == ErrorKind::NotFound => return Default::default(),
            Err(error) => format!("it cannot be read ({error})"),
        };
        (Imported::default(), Some(self.set_aside(&file, &reason)))
    }

    fn load_document(&self) -> Loaded {
        let file = self.path.join(FILE);
        let bytes = match fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Loaded {
                    state: PersistedState::default(),
                    problem: None,
                };
            }
            Err(error) => {
                // Left in place it would be overwritten, though its content may be whole.
                let reason = format!("it cannot be read ({error})");
                return Loaded {
                    state: PersistedState::default(),
                    problem: Some(self.set_aside(&file, &reason)),
                };
            }
        };
        match decode(&bytes) {
            Ok(state) => Loaded {
                state,
                problem: None,
            },
            Err(reason) => Loaded {
                state: PersistedState::default(),
                problem: Some(self.set_aside(&file, &reason)),
            },
        }
    }

    /// Replaces the saved state. After a crash at any moment the file holds the old or the new
    /// state, whole. Blocks until the disk has it.
    ///
    /// # Errors
    ///
    /// [`StateError::Save`]; the old state is still there.
    pub fn save(&self, state: &PersistedState) -> Result<(), StateError> {
        let file = self.path.join(FILE);
        self.write_new(state)
            .and_then(|new| {
                fs::rename(new, &file)?;
                // The rename itself is on disk only when the directory is.
                File::open(&self.path)?.sync_all()
            })
            .map_err(|source| StateError::Save { path: file, source })
    }

    /// Replaces the saved block lists that were imported.
    ///
    /// # Errors
    ///
    /// [`StateError::Save`]; the old ones are still there.
    pub fn save_imported(&self, imported: &Imported) -> Result<(), StateError> {
        list::save(&self.path, imported).map_err(|source| StateError::Save {
            path: self.path.join(list::FILE),
            source,
        })
    }

    /// Writes the new file beside the old one, down to the disk, and answers with its path.
    fn write_new(&self, state: &PersistedState) -> io::Result<PathBuf> {
        let path = self.path.join(NEW_FILE);
        // What a crash left behind may have another mode or be shorter.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        // Piece by piece: of many backends it is tens of megabytes.
        let mut writer = BufWriter::with_capacity(BUFFER, file);
        let document = Document {
            version: VERSION,
            state,
        };
        serde_json::to_writer(&mut writer, &document)?;
        let file = writer
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(path)
    }

    /// Renames a file that cannot be used; answers with the sentence that reports it.
    fn set_aside(&self, file: &Path, reason: &str) -> String {
        let seconds = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |age| age.as_secs());
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let aside = self.path.join(format!("{name}.corrupt-{seconds}"));
        let outcome = match fs::rename(file, &aside) {
            Ok(()) => format!("it was renamed to {}", aside.display()),
            Err(error) => format!("it could not be renamed either ({error})"),
        };
        format!(
            "the saved state {} cannot be used: {reason}; {outcome}, and the agent started \
             without it",
            file.display()
        )
    }
}

fn decode(bytes: &[u8]) -> Result<PersistedState, String> {
    let Header { version } =
        serde_json::from_slice(bytes).map_err(|error| format!("it is damaged ({error})"))?;
    if version != VERSION {
        return Err(format!(
            "its format is version {version}, and this agent knows version {VERSION} only"
        ));
    }
    serde_json::from_slice(bytes).map_err(|error| format!("it is damaged ({error})"))
}

#[cfg(test)]
mod tests;
