//! The agent's end of the trace: filters and switch in, events out. See `lb_common::trace`.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use aya::{
    Ebpf,
    maps::{Array, MapData, PerCpuArray, RingBuf},
};
use lb_common::{
    entry::{FAMILY_V4, FAMILY_V6},
    maps::name,
    trace::{
        NO_BACKEND, TRACE_SLOTS, TRACE_SNAP, TraceEvent, TraceFilter, TraceStats, TraceSwitch,
        trace_facts,
    },
    verdict::Verdict,
};

use super::{clock::Clock, encode, take};
use crate::domain::{
    kernel::KernelError,
    trace::{Ends, PacketEvent, PacketFilter, SlotCounts, Tap},
};

/// How long the programs tell of packets without being asked again, in seconds.
const LEASE: u32 = 5;

/// See the module's documentation.
pub struct Trace {
    switch: Array<MapData, TraceSwitch>,
    filters: Array<MapData, TraceFilter>,
    events: RingBuf<MapData>,
    stats: PerCpuArray<MapData, TraceStats>,
    clock: Clock,
}

impl Trace {
    /// Takes the maps out of the loaded object.
    pub(crate) fn new(ebpf: &mut Ebpf, clock: Clock) -> Result<Self, KernelError> {
        Ok(Self {
            switch: take(ebpf, name::TRACE_SWITCH)?,
            filters: take(ebpf, name::TRACE_FILTERS)?,
            events: take(ebpf, name::TRACE_EVENTS)?,
            stats: take(ebpf, name::TRACE_STATS)?,
            clock,
        })
    }

    /// Whether the programs look at packets at this moment.
    ///
    /// # Errors
    ///
    /// The map cannot be read.
    pub fn is_on(&self) -> Result<bool, KernelError> {
        let switch = self.switch.get(&0, 0);
        let switch =
            switch.map_err(|error| KernelError::new("reading the trace's switch", error))?;
        Ok(switch.on != 0)
    }

    /// Switches on for so many seconds from now on; fewer than none is over already.
    ///
    /// # Errors
    ///
    /// The map cannot be written.
    pub fn lease(&mut self, seconds: i32) -> Result<(), KernelError> {
        let switch = TraceSwitch {
            on: 1,
            until: self.clock.in_seconds(seconds),
        };
        self.write_switch(switch)
    }

    fn write_switch(&mut self, switch: TraceSwitch) -> Result<(), KernelError> {
        self.switch
            .set(0, switch, 0)
            .map_err(|error| KernelError::new("switching the trace", error))
    }
}

impl Tap for Trace {
    fn set(&mut self, slot: usize, filter: Option<&PacketFilter>) -> Result<(), KernelError> {
        let window = self.clock.per_second();
        let entry = filter.map_or_else(TraceFilter::default, |filter| filter_entry(filter, window));
        self.filters
            .set(slot as u32, entry, 0)
            .map_err(|error| KernelError::new(format!("writing filter {slot} of the trace"), error))
    }

    fn switch(&mut self, on: bool) -> Result<(), KernelError> {
        if on {
            self.lease(LEASE.cast_signed())
        } else {
            self.write_switch(TraceSwitch::default())
        }
    }

    fn drain(&mut self, most: usize, see: &mut dyn FnMut(PacketEvent)) -> usize {
        let (wall, monotonic) = (SystemTime::now(), monotonic());
        for count in 0..most {
            let Some(item) = self.events.next() else {
                return count;
            };
            if let Some(event) = decode(&item, wall, monotonic) {
                see(event);
            }
        }
        most
    }

    fn counts(&self) -> Result<Vec<SlotCounts>, KernelError> {
        (0..TRACE_SLOTS)
            .map(|slot| {
                let values = self.stats.get(&slot, 0).map_err(|error| {
                    KernelError::new(
                        format!("reading the counters of trace filter {slot}"),
                        error,
                    )
                })?;
                Ok(values
                    .iter()
                    .fold(SlotCounts::default(), |sum, cpu| SlotCounts {
                        events: sum.events + cpu.events,
                        lost: sum.lost + cpu.over_rate + cpu.no_room,
                    }))
            })
            .collect()
    }
}

fn filter_entry(filter: &PacketFilter, window: u32) -> TraceFilter {
    let prefix = |net: Option<ipnet::IpNet>| match net {
        Some(net) => (encode::words(net.network()), encode::words(net.netmask())),
        None => ([0; 4], [0; 4]),
    };
    let (saddr, smask) = prefix(filter.src);
    let (daddr, dmask) = prefix(filter.dst);
    let [proto, other_proto] = filter
        .protocol
        .map_or([0; 2], |protocol| protocol.numbers());
    let family = match filter.src.or(filter.dst) {
        None => 0,
        Some(ipnet::IpNet::V4(_)) => FAMILY_V4,
        Some(ipnet::IpNet::V6(_)) => FAMILY_V6,
    };
    TraceFilter {
        verdicts: filter.verdicts.0,
        saddr,
        smask,
        daddr,
        dmask,
        rate: filter.rate,
        window,
        port: filter.port.unwrap_or(0).to_be(),
        snap: filter.snap.min(TRACE_SNAP as u16),
        family,
        proto,
        other_proto,
        reserved: 0,
    }
}

/// The event in an item of the ring buffer; `None` for what no program of ours writes.
fn decode(item: &[u8], wall: SystemTime, monotonic: Duration) -> Option<PacketEvent> {
    let (head, bytes) = item.split_at_checked(size_of::<TraceEvent>())?;
    // SAFETY: as long as the event, which is made of integers only; read unaligned.
    let event = unsafe { head.as_ptr().cast::<TraceEvent>().read_unaligned() };
    let has = |fact| event.facts & fact != 0;
    let v6 = event.family == FAMILY_V6;
    let ends = |saddr, daddr, ports: u32| {
        let [source, destination] = [ports as u16, (ports >> 16) as u16].map(u16::from_be);
        Ends {
            src: SocketAddr::new(encode::ip(saddr, v6), source),
            dst: SocketAddr::new(encode::ip(daddr, v6), destination),
        }
    };
    let ago = monotonic.saturating_sub(Duration::from_nanos(event.time));
    let is_ip = event.family != 0;
    Some(PacketEvent {
        at: wall - ago,
        verdict: *Verdict::ALL.get(event.verdict as usize)?,
        ingress: event.ingress,
        length: event.length,
        ethertype: u16::from_be(event.ethertype),
        protocol: is_ip.then_some(event.proto),
        ends: is_ip.then(|| ends(event.saddr, event.daddr, event.ports)),
        sent: has(trace_facts::FLOW)
            .then(|| ends(event.new_saddr, event.new_daddr, event.new_ports)),
        backend: (event.backend != NO_BACKEND).then_some(event.backend),
        has_ports: has(trace_facts::PORTS),
        fragment: has(trace_facts::FRAGMENT),
        flags: event.flags,
        icmp: event.icmp,
        bytes: bytes.get(..event.captured as usize)?.to_vec(),
    })
}

/// The clock that the programs read.
fn monotonic() -> Duration {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is valid; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec.cast_unsigned(), now.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::trace::{PacketProtocol, VerdictSet};

    #[test]
    fn filters_are_written_as_packets_are_read() {
        let filter = PacketFilter {
            src: Some("10.1.0.0/16".parse().unwrap()),
            dst: None,
            verdicts: VerdictSet::named(["blocked"]).unwrap(),
            protocol: Some(PacketProtocol::Icmp),
            port: Some(80),
            snap: 9000,
            rate: 7,
        };
        let entry = filter_entry(&filter, 250);
        assert_eq!(entry.saddr[0].to_ne_bytes(), [10, 1, 0, 0]);
        assert_eq!(entry.smask[0].to_ne_bytes(), [255, 255, 0, 0]);
        assert_eq!((entry.dmask, entry.family), ([0; 4], FAMILY_V4));
        assert_eq!((entry.proto, entry.other_proto), (1, 58));
        assert_eq!(entry.verdicts, 1 << Verdict::DropBlocked as u32);
        assert_eq!(entry.port.to_ne_bytes(), [0, 80]);
        assert_eq!((entry.snap, entry.rate, entry.window), (256, 7, 250));
        let anything = filter_entry(&PacketFilter::everything(1), 1);
        assert_eq!((anything.family, anything.proto, anything.port), (0, 0, 0));
    }

    /// What is too short, or no verdict, is nobody's event.
    #[test]
    fn nonsense_is_left_out() {
        let wall = SystemTime::now();
        let mut item = vec![0; size_of::<TraceEvent>()];
        assert!(decode(&item, wall, Duration::ZERO).is_some());
        assert!(decode(&item[1..], wall, Duration::ZERO).is_none());
        item[8] = 200;
        assert!(decode(&item, wall, Duration::ZERO).is_none());
        item[8] = 0;
        item[20] = 1;
        assert!(
            decode(&item, wall, Duration::ZERO).is_none(),
            "a byte is missing"
        );
    }
}
