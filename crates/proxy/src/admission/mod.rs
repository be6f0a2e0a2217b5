//! Who may come in, and when.
//!
//! 1. A request *enters*: its tenant, which is its API key, may have only so many in progress and so many a minute.
//! 2. It *reserves* the tokens of its prompt and of the longest answer that it asks for. What it did not use comes back
//!    when it is over, so that no number of requests at once can spend what one after the other could not.
//! 3. It *waits* until its model's backends have a place for it (`fair_queue.rs`): there and not in a backend, because
//!    here it can still go to whichever is free first, and tenants share what there is.
//!
//! A tenant's limit is a 429 and nobody else's business; what is missing to all is a 503. Limits are those of the whole
//! fleet of proxies: each grants its share of them. Everything that decides is pure; one mutex is around it, held for
//! about a microsecond a request.

pub mod fair_queue;
mod limited;
mod need;
mod tenants;
mod usage;
pub mod window;

pub(crate) use limited::{Limit, Limited, Remaining};
pub(crate) use need::Need;
pub(crate) use usage::UsageReader;
#[cfg(test)]
pub(crate) use window::Wait;

use crate::{auth::Caller, error::RequestError, metrics::ProxyMetrics, routing::Fleet};
use fair_queue::{Claim, FairQueue, Places, Tenant};
use inferno_shared::{
    config::{KeyLimits, ProxyLimits},
    membership::Snapshot,
};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tenants::{Spent, Tenants};
use tokio::{
    sync::oneshot::{self, Receiver, Sender},
    time::timeout,
};

/// Everyone who has something in progress, and everyone who waits.
#[derive(Clone, Debug)]
pub(crate) struct Lobby(Arc<Mutex<Inside>>);

#[derive(Debug)]
struct Inside {
    tenants: Tenants,
    queue: FairQueue<Sender<Verdict>>,
}

/// What one that waits is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// A place is free, with this priority.
    Go(i32),
    /// Its place in the queue went to somebody else.
    Full,
}

impl Lobby {
    /// An empty one.
    pub(crate) fn new(limits: &ProxyLimits) -> Self {
        let queue = FairQueue::new(limits.queue_max);
        Self(Arc::new(Mutex::new(Inside { tenants: Tenants::default(), queue })))
    }

    /// How many wait, by model.
    pub(crate) fn each_waiting(&self, mut each: impl FnMut(&str, usize)) {
        self.lock().queue.waiting_by_model().for_each(|(model, waiting)| each(model, waiting));
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().queue.waiting()
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    /// Whoever is next takes what is free.
    fn call(&mut self, places: &impl Places) {
        for (called, priority) in self.queue.call(places) {
            // Who has just gone away gives the place back itself.
            let _ = called.send(Verdict::Go(priority));
        }
    }
}

/// Lets requests in.
pub(crate) struct Admission {
    lobby: Lobby,
    fleet: Arc<dyn Fleet>,
    limits: ProxyLimits,
    key_limits: KeyLimits,
    /// Among how many proxies the limits are divided.
    proxies: AtomicU64,
    origin: Instant,
    metrics: Arc<ProxyMetrics>,
}

impl Admission {
    /// Admission to `fleet`. It lives as long as it is used: a task of the current runtime calls those who wait when
    /// the fleet changes.
    pub(crate) fn start(
        lobby: Lobby,
        fleet: Arc<dyn Fleet>,
        limits: &ProxyLimits,
        key_limits: &KeyLimits,
        metrics: Arc<ProxyMetrics>,
    ) -> Arc<Self> {
        let mut changes = fleet.changes();
        let admission = Arc::new(Self {
            lobby,
            fleet,
            limits: limits.clone(),
            key_limits: key_limits.clone(),
            proxies: AtomicU64::new(1),
            origin: Instant::now(),
            metrics,
        });
        admission.fleet_changed();
        let followed = Arc::downgrade(&admission);
        tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                let Some(admission) = followed.upgrade() else { return };
                admission.fleet_changed();
            }
        });
        admission
    }

    /// A request of `caller` comes in. What it holds, it gives back when the visit is dropped.
    ///
    /// # Errors
    /// If the caller has as many in progress as it may, or had as many within a minute.
    pub(crate) fn enter(&self, caller: &Caller) -> Result<Visit<'_>, RequestError> {
        let tenant = caller.key_id().unwrap_or_default();
        let limits = self.share(&caller.limits().over(&self.key_limits));
        let entered = self.lobby.lock().tenants.enter(&tenant, &limits, self.now());
        let entered = entered.map_err(|limited| self.limited(limited))?;
        Ok(Visit {
            admission: self,
            tenant,
            limits,
            entered,
            need: Need::default(),
            reserved: Spent::default(),
            used: 0,
            place: Place::None,
        })
    }

    /// This proxy's part of `limits`.
    fn share(&self, limits: &KeyLimits) -> KeyLimits {
        let proxies = self.proxies.load(Relaxed);
        let part = |limit: Option<u64>| limit.map(|limit| (limit / proxies).max(1));
        KeyLimits {
            concurrency_max: part(limits.concurrency_max),
            requests_per_minute: part(limits.requests_per_minute),
            tokens_per_minute: part(limits.tokens_per_minute),
        }
    }

    /// Other proxies may have come or gone, and backends too, with places for some who wait.
    fn fleet_changed(&self) {
        let snapshot = self.fleet.snapshot();
        let others =
            if self.limits.divide_among_proxies { snapshot.proxies_that_serve() } else { 0 };
        self.proxies.store(1 + others as u64, Relaxed);
        self.lobby.lock().call(&self.room(&snapshot));
    }

    fn room<'a>(&self, snapshot: &'a Snapshot) -> Room<'a> {
        let proxies = usize::try_from(self.proxies.load(Relaxed)).unwrap_or(usize::MAX);
        let total = self.limits.concurrency_max.map_or(usize::MAX, |most| (most / proxies).max(1));
        Room { total, snapshot, is_open: !self.limits.queue }
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn limited(&self, limited: Limited) -> RequestError {
        self.metrics.limited(limited.limit.label());
        limited.into()
    }
}

/// The places there are.
struct Room<'a> {
    total: usize,
    /// Backends take whatever comes.
    is_open: bool,
    snapshot: &'a Snapshot,
}

impl Places for Room<'_> {
    fn total(&self) -> usize {
        self.total
    }

    /// Whoever asks for a model that nobody serves is let through, to be told so.
    fn of(&self, model: &str) -> usize {
        if self.is_open {
            return usize::MAX;
        }
        let list = self.snapshot.candidates(model);
        list.and_then(|list| list.max_concurrency).map_or(usize::MAX, |most| most as usize)
    }
}

/// A request between its coming and its end.
pub(crate) struct Visit<'a> {
    admission: &'a Admission,
    tenant: Tenant,
    limits: KeyLimits,
    entered: Spent,
    need: Need,
    reserved: Spent,
    used: u64,
    place: Place,
}

/// Where a request is.
enum Place {
    /// It neither waits nor runs.
    None,
    Waiting {
        model: Arc<str>,
        number: u64,
        called: Receiver<Verdict>,
    },
    Running {
        model: Arc<str>,
        priority: i32,
    },
}

impl Visit<'_> {
    /// Sets aside the tokens that the request may take.
    ///
    /// # Errors
    /// If its tenant has not so many left.
    pub(crate) fn reserve(&mut self, need: Need) -> Result<(), RequestError> {
        let Self { admission, tenant, limits, entered, .. } = self;
        let tenants = &mut admission.lobby.lock().tenants;
        let reserved = tenants.reserve(tenant, limits, *entered, need, admission.now());
        self.reserved = reserved.map_err(|limited| admission.limited(limited))?;
        self.need = need;
        Ok(())
    }

    /// Waits for a place with the backends of `model`, and no longer than `until`; how long it had to.
    ///
    /// # Errors
    /// If too many wait, or it took too long.
    pub(crate) async fn wait(
        &mut self,
        model: &str,
        priority: i32,
        until: Option<tokio::time::Instant>,
    ) -> Result<Duration, RequestError> {
        let (admission, began) = (self.admission, Instant::now());
        self.place = self.take_place(model.into(), priority);
        if let Place::Waiting { called, model, .. } = &mut self.place {
            let patience = Duration::from_millis(admission.limits.queue_timeout_ms);
            let left = until.map(|until| until.saturating_duration_since(began.into()));
            let patience = left.map_or(patience, |left| left.min(patience));
            let Ok(verdict) = timeout(patience, called).await else {
                admission.metrics.limited(QUEUE_TIMEOUT);
                return Err(RequestError::QueueTimeout { after: patience });
            };
            let Ok(Verdict::Go(priority)) = verdict else {
                self.place = Place::None;
                admission.metrics.limited(QUEUE_FULL);
                return Err(RequestError::QueueFull { limit: admission.limits.queue_max });
            };
            self.place = Place::Running { model: Arc::clone(model), priority };
        }
        Ok(began.elapsed())
    }

    fn take_place(&self, model: Arc<str>, priority: i32) -> Place {
        let tokens = self.need.amount.max(1);
        let claim = Claim { model: &model, tenant: &self.tenant, priority, tokens };
        let snapshot = self.admission.fleet.snapshot();
        let room = self.admission.room(&snapshot);
        let mut inside = self.admission.lobby.lock();
        if inside.queue.try_run(claim, &room) {
            drop(inside);
            return Place::Running { model, priority };
        }
        let (sender, called) = oneshot::channel();
        let number = inside.queue.wait(claim, sender);
        inside.call(&room);
        if let Some(evicted) = inside.queue.evict() {
            let _ = evicted.send(Verdict::Full);
        }
        drop(inside);
        Place::Waiting { model, number, called }
    }

    /// Tokens of its prompt, roughly.
    pub(crate) fn prompt(&self) -> u64 {
        self.need.prompt
    }

    /// So many tokens were used, in the end.
    pub(crate) fn used(&mut self, tokens: u64) {
        self.used = tokens;
    }

    /// What its tenant has left now.
    pub(crate) fn remaining(&self) -> Remaining {
        let Self { admission, tenant, limits, .. } = self;
        match limits.requests_per_minute.or(limits.tokens_per_minute) {
            None => Remaining::default(),
            Some(_) => admission.lobby.lock().tenants.remaining(tenant, limits, admission.now()),
        }
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let Self { admission, tenant, need, reserved, used, .. } = self;
        let (snapshot, now) = (admission.fleet.snapshot(), admission.now());
        let mut inside = admission.lobby.lock();
        let Inside { tenants, queue } = &mut *inside;
        let tokens = need.amount.max(1);
        match std::mem::replace(&mut self.place, Place::None) {
            Place::None => {}
            Place::Running { model, priority } => {
                queue.done(Claim { model: &model, tenant, priority, tokens }, *used);
            }
            Place::Waiting { model, number, mut called } => match called.try_recv() {
                // It was called, and went away before it heard.
                Ok(Verdict::Go(priority)) => {
                    queue.done(Claim { model: &model, tenant, priority, tokens }, 0);
                }
                _ => drop(queue.leave(&model, tenant, number)),
            },
        }
        tenants.settle(tenant, *reserved, *used, now);
        tenants.leave(tenant, now);
        inside.call(&admission.room(&snapshot));
    }
}

const QUEUE_FULL: &str = "queue_full";
const QUEUE_TIMEOUT: &str = "queue_timeout";

/// Every value of the metrics' `reason` label.
pub(crate) const REASONS: [&str; 5] =
    [Limit::LABELS[0], Limit::LABELS[1], Limit::LABELS[2], QUEUE_FULL, QUEUE_TIMEOUT];

#[cfg(test)]
mod tests;
