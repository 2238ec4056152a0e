//! What is damaged, unreadable or forged, and what a start makes of it.

use corelog_protocol::checksum::crc32c;
use corelog_protocol::entry::EntryHeader;
use corelog_protocol::ids::{Epoch, Lsn, Offset};

use super::rig::{Disk, P, Q, Rig, body, config};
use crate::log::LogEvent;
use crate::log::format::commit_header::CommitHeader;
use crate::log::format::segment_header::SegmentHeader;

fn entries_corrupt(rig: &Rig) -> u64 {
    let corrupt = |event: &LogEvent| match event {
        LogEvent::Recovered(report) => Some(report.entries_corrupt),
        _ => None,
    };
    rig.events.iter().find_map(corrupt).expect("recovered")
}

#[test]
fn one_unreadable_sector_of_an_old_segment_costs_its_neighbourhood_and_not_the_lane() {
    let mut config = config();
    config.segment_bytes = 1 << 20;
    config.segment_bytes_first = 1 << 20;
    let mut rig = Rig::started(config.clone(), Disk::new());
    for tag in 0..160 {
        rig.commit(P, &body(tag, 3_000));
    }
    let name = rig.disk.segments()[0].to_owned();
    // The next life says that what it found is durable; the footer it writes is lost again.
    let mut rig = Rig::started(config.clone(), rig.disk.after_power_cut(|_, _| false));
    rig.pass(60);
    let mut disk = rig.disk.after_power_cut(|_, _| false);
    disk.flip(&name, (1 << 20) - 1);
    disk.unreadable = Some((name, 300 << 10));
    let mut rig = Rig::started(config, disk);
    assert!(entries_corrupt(&rig) > 0);
    assert_eq!(rig.log.partition(P).unwrap().next_offset, Offset(160));
    assert_eq!(rig.read(P, 5, 100).unwrap(), [(5, body(5, 3_000))]);
    assert_eq!(rig.read(P, 159, 100).unwrap(), [(159, body(159, 3_000))]);
    assert_eq!(rig.commit(P, &body(160, 3_000)), Offset(160));
    rig.stop();
}

#[test]
fn segments_cut_within_a_block_are_read_to_their_last_whole_one() {
    let mut rig = Rig::fresh();
    for tag in 0..40 {
        rig.commit(P, &body(tag, 3_000));
    }
    let mut disk = rig.disk.after_power_cut(|_, _| false);
    for file in disk.files.values_mut() {
        file.live.truncate(file.live.len() - 100);
        file.durable.truncate(file.durable.len() - 100);
    }
    let mut rig = Rig::started(rig.log.config().clone(), disk);
    // A footer and the end of a sealed segment are gone; what lies before was found by walking.
    assert_eq!(rig.log.partition(P).unwrap().next_offset, Offset(40));
    assert_eq!(rig.read(P, 0, 100).unwrap(), [(0, body(0, 3_000))]);
    assert_eq!(rig.commit(P, &body(40, 3_000)), Offset(40));
    rig.stop();
}

#[test]
fn offsets_that_only_a_lost_checkpoint_knew_are_never_given_out_again() {
    let mut rig = Rig::fresh();
    for tag in 0..3 {
        rig.commit(Q, &body(tag, 100));
    }
    for tag in 0..60 {
        rig.commit(P, &body(tag, 3_000));
    }
    // The segment in use and the one prepared: all others have expired.
    let mut disk = rig.disk.after_power_cut(|_, _| false);
    let names: Vec<String> = disk.segments().into_iter().map(str::to_owned).collect();
    let (expired, left) = names.split_at(names.len() - 2);
    for name in expired {
        disk.files.remove(name);
    }
    let rig = Rig::started(config(), disk.clone());
    assert_eq!(rig.log.partition(Q).unwrap().next_offset, Offset(3));
    assert_eq!(entries_corrupt(&rig), 0);
    for whole_commit in [false, true] {
        let mut disk = disk.clone();
        // The body of the checkpoint, or all of the first commit.
        disk.flip(&left[0], 8192 + 64 + 64 + 9);
        if whole_commit {
            let file = disk.files.get_mut(&left[0]).unwrap();
            file.live[8192..12_288].fill(0xaa);
            file.durable.clone_from(&file.live);
        }
        let mut rig = Rig::started(config(), disk);
        assert!(entries_corrupt(&rig) > 0);
        assert_eq!(rig.log.partition(P).unwrap().next_offset, Offset(60));
        let next = rig.log.partition(Q).unwrap().next_offset;
        assert!(next >= Offset(3), "{next:?}");
        assert_eq!(rig.commit(Q, &body(9, 100)), next);
        let rig = Rig::started(config(), rig.disk.after_power_cut(|_, _| false));
        assert_eq!(rig.log.partition(Q).unwrap().next_offset.0, next.0 + 1);
    }
}

#[test]
fn forged_positions_with_right_checksums_neither_panic_nor_are_believed() {
    let mut rig = Rig::fresh();
    for tag in 0..3 {
        rig.commit(P, &body(tag, 100));
    }
    let clean = rig.disk.after_power_cut(|_, _| false);
    let name = clean.segments()[0].to_owned();
    for huge in [u64::MAX, u64::MAX - 1, (1 << 63) + 1, (1 << 62) + 1] {
        for forged in 0..7 {
            let mut disk = clean.clone();
            let file = disk.files.get_mut(&name).unwrap();
            // The segment's header, and its second commit, which holds one entry.
            let mut segment = SegmentHeader::decode_blocks(&file.live).unwrap();
            let mut commit = CommitHeader::decode(&file.live[12_288..]).unwrap();
            let mut entry = EntryHeader::decode(&file.live[12_352..]).unwrap();
            assert_eq!(commit.entry_count, 1);
            match forged {
                0 => segment.durable_end = Lsn(huge),
                1 => segment.epoch = Epoch(huge),
                2 => segment.supersedes = Some(Lsn(huge)).filter(|_| huge < u64::MAX),
                3 => commit.durable_end = Lsn(huge),
                4 => commit.first_lsn = Lsn(huge - 1),
                5 => entry.base_offset = Offset(huge - 1),
                _ => entry.epoch = Epoch(huge),
            }
            if forged == 4 {
                entry.lsn = commit.first_lsn;
            }
            let entry = entry.encode();
            commit.entries_digest = crc32c(&entry[4..8]);
            segment.write_blocks(&mut file.live);
            file.live[12_288..12_352].copy_from_slice(&commit.encode());
            file.live[12_352..12_416].copy_from_slice(&entry);
            file.durable.clone_from(&file.live);
            let mut rig = Rig::new(config(), disk);
            rig.run();
            if rig.log.failure().is_none() {
                assert!(rig.log.next_lsn() < Lsn(1 << 32), "{forged} {huge:x}");
                assert!(rig.commit(P, &body(9, 100)) < Offset(1 << 40), "{forged} {huge:x}");
            }
            rig.stop();
        }
    }
}
