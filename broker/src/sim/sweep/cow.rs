//! A disk without latency or faults, whose images share their bytes: to recover from a million
//! images that differ in a few sectors, without copying any.
//!
//! A file is a shared base and the blocks that differ from it. [`CowDisk`] carries an order out when it
//! finishes; all it holds counts as durable. Crashes are the business of `sim::disk`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::disk::{DiskDone, DiskError, DiskOrder, FileId, ListedFile, OpId, Place};
use crate::limits::BLOCK_BYTES;
use crate::memory::Memory;
use crate::sim::disk::Image;
use crate::sim::disk::image::{folder_of, name_of};
use crate::sim::memory::SimMemory;
use crate::sim::sweep::rig::Device;

/// Bytes of one block of a file, if they differ from the base.
#[derive(Clone, Debug)]
enum Block {
    Zeros,
    Bytes(Box<[u8; BLOCK_BYTES]>),
}

#[derive(Clone, Debug)]
struct CowFile {
    bytes: u64,
    /// May be shorter than the file: the rest is zeros.
    base: Arc<Vec<u8>>,
    /// Sorted by block number. A handful, so that a list beats a tree.
    blocks: Vec<(u32, Block)>,
}

impl CowFile {
    fn block(&self, number: u32, target: &mut [u8]) {
        match self.blocks.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(index) => match &self.blocks[index].1 {
                Block::Zeros => target.fill(0),
                Block::Bytes(bytes) => target.copy_from_slice(&bytes[..]),
            },
            Err(_) => {
                let start = number as usize * BLOCK_BYTES;
                let base = self.base.get(start..start + BLOCK_BYTES);
                match base {
                    Some(base) => target.copy_from_slice(base),
                    None => target.fill(0),
                }
            }
        }
    }

    fn set(&mut self, number: u32, block: Block) {
        match self.blocks.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(index) => self.blocks[index].1 = block,
            Err(index) => self.blocks.insert(index, (number, block)),
        }
    }

    fn zero(&mut self, number: u32) {
        let known = self.blocks.binary_search_by_key(&number, |(number, _)| *number).is_ok();
        if known || number as usize * BLOCK_BYTES < self.base.len() {
            self.set(number, Block::Zeros);
        }
    }
}

/// An image whose clones cost what differs, not what it holds.
#[derive(Clone, Default, Debug)]
pub struct CowImage {
    folders: Arc<BTreeSet<Place>>,
    files: BTreeMap<Place, CowFile>,
}

impl From<Image> for CowImage {
    fn from(image: Image) -> Self {
        let share = |bytes: Arc<Vec<u8>>| CowFile {
            bytes: bytes.len() as u64,
            base: bytes,
            blocks: Vec::new(),
        };
        let files = image.files.into_iter().map(|(place, bytes)| (place, share(bytes)));
        Self { folders: Arc::new(image.folders), files: files.collect() }
    }
}

impl CowImage {
    /// Flips one bit of a file; `bit` counts from the file's start.
    ///
    /// # Panics
    /// If there is no such file or bit.
    pub fn flip_bit(&mut self, place: &Place, bit: u64) {
        let file = self.files.get_mut(place).expect("a file of this name");
        assert!(bit / 8 < file.bytes);
        let (number, at) = ((bit / 8) as usize / BLOCK_BYTES, (bit / 8) as usize % BLOCK_BYTES);
        let mut block = Box::new([0; BLOCK_BYTES]);
        file.block(number as u32, &mut block[..]);
        block[at] ^= 1 << (bit % 8);
        file.set(number as u32, Block::Bytes(block));
    }

    /// Its bytes, laid out whole.
    pub fn to_image(&self) -> Image {
        let whole = |file: &CowFile| {
            let mut bytes = vec![0; file.bytes as usize];
            for (number, target) in bytes.chunks_exact_mut(BLOCK_BYTES).enumerate() {
                file.block(number as u32, target);
            }
            Arc::new(bytes)
        };
        let files = self.files.iter().map(|(place, file)| (place.clone(), whole(file)));
        Image { folders: (*self.folders).clone(), files: files.collect() }
    }
}

/// A disk over such an image.
#[derive(Debug, Default)]
pub struct CowDisk {
    folders: Arc<BTreeSet<Place>>,
    names: BTreeMap<Place, usize>,
    /// Never shrinks: an unlinked file may still be open.
    files: Vec<CowFile>,
    handles: Vec<(FileId, usize)>,
    started: Vec<(OpId, DiskOrder)>,
}

impl CowDisk {
    pub fn load(image: &CowImage) -> Self {
        let files = image.files.values().cloned().collect();
        let names = image.files.keys().cloned().enumerate().map(|(index, place)| (place, index));
        Self { folders: image.folders.clone(), names: names.collect(), files, ..Self::default() }
    }

    /// What it holds now.
    pub fn image(&self) -> CowImage {
        let files =
            self.names.iter().map(|(place, index)| (place.clone(), self.files[*index].clone()));
        CowImage { folders: self.folders.clone(), files: files.collect() }
    }

    fn handle(&self, file: FileId) -> usize {
        let handle = self.handles.iter().find(|(id, _)| *id == file);
        handle.unwrap_or_else(|| panic!("{file:?} is not open")).1
    }

    fn blocks(&self, index: usize, position: u64, len: u32) -> Option<std::ops::Range<u32>> {
        let block = BLOCK_BYTES as u64;
        let end = position + u64::from(len);
        assert!(len > 0 && position.is_multiple_of(block) && end.is_multiple_of(block));
        (end <= self.files[index].bytes).then(|| (position / block) as u32..(end / block) as u32)
    }

    fn create(&mut self, file: FileId, place: Place, bytes: u64) -> DiskDone {
        if self.names.contains_key(&place) {
            return DiskDone::Failed(DiskError::Exists);
        }
        let folder = folder_of(&place);
        if !folder.path.is_empty() && !self.folders.contains(&folder) {
            return DiskDone::Failed(DiskError::Missing);
        }
        self.files.push(CowFile { bytes, base: Arc::default(), blocks: Vec::new() });
        let index = self.files.len() - 1;
        self.names.insert(place, index);
        self.handles.push((file, index));
        DiskDone::Done
    }

    fn carry_out(&mut self, order: DiskOrder, memory: &mut SimMemory) -> DiskDone {
        match order {
            DiskOrder::MakeFolder { mut place } => {
                let folders = Arc::make_mut(&mut self.folders);
                while !place.path.is_empty() {
                    let parent = folder_of(&place);
                    folders.insert(place);
                    place = parent;
                }
            }
            DiskOrder::List { place } => {
                let names = self.names.iter().filter(|(name, _)| folder_of(name) == place);
                let listed = names.map(|(name, index)| ListedFile {
                    name: name_of(name).into(),
                    bytes: self.files[*index].bytes,
                });
                return DiskDone::Listed { files: listed.collect() };
            }
            DiskOrder::Open { file, place } => {
                let Some(index) = self.names.get(&place).copied() else {
                    return DiskDone::Failed(DiskError::Missing);
                };
                self.handles.push((file, index));
                return DiskDone::Opened { bytes: self.files[index].bytes };
            }
            DiskOrder::Create { file, place, bytes } => return self.create(file, place, bytes),
            DiskOrder::Read { file, position, slot, len } => {
                let index = self.handle(file);
                let Some(blocks) = self.blocks(index, position, len) else {
                    return DiskDone::Failed(DiskError::Io);
                };
                let targets = memory.bytes_mut(slot)[..len as usize].chunks_exact_mut(BLOCK_BYTES);
                for (number, target) in blocks.zip(targets) {
                    self.files[index].block(number, target);
                }
            }
            DiskOrder::Write { file, position, slot, len } => {
                let index = self.handle(file);
                let blocks = self.blocks(index, position, len).expect("a write within its file");
                let sources = memory.bytes(slot)[..len as usize].chunks_exact(BLOCK_BYTES);
                for (number, source) in blocks.zip(sources) {
                    let bytes = Box::new(source.try_into().expect("a whole block"));
                    self.files[index].set(number, Block::Bytes(bytes));
                }
                memory.unpin(slot);
                memory.release(slot);
            }
            DiskOrder::Zero { file, position, len } => {
                let index = self.handle(file);
                let blocks = self.blocks(index, position, len).expect("zeros within their file");
                blocks.for_each(|number| self.files[index].zero(number));
            }
            DiskOrder::Flush { file } => {
                self.handle(file);
            }
            DiskOrder::SyncFolder { .. } => {}
            DiskOrder::Rename { file, to } => {
                let index = self.handle(file);
                let from = self.names.iter().find(|(_, of)| **of == index);
                let Some(from) = from.map(|(place, _)| place.clone()) else {
                    return DiskDone::Failed(DiskError::Missing);
                };
                self.names.remove(&from);
                self.names.insert(to, index);
            }
            DiskOrder::Close { file } => {
                self.handle(file);
                self.handles.retain(|(id, _)| *id != file);
            }
            DiskOrder::Remove { place } => {
                self.names.remove(&place);
            }
            DiskOrder::Space { .. } => return DiskDone::Space { free_bytes: 1 << 40 },
        }
        DiskDone::Done
    }
}

impl Device for CowDisk {
    fn start(&mut self, op: OpId, order: DiskOrder, memory: &mut SimMemory) {
        if let DiskOrder::Write { slot, .. } = &order {
            memory.pin(*slot);
        }
        self.started.push((op, order));
    }

    fn finish(&mut self, op: OpId, refused: Option<DiskError>, memory: &mut SimMemory) -> DiskDone {
        let index = self.started.iter().position(|(id, _)| *id == op).expect("an order in flight");
        let (_, order) = self.started.remove(index);
        assert!(refused.is_none(), "this disk has no faults");
        self.carry_out(order, memory)
    }

    fn steps(&self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DirectoryId;
    use crate::sim::disk::image::place;

    #[test]
    fn images_share_their_bytes_until_one_is_written_or_flipped() {
        let name = place(DirectoryId(0), "a");
        let mut image = Image::default();
        image.files.insert(name.clone(), Arc::new(vec![7; 3 * BLOCK_BYTES]));
        let first = CowImage::from(image.clone());
        let mut second = first.clone();
        second.flip_bit(&name, 8 * BLOCK_BYTES as u64 + 1);
        assert_eq!(first.to_image(), image);
        image.flip_bit(&name, 8 * BLOCK_BYTES + 1);
        assert_eq!(second.to_image(), image);

        let mut memory = SimMemory::new(1);
        let mut disk = CowDisk::load(&first);
        let file = FileId(1);
        let mut carry_out = |order| {
            disk.start(OpId(1), order, &mut memory);
            disk.finish(OpId(1), None, &mut memory)
        };
        carry_out(DiskOrder::Open { file, place: name.clone() });
        carry_out(DiskOrder::Zero { file, position: 4096, len: 4096 });
        let bytes = &disk.image().to_image().files[&name];
        assert_eq!((bytes[4095], bytes[4096], bytes[8191], bytes[8192]), (7, 0, 0, 7));
        assert_eq!(*first.to_image().files[&name], [7; 3 * BLOCK_BYTES]);
    }
}
