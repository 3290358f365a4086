//! The programs against the model: frames and doings by chance, and any difference is a failure.
//!
//! A case begins with empty tables and some services, and is a list of events; one that fails is
//! made as short as can be before it is printed. `LB_FUZZ_SEED` repeats a run, `LB_FUZZ_FRAMES`
//! makes it longer or shorter.

pub(crate) mod arena;
mod compare;
mod draw;
mod message;
mod odd;
mod sketch;
mod ways;

use std::{
    str::FromStr,
    time::{Duration, Instant},
};

use lb_agent::datapath::Budget;
use lb_common::verdict::{VERDICT_COUNT, Verdict};
use lb_tests::{
    model::{fault::Fault, link::Link, parse},
    world::World,
};

use self::arena::{Arena, Event, GRACE, Halt, LIFETIMES, hex};
use crate::chance::Random;

/// Frames of a run, over all worlds.
const FRAMES: u64 = 1_000_000;
/// Worlds side by side: more than there are processors, for the agent's doings wait for the kernel.
const WORLDS: u64 = 4;
/// Events of a case.
const EVENTS: usize = 4000;
/// Events between two looks at everything that is remembered.
const LOOK: usize = 500;
/// How long the shortening of a case may take.
const SHORTENING: Duration = Duration::from_secs(20);

/// Verdicts that must come up often, or little has been compared: more seldom than once in
/// [`SELDOM`] frames is not often.
const DRAWN: &[Verdict] = &[
    Verdict::PassNotIp,
    Verdict::PassForeign,
    Verdict::PassMalformed,
    Verdict::PassFragment,
    Verdict::PassUnknownReply,
    Verdict::PassUnresolved,
    Verdict::ForwardRequest,
    Verdict::ForwardReply,
    Verdict::ForwardError,
    Verdict::AnswerEcho,
    Verdict::AnswerTimeExceeded,
    Verdict::AnswerTooBig,
    Verdict::DropTtlExceeded,
    Verdict::DropTooBig,
];
/// See [`DRAWN`].
const SELDOM: u64 = 1000;

pub(crate) fn setting<T: FromStr>(name: &str, otherwise: T) -> T {
    let text = std::env::var(name).ok();
    text.map_or(otherwise, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}: `{text}` is no number"))
    })
}

/// What a run came to.
#[derive(Default)]
struct Report {
    frames: u64,
    /// The same by verdict.
    verdicts: [u64; VERDICT_COUNT as usize],
    cases: u64,
    paused: u64,
    /// A case that showed a difference, shortened, and the difference.
    difference: Option<(Vec<Event>, String)>,
    /// The same case shows none without the wrong rule.
    is_faults: bool,
}

/// Runs cases until `frames` have been compared, or one shows a difference.
fn fuzz(world: &mut World, seed: u64, frames: u64, fault: Option<Fault>) -> Report {
    let mut random = Random::new(seed | 1);
    let mut arena = Arena::new(world, seed, fault);
    let mut report = Report::default();
    while arena.frames < frames {
        report.cases += 1;
        match case(&mut arena, &mut random) {
            Ok(()) => {}
            Err((Halt::Paused, _)) => report.paused += 1,
            Err((Halt::Difference(what), events)) => {
                let (events, what) = shorten(&mut arena, events, what);
                if fault.is_some() {
                    arena.correct();
                    report.is_faults = replay(&mut arena, &events).is_none();
                }
                report.difference = Some((events, what));
                break;
            }
        }
        arena.reset();
    }
    report.frames = arena.frames;
    report.verdicts = arena.verdicts;
    report
}

fn case(arena: &mut Arena<'_>, random: &mut Random) -> Result<(), (Halt, Vec<Event>)> {
    let temper = draw::Temper::draw(random);
    let mut events = vec![draw::services(random, &temper)];
    events.extend(draw::scarcity(random));
    let mut answer = Ok(());
    for event in &events {
        answer = answer.and_then(|()| arena.play(event));
    }
    for number in 0..EVENTS {
        if number % LOOK == LOOK - 1 {
            answer = answer.and_then(|()| arena.compare_tables());
            answer = answer.and_then(|()| arena.compare_counters());
        }
        if let Err(halt) = answer {
            return Err((halt, events));
        }
        let event = draw::event(random, &temper, &arena.model);
        answer = arena.play(&event);
        events.push(event);
    }
    answer.map_err(|halt| (halt, events))
}

/// The difference that these events lead to, if any.
fn replay(arena: &mut Arena<'_>, events: &[Event]) -> Option<String> {
    arena.reset();
    let mut answer = Ok(());
    for event in events {
        answer = answer.and_then(|()| arena.play(event));
    }
    let answer = answer
        .and_then(|()| arena.compare_tables())
        .and_then(|()| arena.compare_counters());
    match answer {
        Err(Halt::Difference(what)) => Some(what),
        _ => None,
    }
}

/// Leaves out what the difference does not need: halves first, then ever smaller parts.
fn shorten(arena: &mut Arena<'_>, mut events: Vec<Event>, what: String) -> (Vec<Event>, String) {
    let mut last = what;
    let mut part = events.len() / 2;
    // A rule that is wrong on purpose need not be explained.
    let time = if arena.model.fault.is_some() {
        SHORTENING / 20
    } else {
        SHORTENING
    };
    let end = Instant::now() + time;
    while part > 0 && Instant::now() < end {
        let mut at = 0;
        while at < events.len() && Instant::now() < end {
            let mut fewer = events.clone();
            fewer.drain(at..(at + part).min(events.len()));
            match replay(arena, &fewer) {
                Some(what) => (events, last) = (fewer, what),
                None => at += part,
            }
        }
        part /= 2;
    }
    (events, last)
}

fn dissect(frame: &[u8]) -> Result<String, Verdict> {
    let link = Link::read(frame)?;
    let ip = parse::network(frame, &link)?.behind_extensions(frame, None)?;
    let rest = parse::transport(frame, &ip);
    Ok(format!("{link:?}\n    {ip:?} {rest:?}"))
}

fn describe(events: &[Event]) -> String {
    let lines = events.iter().map(|event| match event {
        Event::Frame(side, frame) => {
            let packet = dissect(frame).unwrap_or_else(|verdict| format!("{verdict:?}"));
            format!("{side:?} {}\n    {packet}", hex(frame))
        }
        other => format!("{other:?}"),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn in_world(seed: u64, frames: u64, fault: Option<Fault>) -> Report {
    World::with_options(
        |options| {
            options.lifetimes = LIFETIMES;
            options.grace = Duration::from_secs(GRACE);
            options.budget = Budget::Unlimited;
            options.pending = Some(true);
        },
        |world| fuzz(world, seed, frames, fault),
    )
    .expect("a world")
}

fn sum_of(reports: &[Report], of: impl Fn(&Report) -> u64) -> u64 {
    reports.iter().map(of).sum()
}

/// A million frames, and no difference.
#[test]
fn programs_and_model_agree() {
    let seed = setting("LB_FUZZ_SEED", 0x6c62_2d66_757a_7a31);
    let frames = setting("LB_FUZZ_FRAMES", FRAMES) / WORLDS;
    let began = Instant::now();
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let worlds: Vec<_> = (0..WORLDS)
            .map(|number| scope.spawn(move || in_world(seed + 2 * number, frames, None)))
            .collect();
        worlds
            .into_iter()
            .map(|world| world.join().expect("no panic"))
            .collect()
    });
    for report in &reports {
        if let Some((events, what)) = &report.difference {
            panic!("LB_FUZZ_SEED={seed}\n{}\n{what}", describe(events));
        }
    }
    let frames = sum_of(&reports, |report| report.frames);
    let cases = sum_of(&reports, |report| report.cases);
    let paused = sum_of(&reports, |report| report.paused);
    let rate = frames as f64 / began.elapsed().as_secs_f64();
    println!(
        "seed {seed}: {frames} frames, {cases} cases ({paused} ended by pauses), {rate:.0} a second"
    );
    for verdict in DRAWN {
        let count = sum_of(&reports, |report| report.verdicts[*verdict as usize]);
        println!("{verdict:?}: {count}");
        // Of few frames some may have none.
        let enough = frames < 100_000 || count * SELDOM >= frames;
        assert!(enough, "only {count} frames with {verdict:?}");
    }
    assert!(
        paused * 4 <= cases,
        "the machine stood still in {paused} of {cases} cases"
    );
}

/// Every wrong rule of the model shows as a difference: agreement means something.
#[test]
fn every_wrong_rule_is_found() {
    let mut missed = Vec::new();
    for fault in Fault::ALL {
        // Some show only where several things come together; each has a few beginnings.
        let is_found = (0..4).any(|number| {
            let report = in_world(0x7772_6f6e_6721 + 2 * number, 300_000, Some(*fault));
            let found = report.difference.as_ref();
            let what = found.map(|(events, what)| format!("{} events\n{what}", events.len()));
            println!("{fault:?}: {} frames, {what:?}", report.frames);
            // Only what the right rule does not show as well is the wrong rule's doing.
            report.difference.is_some() && report.is_faults
        });
        if !is_found {
            missed.push(*fault);
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
