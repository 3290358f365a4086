//! What Consul's entries say of requests: for the proxy, if it serves the service.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Chain, Desired};
use crate::domain::{
    config_entry::{ConfigEntry, EntryKind, HashBy, Resolver},
    http::policy::{Balance, By},
};

impl Desired {
    /// The protocol in a service's `service-defaults`.
    pub(in crate::controller::desired) fn spoken(&self, service: &str) -> Option<&str> {
        match self.entry(EntryKind::Defaults, service)? {
            ConfigEntry::Defaults(protocol) => Some(protocol),
            _ => None,
        }
    }

    /// Takes in the routes of the service's requests; where connections are balanced, a note.
    pub(super) fn take_requests(&self, own: &str, chain: &mut Chain) {
        let proxied = chain.spec.protocol.is_proxied();
        if let Some(protocol) = self.spoken(own)
            && !["", "tcp"].contains(&protocol)
            && !proxied
        {
            chain.notes.push(format!(
                "service-defaults says that it speaks {protocol}, but its protocol here is {}: connections are balanced, not requests",
                chain.spec.protocol
            ));
        }
        if let Some(ConfigEntry::Router(routes)) = self.entry(EntryKind::Router, own)
            && !routes.is_empty()
        {
            if proxied {
                let ignored = routes.iter().map(|route| &route.to.ignored[..]);
                chain.tell_ignored(EntryKind::Router, own, "route", ignored);
                chain.router = routes.iter().cloned().map(Arc::new).collect();
            } else {
                let routes: Vec<String> = routes.iter().map(ToString::to_string).collect();
                chain.notes.push(format!(
                    "service-router has routes for requests, but its protocol here is {}, so connections are balanced: {}",
                    chain.spec.protocol,
                    routes.join("; ")
                ));
            }
        }
    }
}

impl Chain {
    /// Notes which fields of an entry nothing is made of, each once: `ignored` by its parts. No problem of the
    /// service: whoever writes them may mean another proxy.
    pub(super) fn tell_ignored<'a>(
        &mut self,
        kind: EntryKind,
        service: &str,
        part: &str,
        ignored: impl Iterator<Item = &'a [String]>,
    ) {
        let mut parts: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (number, fields) in (1..).zip(ignored) {
            for field in fields {
                parts.entry(field).or_default().push(number.to_string());
            }
        }
        for (field, numbers) in parts {
            let numbers = numbers.join(", ");
            self.notes.push(format!(
                "the {kind} of {service} in Consul has {field} ({part} {numbers}), which is not supported and is ignored"
            ));
        }
    }

    /// The same of a resolver, and what is left out of its failover.
    pub(super) fn tell_unfollowed(&mut self, resolver: &Resolver, service: &str) {
        for what in &resolver.left_out {
            let text = format!("of the service-resolver of {service} in Consul {what}");
            self.problems.push(text);
        }
        for field in &resolver.ignored {
            self.notes.push(format!(
                "the service-resolver of {service} in Consul has {field}, which is not supported and is ignored"
            ));
        }
    }

    /// Takes in how long requests may take, and what binds them to a backend. What the file says goes before.
    pub(super) fn take_treatment(&mut self, resolver: &Resolver) {
        let Some(requests) = &resolver.requests else {
            return;
        };
        if !self.spec.protocol.is_proxied() {
            let note = "service-resolver has RequestTimeout or LoadBalancer for requests, but connections are balanced";
            self.notes.push(note.to_owned());
            return;
        }
        let said = self.spec.http.said;
        let total = requests.timeout.filter(|_| said.total != By::File);
        let hash = requests.hash.as_ref();
        let hash = hash.filter(|_| said.balance != By::File);
        if total.is_none() && hash.is_none() {
            return;
        }
        let http = Arc::make_mut(&mut Arc::make_mut(&mut self.spec).http);
        if let Some(total) = total {
            http.timeouts.total = total;
            http.said.total = By::Resolver;
        }
        if let Some(hash) = hash {
            http.balance = match hash {
                HashBy::Header(name) => Balance::Header(name.clone()),
                HashBy::Cookie(name) => Balance::Cookie(name.clone()),
            };
            http.said.balance = By::Resolver;
        }
    }

    /// Takes in how long a connection may take to come about.
    pub(super) fn take_patience(&mut self, timeout: Duration) {
        if !self.spec.protocol.is_proxied() {
            let timeout = humantime::format_duration(timeout);
            self.notes.push(format!(
                "service-resolver gives connections {timeout} to come about; in the kernel the client's own patience counts"
            ));
            return;
        }
        // What the file says goes before.
        if self.spec.http.said.connect != By::File {
            let spec = Arc::make_mut(&mut self.spec);
            let http = Arc::make_mut(&mut spec.http);
            http.timeouts.connect = timeout;
            http.said.connect = By::Resolver;
        }
    }
}
