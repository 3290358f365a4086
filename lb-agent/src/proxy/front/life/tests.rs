//! What renews which time.

use super::{
    super::{admission::Admitted, ending::Ending},
    *,
};

const PACE: Pace = Pace {
    head: 1000,
    keep_alive: 7000,
    linger: 100,
    linger_new: 60,
    grain: 10,
};

fn life(time: &Time) -> Arc<Life> {
    let elder = Arc::new(Ending::new()).elder();
    let present = Present::new(Admitted::one(), elder, &Arc::default(), &Arc::default());
    Life::new(time, 5000, present)
}

/// What happens, and after how long without anything else the connection is over.
#[test]
fn everything_has_its_time() {
    type Step = fn(&Life);
    type Row = (&'static str, bool, &'static [Step], Option<(u64, Overdue)>);
    let stage = |after, stage| Some((after, Overdue::Stage(stage)));
    let rows: [Row; 15] = [
        ("fresh", false, &[], stage(1000, Stage::Opening)),
        ("fresh at a stop", true, &[], stage(100, Stage::Opening)),
        (
            "a byte",
            false,
            &[|it| it.read(1)],
            stage(1000, Stage::Head),
        ),
        (
            "a byte at a stop",
            true,
            &[|it| it.read(1)],
            stage(1000, Stage::Head),
        ),
        ("a request", false, &[|it| it.asked(9)], None),
        (
            "answered",
            false,
            &[|it| it.asked(9), |it| it.answered(true)],
            stage(7000, Stage::Idle),
        ),
        (
            "answered at a stop",
            true,
            &[|it| it.asked(9), |it| it.answered(true)],
            stage(100, Stage::Idle),
        ),
        (
            "answered early",
            false,
            &[|it| it.asked(9), |it| it.answered(false), |it| it.read(1)],
            stage(7000, Stage::Rest),
        ),
        (
            "the next head",
            false,
            &[|it| it.asked(9), |it| it.answered(true), |it| it.read(1)],
            stage(1000, Stage::Head),
        ),
        (
            "one of two",
            false,
            &[|it| it.asked(9), |it| it.asked(9), |it| it.answered(true)],
            None,
        ),
        (
            "blocked",
            false,
            &[|it| it.asked(9), |it| it.blocked()],
            Some((5000, Overdue::Blocked)),
        ),
        (
            "blocked behind the answer",
            false,
            &[|it| it.asked(9), |it| it.blocked(), |it| it.answered(true)],
            Some((5000, Overdue::Blocked)),
        ),
        (
            "a patient route",
            false,
            &[
                |it| it.asked(9),
                |it| it.answering(Some(Duration::from_secs(6))),
                |it| it.blocked(),
            ],
            Some((6000, Overdue::Blocked)),
        ),
        (
            "half a greeting",
            false,
            &[|it| it.multiplex(), |it| it.read(24)],
            stage(1000, Stage::Head),
        ),
        (
            "a greeting, and pings",
            false,
            &[|it| it.multiplex(), |it| it.read(33), |it| it.read(17)],
            stage(7000, Stage::Idle),
        ),
    ];
    for (name, stopping, steps, expected) in rows {
        let time = Time::new(AtomicU64::new(50));
        let life = life(&time);
        for step in steps {
            step(&life);
        }
        let Some((after, why)) = expected else {
            time.fetch_add(1_000_000, Relaxed);
            assert_eq!(life.overdue(&PACE, stopping.then_some(0)), None, "{name}");
            continue;
        };
        time.fetch_add(after + PACE.grain - 1, Relaxed);
        assert_eq!(life.overdue(&PACE, stopping.then_some(0)), None, "{name}");
        time.fetch_add(1, Relaxed);
        assert_eq!(
            life.overdue(&PACE, stopping.then_some(0)),
            Some(why),
            "{name}"
        );
    }
}

/// A stop is noticed while somebody is idle: who was so before has its time from then on.
#[test]
fn a_stop_leaves_time_for_what_is_on_its_way() {
    let time = Time::new(AtomicU64::new(50));
    let elder = life(&time);
    elder.asked(9);
    elder.answered(true);
    time.store(5000, Relaxed);
    for (now, over) in [(5000, false), (5109, false), (5110, true)] {
        time.store(now, Relaxed);
        let overdue = elder.overdue(&PACE, Some(5000));
        assert_eq!(overdue.is_some(), over, "{now}");
    }
    let present = Present::new(Admitted::one(), None, &Arc::default(), &Arc::default());
    let late = Life::new(&time, 5000, present);
    for (now, over) in [(5110, false), (5179, false), (5180, true)] {
        time.store(now, Relaxed);
        let overdue = late.overdue(&PACE, Some(5000));
        assert_eq!(overdue.is_some(), over, "{now}");
    }
}

/// The time of a head is not renewed by its bytes, that of a slow reader by every one.
#[test]
fn what_renews_a_time_and_what_does_not() {
    let time = Time::new(AtomicU64::new(50));
    let slow = life(&time);
    for _ in 0..4 {
        time.fetch_add(300, Relaxed);
        slow.read(1);
    }
    assert_eq!(slow.overdue(&PACE, None), Some(Overdue::Stage(Stage::Head)));
    let reader = life(&time);
    reader.asked(9);
    for _ in 0..4 {
        reader.blocked();
        time.fetch_add(4000, Relaxed);
        assert_eq!(reader.overdue(&PACE, None), None);
        reader.wrote();
    }
}

/// Between requests only they count, not what else passes.
#[test]
fn pings_renew_nothing() {
    for multiplexed in [true, false] {
        let time = Time::new(AtomicU64::new(50));
        let life = life(&time);
        if multiplexed {
            life.multiplex();
            life.read(33);
        }
        life.asked(9);
        life.answered(true);
        time.fetch_add(5000, Relaxed);
        if multiplexed {
            life.read(17);
        }
        life.wrote();
        life.flushed();
        time.fetch_add(5000, Relaxed);
        let over = life.overdue(&PACE, None).is_some();
        assert_eq!(
            over, multiplexed,
            "an answer that took its time ends a pause later"
        );
    }
}

/// A first request is followed by rest at once, requests in a row are not.
#[test]
fn it_rests_when_it_is_calm() {
    let time = Time::new(AtomicU64::new(50));
    let life = life(&time);
    let request = || {
        life.begin_poll();
        life.asked(20);
        assert!(!life.can_rest(20));
        life.wrote();
        life.answered(true);
        life.flushed();
        assert!(!life.can_rest(20), "nothing is waited for");
        life.starved();
    };
    request();
    assert!(life.can_rest(20));
    request();
    assert!(!life.can_rest(20));
    time.fetch_add(20, Relaxed);
    assert!(life.can_rest(20));
    time.fetch_add(1, Relaxed);
    request();
    assert!(life.can_rest(20), "the one before was long ago");
}

/// What was not taken yet is not left behind with the buffers.
#[test]
fn only_what_has_sent_everything_rests() {
    type Step = fn(&Life);
    let rows: [(&str, &[Step], bool); 4] = [
        ("all sent", &[|it| it.wrote(), |it| it.flushed()], true),
        ("a part", &[|it| it.wrote()], false),
        ("nothing", &[|it| it.blocked()], false),
        (
            "all at last",
            &[|it| it.blocked(), |it| it.wrote(), |it| it.flushed()],
            true,
        ),
    ];
    for (name, steps, expected) in rows {
        let time = Time::new(AtomicU64::new(50));
        let life = life(&time);
        life.asked(9);
        life.answered(true);
        for step in steps {
            step(&life);
        }
        life.starved();
        assert_eq!(life.can_rest(9), expected, "{name}");
    }
}
