//! The loop: keys, looks and the clock go into the model, and the model onto the screen.

use std::{future::Future, io, pin::Pin, thread, time::Duration};

use ratatui::crossterm::event::{self, Event};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{self, Instant, MissedTickBehavior},
};

use super::{
    check,
    draw::{Setting, Theme, draw},
    look::{self, Look, Wanted},
    model::{Effect, Model},
    press::Press,
    screen::Screen,
};
use crate::{
    cli::{
        client::{Agent, Client},
        failure::Failure,
    },
    surroundings::host_name,
};

/// How long a selection must stand before the agent is asked: keys that are held down pass many.
const SETTLED: Duration = Duration::from_millis(120);
/// From a failed look to the next one, at least.
const AGAIN: Duration = Duration::from_secs(1);
/// A look that takes long is followed by so many times its length of rest, so that the agent of a
/// large node is not kept busy by being watched.
const REST: u32 = 4;
/// Keys and changes of size that wait to be taken.
const WAITING: usize = 64;

/// A look that has ended, well or not, with the connection if it can be used again.
type Outcome = (Option<Client>, Result<Look, Failure>);

enum News {
    Press(Press),
    /// The size has changed, say.
    Redraw,
    /// There is no terminal any more.
    Gone,
}

pub(super) async fn run(
    agent: Agent<'_>,
    mut model: Model,
    interval: Duration,
) -> Result<(), Failure> {
    let start = Instant::now();
    // What is wrong from the start is told as by any other command.
    let asked = model.wanted();
    let mut client = agent.connect().await?;
    let first = look::take(&mut client, &asked).await?;
    check(asked.backends_of.as_deref(), &first)?;
    model.took(first, start.elapsed());
    let mut client = Some(client);

    let mut ended = signal(SignalKind::terminate()).map_err(terminal)?;
    let mut hung_up = signal(SignalKind::hangup()).map_err(terminal)?;
    let setting = Setting {
        host: host_name().unwrap_or_else(|_| "this node".into()),
        theme: Theme::by_variable(std::env::var_os("NO_COLOR").as_deref()),
    };
    let mut screen = Screen::enter().map_err(terminal)?;
    let mut news = listen();
    let mut second = time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut asking: Option<Pin<Box<dyn Future<Output = Outcome> + '_>>> = None;
    // The first selection's backends are not known yet.
    let mut next = Instant::now() + interval.min(SETTLED * 2);
    let mut asked_at = Instant::now();
    loop {
        let now = start.elapsed();
        let drawn = screen.draw(|frame| draw(frame, &model, &setting, now));
        drawn.map_err(terminal)?;
        tokio::select! {
            arrived = news.recv() => {
                let mut arrived = arrived.unwrap_or(News::Gone);
                // All that has come is one change of the screen.
                loop {
                    match arrived {
                        News::Gone => return Ok(()),
                        News::Redraw => {}
                        News::Press(press) => match model.press(press) {
                            Effect::Nothing => {}
                            Effect::Ask => next = next.min(Instant::now() + SETTLED),
                            Effect::Suspend => screen.suspend().map_err(terminal)?,
                            Effect::Quit => return Ok(()),
                        },
                    }
                    match news.try_recv() {
                        Ok(another) => arrived = another,
                        Err(_) => break,
                    }
                }
            }
            (connection, outcome) = running(&mut asking) => {
                asking = None;
                client = connection;
                let took = asked_at.elapsed();
                match outcome {
                    Ok(look) => {
                        next = asked_at + interval.max(took * (REST + 1));
                        model.took(look, start.elapsed());
                        if !model.backends_are_known() {
                            next = next.min(Instant::now() + SETTLED);
                        }
                    }
                    Err(failure) => {
                        next = Instant::now() + interval.max(AGAIN);
                        model.failed(failure.to_string());
                    }
                }
            }
            () = time::sleep_until(next), if asking.is_none() && !model.paused => {
                asked_at = Instant::now();
                asking = Some(Box::pin(ask(agent, client.take(), model.wanted())));
            }
            // Ages grow.
            _ = second.tick() => {}
            _ = ended.recv() => return Ok(()),
            _ = hung_up.recv() => return Ok(()),
        }
    }
}

fn terminal(error: io::Error) -> Failure {
    Failure::Run(anyhow::Error::new(error).context("cannot use the terminal"))
}

/// The look that is under way; never ends if there is none.
async fn running(asking: &mut Option<Pin<Box<dyn Future<Output = Outcome> + '_>>>) -> Outcome {
    match asking {
        Some(look) => look.await,
        None => std::future::pending().await,
    }
}

async fn ask(agent: Agent<'_>, client: Option<Client>, wanted: Wanted) -> Outcome {
    let mut client = match client {
        Some(client) => client,
        None => match agent.connect().await {
            Ok(client) => client,
            Err(error) => return (None, Err(error.into())),
        },
    };
    match look::take(&mut client, &wanted).await {
        Ok(look) => (Some(client), Ok(look)),
        Err(failure) => (None, Err(failure)),
    }
}

/// Reads keys in a thread of its own, for the terminal is read blockingly. It ends with the process.
fn listen() -> mpsc::Receiver<News> {
    let (sender, receiver) = mpsc::channel(WAITING);
    thread::spawn(move || {
        loop {
            let news = match event::read() {
                Ok(Event::Key(key)) => match Press::of(key) {
                    Some(press) => News::Press(press),
                    None => continue,
                },
                Ok(Event::Resize(..)) => News::Redraw,
                Ok(_) => continue,
                Err(_) => News::Gone,
            };
            let last = matches!(news, News::Gone);
            if sender.blocking_send(news).is_err() || last {
                return;
            }
        }
    });
    receiver
}
