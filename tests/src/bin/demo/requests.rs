//! The step of the demo that goes through the proxy: requests that are balanced one by one.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::{screen::Screen, stage::Stage, steps::run};

/// Requests on each listener.
const REQUESTS: usize = 10;

/// Requests find their service by its host, on the node itself.
pub(crate) fn by_host(screen: &mut Screen, stage: &Stage) -> Result<()> {
    screen.heading("Requests find their service by its host");
    screen.say(
        "The service web has no address of its own. The proxy in the agent takes requests for it on\n\
         ports that all services share, and balances each by itself, with retries and timeouts.",
    );
    for (host, place) in [
        ("echo.consul.localhost", "localhost:80"),
        ("echo", "localhost:4140"),
    ] {
        let header = format!("Host: {host}");
        let arguments = [
            "--silent",
            "--show-error",
            "--max-time",
            "5",
            "-H",
            &header,
            place,
        ];
        screen.command(&format!(
            "for i in $(seq {REQUESTS}); do curl -H \"{header}\" {place}; done"
        ));
        let node = stage.topology.node();
        let answers = (0..REQUESTS)
            .map(|_| node.tool("curl", &arguments))
            .collect::<Result<Vec<_>>>()?;
        let answers: Vec<&str> = answers.iter().map(|answer| answer.trim()).collect();
        screen.output(&answers.join("\n"));
        let from: BTreeSet<String> = answers.iter().filter_map(|body| backend(body)).collect();
        // Of ten, chance leaves one backend out now and then, two hardly ever.
        screen.check(
            from.len() >= 2,
            &format!(
                "{} of {} backends answered",
                from.len(),
                stage.backends.len()
            ),
        );
    }
    run(screen, stage, &["explain", "echo", "/"])
}

/// Which backend has answered with this.
fn backend(body: &str) -> Option<String> {
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    Some(body["hostname"].as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_told_apart_by_their_answers() {
        let body = "{\"hostname\":\"b1\",\"text\":\"hello\"}";
        assert_eq!(backend(body).as_deref(), Some("b1"));
        assert_eq!(backend("502 no answer"), None);
    }
}
