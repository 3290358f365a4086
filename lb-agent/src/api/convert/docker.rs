//! How the registration of containers stands, into a message.

use super::{count, proto, unix_ms};
use crate::domain::registration::RegistrarStatus;

pub(super) fn docker(status: &RegistrarStatus) -> proto::Docker {
    proto::Docker {
        containers: count(status.containers),
        wanted: status.wanted.map(count),
        registered: count(status.registered),
        last_sync_unix_ms: status.last_sync.map(unix_ms),
        engine_error: status.engine_error.clone(),
        consul_error: status.consul_error.clone(),
        refusals: status.refusals.clone(),
        warnings: status.warnings.iter().cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn what_is_told_of_it() {
        let status = RegistrarStatus {
            containers: 2,
            wanted: Some(3),
            registered: 1,
            last_sync: Some(UNIX_EPOCH + Duration::from_secs(140)),
            engine_error: Some("gone".into()),
            warnings: ["odd".to_owned()].into(),
            ..RegistrarStatus::default()
        };
        let expected = proto::Docker {
            containers: 2,
            wanted: Some(3),
            registered: 1,
            last_sync_unix_ms: Some(140_000),
            engine_error: Some("gone".into()),
            consul_error: None,
            refusals: vec![],
            warnings: vec!["odd".into()],
        };
        assert_eq!(docker(&status), expected);
    }
}
