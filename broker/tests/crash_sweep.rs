//! I9, exhaustively: every crash of several small lives of a log. The long version is
//! `simulate --sweep`.

use corelog_broker::sim::sweep::crash::{Count, Effort, sweep};
use corelog_broker::sim::sweep::workloads::{self, Workload};

const SEED: u64 = 20_260;

/// All subsets up to 6 loose sectors, 64 random ones beyond; some recoveries crashed in turn.
const EFFORT: Effort = Effort { exhaustive_max: 6, samples: 64, nest_every: 0, nest_depth: 0 };

fn crash_everywhere(workload: Workload, effort: Effort) -> Count {
    println!("seed {SEED}");
    let trial = workload(SEED, 1).unwrap();
    let mut count = Count::default();
    if let Err(violation) = sweep(&trial, &effort, SEED, &mut count) {
        panic!("{violation}");
    }
    println!("{}: {count}", trial.name);
    assert!(count.images > 100, "hardly anything was tried");
    assert!(count.crashes > count.prefixes);
    count
}

#[test]
fn no_crash_of_plain_appends_loses_what_was_acknowledged() {
    let count = crash_everywhere(workloads::appends, EFFORT);
    assert!(count.truncated > 0, "no commit overtook another");
}

#[test]
fn no_crash_around_a_roll_loses_what_was_acknowledged() {
    crash_everywhere(workloads::rolls, EFFORT);
}

#[test]
fn no_crash_while_segments_are_dropped_and_recycled_loses_what_is_kept() {
    crash_everywhere(workloads::retention, EFFORT);
}

#[test]
fn what_was_truncated_never_comes_back_whatever_crash_follows() {
    crash_everywhere(workloads::truncation, EFFORT);
}

#[test]
fn a_crash_of_a_recovery_changes_nothing() {
    let nested = Effort { samples: 8, nest_every: 60, nest_depth: 2, ..EFFORT };
    let count = crash_everywhere(workloads::appends, nested);
    assert!(count.recoveries_crashed > 10);
}

#[test]
fn no_crash_around_a_full_disk_brings_back_what_was_refused() {
    crash_everywhere(workloads::full_disk, EFFORT);
}

#[test]
fn no_crash_around_idle_padding_loses_what_was_acknowledged() {
    crash_everywhere(workloads::idle, EFFORT);
}

#[test]
fn after_a_refused_write_or_flush_any_crash_keeps_what_was_acknowledged_before() {
    crash_everywhere(workloads::write_refused, EFFORT);
    crash_everywhere(workloads::flush_refused, EFFORT);
}
