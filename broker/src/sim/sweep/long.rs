//! The long runs: all workloads from many seeds, nested deeper, and every bit. For `simulate --sweep` and
//! `simulate --flips`.

use crate::planted::{self, Bug};
use crate::sim::sweep::crash::{Count, Effort, sweep};
use crate::sim::sweep::flips::{FlipCount, Target};
use crate::sim::sweep::workloads::{self, Workload};
use crate::sim::sweep::{Checked, guarded};
use crate::sim::threads::add_up;

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The first seed, and how many.
    pub seed: u64,
    pub seeds: u64,
    /// How long each workload is; 1 in tests.
    pub length: usize,
    pub threads: usize,
    pub effort: Effort,
    /// Of the bits inside bodies and of zeros, each so-many-th is flipped: 1 flips them all.
    pub flip_stride: u64,
}

impl Default for Options {
    fn default() -> Self {
        let effort = Effort { exhaustive_max: 6, samples: 64, nest_every: 64, nest_depth: 2 };
        Self { seed: 1, seeds: 4, length: 2, threads: 2, effort, flip_stride: 1 }
    }
}

/// Crashes every workload everywhere. A line for each through `say`; the first violation ends it.
pub fn crashes(options: &Options, say: &(dyn Fn(&str) + Sync)) -> Checked<Count> {
    let jobs: Vec<(u64, &str, Workload)> = (options.seed..options.seed + options.seeds)
        .flat_map(|seed| workloads::ALL.map(|(name, workload)| (seed, name, workload)))
        .collect();
    let crash = |job: u64| {
        let (seed, name, workload) = jobs[job as usize];
        guarded(&|| format!("{name}, seed {seed}"), || {
            let mut count = Count::default();
            sweep(&workload(seed, options.length)?, &options.effort, seed, &mut count)?;
            Ok(count)
        })
    };
    add_up(options.threads, jobs.len() as u64, crash, Count::add, |job, count, _| {
        let (seed, name, _) = jobs[job as usize];
        say(&format!("{name:>14} seed {seed}: {count}"));
    })
}

/// Flips every bit of a directory, one at a time. A line now and then through `say`; the first violation
/// ends it.
pub fn flips(options: &Options, say: &(dyn Fn(&str) + Sync)) -> Checked<FlipCount> {
    /// So many parts: for progress, and so that no thread waits long for another.
    const PARTS: u64 = 64;
    let target = Target::build(options.seed)?;
    say(&format!("a directory of {} bits in {} files", target.bits(), target.files()));
    let flip = |part| target.flip(options.flip_stride, part, PARTS);
    add_up(options.threads, PARTS, flip, FlipCount::add, |part, _, total| {
        say(&format!("part {} of {PARTS}; so far: {total}", part + 1));
    })
}

/// How many lives of a workload, swept from seed `first` on, it takes until a planted bug is caught, at most
/// `bound`; and what caught it. For a bug in what a whole broker meets too rarely.
pub fn lives_until_caught(
    bug: Bug,
    workload: Workload,
    first: u64,
    bound: u64,
) -> Option<(u64, String)> {
    const EFFORT: Effort = Effort { exhaustive_max: 4, samples: 8, nest_every: 0, nest_depth: 0 };
    let sweep_one = |seed: u64| {
        guarded(&|| format!("seed {seed}"), || {
            sweep(&workload(seed, 1)?, &EFFORT, seed, &mut Count::default())
        })
    };
    (0..bound).find_map(|count| {
        let sign = planted::with(bug, || sweep_one(first + count)).err()?;
        // What the life shows without the bug is no sign of it.
        sweep_one(first + count).is_ok().then_some((count + 1, sign))
    })
}
