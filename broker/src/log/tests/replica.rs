//! The log of one replica of several: how it starts, goes on, takes copies, and what it says of its end.

use corelog_protocol::ids::{Epoch, Lsn, Offset};

use super::rig::{Disk, P, Rig, body, config};
use crate::log::format::commit_header::CommitHeader;
use crate::log::{AppendError, CopyError, LogConfig, LogEvent, RecoveryReport, Resume};
use crate::planted::{self, Bug};
use crate::replica::Position;

pub fn replica() -> LogConfig {
    LogConfig { replicated: true, ..config() }
}

pub fn position(epoch: u64, end: u64) -> Position {
    Position { epoch: Epoch(epoch), end: Lsn(end) }
}

pub fn resume(at: u64, accepted: u64, perhaps: Option<Position>) -> Resume {
    Resume { at: Lsn(at), accepted: Epoch(accepted), perhaps }
}

pub fn report(rig: &Rig) -> RecoveryReport {
    let report = |event: &LogEvent| match event {
        LogEvent::Recovered(report) => Some(report.clone()),
        _ => None,
    };
    rig.events.iter().find_map(report).expect("recovered")
}

/// Recovered, and dormant.
pub fn dormant(disk: Disk) -> Rig {
    let rig = Rig::started(replica(), disk);
    assert!(!report(&rig).resumed);
    rig
}

pub fn resumed(rig: &mut Rig, resume: Resume) {
    rig.call(|log, io| log.resume(io, resume));
    rig.run();
    assert!(rig.events.iter().any(|event| matches!(event, LogEvent::Resumed)));
}

pub fn started_at(disk: Disk, resume: Resume) -> Rig {
    let mut rig = Rig::made(replica(), disk);
    rig.call(|log, io| log.start_at(io, resume));
    rig.run();
    rig
}

/// Leads an epoch on an empty log.
pub fn leader(epoch: u64) -> Rig {
    let mut rig = dormant(Disk::new());
    resumed(&mut rig, resume(0, epoch, None));
    rig.call(|log, io| log.begin_epoch(io, Epoch(epoch))).unwrap();
    rig.run();
    rig
}

/// The entries of each commit, as the disk has them.
fn commits(disk: &Disk) -> Vec<(Lsn, Vec<u8>)> {
    let mut found = Vec::new();
    for name in disk.segments() {
        let bytes = &disk.files[name].live;
        let mut at = 8192;
        while at < bytes.len() {
            match CommitHeader::decode(&bytes[at..]) {
                Some(header) if header.position == at as u64 => {
                    let end = at + header.length as usize;
                    found.push((header.first_lsn, bytes[at + 64..end].to_vec()));
                    at = end.next_multiple_of(4096);
                }
                _ => at += 4096,
            }
        }
    }
    found
}

/// Copies all that the follower does not have.
pub fn follow(rig: &mut Rig, leader: &mut Rig, max: u32) {
    while let Ok((_, bytes)) = leader.copies(rig.log.next_lsn(), max) {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match rig.copy(rest) {
                Ok(used) => rest = &rest[used as usize..],
                // It says when there is room, and needs no push for that.
                Err(CopyError::Refused(AppendError::Busy)) => assert!(!rig.orders.is_empty()),
                Err(error) => panic!("{error:?}"),
            }
            rig.run();
        }
    }
}

#[test]
fn replica_writes_nothing_until_it_is_told_where_to_go_on() {
    let mut rig = dormant(Disk::new());
    rig.pass(10_000);
    assert_eq!(rig.disk.segments(), [""; 0]);
    assert_eq!((rig.log.has(), rig.log.perhaps()), Default::default());
    assert_eq!(rig.append(P, &body(1, 10)), Err(AppendError::Recovering));
    assert!(matches!(rig.copy(&[0; 64]), Err(CopyError::Refused(AppendError::Recovering))));
    resumed(&mut rig, resume(0, 3, None));
    assert_eq!(rig.log.accepted(), Epoch(3));
    assert_eq!(rig.append(P, &body(1, 10)), Err(AppendError::Recovering));
    let began = rig.call(|log, io| log.begin_epoch(io, Epoch(3))).unwrap();
    assert_eq!((began.lsn, began.epoch), (Lsn(0), Epoch(3)));
    assert_eq!(rig.commit(P, &body(1, 10)), Offset(0));
    assert_eq!(rig.log.epoch_history(), [(Epoch(3), Lsn(0))]);
    assert_eq!(rig.log.has(), position(3, 2));
    assert!(matches!(rig.copy(&[0; 64]), Err(CopyError::Leading)));
    rig.stop();
    // What it has accepted survives; a leader does not lead on.
    let mut rig = dormant(rig.disk.after_power_cut(|_, _| false));
    assert_eq!((report(&rig).accepted, rig.log.accepted()), (Epoch(3), Epoch(3)));
    assert_eq!((rig.log.has(), rig.log.perhaps()), (position(3, 2), position(3, 2)));
    assert_eq!(rig.log.epoch_of(Lsn(1)), Some(Epoch(3)));
    assert_eq!(rig.log.epoch_of(Lsn(2)), None);
    rig.stop();
}

#[test]
fn followers_log_holds_its_leaders_entries_byte_for_byte() {
    let mut leader = leader(1);
    for tag in 0..60 {
        leader.commit(P, &body(tag, 3_000));
    }
    assert!(leader.log.counters().rolls > 2);
    let mut follower = dormant(Disk::new());
    resumed(&mut follower, resume(0, 1, None));
    follow(&mut follower, &mut leader, 20_000);
    assert_eq!(follower.log.has(), leader.log.has());
    assert_eq!(follower.log.epoch_history(), leader.log.epoch_history());
    assert_eq!(follower.log.partition(P).unwrap().committed_end, Offset(0));
    for rig in [&mut leader, &mut follower] {
        rig.log.set_committed(Lsn(11));
        assert_eq!(rig.log.partition(P).unwrap().committed_end, Offset(10));
        assert_eq!(rig.read_all(P, 0).0.len(), 10);
        rig.log.set_committed(Lsn(1 << 40));
        let (found, lost) = rig.read_all(P, 0);
        assert_eq!((found.len(), lost), (60, vec![]));
        assert!(found.iter().all(|(offset, bytes)| *bytes == body(*offset as u32, 3_000)));
        assert_eq!(rig.log.committed_end(), rig.log.durable_end());
    }
    follower.stop();
    let mut follower = dormant(follower.disk.after_power_cut(|_, _| false));
    assert_eq!(follower.log.has(), leader.log.has());
    assert_eq!(follower.log.partition(P).unwrap().committed_end, Offset(0));
    follower.log.set_committed(Lsn(60));
    assert_eq!(follower.log.partition(P).unwrap().committed_end, Offset(0));
    follower.log.set_committed(Lsn(61));
    assert_eq!(follower.read_all(P, 0).0.len(), 60);
    follower.stop();
    leader.stop();
}

#[test]
fn copies_that_do_not_follow_are_refused() {
    let mut leader = leader(2);
    leader.commit(P, &body(1, 500));
    leader.commit(P, &body(2, 500));
    let all = commits(&leader.disk);
    let entries: Vec<&[u8]> = all.iter().map(|(_, bytes)| &bytes[..]).collect();
    let (local, start, first, second) = (entries[0], entries[1], entries[2], entries[3]);
    let mut rig = dormant(Disk::new());
    resumed(&mut rig, resume(0, 1, None));
    let refused = rig.copy(start);
    assert!(matches!(refused, Err(CopyError::Epoch { found: Epoch(2), .. })), "{refused:?}");
    rig.stop();
    let mut rig = started_at(rig.disk.after_power_cut(|_, _| false), resume(0, 2, None));
    assert!(report(&rig).resumed);
    assert_eq!(rig.copy(local), Ok(local.len() as u32));
    assert_eq!(rig.log.next_lsn(), Lsn(0), "local entries are skipped");
    let refused = rig.copy(first);
    assert!(matches!(refused, Err(CopyError::Lsn { expected: Lsn(0), found: Lsn(1) })));
    assert!(matches!(rig.copy(&start[..40]), Err(CopyError::Entry(_))));
    let mut damaged = [start, first].concat();
    damaged[start.len() + 100] ^= 1;
    assert_eq!(rig.copy(&damaged), Ok(start.len() as u32), "the whole one in front");
    assert!(matches!(rig.copy(&damaged[start.len()..]), Err(CopyError::Entry(_))));
    let cut = [first, &second[..200]].concat();
    assert_eq!(rig.copy(&cut), Ok(first.len() as u32));
    rig.run();
    assert_eq!(rig.log.has(), position(2, 2));
    rig.stop();
    leader.stop();
}

#[test]
fn what_is_void_is_gone_with_its_epochs_and_the_rest_stays() {
    let mut first = leader(1);
    for tag in 0..9 {
        first.commit(P, &body(tag, 500));
    }
    first.stop();
    let mut rig = started_at(first.disk.after_power_cut(|_, _| false), resume(4, 3, None));
    assert!(report(&rig).resumed);
    assert_eq!((rig.log.has(), rig.log.perhaps()), (position(1, 4), position(1, 4)));
    rig.call(|log, io| log.begin_epoch(io, Epoch(3))).unwrap();
    assert_eq!(rig.commit(P, &body(50, 500)), Offset(3));
    for _ in 0..3 {
        assert_eq!(rig.log.epoch_history(), [(Epoch(1), Lsn(0)), (Epoch(3), Lsn(4))]);
        assert_eq!((rig.log.has(), rig.log.perhaps()), (position(3, 6), position(3, 6)));
        rig.log.set_committed(Lsn(6));
        let (found, lost) = rig.read_all(P, 0);
        let tags = [0, 1, 2, 50];
        let expected: Vec<_> = (0..).zip(tags).map(|(at, tag)| (at, body(tag, 500))).collect();
        assert_eq!((found, lost), (expected, vec![]));
        rig.stop();
        rig = dormant(rig.disk.after_power_cut(|_, _| false));
    }
}

/// A follower's log with entries up to LSN 6 of epoch 1, each in a commit of its own.
fn six() -> Disk {
    let mut rig = leader(1);
    for tag in 0..5 {
        rig.commit(P, &body(tag, 500));
    }
    rig.disk.after_power_cut(|_, _| false)
}

/// The position of the commit with this LSN, in the first segment.
fn at(disk: &Disk, lsn: u64) -> usize {
    let bytes = &disk.files[disk.segments()[0]].live;
    let is_it = |at: &usize| {
        CommitHeader::decode(&bytes[*at..])
            .is_some_and(|header| header.first_lsn == Lsn(lsn) && header.end_lsn() == Lsn(lsn + 1))
    };
    (8192..bytes.len()).step_by(4096).find(is_it).expect("it has a commit")
}

#[test]
fn what_is_bad_ends_the_log_and_is_told_of() {
    let name = six().segments()[0].to_owned();
    // A body below what later commits attest.
    let mut disk = six();
    let place = at(&disk, 2);
    disk.flip(&name, place + 200);
    let mut rig = dormant(disk);
    assert_eq!((rig.log.has(), rig.log.perhaps()), (position(1, 2), position(1, 6)));
    assert_eq!(rig.log.next_lsn(), Lsn(2));
    rig.stop();
    // A tail that may be torn.
    let mut disk = six();
    let place = at(&disk, 5);
    disk.flip(&name, place + 200);
    let mut rig = dormant(disk.clone());
    assert_eq!((rig.log.has(), rig.log.perhaps()), (position(1, 5), position(1, 6)));
    rig.stop();
    // Nobody can tell how much was in it.
    let bytes = disk.files.get_mut(&name).unwrap();
    bytes.live[place + 32..place + 56].fill(0xff);
    bytes.durable[place + 32..place + 56].fill(0xff);
    let mut rig = dormant(disk);
    assert_eq!((rig.log.has(), rig.log.perhaps()), (position(1, 5), position(1, u64::MAX)));
    rig.stop();
}

#[test]
fn mark_is_told_until_what_replaces_it_is_durable() {
    let mut leader = leader(1);
    for tag in 0..5 {
        leader.commit(P, &body(tag, 500));
    }
    let mut disk = six();
    let name = disk.segments()[0].to_owned();
    let place = at(&disk, 2);
    disk.flip(&name, place + 200);
    let mark = position(1, 6);
    let mut rig = started_at(disk, resume(2, 1, Some(mark)));
    for _ in 0..3 {
        assert_eq!((rig.log.has(), rig.log.perhaps()), (position(1, 2), mark));
        rig.stop();
        rig = dormant(rig.disk.after_power_cut(|_, _| false));
    }
    resumed(&mut rig, resume(2, 1, Some(mark)));
    let entries: Vec<Vec<u8>> = commits(&leader.disk)
        .into_iter()
        .filter(|(lsn, _)| *lsn >= Lsn(2))
        .map(|it| it.1)
        .collect();
    assert!(rig.copy(&entries.concat()).is_ok());
    assert_eq!(rig.log.next_lsn(), Lsn(6));
    assert_eq!(rig.log.perhaps(), mark, "not durable yet");
    let torn = rig.disk.after_power_cut(|_, _| true);
    let mut early = dormant(torn);
    assert_eq!((early.log.has(), early.log.perhaps()), (position(1, 2), mark));
    early.stop();
    rig.run();
    assert_eq!((rig.log.has(), rig.log.perhaps()), (mark, mark));
    let mut rig = dormant(rig.disk.after_power_cut(|_, _| false));
    assert_eq!((rig.log.has(), rig.log.perhaps()), (mark, mark));
    rig.stop();
}

#[test]
fn crash_in_a_truncation_leaves_all_of_it_or_nothing() {
    let mut first = leader(1);
    for tag in 0..9 {
        first.commit(P, &body(tag, 500));
    }
    first.stop();
    let before = (Epoch(1), position(1, 10));
    let after = (Epoch(3), position(1, 4));
    let (mut untouched, mut truncated) = (0, 0);
    for crash_at in 0..60 {
        for keep in [false, true] {
            let mut rig = Rig::made(replica(), first.disk.after_power_cut(|_, _| false));
            rig.call(|log, io| log.start_at(io, resume(4, 3, None)));
            for _ in 0..crash_at {
                if !rig.orders.is_empty() {
                    rig.complete(|_| true);
                }
            }
            let is_told = rig.events.iter().any(|event| matches!(event, LogEvent::Recovered(_)));
            let mut rig = dormant(rig.disk.after_power_cut(|_, _| keep));
            let found = (rig.log.accepted(), rig.log.has());
            assert!(found == after || found == before && !is_told, "{crash_at}: {found:?}");
            assert_eq!(rig.log.perhaps(), found.1);
            untouched += u64::from(found == before);
            truncated += u64::from(found == after);
            rig.stop();
        }
    }
    assert!(untouched > 5 && truncated > 5, "{untouched}, {truncated}");
}

#[test]
fn every_planted_bug_of_a_replica_is_caught() {
    let stories: [fn(); 5] = [
        crash_in_a_truncation_leaves_all_of_it_or_nothing,
        followers_log_holds_its_leaders_entries_byte_for_byte,
        copies_that_do_not_follow_are_refused,
        what_is_void_is_gone_with_its_epochs_and_the_rest_stays,
        mark_is_told_until_what_replaces_it_is_durable,
    ];
    for bug in Bug::REPLICA_LOG {
        let is_caught =
            |story: &fn()| planted::with(*bug, || std::panic::catch_unwind(*story)).is_err();
        assert!(stories.iter().any(is_caught), "{bug:?}");
    }
}

#[test]
fn entry_that_is_larger_than_a_followers_segments_gets_one_of_its_own() {
    let mut large = replica();
    (large.segment_bytes, large.body_bytes_max) = (4 << 20, 2 << 20);
    let mut leader = Rig::started(large, Disk::new());
    resumed(&mut leader, resume(0, 1, None));
    leader.call(|log, io| log.begin_epoch(io, Epoch(1))).unwrap();
    leader.run();
    let mut follower = dormant(Disk::new());
    resumed(&mut follower, resume(0, 1, None));
    for (tag, bytes) in [(0, 500), (1, 2 << 20), (2, 500), (3, 70_000), (4, 60_000), (5, 2 << 20)] {
        leader.commit(P, &body(tag, bytes));
        follow(&mut follower, &mut leader, 1 << 20);
        assert_eq!(follower.log.has(), leader.log.has());
    }
    follower.log.set_committed(Lsn(7));
    assert_eq!(follower.read_all(P, 0).0.len(), 6);
    follower.stop();
    let mut again = dormant(follower.disk.after_power_cut(|_, _| false));
    assert_eq!(again.log.has(), leader.log.has());
    again.stop();
    leader.stop();
}
