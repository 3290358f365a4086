//! What a world's programs remember in maps that are not pinned: first fragments, and how many ICMP
//! errors they may still make.
//!
//! They are found by way of the programs: the newest one that has such a map beside this world's
//! verdicts.

use std::net::IpAddr;

use anyhow::{Context, Result};
use aya::{
    maps::{HashMap, Map, MapData, MapInfo, PerCpuArray, PerCpuValues},
    programs::loaded_programs,
};
use lb_common::maps::name;

/// Bytes of `lb_common::fragment::FirstFragment`; the time is in the last four.
type First = [u8; 16];
/// Bytes of `Bucket` in lb-ebpf/src/answer_budget.rs. All zero: full.
type Bucket = [u8; 16];

/// The maps of the programs that a world has loaded last.
pub struct Unpinned {
    /// By `lb_common::fragment::FragmentKey`.
    fragments4: HashMap<MapData, [u8; 16], First>,
    fragments6: HashMap<MapData, [u8; 40], First>,
    budget: PerCpuArray<MapData, Bucket>,
    full: Vec<Bucket>,
}

/// What the fragments of a packet have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragments {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Identification.
    pub id: u32,
    /// IANA protocol number, zero with IPv6.
    pub proto: u8,
}

/// The newest map of this name beside the map with the id `beside`.
fn find(beside: u32, name: &str) -> Result<MapData> {
    let mut found = None;
    // Programs of others come and go meanwhile.
    for program in loaded_programs().flatten() {
        let Ok(Some(maps)) = program.map_ids() else {
            continue;
        };
        if !maps.contains(&beside) {
            continue;
        }
        let named = |id: &u32| {
            let info = MapInfo::from_id(*id);
            info.is_ok_and(|info| info.name_as_str() == Some(name))
        };
        found = found.max(maps.into_iter().find(named));
    }
    let id = found.with_context(|| format!("no program has a map {name}"))?;
    MapData::from_id(id).with_context(|| format!("opening the map {name}"))
}

impl Unpinned {
    /// Those beside a pinned map of a world.
    ///
    /// # Errors
    ///
    /// No program has such maps, or they cannot be opened.
    pub fn beside(map: &MapData) -> Result<Self> {
        let beside = map.info()?.id();
        let fragments = |name| Ok::<_, anyhow::Error>(Map::from_map_data(find(beside, name)?)?);
        let cpus = aya::util::nr_cpus()
            .map_err(|(what, error)| anyhow::Error::new(error).context(what))?;
        Ok(Self {
            fragments4: fragments(name::FRAGMENTS4)?.try_into()?,
            fragments6: fragments(name::FRAGMENTS6)?.try_into()?,
            budget: fragments("ANSWER_BUDGET")?.try_into()?,
            full: vec![[0; 16]; cpus],
        })
    }

    /// Lets every processor make as many ICMP errors at once as it ever may.
    ///
    /// # Errors
    ///
    /// The map cannot be written.
    pub fn refill(&mut self) -> Result<()> {
        let full = PerCpuValues::try_from(self.full.clone())?;
        self.budget.set(0, full, 0).context("filling the budget")
    }

    /// Forgets all fragments.
    ///
    /// # Errors
    ///
    /// A map cannot be read or written.
    pub fn forget(&mut self) -> Result<()> {
        let keys: Vec<_> = self.fragments4.keys().collect::<Result<_, _>>()?;
        for key in keys {
            self.fragments4.remove(&key)?;
        }
        let keys: Vec<_> = self.fragments6.keys().collect::<Result<_, _>>()?;
        for key in keys {
            self.fragments6.remove(&key)?;
        }
        Ok(())
    }

    /// Notes another time for the first fragment of a packet, in ticks.
    ///
    /// # Errors
    ///
    /// None is remembered.
    pub fn set_seen(&mut self, of: &Fragments, seen: u32) -> Result<()> {
        let at = |mut first: First| {
            first[12..].copy_from_slice(&seen.to_ne_bytes());
            first
        };
        let proto = u32::from(of.proto).to_ne_bytes();
        match (of.src, of.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                // The identification as it lies in the packet, then two bytes that are zero.
                let [_, _, high, low] = of.id.to_be_bytes();
                let parts = [src.octets(), dst.octets(), [high, low, 0, 0], proto];
                let key = part::<16>(&parts.concat());
                let first = self.fragments4.get(&key, 0)?;
                self.fragments4.insert(key, at(first), 0)?;
            }
            (src, dst) => {
                let mut key = Vec::new();
                for address in [src, dst] {
                    if let IpAddr::V6(address) = address {
                        key.extend(address.octets());
                    }
                }
                key.extend(of.id.to_be_bytes());
                key.extend(proto);
                let key = part::<40>(&key);
                let first = self.fragments6.get(&key, 0)?;
                self.fragments6.insert(key, at(first), 0)?;
            }
        }
        Ok(())
    }
}

/// The bytes as a key.
fn part<const LENGTH: usize>(bytes: &[u8]) -> [u8; LENGTH] {
    let mut key = [0; LENGTH];
    key.copy_from_slice(bytes);
    key
}
