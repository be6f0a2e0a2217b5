//! What goes wrong in a run, and when: drawn from the seed before it begins.

use crate::{ms, network::Site};
use fastrand::Rng;
use std::time::Duration;

/// Who takes part.
#[derive(Debug)]
pub(crate) struct Cast {
    /// Sites 0 to this: proxies.
    pub(crate) proxies: usize,
    /// The sites after them: backends.
    pub(crate) backends: usize,
    /// The sites after them: where a second process may claim a backend's id.
    pub(crate) impostors: usize,
}

impl Cast {
    /// Few nodes in most runs, hundreds in some.
    pub(crate) fn of(seed: u64, rng: &mut Rng) -> Self {
        if seed.is_multiple_of(64) {
            return Self {
                proxies: rng.usize(2..=5),
                backends: rng.usize(100..=300),
                impostors: 8,
            };
        }
        Self { proxies: rng.usize(1..=3), backends: rng.usize(1..=8), impostors: 2 }
    }

    pub(crate) fn sites(&self) -> usize {
        self.proxies + self.backends + self.impostors
    }

    pub(crate) fn backend(&self, rng: &mut Rng) -> Site {
        self.proxies + rng.usize(0..self.backends)
    }

    pub(crate) fn impostor(&self, rng: &mut Rng) -> Site {
        self.proxies + self.backends + rng.usize(0..self.impostors)
    }
}

/// One thing that happens to the world.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// A process starts at a site, if none runs there, with its wall clock off by so much.
    Start {
        site: Site,
        skew_ms: i64,
    },
    /// Another process takes the id of a backend.
    Impostor {
        site: Site,
        of: Site,
    },
    /// A process ends without a word.
    Crash(Site),
    /// A backend drains.
    Drain(Site),
    /// It says goodbye and ends.
    Leave(Site),
    Pause(Site),
    Resume(Site),
    /// It cannot serve for a while, and says so.
    Unready(Site),
    Ready(Site),
    Cut(Site, Site),
    Mend(Site, Site),
    Slow(Site),
    Fast(Site),
}

/// How long things go wrong.
pub(crate) const CHAOS: Duration = Duration::from_secs(40);

/// Every fault of a run and its time, in no order.
pub(crate) fn faults(rng: &mut Rng, cast: &Cast) -> Vec<(Duration, Fault)> {
    let mut faults = Vec::new();
    for site in 0..cast.proxies + cast.backends {
        let begin = if rng.bool() { Duration::ZERO } else { ms(rng.u64(0..5_000)) };
        faults.push((begin, Fault::Start { site, skew_ms: skew(rng) }));
    }
    let calm = rng.u64(100..4_000) / (1 + cast.backends as u64 / 8);
    let mut now = ms(rng.u64(0..8_000));
    while now < CHAOS {
        one(rng, cast, now, &mut faults);
        now += ms(rng.u64(0..=2 * calm));
    }
    faults
}

/// A wall clock is mostly right, and sometimes minutes off.
fn skew(rng: &mut Rng) -> i64 {
    if rng.u8(0..4) > 0 { 0 } else { rng.i64(-600_000..600_000) }
}

/// A fault and what ends it.
fn one(rng: &mut Rng, cast: &Cast, now: Duration, faults: &mut Vec<(Duration, Fault)>) {
    let backend = cast.backend(rng);
    let proxy = rng.usize(0..cast.proxies);
    let anyone = if rng.bool() { backend } else { proxy };
    let later = |rng: &mut Rng, longest_ms| now + ms(rng.u64(1..longest_ms));
    let restart = |rng: &mut Rng, site| Fault::Start { site, skew_ms: skew(rng) };
    match rng.u8(0..16) {
        0..=2 => {
            faults.push((now, Fault::Crash(backend)));
            faults.push((later(rng, 15_000), restart(rng, backend)));
        }
        3..=4 => {
            let gone = later(rng, 5_000);
            faults.push((now, Fault::Drain(backend)));
            faults.push((gone, Fault::Leave(backend)));
            faults.push((gone + ms(rng.u64(0..8_000)), restart(rng, backend)));
        }
        5..=6 => {
            faults.push((now, Fault::Pause(anyone)));
            faults.push((later(rng, 15_000), Fault::Resume(anyone)));
        }
        7 => {
            faults.push((now, Fault::Crash(proxy)));
            faults.push((later(rng, 8_000), restart(rng, proxy)));
        }
        8..=9 => {
            let end = later(rng, 20_000);
            cut(rng, now, end, (backend, proxy), faults);
        }
        10 => {
            let end = later(rng, 20_000);
            for other in (0..cast.sites()).filter(|other| *other != anyone) {
                cut(rng, now, end, (anyone, other), faults);
            }
        }
        11..=12 => {
            faults.push((now, Fault::Slow(anyone)));
            faults.push((later(rng, 10_000), Fault::Fast(anyone)));
        }
        13 => {
            let site = cast.impostor(rng);
            faults.push((now, Fault::Impostor { site, of: backend }));
            faults.push((later(rng, 20_000), Fault::Crash(site)));
        }
        _ => {
            faults.push((now, Fault::Unready(backend)));
            faults.push((later(rng, 5_000), Fault::Ready(backend)));
        }
    }
}

/// Cuts a link in both directions, or in one.
fn cut(
    rng: &mut Rng,
    begin: Duration,
    end: Duration,
    (one, two): (Site, Site),
    faults: &mut Vec<(Duration, Fault)>,
) {
    let directions = match rng.u8(0..4) {
        0 => vec![(one, two)],
        1 => vec![(two, one)],
        _ => vec![(one, two), (two, one)],
    };
    for (from, to) in directions {
        faults.push((begin, Fault::Cut(from, to)));
        faults.push((end, Fault::Mend(from, to)));
    }
}
