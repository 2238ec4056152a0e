//! What consumers get.

use corelog_protocol::ids::Offset;

use super::rig::{Disk, P, Q, Rig, body, config};
use crate::disk::DiskOrder;
use crate::log::{LogEvent, Lookup, Read};
use crate::memory::Memory;

/// 60 entries of 3 KB in each of two partitions: several segments of 64 KiB.
fn filled(tail_cache_bytes: usize) -> Rig {
    let mut config = config();
    config.tail_cache_bytes = tail_cache_bytes;
    let mut rig = Rig::started(config, Disk::new());
    for tag in 0..60 {
        rig.now.wall.0 = 1_000 + i64::from(tag) * 10;
        rig.commit(P, &body(tag, 3_000));
        rig.commit(Q, &body(1_000 + tag, 3_000));
    }
    rig.events.clear();
    rig
}

fn expected(from: u32, tags: std::ops::Range<u32>) -> Vec<(u64, Vec<u8>)> {
    tags.map(|tag| (u64::from(tag), body(from + tag, 3_000))).collect()
}

#[test]
fn everything_comes_back_from_the_cache_and_from_the_disk() {
    for tail_cache_bytes in [0, 64 << 10, 1 << 30] {
        let mut rig = filled(tail_cache_bytes);
        assert!(rig.log.counters().rolls >= 5, "{:?}", rig.log.counters());
        let (found, lost) = rig.read_all(P, 0);
        assert_eq!((found, lost), (expected(0, 0..60), vec![]));
        let (found, _) = rig.read_all(Q, 37);
        assert_eq!(found, expected(1_000, 37..60));
        assert_eq!(rig.log.counters().reads_cold > 0, tail_cache_bytes < 1 << 30);
        rig.stop();
    }
}

#[test]
fn reads_stay_within_log_start_and_committed_end() {
    let mut rig = filled(0);
    assert_eq!(rig.read(P, 60, 1), Err(Read::AtEnd));
    let out = Read::OutOfRange { log_start: Offset(0), committed_end: Offset(60) };
    assert_eq!(rig.read(P, 61, 1), Err(out));
    assert_eq!(rig.read(P, u64::MAX, 1), Err(out));
    assert_eq!(rig.read(super::rig::PartitionId(9), 0, 1), Err(Read::UnknownPartition));
    rig.append(P, &body(60, 3_000)).unwrap();
    assert_eq!(rig.read(P, 60, 1), Err(Read::AtEnd), "appended is not committed");
    assert_eq!(rig.read(P, 61, 1), Err(Read::AtEnd), "but perhaps shown by a replica that has it");
    assert_eq!(rig.read(P, 62, 1), Err(out));
    rig.run();
    assert_eq!(rig.read(P, 60, 1).unwrap(), [(60, body(60, 3_000))]);
}

#[test]
fn at_least_one_entry_is_served_however_little_is_asked_for() {
    let mut rig = filled(0);
    for offset in [0, 17, 59] {
        let found = rig.read(P, offset, 1).unwrap();
        assert_eq!(found, expected(0, offset as u32..offset as u32 + 1));
    }
}

#[test]
fn entry_larger_than_a_read_is_put_together() {
    let mut config = config();
    config.segment_bytes = 16 << 20;
    config.body_bytes_max = 4 << 20;
    config.tail_cache_bytes = 0;
    let mut rig = Rig::started(config, Disk::new());
    rig.commit(P, &body(1, 100));
    rig.commit(P, &body(2, 3 << 20));
    rig.commit(P, &body(3, 700 << 10));
    rig.commit(P, &body(4, 100));
    let (found, lost) = rig.read_all(P, 0);
    let all =
        vec![(0, body(1, 100)), (1, body(2, 3 << 20)), (2, body(3, 700 << 10)), (3, body(4, 100))];
    assert!((found, lost) == (all, vec![]));
    rig.stop();
}

#[test]
fn damaged_entry_is_never_served_and_its_neighbours_are() {
    let mut rig = filled(0);
    let name = rig.disk.segments()[1].to_owned();
    let bytes = rig.disk.files[&name].live.clone();
    // The body of some entry of P in this segment.
    let tag = (0..60)
        .find(|tag| bytes.windows(16).any(|window| *window == body(*tag, 3_000)[..16]))
        .unwrap();
    let at = bytes.windows(16).position(|window| *window == body(tag, 3_000)[..16]).unwrap();
    rig.disk.flip(&name, at + 2_000);
    let (found, lost) = rig.read_all(P, 0);
    assert_eq!(lost, [(u64::from(tag), u64::from(tag) + 1)]);
    let mut rest = expected(0, 0..60);
    rest.remove(tag as usize);
    assert_eq!(found, rest);
    // A header: all to the end of its commit is gone, here one entry.
    rig.disk.flip(&name, at + 2_000);
    rig.disk.flip(&name, at - 30);
    assert_eq!(rig.read_all(P, 0).1, [(u64::from(tag), u64::from(tag) + 1)]);
    assert_eq!(rig.read_all(Q, 0).1, []);
    rig.stop();
}

#[test]
fn damaged_footer_costs_time_but_no_record() {
    let mut rig = filled(0);
    assert!(rig.log.counters().footers_written >= 4);
    for name in rig.disk.segments().into_iter().map(str::to_owned).collect::<Vec<_>>() {
        rig.disk.flip(&name, 65_535);
        rig.disk.flip(&name, 61_440);
    }
    assert_eq!(rig.read_all(P, 0), (expected(0, 0..60), vec![]));
    assert!(rig.log.counters().footers_unreadable > 0);
    rig.stop();
}

#[test]
fn offset_is_found_by_append_time() {
    for tail_cache_bytes in [0, 64 << 10, 1 << 30] {
        let mut rig = filled(tail_cache_bytes);
        for (time, expected) in [
            (0, Some(0)),
            (1_000, Some(0)),
            (1_001, Some(1)),
            (1_250, Some(25)),
            (1_590, Some(59)),
            (1_591, None),
        ] {
            let answer = rig.call(|log, io| log.offset_at_time(io, P, time));
            let answer = match answer {
                Lookup::Waiting(_) => {
                    rig.run();
                    match rig.events.pop() {
                        Some(LogEvent::LookupDone { answer, .. }) => answer,
                        other => panic!("{other:?}"),
                    }
                }
                answer => answer,
            };
            assert_eq!(answer, Lookup::Found(expected.map(Offset)), "at {time}");
        }
        rig.stop();
    }
}

#[test]
fn cancelled_read_gives_everything_back() {
    let mut rig = filled(0);
    let mut pieces = Vec::new();
    let Read::Waiting(id) = rig.call(|log, io| log.read(io, (P, 0), Offset(3), 5_000, &mut pieces))
    else {
        panic!("nothing is cached");
    };
    rig.call(|log, io| log.cancel_read(io, id));
    rig.run();
    assert!(!rig.events.iter().any(|event| matches!(event, LogEvent::ReadDone { .. })));
    rig.stop();
}

#[test]
fn reader_that_was_put_off_is_told_when_a_cancelled_read_is_over() {
    let mut rig = filled(0);
    let mut pieces = Vec::new();
    let mut waiting = Vec::new();
    loop {
        match rig.call(|log, io| log.read(io, (P, 0), Offset(3), 5_000, &mut pieces)) {
            Read::Waiting(id) => waiting.push(id),
            answer => break assert_eq!(answer, Read::Busy),
        }
    }
    for id in waiting {
        rig.call(|log, io| log.cancel_read(io, id));
    }
    let rooms =
        |rig: &Rig| rig.events.iter().filter(|event| matches!(event, LogEvent::ReadRoom)).count();
    assert_eq!(rooms(&rig), 0);
    rig.complete(|_| true);
    assert_eq!(rooms(&rig), 1);
    rig.run();
    assert_eq!(rooms(&rig), 1, "nobody else was refused");
    rig.call(|log, io| log.stop(io));
    assert_eq!(rig.call(|log, io| log.read(io, (P, 0), Offset(3), 1, &mut pieces)), Read::Failed);
    assert_eq!(rig.call(|log, io| log.offset_at_time(io, P, 1_000)), Lookup::Failed);
    rig.stop();
}

#[test]
fn entry_still_in_flight_when_its_segment_was_sealed_is_not_served() {
    let mut config = config();
    config.gather_bytes = 1;
    config.tail_cache_bytes = 0;
    let is_write = |order: &DiskOrder| matches!(order, DiskOrder::Write { .. });
    let is_read = |order: &DiskOrder| matches!(order, DiskOrder::Read { .. });
    let mut is_met = false;
    for durable in 1..16 {
        let mut rig = Rig::started(config.clone(), Disk::new());
        for tag in 0..durable {
            rig.commit(P, &body(tag, 3_000));
        }
        let mut rolls = Vec::new();
        for tag in durable..durable + 3 {
            rig.append(P, &body(tag, 3_000)).unwrap();
            rig.call(|log, io| log.on_turn(io));
            rolls.push(rig.log.counters().rolls);
            while rig.orders.iter().any(|(_, order)| is_write(order)) {
                rig.complete(is_write);
            }
        }
        let committed = rig.log.partition(P).unwrap().committed_end;
        assert_eq!(committed, Offset(u64::from(durable)));
        // Some of those in flight are in the segment that was sealed.
        if rolls == [0, 0, 1] {
            is_met = true;
            let mut pieces = Vec::new();
            let answer = rig.call(|log, io| log.read(io, (P, 0), Offset(0), 1 << 20, &mut pieces));
            assert!(matches!(answer, Read::Waiting(_)));
            while rig.orders.iter().any(|(_, order)| is_read(order)) {
                rig.complete(is_read);
            }
            let served = rig.events.iter().find_map(|event| match event {
                LogEvent::ReadDone { answer: Read::Ready { bytes }, .. } => Some(*bytes),
                _ => None,
            });
            assert_eq!(served, Some(durable * 3_064), "what is durable, and nothing else");
        }
        rig.run();
        rig.stop();
    }
    assert!(is_met);
}

#[test]
fn reads_from_the_disk_hold_no_more_than_their_share_and_the_rest_waits_its_turn() {
    let mut config = config();
    config.tail_cache_bytes = 0;
    config.read_bytes_max = 600 << 10;
    let mut rig = Rig::started(config, Disk::new());
    for tag in 0..60 {
        rig.commit(P, &body(tag, 3_000));
    }
    rig.events.clear();
    let mut pieces = Vec::new();
    let mut ask = |rig: &mut Rig, offset: u64| {
        rig.call(|log, io| log.read(io, (P, 0), Offset(offset), 5_000, &mut pieces))
    };
    // Two buffers of 256 KiB fit, for however many consumers lag.
    assert!(matches!(ask(&mut rig, 3), Read::Waiting(_)));
    assert!(matches!(ask(&mut rig, 9), Read::Waiting(_)));
    let held = rig.memory.used_bytes();
    for offset in [3, 12, 20] {
        assert_eq!(ask(&mut rig, offset), Read::Busy);
    }
    assert_eq!(rig.memory.used_bytes(), held);
    rig.run();
    assert!(rig.events.iter().any(|event| matches!(event, LogEvent::ReadRoom)), "they are told");
    assert!(matches!(ask(&mut rig, 12), Read::Waiting(_)));
    rig.run();
    rig.drop_events();
    rig.stop();
}

#[test]
fn read_after_the_files_are_closed_has_failed_and_is_no_damage() {
    let mut rig = filled(0);
    rig.call(|log, io| log.stop(io));
    let mut pieces = Vec::new();
    let mut closing = 0;
    loop {
        let answer = rig.call(|log, io| log.read(io, (P, 0), Offset(3), 5_000, &mut pieces));
        assert_eq!(answer, Read::Failed, "after {closing} orders of the stop");
        if rig.orders.is_empty() && !rig.log.wants_turn() {
            break;
        }
        closing += 1;
        if rig.log.wants_turn() {
            rig.call(|log, io| log.on_turn(io));
        } else {
            rig.complete(|_| true);
        }
    }
    assert!(closing > 3, "the stop closes files");
    assert_eq!(rig.log.counters().reads_corrupt, 0);
}
