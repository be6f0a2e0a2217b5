//! The loop between proxies, keys, signals and the screen.

use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{Signal, raise};
use ratatui::crossterm::event::{self, Event};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval};

use super::input::input;
use super::render::Theme;
use super::screen::Screen;
use super::state::{Effect, Top};
use crate::console::{colours_on_stdout, speaks_utf8};
use crate::nodes::{Asker, Sighting};
use crate::signals::StopSignals;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By a key.
    Quit,
    /// By a signal.
    Interrupted,
}

/// Shows the nodes until a key or a signal ends it. Needs a `LocalSet`.
///
/// # Errors
/// If the terminal cannot be used, or is gone.
pub(crate) async fn watch(asker: Asker, every: Duration) -> anyhow::Result<Ended> {
    let mut stops = StopSignals::new().context("cannot listen to signals")?;
    let kind = |signal: Signal| SignalKind::from_raw(signal as i32);
    let mut suspended = signal(kind(Signal::SIGTSTP))?;
    let mut continued = signal(kind(Signal::SIGCONT))?;
    let theme = Theme { colours: colours_on_stdout(), unicode: speaks_utf8() };
    let mut screen = Screen::enter(theme).context("cannot use this terminal")?;
    let mut top = Top::new(Instant::now());
    let mut sightings = look_around(asker, every);
    let mut events = listen();
    let mut effect = Effect::Draw;
    loop {
        match effect {
            Effect::Quit => return Ok(Ended::Quit),
            Effect::Suspend => {
                screen.leave();
                // Everything stops here, until somebody continues us: then SIGCONT is heard below.
                raise(Signal::SIGSTOP)?;
            }
            Effect::Nothing => {}
            Effect::Draw => screen.draw(&mut top)?,
            Effect::Redraw => {
                screen.clear()?;
                screen.draw(&mut top)?;
            }
        }
        effect = tokio::select! {
            Some(round) = sightings.recv() => top.observe(round, Instant::now()),
            event = events.recv() => on_event(event, &mut top)?,
            _ = suspended.recv() => Effect::Suspend,
            _ = continued.recv() => {
                screen.resume()?;
                Effect::Redraw
            }
            () = stops.next() => return Ok(Ended::Interrupted),
        };
    }
}

fn on_event(event: Option<std::io::Result<Event>>, top: &mut Top) -> anyhow::Result<Effect> {
    let event = event.context("the terminal is gone")?.context("cannot read from this terminal")?;
    Ok(match event {
        Event::Key(key) => input(key).map_or(Effect::Nothing, |input| top.input(input)),
        Event::Resize(..) => Effect::Draw,
        _ => Effect::Nothing,
    })
}

/// Asks in a steady rhythm; a round that takes longer delays the next.
fn look_around(asker: Asker, every: Duration) -> Receiver<Vec<Sighting>> {
    let (sender, receiver) = mpsc::channel(1);
    spawn_local(async move {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if sender.send(asker.ask().await).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// Keys and changes of size. The thread waits in the kernel, and ends with the process.
fn listen() -> Receiver<std::io::Result<Event>> {
    let (sender, receiver) = mpsc::channel(64);
    std::thread::spawn(move || {
        loop {
            let event = event::read();
            let is_over = event.is_err();
            if sender.blocking_send(event).is_err() || is_over {
                return;
            }
        }
    });
    receiver
}
