//! The way of a generation's events to its client: a bounded channel, and what happens when nobody reads it.
//!
//! The engine never waits for a client. It asks before a step whether there is room for all that the step can
//! bring ([`Sender::has_room`]); a sequence without stands still until its client has read. A client that
//! reads, or leaves, while its sequence stands still wakes the engine, which may be asleep.

use crate::request::GenerationEvent;
use crate::worker::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst, fence};
use std::sync::mpsc as inbox;
use tokio::sync::mpsc;

/// Most events that wait for a client. A sequence that has so many stands still.
pub(crate) const EVENTS_MAX: usize = 256;
/// Most events of one token: its text, what was held back, the end, and one to spare.
const EVENTS_PER_TOKEN: usize = 4;
/// Room at which a sequence that stood still goes on: half, so that it does not stutter.
const ROOM_TO_RESUME: usize = EVENTS_MAX / 2;

/// The engine's end.
#[derive(Debug)]
pub(crate) struct Sender {
    events: mpsc::Sender<GenerationEvent>,
    parked: Arc<AtomicBool>,
}

/// The client's end.
#[derive(Debug)]
pub(crate) struct Receiver {
    events: mpsc::Receiver<GenerationEvent>,
    /// Whether the engine wants to be woken.
    parked: Arc<AtomicBool>,
    engine: inbox::Sender<Command>,
}

/// A channel whose receiver wakes the thread that reads `engine`.
pub(crate) fn channel(engine: inbox::Sender<Command>) -> (Sender, Receiver) {
    // One place is kept for an error.
    let (sender, receiver) = mpsc::channel(EVENTS_MAX + 1);
    let parked = Arc::new(AtomicBool::new(false));
    let sender = Sender { events: sender, parked: Arc::clone(&parked) };
    (sender, Receiver { events: receiver, parked, engine })
}

impl Sender {
    /// Sends an event for which there is room, or to nobody.
    pub(crate) fn send(&self, event: GenerationEvent) {
        drop(self.events.try_send(event));
    }

    /// Whether the client went away.
    pub(crate) fn is_closed(&self) -> bool {
        self.events.is_closed()
    }

    /// Whether another token's events can be sent.
    pub(crate) fn has_room(&self) -> bool {
        self.events.capacity() > EVENTS_PER_TOKEN
    }

    /// Asks to be woken once the client reads or leaves. False when there is no need any more.
    pub(crate) fn park(&self) -> bool {
        self.parked.store(true, SeqCst);
        // Either the client sees this, or what it has read is seen here.
        fence(SeqCst);
        if self.events.capacity() < ROOM_TO_RESUME && !self.is_closed() {
            return true;
        }
        self.parked.store(false, SeqCst);
        false
    }

    /// Whether a parked sequence may go on.
    pub(crate) fn is_ready(&self) -> bool {
        self.events.capacity() >= ROOM_TO_RESUME || self.is_closed()
    }
}

impl Receiver {
    pub(crate) async fn recv(&mut self) -> Option<GenerationEvent> {
        let event = self.events.recv().await;
        self.wake();
        event
    }

    pub(crate) fn blocking_recv(&mut self) -> Option<GenerationEvent> {
        let event = self.events.blocking_recv();
        self.wake();
        event
    }

    /// Wakes the engine if it waits for this client and there is room.
    fn wake(&self) {
        fence(SeqCst);
        let ready = self.events.capacity() >= ROOM_TO_RESUME;
        if self.parked.load(SeqCst) && ready && self.parked.swap(false, SeqCst) {
            // An engine that has ended needs no waking.
            drop(self.engine.send(Command::Wake));
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.events.close();
        fence(SeqCst);
        if self.parked.swap(false, SeqCst) {
            drop(self.engine.send(Command::Wake));
        }
    }
}
