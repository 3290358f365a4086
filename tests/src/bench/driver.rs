//! The driver program and the programs that it compares with, loaded.

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, ProgramArray},
    programs::{ProgramFd, TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode},
};

use super::Traffic;

/// Programs of lb-ebpf/src/bench that do next to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bare {
    /// Transmits.
    Transmit,
    /// Parses and transmits.
    ParseTransmit,
    /// Parses and passes.
    ParsePass,
    /// Parses and drops.
    ParseDrop,
    /// Looks a key up in the kernel's hash map, always the same, and transmits.
    HotHash,
    /// Calls a function of its own eight times, and transmits.
    Calls,
    /// Reads one line of an array as large as the flow table, and transmits.
    Line,
    /// The same, and adds to a word of it.
    LineCounted,
    /// The same as the first, and none before the one before is there.
    LineFollowed,
    /// Drops.
    Drop,
    /// Sends out of the interface that [`Driver::flood`] is told.
    Flood,
    /// Makes the same packets and throws them away at once.
    FloodNowhere,
}

impl Bare {
    const ALL: [Bare; 12] = [
        Bare::Transmit,
        Bare::ParseTransmit,
        Bare::ParsePass,
        Bare::ParseDrop,
        Bare::HotHash,
        Bare::Calls,
        Bare::Line,
        Bare::LineCounted,
        Bare::LineFollowed,
        Bare::Drop,
        Bare::Flood,
        Bare::FloodNowhere,
    ];

    fn program(self) -> &'static str {
        match self {
            Bare::Transmit => "lb_transmit",
            Bare::ParseTransmit => "lb_parse_transmit",
            Bare::ParsePass => "lb_parse_pass",
            Bare::ParseDrop => "lb_parse_drop",
            Bare::HotHash => "lb_hash",
            Bare::Calls => "lb_calls",
            Bare::Line => "lb_line",
            Bare::LineCounted => "lb_line_counted",
            Bare::LineFollowed => "lb_line_followed",
            Bare::Drop => "lb_drop",
            Bare::Flood => "lb_flood",
            Bare::FloodNowhere => "lb_flood_nowhere",
        }
    }

    /// The name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Bare::Transmit => "bare transmit",
            Bare::ParseTransmit => "bare parse + transmit",
            Bare::ParsePass => "bare parse + pass",
            Bare::ParseDrop => "bare parse + drop",
            Bare::HotHash => "hot hash lookup",
            Bare::Calls => "eight calls",
            Bare::Line => "one line of the table",
            Bare::LineCounted => "one line added to",
            Bare::LineFollowed => "one line after another",
            Bare::Drop => "bare XDP_DROP",
            Bare::Flood => "the flood",
            Bare::FloodNowhere => "the flood's making",
        }
    }
}

/// Frames in a batch of the flood: as many as a driver's poll takes (`NAPI_POLL_WEIGHT`).
const BATCH: u32 = 64;

/// The loaded driver.
#[derive(Debug)]
pub struct Driver {
    ebpf: Ebpf,
}

impl Driver {
    /// Loads the object; `slots`, a power of two, is the size of the flow table under test.
    ///
    /// # Errors
    ///
    /// The kernel refuses a program.
    pub fn load(object: &[u8], slots: u32) -> Result<Self> {
        let mask = slots - 1;
        let mut ebpf = EbpfLoader::new()
            .override_global("LINE_MASK", &mask, true)
            .map_max_entries("LINES", slots)
            .load(object)
            .context("loading the driver")?;
        for program in Bare::ALL.map(Bare::program).into_iter().chain(["lb_bench"]) {
            xdp(&mut ebpf, program)?
                .load()
                .with_context(|| format!("verifying the driver's {program}"))?;
        }
        let map = ebpf.map_mut("HASH").context("the driver has no HASH")?;
        HashMap::<_, [u32; 4], u64>::try_from(map)?.insert([1, 0, 0, 0], 1, 0)?;
        Ok(Self { ebpf })
    }

    /// Descriptor of one of its own programs.
    ///
    /// # Errors
    ///
    /// It is not loaded.
    pub fn bare(&mut self, bare: Bare) -> Result<ProgramFd> {
        Ok(xdp(&mut self.ebpf, bare.program())?.fd()?.try_clone()?)
    }

    /// Sends `packets` packets through a program; answers with the mean nanoseconds of one,
    /// driver included. `ifindex` is where they come in.
    ///
    /// # Errors
    ///
    /// The kernel refuses the run, or the program gives up on the last packet.
    pub fn run(
        &mut self,
        program: &ProgramFd,
        traffic: &Traffic,
        ifindex: u32,
        packets: u32,
    ) -> Result<f64> {
        self.point(program, traffic)?;
        let frame = traffic.frame();
        // `struct xdp_md` of include/uapi/linux/bpf.h: data, data_end, data_meta,
        // ingress_ifindex, rx_queue_index, egress_ifindex.
        let context: Vec<u8> = [0, frame.len() as u32, 0, ifindex, 0, 0]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        let run = xdp(&mut self.ebpf, "lb_bench")?.test_run(TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            repeat: packets,
            ..TestRunOptions::new()
        })?;
        // `XDP_ABORTED`: of the driver, or of a program that met what it should not.
        if run.return_value == 0 {
            bail!("the program was not called, or gave up");
        }
        Ok(run.duration.as_nanos() as f64)
    }

    /// Makes the next packet the first one of its traffic; otherwise each run goes on where the one
    /// before ended, whatever it sent.
    ///
    /// # Errors
    ///
    /// The kernel refuses the write.
    pub fn rewind(&mut self) -> Result<()> {
        let map = self.ebpf.map_mut("COUNT").context("no map COUNT")?;
        Array::try_from(map)?.set(0, 0_u64, 0)?;
        Ok(())
    }

    /// Sends `packets` packets out of an interface of the caller's namespace, as frames that a
    /// driver has received; `None`: makes them and throws them away. Answers with the mean
    /// nanoseconds of one. What the receiver does with them at once, in the softirq that sending
    /// raises on the same CPU, is within.
    ///
    /// # Errors
    ///
    /// The kernel refuses the run.
    pub fn flood(&mut self, traffic: &Traffic, out: Option<u32>, packets: u32) -> Result<f64> {
        let program = self.bare(match out {
            Some(_) => Bare::Flood,
            None => Bare::FloodNowhere,
        })?;
        self.point(&program, traffic)?;
        let map = self.ebpf.map_mut("OUT").context("no map OUT")?;
        Array::try_from(map)?.set(0, out.unwrap_or(0), 0)?;
        let run = xdp(&mut self.ebpf, "lb_bench")?.test_run(TestRunOptions {
            data_in: Some(&traffic.frame()),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        })?;
        Ok(run.duration.as_nanos() as f64)
    }

    /// Attaches one of its own programs to an interface of the caller's namespace, in the
    /// interface's driver; it stays as long as `self`.
    ///
    /// # Errors
    ///
    /// The kernel refuses it.
    pub fn attach(&mut self, bare: Bare, interface: &str) -> Result<()> {
        xdp(&mut self.ebpf, bare.program())?
            .attach(interface, XdpMode::Driver)
            .with_context(|| format!("attaching {} to {interface}", bare.program()))?;
        Ok(())
    }

    /// Tells the driver what to write and whom to call.
    fn point(&mut self, program: &ProgramFd, traffic: &Traffic) -> Result<()> {
        let map = self.ebpf.map_mut("TEMPLATE").context("no map TEMPLATE")?;
        Array::try_from(map)?.set(0, traffic.template, 0)?;
        let map = self.ebpf.map_mut("PROGRAM").context("no map PROGRAM")?;
        ProgramArray::try_from(map)?.set(0, program, 0)?;
        Ok(())
    }
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("the driver has no {name}"))?;
    Ok(program.try_into()?)
}
