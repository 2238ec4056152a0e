//! Reads for a follower.

use corelog_protocol::ids::{Epoch, Lsn, Offset};

use super::replica::{dormant, follow, leader, position, replica, resume, resumed, started_at};
use super::rig::{Disk, P, Q, Rig, body};
use crate::log::{Copies, LogConfig, Retention};

/// Little is cached, and segments are large.
fn cold() -> LogConfig {
    LogConfig {
        tail_cache_bytes: 64 << 10,
        segment_bytes: 4 << 20,
        segment_bytes_first: 4 << 20,
        body_bytes_max: 3 << 20,
        ..replica()
    }
}

fn cold_leader(config: LogConfig) -> Rig {
    let mut rig = Rig::started(config, Disk::new());
    resumed(&mut rig, resume(0, 1, None));
    rig.call(|log, io| log.begin_epoch(io, Epoch(1))).unwrap();
    rig.run();
    rig
}

#[test]
fn follower_far_behind_is_fed_from_the_disk_and_reads_each_part_once() {
    let mut leader = cold_leader(cold());
    for tag in 0..1_500 {
        let partition = if tag % 3 == 0 { P } else { Q };
        leader.commit(partition, &body(tag, 3_000));
    }
    // Also with entries that no read can bring at once.
    leader.commit(P, &body(1_500, 2 << 20));
    leader.commit(P, &body(1_501, 2 << 20));
    leader.commit(P, &body(1_502, 10));
    let stored = leader.log.counters().bytes_data;
    for footers in [true, false] {
        let mut follower = Rig::started(cold(), Disk::new());
        resumed(&mut follower, resume(0, 1, None));
        let before = leader.log.counters().reads_cold_bytes;
        follow(&mut follower, &mut leader, 256 << 10);
        assert_eq!(follower.log.has(), leader.log.has());
        assert_eq!(leader.all_copies(Lsn(0)), follower.all_copies(Lsn(0)));
        let read = leader.log.counters().reads_cold_bytes - before;
        assert!(read < 8 * stored, "{read} bytes read for {stored}, footers {footers}");
        follower.stop();
        // A dormant log is read from, too.
        let disk = leader.disk.after_power_cut(|_, _| true);
        leader.stop();
        leader = Rig::started(cold(), disk);
    }
    leader.stop();
}

#[test]
fn what_is_written_and_not_durable_is_sent() {
    let mut leader = leader(1);
    assert_eq!(leader.copies(Lsn(1), 1_000), Err(Copies::AtEnd));
    leader.append(P, &body(1, 100)).unwrap();
    leader.append(P, &body(2, 100)).unwrap();
    assert_eq!(leader.copies(Lsn(1), 1_000), Err(Copies::AtEnd), "no commit has it");
    leader.call(|log, io| log.on_turn(io));
    let (end, both) = leader.copies(Lsn(1), 1_000).unwrap();
    assert_eq!((end, leader.log.durable_end()), (Lsn(3), Lsn(1)));
    let (end, first) = leader.copies(Lsn(1), 1).unwrap();
    assert_eq!((end, &first[..]), (Lsn(2), &both[..first.len()]));
    let (end, second) = leader.copies(Lsn(2), 1).unwrap();
    assert_eq!((end, &second[..]), (Lsn(3), &both[first.len()..]));
    leader.run();
    assert_eq!(leader.copies(Lsn(3), 1_000), Err(Copies::AtEnd), "a padding is nothing");
    leader.stop();
}

#[test]
fn what_retention_has_taken_is_gone_on_leader_and_follower() {
    let config = LogConfig { tail_cache_bytes: 1, ..replica() };
    let mut leader = cold_leader(config.clone());
    leader.log.open_partition(P, Retention { age_ms: None, bytes: Some(60_000) });
    for tag in 0..100 {
        leader.commit(P, &body(tag, 3_000));
    }
    let mut follower = Rig::started(config, Disk::new());
    resumed(&mut follower, resume(0, 1, None));
    follow(&mut follower, &mut leader, 50_000);
    leader.pass(2_000);
    assert_eq!(leader.log.partition(P).unwrap().log_start, Offset(0), "nothing is committed");
    for _ in 0..20 {
        let end = leader.log.next_lsn();
        leader.log.set_committed(end);
        leader.pass(2_000);
        follow(&mut follower, &mut leader, 50_000);
        follower.log.set_committed(end);
        follower.pass(2_000);
    }
    let start = leader.log.partition(P).unwrap().log_start;
    assert!(start > Offset(50));
    assert_eq!(follower.log.partition(P).unwrap().log_start, start);
    for rig in [&mut leader, &mut follower] {
        let Err(Copies::Gone { first }) = rig.copies(Lsn(0), 1_000) else { panic!("it is gone") };
        assert!(first > Lsn(20));
        assert_eq!(rig.log.epoch_history(), [(Epoch(1), Lsn(0))]);
        let (found, answer) = rig.all_copies(first);
        assert_eq!(answer, Copies::AtEnd);
        assert_eq!(found.len() as u64, rig.log.next_lsn().0 - first.0);
    }
    let has = follower.log.has();
    follower.stop();
    let mut follower = dormant(follower.disk.after_power_cut(|_, _| false));
    assert_eq!((follower.log.has(), follower.log.perhaps()), (has, has));
    assert_eq!(follower.log.partition(P).unwrap().log_start, start);
    follower.stop();
    leader.stop();
}

#[test]
fn entry_that_rots_under_a_footer_is_told_of_when_it_is_read() {
    let mut leader = cold_leader(LogConfig { tail_cache_bytes: 1, ..replica() });
    for tag in 0..60 {
        leader.commit(P, &body(tag, 3_000));
    }
    assert!(leader.log.counters().footers_written > 1);
    leader.stop();
    let mut disk = leader.disk.after_power_cut(|_, _| false);
    let name = disk.segments()[0].to_owned();
    let place = disk.find(&name, &body(5, 3_000));
    disk.flip(&name, place + 500);
    let mut rig = dormant(disk);
    let whole = rig.log.has();
    assert_eq!(rig.log.perhaps(), whole);
    let (found, answer) = rig.all_copies(Lsn(0));
    assert_eq!((found.len(), answer), (6, Copies::Unreadable { lsn: Lsn(6) }));
    assert_eq!((rig.log.has(), rig.log.perhaps()), (position(1, 6), whole));
    // Behind it all is well.
    assert_eq!(rig.all_copies(Lsn(7)).1, Copies::AtEnd);
    rig.stop();
    let mut rig = started_at(rig.disk.after_power_cut(|_, _| false), resume(6, 1, Some(whole)));
    assert_eq!((rig.log.has(), rig.log.perhaps()), (position(1, 6), whole));
    rig.stop();
}
