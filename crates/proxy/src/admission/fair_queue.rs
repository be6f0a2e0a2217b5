//! Who waits for a place, and who gets the next one, pure.
//!
//! Each model has as many places as its backends compute together. Of those that wait for one, whoever has the highest
//! priority is first; of these, the tenant that was served least. Served is counted in tokens, as reserved and then as
//! used, and a tenant that comes back begins with what the least served of the others has: it is owed nothing for its
//! absence. This is the Virtual Token Counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024);
//! with it, how many requests a tenant has waiting delays nobody but itself. Whoever runs with a lower priority takes no
//! place of a higher one: a backend that has no room for both makes the lower one wait.
//!
//! All together only so many wait. When there is no room for another, the tenant with the most waiting loses its
//! newest, which is McKenney's rule for stochastic fairness queueing (1990): a queue full of one tenant's requests is
//! not full for others.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

/// Whose request it is: the id of an API key, empty for whoever has none.
pub type Tenant = Arc<str>;

/// The queue. `W` is what a request leaves here to be called by.
#[derive(Debug)]
pub struct FairQueue<W> {
    lanes: HashMap<Arc<str>, Lane<W>>,
    waiting_max: usize,
    waiting: usize,
    running: usize,
    /// Numbers requests in the order in which they came.
    next: u64,
}

/// The requests for one model.
#[derive(Debug)]
struct Lane<W> {
    waiting: usize,
    classes: BTreeMap<Reverse<i32>, Class>,
    accounts: HashMap<Tenant, Account<W>>,
}

/// Those of one priority.
#[derive(Debug, Default)]
struct Class {
    running: usize,
    /// What the last chosen one had been served before.
    floor: u64,
    /// The tenants that wait: tokens served, number of the oldest request, whose.
    order: BTreeSet<(u64, u64, Tenant)>,
}

/// What one tenant has in a lane.
#[derive(Debug)]
struct Account<W> {
    priority: i32,
    served: u64,
    running: usize,
    waiting: VecDeque<Waiter<W>>,
}

#[derive(Debug)]
struct Waiter<W> {
    number: u64,
    tokens: u64,
    caller: W,
}

/// What a request is queued by.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The model asked for.
    pub model: &'a Arc<str>,
    /// Whose it is.
    pub tenant: &'a Tenant,
    /// The highest is first.
    pub priority: i32,
    /// Reserved for it.
    pub tokens: u64,
}

/// How many may run: all together, and of each model.
pub trait Places {
    /// All together.
    fn total(&self) -> usize;
    /// For `model`.
    fn of(&self, model: &str) -> usize;
}

impl<W> FairQueue<W> {
    /// A queue in which `waiting_max` may wait.
    pub fn new(waiting_max: usize) -> Self {
        Self { lanes: HashMap::new(), waiting_max, waiting: 0, running: 0, next: 0 }
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Requests that wait for each model that has any.
    pub fn waiting_by_model(&self) -> impl Iterator<Item = (&str, usize)> {
        let lanes = self.lanes.iter().filter(|(_, lane)| lane.waiting > 0);
        lanes.map(|(model, lane)| (&**model, lane.waiting))
    }

    /// Takes a place at once, if one is free and nobody waits.
    pub fn try_run(&mut self, claim: Claim<'_>, places: &impl Places) -> bool {
        let running = self.lanes.get(claim.model).map_or(0, |lane| lane.running(claim.priority));
        let is_free =
            self.waiting == 0 && self.running < places.total() && running < places.of(claim.model);
        if is_free {
            let lane = self.lanes.entry(Arc::clone(claim.model)).or_default();
            let account = lane.account(&claim);
            let served = account.served;
            account.run(claim.tokens);
            lane.begin(claim.priority, served);
            self.running += 1;
        }
        is_free
    }

    /// Waits for a place: the number to leave by. [`Self::call`] has to follow, then [`Self::evict`].
    pub fn wait(&mut self, claim: Claim<'_>, caller: W) -> u64 {
        let number = self.next;
        self.next += 1;
        self.waiting += 1;
        let lane = self.lanes.entry(Arc::clone(claim.model)).or_default();
        lane.waiting += 1;
        lane.account(&claim).waiting.push_back(Waiter { number, tokens: claim.tokens, caller });
        lane.queue(claim.tenant);
        number
    }

    /// Gives free places to those who are next. With each its priority, for [`Self::done`].
    pub fn call(&mut self, places: &impl Places) -> Vec<(W, i32)> {
        let mut called = Vec::new();
        while self.waiting > 0 && self.running < places.total() {
            let open = self.lanes.iter_mut().filter(|(model, lane)| {
                lane.waiting > 0 && lane.running(lane.head().0.0) < places.of(model)
            });
            let Some((_, lane)) = open.min_by_key(|(_, lane)| lane.head()) else { break };
            let Some((waiter, priority)) = lane.run_next() else { break };
            self.running += 1;
            self.waiting -= 1;
            called.push((waiter.caller, priority));
        }
        called
    }

    /// If more wait than may: the one who has to go.
    pub fn evict(&mut self) -> Option<W> {
        if self.waiting <= self.waiting_max {
            return None;
        }
        let accounts = self.lanes.iter().flat_map(|(model, lane)| {
            lane.accounts.iter().map(move |(tenant, account)| (model, tenant, account))
        });
        let waiting = accounts.filter_map(|(model, tenant, account)| {
            let newest = account.waiting.back()?.number;
            Some(((Reverse(account.priority), account.waiting.len(), newest), model, tenant))
        });
        let ((_, _, newest), model, tenant) = waiting.max_by_key(|(rank, ..)| *rank)?;
        let (model, tenant) = (Arc::clone(model), Arc::clone(tenant));
        self.leave(&model, &tenant, newest)
    }

    /// One that waits goes away.
    pub fn leave(&mut self, model: &str, tenant: &Tenant, number: u64) -> Option<W> {
        let lane = self.lanes.get_mut(model)?;
        let account = lane.accounts.get_mut(tenant)?;
        let at = account.waiting.binary_search_by_key(&number, |waiter| waiter.number).ok()?;
        lane.unqueue(tenant);
        let waiter = lane.accounts.get_mut(tenant)?.waiting.remove(at)?;
        lane.waiting -= 1;
        self.waiting -= 1;
        lane.queue(tenant);
        self.forget(model, tenant);
        Some(waiter.caller)
    }

    /// One that ran with the claim's priority is done. Of the tokens reserved for it, `used` were.
    pub fn done(&mut self, claim: Claim<'_>, used: u64) {
        let Claim { model, tenant, priority, tokens } = claim;
        let Some(lane) = self.lanes.get_mut(model) else { return };
        lane.unqueue(tenant);
        let Some(account) = lane.accounts.get_mut(tenant) else { return };
        account.served = account.served.saturating_sub(tokens).saturating_add(used);
        account.running -= 1;
        if let Some(class) = lane.classes.get_mut(&Reverse(priority)) {
            class.running -= 1;
        }
        self.running -= 1;
        lane.queue(tenant);
        self.forget(model, tenant);
    }

    /// Keeps nothing of a tenant that the floor would not give back, nor of a model that is idle.
    fn forget(&mut self, model: &str, tenant: &Tenant) {
        let Some(lane) = self.lanes.get_mut(model) else { return };
        if let Some(account) = lane.accounts.get(tenant) {
            let floor = lane.classes.get(&Reverse(account.priority)).map_or(0, |class| class.floor);
            if account.is_idle() && account.served <= floor {
                lane.accounts.remove(tenant);
            }
        }
        if lane.running(i32::MIN) + lane.waiting == 0 {
            self.lanes.remove(model);
        }
    }
}

impl<W> Default for Lane<W> {
    fn default() -> Self {
        Self { waiting: 0, classes: BTreeMap::new(), accounts: HashMap::new() }
    }
}

impl<W> Lane<W> {
    /// The account of the claim's tenant, not in the order. One that did not wait begins at the floor.
    fn account(&mut self, claim: &Claim<'_>) -> &mut Account<W> {
        self.unqueue(claim.tenant);
        let floor = self.classes.entry(Reverse(claim.priority)).or_default().floor;
        let account = self.accounts.entry(Arc::clone(claim.tenant)).or_insert_with(|| Account {
            priority: claim.priority,
            served: floor,
            running: 0,
            waiting: VecDeque::new(),
        });
        if account.waiting.is_empty() {
            account.served = account.served.max(floor);
        }
        account.priority = claim.priority;
        account
    }

    /// Where the next of this lane stands among those of others: by priority, then by age.
    fn head(&self) -> (Reverse<i32>, u64) {
        let first = self.classes.iter().find_map(|(priority, class)| {
            class.order.first().map(|(_, number, _)| (*priority, *number))
        });
        first.unwrap_or((Reverse(i32::MIN), u64::MAX))
    }

    /// Puts a tenant that waits in its place of the order.
    fn queue(&mut self, tenant: &Tenant) {
        if let Some(account) = self.accounts.get(tenant)
            && let Some(turn) = account.turn(tenant)
        {
            self.classes.entry(Reverse(account.priority)).or_default().order.insert(turn);
        }
    }

    fn unqueue(&mut self, tenant: &Tenant) {
        if let Some(account) = self.accounts.get(tenant)
            && let Some(turn) = account.turn(tenant)
            && let Some(class) = self.classes.get_mut(&Reverse(account.priority))
        {
            class.order.remove(&turn);
        }
    }

    /// How many run with `priority` or a higher one.
    fn running(&self, priority: i32) -> usize {
        self.classes.range(..=Reverse(priority)).map(|(_, class)| class.running).sum()
    }

    /// Somebody runs who had been `served` so much, the least of all that waited.
    fn begin(&mut self, priority: i32, served: u64) {
        let class = self.classes.entry(Reverse(priority)).or_default();
        class.floor = class.floor.max(served);
        class.running += 1;
    }

    /// The next one runs.
    fn run_next(&mut self) -> Option<(Waiter<W>, i32)> {
        let mut classes = self.classes.iter_mut();
        let (&Reverse(priority), class) = classes.find(|(_, class)| !class.order.is_empty())?;
        let (served, _, tenant) = class.order.pop_first()?;
        self.begin(priority, served);
        let account = self.accounts.get_mut(&tenant)?;
        let waiter = account.waiting.pop_front()?;
        account.run(waiter.tokens);
        self.waiting -= 1;
        self.queue(&tenant);
        Some((waiter, priority))
    }
}

impl<W> Account<W> {
    fn run(&mut self, tokens: u64) {
        self.running += 1;
        self.served = self.served.saturating_add(tokens);
    }

    fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting.is_empty()
    }

    fn turn(&self, tenant: &Tenant) -> Option<(u64, u64, Tenant)> {
        self.waiting.front().map(|first| (self.served, first.number, Arc::clone(tenant)))
    }
}

#[cfg(test)]
#[path = "fair_queue_tests.rs"]
mod tests;
