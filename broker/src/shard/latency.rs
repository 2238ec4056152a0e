//! How long commits have taken lately: two histograms of fixed size, one being filled, one full.
//!
//! Log-linear buckets as in HdrHistogram (Tene, 2012): eight to each power of two, so that a value
//! is told at most an eighth too high. From 1 µs to 134 s; what is longer counts as 134 s.

use crate::time::{Monotonic, Nanos};

/// A histogram is filled for so long; then the one before is forgotten.
pub const WINDOW: Nanos = Nanos::from_secs(60);

const LINEAR_BITS: u32 = 3;
const LINEAR: u64 = 1 << LINEAR_BITS;
/// 2^27 µs are 134 s.
const POWERS: usize = 27;
const BUCKETS: usize = (POWERS - LINEAR_BITS as usize + 1) << LINEAR_BITS;

/// Counts of the current window and of the one before: the last 60 to 120 seconds.
#[derive(Clone, Debug)]
pub struct RecentLatency {
    windows: [[u32; BUCKETS]; 2],
    /// Which of the two is being filled, and since when.
    current: usize,
    began_at: Monotonic,
}

impl Default for RecentLatency {
    fn default() -> Self {
        Self { windows: [[0; BUCKETS]; 2], current: 0, began_at: Monotonic(0) }
    }
}

impl RecentLatency {
    pub fn record(&mut self, now: Monotonic, length: Nanos) {
        self.turn(now);
        let count = &mut self.windows[self.current][bucket_of(length.0 / 1_000)];
        *count = count.saturating_add(1);
    }

    /// A time in microseconds that `per_mille` of 1,000 values were not above; 0 if there were none
    /// in the last 60 to 120 seconds.
    pub fn percentile_us(&self, now: Monotonic, per_mille: u64) -> u64 {
        let age = now - self.began_at;
        let counts = |at: usize| -> u64 {
            let filled = u64::from(self.windows[self.current][at]);
            let full = u64::from(self.windows[1 - self.current][at]);
            filled * u64::from(age < Nanos(2 * WINDOW.0)) + full * u64::from(age < WINDOW)
        };
        let total: u64 = (0..BUCKETS).map(counts).sum();
        let wanted = (total * per_mille).div_ceil(1_000);
        let mut seen = 0;
        for at in 0..BUCKETS {
            seen += counts(at);
            if total > 0 && seen >= wanted {
                return greatest_of(at);
            }
        }
        0
    }

    /// Begins another window if this one is over.
    fn turn(&mut self, now: Monotonic) {
        let age = now - self.began_at;
        if age < WINDOW {
            return;
        }
        self.current = 1 - self.current;
        self.windows[self.current] = [0; BUCKETS];
        if age >= Nanos(2 * WINDOW.0) {
            self.windows[1 - self.current] = [0; BUCKETS];
        }
        self.began_at = now;
    }
}

// 0 to 7 have a bucket each; above, the power of two names a row, the next three bits a bucket in it.
fn bucket_of(us: u64) -> usize {
    let us = us.min((1 << POWERS) - 1);
    if us < LINEAR {
        return us as usize;
    }
    let power = us.ilog2();
    let row = (power - LINEAR_BITS + 1) as usize;
    let column = (us >> (power - LINEAR_BITS)) as usize & (LINEAR as usize - 1);
    (row << LINEAR_BITS) + column
}

/// The greatest value of a bucket.
fn greatest_of(bucket: usize) -> u64 {
    let (row, column) = (bucket >> LINEAR_BITS, (bucket as u64) & (LINEAR - 1));
    match row {
        0 => column,
        _ => ((LINEAR + column + 1) << (row - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Monotonic {
        Monotonic(secs * 1_000_000_000)
    }

    #[test]
    fn each_value_is_told_at_most_an_eighth_too_high_and_never_too_low() {
        for us in (0..100_000).chain((17..27).flat_map(|power| [(1 << power) - 1, 1 << power])) {
            let told = greatest_of(bucket_of(us));
            assert!(told >= us, "{us} is told as {told}");
            assert!(told - us <= us / 8, "{us} is told as {told}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(greatest_of(BUCKETS - 1), (1 << POWERS) - 1);
    }

    #[test]
    fn percentiles_are_of_what_was_recorded() {
        let mut latency = RecentLatency::default();
        assert_eq!(latency.percentile_us(at(0), 990), 0);
        for us in [100; 990].into_iter().chain([5_000; 10]) {
            latency.record(at(1), Nanos::from_micros(us));
        }
        assert_eq!(latency.percentile_us(at(1), 500), greatest_of(bucket_of(100)));
        assert_eq!(latency.percentile_us(at(1), 990), greatest_of(bucket_of(100)));
        assert_eq!(latency.percentile_us(at(1), 991), greatest_of(bucket_of(5_000)));
    }

    #[test]
    fn what_is_two_minutes_old_is_forgotten_with_and_without_news() {
        let mut latency = RecentLatency::default();
        latency.record(at(10), Nanos::from_micros(5_000));
        latency.record(at(70), Nanos::from_micros(1));
        assert!(latency.percentile_us(at(70), 1_000) >= 5_000, "the window before still counts");
        assert_eq!(latency.percentile_us(at(130), 1_000), 1, "it is over");
        assert_eq!(latency.percentile_us(at(190), 1_000), 0, "so is the last one");
        latency.record(at(300), Nanos::from_micros(2));
        assert_eq!(latency.percentile_us(at(300), 1_000), 2);
    }
}
