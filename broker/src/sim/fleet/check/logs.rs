//! The end of a run: what is committed is on every replica's disk, byte for byte.

use std::collections::{BTreeMap, BTreeSet};

use super::commits::Commits;
use super::disks::{Id, id_of};
use crate::limits::BLOCK_BYTES;
use crate::sim::check::durable::entries;
use crate::sim::disk::Image;
use crate::sim::trace::Violation;

const COMMIT_HEADER_BYTES: usize = 64;

/// By lane and LSN, every whole entry that an image holds.
fn read(image: &Image) -> BTreeMap<(u32, u64), BTreeSet<Id>> {
    let mut found: BTreeMap<(u32, u64), BTreeSet<Id>> = BTreeMap::new();
    for file in image.files.values() {
        for block in (0..file.len()).step_by(BLOCK_BYTES) {
            let inside = &file[(block + COMMIT_HEADER_BYTES).min(file.len())..];
            for (header, body) in entries(inside) {
                if !header.is_local() && header.check_body(body).is_ok() {
                    let key = (header.lane.0, header.lsn.0);
                    found.entry(key).or_default().insert(id_of(&header));
                }
            }
        }
    }
    found
}

/// Compares the images of all brokers with what is committed: each entry is on `replicas` of them, or, if it was committed
/// while the brokers stopped (from `settled` of its lane on), on a quorum. Returns how many entries were compared.
///
/// # Errors
/// The first entry that too few hold.
pub fn compare(
    images: &[Image],
    commits: &Commits,
    settled: &BTreeMap<u32, usize>,
    replicas: usize,
) -> Result<u64, Violation> {
    let found: Vec<_> = images.iter().map(read).collect();
    let mut compared = 0;
    for (lane, log) in commits.lanes() {
        let settled = settled.get(&lane).copied().unwrap_or(0);
        for (lsn, id) in log.enumerate() {
            let wanted = if lsn < settled { replicas } else { replicas / 2 + 1 };
            let key = (lane, lsn as u64);
            let holds = |found: &&BTreeMap<_, BTreeSet<Id>>| {
                found.get(&key).is_some_and(|ids| ids.contains(&id))
            };
            let holders: Vec<usize> =
                (0..found.len()).filter(|broker| holds(&&found[*broker])).collect();
            compared += holders.len() as u64;
            if holders.len() < wanted {
                let text = format!(
                    "lane {lane} LSN {lsn}: {id:?} is committed, and only the disks {holders:?} hold it, {wanted} should"
                );
                return Err(Violation::new("I1", text));
            }
        }
    }
    Ok(compared)
}
