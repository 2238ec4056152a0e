//! One seed, and many.

use super::World;
use super::plan::Plan;
use crate::planted::{self, Bug};
use crate::sim::trace::Violation;
use crate::sim::world::Outcome;

/// The length of a seed's workload, virtual ns; the start and the end come on top.
pub const LENGTH_DEFAULT: u64 = 6_000_000_000;

/// Runs a plan to its end or its first violation.
pub fn run_plan(plan: Plan, bug: Bug, keep_lines: bool) -> Outcome {
    planted::with(bug, || World::new(plan, keep_lines).run())
}

pub fn run_seed(seed: u64, brokers: usize, length: u64, bug: Bug, keep_lines: bool) -> Outcome {
    run_plan(Plan::draw(seed, brokers, length), bug, keep_lines)
}

/// How many seeds from `first` on it takes until a planted bug is caught, at most `bound`.
pub fn seeds_until_caught(
    bug: Bug,
    brokers: usize,
    first: u64,
    bound: u64,
) -> Option<(u64, Violation)> {
    (0..bound).find_map(|count| {
        let outcome = run_seed(first + count, brokers, LENGTH_DEFAULT, bug, false);
        // What the seed finds without the bug is no sign of it.
        let sign = outcome.violation?;
        let sound = run_seed(first + count, brokers, LENGTH_DEFAULT, Bug::None, false);
        sound.violation.is_none().then_some((count + 1, sign))
    })
}
