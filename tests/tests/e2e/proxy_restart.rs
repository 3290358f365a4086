//! The agent restarts while requests come by the proxy: who connects waits, and nobody is refused.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use lb_tests::{
    agent::{Agent, Setup},
    client::Client,
    process::{Signal, wait_for},
    topology::Topology,
};

use crate::{
    scene::{METRICS, PATIENCE, VIP, VIP6, address, hosts},
    visitors::{Outcome, Visitor, Visits, observed, visits},
};

/// A listener of the node that routes by host.
const SHARED: &str = "10.77.0.1:8080";

/// A service by both ways, on so many threads.
fn start(topology: &Topology, threads: usize) -> Agent {
    let rows: String = (1..=2)
        .map(|number| format!("{{ address = \"{}\" }},", topology.backend_address(number)))
        .collect();
    let config = format!(
        "[proxy]\nlisten = [\"{SHARED}\"]\nthreads = {threads}\n\n\
         [[service]]\nname = \"web\"\nvip = [\"{VIP}\", \"{VIP6}\"]\nprotocol = \"http\"\n\
         backends = [{rows}]\n\n[metrics]\nlisten = \"{METRICS}\"\n"
    );
    let agent = Setup::new(topology).config(&config).start().unwrap();
    for to in [VIP, VIP6, SHARED] {
        wait_for(&format!("an answer by {to}"), PATIENCE, || {
            agent.process().ensure_running()?;
            let visits = visits(topology.client(), &[Visitor::once(to)], || {
                thread::sleep(Duration::from_millis(50));
            });
            let is_served = visits.answered() > 0 && visits.failures().is_empty();
            Ok(is_served.then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", agent.process().tail()));
    }
    agent
}

/// Of every kind some.
fn crowd() -> Vec<Visitor> {
    let mut crowd = Vec::new();
    for to in [VIP, VIP6, SHARED] {
        crowd.extend([Visitor::once(to); 2]);
        crowd.extend([2, 5, 300, 2500].map(|rest| Visitor::keeping(to, rest)));
    }
    crowd
}

/// By SIGTERM, with as many threads as before, more, and fewer: nothing fails.
#[test]
fn restarts_under_load_lose_nothing() {
    let (topology, _backends) = hosts(2);
    let mut agent = start(&topology, 1);
    let holders = agent.holders().unwrap();
    assert_eq!(holders.len(), 1, "{holders:?}");
    let begun = Instant::now();
    let mut stopped = Duration::ZERO;
    let visits = visits(topology.client(), &crowd(), || {
        for threads in [1, 3, 2] {
            thread::sleep(Duration::from_millis(500));
            let file = agent.config_file().to_owned();
            let text = std::fs::read_to_string(&file).unwrap();
            let lines = text.lines().map(|line| {
                if line.starts_with("threads = ") {
                    format!("threads = {threads}\n")
                } else {
                    format!("{line}\n")
                }
            });
            std::fs::write(&file, lines.collect::<String>()).unwrap();
            let stop = Instant::now();
            agent.stop().unwrap();
            stopped = stopped.max(stop.elapsed());
            thread::sleep(Duration::from_millis(200));
            agent.restart().unwrap();
            assert_eq!(agent.holders().unwrap(), holders, "another one");
        }
        thread::sleep(Duration::from_millis(500));
    });
    let failures = visits.failures();
    assert!(
        failures.is_empty(),
        "{failures:#?}\n{}",
        agent.process().tail()
    );
    eprintln!(
        "{} requests over three restarts, none failed; the longest gap was {:?}, the longest stop {stopped:?}",
        visits.answered(),
        visits.gap(begun, Instant::now()),
    );
}

/// What is under way at SIGTERM is finished whole, and whoever comes meanwhile is served.
#[test]
fn a_long_answer_is_finished_and_nobody_waits_for_it() {
    const BYTES: u64 = 32_000_000;
    let (topology, _backends) = hosts(2);
    let mut agent = start(&topology, 2);
    let client = Client::new(topology.client()).patience(PATIENCE);
    let done = AtomicU64::new(0);
    let visits = Visits::default();
    let mut waited = Duration::ZERO;
    thread::scope(|scope| {
        // About four seconds at this rate.
        let download = scope.spawn(|| {
            let outcome = client.download(address(VIP), BYTES, Some(8_000_000), &done);
            (outcome, Instant::now())
        });
        while done.load(Ordering::Relaxed) == 0 {
            assert!(!download.is_finished(), "{:?}", download.join());
            thread::sleep(Duration::from_millis(10));
        }
        observed(topology.client(), &crowd(), &visits, || {
            thread::sleep(Duration::from_millis(200));
            let asked = Instant::now();
            agent.process().signal(Signal::Terminate).unwrap();
            let status = agent.process().wait(PATIENCE).unwrap();
            let ended = Instant::now();
            assert!(status.success(), "{}", agent.process().tail());
            let (outcome, finished) = download.join().unwrap();
            outcome.unwrap_or_else(|error| panic!("{error}\n{}", agent.process().tail()));
            // The kernel has the rest of it when the agent has given all.
            assert!(
                ended > asked + Duration::from_secs(1),
                "{:?}",
                ended - asked
            );
            waited = visits.gap(asked, ended.min(finished));
            agent.restart().unwrap();
        });
    });
    let failures = visits.failures();
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(
        waited < Duration::from_secs(1),
        "{waited:?} without an answer"
    );
    eprintln!(
        "the longest wait of {} requests during the stop was {waited:?}",
        visits.answered()
    );
}

/// By SIGKILL what is under way is lost, and nothing else.
#[test]
fn killed_it_refuses_nobody() {
    const KILLS: usize = 3;
    let (topology, _backends) = hosts(2);
    let mut agent = start(&topology, 2);
    let crowd = crowd();
    let visits = visits(topology.client(), &crowd, || {
        for _ in 0..KILLS {
            thread::sleep(Duration::from_millis(500));
            agent.kill9().unwrap();
            thread::sleep(Duration::from_millis(500));
            agent.restart().unwrap();
        }
        thread::sleep(Duration::from_millis(500));
    });
    let failures = visits.failures();
    let refused = failures
        .iter()
        .filter(|(.., outcome)| matches!(outcome, Outcome::NoConnection(_)));
    assert_eq!(refused.count(), 0, "{failures:#?}");
    // Each has at most one request under way.
    assert!(failures.len() <= KILLS * crowd.len(), "{failures:#?}");
    eprintln!(
        "{} requests over {KILLS} kills: {} were under way and lost, nobody was refused",
        visits.answered(),
        failures.len()
    );
}

/// There is a holder where there is something to hold, as long as there is.
#[test]
fn holders_come_and_go_with_what_they_hold() {
    let (topology, _backends) = hosts(2);
    let connects = |to: &str| {
        topology.client().run(|| {
            let to = address(to);
            std::net::TcpStream::connect_timeout(&to, Duration::from_secs(1)).is_ok()
        })
    };
    let balanced = format!(
        "[[service]]\nname = \"web\"\nvip = [\"{VIP}\"]\nbackends = [{{ address = \"{}\" }}]\n\n\
         [metrics]\nlisten = \"{METRICS}\"\n",
        topology.backend_address(1)
    );
    let agent = Setup::new(&topology).config(&balanced).start().unwrap();
    assert!(agent.holders().unwrap().is_empty());
    drop(agent);

    let mut agent = start(&topology, 2);
    let holders = agent.holders().unwrap();
    assert_eq!(holders.len(), 1);
    agent.stop().unwrap();
    assert_eq!(agent.holders().unwrap(), holders);
    assert!(connects(VIP) && connects(SHARED));

    // What is no longer configured is refused as soon as the agent is there.
    let file = agent.config_file().to_owned();
    let text = std::fs::read_to_string(&file).unwrap();
    let without = text.replace(&format!("listen = [\"{SHARED}\"]"), "listen = []");
    assert_ne!(text, without);
    std::fs::write(&file, &without).unwrap();
    agent.restart().unwrap();
    assert!(connects(VIP));
    wait_for("the end of the listener", PATIENCE, || {
        Ok((!connects(SHARED)).then_some(()))
    })
    .unwrap();
    let without = without.replace("protocol = \"http\"", "");
    std::fs::write(&file, &without).unwrap();
    agent.command(&["reload"]).unwrap();
    wait_for("the holder's end", PATIENCE, || {
        Ok(agent.holders()?.is_empty().then_some(()))
    })
    .unwrap();

    std::fs::write(&file, &text).unwrap();
    agent.command(&["reload"]).unwrap();
    wait_for("a holder", PATIENCE, || {
        Ok((agent.holders()?.len() == 1).then_some(()))
    })
    .unwrap();
    agent.stop().unwrap();
    let pins = agent.pins().display().to_string();
    let removed = agent.command(&["detach", "--bpf-dir", &pins]).unwrap();
    assert!(
        removed.contains("listening sockets of the proxy"),
        "{removed}"
    );
    wait_for("the holder's end", PATIENCE, || {
        Ok(agent.holders()?.is_empty().then_some(()))
    })
    .unwrap();
}

/// As many threads as processors: each keeps one, and the rest of the agent runs anywhere.
#[test]
fn threads_keep_their_processors() {
    let (topology, _backends) = hosts(2);
    let count = thread::available_parallelism().unwrap().get();
    for (threads, is_kept) in [(count, true), (count + 1, false)] {
        let agent = start(&topology, threads);
        let tasks = format!("/proc/{}/task", agent.process().pid());
        let (mut kept, mut free) = (Vec::new(), 0);
        for task in std::fs::read_dir(tasks).unwrap() {
            let task = task.unwrap().path();
            let name = std::fs::read_to_string(task.join("comm")).unwrap();
            let status = std::fs::read_to_string(task.join("status")).unwrap();
            let allowed = status
                .lines()
                .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
                .unwrap()
                .trim();
            if name.starts_with("proxy-") && allowed.parse::<usize>().is_ok() {
                kept.push(allowed.to_owned());
            } else {
                free += 1;
            }
        }
        kept.sort();
        kept.dedup();
        // With one processor everything is on it.
        assert_eq!(kept.len(), if is_kept || count == 1 { count } else { 0 });
        assert!(free > 0);
    }
}
