//! The registry of Consul's own agent: what is registered is there as it was meant, what is refused
//! is told, and the token is followed.

use std::fs;

use lb_agent::source::{
    consul::ConsulOptions,
    consul_agent::{AgentError, AgentRegistry},
};
use serde_json::json;

use super::server::Consul;

/// As a container's registration is made: its service, and a check that waits to be told.
fn definition() -> serde_json::Value {
    json!({
        "ID": "lb:node:web:80", "Name": "echo", "Address": "10.0.0.5", "Port": 8080,
        "Tags": ["v1", "a,b"], "Meta": {"lb-vip": "198.51.100.10:80"},
        "Checks": [
            {"CheckID": "lb:node:web:80:health", "Name": "health", "TTL": "720h", "Status": "critical"},
        ],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_registered_is_there_until_it_is_removed() {
    let consul = Consul::start();
    let registry = AgentRegistry::new(&super::options(&consul)).unwrap();
    registry.register(&definition()).await.unwrap();
    let services = registry.services().await.unwrap();
    let service = &services["lb:node:web:80"];
    assert_eq!(
        (
            service.name.as_str(),
            service.address.as_str(),
            service.port
        ),
        ("echo", "10.0.0.5", 8080)
    );
    assert_eq!(service.tags, ["v1", "a,b"]);
    assert_eq!(service.meta["lb-vip"], "198.51.100.10:80");

    let health = "lb:node:web:80:health";
    let maintenance = "_service_maintenance:lb:node:web:80";
    let text = "container web is healthy & well";
    registry
        .update_check(health, "passing", text)
        .await
        .unwrap();
    let reason = "it is paused (ä)";
    registry
        .set_maintenance("lb:node:web:80", Some(reason))
        .await
        .unwrap();
    let checks = registry.checks().await.unwrap();
    assert_eq!(
        (
            checks[health].status.as_str(),
            checks[health].output.as_str()
        ),
        ("passing", text)
    );
    assert_eq!(checks[maintenance].notes, reason);

    // Registered anew, it keeps what it was told, and its maintenance.
    registry.register(&definition()).await.unwrap();
    let checks = registry.checks().await.unwrap();
    assert_eq!(checks[health].status, "passing");
    assert!(checks.contains_key(maintenance));
    registry
        .set_maintenance("lb:node:web:80", None)
        .await
        .unwrap();
    registry.deregister_check(health).await.unwrap();
    let checks = registry.checks().await.unwrap();
    assert!(!checks.contains_key(health) && !checks.contains_key(maintenance));
    registry.deregister("lb:node:web:80").await.unwrap();
    assert!(
        !registry
            .services()
            .await
            .unwrap()
            .contains_key("lb:node:web:80")
    );

    // What Consul does not take is told in its words.
    let mut odd = definition();
    odd["Meta"] = json!({"a key": "x"});
    let error = registry.register(&odd).await.unwrap_err();
    assert!(matches!(error, AgentError::Refused { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("PUT /v1/agent/service/register: status 400"),
        "{text}"
    );
    assert!(text.contains("a key"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_without_the_right_is_told_and_a_new_one_is_read() {
    const MASTER: &str = "a0a0a0a0-b1b1-c2c2-d3d3-e4e4e4e4e4e4";
    let consul = Consul::with_acl(MASTER);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, "11111111-2222-3333-4444-555555555555\n").unwrap();
    let registry = AgentRegistry::new(&ConsulOptions {
        token_file: Some(file.clone()),
        ..super::options(&consul)
    })
    .unwrap();
    let error = registry
        .register(&definition())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("the token lacks service:write"), "{error}");
    fs::write(&file, MASTER).unwrap();
    registry.register(&definition()).await.unwrap();
    assert_eq!(registry.services().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consul_that_is_not_there_is_no_refusal() {
    let mut consul = Consul::start();
    let registry = AgentRegistry::new(&super::options(&consul)).unwrap();
    consul.stop();
    let error = registry.services().await.unwrap_err();
    assert!(matches!(error, AgentError::Unanswered(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains("GET /v1/agent/services"), "{text}");
    assert!(text.contains("connection refused"), "{text}");
}
