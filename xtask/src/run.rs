//! Running other programs: one sentence when one fails, naming what was to be done and to what.

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::workspace;

/// The cargo that runs this tool, in the top of the tree.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace::root());
    cargo
}

/// A program, in the top of the tree.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace::root());
    command
}

/// Runs `command` with this process's input and output. `task` completes "could not …".
///
/// # Errors
/// The command cannot be started or does not succeed.
pub(crate) fn run(task: &str, command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| cannot_start(task, command))?;
    succeeded(task, command, status)
}

fn succeeded(task: &str, command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!(
            "could not {task}: `{}` ended with {status}",
            command_line(command)
        );
    }
    Ok(())
}

/// [`run`], where each line of the standard output, with its end, goes to `take` as it comes.
///
/// # Errors
/// The command cannot be started or does not succeed, or a line cannot be taken.
pub(crate) fn for_each_line(
    task: &str,
    command: &mut Command,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<()> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| cannot_start(task, command))?;
    let mut output = BufReader::new(child.stdout.take().context("no pipe to the command")?);
    let mut line = Vec::new();
    // To its end, even if nobody takes any more: the command tidies up before it ends.
    let mut taken = Ok(());
    while output.read_until(b'\n', &mut line)? > 0 {
        if taken.is_ok() {
            taken = take(&line);
        }
        line.clear();
    }
    succeeded(task, command, child.wait()?)?;
    taken.with_context(|| format!("cannot pass on what `{}` writes", command_line(command)))
}

/// Runs `command` and gives back what it wrote to its standard output.
///
/// # Errors
/// The command cannot be started, does not succeed, or writes something other than UTF-8.
pub(crate) fn output(task: &str, command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| cannot_start(task, command))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "could not {task}: `{}` ended with {}: {}",
            command_line(command),
            output.status,
            said.trim()
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` did not write UTF-8", command_line(command)))
}

/// Replaces this process by `command`, so that signals and the exit code are the command's own
/// affair: after Ctrl-C it can tidy up without anybody leaving before it.
///
/// # Errors
/// Returns only when the command cannot be started.
pub(crate) fn become_command(task: &str, command: &mut Command) -> Result<()> {
    let error = command.exec();
    Err(anyhow!(error).context(cannot_start(task, command)))
}

/// Whether this process may do what only root may.
pub(crate) fn is_root() -> bool {
    // The owner of /proc/self is the process's effective user.
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

/// Fails unless this process is root. `task` completes "… needs root".
///
/// # Errors
/// Not root.
pub(crate) fn require_root(task: &str) -> Result<()> {
    if !is_root() {
        bail!("{task} needs root, for network namespaces and BPF: run it as root");
    }
    Ok(())
}

/// Looks `program` up in PATH and in the places of administration that an ordinary user's PATH
/// leaves out.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

fn cannot_start(task: &str, command: &Command) -> String {
    format!(
        "could not {task}: `{}` did not start",
        command_line(command)
    )
}

/// The command as a person would type it, without its environment.
fn command_line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_task_command_and_status() {
        let error = run("greet the world", Command::new("false").arg("hello")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not greet the world: `false hello` ended with exit status: 1"
        );
    }

    #[test]
    fn lines_are_taken_whole_and_the_command_runs_to_its_end() {
        let command = |status| {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("printf 'one\\n\\ntwo'; exit {status}")]);
            command
        };
        let mut lines = Vec::new();
        let error = for_each_line("try", &mut command(3), |line| {
            lines.push(line.to_owned());
            Ok(())
        });
        assert_eq!(lines, [&b"one\n"[..], b"\n", b"two"]);
        let error = error.unwrap_err().to_string();
        assert!(error.ends_with("exit status: 3"), "{error}");

        let full = |_: &[u8]| Err(io::Error::other("no room"));
        let error = for_each_line("try", &mut command(0), full).unwrap_err();
        assert!(format!("{error:#}").ends_with("no room"), "{error:#}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = run("greet", &mut Command::new("/nonexistent/greeter")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not greet: `/nonexistent/greeter` did not start"
        );
    }

    #[test]
    fn a_failed_question_carries_what_the_command_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such thing >&2; exit 3"]);
        let error = output("ask", &mut command).unwrap_err().to_string();
        assert!(error.ends_with("exit status: 3: no such thing"), "{error}");
    }
}
