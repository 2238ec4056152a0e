//! Latencies in nanoseconds, and what is told of them.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Up to a minute, three digits.
#[derive(Clone)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

/// Nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub count: u64,
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        let minute = Duration::from_secs(60).as_nanos() as u64;
        let histogram = Histogram::new_with_bounds(1, minute, 3).expect("the bounds are in order");
        Self { histogram }
    }
}

impl Latencies {
    pub fn record(&mut self, latency: Duration) {
        self.histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    pub fn record_nanos(&mut self, nanos: u64) {
        self.histogram.saturating_record(nanos);
    }

    pub fn add(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("all histograms have the same bounds");
    }

    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Nanoseconds.
    pub fn at(&self, quantile: f64) -> u64 {
        self.histogram.value_at_quantile(quantile)
    }

    /// Nanoseconds; 0 of nothing.
    pub fn mean(&self) -> f64 {
        self.histogram.mean()
    }

    pub fn summary(&self) -> Summary {
        let at = |quantile| self.histogram.value_at_quantile(quantile);
        Summary {
            count: self.histogram.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: self.histogram.max(),
        }
    }
}

/// `153 µs`, `4.21 ms`: three digits at most before the unit changes.
pub fn show(nanos: u64) -> String {
    let micros = nanos as f64 / 1e3;
    if micros < 10.0 {
        format!("{micros:.1} µs")
    } else if micros < 1e3 {
        format!("{micros:.0} µs")
    } else if micros < 1e6 {
        format!("{:.2} ms", micros / 1e3)
    } else {
        format!("{:.2} s", micros / 1e6)
    }
}

/// The middle one of some figures (the mean of the two middle ones of an even number).
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match (figures.get(middle), figures.len() % 2) {
        (None, _) => f64::NAN,
        (Some(high), 1) => *high,
        (Some(high), _) => (high + figures[middle - 1]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_told_within_a_thousandth() {
        let mut latencies = Latencies::default();
        for micros in 1..=1000 {
            latencies.record(Duration::from_micros(micros));
        }
        let summary = latencies.summary();
        assert_eq!(summary.count, 1000);
        assert!((499_000..=501_000).contains(&summary.p50), "{summary:?}");
        assert!((989_000..=991_000).contains(&summary.p99), "{summary:?}");
        assert!((999_000..=1_001_000).contains(&summary.max), "{summary:?}");
    }

    #[test]
    fn the_median_is_the_middle_of_the_sorted_figures() {
        assert_eq!(median(vec![5.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median(vec![]).is_nan());
    }

    #[test]
    fn a_latency_is_shown_with_the_unit_that_fits() {
        assert_eq!(show(1_500), "1.5 µs");
        assert_eq!(show(153_400), "153 µs");
        assert_eq!(show(4_210_000), "4.21 ms");
    }
}
