//! The scrub: what rots unread is found.

use corelog_protocol::ids::Lsn;

use super::replica::{dormant, follow, leader, position, replica, resume, resumed, started_at};
use super::rig::{Disk, P, Rig, body};
use crate::log::{LogConfig, LogEvent, Read};

fn damaged(rig: &Rig) -> Vec<Lsn> {
    let lsn = |event: &LogEvent| match event {
        LogEvent::Damaged { lsn, .. } => Some(*lsn),
        _ => None,
    };
    rig.events.iter().filter_map(lsn).collect()
}

/// A running follower with 60 batches, and its leader.
fn followed(scrub_bytes_per_second: u64) -> (Rig, Rig) {
    let mut leader = leader(1);
    for tag in 0..60 {
        leader.commit(P, &body(tag, 3_000));
    }
    let config = LogConfig { scrub_bytes_per_second, tail_cache_bytes: 1, ..replica() };
    let mut rig = Rig::started(config, Disk::new());
    resumed(&mut rig, resume(0, 1, None));
    follow(&mut rig, &mut leader, 20_000);
    (leader, rig)
}

/// The segment in which the batch with this tag is durable, and where its body begins there.
fn place_of(rig: &Rig, tag: u32) -> (String, usize) {
    let wanted = body(tag, 3_000);
    let names = rig.disk.segments();
    let place = |name: &str| {
        rig.disk.files[name].durable.windows(wanted.len()).position(|bytes| bytes == wanted)
    };
    let found = names.iter().find_map(|name| Some(((*name).to_owned(), place(name)?)));
    found.expect("durable")
}

/// One byte of the batch with this tag is not what it was.
fn rot(rig: &mut Rig, tag: u32) {
    let (name, at) = place_of(rig, tag);
    rig.disk.flip(&name, at + 500);
}

#[test]
fn scrub_is_no_faster_than_it_may_be_and_finds_nothing_in_what_is_intact() {
    let (mut leader, mut rig) = followed(50_000);
    rig.pass(60_000);
    let before = rig.log.counters().scrub_bytes;
    let mut passed = 0;
    for _ in 0..40 {
        rig.pass(100);
        passed += 100;
        let bytes = rig.log.counters().scrub_bytes - before;
        assert!(bytes <= 50_000 * passed / 1_000 + (256 << 10), "{bytes} after {passed} ms");
    }
    for _ in 0..10 {
        rig.pass(60_000);
    }
    assert!(rig.log.counters().scrub_bytes > 2 * 3_000 * 20, "it begins anew");
    assert_eq!((damaged(&rig), rig.log.counters().scrub_damaged), (vec![], 0));
    for rig in [&mut rig, &mut leader] {
        rig.stop();
    }
}

#[test]
fn what_has_rotted_is_found_by_the_scrub_told_of_and_replaced() {
    let (mut leader, mut rig) = followed(1 << 20);
    rot(&mut rig, 5);
    rot(&mut rig, 25);
    for _ in 0..20 {
        rig.pass(60_000);
    }
    assert!(rig.log.counters().scrub_damaged >= 2);
    assert_eq!(damaged(&rig).last(), Some(&Lsn(6)), "the lowest");
    let (whole, has) = (leader.log.has(), position(1, 6));
    assert_eq!((rig.log.has(), rig.log.perhaps()), (has, whole));
    rig.stop();
    let mut rig = started_at(rig.disk.after_power_cut(|_, _| false), resume(6, 1, Some(whole)));
    assert_eq!((rig.log.has(), rig.log.perhaps()), (has, whole));
    follow(&mut rig, &mut leader, 20_000);
    assert_eq!((rig.log.has(), rig.log.perhaps()), (whole, whole));
    rig.stop();
    let mut rig = dormant(rig.disk.after_power_cut(|_, _| false));
    assert_eq!(rig.all_copies(Lsn(0)).0, leader.all_copies(Lsn(0)).0, "byte for byte");
    rig.stop();
    leader.stop();
}

/// Behind the walk's last good entry nothing is left to read, and something is missing.
#[test]
fn the_scrub_finds_the_last_entry_of_a_segment_whose_header_has_rotted() {
    let (mut leader, mut rig) = followed(1 << 20);
    let last = rig.log.active_first_lsn().expect("it is running").0 - 1;
    let (name, at) = place_of(&rig, last as u32 - 1);
    // Two bits: one would be mended.
    rig.disk.flip(&name, at - 20);
    rig.disk.flip(&name, at - 30);
    for _ in 0..5 {
        rig.pass(60_000);
    }
    assert_eq!(damaged(&rig), [Lsn(last)]);
    rig.stop();
    leader.stop();
}

#[test]
fn damage_that_a_reader_meets_is_found_without_a_scrub() {
    let (mut leader, mut rig) = followed(0);
    rig.log.set_committed(Lsn(1 << 40));
    rot(&mut rig, 7);
    rig.pass(120_000);
    assert_eq!(damaged(&rig), []);
    let read = rig.read(P, 7, 1_000);
    assert!(matches!(read, Err(Read::Corrupt { .. })), "{read:?}");
    rig.pass(1);
    assert_eq!((damaged(&rig), rig.log.has()), (vec![Lsn(8)], position(1, 8)));
    let scrubbed = rig.log.counters().scrub_bytes;
    rig.pass(120_000);
    assert_eq!(rig.log.counters().scrub_bytes, scrubbed, "it is off");
    rig.stop();
    leader.stop();
}

#[test]
fn damage_in_the_segment_that_is_written_is_found_by_a_reader_too() {
    let (mut leader, mut rig) = followed(0);
    rig.log.set_committed(Lsn(1 << 40));
    let lsn = rig.log.active_first_lsn().expect("it is running");
    assert!(lsn < rig.log.next_lsn(), "it has something");
    // The first entry of all is no batch.
    let tag = lsn.0 - 1;
    rot(&mut rig, tag as u32);
    let read = rig.read(P, tag, 1_000);
    assert!(matches!(read, Err(Read::Corrupt { .. })), "{read:?}");
    rig.pass(1);
    assert_eq!((damaged(&rig), rig.log.has()), (vec![lsn], position(1, lsn.0)));
    rig.stop();
    leader.stop();
}
