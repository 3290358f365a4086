//! How the registration of containers stands, for people.

use std::{collections::BTreeSet, time::SystemTime};

/// What the registrar has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistrarStatus {
    /// Containers that run, as the engine listed them last.
    pub containers: usize,
    /// Registrations that there should be; `None`: the engine has not been asked yet.
    pub wanted: Option<usize>,
    /// Registrations of this agent's in Consul, when it was asked last.
    pub registered: usize,
    /// When engine and Consul last agreed.
    pub last_sync: Option<SystemTime>,
    /// Why the engine cannot be asked at present.
    pub engine_error: Option<String>,
    /// Failures of the engine since the agent started.
    pub engine_errors: u64,
    /// Why Consul cannot be asked at present.
    pub consul_error: Option<String>,
    /// Failures of Consul since the agent started, refusals included.
    pub consul_errors: u64,
    /// What Consul refuses or holds against this agent, each a sentence.
    pub refusals: Vec<String>,
    /// What is not followed in labels and variables of containers.
    pub warnings: BTreeSet<String>,
    /// Registrations that were made or renewed since the agent started.
    pub registrations: u64,
    /// Registrations that were removed since the agent started.
    pub deregistrations: u64,
}

impl RegistrarStatus {
    /// What a person should know, each a sentence. A container's own labels are not among it: the
    /// agent works as it should.
    pub fn problems(&self) -> Vec<String> {
        let engine = self.engine_error.iter().map(|error| {
            format!("registration of containers: {error}; until then what was registered stays")
        });
        let consul = self.consul_error.iter().chain(&self.refusals);
        let consul = consul.map(|error| format!("registration of containers: {error}"));
        engine.chain(consul).collect()
    }
}
