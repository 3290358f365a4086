//! What the agent tells a service manager (sd_notify(3)): this test holds the manager's socket.

use std::{
    thread,
    time::{Duration, Instant},
};

use lb_tests::{agent::Setup, halt::halt, notified::Notified, pace::at_this_pace, process::Signal};

use crate::scene::{PATIENCE, config, entry, hosts};

/// The watchdog's patience, of which the agent tells half.
const PATIENT_FOR: Duration = Duration::from_secs(2);

/// Ready when it answers, reloading and ready again, alive as long as its controller is, stopping.
#[test]
fn the_service_manager_hears_how_the_agent_stands() {
    let (topology, _backends) = hosts(1);
    let manager = Notified::listen(&topology.directory().join("notify")).unwrap();
    let rows = entry(topology.backend_address(1), "v1");
    let started = Instant::now();
    let agent = Setup::new(&topology)
        .config(&config(&format!("backends = [\n{rows}]"), ""))
        .variable("NOTIFY_SOCKET", manager.path().to_str().unwrap())
        .variable("WATCHDOG_USEC", &PATIENT_FOR.as_micros().to_string())
        .start()
        .unwrap();

    let others = ["STATUS=", "WATCHDOG=1"];
    let expect = |start: &str| manager.expect(start, &others, PATIENCE).unwrap();
    let ready = expect("READY=1");
    assert_eq!(ready, "READY=1\nSTATUS=services: 1, backends: 1");
    assert!(
        agent
            .command(&["service", "list"])
            .unwrap()
            .contains("echo")
    );

    agent.process().signal(Signal::Hangup).unwrap();
    let reloading = expect("RELOADING=1");
    let (_, moment) = reloading.split_once("\nMONOTONIC_USEC=").unwrap();
    let moment = Duration::from_micros(moment.parse().unwrap());
    // Both clocks are that of the time since boot, here and there.
    let up = uptime();
    assert!(
        moment <= up && up - moment < started.elapsed(),
        "{moment:?} of {up:?}"
    );
    assert_eq!(expect("READY=1"), "READY=1");

    // In half of its patience each time.
    expect("WATCHDOG=1");
    let before = Instant::now();
    expect("WATCHDOG=1");
    assert!(
        before.elapsed() < at_this_pace(PATIENT_FOR),
        "{:?}",
        before.elapsed()
    );

    // Everything but the controller works: the metrics are asked for by another thread, yet nobody
    // vouches for the agent any more.
    let halted = halt(agent.process().pid(), "controller").unwrap();
    thread::sleep(PATIENT_FOR);
    while manager.next(Duration::from_millis(1)).unwrap().is_some() {}
    // What was under way may come late on a busy machine; one that is vouched for tells each second.
    let is_silent = (0..3).any(|_| manager.next(2 * PATIENT_FOR).unwrap().is_none());
    assert!(is_silent, "the controller hangs");
    drop(halted);
    expect("WATCHDOG=1");

    agent.stop().unwrap();
    assert_eq!(expect("STOPPING=1"), "STOPPING=1\nSTATUS=stopping");
    assert_eq!(manager.next(Duration::from_millis(100)).unwrap(), None);
}

/// CLOCK_MONOTONIC.
fn uptime() -> Duration {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: it is writable, and the clock is there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}
