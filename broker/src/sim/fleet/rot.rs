//! A disk on which bytes change. Only one broker of a run has such a disk, so every entry that was committed has a sound
//! copy elsewhere, and in the end all copies must be sound again.
//!
//! Not in the metadata's lane, whose broker takes no further part, and not in the two header blocks of a segment, without
//! which a broker does not start.

use super::World;
use crate::disk::Place;
use crate::limits::BLOCK_BYTES;
use crate::sim::check::durable::entries;
use crate::sim::disk::image::folder_of;

const METADATA: &str = "lanes/0";
/// A single bit of a header would be put right by whoever reads it.
const SPOILT: u8 = 0x5a;
const HEADER_BLOCKS: usize = 2;
const COMMIT_HEADER_BYTES: usize = 64;

impl World {
    pub(super) fn rot(&mut self, broker: usize, places: u32) {
        for _ in 0..places {
            let found = self.blocks_with_entries(broker);
            if found.is_empty() {
                return;
            }
            let (place, block) = &found[self.random.below(found.len() as u64) as usize];
            let at = block * BLOCK_BYTES + self.random.below(BLOCK_BYTES as u64) as usize;
            let files = self.machines[broker].disk.files_mut();
            let Some(inode) = files.lookup(place) else { return };
            files.damage(inode, at as u64, 1, |bytes| bytes[0] ^= SPOILT);
            self.machines[broker].has_rotted = true;
            self.tally.one("bytes spoilt on a disk");
            self.line(|| format!("ROT broker {broker}: {} at {at}", place.path));
        }
    }

    fn blocks_with_entries(&self, broker: usize) -> Vec<(Place, usize)> {
        let files = self.machines[broker].disk.files();
        let is_data =
            |place: &Place| place.path.ends_with(".seg") && *folder_of(place).path != *METADATA;
        let names = files.names().iter().filter(|(place, _)| is_data(place));
        let mut found = Vec::new();
        for (place, inode) in names {
            let bytes = files.durable(*inode);
            for block in HEADER_BLOCKS..bytes.len() / BLOCK_BYTES {
                let inside = &bytes[block * BLOCK_BYTES + COMMIT_HEADER_BYTES..];
                if entries(inside).next().is_some() {
                    found.push((place.clone(), block));
                }
            }
        }
        found
    }
}
