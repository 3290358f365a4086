//! The pinned maps' bytes, where no step of the controller's brings about what a test needs.

use std::net::IpAddr;

use aya::maps::{Array, Map, MapData};
use lb_common::{
    entry::{BackendEntry, DestinationFilter, Meta, NextHop},
    flow::{Bucket4, Bucket6, Kind, Slot4, Tag, WAYS},
    hash,
    maps::{MIN_FLOW_SLOTS, SCHEMA, name},
};
use lb_tests::world::World;

/// A pinned map of the world's.
fn pinned<V: aya::Pod>(world: &World, map: &str) -> Array<MapData, V> {
    let pin = world.pins().join(format!("v{SCHEMA}")).join(map);
    let map = MapData::from_pin(pin).and_then(Map::from_map_data);
    map.and_then(Array::try_from).expect("a pinned array")
}

/// Moves the time at which every flow was last noted, in ticks.
pub(crate) fn shift_times(world: &World, ticks: i32) {
    let mut table = pinned::<Bucket4>(world, name::FLOWS4);
    for index in 0..MIN_FLOW_SLOTS / WAYS {
        let mut bucket = table.get(&index, 0).expect("a bucket");
        for slot in &mut bucket.slots {
            slot.half.seen = slot.half.seen.wrapping_add_signed(ticks);
        }
        table.set(index, bucket, 0).expect("the bucket written");
    }
    let mut table = pinned::<Bucket6>(world, name::FLOWS6);
    for index in 0..MIN_FLOW_SLOTS / WAYS {
        let mut bucket = table.get(&index, 0).expect("a bucket");
        for slot in &mut bucket.slots {
            slot.half.seen = slot.half.seen.wrapping_add_signed(ticks);
        }
        table.set(index, bucket, 0).expect("the bucket written");
    }
}

/// Makes every IPv4 slot one like the only flow's forward half, each of another client.
pub(crate) fn crowd(world: &World, slots: u32) {
    let mut table = pinned::<Bucket4>(world, name::FLOWS4);
    let is_forward =
        |slot: &&Slot4| Tag(slot.tag).is_live() && Tag(slot.tag).kind() == Some(Kind::Forward);
    let model = (0..slots / WAYS)
        .find_map(|index| {
            let bucket = table.get(&index, 0).expect("a bucket");
            bucket.slots.iter().find(is_forward).copied()
        })
        .expect("a flow");
    for index in 0..slots / WAYS {
        let mut bucket = Bucket4 {
            slots: [model; WAYS as usize],
        };
        for (slot, way) in bucket.slots.iter_mut().zip(0..) {
            slot.half.saddr = (0x0b00_0000 + index * WAYS + way).to_be();
        }
        table.set(index, bucket, 0).expect("the bucket written");
    }
}

/// Changes the entry of a backend.
pub(crate) fn change_backend(world: &World, id: u32, change: impl FnOnce(&mut BackendEntry)) {
    let mut backends = pinned::<BackendEntry>(world, name::BACKENDS);
    let mut entry = backends.get(&id, 0).expect("a backend");
    change(&mut entry);
    backends.set(id, entry, 0).expect("the backend written");
}

/// Sets flags of a next hop: of the backends' or, below the number of interfaces, of one of these.
pub(crate) fn set_hop_flags(world: &World, hop: u32, flags: u32) {
    let mut hops = pinned::<NextHop>(world, name::NEXTHOPS);
    let mut entry = hops.get(&hop, 0).expect("a next hop");
    entry.flags = flags;
    hops.set(hop, entry, 0).expect("the next hop written");
}

/// Number of a backend's next hop.
pub(crate) fn hop_of(world: &World, backend: u32) -> u32 {
    let backends = pinned::<BackendEntry>(world, name::BACKENDS);
    backends.get(&backend, 0).expect("a backend").hop
}

/// Has replies from an address and port of the node looked at when they leave.
pub(crate) fn allow_local(world: &World, address: &str, port: u16) {
    let word = match address.parse().expect("an address") {
        IpAddr::V4(ip) => u32::from_ne_bytes(ip.octets()),
        IpAddr::V6(ip) => {
            let words: Vec<u32> = ip
                .octets()
                .chunks_exact(4)
                .map(|bytes| u32::from_ne_bytes(bytes.try_into().expect("four bytes")))
                .collect();
            hash::filter_word6(&words.try_into().expect("four words"))
        }
    };
    let bits = [
        hash::filter_bit(word, 0, 0),
        hash::filter_bit(word, port.to_be(), hash::FILTER_LOCAL_BACKEND),
    ];
    let mut map = pinned::<DestinationFilter>(world, name::FILTER);
    let mut filter = map.get(&0, 0).expect("the filter");
    for bit in bits {
        filter.words[(bit / 64) as usize] |= 1 << (bit % 64);
    }
    map.set(0, filter, 0).expect("the filter written");
}

/// Leaves things as an agent does that ends after its maps are made and before it says so.
pub(crate) fn forget_meta(world: &World) {
    let mut map = pinned::<Meta>(world, name::META);
    map.set(0, Meta::default(), 0).expect("the map written");
}

/// Changes what an agent that adopts the maps must know.
pub(crate) fn change_meta(world: &World, change: impl FnOnce(&mut Meta)) {
    let mut map = pinned::<Meta>(world, name::META);
    let mut meta = map.get(&0, 0).expect("the map read");
    change(&mut meta);
    map.set(0, meta, 0).expect("the map written");
}
