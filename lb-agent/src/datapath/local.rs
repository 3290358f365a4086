//! Local clients: the programs on socket calls, attached to a cgroup by pinned links, and what
//! they remember.
//!
//! The links are pinned beside those of the interfaces, as `cgroup_PROGRAM_CGROUP`. The number of
//! the cgroup is never given to another, so a pin tells whose it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::SocketAddr,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData, PerCpuArray},
    programs::{
        CgroupAttachMode, CgroupSock, CgroupSockAddr, Program, ProgramError, links::FdLink,
    },
};
use lb_common::{
    maps::name,
    socket::{Connected, SocketStats},
};

use super::{cgroup::Cgroup, encode, link, load::again, netns, pins, sock_diag, take};
use crate::domain::kernel::{KernelBackend, KernelError};

/// Name of each program, less the `lb_`, in the order in which they are attached: who is sent to a
/// backend must be shown the VIP from the first moment.
const PROGRAMS: [&str; 9] = [
    "sock_release",
    "getpeername4",
    "getpeername6",
    "recvmsg4",
    "recvmsg6",
    "sendmsg4",
    "sendmsg6",
    "connect4",
    "connect6",
];

/// What begins the name of a pinned link.
const PIN: &str = "cgroup_";

/// The cgroup whose processes are served.
#[derive(Clone, Debug)]
pub struct AttachedCgroup {
    /// Its directory.
    pub path: PathBuf,
    /// The links were there before, and got the new programs.
    pub adopted: bool,
}

/// The maps of local clients, and where the programs are attached.
pub(crate) struct LocalClients {
    sockets: HashMap<MapData, u64, Connected>,
    stats: PerCpuArray<MapData, SocketStats>,
    attached: AttachedCgroup,
    /// Cookie of the agent's own network namespace; `None` where the kernel tells none.
    netns: Option<u64>,
    /// The kernel cannot close others' sockets.
    cannot_close: bool,
}

impl LocalClients {
    /// Attaches the programs to the cgroup, or puts them behind the links that are pinned in
    /// `dir`.
    pub(crate) fn attach(
        ebpf: &mut Ebpf,
        dir: &Path,
        cgroup: &Cgroup,
    ) -> Result<Self, KernelError> {
        let pin = |program: &str| dir.join(format!("{PIN}{program}_{}", cgroup.id));
        let wanted = PROGRAMS.map(pin);
        for stale in pinned(dir)? {
            if !wanted.contains(&stale) {
                pins::remove_link(&stale)?;
                tracing::info!(pin = %stale.display(), "detached from a cgroup that is no longer configured");
            }
        }
        let mut adopted = true;
        for (name, pin) in PROGRAMS.iter().zip(&wanted) {
            let what = || format!("attaching {name} to the cgroup {}", cgroup.path.display());
            let program = ebpf
                .program_mut(&format!("lb_{name}"))
                .ok_or_else(|| KernelError::new(what(), "the object has no such program"))?;
            adopted &= attach_one(program, cgroup, pin)
                .map_err(|error| KernelError::new(what(), error))?;
        }
        Ok(Self {
            sockets: take(ebpf, name::SOCKETS)?,
            stats: take(ebpf, name::SOCKET_STATS)?,
            attached: AttachedCgroup {
                path: cgroup.path.clone(),
                adopted,
            },
            netns: netns::cookie().ok(),
            cannot_close: false,
        })
    }

    pub(crate) fn attached(&self) -> &AttachedCgroup {
        &self.attached
    }

    pub(crate) fn stats(&self) -> Result<SocketStats, KernelError> {
        let values = self
            .stats
            .get(&0, 0)
            .map_err(|error| KernelError::new(format!("reading {}", name::SOCKET_STATS), error))?;
        Ok(values
            .iter()
            .fold(SocketStats::default(), |sum, value| SocketStats {
                translated: sum.translated + value.translated,
                refused: sum.refused + value.refused,
            }))
    }

    /// Closes the sockets that were sent to one of these backends, in whatever network namespace;
    /// answers with their number. A socket that its owner connected to the backend by itself is
    /// none of them.
    pub(crate) fn close(
        &mut self,
        gone: &BTreeMap<u32, KernelBackend>,
    ) -> Result<usize, KernelError> {
        if self.cannot_close {
            return Ok(0);
        }
        let by_namespace = self.doomed(gone)?;
        // Where the kernel does not tell namespaces apart, only our own can be looked into.
        let own = self.netns;
        let is_own = |netns: u64| own.is_none_or(|own| own == netns);
        let elsewhere: BTreeSet<u64> = by_namespace
            .keys()
            .copied()
            .filter(|netns| !is_own(*netns))
            .collect();
        let others = match elsewhere.is_empty() {
            true => BTreeMap::new(),
            false => netns::find(&elsewhere),
        };
        let mut closed = 0;
        let mut first = None;
        let orders = by_namespace
            .iter()
            .flat_map(|(netns, doomed)| doomed.iter().map(move |order| (*netns, order)));
        for (netns, order) in orders {
            let result = match others.get(&netns) {
                _ if is_own(netns) => sock_diag::close(order),
                Some(namespace) => {
                    netns::within(namespace, || sock_diag::close(order)).and_then(|done| done)
                }
                // Nobody is left in it.
                None => Ok(0),
            };
            match result {
                Ok(count) => closed += count,
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    tracing::warn!(
                        "this kernel cannot close sockets (CONFIG_INET_DIAG_DESTROY is not set): \
                         local clients of a lost backend wait until their own timeouts"
                    );
                    self.cannot_close = true;
                    return Ok(closed);
                }
                // It must not keep the others from being closed.
                Err(error) => {
                    let what = format!("closing local clients' sockets to {}", order.peer);
                    first.get_or_insert(KernelError::new(what, error));
                }
            }
        }
        first.map_or(Ok(closed), Err)
    }

    /// The number of sockets that were sent to one of these backends.
    pub(crate) fn sockets_of(
        &self,
        backends: &BTreeMap<u32, KernelBackend>,
    ) -> Result<u64, KernelError> {
        let doomed = self.doomed(backends)?;
        let orders = doomed.values().flatten();
        Ok(orders.map(|order| order.cookies.len() as u64).sum())
    }

    /// The sockets that were sent to one of these backends, by namespace, backend and protocol.
    fn doomed(
        &self,
        gone: &BTreeMap<u32, KernelBackend>,
    ) -> Result<BTreeMap<u64, Vec<sock_diag::Doomed>>, KernelError> {
        let mut doomed: BTreeMap<(u64, SocketAddr, u8), BTreeSet<u64>> = BTreeMap::new();
        for entry in self.sockets.iter() {
            let (cookie, socket) = entry
                .map_err(|error| KernelError::new("reading the local clients' sockets", error))?;
            let peer = encode::endpoint(&socket.backend);
            // An id may have had another owner when the socket was sent there.
            if gone
                .get(&socket.backend.note)
                .is_some_and(|backend| backend.address == peer.address)
            {
                let key = (socket.netns, peer.address, peer.protocol);
                doomed.entry(key).or_default().insert(cookie);
            }
        }
        let mut by_namespace: BTreeMap<u64, Vec<sock_diag::Doomed>> = BTreeMap::new();
        for ((netns, peer, protocol), cookies) in doomed {
            by_namespace
                .entry(netns)
                .or_default()
                .push(sock_diag::Doomed {
                    protocol,
                    peer,
                    cookies,
                });
        }
        Ok(by_namespace)
    }
}

/// Loads a program and attaches it; whether it took over a link that was there.
fn attach_one(program: &mut Program, cgroup: &Cgroup, pin: &Path) -> Result<bool, ProgramError> {
    match program {
        Program::CgroupSock(program) => again(|| program.load())?,
        Program::CgroupSockAddr(program) => again(|| program.load())?,
        _ => return Err(ProgramError::UnexpectedProgramType),
    }
    if pin.exists() {
        match link::replace(pin, program.fd()?.as_fd()) {
            Ok(()) => return Ok(true),
            Err(error) => {
                tracing::warn!(pin = %pin.display(), %error, "a pinned link could not be taken over; attaching anew");
                fs::remove_file(pin)?;
            }
        }
    }
    let link = match program {
        Program::CgroupSock(program) => release_link(program, cgroup)?,
        Program::CgroupSockAddr(program) => address_link(program, cgroup)?,
        _ => return Err(ProgramError::UnexpectedProgramType),
    };
    link.pin(pin)
        .map_err(|error| ProgramError::IOError(io::Error::other(error)))?;
    Ok(false)
}

/// No flags, which is all that the kernel takes with a link: others may attach programs of their own
/// to the same cgroup, and all run (kernel/bpf/cgroup.c, `cgroup_bpf_link_attach`).
const MODE: CgroupAttachMode = CgroupAttachMode::Single;

fn release_link(program: &mut CgroupSock, cgroup: &Cgroup) -> Result<FdLink, ProgramError> {
    let id = program.attach(&cgroup.dir, MODE)?;
    let link = program.take_link(id)?;
    FdLink::try_from(link).map_err(|error| ProgramError::IOError(io::Error::other(error)))
}

fn address_link(program: &mut CgroupSockAddr, cgroup: &Cgroup) -> Result<FdLink, ProgramError> {
    let id = program.attach(&cgroup.dir, MODE)?;
    let link = program.take_link(id)?;
    FdLink::try_from(link).map_err(|error| ProgramError::IOError(io::Error::other(error)))
}

/// The program that a pin is of; `None`: it is no local clients'.
pub(crate) fn program_of(pin: &Path) -> Option<&'static str> {
    let rest = pin.file_name()?.to_str()?.strip_prefix(PIN)?;
    let (name, _) = rest.rsplit_once('_')?;
    PROGRAMS.into_iter().find(|program| *program == name)
}

/// Attaches a program that was taken off its cgroup.
///
/// # Errors
///
/// The kernel refuses.
pub(crate) fn attach_again(
    ebpf: &mut Ebpf,
    name: &str,
    cgroup: &Cgroup,
    pin: &Path,
) -> Result<(), KernelError> {
    let what = || format!("attaching {name} to the cgroup {}", cgroup.path.display());
    let program = ebpf
        .program_mut(&format!("lb_{name}"))
        .ok_or_else(|| KernelError::new(what(), "the object has no such program"))?;
    let attached = match program {
        Program::CgroupSock(program) => release_link(program, cgroup),
        Program::CgroupSockAddr(program) => address_link(program, cgroup),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    let link = attached.map_err(|error| KernelError::new(what(), error))?;
    let pinned = link.pin(pin).map(drop);
    pinned.map_err(|error| KernelError::new(what(), error))
}

/// The pinned links of local clients, those first that send sockets to backends: they are to go
/// before those that show the VIP.
pub(crate) fn pinned(dir: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let what = || format!("listing {}", dir.display());
    let mut pins = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| KernelError::new(what(), error))? {
        let entry = entry.map_err(|error| KernelError::new(what(), error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(rest) = name.strip_prefix(PIN) {
            let order = PROGRAMS
                .iter()
                .rposition(|program| rest.starts_with(program));
            pins.push((std::cmp::Reverse(order), entry.path()));
        }
    }
    pins.sort();
    Ok(pins.into_iter().map(|(_, path)| path).collect())
}

/// Takes the programs off whatever cgroup they are on, and what they remember; answers with the
/// number of programs.
pub(crate) fn detach(dir: &Path) -> Result<usize, KernelError> {
    let links = pinned(dir)?;
    for pin in &links {
        pins::remove_link(pin)?;
    }
    for map in name::PINNED_LOCAL {
        let path = dir.join(map);
        if path.exists() {
            pins::remove(&path)?;
        }
    }
    Ok(links.len())
}
