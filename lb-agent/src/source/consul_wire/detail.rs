//! What is listed beside an instance, for those who ask for it.

use super::{Check, Entry, Text, normal_weight};
use crate::domain::detail::{self, Detail};

impl Entry<'_> {
    pub(super) fn detail(&self) -> Detail {
        let (node, service) = (&self.node, &self.service);
        let meta = node.meta.iter().flatten();
        let weights = service.weights.as_ref();
        Detail {
            service: owned(&service.name),
            address: owned(&service.address),
            weights: (
                normal_weight(weights.and_then(|weights| weights.passing)),
                normal_weight(weights.and_then(|weights| weights.warning)),
            ),
            node_address: owned(&node.address),
            datacenter: owned(&node.datacenter),
            node_meta: meta
                .map(|(key, value)| (key.0.to_string(), value.0.to_string()))
                .collect(),
            checks: self.checks.iter().flatten().map(Check::detail).collect(),
        }
    }
}

impl Check<'_> {
    fn detail(&self) -> detail::Check {
        let tags = self.service_tags.iter().flatten();
        detail::Check {
            id: self.id.to_string(),
            name: owned(&self.name),
            status: self.status.to_string(),
            node: owned(&self.node),
            notes: owned(&self.notes),
            output: owned(&self.output),
            service_id: owned(&self.service_id),
            service_name: owned(&self.service_name),
            service_tags: tags.map(|tag| tag.0.to_string()).collect(),
        }
    }
}

fn owned(text: &Option<Text<'_>>) -> String {
    text.as_deref().unwrap_or_default().to_owned()
}
