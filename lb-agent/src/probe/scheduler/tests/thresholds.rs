//! Thresholds are each service's own.

use super::*;

/// The runtime's timer has a resolution of a millisecond, and adds one for each probe.
const TIMER: f64 = 0.01;

/// Two services list one backend, which fails from the 20th second to the 40th: each finds out
/// after as many probes as it asks for, in both directions.
#[tokio::test(start_paused = true)]
async fn of_each_service() {
    let of = |service: &str, rise, fall| Target {
        service: service.into(),
        spec: ProbeSpec {
            rise,
            fall,
            ..target(0, SECOND).spec
        },
        ..target(0, SECOND)
    };
    let start = Instant::now();
    let mut rig = Rig::start(
        vec![of("strict", 3, 1), of("patient", 1, 5)],
        move |_, _| async move {
            match start.elapsed().as_secs() {
                20..40 => Err(ProbeFailure::Refused),
                _ => Ok(()),
            }
        },
    );
    // From the last moment before the first probe to the last one that counts, with a tenth of
    // jitter.
    let mut awaited = vec![
        ("strict", "healthy", 0.0..=1.0 + TIMER),
        ("patient", "healthy", 0.0..=1.0 + TIMER),
        ("strict", "unhealthy", 20.0..=21.1 + TIMER),
        ("patient", "unhealthy", 23.6..=25.5 + TIMER),
        ("patient", "healthy again", 40.0..=41.1 + TIMER),
        ("strict", "healthy again", 41.8..=43.3 + TIMER),
    ];
    while !awaited.is_empty() {
        let event = rig.events.recv().await.unwrap();
        let now = start.elapsed().as_secs_f64();
        let to = match (event.previous.name(), event.observed.name()) {
            ("unhealthy", "healthy") => "healthy again",
            (_, to) => to,
        };
        let awaits =
            |(service, what, _): &(&str, &str, _)| *service == event.service && *what == to;
        let at = awaited.iter().position(awaits);
        let at = at.unwrap_or_else(|| panic!("not awaited: {event:?}"));
        let (_, _, when) = awaited.swap_remove(at);
        assert!(when.contains(&now), "{now}: {event:?}");
    }
    sleep(10 * SECOND).await;
    assert!(rig.events.try_recv().is_err());
    rig.stop().await;
}
