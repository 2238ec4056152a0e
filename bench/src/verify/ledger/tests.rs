//! Each anomaly is injected into a run that is clean without it, and must be named.

use super::*;

const SEED: u64 = 5;
const KEYS: u64 = 4;

/// Ten records of one unkeyed producer, acknowledged durable at their offsets, as (spot, value).
fn clean_run() -> (Ledger, Vec<(Spot, Vec<u8>)>) {
    let mut ledger = Ledger::new(SEED);
    let producer = ledger.add_producer(0, None);
    let mut stored = Vec::new();
    for offset in 0..10 {
        let identity = ledger.send(producer);
        ledger.on_ack(identity, Level::Durable, 0, offset);
        stored.push((Spot { partition: (0, 0), offset }, value(identity)));
    }
    (ledger, stored)
}

fn value(identity: Identity) -> Vec<u8> {
    let mut value = Vec::new();
    content::fill(SEED, identity, 40, &mut value);
    value
}

fn read(mut ledger: Ledger, stored: &[(Spot, Vec<u8>)]) -> Verdict {
    for (spot, value) in stored {
        ledger.on_record(*spot, None, Some(value));
    }
    ledger.finish()
}

fn names(verdict: &Verdict) -> Vec<String> {
    let name = |anomaly: &Anomaly| anomaly.to_string().split(':').next().unwrap().to_owned();
    verdict.anomalies.iter().map(name).collect()
}

#[test]
fn a_clean_run_is_clean() {
    let (ledger, stored) = clean_run();
    let verdict = read(ledger, &stored);
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!((verdict.sent, verdict.acknowledged_durable, verdict.seen), (10, 10, 10));
}

#[test]
fn a_lost_record_at_the_end_is_flagged() {
    let (ledger, mut stored) = clean_run();
    stored.pop();
    assert_eq!(names(&read(ledger, &stored)), ["lost"]);
}

#[test]
fn a_lost_record_in_the_middle_is_flagged_as_gap_too() {
    let (ledger, mut stored) = clean_run();
    stored.remove(4);
    assert_eq!(names(&read(ledger, &stored)), ["gap", "lost"]);
}

#[test]
fn a_lost_record_whose_offset_went_to_the_next_is_flagged() {
    let (ledger, mut stored) = clean_run();
    stored.remove(4);
    for (offset, (spot, _)) in (0..).zip(&mut stored) {
        spot.offset = offset;
    }
    let names = names(&read(ledger, &stored));
    assert_eq!(names.iter().filter(|name| *name == "lost").count(), 1);
    assert_eq!(names.iter().filter(|name| *name == "misplaced").count(), 5);
}

#[test]
fn a_duplicate_is_flagged() {
    let (ledger, mut stored) = clean_run();
    let copy = stored[9].1.clone();
    stored.push((Spot { partition: (0, 0), offset: 10 }, copy));
    assert_eq!(names(&read(ledger, &stored)), ["reordered", "duplicate"]);
}

#[test]
fn a_duplicate_in_another_partition_is_flagged() {
    let (ledger, mut stored) = clean_run();
    let copy = stored[9].1.clone();
    stored.push((Spot { partition: (0, 1), offset: 0 }, copy));
    assert_eq!(names(&read(ledger, &stored)), ["duplicate"]);
}

#[test]
fn two_records_that_changed_places_are_flagged() {
    let (ledger, mut stored) = clean_run();
    let earlier = stored[4].1.clone();
    stored[4].1 = stored[5].1.clone();
    stored[5].1 = earlier;
    let names = names(&read(ledger, &stored));
    assert_eq!(names, ["reordered", "misplaced", "misplaced"]);
}

#[test]
fn a_flipped_bit_is_flagged_and_the_record_counts_as_lost() {
    let (ledger, mut stored) = clean_run();
    stored[4].1[30] ^= 1;
    assert_eq!(names(&read(ledger, &stored)), ["corrupt", "lost"]);
}

#[test]
fn a_record_without_value_is_corrupt() {
    let mut ledger = Ledger::new(SEED);
    ledger.on_record(Spot { partition: (0, 0), offset: 0 }, None, None);
    assert_eq!(names(&ledger.finish()), ["corrupt"]);
}

#[test]
fn a_record_that_nobody_sent_is_flagged() {
    let (ledger, mut stored) = clean_run();
    let spot = Spot { partition: (0, 0), offset: 10 };
    stored.push((spot, value(Identity { producer: 0, number: 10 })));
    assert_eq!(names(&read(ledger, &stored)), ["never sent"]);
    let (ledger, mut stored) = clean_run();
    let spot = Spot { partition: (1, 0), offset: 0 };
    stored[9] = (spot, value(Identity { producer: 0, number: 9 }));
    assert_eq!(names(&read(ledger, &stored)), ["never sent", "lost"], "in a foreign topic");
}

#[test]
fn a_definite_failure_must_stay_invisible_and_an_open_one_may_be_seen() {
    for (definite, expected) in [(true, vec!["refused for good, and there"]), (false, vec![])] {
        let mut ledger = Ledger::new(SEED);
        let producer = ledger.add_producer(0, None);
        let identity = ledger.send(producer);
        ledger.on_failure(identity, definite);
        ledger.on_record(Spot { partition: (0, 0), offset: 0 }, None, Some(&value(identity)));
        let verdict = ledger.finish();
        assert_eq!(names(&verdict), expected);
        assert_eq!(verdict.open_seen, u64::from(!definite));
    }
}

#[test]
fn two_durable_acks_of_one_offset_are_flagged() {
    let (mut ledger, stored) = clean_run();
    let identity = ledger.send(0);
    ledger.on_ack(identity, Level::Durable, 0, 3);
    let names = names(&read(ledger, &stored));
    assert_eq!(names, ["lost", "offset given twice"]);
}

#[test]
fn what_was_acknowledged_in_memory_may_be_lost_and_is_counted() {
    let (mut ledger, stored) = clean_run();
    let identity = ledger.send(0);
    ledger.on_ack(identity, Level::Weak, 0, 10);
    let verdict = read(ledger, &stored);
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!((verdict.acknowledged_weakly, verdict.weak_lost), (1, 1));
}

#[test]
fn a_second_reading_must_find_what_the_first_one_saw() {
    let (mut ledger, stored) = clean_run();
    let identity = ledger.send(0);
    ledger.on_failure(identity, false);
    let last = (Spot { partition: (0, 0), offset: 10 }, value(identity));
    for (spot, value) in stored.iter().chain([&last]) {
        ledger.on_record(*spot, None, Some(value));
    }
    assert_eq!(ledger.next_offset((0, 0)), 11);
    ledger.read_again();
    assert_eq!(ledger.next_offset((0, 0)), 0);
    assert_eq!(names(&read(ledger, &stored)), ["vanished"]);
}

#[test]
fn keys_must_come_back_and_stay_in_one_partition() {
    let run = |partition_of: &dyn Fn(u64) -> u32, break_key: bool| {
        let mut ledger = Ledger::new(SEED);
        let producer = ledger.add_producer(0, Some(KEYS));
        let mut next = [0; 4];
        for number in 0..50 {
            let identity = ledger.send(producer);
            let mut key = content::key(identity, KEYS);
            let partition = partition_of(u64::from(key[15]) + 100 * number);
            let offset = &mut next[partition as usize];
            ledger.on_ack(identity, Level::Durable, partition, *offset);
            key[0] ^= u8::from(break_key && number == 7);
            let spot = Spot { partition: (0, partition), offset: *offset };
            ledger.on_record(spot, Some(&key), Some(&value(identity)));
            *offset += 1;
        }
        ledger.finish()
    };
    let by_key = |choice: u64| (choice % 100 % 2) as u32;
    assert!(run(&by_key, false).is_clean());
    assert_eq!(names(&run(&by_key, true)), ["wrong key"]);
    let astray = |choice: u64| ((choice % 100 + u64::from(choice / 100 == 9)) % 2) as u32;
    let verdict = run(&astray, false);
    assert_eq!(names(&verdict), ["key in two partitions"]);
}

#[test]
fn what_is_acknowledged_and_read_is_forgotten_and_counted_all_the_same() {
    let (ledger, stored) = clean_run();
    let mut ledger = ledger.forgetting();
    for (spot, value) in &stored[..9] {
        ledger.on_record(*spot, None, Some(value));
    }
    assert_eq!(ledger.producers[0].records.len(), 1);
    assert_eq!(ledger.unread(), 1);
    let verdict = read(ledger, &stored[9..]);
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!((verdict.sent, verdict.acknowledged_durable, verdict.seen), (10, 10, 10));
}

#[test]
fn what_was_forgotten_and_comes_again_is_flagged() {
    let (ledger, mut stored) = clean_run();
    let again = (Spot { partition: (0, 1), offset: 0 }, stored[3].1.clone());
    stored.push(again);
    assert_eq!(names(&read(ledger.forgetting(), &stored)), ["again"]);
}

#[test]
fn a_ledger_that_forgets_flags_what_it_still_knows_to_be_missing_or_elsewhere() {
    let (ledger, mut stored) = clean_run();
    stored.remove(4);
    assert_eq!(names(&read(ledger.forgetting(), &stored)), ["gap", "lost"]);
    let (mut ledger, stored) = clean_run();
    let identity = Identity { producer: 0, number: 9 };
    ledger.on_ack(identity, Level::Durable, 0, 77);
    assert_eq!(names(&read(ledger.forgetting(), &stored)), ["misplaced"]);
}
