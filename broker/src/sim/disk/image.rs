//! What a disk holds when nothing is in flight: whole files by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::disk::{DirectoryId, Place};

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Image {
    pub folders: BTreeSet<Place>,
    /// Shared with the disk that they were taken from, or were put on, until one of them changes.
    pub files: BTreeMap<Place, Arc<Vec<u8>>>,
}

impl Image {
    /// What is in the files, in the order of their names.
    pub fn contents(&self) -> impl Iterator<Item = &[u8]> {
        self.files.values().map(|bytes| bytes.as_slice())
    }

    /// The files, by name.
    pub fn list(&self) -> impl Iterator<Item = (&Place, usize)> {
        self.files.iter().map(|(place, bytes)| (place, bytes.len()))
    }

    pub fn bytes(&self) -> usize {
        self.contents().map(<[u8]>::len).sum()
    }

    /// Flips one bit of a file; `bit` counts from the file's start.
    ///
    /// # Panics
    /// If there is no such file or bit.
    pub fn flip_bit(&mut self, place: &Place, bit: usize) {
        let file = self.files.get_mut(place).expect("a file of this name");
        Arc::make_mut(file)[bit / 8] ^= 1 << (bit % 8);
    }

    /// A hash of all names and bytes, to compare images cheaply.
    pub fn digest(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        let mut mix = |bytes: &[u8]| {
            let crc = u64::from(crc32c::crc32c(bytes));
            hash = (hash ^ crc ^ ((bytes.len() as u64) << 32)).wrapping_mul(0x0100_0000_01b3);
        };
        for (place, bytes) in &self.files {
            mix(&place.directory.0.to_le_bytes());
            mix(place.path.as_bytes());
            mix(bytes);
        }
        hash
    }
}

/// The folder that a file or folder lies in; the data directory itself for a name without one.
pub fn folder_of(place: &Place) -> Place {
    let path = place.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    self::place(place.directory, path)
}

/// The name without the folder.
pub fn name_of(place: &Place) -> &str {
    place.path.rsplit_once('/').map_or(&place.path, |(_, name)| name)
}

pub fn place(directory: DirectoryId, path: &str) -> Place {
    Place { directory, path: path.into() }
}
