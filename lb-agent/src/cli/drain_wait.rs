//! `drain --wait`: how many connections are left, until there are none or the patience ends.

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use tokio::signal;
use tonic::Streaming;

use super::{
    client::Unreachable,
    drain::Subject,
    failure::Failure,
    output::{Printer, between, counted, span},
};
use crate::{api::proto::WatchDrainResponse, domain::drain::Phase};

/// Where there is no terminal to redraw a line on: how often one is printed though nothing has
/// changed.
const REMINDER: Duration = Duration::from_secs(10);

/// What came next.
enum Next {
    Look(Box<WatchDrainResponse>),
    Timeout,
    CtrlC,
}

/// How somebody waits.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// At most so long.
    pub(super) timeout: Option<Duration>,
    /// For what others have taken out, and will put back.
    pub(super) follows: bool,
}

/// Shows progress until the drain has come to an end. On a terminal one line is redrawn; else each
/// change is a line.
///
/// # Errors
///
/// Connections are left or had to be cut, Ctrl-C was pressed, or the agent is gone. The drain
/// stays in all of these.
pub(super) async fn wait(
    mut looks: Streaming<WatchDrainResponse>,
    subject: &Subject,
    how: Patience,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let redraws = printer.is_for_people() && io::stdout().is_terminal();
    let mut left = 0;
    let mut shown: Option<(String, Instant)> = None;
    let patience = async {
        match how.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(patience);
    loop {
        let next = tokio::select! {
            look = looks.message() => Next::Look(Box::new(took(look, subject)?)),
            () = &mut patience => Next::Timeout,
            _ = signal::ctrl_c() => Next::CtrlC,
        };
        let look = match next {
            Next::Look(look) => look,
            ended => {
                if redraws {
                    printer.people("\n")?;
                }
                return Err(gave_up(&ended, subject, left, how));
            }
        };
        left = look.flows + look.local_connections;
        let phase = Phase::ALL
            .into_iter()
            .find(|phase| phase.name() == look.state);
        let ended = phase.is_none_or(Phase::is_end);
        if redraws {
            printer.people(&format!("\r\x1b[K{}", line(&look)))?;
            if ended {
                printer.people("\r\x1b[K")?;
            }
        } else if printer.is_for_people() {
            // How much time is left changes all the time, and is no reason for a line.
            let news = format!("{} {left}", look.state);
            let is_news = shown
                .as_ref()
                .is_none_or(|(last, at)| *last != news || at.elapsed() >= REMINDER);
            if is_news && !ended {
                printer.people(&format!("{}\n", line(&look)))?;
                shown = Some((news, Instant::now()));
            }
        } else {
            printer.line(&*look, |_| String::new())?;
        }
        if ended {
            return conclude(phase, &look, subject, begun.elapsed(), printer);
        }
    }
}

/// A look, or why none came.
fn took(
    look: Result<Option<WatchDrainResponse>, tonic::Status>,
    subject: &Subject,
) -> Result<WatchDrainResponse, Failure> {
    match look {
        Ok(Some(look)) => Ok(look),
        Ok(None) => {
            let sentence = format!(
                "the agent has stopped; {} stays drained, and it goes on with that when it is \
                 back",
                subject.name()
            );
            Err(Unreachable::GoingAway(sentence).into())
        }
        Err(status) => match status.code() {
            // The agent was killed.
            tonic::Code::Unknown | tonic::Code::Cancelled => {
                Err(Unreachable::broken(&status).into())
            }
            _ => Err(status.into()),
        },
    }
}

/// As in `3 connections left, 41s until they are cut`.
fn line(look: &WatchDrainResponse) -> String {
    let mut text = format!("{} left", counted(look.flows, "connection"));
    if look.local_connections > 0 {
        text = format!("{text}, and {} of local clients", look.local_connections);
    }
    let until = |at: Option<i64>| at.map(|at| span(seconds(between(look.now_unix_ms, at))));
    let is_node = look.leaves_unix_ms.is_some();
    if look.state == Phase::Grace.name()
        && let Some(grace) = until(look.leaves_unix_ms)
    {
        text = format!("{text}; VIPs are announced for {grace}");
    }
    match until(look.deadline_unix_ms) {
        Some(deadline) if is_node => format!("{text}; waiting for {deadline} at most"),
        Some(deadline) => format!("{text}, {deadline} until they are cut"),
        None => text,
    }
}

fn seconds(span: Duration) -> Duration {
    Duration::from_secs(span.as_millis().div_ceil(1000) as u64)
}

/// The end of a wait that the drain did not come to.
fn gave_up(ended: &Next, subject: &Subject, left: u64, how: Patience) -> Failure {
    let left = counted(left, "connection");
    let stays = match how.follows {
        true => format!("{} stays as it is, with {left} left", subject.name()),
        false => format!(
            "{} stays drained, with {left} left; `lb-agent undrain {}` puts it back",
            subject.name(),
            subject.words()
        ),
    };
    match ended {
        Next::CtrlC => Failure::Interrupted(format!("stopped waiting: {stays}")),
        _ => Failure::Remaining(format!(
            "gave up after {}: {stays}",
            span(how.timeout.unwrap_or_default())
        )),
    }
}

/// What the end means; `None`: an end that a newer agent knows.
fn conclude(
    phase: Option<Phase>,
    look: &WatchDrainResponse,
    subject: &Subject,
    took: Duration,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let name = subject.name();
    match phase {
        Some(Phase::Empty) => {
            let took = span(took.max(Duration::from_millis(1)));
            printer.people(&format!("{name} has no connections left, after {took}\n"))?;
            Ok(())
        }
        Some(Phase::Cut) => Err(Failure::Remaining(format!(
            "the deadline has passed: {} of {name} had to be cut",
            counted(look.cut_flows.unwrap_or(0), "connection")
        ))),
        Some(Phase::Expired) => Err(Failure::Remaining(format!(
            "the deadline has passed, and {name} still has {}; it stays drained, and nothing was \
             cut",
            counted(look.flows, "connection")
        ))),
        Some(Phase::Undrained) => Err(Failure::Refused(format!(
            "{name} is not drained any more: it was put back meanwhile"
        ))),
        _ => Err(Failure::Refused(format!(
            "the agent is of another version, and its word `{}` is not known here",
            look.state
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(state: &str, flows: u64) -> WatchDrainResponse {
        WatchDrainResponse {
            state: state.into(),
            flows,
            now_unix_ms: 10_000,
            ..Default::default()
        }
    }

    #[test]
    fn a_look_is_a_line() {
        let deadline = Some(51_200);
        let rows = [
            (look("draining", 1), "1 connection left"),
            (
                WatchDrainResponse {
                    deadline_unix_ms: deadline,
                    local_connections: 2,
                    ..look("draining", 3)
                },
                "3 connections left, and 2 of local clients, 42s until they are cut",
            ),
            (
                WatchDrainResponse {
                    leaves_unix_ms: Some(15_000),
                    deadline_unix_ms: deadline,
                    ..look("grace", 7)
                },
                "7 connections left; VIPs are announced for 5s; waiting for 42s at most",
            ),
            (
                WatchDrainResponse {
                    leaves_unix_ms: Some(5_000),
                    ..look("draining", 7)
                },
                "7 connections left",
            ),
        ];
        for (look, expected) in rows {
            assert_eq!(line(&look), expected);
        }
    }

    /// Each end with its exit code and the words that matter.
    #[test]
    fn ends_have_exit_codes() {
        let subject: Subject = {
            #[derive(clap::Parser)]
            struct Line {
                #[command(flatten)]
                subject: Subject,
            }
            let words = ["lb-agent", "echo", "10.1.0.2:8080"];
            <Line as clap::Parser>::parse_from(words).subject
        };
        let mut cut = look("cut", 0);
        cut.cut_flows = Some(3);
        let rows = [
            (look("empty", 0), None, 0, "has no connections left"),
            (
                cut,
                None,
                5,
                "3 connections of backend 10.1.0.2:8080 of echo had to be cut",
            ),
            (look("expired", 2), None, 5, "still has 2 connections"),
            (look("undrained", 2), None, 1, "put back meanwhile"),
            (look("odd", 2), None, 1, "`odd` is not known"),
            (
                look("draining", 2),
                Some(Next::Timeout),
                5,
                "gave up after 3s",
            ),
            (
                look("draining", 2),
                Some(Next::CtrlC),
                130,
                "stays drained, with 2 connections left; `lb-agent undrain echo 10.1.0.2:8080`",
            ),
        ];
        for (look, ended, code, words) in rows {
            let mut text = Vec::new();
            let mut printer = Printer::new(super::super::output::Format::Table, &mut text);
            let phase = Phase::ALL
                .into_iter()
                .find(|phase| phase.name() == look.state);
            let result = match ended {
                Some(ended) => {
                    let how = Patience {
                        timeout: Some(Duration::from_secs(3)),
                        follows: false,
                    };
                    Err(gave_up(&ended, &subject, look.flows, how))
                }
                None => {
                    let took = Duration::from_secs(1);
                    conclude(phase, &look, &subject, took, &mut printer)
                }
            };
            let exit = result.as_ref().map_or_else(Failure::exit_code, |()| 0);
            assert_eq!(exit, code, "{words}");
            let said = match result {
                Err(failure) => failure.to_string(),
                Ok(()) => String::from_utf8(text).unwrap(),
            };
            assert!(said.contains(words), "{said}");
        }
    }
}
