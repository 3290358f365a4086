//! More services than Consul lets one client have connections.

use std::time::{Duration, SystemTime};

use lb_agent::domain::{backend::CatalogHealth, sync::CatalogState};

use super::{Consul, LATER, SOON, Source, options};

/// How soon a change must be seen of a service that has no watch: its turn comes every two minutes.
const TOLD: Duration = Duration::from_secs(3);

/// More services than Consul lets one client have connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_services() {
    const SERVICES: usize = 300;
    let consul = Consul::start();
    let names: Vec<_> = (0..SERVICES)
        .map(|number| format!("s{number:03}"))
        .collect();
    let mut source = Source::start(options(&consul), &names);
    let (state, _) = source
        .until(LATER, |state| state.services.len() == SERVICES)
        .await;
    let errors: u64 = state.watches.values().map(|watch| watch.errors).sum();
    assert_eq!(errors, 0);

    // The first has a watch. The last is polled, but long before its turn: it is told that it has
    // something new.
    for (name, limit) in [("s000", SOON), ("s299", TOLD), ("s298", TOLD)] {
        let service = format!(
            r#"{{"Name": "{name}", "Port": 80, "Weights": {{"Passing": 2, "Warning": 1}},
                 "Check": {{"CheckID": "{name}", "TTL": "10m", "Status": "passing"}}}}"#
        );
        consul.put("/v1/agent/service/register", &service);
        source
            .until(limit, |state| state.services[name].len() == 1)
            .await;
        // The states of its check, each from and to every other.
        for change in ["fail", "warn", "pass", "warn", "fail", "pass"] {
            consul.put(&format!("/v1/agent/check/{change}/{name}"), "");
            let (_, took) = source
                .until(limit, |state| match &state.services[name][0].health {
                    CatalogHealth::Passing => change == "pass",
                    CatalogHealth::Warning(_) => change == "warn",
                    CatalogHealth::Critical(_) => change == "fail",
                    CatalogHealth::Maintenance(_) => false,
                })
                .await;
            println!("{name}, {change}: {took:?}");
        }
        consul.put(&format!("/v1/agent/service/deregister/{name}"), "");
        source
            .until(limit, |state| state.services[name].is_empty())
            .await;
    }
    // A node moves, of which neither registrations nor checks tell.
    let at = |address: &str| {
        let service = r#""Service": {"ID": "s296", "Service": "s296", "Port": 80}"#;
        format!(r#"{{"Node": "far", "Address": "{address}", {service}}}"#)
    };
    let node = |address: &str| format!(r#"{{"Node": "far", "Address": "{address}"}}"#);
    for (body, address) in [(at("10.9.0.1"), "10.9.0.1"), (node("10.9.0.2"), "10.9.0.2")] {
        consul.put("/v1/catalog/register", &body);
        let (_, took) = source
            .until(TOLD, |state| {
                let mut all = state.services["s296"].iter();
                all.any(|one| one.address.ip().to_string() == address)
            })
            .await;
        println!("s296 at {address}: {took:?}");
    }
    // Each of those without a watch has its turn again, and Consul turns nobody away.
    let now = SystemTime::now();
    let any = r#"{"Name": "s297", "Port": 80}"#;
    consul.put("/v1/agent/service/register", any);
    let answered_since = |state: &CatalogState| {
        let watches = state.watches.values();
        watches
            .filter(|watch| watch.last_success > Some(now))
            .count()
    };
    source
        .until(Duration::from_secs(10), |state| {
            answered_since(state) >= SERVICES - 128
        })
        .await;
    let state = source.state.borrow().clone();
    let failed: Vec<_> = state
        .watches
        .iter()
        .filter(|(_, watch)| watch.errors > 0)
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}
