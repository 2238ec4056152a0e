//! Seeds through several brokers: sound ones find nothing, planted bugs are found.
//!
//! The binary `simulate --brokers 3` does the same at length.

#![cfg(feature = "sim")]

use corelog_broker::planted::Bug;
use corelog_broker::sim::fleet::plan::Plan;
use corelog_broker::sim::fleet::run::{LENGTH_DEFAULT, run_plan, run_seed, seeds_until_caught};

/// Far from the seeds that the binary starts with.
const FIRST: u64 = 7_000_000;

#[test]
fn without_faults_three_brokers_and_five_elect_and_serve() {
    for brokers in [3, 5] {
        let outcome = run_plan(Plan::calm(FIRST, brokers, LENGTH_DEFAULT), Bug::None, false);
        assert_eq!(outcome.violation, None);
        let tally = &outcome.tally;
        assert_eq!(tally.get("checked I5 failures never seen"), 0, "nothing fails");
        for name in [
            "acked records",
            "checked I1 records read back",
            "checked I1 committed entries",
            "checked I3 entries served",
            "fetches served by followers",
            "checked I7 acknowledged entries",
            "checked I7 entries on disks at the end",
        ] {
            assert!(tally.get(name) > 50, "{name}: {}", tally.get(name));
        }
    }
}

#[test]
fn the_same_seed_twice_gives_the_same_trace() {
    let run = |keeps| run_seed(FIRST + 10, 3, LENGTH_DEFAULT, Bug::None, keeps);
    let (once, twice) = (run(false), run(true));
    assert!(once.events > 5_000);
    assert_eq!((once.hash, once.events), (twice.hash, twice.events));
}

#[test]
fn a_dozen_seeds_keep_every_invariant() {
    for seed in FIRST + 100..FIRST + 112 {
        println!("seed {seed}");
        let brokers = if seed.is_multiple_of(4) { 5 } else { 3 };
        let outcome = run_seed(seed, brokers, LENGTH_DEFAULT, Bug::None, false);
        assert_eq!(outcome.violation, None, "seed {seed}, {brokers} brokers");
        assert_eq!(outcome.tally.get("checked I14 progress"), 1);
        assert!(outcome.tally.get("checked I2 acks against the disks") > 0, "seed {seed}");
    }
}

/// Some of those that a search from the first seeds on meets soon; `simulate --brokers 3 --plant` takes any.
#[test]
fn planted_bugs_are_caught() {
    for bug in [
        Bug::MinorityCommits,
        Bug::LeaderResumes,
        Bug::AckBeforeMatch,
        Bug::UncommittedServed,
        Bug::CheckpointForgetsTail,
        Bug::AckBeforeFlush,
        Bug::LevelOverstated,
        Bug::DuplicateAppended,
        Bug::FollowerServesUncommitted,
    ] {
        let caught = seeds_until_caught(bug, 3, 1, 12);
        let (count, violation) = caught.unwrap_or_else(|| panic!("{bug:?} is not noticed"));
        println!("{bug:?} is caught by seed {count}: {violation}");
    }
}
