//! Metrics of the registration of containers.

use std::time::SystemTime;

use super::{family::Family, node::seconds_between};
use crate::controller::Status;

/// None of them where no containers are registered.
pub(super) fn families(status: &Status, now: SystemTime) -> Vec<Family> {
    let Some(docker) = &status.docker else {
        return Vec::new();
    };
    let mut up = Family::gauge(
        "lb_docker_up",
        "Whether the Docker engine and Consul's agent answered last (1) or not (0).",
    );
    let mut errors = Family::counter(
        "lb_docker_errors_total",
        "Failures of the registration of containers, by who failed or refused.",
    );
    let engine_up = docker.wanted.is_some() && docker.engine_error.is_none();
    for (peer, is_up, count) in [
        ("docker", engine_up, docker.engine_errors),
        (
            "consul",
            docker.consul_error.is_none(),
            docker.consul_errors,
        ),
    ] {
        up.add(&[("peer", peer)], f64::from(is_up));
        errors.add(&[("peer", peer)], count as f64);
    }
    let mut changes = Family::counter(
        "lb_docker_changes_total",
        "Registrations that were made or renewed, and those that were removed.",
    );
    for (action, count) in [
        ("register", docker.registrations),
        ("deregister", docker.deregistrations),
    ] {
        changes.add(&[("action", action)], count as f64);
    }
    let gauge = |name, help, value: usize| Family::gauge(name, help).with(value as f64);
    let since = docker.last_sync.unwrap_or(status.started);
    vec![
        up,
        errors,
        changes,
        gauge(
            "lb_docker_containers",
            "Containers that run, as the engine said last.",
            docker.containers,
        ),
        gauge(
            "lb_docker_wanted",
            "Registrations that there should be in Consul.",
            docker.wanted.unwrap_or_default(),
        ),
        gauge(
            "lb_docker_registered",
            "Registrations of this agent's that Consul held when it was asked last.",
            docker.registered,
        ),
        gauge(
            "lb_docker_warnings",
            "What is not followed in containers' labels and variables.",
            docker.warnings.len(),
        ),
        gauge(
            "lb_docker_refusals",
            "What Consul refuses to register, or holds that is in the way.",
            docker.refusals.len(),
        ),
        Family::gauge(
            "lb_docker_sync_age_seconds",
            "Time since engine and Consul last agreed (since the agent started, if never).",
        )
        .with(seconds_between(since, now)),
    ]
}
