//! One frame through the program, and what must become of it.

use lb_common::verdict::Verdict;
use lb_tests::{
    packet::{Packet, dissect},
    world::{Hook, Outcome, World, action},
};

/// The interface a frame comes in on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    /// The clients'.
    Front,
    /// The backends'.
    Back,
}

/// Description, state, packet in, verdict, packet out.
pub(crate) struct Row<'a> {
    what: String,
    /// Brought about before the frame comes in.
    state: Box<dyn FnOnce(&mut World) + 'a>,
    from: Side,
    frame: Vec<u8>,
    verdict: Verdict,
    /// XDP action and packet out; `None`: the frame as it was.
    out: Option<(u32, Packet)>,
    /// The same for what [`Packet`] cannot say.
    frame_out: Option<(u32, Vec<u8>)>,
}

impl<'a> Row<'a> {
    /// A frame that is passed or dropped, and must not be changed.
    pub(crate) fn refused(
        what: impl Into<String>,
        from: Side,
        frame: Vec<u8>,
        verdict: Verdict,
    ) -> Self {
        Self {
            what: what.into(),
            state: Box::new(|_| {}),
            from,
            frame,
            verdict,
            out: None,
            frame_out: None,
        }
    }

    /// A frame that leaves as another one.
    pub(crate) fn changed(
        what: impl Into<String>,
        from: Side,
        frame: Vec<u8>,
        verdict: Verdict,
        out: (u32, Vec<u8>),
    ) -> Self {
        Self {
            frame_out: Some(out),
            ..Self::refused(what, from, frame, verdict)
        }
    }

    /// A packet that leaves as `out`, byte for byte.
    pub(crate) fn forwarded(
        what: impl Into<String>,
        from: Side,
        packet: &Packet,
        verdict: Verdict,
        (action, out): (u32, Packet),
    ) -> Self {
        Self {
            out: Some((action, out)),
            ..Self::refused(what, from, packet.build(), verdict)
        }
    }

    /// The same row in a state that `state` brings about.
    pub(crate) fn after(self, state: impl FnOnce(&mut World) + 'a) -> Self {
        Self {
            state: Box::new(state),
            ..self
        }
    }

    /// Runs the frame.
    ///
    /// # Panics
    ///
    /// What became of it is not what the row says.
    pub(crate) fn check(self, world: &mut World) {
        let Self {
            what,
            state,
            from,
            frame,
            verdict,
            out,
            frame_out,
        } = self;
        state(world);
        let outcome = run(world, from, &frame).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(outcome.verdict, verdict, "{what}: {frame:02x?}");
        if let Some((action, out)) = frame_out {
            assert_eq!(outcome.action, action, "{what}");
            assert_eq!(
                outcome.frame, out,
                "{what}: {:02x?}, not {out:02x?}",
                outcome.frame
            );
        }
        let Some((action, out)) = out else { return };
        // In tc there is one way out, whichever interface it is.
        let action = match (world.hook, action) {
            (Hook::Tc, action::TX) => action::REDIRECT,
            _ => action,
        };
        assert_eq!(outcome.action, action, "{what}");
        let sent = dissect(&outcome.frame)
            .unwrap_or_else(|error| panic!("{what}: {error}: {:02x?}", outcome.frame));
        assert_eq!(sent, out, "{what}");
        // What `Packet` does not show (TOS, sequence numbers and the like) is there as well.
        assert_eq!(outcome.frame, out.build(), "{what}");
    }
}

/// Runs rows one after the other.
pub(crate) fn check_all<'a>(world: &mut World, rows: impl IntoIterator<Item = Row<'a>>) {
    for row in rows {
        row.check(world);
    }
}

/// Runs a frame that comes in from `side`.
pub(crate) fn run(world: &mut World, side: Side, frame: &[u8]) -> anyhow::Result<Outcome> {
    let ifindex = match side {
        Side::Front => world.front,
        Side::Back => world.back,
    };
    world.run(frame, ifindex)
}

/// Bytes of the shortest IP frame that a test run takes: in tc the kernel wants the whole IP header
/// (net/bpf/test_run.c).
pub(crate) fn shortest(world: &World, v6: bool) -> usize {
    match (world.hook, v6) {
        (Hook::Xdp, _) => 14,
        (Hook::Tc, false) => 14 + 20,
        (Hook::Tc, true) => 14 + 40,
    }
}
