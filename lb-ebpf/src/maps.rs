//! The maps. All are pinned by the agent under the schema version; see `lb_common::maps`.

use aya_ebpf::{
    btf_maps::{
        Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerfEventByteArray,
        ProgramArray, RingBuf,
    },
    macros::btf_map,
};
use lb_common::{
    block::{Line, MAX_PAGES, PAGE_LINES, RuleKey},
    entry::{
        AddressKey, BackendEntry, BackendStats, Counter, DestinationFilter, EvictionStats,
        InterfaceAddresses, Meta, NextHop, ServiceEntry, ServiceKey, Source,
    },
    flow::{Bucket4, Bucket6, WAYS},
    fragment::{FirstFragment, FragmentKey, HeldHeader},
    maps::{
        DEFAULT_FLOW_SLOTS, MAX_ALLOW_RULES, MAX_BACKENDS, MAX_BLOCK_SPILL, MAX_CONVERSATIONS,
        MAX_FRAGMENTED, MAX_HELD_VIPS, MAX_INTERFACES, MAX_MAGLEV_SLOTS, MAX_NEXTHOPS, MAX_SENDERS,
        MAX_SERVICES, MAX_SOCKETS, MAX_SOURCES, detour,
    },
    socket::{Connected, Conversation, ConversationKey, SocketStats},
    trace::{TRACE_RING, TRACE_SLOTS, TraceEvent, TraceFilter, TraceRecord, TraceStats},
    verdict::VERDICT_COUNT,
};

use crate::{answer_budget::Bucket, family::Draft, outline::Outline};

/// `BPF_F_NO_PREALLOC`: memory is taken when an entry is added.
const NO_PREALLOC: usize = 1;
/// `BPF_F_MMAPABLE`: the agent maps the memory and works on it without system calls.
const MMAPABLE: usize = 1 << 10;
/// `BPF_F_INNER_MAP`: inner maps may differ in their number of entries.
const INNER_MAP: usize = 1 << 12;

const BUCKETS: usize = (DEFAULT_FLOW_SLOTS / WAYS) as usize;

/// A Maglev table: backend ids.
pub(crate) type MaglevTable = Array<u32, { MAX_MAGLEV_SLOTS as usize }, { MMAPABLE | INNER_MAP }>;

/// A page of the block list. All are of one size, and so looked up without a call: the kernel
/// inlines what it knows the size of (`array_map_gen_lookup` of kernel/bpf/arraymap.c).
pub(crate) type BlockPage = Array<Line, { PAGE_LINES as usize }, MMAPABLE>;

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
pub(crate) static BLOCK4: ArrayOfMaps<BlockPage, { MAX_PAGES as usize }> = ArrayOfMaps::new();
#[btf_map]
pub(crate) static BLOCK6: ArrayOfMaps<BlockPage, { MAX_PAGES as usize }> = ArrayOfMaps::new();
#[btf_map]
pub(crate) static ALLOW4: LpmTrie<u32, u32, { MAX_ALLOW_RULES as usize }, NO_PREALLOC> =
    LpmTrie::new();
#[btf_map]
pub(crate) static ALLOW6: LpmTrie<[u32; 4], u32, { MAX_ALLOW_RULES as usize }, NO_PREALLOC> =
    LpmTrie::new();
#[btf_map]
pub(crate) static SOURCES4: LpmTrie<Source<u32>, u32, { MAX_SOURCES as usize }, NO_PREALLOC> =
    LpmTrie::new();
#[btf_map]
pub(crate) static SOURCES6: LpmTrie<Source<[u32; 4]>, u32, { MAX_SOURCES as usize }, NO_PREALLOC> =
    LpmTrie::new();
/// VIPs of other nodes; this and the next two are not pinned.
#[btf_map]
pub(crate) static HELD_VIPS: HashMap<AddressKey, u32, { MAX_HELD_VIPS as usize }, NO_PREALLOC> =
    HashMap::new();
#[btf_map]
pub(crate) static SENDERS4: LpmTrie<u32, u32, { MAX_SENDERS as usize }, NO_PREALLOC> =
    LpmTrie::new();
#[btf_map]
pub(crate) static SENDERS6: LpmTrie<[u32; 4], u32, { MAX_SENDERS as usize }, NO_PREALLOC> =
    LpmTrie::new();
#[btf_map]
pub(crate) static BLOCK_SPILL: HashMap<
    RuleKey,
    Counter,
    { MAX_BLOCK_SPILL as usize },
    NO_PREALLOC,
> = HashMap::new();
#[btf_map]
pub(crate) static VERDICT_STATS: PerCpuArray<Counter, { VERDICT_COUNT as usize }> =
    PerCpuArray::new();
#[btf_map]
pub(crate) static BACKEND_STATS: PerCpuArray<BackendStats, { MAX_BACKENDS as usize }> =
    PerCpuArray::new();
#[btf_map]
pub(crate) static SOCKETS: LruHashMap<u64, Connected, { MAX_SOCKETS as usize }> = LruHashMap::new();
#[btf_map]
pub(crate) static CONVERSATIONS: LruHashMap<
    ConversationKey,
    Conversation,
    { MAX_CONVERSATIONS as usize },
> = LruHashMap::new();
#[btf_map]
pub(crate) static SOCKET_STATS: PerCpuArray<SocketStats, 1> = PerCpuArray::new();
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
/// The same for tc: the kernel lets a map have programs of one kind only.
#[btf_map]
pub(crate) static TC_DETOURS: ProgramArray<{ detour::COUNT as usize }> = ProgramArray::new();
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
/// Fragments that the agent is to keep; not pinned.
#[btf_map]
pub(crate) static HELD: PerfEventByteArray = PerfEventByteArray::new();
/// This CPU's scratch memory for what goes before such a fragment; not pinned.
#[btf_map]
pub(crate) static HELD_HEADER: PerCpuArray<HeldHeader, 1> = PerCpuArray::new();
/// The frame that this CPU is at work on, where it is not plain; not pinned.
#[btf_map]
pub(crate) static OUTLINE: PerCpuArray<Outline, 1> = PerCpuArray::new();
/// What ICMP errors this CPU may still make; not pinned.
#[btf_map]
pub(crate) static ANSWER_BUDGET: PerCpuArray<Bucket, 1> = PerCpuArray::new();
/// What watchers want to see; this and all that follows of the trace is not pinned.
#[btf_map]
pub(crate) static TRACE_FILTERS: Array<TraceFilter, { TRACE_SLOTS as usize }> = Array::new();
#[btf_map]
pub(crate) static TRACE_EVENTS: RingBuf<TraceEvent, TRACE_RING> = RingBuf::new();
#[btf_map]
pub(crate) static TRACE_STATS: PerCpuArray<TraceStats, { TRACE_SLOTS as usize }> =
    PerCpuArray::new();
/// This CPU's scratch memory for an event.
#[btf_map]
pub(crate) static TRACE_RECORD: PerCpuArray<TraceRecord, 1> = PerCpuArray::new();
/// Read by the agent only; held here so that it is created with the others.
#[btf_map]
static META: Array<Meta, 1> = Array::new();
