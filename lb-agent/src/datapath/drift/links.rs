//! Compares where the programs are with where they were attached, and attaches them anew.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use lb_common::maps::name;

use super::super::{
    Datapath, cgroup, classifier, loader, local,
    object::{self, Attachment},
    pins, xdp,
};
use crate::domain::{
    drift::{Difference, Place},
    kernel::KernelError,
};

impl Datapath {
    /// The pinned links, and what each is about; none where it cannot be told.
    pub(super) fn read_links(&self) -> Result<BTreeMap<PathBuf, Option<Attachment>>, KernelError> {
        let dir = loader::pin_dir(&self.options.bpf_dir);
        let mut links = BTreeMap::new();
        let pins = pins::link_pins(&dir)?
            .into_iter()
            .chain(local::pinned(&dir)?);
        for path in pins {
            let about = about(&path)?;
            links.insert(path, about);
        }
        Ok(links)
    }

    pub(super) fn compare_links(&mut self, found: &mut Vec<Difference>) -> Result<(), KernelError> {
        if self.links.is_empty() {
            return Ok(());
        }
        let now = self.read_links()?;
        // Interfaces that backends are behind come and go by themselves.
        let (mut known, links) = (BTreeMap::new(), std::mem::take(&mut self.links));
        for (path, before) in links {
            let ifindex = pins::interface_of(&path);
            let exists = ifindex.is_none_or(|index| pins::interface_name(index).is_some());
            let by_itself = pins::is_for_next_hop(&path) && !now.contains_key(&path);
            if !exists || by_itself {
                continue;
            }
            if now.get(&path).copied() != Some(before) {
                let state = match now.get(&path) {
                    None => "its pin was gone",
                    Some(Some(about)) if about.target == 0 => "it was taken off",
                    Some(_) => "it was another program",
                };
                let pin = path.file_name().unwrap_or_default().to_string_lossy();
                let text = format!("the program on {}: {state}", pins::describe_link(&path));
                found.push(Difference::new(Place::Program(pin.into_owned()), text));
            }
            known.insert(path, before);
        }
        for (path, about) in now {
            let attached = about.is_none_or(|about| about.target != 0);
            if attached {
                known.entry(path).or_insert(about);
            }
        }
        self.links = known;
        Ok(())
    }

    /// Attaches what should be behind the pin.
    pub(super) fn attach_again(&mut self, pin: &str) -> Result<(), KernelError> {
        let dir = loader::pin_dir(&self.options.bpf_dir);
        let path = dir.join(pin);
        if path.exists() {
            pins::remove_link(&path)?;
        }
        if let Some(program) = local::program_of(&path) {
            let cgroup = self
                .local
                .as_ref()
                .map(|local| local.attached().path.clone());
            let Some(cgroup) = cgroup else { return Ok(()) };
            let cgroup = cgroup::Cgroup::open(&cgroup)?;
            local::attach_again(&mut self.ebpf, program, &cgroup, &path)?;
        } else if let Some(ifindex) = pins::interface_of(&path) {
            let Some(interface) = pins::interface_name(ifindex) else {
                return Ok(());
            };
            let classifiers = self.classifiers.clone();
            let mut classifiers = classifiers
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            match classifier::parse(&path) {
                Some((owner, role, _)) => {
                    classifiers.attach(owner, role, &interface, ifindex)?;
                }
                None => {
                    let program = xdp(&mut self.ebpf, name::PROGRAM_XDP)?;
                    pins::attach_xdp_again(program, &dir, self.options.mode, &interface, ifindex)?;
                }
            }
        }
        let about = about(&path)?;
        self.links.insert(path, about);
        Ok(())
    }
}

/// What a link or filter is about, by its pin; none where it cannot be told.
fn about(path: &Path) -> Result<Option<Attachment>, KernelError> {
    // A filter has no pin of its own, but a directory in its place.
    match path.is_dir() {
        true => classifier::filter_attachment(path).map(Some),
        false => Ok(object::attachment(path).ok()),
    }
}
