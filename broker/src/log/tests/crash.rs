//! Power cuts, damage, and what a start makes of them.

use corelog_protocol::entry::EntryKind;
use corelog_protocol::ids::{Lsn, Offset};

use super::rig::{Disk, P, Q, Rig, body, config};
use crate::disk::DiskOrder;
use crate::log::format::commit_header::CommitHeader;
use crate::log::{
    Body, LogEvent, LogFailure, Lookup, NO_PARTITION, NewEntry, Read, RecoveryReport,
};
use crate::random::Random;

fn report(rig: &Rig) -> RecoveryReport {
    let report = |event: &LogEvent| match event {
        LogEvent::Recovered(report) => Some(report.clone()),
        _ => None,
    };
    rig.events.iter().find_map(report).expect("recovered")
}

/// Positions of the commits in the first segment that is not empty.
fn commits(disk: &Disk, name: &str) -> Vec<CommitHeader> {
    let bytes = &disk.files[name].live;
    let mut found = Vec::new();
    let mut at = 8192;
    while at < bytes.len() {
        match CommitHeader::decode(&bytes[at..]) {
            Some(header) if header.position == at as u64 => {
                found.push(header);
                at += (header.length as usize).next_multiple_of(4096);
            }
            _ => at += 4096,
        }
    }
    found
}

/// Three commits in flight, written but not flushed, and those before them durable.
fn in_flight() -> (Rig, Vec<u64>) {
    let mut config = config();
    config.gather_bytes = 1;
    let mut rig = Rig::started(config, Disk::new());
    rig.commit(P, &body(0, 500));
    let mut positions = Vec::new();
    for tag in 1..4 {
        rig.append(P, &body(tag, 500)).unwrap();
        rig.call(|log, io| log.on_turn(io));
        let written = rig.complete(|order| matches!(order, DiskOrder::Write { .. }));
        let DiskOrder::Write { position, .. } = written else { unreachable!() };
        positions.push(position);
    }
    (rig, positions)
}

#[test]
fn restart_finds_everything_that_was_acknowledged() {
    let mut rig = Rig::fresh();
    for tag in 0..40 {
        rig.commit(P, &body(tag, 3_000));
        rig.commit(Q, &body(100 + tag, 200));
    }
    let next_lsn = rig.log.next_lsn();
    let disk = rig.disk.after_power_cut(|_, _| false);
    let mut rig = Rig::started(config(), disk);
    let report = report(&rig);
    assert_eq!((report.next_lsn, report.epoch.0), (next_lsn, 2));
    assert_eq!((report.commits_truncated, report.entries_corrupt), (0, 0));
    assert!(report.segments_scanned < report.segments, "{report:?}");
    assert_eq!(rig.log.partition(P).unwrap().next_offset, Offset(40));
    let (found, lost) = rig.read_all(P, 0);
    assert_eq!(lost, []);
    assert!(
        found.iter().enumerate().all(|(at, entry)| *entry == (at as u64, body(at as u32, 3_000)))
    );
    assert_eq!(rig.read_all(Q, 0).0.len(), 40);
    assert_eq!(rig.commit(P, &body(99, 10)), Offset(40));
    rig.stop();
}

#[test]
fn of_commits_in_flight_the_unbroken_beginning_survives_and_the_rest_is_superseded() {
    for kept in 0..8u32 {
        let (rig, positions) = in_flight();
        let disk = rig.disk.after_power_cut(|_, position| {
            let at = positions.iter().position(|written| *written == position);
            at.is_some_and(|at| kept & 1 << at != 0)
        });
        let unbroken = kept.trailing_ones().min(3);
        let mut rig = Rig::started(config(), disk);
        let first = report(&rig);
        assert_eq!(first.commits_truncated > 0, kept >> unbroken != 0, "kept {kept:03b}");
        assert_eq!(first.entries_corrupt, 0);
        let next = Offset(1 + u64::from(unbroken));
        assert_eq!(rig.log.partition(P).unwrap().next_offset, next);
        // What was truncated must not come back when the offsets are used again.
        assert_eq!(rig.commit(P, &body(50, 500)), next);
        let mut rig = Rig::started(config(), rig.disk.after_power_cut(|_, _| true));
        let (found, lost) = rig.read_all(P, 0);
        assert_eq!(lost, []);
        assert_eq!(found.len() as u64, next.0 + 1);
        assert_eq!(found.last(), Some(&(next.0, body(50, 500))));
        assert_eq!(report(&rig).commits_truncated, 0, "it was superseded");
        rig.stop();
    }
}

#[test]
fn commit_that_tears_in_its_middle_goes_as_a_whole() {
    let (mut rig, positions) = in_flight();
    let name = rig.disk.segments()[0].to_owned();
    let at = positions[1] as usize;
    rig.disk.files.get_mut(&name).unwrap().loose[1].1[400..].fill(0x55);
    let mut rig = Rig::started(config(), rig.disk.after_power_cut(|_, _| true));
    assert_eq!(rig.log.partition(P).unwrap().next_offset, Offset(2));
    assert_eq!(report(&rig).commits_truncated, 2, "the torn one at {at} and the one after it");
    assert_eq!(rig.log.counters().torn_tails, 1);
    rig.stop();
}

#[test]
fn damage_below_the_durable_lsn_is_a_hole_and_all_around_it_is_served() {
    let mut rig = Rig::fresh();
    for tag in 0..6 {
        rig.commit(P, &body(tag, 500));
    }
    let name = rig.disk.segments()[0].to_owned();
    let third = commits(&rig.disk, &name)[3];
    for damaged in [third.position + 64 + 64 + 100, third.position + 64 + 20, third.position + 9] {
        let mut disk = rig.disk.after_power_cut(|_, _| false);
        disk.flip(&name, damaged as usize);
        let mut rig = Rig::started(config(), disk);
        assert_eq!(report(&rig).commits_truncated, 0);
        assert_eq!(rig.log.partition(P).unwrap().next_offset, Offset(6), "flip at {damaged}");
        let (found, lost) = rig.read_all(P, 0);
        // A damaged commit header alone loses nothing: the entries behind it go on in order.
        let is_header = damaged == third.position + 9;
        assert_eq!(report(&rig).entries_corrupt, u64::from(!is_header));
        let expected = if is_header { vec![] } else { vec![(2, 3)] };
        assert_eq!(lost.iter().filter(|_| !is_header).copied().collect::<Vec<_>>(), expected);
        assert_eq!(found.len(), 6 - lost.len());
        assert_eq!(rig.commit(P, &body(9, 10)), Offset(6));
        rig.stop();
    }
}

#[test]
fn offset_of_a_lost_last_entry_is_never_given_out_again() {
    let mut rig = Rig::fresh();
    rig.commit(P, &body(0, 500));
    rig.commit(P, &body(1, 500));
    // Idle padding attests the last commit.
    rig.pass(60);
    let name = rig.disk.segments()[0].to_owned();
    let all = commits(&rig.disk, &name);
    let last = all[all.len() - 2];
    let mut disk = rig.disk.after_power_cut(|_, _| false);
    disk.flip(&name, last.position as usize + 64 + 20);
    let mut rig = Rig::started(config(), disk);
    assert_eq!(report(&rig).entries_corrupt, 1);
    let next = rig.log.partition(P).unwrap().next_offset;
    assert!(next >= Offset(2));
    assert_eq!(rig.commit(P, &body(7, 500)), next);
    for _ in 0..2 {
        let (found, lost) = rig.read_all(P, 0);
        assert_eq!(found, [(0, body(0, 500)), (next.0, body(7, 500))]);
        assert_eq!(lost, [(1, next.0)]);
        rig = Rig::started(config(), rig.disk.after_power_cut(|_, _| false));
    }
    rig.stop();
}

#[test]
fn recovery_that_crashes_at_any_order_gives_the_same_in_the_end() {
    let (rig, _) = in_flight();
    let before = rig.disk.after_power_cut(|_, position| position != 0);
    let expected = Rig::started(config(), before.clone()).read_all(P, 0);
    assert_eq!(expected.0.len(), 4);
    for crash_at in 0..60 {
        for keep in [false, true] {
            let mut rig = Rig::new(config(), before.clone());
            for _ in 0..crash_at {
                if rig.orders.is_empty() {
                    break;
                }
                rig.complete(|_| true);
            }
            let mut rig = Rig::started(config(), rig.disk.after_power_cut(|_, _| keep));
            assert_eq!(rig.read_all(P, 0), expected, "crash at order {crash_at}, keeping: {keep}");
            rig.stop();
        }
    }
}

#[test]
fn what_a_start_serves_survives_the_next_power_cut() {
    // A killed process leaves its writes in the device's cache: the next life reads them, and
    // must make them durable before it serves them.
    let (rig, _) = in_flight();
    let mut killed = Disk::new();
    killed.files.clone_from(&rig.disk.files);
    let mut rig = Rig::started(config(), killed);
    let served = rig.read_all(P, 0);
    assert_eq!(served.0.len(), 4);
    let mut rig = Rig::started(config(), rig.disk.after_power_cut(|_, _| false));
    assert_eq!(rig.read_all(P, 0), served);
    rig.stop();
}

#[test]
fn shards_own_entries_are_replayed_in_order_until_a_checkpoint_frees_them() {
    let mut rig = Rig::fresh();
    for tag in 0..30 {
        let kind = if tag == 20 { EntryKind::Checkpoint } else { EntryKind::Metadata };
        let body = body(tag, 3_000);
        let entry = NewEntry {
            kind: kind.to_wire(),
            partition: NO_PARTITION,
            partition_at: 0,
            record_count: 0,
            body: Body::Bytes(&body),
            crc_checked: false,
            claim: None,
            awaited: true,
        };
        while rig.call(|log, io| log.append(io, entry)).is_err() {
            rig.run();
        }
        rig.run();
    }
    assert!(rig.log.counters().rolls >= 2);
    let mut rig = Rig::started(config(), rig.disk.after_power_cut(|_, _| false));
    let mut replayed = Vec::new();
    for event in &rig.events {
        if let LogEvent::Replayed(entry) = event {
            let body = crate::memory::Memory::piece(&rig.memory, entry.body).to_vec();
            replayed.push((entry.lsn, entry.kind, body));
        }
    }
    assert!(replayed.is_sorted_by_key(|(lsn, ..)| *lsn));
    let bodies: Vec<Vec<u8>> = replayed.iter().map(|(.., body)| body.clone()).collect();
    assert_eq!(bodies, (0..30).map(|tag| body(tag, 3_000)).collect::<Vec<_>>());
    assert_eq!(replayed[20].1, EntryKind::Checkpoint.to_wire());
    // Nothing is dropped before the shard says so; then whole segments go.
    rig.pass(5_000);
    let before = rig.disk.segments().len();
    let checkpoint = replayed[20].0;
    rig.call(|log, _| log.set_needed_from(checkpoint));
    rig.pass(5_000);
    assert!(rig.disk.segments().len() < before);
    rig.drop_events();
    let mut rig = Rig::started(config(), rig.disk.after_power_cut(|_, _| false));
    let kinds: Vec<u8> = rig
        .events
        .iter()
        .filter_map(|event| match event {
            LogEvent::Replayed(entry) => Some(entry.kind),
            _ => None,
        })
        .collect();
    assert!(kinds.contains(&EntryKind::Checkpoint.to_wire()) && kinds.len() < 30);
    rig.stop();
}

#[test]
fn segment_of_another_cluster_or_with_two_damaged_headers_is_refused() {
    let rig = Rig::fresh();
    let disk = rig.disk.after_power_cut(|_, _| false);
    let mut other = config();
    other.cluster.0 += 1;
    let mut foreign = Rig::new(other, disk.clone());
    foreign.run();
    assert!(matches!(foreign.events[..], [LogEvent::Failed(LogFailure::Foreign)]));
    let name = disk.segments()[0].to_owned();
    let mut one = disk.clone();
    one.flip(&name, 50);
    Rig::started(config(), one.clone()).stop();
    one.flip(&name, 4096 + 50);
    let mut both = Rig::new(config(), one);
    both.run();
    assert!(matches!(both.events[..], [LogEvent::Failed(LogFailure::Recovery)]));
    // It does not look like an empty partition.
    assert_eq!(both.log.partition(P), None);
    assert_eq!(both.read(P, 0, 1_000), Err(Read::Failed));
    assert_eq!(both.call(|log, io| log.offset_at_time(io, P, 0)), Lookup::Failed);
    both.stop();
}

#[test]
fn any_garbage_in_the_files_neither_panics_nor_hangs() {
    let mut rig = Rig::fresh();
    for tag in 0..30 {
        rig.commit(P, &body(tag, 3_000));
    }
    let clean = rig.disk.after_power_cut(|_, _| false);
    let names: Vec<String> = clean.segments().into_iter().map(str::to_owned).collect();
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut disk = clean.clone();
        for _ in 0..=random.below(4) {
            let name = &names[random.below(names.len() as u64) as usize];
            let file = disk.files.get_mut(name).unwrap();
            let at = random.below(file.live.len() as u64) as usize;
            let len = (1 << random.below(16)).min(file.live.len() - at);
            match random.below(4) {
                0 => file.live[at..at + len].fill(0),
                1 => file.live[at..at + len].fill(0xff),
                2 => file.live[at..at + len]
                    .iter_mut()
                    .for_each(|byte| *byte = random.next_u64() as u8),
                _ => {
                    let from = random.below((file.live.len() - len) as u64 + 1) as usize;
                    file.live.copy_within(from..from + len, at);
                }
            }
            file.durable.clone_from(&file.live);
        }
        let mut rig = Rig::new(config(), disk);
        rig.run();
        if rig.log.failure().is_none() {
            let (found, _) = rig.read_all(P, 0);
            for (offset, bytes) in found {
                assert_eq!(bytes, body(offset as u32, 3_000), "seed {seed}");
            }
            let next = rig.log.partition(P).unwrap().next_offset;
            assert!(rig.commit(P, &body(1, 10)) >= next);
        }
        rig.stop();
    }
}

#[test]
fn no_flipped_bit_makes_a_wrong_record() {
    let mut rig = Rig::fresh();
    for tag in 0..3 {
        rig.commit(P, &body(tag, 100));
    }
    rig.pass(60);
    let clean = rig.disk.after_power_cut(|_, _| false);
    let name = clean.segments()[0].to_owned();
    let used = commits(&clean, &name).last().unwrap().position as usize + 4096;
    for at in (0..used).filter(|at| at % 4096 < 400) {
        let mut disk = clean.clone();
        disk.flip(&name, at);
        let mut rig = Rig::started(config(), disk);
        let (found, _) = rig.read_all(P, 0);
        for (offset, bytes) in &found {
            assert_eq!(*bytes, body(*offset as u32, 100), "flip at {at}");
        }
        assert!(found.len() >= 2);
        assert!(rig.commit(P, &body(9, 10)) >= Offset(3), "flip at {at}: an offset is used again");
    }
}

#[test]
fn lsns_stay_dense_across_many_lives() {
    let mut disk = Disk::new();
    let mut lsn = Lsn(0);
    for life in 0..12 {
        let mut rig = Rig::started(config(), disk);
        let report = report(&rig);
        assert_eq!(report.next_lsn, lsn, "life {life}");
        assert_eq!(report.epoch.0, life + 1);
        assert_eq!(rig.commit(P, &body(life as u32, 500)), Offset(life));
        lsn = rig.log.next_lsn();
        disk = rig.disk.after_power_cut(|_, _| life % 2 == 0);
    }
}
