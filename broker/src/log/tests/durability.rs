//! When is an entry durable, and who says so.

use corelog_protocol::ids::{Lsn, Offset};

use super::rig::{P, Q, Rig, body};
use crate::disk::DiskOrder;
use crate::log::{AppendError, LogEvent, LogFailure};
use crate::time::Monotonic;

fn is_write(order: &DiskOrder) -> bool {
    matches!(order, DiskOrder::Write { .. })
}

fn is_flush(order: &DiskOrder) -> bool {
    matches!(order, DiskOrder::Flush { .. })
}

#[test]
fn an_append_is_acknowledged_after_its_write_and_then_its_flush() {
    let mut rig = Rig::fresh();
    rig.events.clear();
    let appended = rig.append(P, &body(1, 100)).unwrap();
    assert_eq!((appended.base_offset, appended.epoch.0), (Offset(0), 1));
    assert!(rig.orders.is_empty(), "a turn comes first, so that others can join");
    rig.now.monotonic = Monotonic(40);
    rig.call(|log, io| log.on_turn(io));
    assert_eq!(rig.orders.len(), 1);
    rig.now.monotonic = Monotonic(50);
    rig.complete(is_write);
    assert_eq!(rig.durable(), [0; 0]);
    rig.now.monotonic = Monotonic(70);
    rig.complete(is_flush);
    let [LogEvent::Durable { through, write_ordered_at, write_done_at, flush_done_at }] =
        rig.events[..]
    else {
        panic!("{:?}", rig.events);
    };
    assert_eq!(through, appended.lsn);
    assert_eq!(write_ordered_at, Monotonic(40));
    assert_eq!((write_done_at, flush_done_at), (Monotonic(50), Monotonic(70)));
    assert_eq!(rig.log.partition(P).unwrap().committed_end, Offset(1));
}

#[test]
fn while_one_commit_is_in_flight_others_gather_into_one() {
    let mut rig = Rig::fresh();
    rig.events.clear();
    rig.append(P, &body(1, 100)).unwrap();
    rig.call(|log, io| log.on_turn(io));
    let commits = rig.log.counters().commits;
    for tag in 0..20 {
        rig.append(Q, &body(tag, 100)).unwrap();
        assert!(!rig.log.wants_turn(), "less than gather_bytes, and one in flight");
    }
    rig.complete(is_write);
    rig.complete(is_flush);
    assert!(rig.log.wants_turn());
    rig.run();
    assert_eq!(rig.log.counters().commits, commits + 1);
    assert_eq!(rig.log.partition(Q).unwrap().committed_end, Offset(20));
}

#[test]
fn entries_that_nobody_waits_for_gather_until_they_are_many_or_old() {
    let mut config = super::rig::config();
    config.patient_bytes = 16 << 10;
    let (bytes, wait) = (config.patient_bytes, config.patient_wait);
    let mut rig = Rig::started(config, super::rig::Disk::new());
    let commits = rig.log.counters().commits;
    rig.append_unawaited(P, &body(1, 100)).unwrap();
    assert!(!rig.log.wants_turn());
    let due = rig.now.monotonic + wait;
    assert!(rig.log.next_deadline().unwrap() <= due);
    rig.now.monotonic = Monotonic(due.0 - 1);
    rig.call(|log, io| log.on_wake(io));
    assert!(!rig.log.wants_turn());
    rig.now.monotonic = due;
    rig.call(|log, io| log.on_wake(io));
    assert!(rig.log.wants_turn(), "old enough");
    rig.run();
    assert_eq!(rig.log.counters().commits, commits + 1);

    let mut appended = 0;
    while !rig.log.wants_turn() {
        rig.append_unawaited(P, &body(2, 1000)).unwrap();
        appended += 1000;
    }
    assert!((bytes - bytes / 8..=bytes).contains(&appended), "many enough: {appended}");
    rig.run();

    rig.append_unawaited(P, &body(3, 100)).unwrap();
    rig.append(Q, &body(4, 100)).unwrap();
    assert!(rig.log.wants_turn(), "somebody waits for one of them");
    rig.run();
    rig.append_unawaited(P, &body(5, 100)).unwrap();
    rig.log.hurry();
    assert!(rig.log.wants_turn(), "somebody has come");
}

#[test]
fn writes_that_complete_in_the_wrong_order_are_acknowledged_in_the_right_one() {
    let mut config = super::rig::config();
    config.gather_bytes = 1;
    let mut rig = Rig::started(config, super::rig::Disk::new());
    rig.events.clear();
    let first = rig.append(P, &body(1, 100)).unwrap().lsn;
    rig.call(|log, io| log.on_turn(io));
    let second = rig.append(P, &body(2, 100)).unwrap().lsn;
    rig.call(|log, io| log.on_turn(io));
    assert_eq!(rig.orders.iter().filter(|(_, order)| is_write(order)).count(), 2);
    let later = rig.orders.back().unwrap().1.clone();
    rig.complete(|order| *order == later);
    assert!(!rig.orders.iter().any(|(_, order)| is_flush(order)));
    rig.complete(is_write);
    rig.complete(is_flush);
    assert_eq!(rig.durable(), [first.0, second.0]);
}

#[test]
fn pipeline_that_is_full_refuses_and_says_when_there_is_room() {
    let mut config = super::rig::config();
    config.gather_bytes = 1;
    config.commits_in_flight_max = 2;
    config.segment_bytes = 4 << 20;
    config.segment_bytes_first = 4 << 20;
    config.body_bytes_max = 600 << 10;
    let mut rig = Rig::started(config, super::rig::Disk::new());
    for tag in 0..2 {
        rig.append(P, &body(tag, 100)).unwrap();
        rig.call(|log, io| log.on_turn(io));
    }
    rig.append(P, &body(3, 600 << 10)).unwrap();
    rig.events.clear();
    assert_eq!(rig.append(P, &body(4, 600 << 10)), Err(AppendError::Busy));
    assert!(!rig.events.iter().any(|event| matches!(event, LogEvent::Room)));
    rig.run();
    assert!(rig.events.iter().any(|event| matches!(event, LogEvent::Room)));
    assert!(rig.append(P, &body(4, 600 << 10)).is_ok());
}

#[test]
fn lane_that_falls_idle_writes_one_padding_commit_and_then_rests() {
    let mut rig = Rig::fresh();
    rig.pass(60);
    let rested = rig.log.counters().commits_idle_padding;
    rig.pass(60);
    rig.commit(P, &body(1, 100));
    rig.pass(49);
    assert_eq!(rig.log.counters().commits_idle_padding, rested);
    rig.pass(2);
    assert_eq!(rig.log.counters().commits_idle_padding, rested + 1);
    for _ in 0..5 {
        rig.pass(1_000);
    }
    assert_eq!(rig.log.counters().commits_idle_padding, rested + 1);
    let name = rig.disk.segments()[0].to_owned();
    let commit = &rig.disk.files[&name].durable;
    let last = (2..16)
        .rev()
        .map(|block| &commit[block * 4096..])
        .find_map(crate::log::format::commit_header::CommitHeader::decode);
    assert_eq!(last.unwrap().durable_end, Lsn(last.unwrap().first_lsn.0));
}

#[test]
fn padding_of_a_commit_is_zero_though_slots_hold_garbage() {
    let mut rig = Rig::fresh();
    rig.commit(P, &body(1, 101));
    let name = rig.disk.segments()[0].to_owned();
    let bytes = &rig.disk.files[&name].durable;
    for block in 2..16 {
        let commit = &bytes[block * 4096..(block + 1) * 4096];
        if let Some(header) = crate::log::format::commit_header::CommitHeader::decode(commit) {
            assert!(commit[header.length as usize..].iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
fn failed_write_ends_all_acknowledgments_but_reads_go_on() {
    let mut rig = Rig::fresh();
    rig.commit(P, &body(1, 100));
    rig.events.clear();
    rig.disk.fail_writes = true;
    rig.append(P, &body(2, 100)).unwrap();
    rig.run();
    assert!(matches!(rig.events[..], [LogEvent::Failed(LogFailure::Write)]), "{:?}", rig.events);
    rig.disk.fail_writes = false;
    assert_eq!(rig.append(P, &body(3, 100)), Err(AppendError::Failed));
    rig.pass(10_000);
    assert_eq!(rig.durable(), [0; 0]);
    assert_eq!(rig.read(P, 0, 1_000).unwrap(), [(0, body(1, 100))]);
    rig.stop();
}

#[test]
fn failed_flush_is_not_tried_again() {
    let mut rig = Rig::fresh();
    rig.events.clear();
    rig.disk.fail_flushes = true;
    rig.append(P, &body(2, 100)).unwrap();
    rig.run();
    rig.disk.fail_flushes = false;
    rig.pass(10_000);
    assert!(matches!(rig.events[..], [LogEvent::Failed(LogFailure::Flush)]), "{:?}", rig.events);
    rig.stop();
}

#[test]
fn body_that_does_not_match_its_crc_is_refused_and_leaves_no_trace() {
    let mut rig = Rig::fresh();
    let mut damaged = body(1, 100);
    damaged[50] ^= 4;
    assert_eq!(rig.append(P, &damaged), Err(AppendError::CorruptBody));
    assert_eq!(rig.commit(P, &body(2, 100)), Offset(0));
    assert_eq!(rig.read(P, 0, 1_000).unwrap(), [(0, body(2, 100))]);
    rig.stop();
}
