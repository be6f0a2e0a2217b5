//! When requests of an open loop begin: decided before the first is sent, whatever the server does.

use std::time::Duration;

use clap::ValueEnum;

use super::draws::{Draws, Purpose};

/// How the gaps between requests are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Arrivals {
    /// Like users who know nothing of one another: exponential gaps
    Poisson,
    /// Like a metronome: equal gaps
    Constant,
}

/// The times at which `rate` requests a second begin, from the run's start on, without end.
pub(super) fn at_rate(
    rate: f64,
    arrivals: Arrivals,
    draws: Draws,
) -> impl Iterator<Item = Duration> + Send {
    let mut poisson_at = 0.0;
    (0_u64..).map(move |index| match arrivals {
        // Not a sum of gaps: it would gather rounding errors.
        Arrivals::Constant => Duration::from_secs_f64(index as f64 / rate),
        Arrivals::Poisson => {
            poisson_at += exponential(draws.uniform(Purpose::Arrivals, index, 0)) / rate;
            Duration::from_secs_f64(poisson_at)
        }
    })
}

/// An exponential variate of mean 1, by inversion. `uniform` is in [0, 1), so the logarithm is finite.
fn exponential(uniform: f64) -> f64 {
    -(1.0 - uniform).ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn times(rate: f64, arrivals: Arrivals, seed: u64, count: usize) -> Vec<Duration> {
        at_rate(rate, arrivals, Draws::of(seed)).take(count).collect()
    }

    #[test]
    fn a_constant_rate_does_not_drift() {
        let times = times(3.0, Arrivals::Constant, 0, 300_001);
        assert_eq!(times[0], Duration::ZERO);
        assert_eq!(times[1], Duration::from_secs_f64(1.0 / 3.0));
        assert_eq!(times[300_000], Duration::from_secs(100_000));
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_the_spread_of_an_exponential() {
        let times = times(50.0, Arrivals::Poisson, 1, 100_000);
        let gaps: Vec<f64> =
            times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // 100,000 gaps: the standard error of both is well under 1 %.
        assert!((mean * 50.0 - 1.0).abs() < 0.02, "mean gap {mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "coefficient of variation");
        let within_a_mean = gaps.iter().filter(|gap| **gap < mean).count() as f64 / 100_000.0;
        assert!((within_a_mean - 0.632).abs() < 0.01, "1 - 1/e of the gaps, not {within_a_mean}");
    }

    proptest! {
        #[test]
        fn times_never_go_back_and_depend_on_the_seed_alone(seed: u64, rate in 0.01..100_000.0) {
            for arrivals in [Arrivals::Poisson, Arrivals::Constant] {
                let first = times(rate, arrivals, seed, 200);
                prop_assert!(first.is_sorted());
                prop_assert_eq!(&first, &times(rate, arrivals, seed, 200));
            }
            let other = times(rate, Arrivals::Poisson, seed ^ 1, 200);
            prop_assert_ne!(other, times(rate, Arrivals::Poisson, seed, 200));
        }
    }
}
