//! The table `timeouts`, of a service and of its routes.

use std::time::Duration;

use toml::Spanned;

use super::{
    super::{locate::Report, table::Table},
    DAY, HOUR, time,
};
use crate::domain::http::policy::{By, Said, Timeouts};

/// What such a table says.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) connect: Option<Duration>,
    pub(super) per_try: Option<Duration>,
    pub(super) total: Option<Duration>,
    pub(super) idle: Option<Duration>,
}

impl Told {
    /// `total`: that of all tries where the table has none; `None`: not known here.
    pub(super) fn read(mut table: Table, total: Option<Duration>, report: &mut Report) -> Self {
        let own = table.get("total", report, time(HOUR));
        let per_try = table.locate("per_try", report, time(HOUR));
        if let (Some(per_try), Some(total)) = (&per_try, own.or(total))
            && *per_try.get_ref() > total
        {
            let total = humantime::format_duration(total);
            let reason = format!(
                "one try may not take longer than all of them, which have {total}; lower `per_try` or raise \
                 `total`"
            );
            report.add(&per_try.span(), reason);
        }
        let told = Self {
            connect: table.get("connect", report, time(HOUR)),
            per_try: per_try.map(Spanned::into_inner),
            total: own,
            idle: table.get("idle", report, time(DAY)),
        };
        table.close(report);
        told
    }
}

/// Those of a service, and which of them are said.
pub(super) fn of_service(table: Table, said: &mut Said, report: &mut Report) -> Timeouts {
    let defaults = Timeouts::default();
    let told = Told::read(table, Some(defaults.total), report);
    said.connect = By::file(told.connect.is_some());
    said.total = By::file(told.total.is_some());
    Timeouts {
        connect: told.connect.unwrap_or(defaults.connect),
        per_try: told.per_try,
        total: told.total.unwrap_or(defaults.total),
        idle: told.idle.unwrap_or(defaults.idle),
    }
}

/// Those of a route, where `timeout` may stand for the total alone.
pub(super) fn of_route(table: &mut Table, report: &mut Report) -> Told {
    let alone = table.locate("timeout", report, time(HOUR));
    let total = alone.as_ref().map(|alone| *alone.get_ref());
    let mut told = match table.table("timeouts", report) {
        Some(table) => Told::read(table, total, report),
        None => Told::default(),
    };
    if let (Some(alone), Some(_)) = (&alone, told.total) {
        let reason = "`timeout` is the same as `total` in `timeouts`: give one of them";
        report.add(&alone.span(), reason);
    }
    told.total = told.total.or(total);
    told
}
