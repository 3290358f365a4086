//! The pinned maps' bytes, where no step of the controller's brings about what a test needs.

use aya::maps::{Array, Map, MapData};
use lb_common::{
    entry::{BackendEntry, Meta},
    flow::{Bucket4, Bucket6, WAYS},
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

/// Changes the entry of a backend.
pub(crate) fn change_backend(world: &World, id: u32, change: impl FnOnce(&mut BackendEntry)) {
    let mut backends = pinned::<BackendEntry>(world, name::BACKENDS);
    let mut entry = backends.get(&id, 0).expect("a backend");
    change(&mut entry);
    backends.set(id, entry, 0).expect("the backend written");
}

/// Leaves things as an agent does that ends after its maps are made and before it says so.
pub(crate) fn forget_meta(world: &World) {
    let mut map = pinned::<Meta>(world, name::META);
    map.set(0, Meta::default(), 0).expect("the map written");
}
