//! The configuration file: TOML in, a [`Config`] out that needs no further checks.
//!
//! One reading reports everything that is wrong, each finding with file, line and column. The
//! document is walked by hand, not by derived deserializers, which stop at the first error and
//! know the place of a value only where they are told to keep it.
//!
//! Code map: `table` asks a table for keys, `scalar` reads single values, `node`,
//! `consul`, `docker`, `page`, `dtab`, `proxy`, `service` with
//! `backend`, `health`, `http` and `gate` read the sections, `clash` compares
//! services with each other, `locate` and `error` say what was found where.

mod backend;
mod block;
mod clash;
mod consul;
mod docker;
mod dtab;
mod error;
mod gate;
mod health;
mod held;
mod http;
mod locate;
mod node;
mod page;
mod place;
pub mod proxy;
mod scalar;
mod service;
mod table;
#[cfg(test)]
mod tests;
mod treatment;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use toml::de::DeTable;

pub use self::{
    consul::{ClientIdentity, ConsulConfig, Environment, Publish, Token},
    docker::{Addresses, DockerConfig},
    dtab::DtabConfig,
    error::{ConfigError, Excerpt, Finding, Findings, Place},
    node::{HELD_SOCKETS, MetricsConfig, NatPorts, NewFlows, NodeConfig, RunAs, XdpMode},
    page::PageConfig,
    place::ServicePlaces,
    proxy::ProxyConfig,
};
use self::{locate::Report, table::Table};
use crate::domain::service::ServiceSpec;

/// Everything a configuration file says, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Section `[node]`.
    pub node: NodeConfig,
    /// Section `[consul]`; `None`: no Consul.
    pub consul: Option<ConsulConfig>,
    /// Section `[docker]`; `None`: no container is registered. Exists only where `consul` does.
    pub docker: Option<DockerConfig>,
    /// Section `[metrics]`.
    pub metrics: MetricsConfig,
    /// Section `[page]`.
    pub page: PageConfig,
    /// Section `[dtab]`; `None`: no such interface.
    pub dtab: Option<DtabConfig>,
    /// Section `[proxy]`.
    pub proxy: ProxyConfig,
    /// `allow` of `[block]`: prefixes that are never blocked, each once.
    pub allow: Vec<ipnet::IpNet>,
    /// Every `[[service]]`, in the order of the file. Names are unique, and so is each VIP with its
    /// protocol. One that takes its backends from Consul exists only where `consul` does.
    pub services: Vec<Arc<ServiceSpec>>,
    /// Lines of what the services say, by name.
    pub places: Arc<BTreeMap<String, ServicePlaces>>,
}

/// Reads a configuration file, with the process's environment behind it.
///
/// # Errors
///
/// [`ConfigError::Read`] if the file cannot be read, [`ConfigError::Invalid`] with all that is
/// wrong in it.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.into(),
        source,
    })?;
    parse(&text, path)
}

/// Like [`load`], of a text that was read already. `path` is what findings name.
///
/// # Errors
///
/// [`ConfigError::Invalid`] with all that is wrong.
pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    parse_in(text, path, &|name| std::env::var(name).ok())
}

/// Like [`parse`], in an environment of the caller's.
///
/// # Errors
///
/// [`ConfigError::Invalid`] with all that is wrong.
pub fn parse_in(text: &str, path: &Path, environment: &Environment) -> Result<Config, ConfigError> {
    let mut report = Report::new(path, text);
    let document = DeTable::parse(text).map_err(|error| {
        let mut report = Report::new(path, text);
        let reason = format!("this is no TOML: {}", error.message());
        report.add(&error.span().unwrap_or_default(), reason);
        report.fail()
    })?;
    let mut root = Table::new(document.get_ref(), 0..0);
    let nothing = DeTable::new();
    let node = root
        .table("node", &mut report)
        .unwrap_or_else(|| Table::new(&nothing, 0..0));
    let node = node::node(node, &mut report);
    let consul = root
        .table("consul", &mut report)
        .map(|table| consul::consul(table, environment, &mut report));
    let docker = root
        .table("docker", &mut report)
        .map(|table| docker::docker(table, consul.is_some(), environment, &mut report));
    let metrics = root
        .table("metrics", &mut report)
        .map(|table| node::metrics(table, &mut report))
        .unwrap_or_default();
    let page = root
        .table("page", &mut report)
        .map(|table| page::page(table, &mut report))
        .unwrap_or_default();
    let dtab = root
        .table("dtab", &mut report)
        .map(|table| dtab::dtab(table, &mut report));
    let allow = root
        .table("block", &mut report)
        .map(|table| block::allow(table, &mut report))
        .unwrap_or_default();
    let services = service::services(&mut root, consul.is_some(), &mut report);
    let proxy = root
        .table("proxy", &mut report)
        .map(|table| proxy::proxy(table, &mut report));
    clash::clashes(&services, &mut report);
    if let Some(proxy) = &proxy {
        let others = [
            (Some(metrics.listen), "metrics are served ([metrics])"),
            (
                dtab.as_ref().map(|dtab| dtab.listen),
                "delegation tables are served ([dtab])",
            ),
        ];
        clash::listeners(&proxy.listeners, &services, others, &mut report);
    }
    root.close(&mut report);
    let places = place::places(&services, &report);
    report.conclude(Config {
        node,
        consul,
        docker,
        metrics,
        page,
        dtab,
        proxy: proxy.map(|read| read.config).unwrap_or_default(),
        allow,
        places: Arc::new(places),
        services: services
            .into_iter()
            .map(|read| Arc::new(read.spec))
            .collect(),
    })
}
