//! Records on their way in.

use super::peer::*;
use crate::Error;
use crate::engine::*;
use corelog_protocol::ErrorCode;
use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{Offset, PartitionId};
use corelog_protocol::message::*;

/// A consumer of partition 0 of `t`, from `position`, with what was asked for it.
pub fn reading(scene: &mut Scene, position: Position) -> (ConsumerId, AssignmentId, Vec<Asked>) {
    let consumer = scene.engine.consumer(ConsumerConfig::default());
    let assignment = scene.engine.assign(scene.now, consumer, "t", 0, position, &mut scene.effects);
    scene.carry_out();
    let asked = scene.asked();
    (consumer, assignment, asked)
}

pub fn take(scene: &mut Scene, consumer: ConsumerId) -> Option<Fetched> {
    let fetched = scene.engine.take(scene.now, consumer, &mut scene.effects);
    scene.carry_out();
    fetched
}

pub fn values(fetched: Option<Fetched>) -> Vec<(u64, String)> {
    let Some(Fetched::Batch(batch)) = fetched else { panic!("{fetched:?}") };
    let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
    let records = batch.records().map(|record| (record.offset.0, text(record.value)));
    let all: Vec<_> = records.collect();
    assert_eq!(all.len() as u64, batch.record_count());
    all
}

pub fn error(fetched: Option<Fetched>) -> Error {
    let Some(Fetched::Error { error, .. }) = fetched else { panic!("{fetched:?}") };
    error
}

#[test]
fn a_consumer_finds_the_beginning_fetches_ahead_and_hands_out_in_order() {
    let mut scene = Scene::with_topic(config(), &[0]);
    let (consumer, assignment, asked) = reading(&mut scene, Position::Beginning);
    assert_eq!(asked[0].header.kind, FrameKind::Offsets);
    scene.answer(&asked[0], &offsets(100, 3, 5));
    let asked = scene.asked();
    assert_eq!(asked[0].fetch().partitions[0].offset, Offset(3));
    let mut both = entry(100, 3, &["c", "d"]);
    both.extend(entry(100, 5, &["e"]));
    let reply = fetch_reply(&asked[0], 6, &[(100, both)]);
    // Cut in two, as sockets do.
    let (first, second) = reply.split_at(77);
    scene.bytes(asked[0].link, first);
    assert_eq!(scene.readable, 0);
    scene.bytes(asked[0].link, second);
    assert_eq!(scene.readable, 1);
    // The next fetch does not wait for the user.
    let ahead = scene.asked();
    assert_eq!(ahead[0].fetch().partitions[0].offset, Offset(6));
    assert_eq!(scene.engine.position(assignment), Some(Offset(3)));
    let expected = [(3, "c".into()), (4, "d".into())];
    assert_eq!(values(take(&mut scene, consumer)), expected);
    assert_eq!(values(take(&mut scene, consumer)), [(5, "e".into())]);
    assert!(take(&mut scene, consumer).is_none());
    assert_eq!(scene.engine.position(assignment), Some(Offset(6)));
}

fn offsets(id: u32, log_start: u64, end: u64) -> OffsetsReply {
    OffsetsReply {
        partitions: vec![OffsetsAnswer {
            partition: PartitionId(id),
            error: None,
            log_start: Offset(log_start),
            committed_end: Offset(end),
            offset_at: None,
        }],
    }
}

#[test]
fn records_before_the_asked_offset_are_skipped() {
    let mut scene = Scene::with_topic(config(), &[0]);
    let (consumer, _, asked) = reading(&mut scene, Position::Offset(Offset(4)));
    let reply = fetch_reply(&asked[0], 6, &[(100, entry(100, 3, &["c", "d", "e"]))]);
    scene.bytes(asked[0].link, &reply);
    let expected = [(4, "d".into()), (5, "e".into())];
    assert_eq!(values(take(&mut scene, consumer)), expected);
}

#[test]
fn only_sound_dense_committed_entries_are_accepted() {
    let good = entry(100, 4, &["e"]);
    let mut flipped_header = good.clone();
    flipped_header[30] ^= 1;
    let mut flipped_body = good.clone();
    let last = flipped_body.len() - 9;
    flipped_body[last] ^= 1;
    let corrupt = |reason| Error::CorruptEntry { expected: Offset(4), reason };
    let not_dense = |found| Error::NotDense { expected: Offset(4), found: Offset(found) };
    for (bytes, expected) in [
        (flipped_header, corrupt("header")),
        (flipped_body, corrupt("batch")),
        (good[..good.len() - 8].to_vec(), corrupt("cut short")),
        (entry(101, 4, &["e"]), corrupt("of another partition")),
        (entry(100, 6, &["g"]), not_dense(6)),
        (entry(100, 2, &["c"]), not_dense(2)),
        (entry(100, 4, &["e", "f", "g", "h"]), corrupt("not committed")),
        (
            [entry(100, 4, &["e"]), entry(100, 6, &["g"])].concat(),
            Error::NotDense { expected: Offset(5), found: Offset(6) },
        ),
    ] {
        let mut scene = Scene::with_topic(config(), &[0]);
        let (consumer, assignment, asked) = reading(&mut scene, Position::Offset(Offset(4)));
        scene.bytes(asked[0].link, &fetch_reply(&asked[0], 7, &[(100, bytes)]));
        let mut fetched = take(&mut scene, consumer);
        if matches!(&expected, Error::NotDense { expected: Offset(5), .. }) {
            assert_eq!(values(fetched), [(4, "e".into())]);
            fetched = take(&mut scene, consumer);
        }
        assert_eq!(error(fetched), expected);
        // It stands still until it is sought.
        assert!(scene.asked().is_empty());
        let (at, now) = (Position::Offset(Offset(4)), scene.now);
        scene.engine.seek(now, assignment, at, &mut scene.effects);
        scene.carry_out();
        let asked = scene.asked();
        scene.bytes(asked[0].link, &fetch_reply(&asked[0], 5, &[(100, good.clone())]));
        assert_eq!(values(take(&mut scene, consumer)), [(4, "e".into())]);
    }
}

/// The partition's records are 10 to 19.
fn out_of_range() -> FetchReply {
    FetchReply {
        partitions: vec![FetchedPartition {
            partition: PartitionId(100),
            error: Some(ErrorCode::OffsetOutOfRange),
            log_start: Offset(10),
            committed_end: Offset(20),
            bytes: 0,
            corrupt: None,
        }],
    }
}

#[test]
fn an_offset_out_of_range_is_an_error_and_never_a_silent_wait() {
    let mut scene = Scene::with_topic(config(), &[0]);
    let (consumer, _, asked) = reading(&mut scene, Position::Offset(Offset(90)));
    scene.answer(&asked[0], &out_of_range());
    let expected = Error::OffsetOutOfRange {
        asked: Offset(90),
        log_start: Offset(10),
        committed_end: Offset(20),
    };
    assert_eq!(error(take(&mut scene, consumer)), expected);
}

#[test]
fn an_offset_out_of_range_moves_where_the_user_said_and_is_counted() {
    for (policy, target) in [(OutOfRange::Earliest, 10), (OutOfRange::Latest, 20)] {
        let mut scene = Scene::with_topic(config(), &[0]);
        let config = ConsumerConfig { out_of_range: policy, ..Default::default() };
        let consumer = scene.engine.consumer(config);
        let at = Position::Offset(Offset(90));
        let assignment = scene.engine.assign(scene.now, consumer, "t", 0, at, &mut scene.effects);
        scene.carry_out();
        for round in 1..=3 {
            let asked = scene.asked();
            scene.answer(&asked[0], &out_of_range());
            assert_eq!(scene.engine.position(assignment), Some(Offset(target)));
            assert_eq!(scene.engine.counters().positions_moved, round);
            // A broker that says so for ever is not asked in a circle.
            assert!(scene.asked().is_empty());
            scene.sleep(20);
        }
        let asked = scene.asked();
        assert_eq!(asked[0].fetch().partitions[0].offset, Offset(target));
        let bytes = entry(100, target, &["x"]);
        scene.bytes(asked[0].link, &fetch_reply(&asked[0], target + 1, &[(100, bytes)]));
        assert_eq!(values(take(&mut scene, consumer)), [(target, "x".into())]);
    }
}

#[test]
fn the_rest_of_a_batch_that_is_given_back_comes_again_unless_it_was_sought() {
    let mut scene = Scene::with_topic(config(), &[0]);
    let (consumer, assignment, asked) = reading(&mut scene, Position::Offset(Offset(4)));
    let bytes = [entry(100, 3, &["c", "d", "e", "f"]), entry(100, 7, &["g"])].concat();
    scene.bytes(asked[0].link, &fetch_reply(&asked[0], 8, &[(100, bytes)]));
    let taken = |scene: &mut Scene| match take(scene, consumer) {
        Some(Fetched::Batch(batch)) => batch.into_iter(),
        other => panic!("{other:?}"),
    };
    let mut records = taken(&mut scene);
    assert_eq!(records.len(), 3);
    let first = records.next().unwrap();
    assert_eq!((first.offset(), first.value()), (Offset(4), Some(&b"d"[..])));
    assert_eq!((first.topic(), first.partition(), first.timestamp_ms()), ("t", 0, 5));
    scene.engine.give_back(records.into_batch(), &mut scene.effects);
    scene.carry_out();
    assert_eq!(scene.engine.position(assignment), Some(Offset(5)));
    let mut records = taken(&mut scene);
    assert_eq!(records.next().map(|record| record.offset()), Some(Offset(5)));
    // Paused, it is kept for later.
    scene.engine.pause(scene.now, assignment, true, &mut scene.effects);
    scene.engine.give_back(records.into_batch(), &mut scene.effects);
    assert!(take(&mut scene, consumer).is_none());
    scene.engine.pause(scene.now, assignment, false, &mut scene.effects);
    assert_eq!(values(take(&mut scene, consumer)), [(6, "f".into())]);
    assert_eq!(values(take(&mut scene, consumer)), [(7, "g".into())]);
    // A record outlives its batch and its consumer.
    drop(scene);
    assert_eq!(first.value(), Some(&b"d"[..]));
}

#[test]
fn a_seek_does_not_wait_for_the_fetch_before_it() {
    let mut scene = Scene::with_topic(config(), &[0]);
    let (consumer, assignment, old) = reading(&mut scene, Position::Offset(Offset(0)));
    scene.engine.seek(scene.now, assignment, Position::Offset(Offset(8)), &mut scene.effects);
    scene.carry_out();
    let asked = scene.asked();
    assert_eq!(asked[0].fetch().partitions[0].offset, Offset(8));
    // The old answer changes nothing, and a second fetch for the new place does not leave.
    scene.bytes(old[0].link, &fetch_reply(&old[0], 9, &[(100, entry(100, 0, &["a"]))]));
    assert!(scene.asked().is_empty());
    scene.bytes(asked[0].link, &fetch_reply(&asked[0], 9, &[(100, entry(100, 8, &["i"]))]));
    assert_eq!(values(take(&mut scene, consumer)), [(8, "i".into())]);
}

#[test]
fn the_last_offset_of_all_is_no_reason_to_panic() {
    for position in [Position::End, Position::Offset(Offset(u64::MAX))] {
        let mut scene = Scene::with_topic(config(), &[0]);
        let (consumer, _, mut asked) = reading(&mut scene, position);
        if position == Position::End {
            scene.answer(&asked[0], &offsets(100, 0, u64::MAX));
            asked = scene.asked();
        }
        assert_eq!(asked[0].fetch().partitions[0].offset, Offset(u64::MAX));
        let reply = FetchReply {
            partitions: vec![FetchedPartition {
                partition: PartitionId(100),
                error: Some(ErrorCode::RangeCorrupt),
                log_start: Offset(0),
                committed_end: Offset(u64::MAX),
                bytes: 0,
                corrupt: None,
            }],
        };
        scene.answer(&asked[0], &reply);
        let last = Offset(u64::MAX);
        let expected = Error::RangeCorrupt { first: last, end: last };
        assert_eq!(error(take(&mut scene, consumer)), expected);
    }
}

#[test]
fn a_partition_that_is_assigned_twice_is_named_once_in_a_fetch() {
    let mut scene = Scene::with_topic(config(), &[0]);
    let consumer = scene.engine.consumer(ConsumerConfig::default());
    for offset in [3, 5] {
        let position = Position::Offset(Offset(offset));
        scene.engine.assign(scene.now, consumer, "t", 0, position, &mut scene.effects);
    }
    scene.carry_out();
    let asked = scene.asked();
    assert!(asked.iter().all(|asked| asked.fetch().partitions.len() == 1));
    let offsets: Vec<u64> = asked.iter().map(|a| a.fetch().partitions[0].offset.0).collect();
    assert_eq!(offsets, [3, 5]);
}

#[test]
fn what_a_fetch_brings_after_a_seek_is_dropped() {
    let mut scene = Scene::with_topic(config(), &[0]);
    let (consumer, assignment, asked) = reading(&mut scene, Position::Offset(Offset(0)));
    scene.engine.seek(scene.now, assignment, Position::Offset(Offset(8)), &mut scene.effects);
    scene.carry_out();
    let after = scene.asked();
    scene.bytes(asked[0].link, &fetch_reply(&asked[0], 9, &[(100, entry(100, 0, &["a"]))]));
    assert!(take(&mut scene, consumer).is_none());
    assert_eq!(after[0].fetch().partitions[0].offset, Offset(8));
}

#[test]
fn a_full_budget_stops_the_fetching_and_taking_resumes_it() {
    let mut scene = Scene::with_topic(config(), &[0]);
    let config =
        ConsumerConfig { ahead_bytes_max: 3000, partition_bytes_max: 2000, ..Default::default() };
    let consumer = scene.engine.consumer(config);
    let at = Position::Offset(Offset(0));
    scene.engine.assign(scene.now, consumer, "t", 0, at, &mut scene.effects);
    scene.carry_out();
    let value = "v".repeat(1500);
    for offset in 0..2 {
        let asked = scene.asked();
        assert!(asked[0].fetch().bytes_max <= 2000);
        let reply = fetch_reply(&asked[0], 9, &[(100, entry(100, offset, &[&value]))]);
        scene.bytes(asked[0].link, &reply);
    }
    assert!(scene.asked().is_empty());
    take(&mut scene, consumer).unwrap();
    assert_eq!(scene.asked()[0].fetch().partitions[0].offset, Offset(2));
}

#[test]
fn a_paused_assignment_neither_fetches_nor_gives() {
    let mut scene = Scene::with_topic(config(), &[0]);
    let (consumer, assignment, asked) = reading(&mut scene, Position::Offset(Offset(0)));
    scene.engine.pause(scene.now, assignment, true, &mut scene.effects);
    scene.bytes(asked[0].link, &fetch_reply(&asked[0], 1, &[(100, entry(100, 0, &["a"]))]));
    assert!(take(&mut scene, consumer).is_none());
    assert!(scene.asked().is_empty());
    scene.engine.pause(scene.now, assignment, false, &mut scene.effects);
    scene.carry_out();
    assert_eq!(scene.asked().len(), 1);
    assert_eq!(values(take(&mut scene, consumer)), [(0, "a".into())]);
}

#[test]
fn idle_partitions_share_few_long_fetches_and_none_is_left_out() {
    let mut scene = Scene::with_topic(config(), &[0; 50]);
    let consumer = scene.engine.consumer(ConsumerConfig::default());
    for partition in 0..50 {
        let at = Position::Offset(Offset(0));
        scene.engine.assign(scene.now, consumer, "t", partition, at, &mut scene.effects);
    }
    scene.carry_out();
    // The first ones left alone; what came while eight were under way leaves together.
    let mut asked = scene.asked();
    assert_eq!(asked.len(), 8);
    assert_eq!(asked.iter().filter(|asked| asked.fetch().wait_max_ms == 500).count(), 6);
    let last = asked.pop().unwrap();
    scene.bytes(last.link, &fetch_reply(&last, 0, &[(107, Vec::new())]));
    let rest = scene.asked();
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].fetch().partitions.len(), 43);
}

#[test]
fn a_reply_may_name_its_partitions_in_any_order_but_each_once() {
    for twice in [false, true] {
        let mut scene = Scene::with_topic(config(), &[0; 50]);
        let consumer = scene.engine.consumer(ConsumerConfig::default());
        for partition in 0..50 {
            let at = Position::Offset(Offset(0));
            scene.engine.assign(scene.now, consumer, "t", partition, at, &mut scene.effects);
        }
        scene.carry_out();
        let last = scene.asked().pop().unwrap();
        scene.bytes(last.link, &fetch_reply(&last, 0, &[(107, Vec::new())]));
        let asked = scene.asked().pop().unwrap();
        let fetch = asked.fetch();
        let ids = fetch.partitions.iter().map(|one| one.partition.0).rev();
        let mut entries: Vec<_> = ids.map(|id| (id, entry(id, 0, &["a"]))).collect();
        if twice {
            entries[1] = entries[0].clone();
        }
        scene.bytes(asked.link, &fetch_reply(&asked, 1, &entries));
        assert_eq!(scene.engine.counters().protocol_errors, u64::from(twice));
        if !twice {
            for _ in &entries {
                assert_eq!(values(take(&mut scene, consumer)), [(0, "a".into())]);
            }
            assert!(take(&mut scene, consumer).is_none());
        }
    }
}

#[test]
fn a_lost_connection_resumes_where_it_was() {
    let mut scene = Scene::with_topic(config(), &[0]);
    let (consumer, _, asked) = reading(&mut scene, Position::Offset(Offset(0)));
    let link = asked[0].link;
    scene.bytes(link, &fetch_reply(&asked[0], 1, &[(100, entry(100, 0, &["a"]))]));
    scene.links.get_mut(&link).unwrap().closed = true;
    scene.event(Event::Closed { link });
    assert_eq!(values(take(&mut scene, consumer)), [(0, "a".into())]);
    scene.sleep(20);
    let asked = scene.greet();
    let fetch = asked.iter().find(|asked| asked.header.kind == FrameKind::Fetch).unwrap();
    assert_eq!(fetch.fetch().partitions[0].offset, Offset(1));
}

/// A fetch of many partitions is answered for the first record of any of them, and costs for all.
#[test]
fn a_reader_of_many_partitions_does_not_ask_for_all_of_them_again_and_again() {
    let mut scene = Scene::with_topic(config(), &[0; 1000]);
    let consumer = scene.engine.consumer(ConsumerConfig::default());
    for partition in 0..1000 {
        let beginning = Position::Offset(Offset(0));
        scene.engine.assign(scene.now, consumer, "t", partition, beginning, &mut scene.effects);
        scene.carry_out();
    }
    // A broker that answers at once and has nothing.
    let answer_all = |scene: &mut Scene| -> usize {
        let asked = scene.asked();
        for one in &asked {
            let reply = fetch_reply(one, 0, &[]);
            scene.bytes(one.link, &reply);
        }
        asked.iter().map(|one| one.fetch().partitions.len()).sum()
    };
    let mut at_once = 0;
    loop {
        match answer_all(&mut scene) {
            0 => break,
            partitions => at_once += partitions,
        }
        assert!(at_once < 50_000, "no end of it");
    }
    assert!(at_once >= 10_000, "a burst of {at_once} only");
    // Later it goes on by itself, with every partition.
    scene.sleep(20);
    let mut later = 0;
    loop {
        match answer_all(&mut scene) {
            0 => break,
            partitions => later += partitions,
        }
    }
    assert!((1_000..=at_once).contains(&later), "{later} after 20 ms");
}
