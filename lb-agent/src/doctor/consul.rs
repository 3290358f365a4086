//! Whether Consul answers, is one, and tells this node what it asks for.

use super::{Finding, clock};
use crate::source::{
    consul::ConsulOptions,
    consul_visit::{self, Visit},
};

const SUBJECT: &str = "Consul";

/// Visits it.
pub(super) async fn examine(options: &ConsulOptions) -> Vec<Finding> {
    findings(&options.address, consul_visit::visit(options).await)
}

fn findings(address: &str, visit: Result<Visit, String>) -> Vec<Finding> {
    let visit = match visit {
        Ok(visit) => visit,
        // The agent starts without it, from what it knew last.
        Err(error) => {
            return vec![Finding::advice(
                SUBJECT,
                error,
                format!(
                    "`curl {address}/v1/status/leader` must answer from here; see `address` under \
                     [consul]"
                ),
            )];
        }
    };
    let mut findings = vec![if visit.leader {
        let version = visit.version.as_deref();
        let version = version.map_or(String::new(), |version| format!(", version {version}"));
        Finding::fine(SUBJECT, format!("{address} answers{version}"))
    } else {
        Finding::advice(
            SUBJECT,
            format!("{address} answers, and has no leader"),
            "`consul operator raft list-peers` on a server",
        )
    }];
    findings.push(rights(&visit));
    findings.extend(visit.skew.map(|(apart, ahead)| clock::skew(apart, ahead)));
    findings
}

fn rights(visit: &Visit) -> Finding {
    const SUBJECT: &str = "Consul's token";
    if visit.unknown_token {
        return Finding::advice(
            SUBJECT,
            "Consul does not know the token",
            "`consul acl token create -policy-name lb-agent`, and its SecretID into the file that \
             `token_file` under [consul] names",
        );
    }
    if visit.denied.is_empty() {
        return Finding::fine(SUBJECT, "allows what the agent reads");
    }
    Finding::advice(
        SUBJECT,
        format!("does not allow {}", visit.denied.join(", ")),
        "`consul acl policy update -name lb-agent -rules 'service_prefix \"\" { policy = \"read\" } \
         node_prefix \"\" { policy = \"read\" } key_prefix \"lb/\" { policy = \"read\" }'`",
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_answer_has_its_findings() {
        let good = || Visit {
            leader: true,
            version: Some("1.8.7".into()),
            skew: Some((Duration::ZERO, true)),
            ..Visit::default()
        };
        let hour = Some((Duration::from_secs(3600), false));
        let rows = [
            (Ok(good()), "", ""),
            (
                Ok(Visit {
                    version: None,
                    skew: None,
                    ..good()
                }),
                "",
                "",
            ),
            (
                Ok(Visit {
                    leader: false,
                    ..good()
                }),
                "Consul",
                "list-peers",
            ),
            (
                Ok(Visit {
                    skew: hour,
                    ..good()
                }),
                "Consul's clock",
                "chronyc",
            ),
            (
                Ok(Visit {
                    denied: vec!["node_prefix read"],
                    ..good()
                }),
                "Consul's token",
                "acl policy update",
            ),
            (
                Ok(Visit {
                    unknown_token: true,
                    ..good()
                }),
                "Consul's token",
                "acl token create",
            ),
            (
                Err("refused".into()),
                "Consul",
                "`curl http://c:8500/v1/status/leader`",
            ),
        ];
        for (visit, subject, mend) in rows {
            let findings = findings("http://c:8500", visit);
            crate::doctor::tests::nothing_wrong_but(&findings, subject, mend);
        }
    }
}
