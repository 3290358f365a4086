//! Splits, their layers and shifts, as messages.

use std::collections::{BTreeMap, BTreeSet};

use super::{active, count, millis, percent, proto, total_weight, unix_ms};
use crate::domain::{
    shift::{Phase, ShiftState},
    snapshot::ServiceState,
    split::{ActiveSplit, Shares},
};

fn shares(shares: &Shares) -> BTreeMap<String, u32> {
    shares
        .iter()
        .map(|(subset, share)| (subset.to_owned(), share))
        .collect()
}

pub(in crate::api) fn split(split: &ActiveSplit) -> proto::Split {
    proto::Split {
        shares: shares(&split.shares),
        source: split.source.name().into(),
        origin: split.origin.clone(),
    }
}

/// All that is said of a service's split.
pub(super) fn layers(state: &ServiceState) -> Vec<proto::SplitLayer> {
    let in_force = state.splits.in_force();
    let layers = state.splits.layers().iter();
    layers
        .map(|layer| proto::SplitLayer {
            split: Some(split(&layer.split)),
            idle: layer.idle.clone(),
            in_force: in_force.is_some_and(|split| std::ptr::eq(split, &layer.split)),
        })
        .collect()
}

/// A shift and how it goes.
pub(in crate::api) fn shift(state: &ShiftState) -> proto::Shift {
    let shift = &state.shift;
    let mut message = proto::Shift {
        subset: shift.subset.clone(),
        phase: shift.phase.name().into(),
        base_shares: shares(&shift.base),
        percent: shift.shares.percent(&shift.subset),
        began_unix_ms: unix_ms(shift.began),
        failed_windows: state.failed,
        last_window: state.last.as_ref().map(|last| last.verdict.name().into()),
        last_reason: state
            .last
            .as_ref()
            .map(|last| last.reason.clone())
            .filter(|reason| !reason.is_empty()),
        ..Default::default()
    };
    match &shift.phase {
        Phase::Stepping {
            to,
            step,
            every,
            next,
        } => {
            message.to_percent = Some(*to);
            message.step_percent = Some(*step);
            message.every_ms = Some(millis(*every));
            message.next_unix_ms = Some(unix_ms(*next));
        }
        Phase::Arrived => {}
        Phase::Returned { at, reason } => {
            message.ended_unix_ms = Some(unix_ms(*at));
            message.reason = Some(reason.clone());
        }
        Phase::Promoted { at } => message.ended_unix_ms = Some(unix_ms(*at)),
    }
    message
}

pub(in crate::api) fn service_split(state: &ServiceState) -> proto::ServiceSplit {
    let in_force = state.split.as_ref().map(|split| &split.shares);
    let mut subsets: BTreeSet<String> = state.spec.subset_names();
    subsets.extend(
        in_force
            .into_iter()
            .flat_map(Shares::iter)
            .map(|(subset, _)| subset.to_owned()),
    );
    subsets.extend(state.backends.iter().filter_map(|b| b.subset.clone()));
    let total = total_weight(state);
    let subset = |name: String| {
        let members = || {
            let name = &name;
            let backends = state.backends.iter();
            backends.filter(move |backend| backend.subset.as_ref() == Some(name))
        };
        proto::SubsetShare {
            share: in_force.and_then(|shares| shares.get(&name)),
            share_percent: percent(members().map(|b| u64::from(b.weight)).sum(), total),
            backends: count(members().count()),
            backends_active: active(members()),
            subset: name,
        }
    };
    proto::ServiceSplit {
        service: state.spec.name.clone(),
        split: state.split.as_ref().map(split),
        layers: layers(state),
        shift: state.shift.as_ref().map(shift),
        configured_shares: state.spec.split.as_ref().map(shares).unwrap_or_default(),
        subsets: subsets.into_iter().map(subset).collect(),
    }
}
