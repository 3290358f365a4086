//! What is counted, and for how long it is kept.

use std::time::Duration;

use super::*;
use crate::domain::http::exchange::Outcome;

#[test]
fn codes() {
    let codes = Codes::default();
    let rows = [
        (200, Outcome::Answered, 3),
        (200, Outcome::ClientGone, 1),
        (0, Outcome::ClientGone, 2),
        (503, Outcome::NoBackend, 1),
    ];
    for (status, outcome, count) in rows {
        (0..count).for_each(|_| codes.add(status, outcome));
    }
    let rows = rows.map(|(status, outcome, count)| (status, Some(outcome), count));
    assert_eq!(codes.all(), rows);
    // Whatever a backend thinks of, memory is bounded and no request is uncounted.
    (100..1000).for_each(|status| codes.add(status, Outcome::Answered));
    let all = codes.all();
    assert_eq!(all.len(), 24);
    assert_eq!(all.iter().map(|(.., count)| count).sum::<u64>(), 7 + 900);
    assert_eq!((all[0].2, all[23].0, all[23].1), (4, 0, None));
    for outcome in Outcome::ALL {
        let codes = Codes::default();
        codes.add(599, outcome);
        assert_eq!(codes.all(), [(599, Some(outcome), 1)]);
    }
}

#[test]
fn codes_of_grpc() {
    let codes = GrpcCodes::default();
    for status in [Some(0), Some(16), Some(0), Some(17), Some(u32::MAX), None] {
        codes.add(status);
    }
    let all: Vec<_> = codes.all().collect();
    assert_eq!(all, [(Some(0), 2), (Some(16), 1), (None, 3)]);
}

#[test]
fn codes_of_many_threads() {
    let codes = Codes::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..4000).for_each(|n| codes.add(200 + n % 20, Outcome::Answered)));
        }
    });
    let all = codes.all();
    assert_eq!(all.len(), 20);
    assert!(all.iter().all(|(.., count)| *count == 800), "{all:?}");
}

#[test]
fn histogram() {
    let histogram = Histogram::new(&[10, 20]);
    for nanoseconds in [0, 10_000, 10_001, 20_000, 20_001, 5_000_000] {
        histogram.add(Duration::from_nanos(nanoseconds));
    }
    let (buckets, count, sum) = histogram.read();
    assert_eq!(buckets, [(0.00001, 2), (0.00002, 4)]);
    assert_eq!((count, sum), (6, 0.00506));
}

#[test]
fn routes_are_bounded() {
    let service = OfService::default();
    for number in 0..300 {
        service.route(&number.to_string().into());
    }
    let names: Vec<_> = service.routes.all();
    assert_eq!(names.len(), 257);
    assert!(names.iter().any(|(name, _)| &**name == OTHER));
    // Those that are known stay known.
    let first = service.route(&"0".into());
    assert!(Arc::ptr_eq(&first, &service.route(&"0".into())));
    let further = service.route(&"299".into());
    assert!(Arc::ptr_eq(&further, &service.route(&OTHER.into())));
}

/// A listener stays while it is open or has connections.
#[test]
fn listeners_that_are_gone_are_forgotten() {
    let counts = Counts::default();
    let [one, other] = ["127.0.0.1:1", "127.0.0.1:2"].map(|text| text.parse().unwrap());
    let open = counts.listener(one);
    drop(counts.listener(other));
    let left = || -> Vec<SocketAddr> {
        let all = counts.listeners.all().into_iter();
        all.map(|(address, _)| address).collect()
    };
    assert_eq!(left(), [one, other]);
    counts.keep_open();
    assert_eq!(left(), [one]);
    drop(open);
    counts.keep_open();
    assert!(left().is_empty());
}

/// Whatever threads have counted, in whichever order pairs came to them.
#[test]
fn shares_add_up() {
    let route = OfRoute::default();
    let address = "127.0.0.1:1".parse().unwrap();
    let finished = |status, millis| Finished {
        status,
        outcome: Outcome::Answered,
        grpc: Some(Some(7)),
        received: 1,
        sent: 10,
        total: Duration::from_millis(millis),
        first_byte: Some(Duration::from_millis(millis)),
        overhead: None,
    };
    for (thread, statuses) in [(0, [200, 404]), (1, [404, 200]), (7, [200, 200])] {
        let share = route.share(thread);
        share.active.fetch_add(thread as i64 - 1, Relaxed);
        for status in statuses {
            let backend = share.backend("v1".into(), Some(address));
            share.finish(&backend, &finished(status, 3));
        }
        assert!(Arc::ptr_eq(&share, &route.share(thread)));
    }
    // More pairs than there are slots: those without one stay without.
    let share = route.share(2);
    let other = share.backend("".into(), None);
    (100..200).for_each(|status| share.finish(&other, &finished(status, 1)));
    let sum = route.sum();
    let answered = |status, count| (status, Some(Outcome::Answered), count);
    let codes = |key: &(Arc<str>, Option<SocketAddr>)| {
        let backends = sum.backends.all();
        let (_, backend) = backends.iter().find(|(known, _)| known == key).unwrap();
        backend.codes.all()
    };
    let of_backend = codes(&("v1".into(), Some(address)));
    assert_eq!(of_backend, [answered(200, 4), answered(404, 2)]);
    let of_none = codes(&("".into(), None));
    assert_eq!(of_none, other.codes.all());
    assert_eq!(of_none.last(), Some(&(0, None, 100 - 23)));
    assert_eq!(sum.active.load(Relaxed), 5);
    let bytes = (sum.received.load(Relaxed), sum.sent.load(Relaxed));
    assert_eq!(bytes, (106, 1060));
    assert_eq!(sum.grpc.all().collect::<Vec<_>>(), [(Some(7), 106)]);
    let (buckets, count, seconds) = sum.total.read();
    assert_eq!((buckets[1].1, buckets[3].1, count), (100, 106, 106));
    assert!((seconds - 0.118).abs() < 1e-9, "{seconds}");
    assert_eq!(sum.first_byte.read().1, 106);
    assert_eq!(sum.overhead.read().1, 0);
}
