//! The tc programs on interfaces: attached by pinned tcx links where the kernel has them (Linux
//! 6.6), else as filters of the clsact qdisc, which stay by themselves. A directory under the name
//! that the link's pin would have says that there is a filter.

mod tc_filter;

use std::{
    fs,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::{FdLink, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
    },
    util::KernelVersion,
};
use lb_common::maps::name;

use super::{apart, link, load, object::Attachment, pins};
use crate::domain::kernel::KernelError;

/// What a tc program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Everything, at ingress of an interface without XDP.
    Ingress,
    /// The rest of what XDP has begun.
    Finish,
    /// Replies of the node's own processes.
    Egress,
}

impl Role {
    const ALL: [Self; 3] = [Self::Ingress, Self::Finish, Self::Egress];

    fn label(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Finish => "finish",
            Self::Egress => "egress",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Ingress => name::PROGRAM_TC_INGRESS,
            Self::Finish => name::PROGRAM_TC_FINISH,
            Self::Egress => name::PROGRAM_TC_EGRESS,
        }
    }

    fn side(self) -> TcAttachType {
        match self {
            Self::Ingress | Self::Finish => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }

    /// Handle of the filter within [`PRIORITY`]: one for each role, so that one can follow another
    /// without a gap.
    fn handle(self) -> TcHandle {
        TcHandle::new(0, self as u16 + 1)
    }
}

/// Who wants a program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The configuration names the interface.
    Configuration,
    /// Backends are behind it.
    NextHop,
}

impl Owner {
    /// What the names of its pins begin with.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Configuration => "tc_",
            Self::NextHop => "hop_",
        }
    }
}

/// Priority of our filters among others' (the lower, the earlier).
const PRIORITY: u16 = 0x4c42;

/// The loaded tc programs, and where their pins lie.
pub(crate) struct Classifiers {
    programs: [SchedClassifier; 3],
    dir: PathBuf,
    tcx: bool,
}

impl Classifiers {
    /// Loads the programs. `filters`: attached as filters even where the kernel has tcx.
    ///
    /// # Errors
    ///
    /// The kernel refuses one.
    pub(crate) fn load(ebpf: &mut Ebpf, dir: PathBuf, filters: bool) -> Result<Self, KernelError> {
        let [ingress, finish, egress] = Role::ALL.map(|role| load(ebpf, role.program(), &dir));
        Ok(Self {
            programs: [ingress?, finish?, egress?],
            dir,
            tcx: !filters
                && KernelVersion::current()
                    .is_ok_and(|version| version >= KernelVersion::new(6, 6, 0)),
        })
    }

    /// A program, for test runs.
    pub(crate) fn program(&self, role: Role) -> &SchedClassifier {
        &self.programs[role as usize]
    }

    /// Where the pin lies.
    pub(crate) fn path(&self, owner: Owner, role: Role, ifindex: u32) -> PathBuf {
        let prefix = owner.prefix();
        self.dir.join(format!("{prefix}{}_{ifindex}", role.label()))
    }

    /// Attaches a program, or puts it behind the link that is there: `true`.
    ///
    /// # Errors
    ///
    /// The kernel refuses; the error names interface and program.
    pub(crate) fn attach(
        &mut self,
        owner: Owner,
        role: Role,
        interface: &str,
        ifindex: u32,
    ) -> Result<bool, KernelError> {
        let path = self.path(owner, role, ifindex);
        let what = || format!("attaching {} to {interface}", role.program());
        if path.exists() {
            match self.replace(role, interface, &path) {
                Ok(()) => return Ok(true),
                Err(error) => {
                    // The interface that it belonged to is gone, and its index has a new owner.
                    tracing::warn!(interface, %error, "a pinned link could not be taken over; attaching anew");
                    let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
                }
            }
        }
        let options = if self.tcx {
            TcAttachOptions::TcxOrder(LinkOrder::default())
        } else {
            // Refused where there is one already; whatever else is wrong, attaching will tell.
            let _ = tc::qdisc_add_clsact(interface);
            TcAttachOptions::Netlink(NlOptions {
                priority: PRIORITY,
                handle: role.handle(),
                classid: None,
            })
        };
        let program = &mut self.programs[role as usize];
        let id = program
            .attach_with_options(interface, role.side(), options)
            .map_err(|e| KernelError::new(what(), e))?;
        let link = program
            .take_link(id)
            .map_err(|e| KernelError::new(what(), e))?;
        let pinning = || format!("pinning the link of {interface}");
        if self.tcx {
            FdLink::try_from(link)
                .map_err(|e| KernelError::new(what(), e))?
                .pin(path)
                .map_err(|e| KernelError::new(pinning(), e))?;
        } else {
            // A filter stays until it is removed.
            std::mem::forget(link);
            fs::create_dir(path).map_err(|e| KernelError::new(pinning(), e))?;
        }
        Ok(false)
    }

    /// Puts the program behind what is pinned.
    fn replace(&mut self, role: Role, interface: &str, path: &Path) -> Result<(), KernelError> {
        let what = || format!("replacing the program behind {}", path.display());
        let program = &mut self.programs[role as usize];
        let link = if path.is_dir() {
            filter(interface, role).map_err(|e| KernelError::new(what(), e))?
        } else {
            let pinned = PinnedLink::from_pin(path).map_err(|e| KernelError::new(what(), e))?;
            SchedClassifierLink::try_from(FdLink::from(pinned))
                .map_err(|e| KernelError::new(what(), e))?
        };
        let replaced = program
            .attach_to_link(link)
            .and_then(|id| program.take_link(id))
            .map_err(|e| KernelError::new(what(), e))?;
        if path.is_dir() {
            std::mem::forget(replaced);
        }
        Ok(())
    }

    /// Gives the programs to what a former agent attached for next hops. The links of interfaces
    /// that are gone, or that the configuration names now (`owned`), are removed.
    ///
    /// # Errors
    ///
    /// The directory of the pins cannot be read, or a link cannot be removed.
    pub(crate) fn adopt(&mut self, owned: &[u32]) -> Result<Vec<u32>, KernelError> {
        let mut adopted = Vec::new();
        for path in pins::link_pins(&self.dir)? {
            let Some((Owner::NextHop, role, ifindex)) = parse(&path) else {
                continue;
            };
            match pins::interface_name(ifindex) {
                Some(interface) if !owned.contains(&ifindex) => {
                    self.attach(Owner::NextHop, role, &interface, ifindex)?;
                    if role == Role::Ingress {
                        adopted.push(ifindex);
                    }
                }
                _ => remove(&path)?,
            }
        }
        Ok(adopted)
    }
}

fn load(ebpf: &mut Ebpf, name: &'static str, dir: &Path) -> Result<SchedClassifier, KernelError> {
    let what = || format!("verifying the program {name}");
    let program: &mut SchedClassifier = ebpf
        .program_mut(name)
        .ok_or_else(|| KernelError::new(what(), "the object has no such program"))?
        .try_into()
        .map_err(|error: ProgramError| KernelError::new(what(), error))?;
    load::again(|| program.load()).map_err(|error| KernelError::new(what(), error))?;
    let pin = |path: &Path| program.pin(path);
    apart::open(name, dir, pin, |path| SchedClassifier::from_pin(path))
}

/// Our filter on an interface. Dropping it removes it.
fn filter(interface: &str, role: Role) -> std::io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(interface, role.side(), PRIORITY, role.handle(), None)
}

/// What the filter behind a pin that is a directory is about. One that is gone is on nothing.
///
/// # Errors
///
/// The kernel cannot be asked.
pub(crate) fn filter_attachment(path: &Path) -> Result<Attachment, KernelError> {
    let gone = Attachment {
        program: 0,
        target: 0,
    };
    let Some((_, role, ifindex)) = parse(path) else {
        return Ok(gone);
    };
    let found = tc_filter::program(ifindex, role.side(), PRIORITY, role.handle());
    let found = found.map_err(|error| {
        KernelError::new(format!("reading the filter of {}", path.display()), error)
    })?;
    Ok(found.map_or(gone, |program| Attachment {
        program,
        target: ifindex,
    }))
}

/// Owner, role and interface of a pin, by its name.
pub(crate) fn parse(path: &Path) -> Option<(Owner, Role, u32)> {
    let name = path.file_name()?.to_str()?;
    let owners = [Owner::Configuration, Owner::NextHop];
    let (owner, rest) = owners
        .into_iter()
        .find_map(|owner| Some((owner, name.strip_prefix(owner.prefix())?)))?;
    let (label, ifindex) = rest.split_once('_')?;
    let role = Role::ALL.into_iter().find(|role| role.label() == label)?;
    Some((owner, role, ifindex.parse().ok()?))
}

/// What a pin holds, in words; `None`: it is no tc program's.
pub(crate) fn describe(path: &Path) -> Option<String> {
    let (_, role, ifindex) = parse(path)?;
    let interface =
        pins::interface_name(ifindex).unwrap_or_else(|| format!("interface {ifindex} (gone)"));
    Some(format!("{interface} (tc {})", role.label()))
}

/// Takes a program off its interface, which may be gone, and removes the pin.
///
/// # Errors
///
/// The kernel refuses.
pub(crate) fn remove(path: &Path) -> Result<(), KernelError> {
    let what = || format!("detaching the link {}", path.display());
    if !path.is_dir() {
        link::detach(path).map_err(|e| KernelError::new(what(), e))?;
        return fs::remove_file(path)
            .map_err(|e| KernelError::new(format!("removing {}", path.display()), e));
    }
    if let Some((_, role, ifindex)) = parse(path)
        && let Some(interface) = pins::interface_name(ifindex)
        && let Ok(filter) = filter(&interface, role)
    {
        // Dropping removes the filter; one that is gone already is no error.
        drop(filter);
    }
    fs::remove_dir(path).map_err(|e| KernelError::new(format!("removing {}", path.display()), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_told_by_their_names() {
        let told = |name: &str| parse(&Path::new("/sys/fs/bpf/x").join(name));
        assert_eq!(
            told("tc_finish_7"),
            Some((Owner::Configuration, Role::Finish, 7))
        );
        assert_eq!(
            told("hop_egress_12"),
            Some((Owner::NextHop, Role::Egress, 12))
        );
        for other in ["xdp_native_7", "tc_7", "tc_other_7", "tc_ingress_x", "META"] {
            assert_eq!(told(other), None, "{other}");
        }
    }
}
