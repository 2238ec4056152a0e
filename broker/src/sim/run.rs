//! One seed, and many.

use crate::planted::{self, Bug};
use crate::sim::plan::Plan;
use crate::sim::threads::caught;
use crate::sim::trace::Violation;
use crate::sim::world::{Outcome, World};

/// The length of a seed's workload, virtual ns; the quiet end comes on top.
pub const LENGTH_DEFAULT: u64 = 2_000_000_000;

/// Runs a seed to its end or its first violation. A panic, which is an assertion of the broker or
/// of the client, is a violation too.
pub fn run_seed(seed: u64, length: u64, bug: Bug, keep_lines: bool) -> Outcome {
    let run = || World::new(Plan::draw(seed, length), keep_lines).run();
    planted::with(bug, || caught(run)).unwrap_or_else(|text| Outcome {
        violation: Some(Violation::new("panic", text)),
        hash: 0,
        events: 0,
        virtual_nanos: 0,
        tally: Default::default(),
        lines: Vec::new(),
    })
}

/// How many seeds from `first` on it takes until a planted bug is caught, at most `bound`.
pub fn seeds_until_caught(bug: Bug, first: u64, bound: u64) -> Option<(u64, Violation)> {
    (0..bound).find_map(|count| {
        let outcome = run_seed(first + count, LENGTH_DEFAULT, bug, false);
        // What the seed finds without the bug is no sign of it.
        let sign = outcome.violation?;
        let sound = run_seed(first + count, LENGTH_DEFAULT, Bug::None, false);
        sound.violation.is_none().then_some((count + 1, sign))
    })
}
