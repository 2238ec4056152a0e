//! A medium that breaks its word: bits that flip, sectors that hold something else, writes that are reported
//! and lost, or land elsewhere.
//!
//! Not in the metadata lane, without which no topic has a name, and not in the two header blocks of a
//! segment, without both of which a broker refuses to start. What may be lost so, and what not, is in
//! [`crate::sim::check::medium`].

use std::sync::Arc;

use super::World;
use crate::disk::FileId;
use crate::limits::BLOCK_BYTES;
use crate::sim::check::durable::entries;
use crate::sim::check::medium::promised_ends;
use crate::sim::disk::image::folder_of;
use crate::sim::disk::{Fault, SECTOR_BYTES};

const METADATA: &str = "lanes/0";
const HEADER_BYTES: u64 = 2 * BLOCK_BYTES as u64;

impl World {
    pub(super) fn damage(&mut self) {
        let mut places = Vec::new();
        let mut folders: Vec<_> = self.image.files.keys().map(folder_of).collect();
        folders.dedup();
        for folder in folders.iter().filter(|folder| *folder.path != *METADATA) {
            let files = self.image.files.iter().filter(|(place, _)| folder_of(place) == *folder);
            for (place, bytes) in files.filter(|(place, _)| place.path.ends_with(".seg")) {
                for block in (0..bytes.len()).step_by(BLOCK_BYTES) {
                    if entries(&bytes[(block + 64).min(bytes.len())..]).next().is_some() {
                        places.push((place.clone(), block));
                    }
                }
            }
        }
        if places.is_empty() {
            return;
        }
        let count = 1 + self.random.below(2);
        for _ in 0..count {
            let (place, block) = places[self.random.below(places.len() as u64) as usize].clone();
            let Some(file) = self.image.files.get_mut(&place) else { continue };
            let file = Arc::make_mut(file);
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

    /// What becomes of the next write of a data lane, if the medium is to break its word.
    pub(super) fn draw_broken_word(
        &mut self,
        shard: u16,
        file: FileId,
        position: u64,
    ) -> Option<Fault> {
        let (place, size) = self.disk.open_file(shard, file)?;
        if position < HEADER_BYTES || *folder_of(place).path == *METADATA {
            return None;
        }
        let path = place.path.clone();
        self.faults.has_damaged = true;
        let blocks = 1 + self.random.below(size / BLOCK_BYTES as u64 - 1) as u32;
        let lands = (position + u64::from(blocks) * BLOCK_BYTES as u64) % size;
        let now = self.now;
        self.trace.line(now, || format!("BROKEN WORD: {path} at {position}, or at {lands}"));
        if !std::mem::take(&mut self.faults.misdirect_write) || lands < HEADER_BYTES {
            self.faults.lose_write = false;
            self.tally.one("fault write lost");
            return Some(Fault::Lose);
        }
        self.tally.one("fault write misdirected");
        Some(Fault::Misdirect { blocks })
    }

    /// After a crash: what nothing on the medium attests is promised no longer.
    pub(super) fn void_what_is_lost(&mut self) {
        if !self.faults.has_damaged {
            return;
        }
        let ends = promised_ends(&self.image);
        for beyond in self.checks.durable.batches_from(&ends).into_values() {
            self.checks.history.void(beyond.first.0, &beyond.records);
        }
    }
}
