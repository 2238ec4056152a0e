//! Records on disk, and what they come to.

use bytes::Bytes;

use crate::metadata::consensus::members::ReplicaId;
use crate::metadata::consensus::*;

fn snapshot(index: u64, term: u64) -> Record {
    let members = Members::of_voters(&[ReplicaId(1)]);
    Record::Snapshot(Snapshot { index, term, members, image: Bytes::from_static(b"state") })
}

fn entry(index: u64, term: u64) -> Record {
    let payload = Payload::Command(Bytes::from_static(b"do"));
    Record::Entry { commit: 1, entry: LogEntry { index, term, payload } }
}

fn hard(term: u64, vote: u64, commit: u64) -> Record {
    let vote = ReplicaId::checked(vote).ok();
    Record::HardState(HardState { term, vote, commit })
}

/// (snapshot's index, (index, term) of each entry behind it, hard state).
type Folded = (u64, Vec<(u64, u64)>, HardState);

fn fold(records: &[Record]) -> Result<Folded, FoldError> {
    let mut fold = Fold::default();
    records.iter().for_each(|record| fold.on_record(&record.encode()));
    fold.finish().map(|recovered| {
        let log = recovered.log.iter().map(|entry| (entry.index, entry.term)).collect();
        (recovered.snapshot.map_or(0, |snapshot| snapshot.index), log, recovered.hard)
    })
}

fn state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term, vote: ReplicaId::checked(vote).ok(), commit }
}

#[test]
fn a_later_entry_of_another_term_goes_over_the_tail() {
    let records = [
        snapshot(1, 1),
        hard(1, 1, 1),
        entry(2, 1),
        entry(3, 1),
        entry(4, 1),
        hard(2, 2, 2),
        entry(3, 2),
    ];
    assert_eq!(fold(&records), Ok((1, vec![(2, 1), (3, 2)], state(2, 2, 2))));
}

#[test]
fn an_entry_that_is_said_again_cuts_nothing_off() {
    // A checkpoint at 2 that a crash cut short before entry 4 was said again.
    let records = [
        snapshot(1, 1),
        hard(1, 1, 1),
        entry(2, 1),
        entry(3, 1),
        entry(4, 1),
        snapshot(2, 1),
        hard(1, 1, 2),
        entry(3, 1),
    ];
    assert_eq!(fold(&records), Ok((2, vec![(3, 1), (4, 1)], state(1, 1, 2))));
}

#[test]
fn a_snapshot_that_the_log_does_not_know_stands_for_all_of_it() {
    let records =
        [snapshot(1, 1), hard(1, 0, 1), entry(2, 1), entry(3, 1), hard(4, 2, 1), snapshot(3, 3)];
    assert_eq!(fold(&records), Ok((3, vec![], state(4, 2, 3))));
    let late = [snapshot(5, 1), hard(1, 0, 5), entry(6, 1), snapshot(3, 1)];
    assert_eq!(fold(&late), Ok((5, vec![(6, 1)], state(1, 0, 5))), "an old one changes nothing");
}

#[test]
fn what_is_left_of_a_dropped_segment_is_passed_over() {
    let records = [
        entry(8, 2),
        entry(9, 2),
        entry(5, 3),
        entry(6, 3),
        snapshot(5, 3),
        hard(3, 1, 5),
        entry(6, 3),
    ];
    assert_eq!(fold(&records), Ok((5, vec![(6, 3)], state(3, 1, 5))));
}

#[test]
fn a_commit_beyond_the_end_is_what_is_here() {
    let records = [snapshot(1, 1), hard(7, 1, 90), entry(2, 7)];
    assert_eq!(fold(&records), Ok((1, vec![(2, 7)], state(7, 1, 2))));
}

#[test]
fn a_first_start_that_was_cut_short_is_one_without_a_vote() {
    assert_eq!(fold(&[snapshot(1, 1)]), Ok((1, vec![], state(1, 0, 1))));
    assert!(Fold::default().is_empty());
    assert_eq!(fold(&[hard(3, 2, 0)]), Ok((0, vec![], state(3, 2, 0))), "not joined, but voted");
}

#[test]
fn what_cannot_have_been_written_is_refused() {
    let gap = [snapshot(1, 1), entry(2, 1), entry(4, 1)];
    assert_eq!(fold(&gap), Err(FoldError::Gap { expected: 3, found: 4 }));
    assert_eq!(fold(&[entry(4, 1)]), Err(FoldError::NoSnapshot));
    let fell = [snapshot(1, 3), entry(2, 2)];
    assert_eq!(fold(&fell), Err(FoldError::TermFell { index: 2 }));
    let mut fold = Fold::default();
    fold.on_record(&snapshot(1, 1).encode());
    fold.on_record(b"rubbish");
    assert_eq!(fold.salvage().0.map(|snapshot| snapshot.index), Some(1), "to be looked at");
    assert_eq!(fold.finish(), Err(FoldError::BadRecord));
}
