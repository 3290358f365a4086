//! Ejection: a backend whose connections fail while others' succeed is out for a while, whatever
//! its probes say.
//!
//! What traffic itself tells comes in as [`Tally`]s: from the flow tables (connections accepted,
//! refused, unanswered), later from the proxy (requests). A backend is ejected when
//!
//! - the last [`PassiveSpec::failures`] attempts or more failed in a row, or
//! - of [`ENOUGH`] attempts or more within [`WINDOW`] less than half as many succeeded, in
//!   proportion, as with the service's other backends,
//!
//! and somebody else in the service did better within the same window: where nobody succeeds the
//! trouble is the node's or the network's, and to move traffic about mends nothing. It is out for
//! [`PassiveSpec::base`] the first time, for n times that the nth time, at most for
//! [`PassiveSpec::longest`]; each such longest time without an ejection makes n one smaller. At
//! most half of a service's backends of a family are out: one of two, none of one, and those that
//! are unhealthy by other signs count among them.
//!
//! One that is unhealthy by other signs is out already: its failures count for nothing more. And
//! one that probes found dead and then alive again while it was ejected is back at once.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use super::backend::InstanceId;

/// How far back attempts count.
pub const WINDOW: Duration = Duration::from_secs(30);
/// Attempts from which on a rate says something.
pub const ENOUGH: u64 = 20;

/// A service's rules for ejecting backends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PassiveSpec {
    /// Failures in a row that eject.
    pub failures: u32,
    /// How long the first ejection lasts.
    pub base: Duration,
    /// How long any lasts at most.
    pub longest: Duration,
}

impl Default for PassiveSpec {
    fn default() -> Self {
        Self {
            failures: 5,
            base: Duration::from_secs(30),
            longest: Duration::from_secs(300),
        }
    }
}

/// Who tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Witness {
    /// The flow tables: connections that clients opened.
    Flows,
    /// The proxy: requests that it sent on.
    Proxy,
}

impl Witness {
    /// In the history and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Witness::Flows => "flows",
            Witness::Proxy => "proxy",
        }
    }

    fn attempts(self) -> &'static str {
        match self {
            Witness::Flows => "connections",
            Witness::Proxy => "requests",
        }
    }
}

/// What became of attempts on one backend since it was last told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Who counted.
    pub witness: Witness,
    /// Attempts that succeeded.
    pub succeeded: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// What most of the failed ones met, e.g. `refused`; said of nothing if none failed.
    pub failure: String,
}

/// A backend within its service.
pub type Member = (InstanceId, SocketAddr);

/// A backend that is out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Since when.
    pub since: SystemTime,
    /// Until when.
    pub until: SystemTime,
    /// Which one it is of those that count, from 1.
    pub nth: u32,
    /// Why, e.g. `5 connections in a row failed: refused`.
    pub reason: String,
    /// Whose word it was.
    pub witness: Witness,
}

/// What a judgement has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is out.
    Ejected(Member, Ejection),
    /// It is back, and why.
    Returned(Member, Ejection, Return),
    /// It would be out, were not half of the service out already. Said once for each time it
    /// begins.
    Spared(Member, String, Witness),
}

/// Why an ejection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// Its time has passed.
    Time,
    /// Other signs spoke against the backend meanwhile, and do so no more.
    Recovery,
}

/// The backends of one service, by what traffic tells of them.
#[derive(Clone, Debug, Default)]
pub struct Outliers {
    records: BTreeMap<Member, Record>,
}

#[derive(Clone, Debug, Default)]
struct Record {
    tallies: VecDeque<(SystemTime, u64, u64)>,
    /// Failures since the last success.
    in_a_row: u64,
    /// Of the latest failures.
    latest: Option<(String, Witness)>,
    ejection: Option<Ejection>,
    /// Ejections that count.
    times: u32,
    /// When the last ejection ended, or `times` last became smaller.
    calm_since: Option<SystemTime>,
    spared: bool,
    /// Unhealthy by other signs, at the last judgement.
    ill: bool,
}

impl Record {
    fn sums(&self) -> (u64, u64) {
        let tallies = self.tallies.iter();
        tallies.fold((0, 0), |(succeeded, failed), (_, s, f)| {
            (succeeded + s, failed + f)
        })
    }

    fn forget(&mut self, now: SystemTime) {
        // A clock that was set back makes nothing younger than now.
        self.tallies
            .retain(|(at, ..)| now.duration_since(*at).is_ok_and(|age| age < WINDOW));
    }

    /// Why it should be out, given what the others' attempts came to.
    fn complaint(&self, spec: &PassiveSpec, others: (u64, u64)) -> Option<String> {
        let (latest, witness) = self.latest.as_ref()?;
        let (succeeded, failed) = self.sums();
        if others.0 == 0 || failed == 0 {
            return None;
        }
        if self.in_a_row >= u64::from(spec.failures) {
            return Some(format!(
                "{} {} in a row failed: {latest}",
                self.in_a_row,
                witness.attempts()
            ));
        }
        let (own, all) = (succeeded + failed, others.0 + others.1);
        // succeeded / own < others.0 / all / 2
        let worse =
            u128::from(succeeded) * u128::from(all) * 2 < u128::from(others.0) * u128::from(own);
        (own >= ENOUGH && worse).then(|| {
            format!(
                "{failed} of {own} {} failed ({latest}), with the others {} of {all}",
                witness.attempts(),
                others.1
            )
        })
    }
}

impl Outliers {
    /// Takes in what has become of attempts on a backend.
    pub fn note(&mut self, member: Member, tally: &Tally, now: SystemTime) {
        let record = self.records.entry(member).or_default();
        if record.ejection.is_some() {
            // Connections from before, and those that find nobody else: old news.
            return;
        }
        record
            .tallies
            .push_back((now, tally.succeeded, tally.failed));
        if tally.succeeded > 0 {
            // In which order they came is not known.
            record.in_a_row = 0;
        } else {
            record.in_a_row += tally.failed;
        }
        if tally.failed > 0 {
            record.latest = Some((tally.failure.clone(), tally.witness));
        }
    }

    /// Judges the service's backends at `now`: `members` are all there are, each with whether it
    /// is unhealthy by other signs than these. Records of others are forgotten.
    pub fn judge(
        &mut self,
        spec: &PassiveSpec,
        members: &[(Member, bool)],
        now: SystemTime,
    ) -> Vec<Verdict> {
        if self.records.is_empty() {
            return Vec::new();
        }
        let ills: BTreeMap<&Member, bool> =
            members.iter().map(|(member, ill)| (member, *ill)).collect();
        self.records.retain(|member, _| ills.contains_key(member));
        let mut verdicts = Vec::new();
        for (member, record) in &mut self.records {
            let ill = ills.get(member).copied().unwrap_or(false);
            let recovered = std::mem::replace(&mut record.ill, ill) && !ill;
            if ill {
                record.tallies.clear();
                record.in_a_row = 0;
            }
            record.forget(now);
            record.calm_down(spec, now);
            if let Some((ended, why)) = record.end(spec, recovered, now) {
                verdicts.push(Verdict::Returned(member.clone(), ended, why));
            }
        }
        for v6 in [false, true] {
            let family = || {
                members
                    .iter()
                    .filter(move |((_, at), _)| at.is_ipv6() == v6)
            };
            let total = family().count();
            let is_out = |outliers: &Self| {
                let out =
                    |(member, ill): &&(Member, bool)| *ill || outliers.ejection(member).is_some();
                family().filter(out).count()
            };
            let sums: Vec<(&Member, (u64, u64))> = family()
                .filter_map(|(member, _)| Some((member, self.records.get(member)?.sums())))
                .collect();
            let all = sums
                .iter()
                .fold((0, 0), |sum, (_, own)| (sum.0 + own.0, sum.1 + own.1));
            // The worst first: there may not be room for all.
            let mut suspects: Vec<(Member, String, u64)> = sums
                .iter()
                .filter_map(|(member, own)| {
                    let record = self.records.get(*member)?;
                    let others = (all.0 - own.0, all.1 - own.1);
                    if record.ejection.is_some() {
                        return None;
                    }
                    let complaint = record.complaint(spec, others)?;
                    Some(((*member).clone(), complaint, own.1))
                })
                .collect();
            suspects.sort_by_key(|(_, _, failed)| std::cmp::Reverse(*failed));
            let named: Vec<Member> = suspects.iter().map(|(member, ..)| member.clone()).collect();
            for (member, reason, _) in suspects {
                let room = (is_out(self) + 1) * 2 <= total;
                let Some(record) = self.records.get_mut(&member) else {
                    continue;
                };
                let witness = record.latest.as_ref().map_or(Witness::Flows, |(_, by)| *by);
                if room {
                    let ejection = record.eject(spec, reason, witness, now);
                    verdicts.push(Verdict::Ejected(member, ejection));
                } else if !record.spared {
                    record.spared = true;
                    verdicts.push(Verdict::Spared(member, reason, witness));
                }
            }
            for (member, record) in &mut self.records {
                if member.1.is_ipv6() == v6 && !named.contains(member) {
                    record.spared = false;
                }
            }
        }
        verdicts
    }

    /// Ends every ejection: the service's rules are gone.
    pub fn clear(&mut self) {
        self.records.clear();
    }

    /// The ejection of a backend that is out.
    pub fn ejection(&self, member: &Member) -> Option<&Ejection> {
        self.records.get(member)?.ejection.as_ref()
    }

    /// When the next ejection ends.
    pub fn next_deadline(&self) -> Option<SystemTime> {
        let ejections = self
            .records
            .values()
            .filter_map(|record| record.ejection.as_ref());
        ejections.map(|ejection| ejection.until).min()
    }
}

impl Record {
    fn eject(
        &mut self,
        spec: &PassiveSpec,
        reason: String,
        witness: Witness,
        now: SystemTime,
    ) -> Ejection {
        self.times = self.times.saturating_add(1);
        let ejection = Ejection {
            since: now,
            until: now + spec.base.saturating_mul(self.times).min(spec.longest),
            nth: self.times,
            reason,
            witness,
        };
        self.ejection = Some(ejection.clone());
        self.tallies.clear();
        self.in_a_row = 0;
        self.spared = false;
        ejection
    }

    /// Ends the ejection whose time has come, or whose backend has recovered.
    fn end(
        &mut self,
        spec: &PassiveSpec,
        recovered: bool,
        now: SystemTime,
    ) -> Option<(Ejection, Return)> {
        let ejection = self.ejection.as_mut()?;
        // A clock that was set back must not stretch it, nor may a reload leave it longer than
        // what now counts.
        ejection.until = ejection.until.min(now + spec.longest);
        let why = match now < ejection.until {
            true if recovered => Return::Recovery,
            true => return None,
            false => Return::Time,
        };
        self.calm_since = Some(now);
        Some((self.ejection.take()?, why))
    }

    fn calm_down(&mut self, spec: &PassiveSpec, now: SystemTime) {
        while let Some(since) = self.calm_since
            && self.ejection.is_none()
            && self.times > 0
            && now
                .duration_since(since)
                .is_ok_and(|calm| calm >= spec.longest)
        {
            self.times -= 1;
            self.calm_since = (self.times > 0).then(|| since + spec.longest);
        }
    }
}

#[cfg(test)]
mod tests;
