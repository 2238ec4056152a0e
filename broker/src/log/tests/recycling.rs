//! Segments that have expired, and whose files are used again.

use super::rig::{Disk, P, Rig, body, config};
use crate::log::Retention;

#[test]
fn header_of_a_recycled_file_does_not_land_on_the_segment_in_use() {
    let mut rig = Rig::started(config(), Disk::new());
    rig.log.open_partition(P, Retention { bytes: Some(16 << 10), ..Retention::default() });
    let mut number = 0;
    while rig.log.counters().segments_recycled == 0 {
        rig.commit(P, &body(number, 6_000));
        rig.pass(1_000);
        number += 1;
        assert!(number < 100, "nothing is ever recycled");
    }
    let bounds = rig.log.partition(P).unwrap();
    let mut again = Rig::started(config(), rig.disk.after_power_cut(|_, _| false));
    assert_eq!(again.log.partition(P), Some(bounds));
    let (found, lost) = again.read_all(P, bounds.log_start.0);
    assert_eq!(lost, []);
    assert_eq!(found.len() as u64, bounds.next_offset.0 - bounds.log_start.0);
    let expected = |(offset, found): &(u64, Vec<u8>)| *found == body(*offset as u32, 6_000);
    assert!(found.iter().all(expected));
}
