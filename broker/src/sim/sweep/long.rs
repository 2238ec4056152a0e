//! The long run: all workloads from many seeds, nested deeper, and every bit. For `simulate --sweep`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

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
    /// Of the bits inside bodies and of zeros, each so-many-th is flipped; 0 flips none at all.
    pub flip_stride: u64,
}

impl Default for Options {
    fn default() -> Self {
        let effort = Effort { exhaustive_max: 6, samples: 64, nest_every: 64, nest_depth: 2 };
        Self { seed: 1, seeds: 8, length: 2, threads: 2, effort, flip_stride: 1 }
    }
}

/// Sweeps, then flips. A line for each workload through `say`; the first violation ends it.
pub fn run(options: &Options, say: &(dyn Fn(&str) + Sync)) -> Checked<()> {
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
    for count in on_threads(options.threads, |_| work()) {
        total.add(&count?);
    }
    say(&format!("crashes: {total}"));

    if options.flip_stride > 0 {
        let target = Target::build(options.seed)?;
        say(&format!("flipping a directory of {} bits", target.bits()));
        let parts = options.threads as u64;
        let flip = |part| target.flip(options.flip_stride, part as u64, parts);
        let mut total = FlipCount::default();
        for count in on_threads(options.threads, flip) {
            total.add(&count?);
        }
        say(&format!("flips: {total}"));
    }
    Ok(())
}

fn on_threads<R: Send>(threads: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..threads).map(|n| scope.spawn(move || work(n))).collect();
        threads.into_iter().map(|thread| thread.join().expect("checks catch panics")).collect()
    })
}
