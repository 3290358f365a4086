//! The last good state on disk: what the agent must still know after a restart.
//!
//! One JSON file, replaced as a whole. A file that cannot be read never keeps the agent from
//! starting: it is set aside for a person to look at, and the agent begins with nothing.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::domain::{
    backend::{Instance, InstanceId},
    block::BlockRule,
    snapshot::Drain,
    split::Shares,
};

/// Version of the file's format. Fields may be added without raising it: a missing one takes its
/// default, an unknown one is ignored.
const VERSION: u32 = 1;

const FILE: &str = "state.json";
const NEW_FILE: &str = "state.json.new";

/// What outlives the agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PersistedState {
    /// Splits set on the command line, by service name.
    pub splits: BTreeMap<String, Shares>,
    /// Backends drained by a person, by service name and identity.
    pub drains: BTreeMap<String, BTreeMap<InstanceId, Drain>>,
    /// The block list.
    pub blocks: Vec<BlockRule>,
    /// Instances that were in force, by the service's name in Consul.
    pub catalog: BTreeMap<String, Vec<Instance>>,
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

    /// Reads the state. What cannot be understood is renamed to `state.json.corrupt-UNIXTIME`.
    pub fn load(&self) -> Loaded {
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
                return Loaded {
                    state: PersistedState::default(),
                    problem: Some(format!(
                        "the saved state {} cannot be read ({error}); started without it",
                        file.display()
                    )),
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

    /// Writes the new file beside the old one, down to the disk, and answers with its path.
    fn write_new(&self, state: &PersistedState) -> io::Result<PathBuf> {
        let path = self.path.join(NEW_FILE);
        // What a crash left behind may have another mode or be shorter.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let bytes = serde_json::to_vec_pretty(&Document {
            version: VERSION,
            state,
        })?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        Ok(path)
    }

    /// Renames a file that cannot be used; answers with the sentence that reports it.
    fn set_aside(&self, file: &Path, reason: &str) -> String {
        let seconds = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |age| age.as_secs());
        let aside = self.path.join(format!("{FILE}.corrupt-{seconds}"));
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
mod tests {
    use std::{os::unix::fs::PermissionsExt, time::Duration};

    use super::*;
    use crate::domain::{backend::CatalogHealth, block::parse_prefix};

    fn sample() -> PersistedState {
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5);
        let instance = Instance {
            id: InstanceId("node-1/echo-1".into()),
            address: "10.1.0.2:8080".parse().unwrap(),
            weight: 10,
            tags: vec!["v1".into()],
            meta: BTreeMap::from([("version".into(), "1".into())]),
            subset: None,
            health: CatalogHealth::Warning("disk: 91 %".into()),
        };
        let drains = BTreeMap::from([(instance.id.clone(), Drain { since: time })]);
        PersistedState {
            splits: BTreeMap::from([("echo".into(), Shares::parse(&["v1=90", "v2=10"]).unwrap())]),
            drains: BTreeMap::from([("echo".into(), drains)]),
            blocks: vec![
                BlockRule {
                    prefix: parse_prefix("192.0.2.0/24").unwrap(),
                    reason: "scans".into(),
                    added: time,
                    expires: Some(time + Duration::from_secs(900)),
                },
                BlockRule {
                    prefix: parse_prefix("2001:db8::7").unwrap(),
                    reason: String::new(),
                    added: time,
                    expires: None,
                },
            ],
            catalog: BTreeMap::from([("echo".into(), vec![instance]), ("none".into(), vec![])]),
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("made/on/the/way");
        let dir = StateDir::open(&path).unwrap();
        assert_eq!(mode(&path) & !0o750, 0);
        let loaded = dir.load();
        assert_eq!(loaded.state, PersistedState::default());
        assert_eq!(loaded.problem, None);

        for state in [sample(), PersistedState::default(), sample()] {
            dir.save(&state).unwrap();
            let loaded = StateDir::open(&path).unwrap().load();
            assert_eq!(loaded.state, state);
            assert_eq!(loaded.problem, None);
        }
        assert_eq!(names(&path), [FILE]);
        assert_eq!(mode(&path.join(FILE)), 0o600);
    }

    /// A file of a version that had fewer fields, and one of a version that had more.
    #[test]
    fn missing_fields_take_their_default_and_unknown_ones_are_ignored() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = StateDir::open(temporary.path()).unwrap();
        let text = r#"{"version": 1, "splits": {"echo": {"v1": 1}}, "invented_later": [1]}"#;
        fs::write(temporary.path().join(FILE), text).unwrap();
        let loaded = dir.load();
        assert_eq!(loaded.problem, None);
        assert_eq!(loaded.state.splits["echo"].to_string(), "v1=1");
        assert!(loaded.state.catalog.is_empty());
    }

    /// Rows of a file's content and what the report says of it.
    #[test]
    fn a_file_that_cannot_be_used_is_set_aside_and_reported() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = StateDir::open(temporary.path()).unwrap();
        dir.save(&sample()).unwrap();
        let file = temporary.path().join(FILE);
        let whole = fs::read_to_string(&file).unwrap();
        let rows = [
            ("", "damaged"),
            (&whole[..whole.len() / 2], "damaged"),
            ("\0\0\0\0", "damaged"),
            (r#"{"splits": {}}"#, "missing field `version`"),
            (r#"{"version": 2, "splits": 7}"#, "format is version 2"),
            (
                r#"{"version": 1, "splits": {"echo": {}}}"#,
                "at least one subset",
            ),
        ];
        for (text, reason) in rows {
            fs::write(&file, text).unwrap();
            let loaded = dir.load();
            assert_eq!(loaded.state, PersistedState::default(), "{text}");
            let problem = loaded.problem.unwrap();
            assert!(problem.contains(reason), "{text}: {problem}");
            let left = names(temporary.path());
            let [aside] = left.as_slice() else {
                panic!("{text}: {left:?}")
            };
            assert!(aside.starts_with("state.json.corrupt-"), "{text}: {aside}");
            assert!(problem.contains(aside), "{text}: {problem}");
            let kept = temporary.path().join(aside);
            assert_eq!(fs::read_to_string(&kept).unwrap(), text);
            fs::remove_file(kept).unwrap();
        }
    }

    #[test]
    fn a_crash_before_the_rename_leaves_the_old_state() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = StateDir::open(temporary.path()).unwrap();
        dir.save(&sample()).unwrap();
        dir.write_new(&PersistedState::default()).unwrap();
        assert_eq!(names(temporary.path()), [FILE, NEW_FILE]);
        assert_eq!(dir.load().state, sample());

        // What the crash left does not stand in the way, whatever its mode.
        fs::set_permissions(
            temporary.path().join(NEW_FILE),
            fs::Permissions::from_mode(0o444),
        )
        .unwrap();
        dir.save(&PersistedState::default()).unwrap();
        assert_eq!(names(temporary.path()), [FILE]);
        assert_eq!(mode(&temporary.path().join(FILE)), 0o600);
        assert_eq!(dir.load().state, PersistedState::default());
    }

    /// Made to fail in ways that hold for root as well.
    #[test]
    fn a_disk_that_refuses_is_named_with_what_to_do() {
        let temporary = tempfile::tempdir().unwrap();
        let in_the_way = temporary.path().join("file");
        fs::write(&in_the_way, "").unwrap();
        for path in [in_the_way.clone(), in_the_way.join("below")] {
            let error = StateDir::open(&path).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            assert!(error.contains("set `state_dir` under [node]"), "{error}");
        }

        let path = temporary.path().join("state");
        let dir = StateDir::open(&path).unwrap();
        dir.save(&sample()).unwrap();
        fs::create_dir(path.join(NEW_FILE)).unwrap();
        let error = dir
            .save(&PersistedState::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(path.join(FILE).to_str().unwrap()), "{error}");
        assert!(error.contains("make sure that its directory"), "{error}");
        assert_eq!(dir.load().state, sample());
    }

    /// A file that exists but cannot be read is left where it is.
    #[test]
    fn an_unreadable_file_is_reported() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = StateDir::open(temporary.path()).unwrap();
        fs::create_dir(temporary.path().join(FILE)).unwrap();
        let loaded = dir.load();
        assert_eq!(loaded.state, PersistedState::default());
        assert!(loaded.problem.unwrap().contains("cannot be read"));
        assert_eq!(names(temporary.path()), [FILE]);
    }
}
