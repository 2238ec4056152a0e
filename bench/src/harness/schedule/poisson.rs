//! Arrivals that know nothing of each other: the time between two of them is exponentially distributed. What many
//! independent users do.

use corelog_broker::random::Random;

use super::{SECOND, Schedule};

pub struct Poisson {
    random: Random,
    per_second: f64,
    now: f64,
    end: u64,
}

impl Poisson {
    pub fn new(per_second: f64, end: u64, seed: u64) -> Self {
        Self { random: Random::new(seed), per_second, now: 0.0, end }
    }
}

impl Schedule for Poisson {
    fn next(&mut self) -> Option<u64> {
        // 53 bits, as many as fit: uniform in (0, 1].
        let uniform = ((self.random.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        self.now -= uniform.ln() * SECOND / self.per_second;
        Some(self.now as u64).filter(|time| *time < self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::schedule::all;

    #[test]
    fn counts_of_equal_spans_vary_as_much_as_their_mean() {
        for seed in 0..5 {
            let times = all(Poisson::new(1000.0, 100_000_000_000, seed));
            // 100,000 expected, with a standard deviation of 316.
            assert!((98_500..101_500).contains(&times.len()), "seed {seed}: {}", times.len());
            let mut counts = vec![0.0; 10_000];
            times.iter().for_each(|time| counts[(time / 10_000_000) as usize] += 1.0);
            let mean = counts.iter().sum::<f64>() / 1e4;
            let variance = counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / 1e4;
            assert!((0.9..1.1).contains(&(variance / mean)), "seed {seed}: {mean} {variance}");
            assert!(times.is_sorted());
        }
    }

    #[test]
    fn a_seed_gives_the_same_times_again() {
        let times = |seed| all(Poisson::new(100.0, 1_000_000_000, seed));
        assert_eq!(times(7), times(7));
        assert_ne!(times(7), times(8));
    }
}
