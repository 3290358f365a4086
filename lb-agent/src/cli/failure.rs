//! What went wrong, the exit code it has, and how it is said.

use std::{
    error::Error,
    fmt,
    io::{self, Write},
};

use tonic::{Code, Status};

use super::client::Unreachable;
use crate::config::ConfigError;

/// So many wrong lines or arguments are shown.
const SHOWN: usize = 20;

/// Why a command did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The arguments, a file of addresses or the configuration are wrong; each finding is a
    /// sentence. Not empty.
    Invalid(Vec<String>),
    /// The configuration is wrong; each finding with its line and what is wrong with it.
    Configuration(ConfigError),
    /// The agent understood and refused or failed; its sentence.
    Refused(String),
    /// There is no agent to talk to.
    Unreachable(Unreachable),
    /// The agent has problems, which were printed.
    Unhealthy,
    /// What was waited for has not come: there are flows left, or had to be cut.
    Remaining(String),
    /// Ctrl-C ended the waiting; what stays as it is.
    Interrupted(String),
    /// Something on this side failed.
    Run(anyhow::Error),
    /// The reader of the output went away, as `head` does: not worth a word.
    OutputClosed,
}

impl Failure {
    pub(super) fn invalid(finding: impl fmt::Display) -> Self {
        Failure::Invalid(vec![finding.to_string()])
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Failure::OutputClosed => 0,
            Failure::Refused(_) | Failure::Run(_) => 1,
            Failure::Invalid(_) | Failure::Configuration(_) => 2,
            Failure::Unhealthy => 3,
            Failure::Unreachable(_) => 4,
            Failure::Remaining(_) => 5,
            // As a shell tells of a command that SIGINT ended.
            Failure::Interrupted(_) => 130,
        }
    }

    /// Says it, each sentence behind the program's name.
    pub(super) fn report(&self, stderr: &mut dyn Write) -> io::Result<()> {
        if let Failure::Configuration(error) = self {
            // Its lines begin with the file's name, as those of a compiler do.
            return writeln!(stderr, "{error}");
        }
        for sentence in self.to_string().lines() {
            writeln!(stderr, "lb-agent: {sentence}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Invalid(findings) => {
                let shown = &findings[..findings.len().min(SHOWN)];
                f.write_str(&shown.join("\n"))?;
                match findings.len() - shown.len() {
                    0 => Ok(()),
                    more => write!(f, "\n{more} more of this kind are not shown"),
                }
            }
            Failure::Configuration(error) => error.fmt(f),
            Failure::Refused(sentence)
            | Failure::Remaining(sentence)
            | Failure::Interrupted(sentence) => f.write_str(sentence),
            Failure::Unreachable(error) => error.fmt(f),
            // The problems have been printed, and a closed pipe has no reader.
            Failure::Unhealthy | Failure::OutputClosed => Ok(()),
            Failure::Run(error) => f.write_str(&told_once(error)),
        }
    }
}

/// An error with its causes, but for those that the text before them ends with already: our own
/// errors tell their cause and keep it as well.
fn told_once(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

impl From<Unreachable> for Failure {
    fn from(error: Unreachable) -> Self {
        Failure::Unreachable(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Failure::OutputClosed
        } else {
            Failure::Run(anyhow::Error::new(error).context("cannot write the result"))
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        // A status with a source was made on this side, of an error of the connection.
        if let Some(source) = status.source() {
            return Unreachable::broken(source).into();
        }
        let sentence = status.message().to_owned();
        match status.code() {
            Code::InvalidArgument => Failure::invalid(sentence),
            Code::Unavailable => Unreachable::GoingAway(sentence).into(),
            Code::Unimplemented => Failure::Refused(
                "the running agent is older than this program and does not know this command; \
                 restart it"
                    .into(),
            ),
            _ => Failure::Refused(sentence),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::kernel::KernelError;

    /// What the agent answers, and what the caller's script sees.
    #[test]
    fn codes_of_the_agent_become_exit_codes() {
        let rows = [
            (Status::invalid_argument("x"), 2),
            (Status::not_found("x"), 1),
            (Status::failed_precondition("x"), 1),
            (Status::internal("x"), 1),
            (Status::unavailable("x"), 4),
            (Status::unimplemented(""), 1),
            (Status::from_error(Box::new(io::Error::other("reset"))), 4),
        ];
        for (status, code) in rows {
            let told = format!("{status:?}");
            let failure = Failure::from(status);
            assert_eq!(failure.exit_code(), code, "{told}");
            assert!(!failure.to_string().is_empty(), "{told}");
        }
        assert_eq!(Failure::Unhealthy.exit_code(), 3);
    }

    #[test]
    fn a_closed_pipe_is_success_and_silent_a_full_disk_is_neither() {
        let report = |failure: Failure| {
            let mut text = Vec::new();
            failure.report(&mut text).unwrap();
            (failure.exit_code(), String::from_utf8(text).unwrap())
        };
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(report(closed.into()), (0, String::new()));
        let full = io::Error::other("no space");
        assert_eq!(
            report(full.into()),
            (1, "lb-agent: cannot write the result: no space\n".into())
        );
    }

    #[test]
    fn a_cause_is_told_once() {
        let inner = || io::Error::other("no such device");
        let ours = KernelError::new("looking for interface x", inner());
        let foreign = anyhow::Error::new(inner()).context("listening");
        let rows = [
            (ours.into(), "looking for interface x: no such device"),
            (foreign, "listening: no such device"),
        ];
        for (error, expected) in rows {
            assert_eq!(Failure::Run(error).to_string(), expected);
        }
    }

    #[test]
    fn findings_stand_on_lines_of_their_own_and_do_not_flood() {
        let mut text = Vec::new();
        let findings = (1..=SHOWN + 2).map(|n| format!("line {n}")).collect();
        Failure::Invalid(findings).report(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), SHOWN + 1);
        assert_eq!(lines[0], "lb-agent: line 1");
        assert_eq!(lines[SHOWN], "lb-agent: 2 more of this kind are not shown");
    }
}
