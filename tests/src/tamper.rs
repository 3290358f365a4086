//! What somebody else may do to pinned maps and links behind the agent's back.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs, io,
    net::SocketAddr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError};
use lb_common::{
    block::MAX_PAGES,
    entry::{
        BackendEntry, DestinationFilter, FAMILY_V4, FAMILY_V6, NextHop, ServiceEntry, ServiceKey,
    },
    maps::{SCHEMA, name},
};

/// `BPF_OBJ_GET` of include/uapi/linux/bpf.h.
const OBJ_GET: libc::c_long = 7;
/// `BPF_LINK_DETACH`.
const LINK_DETACH: libc::c_long = 34;

/// The pins of one agent.
pub struct Tamper {
    dir: PathBuf,
}

impl Tamper {
    /// Over the directory that `bpf_dir` is.
    pub fn new(bpf_dir: &Path) -> Self {
        Self {
            dir: bpf_dir.join(format!("v{SCHEMA}")),
        }
    }

    fn open<M: TryFrom<Map, Error = MapError>>(&self, map: &str) -> Result<M> {
        let data =
            MapData::from_pin(self.dir.join(map)).with_context(|| format!("opening {map}"))?;
        Ok(M::try_from(Map::from_map_data(data)?)?)
    }

    fn services(&self) -> Result<HashMap<MapData, ServiceKey, ServiceEntry>> {
        self.open(name::SERVICES)
    }

    fn tables(&self) -> Result<ArrayOfMaps<MapData>> {
        self.open(name::MAGLEV)
    }

    /// The key of a TCP VIP, and its entry.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn vip(&self, address: SocketAddr) -> Result<(ServiceKey, ServiceEntry)> {
        let family = if address.is_ipv6() {
            FAMILY_V6
        } else {
            FAMILY_V4
        };
        for entry in self.services()?.iter() {
            let (key, entry) = entry?;
            let fits = key.port == address.port().to_be() && key.family == family;
            if fits && key.proto == lb_common::IPPROTO_TCP {
                return Ok((key, entry));
            }
        }
        bail!("there is no VIP {address}")
    }

    /// Deletes a VIP.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn delete_vip(&self, address: SocketAddr) -> Result<()> {
        let (key, _) = self.vip(address)?;
        Ok(self.services()?.remove(&key)?)
    }

    /// Adds a VIP on this port that nobody asked for, to the service of another.
    ///
    /// # Errors
    ///
    /// There is no such other.
    pub fn add_vip(&self, like: SocketAddr, port: u16) -> Result<()> {
        let (key, entry) = self.vip(like)?;
        let port = port.to_be();
        Ok(self
            .services()?
            .insert(ServiceKey { port, ..key }, entry, 0)?)
    }

    /// Changes the entry of a backend; its id.
    ///
    /// # Errors
    ///
    /// There is none of this address.
    pub fn change_backend(
        &self,
        address: SocketAddr,
        change: impl FnOnce(&mut BackendEntry),
    ) -> Result<u32> {
        let mut backends: Array<MapData, BackendEntry> = self.open(name::BACKENDS)?;
        let SocketAddr::V4(v4) = address else {
            bail!("only IPv4 backends are looked for");
        };
        let word = u32::from_ne_bytes(v4.ip().octets());
        for id in 0..1000 {
            let mut entry = backends.get(&id, 0)?;
            let is_it = entry.addr[0] == word && entry.port == address.port().to_be();
            if is_it && entry.family == u32::from(FAMILY_V4) {
                change(&mut entry);
                backends.set(id, entry, 0)?;
                return Ok(id);
            }
        }
        bail!("there is no backend {address}")
    }

    /// Puts an entry of a backend where there is none.
    ///
    /// # Errors
    ///
    /// There is no other to be copied.
    pub fn add_backend(&self, like: SocketAddr, id: u32) -> Result<()> {
        let mut copy = None;
        self.change_backend(like, |entry| copy = Some(*entry))?;
        let mut backends: Array<MapData, BackendEntry> = self.open(name::BACKENDS)?;
        Ok(backends.set(id, copy.context("no entry")?, 0)?)
    }

    /// Whether there is a backend's entry of this id.
    ///
    /// # Errors
    ///
    /// The map cannot be read.
    pub fn has_backend(&self, id: u32) -> Result<bool> {
        let backends: Array<MapData, BackendEntry> = self.open(name::BACKENDS)?;
        Ok(backends.get(&id, 0)?.family != 0)
    }

    /// Numbers of the pages of the IPv4 block list, by slot.
    ///
    /// # Errors
    ///
    /// The map cannot be read.
    pub fn block_pages(&self) -> Result<BTreeMap<u32, u32>> {
        let pages: ArrayOfMaps<MapData> = self.open(name::BLOCK4)?;
        let mut held = BTreeMap::new();
        for slot in 0..MAX_PAGES {
            match pages.get(&slot, 0) {
                Ok(page) => held.insert(slot, page.info()?.id()),
                Err(MapError::KeyNotFound) => continue,
                Err(error) => return Err(error.into()),
            };
        }
        Ok(held)
    }

    /// Puts the page in one slot of the IPv4 block list into another as well.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn copy_block_page(&self, from: u32, to: u32) -> Result<()> {
        let mut pages: ArrayOfMaps<MapData> = self.open(name::BLOCK4)?;
        let page: MapData = pages.get(&from, 0)?;
        Ok(pages.set(to, &page, 0)?)
    }

    /// Pins another of the maps in the place of the IPv4 block list.
    ///
    /// # Errors
    ///
    /// There is no such map.
    pub fn pose_as_block_list(&self, map: &str) -> Result<()> {
        let map = MapData::from_pin(self.dir.join(map))?;
        let place = self.dir.join(name::BLOCK4);
        fs::remove_file(&place)?;
        Ok(map.pin(&place)?)
    }

    /// Writes another link address into the next hop of a backend.
    ///
    /// # Errors
    ///
    /// There is none of this address.
    pub fn misdirect(&self, backend: SocketAddr) -> Result<()> {
        let mut hop = 0;
        self.change_backend(backend, |entry| hop = entry.hop)?;
        let mut hops: Array<MapData, NextHop> = self.open(name::NEXTHOPS)?;
        let mut entry = hops.get(&hop, 0)?;
        entry.dmac = [2, 0xba, 0xd0, 0, 0, 1];
        Ok(hops.set(hop, entry, 0)?)
    }

    /// Puts the Maglev table of one VIP's service in the place of another's.
    ///
    /// # Errors
    ///
    /// One of them is not there.
    pub fn swap_table(&self, of: SocketAddr, for_that_of: SocketAddr) -> Result<()> {
        let (to, from) = (self.vip(of)?.1.id, self.vip(for_that_of)?.1.id);
        let mut tables = self.tables()?;
        let other: MapData = tables.get(&from, 0)?;
        Ok(tables.set(to, &other, 0)?)
    }

    /// Lets every slot of a VIP's Maglev table lead to one backend.
    ///
    /// # Errors
    ///
    /// There is no such VIP.
    pub fn fill_table(&self, of: SocketAddr, backend: u32) -> Result<()> {
        let entry = self.vip(of)?.1;
        let table: MapData = self.tables()?.get(&entry.id, 0)?;
        let mut table: Array<MapData, u32> = Array::try_from(Map::from_map_data(table)?)?;
        for slot in 0..entry.maglev_slots {
            table.set(slot, backend, 0)?;
        }
        Ok(())
    }

    /// Lets no packet pass to what the programs do.
    ///
    /// # Errors
    ///
    /// The map cannot be written.
    pub fn clear_filter(&self) -> Result<()> {
        let mut filter: Array<MapData, DestinationFilter> = self.open(name::FILTER)?;
        let mut entry = filter.get(&0, 0)?;
        entry.words.fill(0);
        Ok(filter.set(0, entry, 0)?)
    }

    /// Takes the first page out of the IPv4 block list.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn clear_blocks(&self) -> Result<()> {
        let data = MapData::from_pin(self.dir.join(name::BLOCK4))?;
        let mut blocks = ArrayOfMaps::<MapData>::try_from(Map::from_map_data(data)?)?;
        let page = MapData::from_pin(self.dir.join(name::BLOCK6))
            .and_then(Map::from_map_data)
            .and_then(ArrayOfMaps::<MapData>::try_from)?;
        let page: MapData = page.get(&0, 0).context("a page of the IPv6 block list")?;
        // The rules of the other family in the place of its own.
        Ok(blocks.set(0, &page, 0)?)
    }

    /// Paths of pinned links whose names begin so.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn links(&self, prefix: &str) -> Result<Vec<PathBuf>> {
        let mut links = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                links.push(entry.path());
            }
        }
        links.sort();
        Ok(links)
    }

    /// Takes the program of a pinned link off, as `bpftool link detach` does.
    ///
    /// # Errors
    ///
    /// There is no such link.
    pub fn detach(&self, link: &Path) -> Result<()> {
        #[repr(C)]
        struct ObjGet {
            pathname: u64,
            bpf_fd: u32,
            file_flags: u32,
        }
        let path = CString::new(link.as_os_str().as_bytes())?;
        let get = ObjGet {
            pathname: path.as_ptr() as u64,
            bpf_fd: 0,
            file_flags: 0,
        };
        // SAFETY: the attributes are those of the command, and the path outlives the call.
        let fd =
            unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET, &raw const get, size_of::<ObjGet>()) };
        if fd < 0 {
            return Err(io::Error::last_os_error()).context("opening a pinned link");
        }
        let attributes = [u32::try_from(fd)?, 0];
        // SAFETY: the attributes are those of the command, and hold no pointer.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                LINK_DETACH,
                &raw const attributes,
                size_of::<[u32; 2]>(),
            )
        };
        let error = io::Error::last_os_error();
        // SAFETY: the descriptor is this function's own.
        unsafe { libc::close(i32::try_from(fd)?) };
        match answer {
            0 => Ok(()),
            _ => Err(error).context("detaching a pinned link"),
        }
    }
}
