//! What `status` says of the registration of containers.

use super::whole_seconds;
use crate::{
    api::proto::StatusResponse,
    cli::output::{between, counted, one_line, span},
};

/// In one line.
pub(super) fn line(status: &StatusResponse) -> String {
    let Some(docker) = &status.docker else {
        return "not registered".into();
    };
    let Some(wanted) = docker.wanted else {
        return "Docker has not answered yet".into();
    };
    let agreed = match docker.last_sync_unix_ms {
        Some(at) => {
            let age = whole_seconds(between(at, status.now_unix_ms));
            format!("in agreement {} ago", span(age))
        }
        None => "not in agreement yet".into(),
    };
    format!(
        "{} running, {} of {} registered in Consul, {agreed}",
        docker.containers,
        docker.registered,
        counted(wanted.into(), "service")
    )
}

/// What is not followed in their labels, a line each; `None`: nothing.
pub(super) fn warnings(status: &StatusResponse) -> Option<String> {
    let warnings = &status.docker.as_ref()?.warnings;
    let lines = warnings
        .iter()
        .map(|text| format!("! {}\n", one_line(text)));
    (!warnings.is_empty()).then(|| lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::proto::Docker;

    #[test]
    fn how_far_it_is() {
        let status = |docker| StatusResponse {
            now_unix_ms: 1_000_000,
            docker,
            ..StatusResponse::default()
        };
        let begun = Docker {
            containers: 3,
            wanted: Some(2),
            registered: 1,
            ..Docker::default()
        };
        let done = Docker {
            registered: 2,
            last_sync_unix_ms: Some(998_500),
            warnings: vec!["container web: label A: no".into(), "b".into()],
            ..begun.clone()
        };
        let rows = [
            (None, "not registered"),
            (Some(Docker::default()), "Docker has not answered yet"),
            (
                Some(begun),
                "3 running, 1 of 2 services registered in Consul, not in agreement yet",
            ),
            (
                Some(done.clone()),
                "3 running, 2 of 2 services registered in Consul, in agreement 1s ago",
            ),
        ];
        for (docker, expected) in rows {
            assert_eq!(line(&status(docker)), expected);
        }
        assert_eq!(warnings(&status(None)), None);
        assert_eq!(warnings(&status(Some(Docker::default()))), None);
        let text = warnings(&status(Some(done))).unwrap();
        assert_eq!(text, "! container web: label A: no\n! b\n");
    }
}
