//! What each tenant has running and has spent within the minute, pure.

use super::{
    fair_queue::Tenant,
    limited::{Limit, Limited, Remaining},
    need::Need,
    window::{Wait, Window},
};
use inferno_shared::config::KeyLimits;
use std::{collections::HashMap, time::Duration};

/// More tenants than keys there may be: those of keys that a reload took away are forgotten at the next one.
const TENANTS_MAX: usize = 20_000;
/// What to wait before asking again for a place of one's own: the end of a request comes when it comes.
const CONCURRENCY_WAIT: Duration = Duration::from_secs(1);

/// All tenants that have something running or spent.
#[derive(Debug, Default)]
pub(crate) struct Tenants(HashMap<Tenant, Usage>);

/// One tenant's.
#[derive(Debug, Default)]
struct Usage {
    running: u64,
    requests: Window,
    tokens: Window,
}

/// When something was spent, for settling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    second: u64,
    amount: u64,
}

impl Tenants {
    /// A request comes; its tenant has it running until [`Self::leave`].
    ///
    /// # Errors
    /// If the tenant has as many running as `limits` allow, or had as many within a minute.
    pub(crate) fn enter(
        &mut self,
        tenant: &Tenant,
        limits: &KeyLimits,
        now: Duration,
    ) -> Result<Spent, Limited> {
        if self.0.len() >= TENANTS_MAX {
            self.0.retain(|_, usage| !usage.is_idle(now));
        }
        let usage = self.0.entry(Tenant::clone(tenant)).or_default();
        if let Some(limit) = limits.concurrency_max.filter(|&limit| usage.running >= limit) {
            let wait = Wait::For(CONCURRENCY_WAIT);
            return Err(Limited {
                limit: Limit::Concurrency,
                most: limit,
                wait,
                remaining: usage.remaining(limits, now),
            });
        }
        let spent = match limits.requests_per_minute {
            None => Spent::default(),
            Some(most) => match usage.requests.spend(most, 1, now) {
                Ok(second) => Spent { second, amount: 1 },
                Err(wait) => {
                    let remaining = usage.remaining(limits, now);
                    return Err(Limited { limit: Limit::Requests, most, wait, remaining });
                }
            },
        };
        usage.running += 1;
        Ok(spent)
    }

    /// Reserves `tokens` for a request that has entered, or as many as there can be if it did not say how many it
    /// wants.
    ///
    /// # Errors
    /// If the tenant has not so many left within the minute. The request is as if it had never come.
    pub(crate) fn reserve(
        &mut self,
        tenant: &Tenant,
        limits: &KeyLimits,
        entered: Spent,
        tokens: Need,
        now: Duration,
    ) -> Result<Spent, Limited> {
        let Some(most) = limits.tokens_per_minute else { return Ok(Spent::default()) };
        let Some(usage) = self.0.get_mut(tenant) else { return Ok(Spent::default()) };
        let amount = match tokens.is_assumed {
            true => tokens.amount.min(most),
            false => tokens.amount,
        };
        usage.tokens.spend(most, amount, now).map(|second| Spent { second, amount }).map_err(
            |wait| {
                usage.requests.correct(entered.second, entered.amount, 0, now);
                let remaining = usage.remaining(limits, now);
                Limited { limit: Limit::Tokens { needed: amount }, most, wait, remaining }
            },
        )
    }

    /// Of what was `reserved`, so many tokens were `used`.
    pub(crate) fn settle(&mut self, tenant: &Tenant, reserved: Spent, used: u64, now: Duration) {
        if let Some(usage) = self.0.get_mut(tenant)
            && reserved.amount > 0
        {
            usage.tokens.correct(reserved.second, reserved.amount, used, now);
        }
    }

    /// A request that has entered is over.
    pub(crate) fn leave(&mut self, tenant: &Tenant, now: Duration) {
        if let Some(usage) = self.0.get_mut(tenant) {
            usage.running -= 1;
            if usage.is_idle(now) {
                self.0.remove(tenant);
            }
        }
    }

    /// What `tenant` has left of its limits.
    pub(crate) fn remaining(
        &mut self,
        tenant: &Tenant,
        limits: &KeyLimits,
        now: Duration,
    ) -> Remaining {
        self.0.get_mut(tenant).map_or_else(Remaining::default, |usage| usage.remaining(limits, now))
    }
}

impl Usage {
    fn is_idle(&mut self, now: Duration) -> bool {
        self.running == 0 && self.requests.is_clear(now) && self.tokens.is_clear(now)
    }

    fn remaining(&mut self, limits: &KeyLimits, now: Duration) -> Remaining {
        let left = |window: &mut Window, limit: Option<u64>| {
            limit.map(|limit| (limit, window.left(limit, now), window.reset(now)))
        };
        Remaining {
            requests: left(&mut self.requests, limits.requests_per_minute),
            tokens: left(&mut self.tokens, limits.tokens_per_minute),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);
    const NONE: KeyLimits =
        KeyLimits { concurrency_max: None, requests_per_minute: None, tokens_per_minute: None };

    fn need(amount: u64) -> Need {
        Need { amount, ..Need::default() }
    }

    #[test]
    fn a_tenant_without_limits_is_not_remembered() {
        let (mut tenants, a) = (Tenants::default(), Tenant::from("a"));
        for _ in 0..3 {
            tenants.enter(&a, &NONE, NOW).expect("no limit");
        }
        for _ in 0..3 {
            tenants.leave(&a, NOW);
        }
        assert!(tenants.0.is_empty());
    }

    #[test]
    fn each_limit_is_its_own_and_each_tenant_has_its_own() {
        let (mut tenants, a, b) = (Tenants::default(), Tenant::from("a"), Tenant::from("b"));
        let limits = KeyLimits { concurrency_max: Some(2), requests_per_minute: Some(3), ..NONE };
        for _ in 0..2 {
            tenants.enter(&a, &limits, NOW).expect("room");
        }
        let limited = tenants.enter(&a, &limits, NOW).expect_err("two run");
        assert_eq!((limited.limit, limited.most), (Limit::Concurrency, 2));
        assert_eq!(limited.remaining.requests.map(|(limit, left, _)| (limit, left)), Some((3, 1)));
        tenants.enter(&b, &limits, NOW).expect("another tenant");
        tenants.leave(&a, NOW);
        tenants.enter(&a, &limits, NOW).expect("a place came back");
        tenants.leave(&a, NOW);
        let limited = tenants.enter(&a, &limits, NOW).expect_err("three in this minute");
        assert_eq!((limited.limit, limited.most), (Limit::Requests, 3));
        assert_eq!(limited.wait, Wait::For(Duration::from_secs(61)));
    }

    #[test]
    fn tokens_are_reserved_settled_and_never_promised_twice() {
        let (mut tenants, a) = (Tenants::default(), Tenant::from("a"));
        let limits =
            KeyLimits { requests_per_minute: Some(10), tokens_per_minute: Some(100), ..NONE };
        let entered = tenants.enter(&a, &limits, NOW).expect("room");
        let reserved = tenants.reserve(&a, &limits, entered, need(80), NOW).expect("room");
        let late = tenants.enter(&a, &limits, NOW).expect("room");
        let limited = tenants.reserve(&a, &limits, late, need(30), NOW).expect_err("20 are left");
        assert_eq!(limited.limit, Limit::Tokens { needed: 30 });
        let left = tenants.remaining(&a, &limits, NOW);
        assert_eq!(
            left.requests.map(|(_, left, _)| left),
            Some(9),
            "what was refused did not count"
        );
        tenants.settle(&a, reserved, 15, NOW);
        assert!(tenants.reserve(&a, &limits, late, need(85), NOW).is_ok());
        let limited = tenants.reserve(&a, &limits, late, need(101), NOW).expect_err("never");
        assert_eq!(limited.wait, Wait::Forever);
        let assumed = Need { amount: 512, is_assumed: true, ..Need::default() };
        let limited = tenants.reserve(&a, &limits, late, assumed, NOW).expect_err("later");
        assert_eq!(limited.wait, Wait::For(Duration::from_secs(61)));
    }
}
