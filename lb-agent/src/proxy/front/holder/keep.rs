//! The agent's side: what it found held, and what it has held.

use std::{collections::BTreeMap, io, net::TcpListener, path::PathBuf, process::Child};

use tracing::{info, warn};

use super::{
    Key,
    link::{Link, Message},
    start::{self, Start},
};

/// See the module's documentation.
#[derive(Debug)]
pub struct Keep {
    path: PathBuf,
    start: Start,
    link: Option<Link>,
    /// Of a holder that this agent has begun.
    child: Option<Child>,
    /// Held for an agent before this one, and not asked for yet.
    found: BTreeMap<Key, Vec<TcpListener>>,
    /// What is to be held, to give it to another holder should this one end.
    kept: BTreeMap<Key, Vec<TcpListener>>,
    is_serving: bool,
    problem: Option<String>,
}

impl Keep {
    /// Takes what is held by the process that listens on `path`, if there is one. When one is
    /// needed later, `start` begins it.
    pub fn find(path: PathBuf, start: Start) -> Self {
        let mut keep = Self {
            path,
            start,
            link: None,
            child: None,
            found: BTreeMap::new(),
            kept: BTreeMap::new(),
            is_serving: false,
            problem: None,
        };
        if let Ok(link) = Link::connect(&keep.path) {
            match take_all(&link) {
                Ok(found) => {
                    let sockets = found.values().map(Vec::len).sum::<usize>();
                    info!(sockets, "taking over the former agent's listening sockets");
                    keep.found = found;
                    keep.link = Some(link);
                }
                Err(error) => {
                    warn!(%error, "the former agent's listening sockets cannot be taken over");
                    // What waits there would wait for nothing.
                    let _ = link.send(&Message::End, &[]);
                }
            }
        }
        keep
    }

    /// The sockets that were held for this. They still are.
    pub fn take(&mut self, key: &Key) -> Vec<TcpListener> {
        let sockets = self.found.remove(key).unwrap_or_default();
        let remembered = self.remember(key, &sockets);
        self.judge(remembered);
        sockets
    }

    /// Has these held, too.
    pub fn hold(&mut self, key: &Key, sockets: &[TcpListener]) {
        if sockets.is_empty() {
            return;
        }
        let remembered = self.remember(key, sockets);
        let held = remembered.and_then(|()| match &self.link {
            Some(link) => link.send_all(&Message::Hold(key.clone()), sockets.iter()),
            None => self.renew(),
        });
        self.judge(held);
    }

    /// From now on connections are served: while there is no other agent, they wait for one.
    pub fn serve(&mut self) {
        if std::mem::replace(&mut self.is_serving, true) {
            return;
        }
        if let Some(link) = &self.link {
            let told = link.send(&Message::Serving, &[]);
            self.judge(told);
        }
    }

    /// Has none of these held any more.
    pub fn release(&mut self, key: &Key) {
        self.found.remove(key);
        self.kept.remove(key);
        if let Some(link) = &self.link {
            let released = link.send(&Message::Release(key.clone()), &[]);
            self.judge(released);
        }
    }

    /// Releases those that were found and of which nobody will ask.
    pub fn forget(&mut self, is_forgotten: impl Fn(&Key) -> bool) {
        let keys = self.found.keys().filter(|key| is_forgotten(key));
        for key in keys.cloned().collect::<Vec<_>>() {
            info!(address = %key.address, service = key.service.as_deref(), "no longer taking requests");
            self.release(&key);
        }
    }

    /// Looks whether the holder is there, and begins another one if it is not. One that holds
    /// nothing is ended.
    pub fn look(&mut self) {
        if let Some(child) = &mut self.child
            && !matches!(child.try_wait(), Ok(None))
        {
            self.child = None;
        }
        if self.link.as_ref().is_some_and(Link::is_closed) {
            warn!("the process that holds listening sockets has ended");
            self.link = None;
        }
        match &self.link {
            None if !self.kept.is_empty() => {
                let renewed = self.renew();
                self.judge(renewed);
            }
            Some(link) if self.kept.is_empty() && self.found.is_empty() => {
                // If it has gone by itself, so much the better.
                let _ = link.send(&Message::End, &[]);
                self.link = None;
            }
            _ => {}
        }
    }

    /// What keeps sockets from being held.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    fn remember(&mut self, key: &Key, sockets: &[TcpListener]) -> io::Result<()> {
        for socket in sockets {
            let socket = socket.try_clone()?;
            self.kept.entry(key.clone()).or_default().push(socket);
        }
        Ok(())
    }

    /// Begins a holder, and gives it everything.
    fn renew(&mut self) -> io::Result<()> {
        let (link, child) = start::start(&self.path, self.start)?;
        self.child = child;
        for (key, sockets) in self.kept.iter().chain(&self.found) {
            link.send_all(&Message::Hold(key.clone()), sockets.iter())?;
        }
        if self.is_serving {
            link.send(&Message::Serving, &[])?;
        }
        self.link = Some(link);
        Ok(())
    }

    fn judge(&mut self, outcome: io::Result<()>) {
        let Err(error) = outcome else {
            self.problem = None;
            return;
        };
        // It is tried again at the next look, with another one.
        self.link = None;
        let problem =
            format!("nothing holds the proxy's listening sockets over a restart: {error}");
        if self.problem.as_ref() != Some(&problem) {
            warn!("{problem}");
        }
        self.problem = Some(problem);
    }
}

fn take_all(link: &Link) -> io::Result<BTreeMap<Key, Vec<TcpListener>>> {
    let mut found: BTreeMap<Key, Vec<TcpListener>> = BTreeMap::new();
    link.send(&Message::Take, &[])?;
    loop {
        match link.receive()? {
            Some((Message::Held(key), sockets)) => {
                let sockets = sockets.into_iter().map(TcpListener::from);
                found.entry(key).or_default().extend(sockets);
            }
            Some((Message::All, _)) => return Ok(found),
            Some(_) => {}
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
