//! Where the agent writes and listens: directories, the port of the metrics, open files.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{Access, access, statvfs};

use super::Finding;
use crate::surroundings::{files_needed, too_few_files};

const MEBIBYTE: u64 = 1024 * 1024;

/// A list of a million rules, written beside its predecessor, takes less.
const ENOUGH: u64 = 128 * MEBIBYTE;

/// A directory that the agent keeps files in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directory {
    /// As configured.
    pub(super) path: PathBuf,
    /// The directory, or the nearest one above it that there is.
    pub(super) existing: PathBuf,
    pub(super) writable: bool,
    pub(super) free_bytes: u64,
    pub(super) free_files: u64,
}

/// Who listens where metrics are to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Free,
    Ours,
    Others,
    /// It cannot be listened on, and why.
    Impossible(String),
}

pub(super) fn directory(subject: &'static str, facts: &Directory) -> Finding {
    let path = facts.path.display();
    let existing = facts.existing.display();
    if !facts.writable {
        return Finding::missing(
            subject,
            format!("{existing} cannot be written to"),
            format!("`mount -o remount,rw` what it is on, or another {subject} under [node]"),
        );
    }
    if facts.free_bytes < ENOUGH || facts.free_files == 0 {
        return Finding::advice(
            subject,
            format!(
                "{path}: {} MiB and {} files are free; what a full disk does not take is lost with \
                 the next restart",
                facts.free_bytes / MEBIBYTE,
                facts.free_files
            ),
            format!("`du -xh {existing} | sort -h | tail` shows what takes the room"),
        );
    }
    Finding::fine(
        subject,
        format!("{path}: {} MiB free", facts.free_bytes / MEBIBYTE),
    )
}

pub(super) fn port(listen: SocketAddr, facts: &Port) -> Finding {
    const SUBJECT: &str = "metrics port";
    match facts {
        Port::Free => Finding::fine(SUBJECT, format!("{listen} is free")),
        Port::Ours => Finding::fine(SUBJECT, format!("an agent answers at {listen}")),
        Port::Others => Finding::missing(
            SUBJECT,
            format!("somebody else listens at {listen}"),
            format!(
                "`ss -ltnp sport = :{}` tells who; or another `listen` under [metrics]",
                listen.port()
            ),
        ),
        Port::Impossible(why) => Finding::missing(
            SUBJECT,
            format!("nobody can listen at {listen}: {why}"),
            "`ip address` shows this node's addresses; see `listen` under [metrics]",
        ),
    }
}

/// `files` may be open at most (absent: any number), `connections` is the proxy's bound.
pub(super) fn open_files(files: Option<u64>, connections: usize) -> Finding {
    const SUBJECT: &str = "open files";
    match too_few_files(files, connections) {
        None => Finding::fine(
            SUBJECT,
            match files {
                Some(files) => format!("{files} for {connections} connections of the proxy"),
                None => "no limit".into(),
            },
        ),
        Some(_) => Finding::advice(
            SUBJECT,
            format!(
                "{} for {connections} connections of the proxy, each of which may take two",
                files.unwrap_or(0)
            ),
            format!(
                "LimitNOFILE={} in the unit (`systemctl edit lb-agent`), `ulimit -Hn` in a shell, or \
                 fewer proxy.bounds.connections",
                files_needed(connections)
            ),
        ),
    }
}

/// Looks at a directory; creates nothing.
pub(super) fn look(path: &Path) -> Directory {
    let existing = path.ancestors().find(|path| path.is_dir());
    let existing = existing.unwrap_or(Path::new("/")).to_owned();
    let space = statvfs(&existing).ok();
    Directory {
        writable: access(&existing, Access::WRITE_OK | Access::EXEC_OK).is_ok(),
        // Of file systems that do not count, it is taken that there is room.
        free_bytes: space
            .as_ref()
            .filter(|space| space.f_blocks > 0)
            .map_or(u64::MAX, |space| {
                space.f_bavail.saturating_mul(space.f_frsize)
            }),
        free_files: space
            .filter(|space| space.f_files > 0)
            .map_or(u64::MAX, |space| space.f_favail),
        path: path.to_owned(),
        existing,
    }
}

/// Tries to listen, and asks whoever does already.
pub(super) fn try_port(listen: SocketAddr) -> Port {
    match TcpListener::bind(listen) {
        Ok(_) => Port::Free,
        Err(error) if error.kind() == ErrorKind::AddrInUse => match is_agent(listen) {
            true => Port::Ours,
            false => Port::Others,
        },
        Err(error) => Port::Impossible(error.to_string()),
    }
}

/// Whether an agent's metrics are served there.
fn is_agent(listen: SocketAddr) -> bool {
    const PATIENCE: Duration = Duration::from_secs(2);
    /// The agent's families stand in the first of them.
    const ENOUGH: u64 = 64 * 1024;
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&listen, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(ENOUGH).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    ask().is_ok_and(|answer| answer.contains("\nlb_"))
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    #[test]
    fn directories_must_have_room_and_take_files() {
        let good = || Directory {
            path: "/var/lib/lb-agent".into(),
            existing: "/var/lib".into(),
            writable: true,
            free_bytes: ENOUGH,
            free_files: 1,
        };
        let rows = [
            (good(), State::Fine, "128 MiB free"),
            (
                Directory {
                    free_bytes: ENOUGH - 1,
                    ..good()
                },
                State::Advice,
                "127 MiB",
            ),
            (
                Directory {
                    free_files: 0,
                    ..good()
                },
                State::Advice,
                "0 files",
            ),
            (
                Directory {
                    writable: false,
                    ..good()
                },
                State::Missing,
                "/var/lib cannot",
            ),
        ];
        for (facts, state, words) in rows {
            let finding = directory("state_dir", &facts);
            assert_eq!(finding.state, state, "{finding:?}");
            assert!(finding.found.contains(words), "{finding:?}");
        }
    }

    #[test]
    fn a_directory_that_is_not_there_yet_is_where_it_will_be() {
        let directory = tempfile::tempdir().unwrap();
        let facts = look(&directory.path().join("a/b"));
        assert_eq!(facts.existing, directory.path());
        assert!(facts.writable && facts.free_bytes > 0);
    }

    #[test]
    fn whoever_listens_is_told_apart() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        let answer = |text: &'static str| {
            let listener = free.try_clone().unwrap();
            std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 512]);
                stream.write_all(text.as_bytes()).unwrap();
            })
        };
        for (text, expected) in [
            (
                "HTTP/1.0 200 OK\r\n\r\n# HELP lb_up x\nlb_up 1\n",
                Port::Ours,
            ),
            ("HTTP/1.0 404 Not Found\r\n\r\n", Port::Others),
        ] {
            let server = answer(text);
            assert_eq!(try_port(address), expected);
            server.join().unwrap();
        }
        drop(free);
        assert_eq!(try_port(address), Port::Free);
        let foreign = try_port("192.0.2.1:9180".parse().unwrap());
        assert!(matches!(foreign, Port::Impossible(_)), "{foreign:?}");
        for (port_facts, state) in [
            (Port::Free, State::Fine),
            (Port::Ours, State::Fine),
            (Port::Others, State::Missing),
            (foreign, State::Missing),
        ] {
            assert_eq!(port(address, &port_facts).state, state);
        }
    }

    #[test]
    fn files_are_counted_against_connections() {
        let rows = [
            (None, State::Fine, ""),
            (Some(41_024), State::Fine, ""),
            (Some(41_023), State::Advice, "LimitNOFILE=41024"),
        ];
        for (files, state, mend) in rows {
            let finding = open_files(files, 20_000);
            assert_eq!(finding.state, state);
            assert!(finding.mend.unwrap_or_default().contains(mend));
        }
    }
}
