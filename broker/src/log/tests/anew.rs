//! A follower whose leader's log reaches back no further than above its end: its log is dropped and begins anew.

use corelog_protocol::ids::{Epoch, LaneId, Lsn};

use super::replica::{dormant, follow, position, replica, report, resume, resumed, started_at};
use super::rig::{Disk, P, Rig, body};
use crate::log::{Base, Claim, Copies, LogConfig, LogEvent, Retention, Verdict};
use crate::memory::Memory;
use crate::sim::scene::batch_of;

const KEPT: Retention = Retention { age_ms: None, bytes: Some(60_000) };

fn claim() -> (Claim, Vec<u8>) {
    let batch = batch_of((9, 0, 0), "first", 1);
    (Claim::read(P, &batch).expect("it names its producer"), batch)
}

/// A leader whose log begins above what this follower has.
fn far_apart() -> (Rig, Rig) {
    let config = LogConfig { tail_cache_bytes: 1, ..replica() };
    let mut leader = Rig::started(config, Disk::new());
    resumed(&mut leader, resume(0, 1, None));
    leader.call(|log, io| log.begin_epoch(io, Epoch(1))).unwrap();
    leader.run();
    leader.log.open_partition(P, KEPT);
    let (claim, batch) = claim();
    leader.append_of(claim, &batch).unwrap();
    leader.run();
    for tag in 0..10 {
        leader.commit(P, &body(tag, 3_000));
    }
    let mut follower = dormant(Disk::new());
    resumed(&mut follower, resume(0, 1, None));
    follow(&mut follower, &mut leader, 50_000);
    for tag in 10..100 {
        leader.commit(P, &body(tag, 3_000));
    }
    for _ in 0..20 {
        let end = leader.log.next_lsn();
        leader.log.set_committed(end);
        leader.pass(2_000);
    }
    let gone = leader.copies(follower.log.next_lsn(), 1_000);
    assert!(matches!(gone, Err(Copies::Gone { .. })), "{gone:?}");
    (leader, follower)
}

fn base_entry(leader: &mut Rig) -> Vec<u8> {
    let answer = leader.call(|log, io| log.read_base(io));
    let Copies::Waiting(id) = answer else { panic!("{answer:?}") };
    leader.run();
    let done = |event: &LogEvent| matches!(event, LogEvent::CopiesDone { read, .. } if *read == id);
    let at = leader.events.iter().position(done).expect("the read is answered");
    let LogEvent::CopiesDone { from, answer, pieces, .. } = leader.events.remove(at) else {
        unreachable!()
    };
    assert!(matches!(answer, Copies::Ready { end, .. } if end == from), "{answer:?}");
    let mut bytes = Vec::new();
    for piece in pieces {
        bytes.extend_from_slice(leader.memory.piece(piece));
        leader.memory.release(piece.slot);
    }
    bytes
}

fn base(leader: &mut Rig) -> Base {
    let entry = base_entry(leader);
    let base = Base::read(LaneId(3), &entry).expect("a checkpoint");
    assert!(base.first() > Lsn(20) && base.epoch() == Epoch(1));
    base
}

fn started_anew(disk: Disk, base: &Base) -> Rig {
    let mut rig = Rig::made(replica(), disk);
    let resume = resume(base.first().0, 1, None);
    rig.call(|log, io| log.start_anew(io, resume, base.clone()));
    rig.run();
    assert!(report(&rig).resumed);
    rig
}

#[test]
fn follower_that_is_too_far_behind_begins_anew_and_has_all_that_its_leader_has() {
    let (mut leader, mut follower) = far_apart();
    let base = base(&mut leader);
    follower.stop();
    let mut rig = started_anew(follower.disk.after_power_cut(|_, _| false), &base);
    let first = position(1, base.first().0);
    assert_eq!((rig.log.has(), rig.log.perhaps()), (first, first));
    for _ in 0..20 {
        rig.pass(2_000);
    }
    assert_eq!(rig.log.segment_count(), 1, "what was there is gone");
    follow(&mut rig, &mut leader, 50_000);
    let end = leader.log.next_lsn();
    let (claim, _) = claim();
    for _ in 0..3 {
        rig.log.set_committed(end);
        assert_eq!((rig.log.has(), rig.log.perhaps()), (leader.log.has(), leader.log.has()));
        assert_eq!(rig.log.epoch_history(), leader.log.epoch_history());
        assert_eq!(rig.log.partition(P), leader.log.partition(P));
        assert!(matches!(rig.log.judge(&claim, true), Verdict::Duplicate(_)));
        assert_eq!(rig.log.judge(&claim, true), leader.log.judge(&claim, true));
        let start = leader.log.partition(P).unwrap().log_start.0;
        assert!(start > 20);
        assert_eq!(rig.read_all(P, start), leader.read_all(P, start));
        rig.stop();
        rig = dormant(rig.disk.after_power_cut(|_, _| false));
    }
    rig.stop();
    leader.stop();
}

#[test]
fn crash_while_it_begins_anew_leaves_the_old_log_or_an_empty_one_that_says_so_or_the_new_one() {
    let (mut leader, mut follower) = far_apart();
    let base = base(&mut leader);
    let old = follower.log.has();
    follower.stop();
    let (empty, new) = (position(0, 0), position(1, base.first().0));
    let mut seen = [0; 3];
    for crash_at in 0..80 {
        for keep in [false, true] {
            let mut rig = Rig::made(replica(), follower.disk.after_power_cut(|_, _| false));
            let goes_on = resume(base.first().0, 1, None);
            rig.call(|log, io| log.start_anew(io, goes_on, base.clone()));
            for _ in 0..crash_at {
                if rig.orders.is_empty() {
                    rig.pass(2_000);
                } else {
                    rig.complete(|_| true);
                }
            }
            let is_told = rig.events.iter().any(|event| matches!(event, LogEvent::Recovered(_)));
            let mut rig = dormant(rig.disk.after_power_cut(|_, _| keep));
            let found = (rig.log.has(), rig.log.bad_end());
            let at = match found {
                (has, None) if has == old && !is_told => 0,
                (has, Some(end)) if has == empty && end == base.first() && !is_told => 1,
                (has, None) if has == new => 2,
                other => panic!("{crash_at}: {other:?}"),
            };
            seen[at] += 1;
            rig.stop();
            let mut disk = rig.disk.after_power_cut(|_, _| false);
            if at == 1 {
                // It follows from the beginning, and goes on to tell what it had.
                let perhaps = position(1, base.first().0);
                for _ in 0..2 {
                    let mut rig = started_at(disk, resume(0, 1, Some(perhaps)));
                    assert!(report(&rig).resumed);
                    assert_eq!((rig.log.has(), rig.log.perhaps()), (empty, perhaps));
                    rig.stop();
                    disk = rig.disk.after_power_cut(|_, _| false);
                }
            }
            let mut rig = started_anew(disk, &base);
            assert_eq!((rig.log.has(), rig.log.perhaps()), (new, new));
            rig.stop();
        }
    }
    assert!(seen.iter().all(|count| *count > 3), "{seen:?}");
    leader.stop();
}

#[test]
fn a_checkpoint_that_is_damaged_or_of_another_lane_is_none() {
    let (mut leader, mut follower) = far_apart();
    let entry = base_entry(&mut leader);
    assert_eq!(Base::read(LaneId(4), &entry), None);
    for bit in (0..entry.len() * 8).step_by(7) {
        let mut damaged = entry.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let read = Base::read(LaneId(3), &damaged);
        // Behind the body is padding, which says nothing.
        assert!(read.is_none() || bit / 8 >= entry.len() - 8, "bit {bit}");
        if bit / 8 < entry.len() - 8 {
            assert_eq!(Base::read(LaneId(3), &entry[..bit / 8]), None);
        }
    }
    follower.stop();
    leader.stop();
}
