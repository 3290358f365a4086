//! The gate that a subset passes while traffic is shifted to it: windows of time, and what is
//! measured in each of them against limits.
//!
//! - *Healthy share*: the part of the subset's registered weight that is healthy, over the window.
//! - *Errors*: the part of its new connections that failed. What all subsets suffer alike is not the
//!   new one's fault: it fails only with twice the rate of the others, too. Where these have too few
//!   connections, what they had in an earlier window of the same shift counts.
//! - *Latency*: the mean time that its backends took to answer: requests, where a proxy has sent
//!   enough of them on, for these are what clients wait for; otherwise probes.
//!
//! A measure has no say where there is nothing to measure. Between *failed* and *good* lies a band
//! in which a window is *undecided*: it neither counts against the subset nor for it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::backend::InstanceId;

/// Which limits count, and how long is looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateSpec {
    /// Length of a window.
    pub window: Duration,
    /// Failed windows, none good in between, that send the traffic back. At least 1.
    pub fail: u32,
    /// Least part of the subset's weight that must be healthy, in percent.
    pub healthy: u32,
    /// Largest part of its new connections that may fail, in percent.
    pub errors: u32,
    /// Longest mean time to an answer; `None`: it does not count.
    pub latency: Option<Duration>,
    /// New connections in a window below which errors have no say; requests below which their
    /// latency has none.
    pub connections: u32,
    /// After a failed window no further traffic is shifted for so long.
    pub cooldown: Duration,
}

impl Default for GateSpec {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            fail: 2,
            healthy: 50,
            errors: 5,
            latency: None,
            connections: 10,
            cooldown: Duration::from_secs(60),
        }
    }
}

/// What became of one backend's connections and questions. Totals, which only grow until they begin
/// anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Connections (or requests) begun.
    pub begun: u64,
    /// Those that were refused, reset or never answered (or answered with a server's error).
    pub failed: u64,
    /// Probes that were answered.
    pub probes: Timed,
    /// Requests that were answered, or given up after all the patience there was.
    pub requests: Timed,
}

/// What was timed, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timed {
    /// How many.
    pub count: u64,
    /// What they took, in microseconds.
    pub took_us: u64,
}

impl Timed {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            took_us: self.took_us + other.took_us,
        }
    }

    /// What has come to `former` since. Where there are fewer, they began anew.
    fn since(self, former: Self) -> Self {
        if self.count < former.count || self.took_us < former.took_us {
            return self;
        }
        Self {
            count: self.count - former.count,
            took_us: self.took_us - former.took_us,
        }
    }

    /// What one took on average; `None`: there was none.
    fn mean(self) -> Option<Duration> {
        self.took_us
            .checked_div(self.count)
            .map(Duration::from_micros)
    }
}

impl Outcomes {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            begun: self.begun + other.begun,
            failed: self.failed + other.failed,
            probes: self.probes.plus(other.probes),
            requests: self.requests.plus(other.requests),
        }
    }

    /// What has come to `former` since. Where a total is smaller, it began anew.
    pub fn since(self, former: Self) -> Self {
        let since = |now: u64, then: u64| if now < then { now } else { now - then };
        Self {
            begun: since(self.begun, former.begun),
            failed: since(self.failed, former.failed),
            probes: self.probes.since(former.probes),
            requests: self.requests.since(former.requests),
        }
    }
}

/// Outcomes by backend of one service.
pub type Readings = BTreeMap<(InstanceId, SocketAddr), Outcomes>;

/// Somebody beside the kernel who sees how backends fare: the probes, a proxy.
pub trait Witness: Send + Sync {
    /// The outcomes of a service's backends so far. A backend that nothing is known of may be
    /// left out.
    fn outcomes(&self, service: &str) -> Readings;
}

/// A service at one moment, as seen from a subset.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// Healthy part of the subset's registered weight, from 0 to 1, in the family where that is less;
    /// 0 where it has no backend.
    pub healthy: f64,
    /// The subset's backends.
    pub subset: Readings,
    /// All other backends that take traffic.
    pub rest: Readings,
    /// How often the kernel's connections have been counted; another number, newer readings.
    pub counted: u64,
}

/// What a window came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that was measured is well within its limit.
    Good,
    /// Neither good nor failed.
    Undecided,
    /// Something is beyond its limit.
    Failed,
}

impl Verdict {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Good => "good",
            Verdict::Undecided => "undecided",
            Verdict::Failed => "failed",
        }
    }
}

/// What a window came to, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What.
    pub verdict: Verdict,
    /// Why, in words for people; empty for a good one.
    pub reason: String,
}

/// A window that is open.
#[derive(Clone, Debug)]
pub struct Window {
    began: SystemTime,
    ends: SystemTime,
    first: Sight,
    /// When it was last looked, and what was healthy then.
    looked: SystemTime,
    healthy: f64,
    /// Healthy part times seconds.
    healthy_seconds: f64,
    /// Its time is over, but its connections have not been counted yet.
    overdue: bool,
    /// Percent of the others' connections that failed when last there were enough.
    others: Option<f64>,
}

/// How long a window waits for its connections to be counted, at most.
const OVERDUE: Duration = Duration::from_secs(15);

impl Window {
    /// Opens a window. `others` is what [`Self::others`] of the window before says.
    pub fn open(spec: &GateSpec, now: SystemTime, sight: Sight, others: Option<f64>) -> Self {
        Self {
            began: now,
            ends: now + spec.window,
            looked: now,
            healthy: sight.healthy,
            healthy_seconds: 0.0,
            overdue: false,
            others,
            first: sight,
        }
    }

    /// When it is over; `None`: with the next count of connections.
    pub fn ends(&self) -> Option<SystemTime> {
        (!self.overdue).then_some(self.ends)
    }

    /// Percent of the others' connections that failed when last there were enough; `None`: there
    /// never were.
    pub fn others(&self) -> Option<f64> {
        self.others
    }

    /// Takes in what is to be seen now, and judges if the window is over: at its end, or with the
    /// first count of connections after it if there was none within. A clock that was set back
    /// behind the window's beginning ends it without a judgement.
    pub fn look(&mut self, spec: &GateSpec, now: SystemTime, sight: &Sight) -> Look {
        let Ok(span) = now.duration_since(self.looked) else {
            return match now < self.began {
                true => Look::Void,
                false => Look::Open,
            };
        };
        self.healthy_seconds += self.healthy * span.as_secs_f64();
        self.healthy = sight.healthy;
        self.looked = now;
        if now < self.ends {
            return Look::Open;
        }
        // Connections that nobody has counted are no sign that all is well.
        self.overdue = sight.counted == self.first.counted && now < self.ends + OVERDUE;
        if self.overdue {
            return Look::Open;
        }
        let whole = now.duration_since(self.began).unwrap_or_default();
        let healthy = self.healthy_seconds / whole.as_secs_f64().max(1e-9);
        let subset = since(&sight.subset, &self.first.subset);
        let rest = since(&sight.rest, &self.first.rest);
        if rest.begun >= u64::from(spec.connections.max(1)) {
            self.others = Some(rate(&rest));
        }
        Look::Closed(judge(spec, healthy, &subset, self.others))
    }
}

/// What became of a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// It goes on.
    Open,
    /// It is over.
    Closed(Judgement),
    /// It means nothing.
    Void,
}

/// The sum of what has come to all backends.
fn since(now: &Readings, first: &Readings) -> Outcomes {
    now.iter()
        .map(|(backend, outcomes)| {
            let former = first.get(backend).copied().unwrap_or_default();
            outcomes.since(former)
        })
        .fold(Outcomes::default(), Outcomes::plus)
}

/// Percent of the connections that failed. One may be counted twice; they are no more than all.
fn rate(outcomes: &Outcomes) -> f64 {
    let begun = outcomes.begun.max(1) as f64;
    (outcomes.failed as f64 * 100.0 / begun).min(100.0)
}

/// Judges what was measured in a window; `healthy` from 0 to 1, `others` in percent.
fn judge(spec: &GateSpec, healthy: f64, subset: &Outcomes, others: Option<f64>) -> Judgement {
    let measures = [
        healthy_share(spec, healthy * 100.0),
        errors(spec, subset, others.unwrap_or(0.0)),
        latency(spec, subset),
    ];
    // The worst; of those, the first.
    let mut worst = Judgement {
        verdict: Verdict::Good,
        reason: String::new(),
    };
    for judgement in measures.into_iter().flatten() {
        let worse = match (worst.verdict, judgement.verdict) {
            (Verdict::Good, verdict) => verdict != Verdict::Good,
            (Verdict::Undecided, verdict) => verdict == Verdict::Failed,
            (Verdict::Failed, _) => false,
        };
        if worse {
            worst = judgement;
        }
    }
    worst
}

fn judgement(failed: bool, good: bool, reason: String) -> Option<Judgement> {
    let verdict = match (failed, good) {
        (true, _) => Verdict::Failed,
        (false, true) => Verdict::Good,
        (false, false) => Verdict::Undecided,
    };
    Some(Judgement { verdict, reason })
}

/// Good is what lies a tenth of the whole above the limit, or is all.
fn healthy_share(spec: &GateSpec, percent: f64) -> Option<Judgement> {
    let least = f64::from(spec.healthy);
    judgement(
        percent < least,
        percent >= (least + 10.0).min(100.0) - 1e-6,
        format!("{percent:.0} % of its weight was healthy, of {least:.0} % at least"),
    )
}

/// Good is what lies within half the limit.
fn errors(spec: &GateSpec, subset: &Outcomes, others: f64) -> Option<Judgement> {
    if subset.begun < u64::from(spec.connections.max(1)) {
        return None;
    }
    let (own, most) = (rate(subset), f64::from(spec.errors));
    judgement(
        own > most && own >= 2.0 * others,
        own <= most / 2.0,
        format!(
            "{own:.1} % of its {} new connections failed ({others:.1} % elsewhere), of {most:.0} % at most",
            subset.begun
        ),
    )
}

/// Good is what lies within four fifths of the limit.
fn latency(spec: &GateSpec, subset: &Outcomes) -> Option<Judgement> {
    let most = spec.latency?;
    let enough = subset.requests.count >= u64::from(spec.connections.max(1));
    let (timed, what) = match enough {
        true => (subset.requests, "answers to requests"),
        false => (subset.probes, "answers to probes"),
    };
    let mean = timed.mean()?;
    judgement(
        mean > most,
        mean <= most * 4 / 5,
        format!(
            "its {what} took {} on average, of {} at most",
            humantime::format_duration(mean),
            humantime::format_duration(most)
        ),
    )
}

#[cfg(test)]
mod tests;
