//! The sweep and the flips can see: each bug that can be planted in a log is found by one of them.

use corelog_broker::planted::{self, Bug};
use corelog_broker::sim::sweep::flips::Target;
use corelog_broker::sim::sweep::long::lives_until_caught;
use corelog_broker::sim::sweep::workloads::{self, Workload};

/// The violation, in one of a few seeds.
fn found_by_the_sweep(bug: Bug, workload: Workload) -> String {
    let found = lives_until_caught(bug, workload, 1, 16);
    let (_, violation) = found.unwrap_or_else(|| panic!("{bug:?} was not found"));
    println!("{bug:?}: {violation}");
    violation
}

fn found_by_a_flip(bug: Bug) -> String {
    let target = Target::build(7).unwrap();
    let Err(violation) = planted::with(bug, || target.flip(61, 0, 1)) else {
        panic!("{bug:?} was not found")
    };
    println!("{bug:?}: {violation}");
    violation
}

#[test]
fn an_ack_before_the_flush_is_found() {
    found_by_the_sweep(Bug::AckBeforeFlush, workloads::appends);
}

#[test]
fn a_flush_that_covers_a_later_write_is_found() {
    assert!(found_by_the_sweep(Bug::FlushCoversLaterWrite, workloads::appends).contains("I1"));
}

#[test]
fn acks_out_of_order_are_found() {
    found_by_the_sweep(Bug::AckOutOfOrder, workloads::appends);
}

#[test]
fn stale_bytes_of_a_recycled_file_are_found() {
    found_by_the_sweep(Bug::StaleBytesAccepted, workloads::retention);
}

#[test]
fn padding_that_is_not_zeroed_is_found() {
    found_by_the_sweep(Bug::PaddingNotZeroed, workloads::appends);
}

#[test]
fn a_segment_whose_directory_entry_is_not_durable_is_found() {
    found_by_the_sweep(Bug::DirectoryNotSynced, workloads::rolls);
}

#[test]
fn an_offset_that_is_used_again_is_found() {
    found_by_the_sweep(Bug::OffsetReusedAfterCrash, workloads::appends);
}

#[test]
fn what_was_truncated_and_comes_back_is_found() {
    found_by_the_sweep(Bug::SupersededResurrected, workloads::truncation);
}

#[test]
fn a_write_error_that_is_ignored_is_found() {
    found_by_the_sweep(Bug::WriteErrorIgnored, workloads::write_refused);
}

#[test]
fn retention_that_takes_too_much_is_found() {
    assert!(found_by_the_sweep(Bug::RetentionTooEager, workloads::retention).contains("I1"));
}

#[test]
fn uncommitted_records_that_are_served_are_found() {
    found_by_the_sweep(Bug::UncommittedServed, workloads::appends);
}

#[test]
fn a_body_checksum_that_is_not_checked_is_found() {
    assert!(found_by_a_flip(Bug::BodyChecksumNotChecked).contains("served"));
}

#[test]
fn corruption_that_is_truncated_is_found() {
    found_by_a_flip(Bug::CorruptionTruncated);
}

#[test]
fn a_commit_header_that_attests_too_much_is_found() {
    found_by_the_sweep(Bug::DurableEndTooHigh, workloads::appends);
}

#[test]
fn a_torn_tail_that_is_kept_is_found() {
    found_by_the_sweep(Bug::TornTailKept, workloads::appends);
}

#[test]
fn log_starts_that_recovery_forgets_are_found() {
    found_by_the_sweep(Bug::LogStartForgotten, workloads::retention);
}

#[test]
fn a_full_disk_that_is_never_tried_again_is_found() {
    found_by_the_sweep(Bug::FullForEver, workloads::full_disk);
}
