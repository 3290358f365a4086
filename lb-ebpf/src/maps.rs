//! The maps. All are pinned by the agent under the schema version; see `lb_common::maps`.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray},
    macros::btf_map,
};
use lb_common::{
    block::{BlockControl, BlockRule},
    entry::{
        AddressKey, BackendEntry, BackendStats, Counter, DestinationFilter, EvictionStats,
        InterfaceAddresses, Meta, NextHop, ServiceEntry, ServiceKey,
    },
    flow::{Bucket4, Bucket6, WAYS},
    maps::{
        DEFAULT_FLOW_SLOTS, MAX_BACKENDS, MAX_BLOCK_RULES, MAX_FRAGMENTED, MAX_INTERFACES,
        MAX_MAGLEV_SLOTS, MAX_NEXTHOPS, MAX_SERVICES, detour,
    },
    verdict::VERDICT_COUNT,
};

use crate::{
    answer_budget::Bucket,
    family::Draft,
    fragment::{FirstFragment, FragmentKey},
    outline::Outline,
};

/// `BPF_F_NO_PREALLOC`: memory is taken when an entry is added.
const NO_PREALLOC: usize = 1;
/// `BPF_F_MMAPABLE`: the agent maps the memory and works on it without system calls.
const MMAPABLE: usize = 1 << 10;
/// `BPF_F_INNER_MAP`: inner maps may differ in their number of entries.
const INNER_MAP: usize = 1 << 12;

const BUCKETS: usize = (DEFAULT_FLOW_SLOTS / WAYS) as usize;

/// A Maglev table: backend ids.
pub(crate) type MaglevTable = Array<u32, { MAX_MAGLEV_SLOTS as usize }, { MMAPABLE | INNER_MAP }>;

#[btf_map]
pub(crate) static SERVICES: HashMap<ServiceKey, ServiceEntry, { MAX_SERVICES as usize }> =
    HashMap::new();
#[btf_map]
pub(crate) static MAGLEV: ArrayOfMaps<MaglevTable, { MAX_SERVICES as usize }> = ArrayOfMaps::new();
#[btf_map]
pub(crate) static BACKENDS: Array<BackendEntry, { MAX_BACKENDS as usize }, MMAPABLE> = Array::new();
#[btf_map]
pub(crate) static NEXTHOPS: Array<NextHop, { MAX_NEXTHOPS as usize }> = Array::new();
#[btf_map]
pub(crate) static FLOWS4: Array<Bucket4, BUCKETS, MMAPABLE> = Array::new();
#[btf_map]
pub(crate) static FLOWS6: Array<Bucket6, BUCKETS, MMAPABLE> = Array::new();
#[btf_map]
pub(crate) static FILTER: Array<DestinationFilter, 1, MMAPABLE> = Array::new();
#[btf_map]
pub(crate) static BLOCK4: LpmTrie<u32, BlockRule, { MAX_BLOCK_RULES as usize }, NO_PREALLOC> =
    LpmTrie::new();
#[btf_map]
pub(crate) static BLOCK6: LpmTrie<[u32; 4], BlockRule, { MAX_BLOCK_RULES as usize }, NO_PREALLOC> =
    LpmTrie::new();
#[btf_map]
pub(crate) static BLOCK_CONTROL: Array<BlockControl, 1> = Array::new();
#[btf_map]
pub(crate) static BLOCK_STATS: PerCpuArray<Counter, { MAX_BLOCK_RULES as usize }> =
    PerCpuArray::new();
#[btf_map]
pub(crate) static VERDICT_STATS: PerCpuArray<Counter, { VERDICT_COUNT as usize }> =
    PerCpuArray::new();
#[btf_map]
pub(crate) static BACKEND_STATS: PerCpuArray<BackendStats, { MAX_BACKENDS as usize }> =
    PerCpuArray::new();
#[btf_map]
pub(crate) static EVICTION_STATS: PerCpuArray<EvictionStats, 1> = PerCpuArray::new();
/// What has been used of the budget for new flows, shared by all CPUs; not pinned.
#[btf_map]
pub(crate) static BUDGET: Array<u64, 1> = Array::new();
/// This CPU's scratch memory for new IPv4 flows; not pinned.
#[btf_map]
pub(crate) static DRAFT4: PerCpuArray<Draft<u32>, 1> = PerCpuArray::new();
/// The same for IPv6.
#[btf_map]
pub(crate) static DRAFT6: PerCpuArray<Draft<[u32; 4]>, 1> = PerCpuArray::new();
#[btf_map]
pub(crate) static VIPS: HashMap<AddressKey, u32, { MAX_SERVICES as usize }, NO_PREALLOC> =
    HashMap::new();
#[btf_map]
pub(crate) static ADDRESSES: Array<InterfaceAddresses, MAX_INTERFACES> = Array::new();
#[btf_map]
pub(crate) static DETOURS: ProgramArray<{ detour::COUNT as usize }> = ProgramArray::new();
/// First fragments of IPv4 packets; not pinned.
#[btf_map]
pub(crate) static FRAGMENTS4: LruHashMap<
    FragmentKey<u32>,
    FirstFragment,
    { MAX_FRAGMENTED as usize },
> = LruHashMap::new();
/// The same for IPv6.
#[btf_map]
pub(crate) static FRAGMENTS6: LruHashMap<
    FragmentKey<[u32; 4]>,
    FirstFragment,
    { MAX_FRAGMENTED as usize },
> = LruHashMap::new();
/// The frame that this CPU is at work on, where it is not plain; not pinned.
#[btf_map]
pub(crate) static OUTLINE: PerCpuArray<Outline, 1> = PerCpuArray::new();
/// What ICMP errors this CPU may still make; not pinned.
#[btf_map]
pub(crate) static ANSWER_BUDGET: PerCpuArray<Bucket, 1> = PerCpuArray::new();
/// Read by the agent only; held here so that it is created with the others.
#[btf_map]
static META: Array<Meta, 1> = Array::new();
