//! Seeds through the simulator: sound ones find nothing, planted bugs are found.
//!
//! The binary `simulate` does the same at length: `simulate --seeds 5000`, `simulate --planted`.

#![cfg(feature = "sim")]

use corelog_broker::planted::Bug;
use corelog_broker::sim::run::{LENGTH_DEFAULT, run_seed, seeds_until_caught};
use corelog_broker::sim::stories;

/// Far from the seeds that the binary starts with.
const FIRST: u64 = 7_000_000;

#[test]
fn the_same_seed_twice_gives_the_same_trace() {
    let mut hashes = Vec::new();
    for seed in FIRST..FIRST + 4 {
        println!("seed {seed}");
        let once = run_seed(seed, LENGTH_DEFAULT, Bug::None, false);
        let twice = run_seed(seed, LENGTH_DEFAULT, Bug::None, true);
        assert!(once.events > 500, "seed {seed} did nothing");
        assert_eq!((once.hash, once.events), (twice.hash, twice.events), "seed {seed}");
        hashes.push(once.hash);
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 4, "different seeds, different traces");
}

#[test]
fn thirty_seeds_keep_every_invariant() {
    for seed in FIRST + 100..FIRST + 130 {
        println!("seed {seed}");
        let outcome = run_seed(seed, LENGTH_DEFAULT, Bug::None, false);
        assert_eq!(outcome.violation, None, "seed {seed}");
        assert!(outcome.tally.get("checked I2 acks against the disk") > 0, "seed {seed}");
        assert!(outcome.tally.get("checked I1 durable records read back") > 0, "seed {seed}");
    }
}

/// Each is searched for from a place where it was found soon; `simulate --planted` searches from
/// others, and prints how many seeds it takes.
const SEEDS_MAX: u64 = 60;

macro_rules! caught {
    ($($test:ident: $bug:ident from $first:literal,)*) => {
        $(
            #[test]
            fn $test() {
                let caught = seeds_until_caught(Bug::$bug, $first, SEEDS_MAX);
                let (count, violation) = caught.expect("no seed noticed");
                println!("caught by seed {count}: {violation}");
            }
        )*
    };
}

#[test]
fn bugs_of_deduplication_are_caught_by_a_story() {
    stories::told_with(Bug::None).expect("nothing is wrong without a bug");
    for bug in [
        Bug::DuplicateAppended,
        Bug::ProducersForgotten,
        Bug::GapAccepted,
        Bug::OldEpochAccepted,
        Bug::DuplicateAckedEarly,
        Bug::SentBeforeIgnored,
        Bug::FormerStampIgnored,
    ] {
        let sign = stories::told_with(bug).expect_err("the story notices");
        println!("{bug:?}: {sign}");
    }
}

caught! {
    a_retry_that_is_appended_again_is_caught: DuplicateAppended from 1,
    producers_that_a_restart_forgets_are_caught: ProducersForgotten from 20_001,
    an_ack_before_the_flush_is_caught: AckBeforeFlush from 1,
    a_flush_that_covers_a_later_write_is_caught: FlushCoversLaterWrite from 1,
    a_body_checksum_that_is_not_checked_is_caught: BodyChecksumNotChecked from 30_001,
    stale_bytes_of_a_recycled_segment_are_caught: StaleBytesAccepted from 20_001,
    padding_that_is_not_zeroed_is_caught: PaddingNotZeroed from 1,
    a_directory_that_is_not_synced_is_caught: DirectoryNotSynced from 1,
    an_offset_given_again_after_a_crash_is_caught: OffsetReusedAfterCrash from 1,
    corruption_that_is_truncated_is_caught: CorruptionTruncated from 1,
    uncommitted_records_that_are_served_are_caught: UncommittedServed from 1,
    a_write_error_that_is_ignored_is_caught: WriteErrorIgnored from 8,
    acks_out_of_order_are_caught: AckOutOfOrder from 30,
    retention_that_is_too_eager_is_caught: RetentionTooEager from 1,
    a_level_that_was_not_reached_is_caught: LevelOverstated from 1,
    a_header_that_attests_too_much_is_caught: DurableEndTooHigh from 1,
    a_torn_tail_that_is_kept_is_caught: TornTailKept from 1,
    a_long_poll_without_an_end_is_caught: LongPollForgotten from 1,
    a_damaged_range_that_is_not_told_is_caught: CorruptRangeUnsaid from 1,
    a_memory_budget_that_is_ignored_is_caught: BudgetIgnored from 1,
    a_buffer_that_leaks_is_caught: SlotLeaked from 1,
    a_refusal_that_is_dropped_is_caught: RefusalDropped from 20,
    a_disk_that_stays_full_for_ever_is_caught: FullForEver from 10_001,
    a_retry_of_what_damage_hid_is_caught: SentBeforeIgnored from 350,
}
