//! A server that more than one host asks.

use std::{net::IpAddr, path::Path};

use anyhow::Result;

use super::{Consul, Shape};
use crate::namespace::Namespace;

impl Consul {
    /// As [`Consul::start`], and reached by other hosts at this address of the namespace's.
    pub fn shared(namespace: &Namespace, directory: &Path, address: IpAddr) -> Result<Self> {
        let shape = Shape {
            servers: 1,
            token: None,
            also: Some(address),
        };
        Self::shaped(namespace, directory, shape)
    }
}
