//! How sure a ratio is: bootstrap over what was measured, and words for it.
//!
//! The figures of both sides come in pairs that were measured one after the other, so that what slows the machine down slows
//! both. The ratio of a pair is taken as a logarithm, the pairs are drawn again many times with replacement, and the middle 99 of 100
//! means are the interval. Pure: randomness is handed in.

use corelog_broker::random::Random;
use serde::{Deserialize, Serialize};

/// B to A.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    pub low: f64,
    pub middle: f64,
    pub high: f64,
    pub pairs: usize,
}

const DRAWS: usize = 4_000;

/// Outside of each end of the interval, of all draws.
const TAIL: f64 = 0.005;

/// A difference of less is none, however sure: the order of starts and the place of a file on its disk make as much.
pub const INDIFFERENT: f64 = 0.02;

impl Ratio {
    /// `pairs`: A and B, in the same unit. `None` of fewer than three.
    pub fn of_pairs(pairs: &[(f64, f64)], seed: u64) -> Option<Self> {
        let logs: Vec<f64> =
            pairs.iter().filter(|(a, b)| *a > 0.0 && *b > 0.0).map(|(a, b)| (b / a).ln()).collect();
        Self::of_logs(&trimmed(logs), seed)
    }

    fn of_logs(logs: &[f64], seed: u64) -> Option<Self> {
        if logs.len() < 3 {
            return None;
        }
        let mut random = Random::new(seed);
        let draws = (0..DRAWS).map(|_| draw(logs, &mut random)).collect();
        Some(Self::of_draws(mean(logs), draws, logs.len()))
    }

    fn of_draws(middle: f64, mut draws: Vec<f64>, pairs: usize) -> Self {
        draws.sort_by(f64::total_cmp);
        let at = |share: f64| draws[((draws.len() - 1) as f64 * share) as usize];
        // Few pairs vary less when they are drawn again than they do in truth: wider by as much as Student's t is.
        let freedom = pairs as f64 - 1.0;
        let wider =
            (1.0 + 1.91 / freedom + 2.4 / freedom.powi(2)) * (pairs as f64 / freedom).sqrt();
        let end = |share: f64| (middle + (at(share) - middle) * wider).exp();
        Self { low: end(TAIL), middle: middle.exp(), high: end(1.0 - TAIL), pairs }
    }

    /// The interval leaves out every ratio that is as good as 1.
    pub fn is_different(&self) -> bool {
        self.low > 1.0 + INDIFFERENT / 2.0 && self.middle > 1.0 + INDIFFERENT
            || self.high < 1.0 - INDIFFERENT / 2.0 && self.middle < 1.0 - INDIFFERENT
    }

    /// The same with another share than [`INDIFFERENT`]: of two sides that were not measured in turns.
    pub fn is_beyond(&self, noise: f64) -> bool {
        self.low > 1.0 + noise / 2.0 && self.middle > 1.0 + noise
            || self.high < 1.0 / (1.0 + noise / 2.0) && self.middle < 1.0 / (1.0 + noise)
    }

    /// `1.100 (1.081 to 1.122)`.
    pub fn show(&self) -> String {
        format!("{:.3} ({:.3} to {:.3})", self.middle, self.low, self.high)
    }
}

/// Without the tenth at either end: a pair that a neighbour hit says nothing about the brokers.
fn trimmed(mut list: Vec<f64>) -> Vec<f64> {
    list.sort_by(f64::total_cmp);
    let cut = list.len() / 10;
    list[cut..list.len() - cut].to_vec()
}

fn mean(list: &[f64]) -> f64 {
    list.iter().sum::<f64>() / list.len() as f64
}

fn draw(list: &[f64], random: &mut Random) -> f64 {
    let sum: f64 = (0..list.len()).map(|_| list[random.below(list.len() as u64) as usize]).sum();
    sum / list.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs around a ratio with noise of so many percent, part of it common to both.
    fn pairs(ratio: f64, noise: f64, seed: u64) -> Vec<(f64, f64)> {
        let mut random = Random::new(seed);
        let mut normal =
            || (0..12).map(|_| random.below(1 << 20) as f64 / (1 << 20) as f64).sum::<f64>() - 6.0;
        let pair = |_| {
            let common = (normal() * 0.2).exp();
            let mut one = |mean: f64| mean * common * (normal() * noise).exp();
            (one(100.0), one(100.0 * ratio))
        };
        (0..30).map(pair).collect()
    }

    #[test]
    fn the_same_is_the_same_in_nearly_all_tries_and_a_tenth_is_found() {
        let tries = 0..200;
        let differ = |ratio| {
            let is_different = |seed: &u64| {
                Ratio::of_pairs(&pairs(ratio, 0.05, *seed), *seed).unwrap().is_different()
            };
            tries.clone().filter(is_different).count()
        };
        let (same, slower, faster) = (differ(1.0), differ(1.1), differ(1.0 / 1.1));
        assert!(same <= 6, "{same} of 200 differ from themselves");
        assert!(slower >= 190 && faster >= 190, "{slower} and {faster} of 200 found");
    }

    #[test]
    fn few_pairs_do_not_make_up_a_difference() {
        let is_different = |seed: &u64| {
            Ratio::of_pairs(&pairs(1.0, 0.08, *seed)[..8], *seed).unwrap().is_different()
        };
        let same = (0..200).filter(is_different).count();
        assert!(same <= 6, "{same} of 200 differ from themselves");
    }

    #[test]
    fn one_pair_that_was_hit_does_not_make_a_difference() {
        let mut list = pairs(1.0, 0.01, 7);
        list[3].1 *= 40.0;
        assert!(!Ratio::of_pairs(&list, 1).unwrap().is_different());
    }

    #[test]
    fn what_was_never_measured_has_no_ratio() {
        assert_eq!(Ratio::of_pairs(&[(1.0, 1.0), (0.0, 3.0), (2.0, 1.0)], 1), None);
    }
}
