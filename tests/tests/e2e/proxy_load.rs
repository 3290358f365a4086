//! One of three backends in trouble under load: who may be served twice sees nothing of it, who
//! may not is never served twice, and what is tried again stays within the budget.

use std::{
    collections::BTreeMap,
    thread::sleep,
    time::{Duration, Instant},
};

use hyper::Method;
use lb_tests::{
    crowd::{Ask, Crowd, Outcome},
    pace::at_this_pace,
    process::wait_for,
};

use crate::{
    proxy_stage::{SHARED, Stage, sum},
    scene::{METRICS, PATIENCE, VIP, address},
};

const CLIENTS: usize = 40;
const PAUSE: Duration = Duration::from_millis(40);
const QUICK: &str = "protocol = \"http\"\n\
    timeouts = { connect = \"500ms\", per_try = \"500ms\", total = \"5s\" }\n";

/// Both ways in turn, and a mix of what may be repeated and what may not.
pub(crate) fn mixed(client: usize, number: usize) -> Ask {
    let to = match client % 2 {
        0 => address(VIP),
        _ => address(SHARED),
    };
    let (method, body) = match (client + number) % 5 {
        0 => (Method::POST, "acted upon".repeat(100)),
        1 => (Method::PUT, "the same".repeat(100)),
        _ => (Method::GET, String::new()),
    };
    Ask {
        to,
        method,
        path: "/size/1000".into(),
        body: body.into(),
    }
}

fn load(stage: &Stage) -> Crowd {
    let crowd = Crowd::start(stage.client().entry(), CLIENTS, PAUSE, mixed);
    wait_for("the load to begin", PATIENCE, || {
        Ok((crowd.done() > 300).then_some(()))
    })
    .unwrap();
    crowd
}

/// What came of requests that are of this kind, by status or error.
fn results(
    outcomes: &[Outcome],
    fits: impl Fn(&Outcome) -> bool,
) -> BTreeMap<String, Vec<&Outcome>> {
    let mut results = BTreeMap::<String, Vec<&Outcome>>::new();
    for outcome in outcomes.iter().filter(|outcome| fits(outcome)) {
        let result = match &outcome.status {
            Ok(status) => status.to_string(),
            Err(error) => error.clone(),
        };
        results.entry(result).or_default().push(outcome);
    }
    results
}

fn may_be_repeated(outcome: &Outcome) -> bool {
    outcome.method != Method::POST
}

/// Everything that may be repeated was served.
fn assert_served(outcomes: &[Outcome]) {
    let results = results(outcomes, may_be_repeated);
    let counts: Vec<_> = results
        .iter()
        .map(|(name, all)| (name, all.len()))
        .collect();
    assert!(outcomes.len() > 500, "hardly any load: {counts:?}");
    for (result, outcomes) in &results {
        assert_eq!(result, "200", "{counts:?}: {:?}", outcomes[0]);
    }
}

/// What may not be repeated ended in one of these ways.
fn assert_posts_end(outcomes: &[Outcome], expected: &[&str]) {
    for (result, posts) in results(outcomes, |one| !may_be_repeated(one)) {
        assert!(expected.contains(&&*result), "{result}: {:?}", posts[0]);
    }
}

/// Nothing that may not be repeated reached the backends twice. Dead ones have told of it before.
fn assert_once(stage: &Stage, outcomes: &[Outcome]) {
    let mut told = BTreeMap::<String, Vec<u8>>::new();
    for number in (1..).take(stage.webs.len()) {
        for id in stage.told(number) {
            told.entry(id).or_default().push(number);
        }
    }
    let posts = outcomes.iter().filter(|outcome| !may_be_repeated(outcome));
    let mut reached = 0;
    for post in posts {
        let by = told.get(&post.id).map_or(&[][..], Vec::as_slice);
        assert!(by.len() <= 1, "reached {by:?}: {post:?}");
        reached += by.len();
        if post.status == Ok(200) {
            assert_eq!(by.len(), 1, "who answered this? {post:?}");
        }
    }
    assert!(reached > 50, "hardly any POST");
}

/// Retries are counted, and no more than the budget: a fifth of the requests, and 10 a second of
/// the ten that are looked at.
fn assert_within_budget(stage: &Stage, outcomes: &[Outcome]) {
    let page = stage.agent.metrics(address(METRICS)).unwrap();
    let retries =
        sum(&page, "lb_proxy_retries_total", &[]) + sum(&page, "lb_proxy_hedges_total", &[]);
    let windows = 1.0 + outcomes.last().unwrap().sent.as_secs_f64() / 10.0;
    let most = outcomes.len() as f64 * 0.2 + 100.0 * windows;
    assert!(retries <= most, "{retries} retries, {most} allowed");
    let tries: usize = (1..)
        .take(stage.webs.len())
        .map(|number| stage.told(number).iter().filter(|id| *id != "none").count())
        .sum();
    let most = outcomes.len() as f64 + retries;
    assert!(tries as f64 <= most, "{tries} tries, {most} known");
}

/// The backend in trouble is left alone after a while: nothing is tried again any more.
fn wait_until_calm(stage: &Stage) {
    let retries =
        || stage.metric("lb_proxy_retries_total", &[]) + stage.metric("lb_proxy_hedges_total", &[]);
    wait_for("an end of the retries", PATIENCE, || {
        let before = retries();
        sleep(Duration::from_secs(1));
        Ok((retries() == before).then_some(()))
    })
    .unwrap();
}

/// Who fails fast is avoided at once, and may take long to fail as often as it takes to be ejected; who
/// is slow is found out by that.
fn assert_ejected(stage: &Stage) {
    let (name, labels) = ("lb_service_ejections_total", ["service=\"web\""]);
    assert!(stage.metric(name, &labels) >= 1.0, "nothing was ejected");
}

/// Runs the load, makes the trouble, and looks at what came of it.
fn trouble(
    begin: impl FnOnce(&Stage),
    mend: impl FnOnce(&Stage),
) -> (Stage, Vec<Outcome>, Duration) {
    trouble_with(QUICK, begin, mend)
}

fn trouble_with(
    keys: &str,
    begin: impl FnOnce(&Stage),
    mend: impl FnOnce(&Stage),
) -> (Stage, Vec<Outcome>, Duration) {
    let stage = Stage::served(3, keys, "");
    let crowd = load(&stage);
    begin(&stage);
    let since = crowd.now();
    sleep(Duration::from_secs(2));
    wait_until_calm(&stage);
    let outcomes = crowd.stop();
    mend(&stage);
    assert_served(&outcomes);
    assert_once(&stage, &outcomes);
    assert_within_budget(&stage, &outcomes);
    (stage, outcomes, since)
}

#[test]
fn one_is_killed() {
    let (_stage, outcomes, since) = trouble(|stage| stage.webs[0].kill().unwrap(), |_| ());
    // Nothing is sent to one that refuses connections, so that POSTs are served by others.
    let settled = since + at_this_pace(Duration::from_millis(500));
    let later = results(&outcomes, |one| !may_be_repeated(one) && one.sent > settled);
    assert_eq!(later.keys().collect::<Vec<_>>(), ["200"], "{later:?}");
}

/// What reached the one that hung is served after all.
fn thaw(stage: &Stage) {
    stage.webs[0]
        .signal(lb_tests::process::Signal::Continue)
        .unwrap();
    sleep(Duration::from_millis(500));
}

#[test]
fn one_hangs() {
    let (stage, outcomes, _) = trouble(|stage| stage.webs[0].freeze().unwrap(), thaw);
    assert_ejected(&stage);
    // Nobody knows what became of these: each client is told so within the time of one try.
    assert_posts_end(&outcomes, &["200", "504"]);
    for post in outcomes.iter().filter(|one| !may_be_repeated(one)) {
        assert!(post.took < at_this_pace(Duration::from_secs(2)), "{post:?}");
    }
}

/// The same where nobody has said how long a try may take: another is asked beside it.
#[test]
fn one_hangs_and_no_try_has_a_time_of_its_own() {
    let keys = "protocol = \"http\"\ntimeouts = { total = \"3s\" }\n";
    let (stage, outcomes, _) = trouble_with(keys, |stage| stage.webs[0].freeze().unwrap(), thaw);
    assert_ejected(&stage);
    assert_posts_end(&outcomes, &["200", "504"]);
    let slowest = outcomes.iter().filter(|one| may_be_repeated(one));
    let slowest = slowest.map(|one| one.took).max().unwrap();
    assert!(slowest >= Duration::from_secs(1), "it was never asked");
    assert!(
        slowest < at_this_pace(Duration::from_secs(2)),
        "{slowest:?}"
    );
}

#[test]
fn one_is_slow() {
    let (stage, outcomes, _) = trouble(|stage| stage.always(1, "/delay/3000"), |_| ());
    assert_ejected(&stage);
    assert_posts_end(&outcomes, &["200", "504"]);
}

#[test]
fn one_answers_503() {
    let (_stage, outcomes, _) = trouble(|stage| stage.always(1, "/status/503"), |_| ());
    assert_posts_end(&outcomes, &["200", "503"]);
}

#[test]
fn one_resets_connections() {
    let (_stage, outcomes, _) = trouble(|stage| stage.always(1, "/reset"), |_| ());
    assert_posts_end(&outcomes, &["200", "502"]);
}

/// With nothing but failures every retry would be one too many.
#[test]
fn retries_stay_within_the_budget() {
    let service = format!("{QUICK}retry = {{ retries = 2, budget = 20, floor = 1 }}\n");
    let stage = Stage::served(3, &service, "");
    for number in 1..=3 {
        stage.always(number, "/status/503");
    }
    let before: u64 = (1..=3).map(|number| stage.seen(number).total).sum();
    let crowd = Crowd::start(stage.client().entry(), 20, PAUSE, |client, number| Ask {
        method: Method::GET,
        body: "".into(),
        ..mixed(client, number)
    });
    sleep(Duration::from_secs(5));
    let outcomes = crowd.stop();
    let tries: u64 = (1..=3).map(|number| stage.seen(number).total).sum();
    let found = results(&outcomes, |_| true);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["503"]);
    let (requests, tries) = (outcomes.len() as f64, (tries - before) as f64);
    assert!(requests > 300.0, "hardly any load: {requests}");
    let retries = stage.metric("lb_proxy_retries_total", &[]);
    assert_eq!(tries, requests + retries);
    // With those that saw whether the service answers.
    let counted = stage.metric("lb_proxy_requests_total", &[]);
    assert!((requests..requests + 20.0).contains(&counted), "{counted}");
    // A fifth, and one a second for the ten seconds that are looked at.
    let allowed = (counted * 20.0 / 100.0).floor() + 10.0;
    assert!(retries <= allowed, "{retries} of {requests}");
    assert!(retries > requests * 0.1, "{retries} of {requests}");
    assert!(stage.metric("lb_proxy_retries_refused_total", &[]) > 0.0);
}

/// What curl printed of one request, head and body, and how long that took.
pub(crate) fn ask(stage: &Stage, to: &str, more: &[&str]) -> (String, Duration) {
    let (begun, url) = (Instant::now(), format!("http://{to}"));
    let words = ["-sS", "-i", "--max-time", "10", "-H", "Host: web"];
    let words = [&words[..], more, &[&url]].concat();
    let printed = stage.client().tool("curl", &words).unwrap();
    (printed.to_ascii_lowercase(), begun.elapsed())
}

/// Nobody waits for backends that are known, or found, to be dead.
#[test]
fn all_are_dead() {
    let stage = Stage::served(3, QUICK, "");
    stage.webs.iter().for_each(|web| web.kill().unwrap());
    for to in [VIP, SHARED] {
        for method in ["GET", "POST"] {
            let words = ["-X", method];
            let (answer, took) = ask(&stage, &format!("{to}/"), &words);
            assert!(answer.starts_with("http/1.1 503 "), "{answer}");
            assert!(answer.contains("\r\nretry-after: "), "{answer}");
            assert!(took < at_this_pace(Duration::from_millis(500)), "{took:?}");
        }
    }
}

/// Each patience ends in 504, and says which it was.
#[test]
fn patience_ends() {
    let service = "protocol = \"http\"\nretry = { retries = 0 }\n\
                   timeouts = { connect = \"300ms\", per_try = \"500ms\", total = \"2s\", idle = \"700ms\" }\n";
    let stage = Stage::served(1, service, "");
    // (path) → status, what is said, at least, at most
    for (path, status, says, least, most) in [
        ("/hang", 504, "no answer in time", 500, 1500),
        ("/delay/100", 200, "late", 100, 500),
        ("/status/504", 504, "", 0, 500),
    ] {
        let (answer, took) = ask(&stage, &format!("{VIP}{path}"), &[]);
        assert!(
            answer.starts_with(&format!("http/1.1 {status} ")),
            "{answer}"
        );
        assert!(answer.contains(says), "{answer}");
        let [least, most] = [least, most].map(Duration::from_millis);
        let in_time = took >= least && took < at_this_pace(most);
        assert!(in_time, "{path}: {took:?}");
    }
    // Packets to the backend are lost: no connection comes about.
    stage.webs[0].kill().unwrap();
    let host = &stage.topology.backends()[0];
    host.tool("ip", &["link", "set", "eth0", "down"]).unwrap();
    let (answer, took) = ask(&stage, &format!("{VIP}/"), &[]);
    assert!(answer.starts_with("http/1.1 504 "), "{answer}");
    assert!(answer.contains("not connected in time"), "{answer}");
    assert!(took < at_this_pace(Duration::from_secs(2)), "{took:?}");
}

/// The total bounds all tries together, however many there may be.
#[test]
fn the_total_bounds_all_tries() {
    let service = "protocol = \"http\"\nretry = { retries = 5 }\n\
                   timeouts = { per_try = \"600ms\", total = \"1s\" }\n";
    let stage = Stage::served(3, service, "");
    let (answer, took) = ask(&stage, &format!("{VIP}/hang"), &[]);
    assert!(answer.starts_with("http/1.1 504 "), "{answer}");
    let (least, most) = (Duration::from_secs(1), Duration::from_millis(1600));
    assert!(took >= least && took < at_this_pace(most), "{took:?}");
    let tries: usize = (1..=3).map(|number| stage.told(number).len()).sum();
    assert_eq!(tries, 2);
}
