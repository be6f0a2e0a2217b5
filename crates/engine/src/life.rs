//! A thread that owns a model: how it lives and ends, and the handle that others hold.
//!
//! The engine and the embedder are one each. What they compute is their own; that a panic in what all requests
//! share ends the thread and is told, and that nobody is left waiting, is the same for both.

use crate::error::{LoadError, panic_message};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::{Builder, JoinHandle};
use tokio::sync::watch;

/// What the thread has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It works.
    Running,
    /// It was told to end, or nobody could submit any more.
    Ended,
    /// It panicked, with this message.
    Failed(String),
}

/// What a thread does with the commands it is sent.
pub(crate) trait Live {
    /// Takes what is there and makes a step, waiting only when there is nothing to compute. False at the end.
    fn turn(&mut self) -> bool;

    /// Tells every client that nothing more comes.
    fn end(&mut self);
}

/// The thread, as its handles see it.
pub(crate) struct Owned<C> {
    pub(crate) inbox: mpsc::Sender<C>,
    pub(crate) life: watch::Receiver<Life>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<C> Owned<C> {
    /// Starts `work`, which reads the other end of `inbox`, on a thread made by `builder`.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub(crate) fn start(
        builder: Builder,
        inbox: mpsc::Sender<C>,
        work: impl Live + Send + 'static,
    ) -> Result<Self, LoadError> {
        let (living, life) = watch::channel(Life::Running);
        let thread: io::Result<_> = builder.spawn(move || live(work, &living));
        let thread = Mutex::new(Some(thread.map_err(LoadError::Threads)?));
        Ok(Self { inbox, life, thread })
    }

    /// Waits until the thread fails, and says of what. Never returns otherwise.
    pub(crate) async fn failed(&self) -> String {
        let mut life = self.life.clone();
        let life = life.wait_for(|life| *life != Life::Running).await.map(|life| life.clone());
        match life {
            Ok(Life::Failed(message)) => message,
            Ok(_) => std::future::pending().await,
            Err(_) => "the model's thread died without saying why".into(),
        }
    }

    /// Sends the last command and waits for the thread's end.
    pub(crate) fn end(&self, last: C) {
        // An error means that the thread has ended already.
        drop(self.inbox.send(last));
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            drop(thread.join());
        }
    }
}

/// Works until there is nothing more to do, or until something that all requests share panics.
fn live(mut work: impl Live, life: &watch::Sender<Life>) {
    let outcome = catch_unwind(AssertUnwindSafe(|| while work.turn() {}));
    if let Err(panic) = &outcome {
        let message = panic_message(panic.as_ref());
        tracing::error!(%message, "the model's thread failed and ends");
        life.send_replace(Life::Failed(message));
    }
    work.end();
    if outcome.is_ok() {
        life.send_replace(Life::Ended);
    }
}
