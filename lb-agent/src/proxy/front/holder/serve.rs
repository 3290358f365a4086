//! The process that holds sockets.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{SocketFlags, accept_with, sockopt::socket_acceptconn},
    process::setsid,
    thread::set_name,
};

use super::{
    Key,
    link::{Link, Message},
};

/// How long connections wait for an agent.
const PATIENCE: Duration = Duration::from_secs(60);

/// What becomes of an agent's connection.
enum Turn {
    On,
    /// The agent serves.
    Serving,
    End,
}

/// An agent that is connected.
struct Agent {
    link: Link,
    is_serving: bool,
}

/// Holds sockets until for a minute there is no agent, or `detach` ends it. Standard input is the
/// socket that it listens on.
///
/// # Errors
///
/// It is none, or fails.
pub fn run() -> anyhow::Result<()> {
    let listener = io::stdin().as_fd().try_clone_to_owned()?;
    ensure!(
        socket_acceptconn(&listener).unwrap_or(false),
        "standard input is no listening socket: the agent begins this by itself"
    );
    // What ends the agent, its terminal or its directory should not end this. It leads a group
    // already if it was begun by hand.
    let _ = setsid();
    let _ = std::env::set_current_dir("/");
    let _ = set_name(c"lb-agent-hold");
    // A thousand services on as many threads as there may be.
    crate::surroundings::raise_open_files();
    serve(&listener, PATIENCE).context("cannot wait for an agent")
}

/// Holds what agents give, until none has been there for so long. One that went before it served does not
/// count, or connections would wait for ever for one that cannot start.
pub(super) fn serve(listener: &OwnedFd, patience: Duration) -> io::Result<()> {
    let mut held = BTreeMap::new();
    let mut agents: Vec<Agent> = Vec::new();
    let mut until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if agents.is_empty() && left.is_zero() {
            return Ok(());
        }
        let timeout = agents.is_empty().then(|| wait(left));
        let mut polled = vec![PollFd::new(listener, PollFlags::IN)];
        polled.extend(
            agents
                .iter()
                .map(|agent| PollFd::new(&agent.link, PollFlags::IN)),
        );
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let mut ready = polled.iter().map(|one| !one.revents().is_empty());
        let is_called = ready.next().unwrap_or(false);
        let ready: Vec<bool> = ready.collect();
        let mut gone = Vec::new();
        for (place, _) in ready.iter().enumerate().filter(|(_, ready)| **ready) {
            match hear(&agents[place].link, &mut held) {
                Ok(Some(Turn::On)) => {}
                Ok(Some(Turn::Serving)) => agents[place].is_serving = true,
                Ok(Some(Turn::End)) => {
                    end(agents, place, &mut held);
                    return Ok(());
                }
                // Who says what is not understood is no agent of ours.
                Ok(None) | Err(_) => gone.push(place),
            }
        }
        for place in gone.into_iter().rev() {
            if agents.remove(place).is_serving {
                until = Instant::now() + patience;
            }
        }
        if is_called {
            let agent = accept_with(listener, SocketFlags::CLOEXEC);
            let agent = agent.map_err(io::Error::from).and_then(Link::new);
            agents.extend(agent.ok().map(|link| Agent {
                link,
                is_serving: false,
            }));
        }
    }
}

/// Ends, as the agent at `place` has said. When it has the answer, every other agent can see that
/// nothing is held any more.
fn end(mut agents: Vec<Agent>, place: usize, held: &mut BTreeMap<Key, Vec<OwnedFd>>) {
    let asks = agents.swap_remove(place);
    drop(agents);
    let count = held.values().map(Vec::len).sum();
    held.clear();
    // Who does not wait for the answer means it all the same.
    let _ = asks.link.send(&Message::Ended(count), &[]);
}

fn wait(time: Duration) -> Timespec {
    Timespec::try_from(time).unwrap_or(Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    })
}

/// Does what an agent says; `None` if it has gone.
fn hear(agent: &Link, held: &mut BTreeMap<Key, Vec<OwnedFd>>) -> io::Result<Option<Turn>> {
    let Some((message, sockets)) = agent.receive()? else {
        return Ok(None);
    };
    match message {
        Message::Hold(key) => held.entry(key).or_default().extend(sockets),
        Message::Release(key) => {
            held.remove(&key);
        }
        Message::Take => {
            for (key, sockets) in held.iter() {
                agent.send_all(&Message::Held(key.clone()), sockets.iter())?;
            }
            agent.send(&Message::All, &[])?;
        }
        Message::Serving => return Ok(Some(Turn::Serving)),
        Message::End => return Ok(Some(Turn::End)),
        // Not an agent's to say.
        Message::Held(_) | Message::All | Message::Ended(_) => {}
    }
    Ok(Some(Turn::On))
}
