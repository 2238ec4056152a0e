//! Bytes that change while the broker is down: bits that flip, sectors that hold something else.
//!
//! Only where a single replica can know better: not in the last commits of a lane, which no durable
//! LSN covers yet, so that their loss cannot be told from a torn tail.

use super::World;
use crate::limits::BLOCK_BYTES;
use crate::sim::check::durable::entries;
use crate::sim::disk::SECTOR_BYTES;
use crate::sim::disk::image::folder_of;

/// In flight at most 4, each may carry the durable LSN of the 5th before it; one more to be sure.
const COMMITS_UNCOVERED: usize = 6;

impl World {
    pub(super) fn damage(&mut self) {
        let mut places = Vec::new();
        let mut folders: Vec<_> = self.image.files.keys().map(folder_of).collect();
        folders.dedup();
        for folder in folders.iter().filter(|folder| !folder.path.ends_with("lanes/0")) {
            let files = self.image.files.iter().filter(|(place, _)| folder_of(place) == *folder);
            let mut commits = Vec::new();
            for (place, bytes) in files.filter(|(place, _)| place.path.ends_with(".seg")) {
                for block in (0..bytes.len()).step_by(BLOCK_BYTES) {
                    if entries(&bytes[(block + 64).min(bytes.len())..]).next().is_some() {
                        commits.push((place.clone(), block));
                    }
                }
            }
            commits.truncate(commits.len().saturating_sub(COMMITS_UNCOVERED));
            places.append(&mut commits);
        }
        if places.is_empty() {
            return;
        }
        let count = 1 + self.random.below(2);
        for _ in 0..count {
            let (place, block) = places[self.random.below(places.len() as u64) as usize].clone();
            let Some(file) = self.image.files.get_mut(&place) else { continue };
            let within = self.random.below(BLOCK_BYTES as u64) as usize;
            let now = self.now;
            self.trace.line(now, || format!("DAMAGE {} at {}", place.path, block + within));
            self.faults.has_damaged = true;
            if self.random.chance(2, 3) {
                file[block + within] ^= 1 << self.random.below(8);
                self.tally.one("fault bit flipped on disk");
            } else {
                // A sector that holds what was meant for another place.
                let sector = block + within / SECTOR_BYTES * SECTOR_BYTES;
                let other =
                    self.random.below((file.len() / SECTOR_BYTES) as u64) as usize * SECTOR_BYTES;
                file.copy_within(other..other + SECTOR_BYTES, sector);
                self.tally.one("fault sector misplaced on disk");
            }
        }
    }
}
