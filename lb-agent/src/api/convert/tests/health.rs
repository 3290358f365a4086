//! What catalog, probes and traffic come to.

use super::*;

pub(super) fn ejection() -> Ejection {
    Ejection {
        since: at(3),
        until: at(33),
        nth: 1,
        reason: "5 connections in a row failed: refused".into(),
        witness: Witness::Flows,
    }
}

/// Rows of what catalog and probes say, and what it comes to.
#[test]
fn health_is_one_word() {
    let healthy = Observed::Healthy { since: at(1) };
    let unhealthy = Observed::Unhealthy {
        since: at(2),
        reason: "connection refused".into(),
    };
    let warning = || CatalogHealth::Warning("slow".into());
    let critical = || CatalogHealth::Critical("dead".into());
    let maintenance = || CatalogHealth::Maintenance("new disk".into());
    let rows = [
        (CatalogHealth::Passing, Observed::Unknown, "healthy"),
        (CatalogHealth::Passing, healthy.clone(), "healthy"),
        (CatalogHealth::Passing, unhealthy.clone(), "unhealthy"),
        (warning(), healthy.clone(), "warning"),
        (warning(), unhealthy.clone(), "unhealthy"),
        (critical(), healthy.clone(), "unhealthy"),
        (critical(), Observed::Unknown, "unhealthy"),
        // What people want is no part of it.
        (maintenance(), Observed::Unknown, "unknown"),
        (maintenance(), healthy, "healthy"),
        (maintenance(), unhealthy, "unhealthy"),
    ];
    for (catalog, observed, word) in rows {
        let mut state = backend(1, "", 1, catalog);
        state.observed = observed;
        assert_eq!(health(&state), word, "{state:?}");
        state.ejection = Some(ejection());
        let word = match word {
            "unhealthy" => "unhealthy",
            _ => "ejected",
        };
        assert_eq!(health(&state), word, "{state:?}");
    }
}
