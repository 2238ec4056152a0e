//! The long runs: all workloads from many seeds, nested deeper, and every bit. For `simulate --sweep` and
//! `simulate --flips`.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use crate::planted::{self, Bug};
use crate::sim::sweep::Checked;
use crate::sim::sweep::crash::{Count, Effort, sweep};
use crate::sim::sweep::flips::{FlipCount, Target};
use crate::sim::sweep::workloads;

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
    let jobs: Vec<(u64, &str, workloads::Workload)> = (options.seed..options.seed + options.seeds)
        .flat_map(|seed| workloads::ALL.map(|(name, workload)| (seed, name, workload)))
        .collect();
    let next = AtomicUsize::new(0);
    let work = || -> Checked<Count> {
        let mut total = Count::default();
        while let Some((seed, name, workload)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let place = || format!("{name}, seed {seed}");
            let count = crate::sim::sweep::guarded(&place, || {
                let mut count = Count::default();
                sweep(&workload(*seed, options.length)?, &options.effort, *seed, &mut count)?;
                Ok(count)
            });
            if count.is_err() {
                next.store(jobs.len(), Ordering::Relaxed);
            }
            let count = count?;
            say(&format!("{name:>14} seed {seed}: {count}"));
            total.add(&count);
        }
        Ok(total)
    };
    let mut total = Count::default();
    for count in on_threads(options.threads, work) {
        total.add(&count?);
    }
    Ok(total)
}

/// Flips every bit of a directory, one at a time. A line now and then through `say`; the first violation
/// ends it.
pub fn flips(options: &Options, say: &(dyn Fn(&str) + Sync)) -> Checked<FlipCount> {
    /// So many parts: for progress, and so that no thread waits long for another.
    const PARTS: u64 = 64;
    let target = Target::build(options.seed)?;
    say(&format!("a directory of {} bits in {} files", target.bits(), target.files()));
    let next = AtomicU64::new(0);
    let work = || -> Checked<FlipCount> {
        let mut total = FlipCount::default();
        loop {
            let part = next.fetch_add(1, Ordering::Relaxed);
            if part >= PARTS {
                return Ok(total);
            }
            let count = target.flip(options.flip_stride, part, PARTS);
            if count.is_err() {
                next.store(PARTS, Ordering::Relaxed);
            }
            total.add(&count?);
            say(&format!("part {} of {PARTS}; this thread: {total}", part + 1));
        }
    };
    let mut total = FlipCount::default();
    for count in on_threads(options.threads, work) {
        total.add(&count?);
    }
    Ok(total)
}

/// How many lives that end in a truncation, swept from seed `first` on, it takes until a planted bug is
/// caught, at most `bound`; and what caught it. For a bug in what only a torn tail before a later
/// life shows: a whole broker meets that too rarely.
pub fn lives_until_caught(bug: Bug, first: u64, bound: u64) -> Option<(u64, String)> {
    const EFFORT: Effort = Effort { exhaustive_max: 4, samples: 8, nest_every: 0, nest_depth: 0 };
    let sweep_one = |seed: u64| {
        crate::sim::sweep::guarded(&|| format!("seed {seed}"), || {
            let trial = workloads::truncation(seed, 1)?;
            sweep(&trial, &EFFORT, seed, &mut Count::default())
        })
    };
    (0..bound).find_map(|count| {
        planted::plant(bug);
        let sign = sweep_one(first + count).err();
        planted::plant(Bug::None);
        let is_sound = || sweep_one(first + count).is_ok();
        sign.filter(|_| is_sound()).map(|sign| (count + 1, sign))
    })
}

fn on_threads<R: Send>(threads: usize, work: impl Fn() -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("checks catch panics")).collect()
    })
}
