//! Long transfers and short connections while everything around them comes and goes.
//!
//! What is owed, exactly: no transfer breaks, stands still for long or brings a wrong byte. No
//! request fails, but for those that a backend took with it which died without a warning: begun
//! before the agent had found it dead, and ended by the backend's host with a reset. Drains,
//! deregistrations, failing checks, splits, blocks, reloads and the agent's own ends lose nothing.
//!
//! `LB_CHAOS_SEED` repeats a run, `LB_CHAOS_SECONDS` makes it longer or shorter.

use std::{
    io::ErrorKind,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use lb_tests::{
    agent::Setup,
    client::{Client, RequestError, Response},
    consul::Consul,
    load::{Load, Pace, Sample},
    namespace::Namespace,
    pace::at_this_pace,
    process::wait_for,
};

use crate::{
    scene::{PATIENCE, Scene, VIP, VIP6, address, config, counter, hosts},
    turmoil::{Dying, FALL, INTERVAL, Mishap, TIMEOUT, Turmoil, register},
};

/// How long things happen.
const SECONDS: u64 = 20;
/// Bytes a second of each transfer.
const RATE: u32 = 2_000_000;
/// Backends that carry the transfers, and those that come and go.
const CARRIERS: [u8; 2] = [1, 2];
const FLAPPERS: [u8; 3] = [3, 4, 5];
/// Longest that a transfer may stand still: retransmissions after a loss come in doubling
/// intervals, from a fifth of a second on.
const STANDSTILL: Duration = Duration::from_secs(3);

fn setting<T: FromStr>(name: &str, otherwise: T) -> T {
    let text = std::env::var(name).ok();
    text.map_or(otherwise, |text| {
        let number = text.parse();
        number.unwrap_or_else(|_| panic!("{name}: `{text}` is no number"))
    })
}

/// The agent follows Consul, which knows the carriers only.
fn stage() -> (Consul, Scene) {
    let (topology, backends) = hosts(CARRIERS.len() + FLAPPERS.len());
    let consul = Consul::start(topology.node(), topology.directory()).unwrap();
    let (interval, timeout) = (INTERVAL.as_millis(), TIMEOUT.as_millis());
    let config = config(
        &format!(
            "consul = {{ service = \"echo\" }}\n\
             subsets = {{ v1 = {{ tag = \"v1\" }}, v2 = {{ tag = \"v2\" }} }}\n\
             split = {{ v1 = 50, v2 = 50 }}\n\
             health = {{ kind = \"http\", path = \"/health\", interval = \"{interval}ms\", \
             timeout = \"{timeout}ms\", rise = 1, fall = {FALL}, slow_start = \"0s\" }}"
        ),
        "[consul]\naddress = \"http://127.0.0.1:8500\"\n",
    );
    let agent = Setup::new(&topology).config(&config).start().unwrap();
    let scene = Scene {
        agent,
        backends,
        topology,
    };
    for number in CARRIERS {
        register(&consul, &scene, number);
    }
    wait_until_answered_by(&scene, &CARRIERS);
    (consul, scene)
}

fn wait_until_answered_by(scene: &Scene, numbers: &[u8]) {
    for vip in [VIP, VIP6] {
        wait_for(&format!("{numbers:?} behind {vip}"), PATIENCE, || {
            let spread = scene.client().spread(address(vip), 60, 4);
            let all = spread.backends.len() == numbers.len() && spread.failed() == 0;
            Ok(all.then_some(()))
        })
        .unwrap();
    }
}

/// A long transfer under way.
struct Transfer {
    what: String,
    progress: Arc<AtomicU64>,
    bytes: u64,
    thread: JoinHandle<Result<Response, RequestError>>,
}

impl Transfer {
    fn begin(client: &Client, vip: &str, upload: bool, bytes: u64) -> Self {
        let progress = Arc::new(AtomicU64::new(0));
        let (client, to, done) = (client.clone(), address(vip), Arc::clone(&progress));
        let thread = thread::spawn(move || match upload {
            true => client.upload_slowly(to, bytes, RATE, &done),
            false => client.download(to, bytes, Some(RATE), &done),
        });
        let kind = if upload { "upload to" } else { "download from" };
        Self {
            what: format!("{kind} {vip}"),
            progress,
            bytes,
            thread,
        }
    }
}

/// Looks at transfers all the time: the longest that each stood still.
fn watch(transfers: &[Transfer], stop: &Arc<AtomicBool>) -> JoinHandle<Vec<Duration>> {
    let goals: Vec<_> = transfers
        .iter()
        .map(|transfer| (Arc::clone(&transfer.progress), transfer.bytes))
        .collect();
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let mut last: Vec<_> = goals.iter().map(|_| (0, Instant::now())).collect();
        let mut longest = vec![Duration::ZERO; goals.len()];
        while !stop.load(Ordering::Relaxed) {
            for (index, (progress, bytes)) in goals.iter().enumerate() {
                let now = progress.load(Ordering::Relaxed);
                if now != last[index].0 || now == *bytes {
                    last[index] = (now, Instant::now());
                }
                longest[index] = longest[index].max(last[index].1.elapsed());
            }
            thread::sleep(Duration::from_millis(10));
        }
        longest
    })
}

/// Whether a backend that died took this request with it.
fn died_with_its_backend(sample: &Sample, begun: Instant, dyings: &[Dying]) -> bool {
    let reset = match &sample.outcome {
        Ok(_) => return true,
        Err(RequestError::Connect(kind)) => {
            matches!(
                kind,
                ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
            )
        }
        Err(RequestError::Broken(_)) => true,
        Err(_) => false,
    };
    let (from, to) = (begun + sample.began, begun + sample.ended);
    reset
        && dyings
            .iter()
            .any(|dying| from <= dying.to && to >= dying.from)
}

/// Segments that a host has sent again so far.
fn sent_again(host: &Namespace) -> u64 {
    counter(host, "snmp", "Tcp:", "RetransSegs").unwrap()
}

#[test]
fn nothing_is_lost_while_everything_comes_and_goes() {
    let seed = setting("LB_CHAOS_SEED", 0x0063_6861_6f73);
    let seconds = setting("LB_CHAOS_SECONDS", SECONDS);
    let (consul, mut scene) = stage();
    // Whatever the rest takes, a transfer is to be under way.
    let bytes = u64::from(RATE) * (seconds + 10);
    let mut client = scene.client().patience(PATIENCE);
    client.options.read_timeout = Duration::from_secs(2 * seconds + 60);
    let transfers: Vec<Transfer> = [(VIP, false), (VIP, true), (VIP6, false), (VIP6, true)]
        .into_iter()
        .map(|(vip, upload)| Transfer::begin(&client, vip, upload, bytes))
        .collect();
    wait_for("all transfers to have begun", PATIENCE, || {
        let begun = |transfer: &Transfer| transfer.progress.load(Ordering::Relaxed) > 300_000;
        Ok(transfers.iter().all(begun).then_some(()))
    })
    .unwrap();
    for number in FLAPPERS {
        register(&consul, &scene, number);
    }
    let everyone = [&CARRIERS[..], &FLAPPERS[..]].concat();
    wait_until_answered_by(&scene, &everyone);

    let stop = Arc::new(AtomicBool::new(false));
    let watcher = watch(&transfers, &stop);
    let pace = Pace {
        threads: 2,
        rate: Some(150.0),
    };
    let loads: Vec<(Load, Instant)> = [VIP, VIP6]
        .into_iter()
        .map(|vip| {
            (
                Load::start(&scene.client(), address(vip), pace),
                Instant::now(),
            )
        })
        .collect();
    let mut turmoil = Turmoil::new(&mut scene, &consul, &FLAPPERS, seed);
    turmoil.rage(Duration::from_secs(seconds));
    let done = turmoil.done;
    // Those that are out of reach of all this are to end by themselves.
    let unfinished = transfers
        .iter()
        .filter(|transfer| !transfer.thread.is_finished());
    let unfinished = unfinished.count();

    let mut excused = 0;
    let mut answered = 0;
    for (load, begun) in loads {
        let record = load.stop();
        answered += record.all().answered();
        let failures: Vec<&Sample> = record.failures().collect();
        excused += failures.len();
        let owed: Vec<_> = failures
            .into_iter()
            .filter(|sample| !died_with_its_backend(sample, begun, &done.dyings))
            .map(|sample| (sample, begun + sample.began))
            .collect();
        assert!(owed.is_empty(), "LB_CHAOS_SEED={seed}: {owed:?}\n{done:?}");
        let all = record.all();
        for number in &everyone {
            assert!(all.of(&format!("b{number}")) > 0, "{:?}", all.backends);
        }
    }
    for transfer in transfers {
        let outcome = transfer.thread.join().unwrap();
        let response = outcome.unwrap_or_else(|error| {
            let at = transfer.progress.load(Ordering::Relaxed);
            panic!(
                "LB_CHAOS_SEED={seed}: {}: {error} after {at} bytes",
                transfer.what
            )
        });
        let by = response.backend().unwrap();
        assert!(
            ["b1", "b2"].contains(&by),
            "{} came from {by}",
            transfer.what
        );
    }
    stop.store(true, Ordering::Relaxed);
    let stood_still = watcher.join().unwrap();
    eprintln!(
        "seed {seed}: {answered} requests answered, {excused} died with their backend in {} deaths; \
         transfers of {bytes} bytes stood still for {stood_still:?} at most; {:?}; back: {:?}",
        done.dyings.len(),
        done.mishaps,
        done.returns
    );
    let again = [
        &scene.topology.backends()[0],
        &scene.topology.backends()[1],
        scene.topology.client(),
    ];
    eprintln!(
        "carriers and client sent segments again: {:?}",
        again.map(sent_again)
    );
    assert_eq!(unfinished, 4, "transfers ended before the turmoil did");
    let limit = at_this_pace(STANDSTILL);
    assert!(
        stood_still.iter().all(|time| *time < limit),
        "{stood_still:?}"
    );
    for mishap in Mishap::ALL {
        assert!(
            done.mishaps.contains_key(mishap),
            "{mishap:?} never happened"
        );
    }
    let deaths = done.mishaps[&Mishap::Kill] + done.mishaps[&Mishap::KillBoth];
    assert_eq!(done.dyings.len(), deaths as usize);
    let taken_out = [
        Mishap::Drain,
        Mishap::Deregister,
        Mishap::Sicken,
        Mishap::Kill,
        Mishap::KillBoth,
    ];
    let outs: u32 = taken_out.iter().map(|mishap| done.mishaps[mishap]).sum();
    assert_eq!(done.returns.values().sum::<u32>(), outs, "{done:?}");
    assert!(answered > 1000, "only {answered} requests were answered");
    wait_until_answered_by(&scene, &everyone);
    scene.wait_until_healthy();
}

#[test]
fn only_a_death_excuses_and_only_its_own() {
    let begun = Instant::now();
    let at = |ms: u64| begun + Duration::from_millis(ms);
    let dyings = [Dying {
        from: at(1000),
        to: at(1500),
    }];
    let refused = RequestError::Connect(ErrorKind::ConnectionRefused);
    let late = RequestError::ConnectTimeout(Duration::from_secs(2));
    let rows = [
        (1200, 1201, Err(refused.clone()), true),
        (990, 1001, Err(RequestError::Broken("reset".into())), true),
        (1499, 1600, Err(refused.clone()), true),
        (900, 999, Err(refused.clone()), false),
        (1501, 1502, Err(refused), false),
        (1200, 1201, Err(late), false),
        (1200, 1201, Err(RequestError::Corrupt(3)), false),
        (1501, 1502, Ok("b1".to_owned()), true),
    ];
    for (from, to, outcome, excused) in rows {
        let sample = Sample {
            began: Duration::from_millis(from),
            ended: Duration::from_millis(to),
            outcome,
        };
        assert_eq!(
            died_with_its_backend(&sample, begun, &dyings),
            excused,
            "{sample:?}"
        );
    }
}
