//! Latencies: percentiles of any number of samples in constant memory.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longer ones count as this long.
const LONGEST_US: u64 = 24 * 3600 * 1_000_000;
/// Percentiles are exact to this many digits.
const DIGITS: u8 = 3;

/// The latencies of one kind; about 200 KiB, however many.
#[derive(Clone, Debug)]
pub(super) struct Latencies {
    histogram_us: Histogram<u64>,
    sum_us: u128,
}

/// What is told of them, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram_us = Histogram::new_with_bounds(1, LONGEST_US, DIGITS);
        Self { histogram_us: histogram_us.expect("constant bounds, which are valid"), sum_us: 0 }
    }
}

impl Latencies {
    pub(super) fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US).min(LONGEST_US);
        self.histogram_us.saturating_record(us);
        self.sum_us += u128::from(us);
    }

    pub(super) fn count(&self) -> u64 {
        self.histogram_us.len()
    }

    /// The latency that a share of `quantile` do not exceed, in milliseconds.
    pub(super) fn quantile_ms(&self, quantile: f64) -> f64 {
        self.histogram_us.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// `None` if there are none: no latency is not a latency of 0.
    pub(super) fn summary(&self) -> Option<Summary> {
        let count = self.count();
        (count > 0).then(|| Summary {
            count,
            mean: self.sum_us as f64 / count as f64 / 1000.0,
            p50: self.quantile_ms(0.50),
            p90: self.quantile_ms(0.90),
            p95: self.quantile_ms(0.95),
            p99: self.quantile_ms(0.99),
            max: self.histogram_us.max() as f64 / 1000.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn summary(samples_us: &[u64]) -> Summary {
        let mut latencies = Latencies::default();
        for us in samples_us {
            latencies.record(Duration::from_micros(*us));
        }
        latencies.summary().expect("samples")
    }

    #[test]
    fn nothing_measured_is_nothing_told() {
        assert_eq!(Latencies::default().summary(), None);
    }

    #[test]
    fn percentiles_are_those_of_the_samples() {
        let samples: Vec<u64> = (1..=100).map(|ms| ms * 1000).collect();
        let told = summary(&samples);
        assert_eq!((told.count, told.mean), (100, 50.5));
        for (found, wanted) in [
            (told.p50, 50.0),
            (told.p90, 90.0),
            (told.p95, 95.0),
            (told.p99, 99.0),
            (told.max, 100.0),
        ] {
            assert!((found - wanted).abs() <= wanted / 1000.0, "{found} for {wanted}");
        }
    }

    #[test]
    fn the_extremes_are_held() {
        let told = summary(&[0, u64::MAX]);
        assert_eq!(told.count, 2);
        assert!((told.max - 86_400_000.0).abs() < 86_400.0, "{}", told.max);
    }

    proptest! {
        /// Against sorting, to the histogram's three digits.
        #[test]
        fn percentiles_agree_with_sorting(mut samples in prop::collection::vec(0_u64..10_000_000, 1..500)) {
            let told = summary(&samples);
            samples.sort_unstable();
            for (quantile, found) in [(0.5, told.p50), (0.9, told.p90), (0.99, told.p99), (1.0, told.max)] {
                let rank = ((quantile * samples.len() as f64).ceil() as usize).max(1);
                let wanted = samples[rank - 1] as f64 / 1000.0;
                prop_assert!((found - wanted).abs() <= wanted / 500.0 + 0.001, "{found} for {wanted}");
            }
        }
    }
}
