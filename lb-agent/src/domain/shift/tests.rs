//! Shifts second by second: steps, windows, the way back, the latch, restarts.

use super::*;
use crate::domain::gate::{GateSpec, Sight, Verdict};

const SPEC: GateSpec = GateSpec {
    window: Duration::from_secs(2),
    fail: 2,
    healthy: 50,
    errors: 5,
    latency: None,
    connections: 10,
    cooldown: Duration::from_secs(10),
};

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + second)
}

fn shares(text: &str) -> Shares {
    Shares::parse(&text.split(' ').collect::<Vec<_>>()).unwrap()
}

fn order(to: u32, step: u32, every: u64) -> ShiftOrder {
    ShiftOrder {
        subset: "v2".into(),
        to,
        step,
        every: Duration::from_secs(every),
    }
}

fn begun(to: u32, step: u32, every: u64) -> Steering {
    let shift = Shift::begin(&order(to, step, every), &shares("v1=100 v2=0"), at(0)).unwrap();
    Steering::new(shift)
}

/// Connections are counted every second.
fn sight(second: u64, healthy: f64) -> Sight {
    Sight {
        healthy,
        counted: second,
        ..Sight::default()
    }
}

/// The percentage of v2 after each second of `health`: `+` healthy, `.` in between, `-` not.
fn course(steering: &mut Steering, from: u64, health: &str) -> Vec<u32> {
    let seconds = (from..).zip(health.chars());
    seconds
        .map(|(second, mark)| {
            let healthy = match mark {
                '+' => 1.0,
                '.' => 0.55,
                _ => 0.0,
            };
            steering.look(&SPEC, at(second), &sight(second, healthy));
            steering.shift().shares.percent("v2") as u32
        })
        .collect()
}

#[test]
fn steps_are_taken_while_all_is_well() {
    // The first at once, each later one after its time.
    let mut steering = begun(50, 20, 5);
    let percents = course(&mut steering, 0, "++++++++++++");
    assert_eq!(percents, [20, 20, 20, 20, 20, 40, 40, 40, 40, 40, 50, 50]);
    assert_eq!(steering.shift().phase, Phase::Arrived);
    assert_eq!(steering.shift().base, shares("v1=100 v2=0"));
    assert_eq!(steering.state().last.unwrap().verdict, Verdict::Good);
}

/// Steps faster than windows wait for a window that has seen the share.
#[test]
fn no_step_without_a_good_window() {
    let mut steering = begun(100, 30, 1);
    let percents = course(&mut steering, 0, "+++++++++++");
    // A window is opened in the second after the step and lasts two.
    assert_eq!(percents, [30, 30, 60, 60, 60, 90, 90, 90, 100, 100, 100]);
    let mut steering = begun(100, 30, 1);
    let percents = course(&mut steering, 0, "............");
    assert_eq!(percents, [30; 12], "undecided is not good");
    assert_eq!(steering.state().failed, 0);
}

#[test]
fn two_failed_windows_give_the_traffic_back_and_latch() {
    let mut steering = begun(50, 50, 5);
    let percents = course(&mut steering, 0, "++++-------------");
    // Healthy until 4, so the window from 4 to 6 is the first that failed.
    let mut expected = vec![50; 8];
    expected.extend([0; 9]);
    assert_eq!(percents, expected);
    let Phase::Returned { at: when, reason } = &steering.shift().phase else {
        panic!("{:?}", steering.shift());
    };
    assert_eq!(*when, at(8));
    assert_eq!(
        reason,
        "2 windows failed, none good in between: 0 % of its weight was healthy, of 50 % at least"
    );
    assert!(steering.shift().is_latched());
    // Nothing but a person moves it.
    assert_eq!(steering.next_deadline(), None);
    assert_eq!(course(&mut steering, 17, "++++++++++"), [0; 10]);
}

/// A good window in between starts the count anew, an undecided one does not.
#[test]
fn failures_are_counted_with_hysteresis() {
    // Each character one window.
    let rows = [
        ("-+-+-+-", false),
        ("--", true),
        ("-.-", true),
        ("-...-", true),
        ("-.+-", false),
        ("+.-+--", true),
    ];
    for (windows, returned) in rows {
        let mut steering = begun(50, 50, 5);
        let health: String = windows.chars().flat_map(|mark| [mark, mark]).collect();
        // What was seen at the end of a window counts for the next one.
        course(&mut steering, 0, &format!("{health}+"));
        assert_eq!(steering.shift().is_latched(), returned, "{windows}");
    }
}

#[test]
fn a_failed_window_holds_the_next_step_back() {
    let mut steering = begun(50, 20, 3);
    // Fails from 0 to 2; good ever after, but no step until 12.
    let percents = course(&mut steering, 0, "--++++++++++++++++");
    assert_eq!(percents[..12], [20; 12]);
    assert_eq!(percents[12..], [40, 40, 40, 50, 50, 50]);
}

/// Every look tells at most one thing; the deadline is when the next one is due.
#[test]
fn turns_and_deadlines() {
    let mut steering = begun(50, 20, 5);
    let mut look = |second, healthy| {
        let turn = steering.look(&SPEC, at(second), &sight(second, healthy));
        (turn, steering.next_deadline())
    };
    assert_eq!(look(0, 1.0), (None, Some(at(2))));
    assert_eq!(look(2, 1.0), (None, Some(at(4))));
    assert_eq!(look(4, 1.0), (None, Some(at(5))));
    // A step closes the window; whoever reconciles after it opens the next.
    assert_eq!(look(5, 1.0), (Some(Turn::Stepped), None));
    assert_eq!(look(5, 0.0), (None, Some(at(7))));
    let reason = "0 % of its weight was healthy, of 50 % at least".to_owned();
    let failed = Some(Turn::WindowFailed(1, reason));
    assert_eq!(look(7, 0.0), (failed, Some(at(9))));
    let (turn, deadline) = look(9, 0.0);
    assert!(matches!(turn, Some(Turn::Returned(_))), "{turn:?}");
    assert_eq!(deadline, None);
}

/// While nothing can be seen nothing is due; a window cut short says nothing.
#[test]
fn a_pause_makes_the_window_void() {
    let mut steering = begun(50, 20, 5);
    assert_eq!(course(&mut steering, 0, "----")[3], 20);
    assert_eq!(steering.state().failed, 1);
    steering.pause();
    assert_eq!(steering.next_deadline(), None);
    assert_eq!(course(&mut steering, 100, "+++++")[4], 40);
    assert_eq!(steering.state().failed, 0);
}

#[test]
fn what_cannot_be_shifted() {
    let rows = [
        (
            order(0, 10, 5),
            "v1=1 v2=0",
            "the share to reach is 0 percent",
        ),
        (order(101, 10, 5), "v1=1 v2=0", "from 1 to 100"),
        (order(50, 0, 5), "v1=1 v2=0", "a step is 0 percent"),
        (
            order(50, 10, 0),
            "v1=1 v2=0",
            "the time between two steps is 0s",
        ),
        (order(50, 10, 604_801), "v1=1 v2=0", "from 1s to 7d"),
        (order(50, 10, 5), "v1=1 v2=1", "v2 has 50.0 % already"),
        (order(50, 10, 5), "v1=1 v2=9", "`split set` goes anywhere"),
        (order(50, 10, 5), "v1=0 v2=1", "v2 has 100.0 % already"),
    ];
    for (order, base, words) in rows {
        let error = Shift::begin(&order, &shares(base), at(0)).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn promote_and_a_new_goal() {
    let mut steering = begun(50, 50, 5);
    course(&mut steering, 0, "++--");
    let further = |shift: &mut Shift| shift.head_for(&order(80, 20, 5), at(4));
    steering.try_change(further).unwrap();
    assert_eq!(steering.state().failed, 0, "the count is anew");
    assert_eq!(course(&mut steering, 4, "++++++"), [70, 70, 70, 70, 70, 80]);
    let back = |shift: &mut Shift| shift.head_for(&order(60, 20, 5), at(10));
    assert!(steering.try_change(back).is_err());

    steering.change(|shift| shift.promote(at(10)));
    assert_eq!(steering.shift().shares, shares("v1=0 v2=100"));
    // Watched no longer.
    assert_eq!(course(&mut steering, 11, "---------"), [100; 9]);
    assert_eq!(steering.shift().base, shares("v1=100 v2=0"));
}

/// From disk a shift comes back as it was; the next step takes a whole interval, and a window.
#[test]
fn a_shift_outlives_the_agent() {
    let mut steering = begun(50, 20, 5);
    course(&mut steering, 0, "+++++");
    let text = serde_json::to_string(steering.shift()).unwrap();
    let saved: Shift = serde_json::from_str(&text).unwrap();
    assert_eq!(&saved, steering.shift());
    let mut steering = Steering::resumed(saved, at(100));
    assert_eq!(
        course(&mut steering, 100, "+++++++"),
        [20, 20, 20, 20, 20, 40, 40]
    );

    course(&mut steering, 107, "-------");
    assert!(steering.shift().is_latched());
    let text = serde_json::to_string(steering.shift()).unwrap();
    let steering = Steering::resumed(serde_json::from_str(&text).unwrap(), at(200));
    assert!(steering.shift().is_latched(), "the latch outlives it too");
}
