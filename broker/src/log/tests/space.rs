//! Segments that come and go: rolls, recycling, retention, a full disk.

use corelog_protocol::ids::Offset;

use super::rig::{Disk, P, Q, Rig, body, config};
use crate::disk::DiskOrder;
use crate::log::{AppendError, LogEvent, Read, Retention};
use crate::time::Nanos;

const WEEK_MS: u64 = 7 * 24 * 3_600_000;

#[test]
fn segment_is_durably_named_before_anything_in_it_is_acknowledged() {
    let mut rig = Rig::new(config(), Disk::new());
    let mut order_of = Vec::new();
    for _ in 0..40 {
        if rig.orders.is_empty() {
            break;
        }
        let order = rig.complete(|_| true);
        order_of.push(match order {
            DiskOrder::Create { .. } => "create",
            DiskOrder::Write { position: 0, .. } => "head",
            DiskOrder::Write { .. } => "commit",
            DiskOrder::Flush { .. } => "flush",
            DiskOrder::Rename { .. } => "name",
            DiskOrder::SyncFolder { .. } => "sync",
            DiskOrder::Zero { .. } => "zero",
            _ => "other",
        });
        if rig.events.iter().any(|event| matches!(event, LogEvent::Recovered(_))) {
            break;
        }
    }
    let at = |what| order_of.iter().position(|done| *done == what).unwrap();
    assert!(at("create") < at("head"));
    assert_eq!(order_of[at("head") + 1], "flush");
    assert!(at("head") < at("name") && at("name") < at("sync"));
    assert!(at("sync") < at("commit"), "{order_of:?}");
}

#[test]
fn roll_gives_no_order_but_the_commits_and_flushes_both_files() {
    let mut rig = Rig::fresh();
    while rig.log.counters().rolls == 0 {
        let rolls = rig.log.counters().rolls;
        rig.append(P, &body(1, 6_000)).unwrap();
        if rig.log.counters().rolls > rolls {
            let writes = rig
                .orders
                .iter()
                .filter(|(_, order)| matches!(order, DiskOrder::Write { .. }))
                .count();
            assert!(writes <= 1, "the last commit of the old segment at most: {:?}", rig.orders);
        }
        rig.run();
    }
    assert!(rig.events.iter().any(|event| matches!(event, LogEvent::Rolled { .. })));
    assert_eq!(rig.log.durable_end(), rig.log.next_lsn());
    assert_eq!(rig.log.counters().footers_written, 1);
    rig.stop();
}

#[test]
fn expired_segments_go_oldest_first_and_their_files_come_back() {
    let mut rig = Rig::fresh();
    rig.log.open_partition(P, Retention { age_ms: Some(WEEK_MS), bytes: None });
    for tag in 0..60 {
        rig.commit(P, &body(tag, 3_000));
    }
    let before = rig.disk.segments().len();
    rig.pass(2_000);
    assert_eq!(rig.disk.segments().len(), before, "nothing is a week old");
    rig.pass(WEEK_MS + 1_000);
    rig.pass(2_000);
    let bounds = rig.log.partition(P).unwrap();
    assert!(bounds.log_start > Offset(0) && bounds.log_start <= Offset(60));
    assert_eq!(bounds.next_offset, Offset(60));
    assert!(matches!(rig.read(P, 0, 100), Err(Read::OutOfRange { .. })));
    let (found, lost) = rig.read_all(P, bounds.log_start.0);
    assert!(rig.log.counters().segments_dropped >= 4);
    assert_eq!((found.len() as u64, lost), (60 - bounds.log_start.0, vec![]));
    for tag in 60..90 {
        rig.commit(P, &body(tag, 3_000));
    }
    assert!(rig.log.counters().segments_recycled > 0);
    // The log start is in the log, and stale bytes of recycled files are not taken for new ones.
    let mut rig = Rig::started(config(), rig.disk.after_power_cut(|_, _| true));
    let again = rig.log.partition(P).unwrap();
    assert_eq!(again.log_start, bounds.log_start);
    let (found, lost) = rig.read_all(P, again.log_start.0);
    assert_eq!(lost, []);
    for (offset, bytes) in &found {
        assert_eq!(*bytes, body(*offset as u32, 3_000));
    }
    assert_eq!(found.last().unwrap().0, 89);
    rig.stop();
}

#[test]
fn retention_by_size_keeps_at_least_what_was_asked_for() {
    let mut rig = Rig::fresh();
    rig.log.open_partition(P, Retention { age_ms: None, bytes: Some(100_000) });
    for tag in 0..100 {
        rig.commit(P, &body(tag, 3_000));
        rig.pass(1_100);
    }
    let bounds = rig.log.partition(P).unwrap();
    let kept = (bounds.next_offset.0 - bounds.log_start.0) * 3_064;
    assert!((100_000..100_000 + 2 * 65_536).contains(&kept), "{kept}");
    rig.stop();
}

#[test]
fn segment_stays_while_one_partition_in_it_needs_it() {
    let mut rig = Rig::fresh();
    rig.log.open_partition(P, Retention { age_ms: Some(1), bytes: None });
    rig.commit(Q, &body(1, 100));
    for tag in 0..60 {
        rig.commit(P, &body(tag, 3_000));
    }
    for _ in 0..5 {
        rig.pass(10_000);
    }
    assert_eq!(rig.log.partition(P).unwrap().log_start, Offset(0));
    rig.log.delete_partition(Q);
    for _ in 0..5 {
        rig.pass(10_000);
    }
    assert!(rig.log.partition(P).unwrap().log_start > Offset(0));
    assert_eq!(rig.log.partition(Q), None);
    rig.stop();
}

#[test]
fn segment_is_not_dropped_under_a_reader() {
    let mut config = config();
    config.tail_cache_bytes = 0;
    let mut rig = Rig::started(config, Disk::new());
    for tag in 0..40 {
        rig.commit(P, &body(tag, 3_000));
    }
    rig.log.open_partition(P, Retention { age_ms: Some(1), bytes: None });
    let mut pieces = Vec::new();
    let answer = rig.call(|log, io| log.read(io, (P, 0), Offset(0), 5_000, &mut pieces));
    assert!(matches!(answer, Read::Waiting(_)));
    rig.now.wall.0 += 10_000;
    rig.now.monotonic.0 += 10_000_000_000;
    rig.call(|log, io| log.on_wake(io));
    assert_eq!(rig.log.partition(P).unwrap().log_start, Offset(0));
    rig.run();
    let served = rig
        .events
        .iter()
        .any(|event| matches!(event, LogEvent::ReadDone { answer: Read::Ready { .. }, .. }));
    assert!(served);
    for _ in 0..5 {
        rig.pass(2_000);
    }
    assert!(rig.log.partition(P).unwrap().log_start > Offset(0));
    rig.stop();
}

#[test]
fn full_disk_refuses_appends_serves_reads_and_recovers_when_space_returns() {
    let mut disk = Disk::new();
    disk.free_bytes = 3 * 65_536;
    let mut rig = Rig::started(config(), disk);
    let mut tag = 0;
    let refused = loop {
        match rig.append(P, &body(tag, 3_000)) {
            Ok(_) => tag += 1,
            Err(AppendError::Busy) => {}
            Err(error) => break error,
        }
        rig.run();
        assert!(tag < 1_000);
    };
    assert_eq!(refused, AppendError::Full);
    assert!(rig.log.counters().disk_full > 0);
    assert_eq!(rig.read_all(P, 0).0.len() as u32, tag);
    rig.events.clear();
    rig.pass(60_000);
    assert_eq!(rig.append(P, &body(tag, 3_000)), Err(AppendError::Full));
    rig.disk.free_bytes = 1 << 30;
    rig.pass(60_000);
    assert!(rig.events.iter().any(|event| matches!(event, LogEvent::Room)));
    assert_eq!(rig.commit(P, &body(tag, 3_000)), Offset(u64::from(tag)));
    assert!(rig.log.counters().disk_full_recovered > 0);
    rig.stop();
}

#[test]
fn full_disk_frees_itself_by_retention_alone() {
    let mut disk = Disk::new();
    disk.free_bytes = 4 * 65_536;
    let mut rig = Rig::started(config(), disk);
    let mut tag = 0;
    loop {
        match rig.append(P, &body(tag, 3_000)) {
            Ok(_) => tag += 1,
            Err(AppendError::Full) => break,
            Err(_) => {}
        }
        rig.run();
    }
    rig.log.open_partition(P, Retention { age_ms: Some(1), bytes: None });
    for _ in 0..5 {
        rig.pass(10_000);
    }
    for more in 0..100 {
        rig.commit(P, &body(tag + more, 3_000));
        rig.pass(2_000);
    }
    assert!(rig.log.counters().segments_recycled > 0);
    rig.stop();
}

#[test]
fn start_on_a_full_disk_serves_reads_and_takes_appends_when_space_returns() {
    let mut rig = Rig::fresh();
    for tag in 0..5 {
        rig.commit(P, &body(tag, 3_000));
    }
    let mut disk = rig.disk.after_power_cut(|_, _| false);
    // Not even the segment that was prepared is left to be used.
    let last = (*disk.segments().last().unwrap()).to_owned();
    disk.files.remove(&last);
    disk.free_bytes = 0;
    let mut rig = Rig::started(config(), disk);
    let writable = |rig: &Rig| {
        rig.events.iter().find_map(|event| match event {
            LogEvent::Recovered(report) => Some(report.writable),
            _ => None,
        })
    };
    assert_eq!(writable(&rig), Some(false));
    assert_eq!(rig.read_all(P, 0).0.len(), 5);
    assert_eq!(rig.append(P, &body(5, 100)), Err(AppendError::Full));
    rig.disk.free_bytes = 1 << 30;
    rig.pass(60_000);
    assert_eq!(rig.commit(P, &body(5, 100)), Offset(5));
    rig.stop();
}

#[test]
fn zeros_are_written_ahead_for_small_commits_and_not_for_large_ones() {
    for (len, fills) in [(100, true), (200 << 10, false)] {
        let mut config = config();
        config.segment_bytes = 16 << 20;
        config.segment_bytes_first = 8 << 20;
        config.body_bytes_max = 256 << 10;
        let mut rig = Rig::started(config, Disk::new());
        // The average has a memory.
        for tag in 0..40 {
            rig.commit(P, &body(tag, len));
        }
        let before = rig.log.counters().clone();
        for tag in 0..60 {
            rig.commit(P, &body(tag, len));
        }
        let after = rig.log.counters();
        if !fills {
            assert_eq!(after.bytes_fill, before.bytes_fill);
            assert!(after.rolls > before.rolls);
        } else {
            let filled = after.bytes_fill - before.bytes_fill;
            let committed = 60 * 4096;
            assert!(filled > committed, "zeros stay ahead: {filled} for {committed}");
            // And no faster: what a flush brings to the medium must not be mostly zeros.
            assert!(filled <= 3 * committed + (512 << 10), "{filled} for {committed}");
        }
        rig.stop();
    }
}

fn rooms(rig: &Rig) -> usize {
    rig.events.iter().filter(|event| matches!(event, LogEvent::Room)).count()
}

#[test]
fn append_that_meets_a_full_pipeline_on_a_full_disk_is_told_of_the_disk() {
    let mut config = config();
    config.gather_bytes = 1;
    config.commits_in_flight_max = 4;
    let mut is_met = false;
    for durable in 1..60 {
        let mut disk = Disk::new();
        disk.free_bytes = 2 * 65_536;
        let mut rig = Rig::started(config.clone(), disk);
        let mut tag = 0;
        while tag < durable && rig.append(P, &body(tag, 3_000)).is_ok() {
            tag += 1;
            rig.run();
        }
        rig.pass(10_000);
        // From here on nothing is written: commits stay in flight.
        let refused = loop {
            match rig.append(P, &body(tag, 3_000)) {
                Ok(_) if rig.log.wants_turn() => rig.call(|log, io| log.on_turn(io)),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        rig.events.clear();
        rig.run();
        if refused == AppendError::Busy {
            assert_eq!(rooms(&rig), 1, "after {durable}");
            rig.events.clear();
            if rig.append(P, &body(tag, 3_000)) == Err(AppendError::Full) {
                is_met = true;
                // Who knows that the disk is full is told of space, and of nothing else.
                rig.pass(60_000);
                assert_eq!(rooms(&rig), 0);
                rig.disk.free_bytes = 1 << 30;
                rig.pass(60_000);
                assert_eq!(rooms(&rig), 1);
            }
        }
        rig.run();
        rig.stop();
    }
    assert!(is_met);
}

#[test]
fn room_is_not_told_while_the_next_segment_is_still_being_filled() {
    let mut config = config();
    config.segment_bytes = 16 << 20;
    config.segment_bytes_first = 5 << 20;
    config.body_bytes_max = 100 << 10;
    config.fill_commit_bytes_max = 1 << 20;
    let mut rig = Rig::started(config, Disk::new());
    let is_zero = |order: &DiskOrder| matches!(order, DiskOrder::Zero { .. });
    // All but the fill goes on, until there is no room for one more.
    let refused = loop {
        match rig.append(P, &body(1, 90 << 10)) {
            Ok(_) if rig.log.wants_turn() => rig.call(|log, io| log.on_turn(io)),
            Ok(_) => {}
            Err(error) if rig.orders.iter().all(|(_, order)| is_zero(order)) => break error,
            Err(_) => {
                rig.complete(|order| !is_zero(order));
            }
        }
    };
    assert_eq!(refused, AppendError::Busy);
    assert!(!rig.orders.is_empty(), "a fill is in flight");
    rig.events.clear();
    rig.call(|log, io| log.on_wake(io));
    assert_eq!(rooms(&rig), 0);
    rig.complete(is_zero);
    assert_eq!(rooms(&rig), 1);
    assert!(rig.append(P, &body(1, 90 << 10)).is_ok());
    rig.run();
    rig.stop();
}

/// A log start is appended while the last commits are in flight, and the segment that holds it is sealed
/// before it is durable. Returns whether it was so with `fill` commits in front of it.
fn log_start_told_before_a_roll(fill: u32) -> bool {
    let mut config = config();
    config.gather_bytes = 1;
    let mut rig = Rig::started(config.clone(), Disk::new());
    rig.log.open_partition(P, Retention { bytes: Some(20 << 10), ..Retention::default() });
    for tag in 0..fill {
        rig.commit(P, &body(tag, 3_000));
    }
    // Time for retention; what it orders stays in flight.
    let (rolls, next) = (rig.log.counters().rolls, rig.log.next_lsn());
    rig.now.monotonic = rig.now.monotonic + Nanos::from_secs(2);
    rig.call(|log, io| log.on_wake(io));
    let told_at = rig.log.next_lsn();
    if told_at == next {
        return false;
    }
    let mut tag = fill;
    while rig.append(P, &body(tag, 7_000)).is_ok() {
        rig.call(|log, io| log.on_turn(io));
        tag += 1;
    }
    let was_sealed = rig.log.counters().rolls > rolls && rig.log.durable_end() < told_at;
    rig.run();
    rig.pass(2_000);
    let bounds = rig.log.partition(P).unwrap();
    assert!(bounds.log_start > Offset(0));
    let mut again = Rig::started(config, rig.disk.after_power_cut(|_, _| false));
    assert_eq!(again.log.partition(P), Some(bounds), "{fill} commits in front");
    let (found, lost) = again.read_all(P, bounds.log_start.0);
    assert_eq!(lost, [], "what retention dropped is not damage");
    assert_eq!(found.len() as u64, bounds.next_offset.0 - bounds.log_start.0);
    was_sealed
}

#[test]
fn log_start_told_before_a_roll_is_kept_by_the_next_start() {
    let sealed = (24..60).filter(|fill| log_start_told_before_a_roll(*fill)).count();
    assert!(sealed > 0, "no log start was in a segment that was sealed over it");
}
