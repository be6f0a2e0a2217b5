//! The network: who reaches whom, how long it takes, what is lost and what comes twice.

use crate::ms;
use fastrand::Rng;
use std::{collections::HashMap, time::Duration};

/// A place that a process can run at; its address follows from it.
pub(crate) type Site = usize;

/// What happens to one message.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    /// When it arrives; never, if it is lost.
    pub(crate) after: Option<Duration>,
    /// When it arrives a second time.
    pub(crate) again_after: Option<Duration>,
}

/// The state of all links.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// Directed links that are cut, with how many faults cut them.
    cut: HashMap<(Site, Site), u32>,
    /// Sites whose messages take long, with how many faults slow them.
    slow: HashMap<Site, u32>,
    /// Of a thousand messages, how many are lost.
    lost_permille: u64,
    /// Of a thousand messages, how many come twice.
    doubled_permille: u64,
}

impl Network {
    /// One that loses messages or doubles them, or both, or neither.
    pub(crate) fn unreliable(rng: &mut Rng) -> Self {
        let share = |rng: &mut Rng| if rng.bool() { 0 } else { rng.u64(0..100) };
        Self { lost_permille: share(rng), doubled_permille: share(rng), ..Self::default() }
    }

    pub(crate) fn cut(&mut self, from: Site, to: Site) {
        *self.cut.entry((from, to)).or_default() += 1;
    }

    pub(crate) fn mend(&mut self, from: Site, to: Site) {
        decrease(&mut self.cut, &(from, to));
    }

    pub(crate) fn slow_down(&mut self, site: Site) {
        *self.slow.entry(site).or_default() += 1;
    }

    pub(crate) fn speed_up(&mut self, site: Site) {
        decrease(&mut self.slow, &site);
    }

    /// All faults end.
    pub(crate) fn heal(&mut self) {
        *self = Self::default();
    }

    /// The fate of one message.
    pub(crate) fn send(&self, rng: &mut Rng, from: Site, to: Site) -> Delivery {
        let chance = |rng: &mut Rng, permille| rng.u64(0..1_000) < permille;
        if self.cut.contains_key(&(from, to)) || chance(rng, self.lost_permille) {
            return Delivery::default();
        }
        let slow = self.slow.contains_key(&from) || self.slow.contains_key(&to);
        let longest_us = if slow { 1_500_000 } else { 3_000 };
        let after = Some(Duration::from_micros(rng.u64(50..longest_us)));
        let doubled = chance(rng, self.doubled_permille);
        Delivery { after, again_after: doubled.then(|| ms(rng.u64(1..5_000))) }
    }
}

fn decrease<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
