//! What an agent of another schema has left: its maps cannot be read, but its programs are in force,
//! and the interfaces must not be without any while they are replaced.
//!
//! The new maps are filled first, with nothing attached. Then the pinned links move into the
//! directory of this schema, where they are found and get the new programs in one step each, as
//! those of any former agent. An end at any moment leaves each link with the one or the other.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aya::maps::{Array, Map, MapData};
use lb_common::{
    entry::Meta,
    maps::{SCHEMA, name},
};

use super::{loader::pin_dir, local, pins};
use crate::domain::kernel::KernelError;

/// Programs of other schemas that are attached.
#[derive(Debug)]
pub struct Former {
    bpf_dir: PathBuf,
    /// Where their links and maps are pinned.
    dirs: Vec<PathBuf>,
}

impl Former {
    /// Looks for them; `None`: there are none. What is left of others without a program is removed.
    ///
    /// # Errors
    ///
    /// A directory of pins cannot be read.
    pub fn find(bpf_dir: &Path) -> Result<Option<Self>, KernelError> {
        let mut dirs = Vec::new();
        for dir in other_dirs(bpf_dir) {
            if links(&dir)?.is_empty() {
                pins::remove_all(&dir)?;
                tracing::info!(dir = %dir.display(), "removed what an agent of another schema left without programs");
            } else {
                dirs.push(dir);
            }
        }
        let bpf_dir = bpf_dir.to_owned();
        Ok((!dirs.is_empty()).then_some(Self { bpf_dir, dirs }))
    }

    /// Why they are not simply taken over, and what to do, in a sentence.
    pub fn refusal(&self) -> String {
        let dirs: Vec<String> = self
            .dirs
            .iter()
            .map(|dir| dir.display().to_string())
            .collect();
        format!(
            "the programs in the kernel are those of another agent, whose maps (in {}) this one \
             (schema {SCHEMA}) cannot read; they go on to forward. Start once with `lb-agent run \
             --replace-schema` to replace them without a gap: new connections are served all the \
             time, but those that are open in that moment may break, and counters begin anew. Or go on with the other agent, or \
             take its programs off with `lb-agent detach`, which ends the traffic",
            dirs.join(", ")
        )
    }

    /// Moves the links to where this schema's are, so that they are adopted next.
    ///
    /// # Errors
    ///
    /// A pin cannot be moved; those moved before stay so, with their programs.
    pub fn hand_over(&self) -> Result<(), KernelError> {
        let to = pin_dir(&self.bpf_dir);
        for dir in &self.dirs {
            for pin in links(dir)? {
                let target = to.join(pin.file_name().unwrap_or_default());
                if target.exists() {
                    // An earlier try came as far as this.
                    pins::remove_link(&pin)?;
                    continue;
                }
                fs::rename(&pin, &target).map_err(|error| {
                    KernelError::new(format!("moving the pin {}", pin.display()), error)
                })?;
            }
        }
        Ok(())
    }

    /// Removes their maps, which no program uses any more.
    ///
    /// # Errors
    ///
    /// A pin cannot be removed.
    pub fn remove(self) -> Result<(), KernelError> {
        let mut dirs = self.dirs.iter();
        dirs.try_for_each(|dir| pins::remove_all(dir).map(drop))
    }
}

fn other_dirs(bpf_dir: &Path) -> Vec<PathBuf> {
    let own = pin_dir(bpf_dir);
    let mut dirs = pins::schema_dirs(bpf_dir);
    dirs.retain(|dir| *dir != own);
    dirs
}

/// Pins of links, those of local clients' programs included.
fn links(dir: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let mut links = pins::link_pins(dir)?;
    links.extend(local::pinned(dir)?);
    Ok(links)
}

/// The seed that another schema's programs choose backends with: with the same one, most packets
/// whose flow is not known any more are sent where they were sent before. `None`: there are none,
/// or they keep it in another form.
pub(super) fn seed_of_others(bpf_dir: &Path) -> Option<u64> {
    other_dirs(bpf_dir).iter().find_map(|dir| {
        let map = MapData::from_pin(dir.join(name::META)).ok()?;
        let info = map.info().ok()?;
        if info.value_size() as usize != size_of::<Meta>() {
            return None;
        }
        let map = Map::from_map_data(map).ok()?;
        let meta = Array::<_, Meta>::try_from(map).ok()?.get(&0, 0).ok()?;
        (meta.schema != 0).then_some(meta.seed)
    })
}
