//! Carries out a shard's disk orders on [`Files`].
//!
//! [`SimDisk::start`] takes an order, [`SimDisk::finish`] completes it, with or without a fault. What is between
//! the two is in flight. Breaking the contract of [`DiskOrder`] (a write beyond a file, a block that is not
//! aligned, a file closed under an order) panics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::disk::{DirectoryId, DiskDone, DiskError, DiskOrder, FileId, ListedFile, OpId, Place};
use crate::limits::BLOCK_BYTES;
use crate::memory::Memory;
use crate::sim::disk::files::{Files, Loose};
use crate::sim::disk::image::{Image, name_of};
use crate::sim::disk::step::{Content, InodeId, Step};
use crate::sim::memory::SimMemory;

/// What goes wrong with one order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The order fails and says so. A refused write or flush leaves its bytes in doubt.
    Refuse(DiskError),
    /// A write reports success and reaches nothing.
    Lose,
    /// A write reports success, and its bytes land `blocks` further on in the same file (wrapping around).
    Misdirect { blocks: u32 },
}

#[derive(Debug)]
struct Started {
    order: DiskOrder,
    /// Of the write, flush or sync in [`Files`].
    id: u64,
}

/// The disks of one broker. Shards are told apart by `shard`, as operations and files are numbered
/// by each shard for itself.
#[derive(Debug, Default)]
pub struct SimDisk {
    files: Files,
    handles: BTreeMap<(u16, FileId), InodeId>,
    started: BTreeMap<(u16, OpId), Started>,
    ids: u64,
    capacity: BTreeMap<DirectoryId, u64>,
    trace: Option<Vec<Step>>,
}

impl SimDisk {
    pub fn new() -> Self {
        Self::default()
    }

    /// A disk that holds the image, all of it durable.
    pub fn load(image: &Image) -> Self {
        Self { files: Files::load(image), ..Self::default() }
    }

    /// Records every step from now on. The trace starts at what the disk holds now.
    pub fn record(&mut self) {
        self.trace = Some(Vec::new());
    }

    /// The steps since [`SimDisk::record`]. Apply a prefix of them, one by one, to `Files::load` of the first
    /// image, and ask that for what a crash would leave.
    pub fn trace(&self) -> &[Step] {
        self.trace.as_deref().unwrap_or_default()
    }

    /// The image after the first `prefix` steps of the trace and a crash, if the disk was loaded from
    /// `first`. To walk over many prefixes, keep a [`Files`] and apply one step at a time.
    pub fn crash_image(
        &self,
        first: &Image,
        prefix: usize,
        keep: impl FnMut(&Loose) -> bool,
    ) -> Image {
        let mut files = Files::load(first);
        self.trace()[..prefix].iter().for_each(|step| files.apply(step));
        files.crash(keep)
    }

    pub fn files(&self) -> &Files {
        &self.files
    }

    /// For damage behind the broker's back.
    pub fn files_mut(&mut self) -> &mut Files {
        &mut self.files
    }

    /// The power fails now: `keep` decides each loose thing.
    pub fn crash(&self, keep: impl FnMut(&Loose) -> bool) -> Image {
        self.files.crash(keep)
    }

    /// The image if everything were flushed: what a clean stop must leave.
    pub fn settled(&self) -> Image {
        let names = self.files.names().iter();
        let files = names.map(|(place, inode)| (place.clone(), self.files.live_shared(*inode)));
        Image { folders: self.crash(|_| true).folders, files: files.collect() }
    }

    /// Limits a data directory from now on. Without a limit it is never full.
    pub fn set_capacity(&mut self, directory: DirectoryId, bytes: u64) {
        self.capacity.insert(directory, bytes);
    }

    pub fn free_bytes(&self, directory: DirectoryId) -> u64 {
        let capacity = self.capacity.get(&directory).copied().unwrap_or(1 << 50);
        capacity.saturating_sub(self.files.used_bytes(directory))
    }

    /// The orders that are started and not finished.
    pub fn in_flight(&self) -> impl Iterator<Item = (u16, OpId, &DiskOrder)> {
        self.started.iter().map(|((shard, op), started)| (*shard, *op, &started.order))
    }

    /// What a running flush will make durable: the file, and each write's position and content.
    pub fn covered_by(
        &self,
        shard: u16,
        op: OpId,
    ) -> impl Iterator<Item = (InodeId, u64, &Content)> {
        let started = self.started.get(&(shard, op)).into_iter();
        started.flat_map(move |started| {
            let file = match started.order {
                DiskOrder::Flush { file } => self.handles[&(shard, file)],
                _ => InodeId(u32::MAX),
            };
            self.files
                .covered_by(started.id)
                .map(move |(position, content)| (file, position, content))
        })
    }

    /// An order that is started and not finished.
    pub fn order(&self, shard: u16, op: OpId) -> Option<&DiskOrder> {
        self.started.get(&(shard, op)).map(|started| &started.order)
    }

    /// The name and size of an open file.
    pub fn open_file(&self, shard: u16, file: FileId) -> Option<(&Place, u64)> {
        let inode = *self.handles.get(&(shard, file))?;
        Some((self.files.name_of(inode)?, self.files.live(inode).len() as u64))
    }

    /// Starts and finishes an order at once.
    pub fn apply(&mut self, shard: u16, order: DiskOrder, memory: &mut SimMemory) -> DiskDone {
        let op = OpId(u64::MAX);
        self.start(shard, op, order, memory);
        self.finish(shard, op, None, memory)
    }

    pub fn start(&mut self, shard: u16, op: OpId, order: DiskOrder, memory: &mut SimMemory) {
        self.ids += 1;
        let id = self.ids;
        match &order {
            DiskOrder::Write { file, position, slot, len } => {
                let len = *len as usize;
                assert!(len <= memory.capacity(*slot), "a write longer than its slot");
                let inode = self.check(shard, *file, *position, len);
                let content = Content::Bytes(Arc::from(&memory.bytes(*slot)[..len]));
                memory.pin(*slot);
                self.step(Step::WriteStart { id, inode, position: *position, content });
            }
            DiskOrder::Zero { file, position, len } => {
                let inode = self.check(shard, *file, *position, *len as usize);
                let content = Content::Zeros(*len as usize);
                self.step(Step::WriteStart { id, inode, position: *position, content });
            }
            DiskOrder::Read { file, position, slot, len } => {
                assert!(*len as usize <= memory.capacity(*slot), "a read longer than its slot");
                let aligned = position.is_multiple_of(BLOCK_BYTES as u64)
                    && (*len as usize).is_multiple_of(BLOCK_BYTES);
                assert!(aligned && *len > 0, "a read at {position} of {len} bytes");
                self.inode(shard, *file);
            }
            DiskOrder::Flush { file } => {
                let inode = self.inode(shard, *file);
                self.step(Step::FlushStart { id, inode });
            }
            DiskOrder::SyncFolder { place } => {
                self.step(Step::SyncStart { id, place: place.clone() })
            }
            DiskOrder::Close { file } => {
                let busy = self.started.iter().find(|((of, _), started)| {
                    *of == shard && file_of(&started.order) == Some(*file)
                });
                assert!(busy.is_none(), "{file:?} is closed under {busy:?}");
            }
            _ => {}
        }
        let earlier = self.started.insert((shard, op), Started { order, id });
        assert!(earlier.is_none(), "{op:?} is in flight already");
    }

    /// # Panics
    /// If the order is not in flight.
    pub fn finish(
        &mut self,
        shard: u16,
        op: OpId,
        fault: Option<Fault>,
        memory: &mut SimMemory,
    ) -> DiskDone {
        let Started { order, id } = self.started.remove(&(shard, op)).expect("an order in flight");
        let refused = match fault {
            Some(Fault::Refuse(error)) => Some(error),
            _ => None,
        };
        let ok = refused.is_none();
        match &order {
            DiskOrder::Write { file, position, slot, len } => {
                memory.unpin(*slot);
                match fault {
                    Some(Fault::Lose) => self.step(Step::WriteLost { id }),
                    Some(Fault::Misdirect { blocks }) => {
                        self.step(Step::WriteLost { id });
                        let bytes = &memory.bytes(*slot)[..*len as usize];
                        self.misdirect(
                            shard,
                            *file,
                            *position + u64::from(blocks) * BLOCK_BYTES as u64,
                            bytes,
                        );
                    }
                    _ => self.step(Step::WriteEnd { id, ok }),
                }
                memory.release(*slot);
            }
            DiskOrder::Zero { .. } => self.step(Step::WriteEnd { id, ok }),
            DiskOrder::Flush { .. } => self.step(Step::FlushEnd { id, ok }),
            DiskOrder::SyncFolder { .. } => self.step(Step::SyncEnd { id, ok }),
            _ => {}
        }
        match refused {
            Some(error) => DiskDone::Failed(error),
            None => self.carry_out(shard, order, memory),
        }
    }

    /// The process that gave the orders is gone, its machine is not. Of the orders in flight those in `carried_out` are
    /// done, and the others never happen. What was written and not flushed stays loose.
    pub fn abandon(&mut self, carried_out: &BTreeSet<(u16, OpId)>) {
        for (key, Started { order, id }) in std::mem::take(&mut self.started) {
            let is_done = carried_out.contains(&key);
            match order {
                DiskOrder::Write { .. } | DiskOrder::Zero { .. } if is_done => {
                    self.step(Step::WriteEnd { id, ok: true })
                }
                DiskOrder::Write { .. } | DiskOrder::Zero { .. } => {
                    self.step(Step::WriteLost { id })
                }
                DiskOrder::Flush { .. } if is_done => self.step(Step::FlushEnd { id, ok: true }),
                DiskOrder::SyncFolder { .. } if is_done => {
                    self.step(Step::SyncEnd { id, ok: true })
                }
                DiskOrder::MakeFolder { place } if is_done => self.step(Step::MakeFolder { place }),
                DiskOrder::Remove { place } if is_done => self.step(Step::Remove { place }),
                _ => {}
            }
        }
        for inode in std::mem::take(&mut self.handles).into_values() {
            self.step(Step::Close { inode });
        }
    }

    /// What happens at once, when an order finishes.
    fn carry_out(&mut self, shard: u16, order: DiskOrder, memory: &mut SimMemory) -> DiskDone {
        match order {
            DiskOrder::MakeFolder { place } => self.step(Step::MakeFolder { place }),
            DiskOrder::List { place } => {
                let listed = self.files.list(&place).map(|(place, inode)| ListedFile {
                    name: name_of(place).into(),
                    bytes: self.files.live(inode).len() as u64,
                });
                return DiskDone::Listed { files: listed.collect() };
            }
            DiskOrder::Open { file, place } => {
                let Some(inode) = self.files.lookup(&place) else {
                    return DiskDone::Failed(DiskError::Missing);
                };
                self.step(Step::Open { inode });
                self.open(shard, file, inode);
                return DiskDone::Opened { bytes: self.files.live(inode).len() as u64 };
            }
            DiskOrder::Create { file, place, bytes } => {
                return self.create(shard, file, place, bytes);
            }
            DiskOrder::Read { file, position, slot, len } => {
                let live = self.files.live(self.inode(shard, file));
                let (start, len) = (position as usize, len as usize);
                match live.get(start..start + len) {
                    Some(bytes) => memory.deliver(slot, 0, bytes),
                    None => return DiskDone::Failed(DiskError::Io),
                }
            }
            DiskOrder::Rename { file, to } => {
                let inode = self.inode(shard, file);
                let Some(from) = self.files.name_of(inode).cloned() else {
                    return DiskDone::Failed(DiskError::Missing);
                };
                assert_eq!(from.directory, to.directory, "a rename across disks");
                self.step(Step::Rename { inode, from, to });
            }
            DiskOrder::Close { file } => {
                let inode = self.handles.remove(&(shard, file)).expect("an open file");
                self.step(Step::Close { inode });
            }
            DiskOrder::Remove { place } => self.step(Step::Remove { place }),
            DiskOrder::Space { directory } => {
                return DiskDone::Space { free_bytes: self.free_bytes(directory) };
            }
            DiskOrder::Write { .. }
            | DiskOrder::Zero { .. }
            | DiskOrder::Flush { .. }
            | DiskOrder::SyncFolder { .. } => {}
        }
        DiskDone::Done
    }

    fn create(&mut self, shard: u16, file: FileId, place: Place, bytes: u64) -> DiskDone {
        if self.files.lookup(&place).is_some() {
            return DiskDone::Failed(DiskError::Exists);
        }
        if !self.files.folder_exists(&crate::sim::disk::image::folder_of(&place)) {
            return DiskDone::Failed(DiskError::Missing);
        }
        if self.free_bytes(place.directory) < bytes {
            return DiskDone::Failed(DiskError::Full);
        }
        let inode = self.files.next_inode();
        self.step(Step::Create { inode, place, bytes });
        self.open(shard, file, inode);
        DiskDone::Done
    }

    fn misdirect(&mut self, shard: u16, file: FileId, position: u64, bytes: &[u8]) {
        let inode = self.inode(shard, file);
        let size = self.files.live(inode).len();
        let start = position as usize % size;
        let len = bytes.len().min(size - start);
        self.files.damage(inode, start as u64, len, |target| target.copy_from_slice(&bytes[..len]));
    }

    fn open(&mut self, shard: u16, file: FileId, inode: InodeId) {
        let earlier = self.handles.insert((shard, file), inode);
        assert!(earlier.is_none(), "{file:?} is open already");
    }

    fn inode(&self, shard: u16, file: FileId) -> InodeId {
        *self
            .handles
            .get(&(shard, file))
            .unwrap_or_else(|| panic!("{file:?} of shard {shard} is not open"))
    }

    fn check(&self, shard: u16, file: FileId, position: u64, len: usize) -> InodeId {
        let inode = self.inode(shard, file);
        let aligned =
            position.is_multiple_of(BLOCK_BYTES as u64) && len.is_multiple_of(BLOCK_BYTES);
        assert!(aligned && len > 0, "a write at {position} of {len} bytes");
        let size = self.files.live(inode).len() as u64;
        assert!(
            position + len as u64 <= size,
            "a write to {position}+{len} of a file of {size} bytes"
        );
        inode
    }

    fn step(&mut self, step: Step) {
        self.files.apply(&step);
        if let Some(trace) = &mut self.trace {
            trace.push(step);
        }
    }
}

fn file_of(order: &DiskOrder) -> Option<FileId> {
    match order {
        DiskOrder::Read { file, .. }
        | DiskOrder::Write { file, .. }
        | DiskOrder::Zero { file, .. }
        | DiskOrder::Flush { file }
        | DiskOrder::Rename { file, .. }
        | DiskOrder::Open { file, .. }
        | DiskOrder::Create { file, .. }
        | DiskOrder::Close { file } => Some(*file),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::disk::image::place;

    const DIRECTORY: DirectoryId = DirectoryId(0);
    const FILE: FileId = FileId(1);

    struct Rig {
        disk: SimDisk,
        memory: SimMemory,
        ops: u64,
    }

    impl Rig {
        /// A disk with the folder `lanes` and, in it, the open file `a` of 16 KiB.
        fn new() -> Self {
            let mut rig = Rig { disk: SimDisk::new(), memory: SimMemory::new(1), ops: 0 };
            rig.disk.record();
            rig.done(DiskOrder::MakeFolder { place: at("lanes") });
            rig.done(DiskOrder::Create { file: FILE, place: at("lanes/a"), bytes: 16384 });
            rig
        }

        fn done(&mut self, order: DiskOrder) {
            assert_eq!(self.disk.apply(0, order, &mut self.memory), DiskDone::Done);
        }

        fn start(&mut self, order: DiskOrder) -> OpId {
            self.ops += 1;
            self.disk.start(0, OpId(self.ops), order, &mut self.memory);
            OpId(self.ops)
        }

        fn write(&mut self, position: u64, byte: u8) -> DiskOrder {
            let slot = self.memory.allocate(4096);
            self.memory.bytes_mut(slot).fill(byte);
            DiskOrder::Write { file: FILE, position, slot, len: 4096 }
        }

        fn durable_file(&mut self) {
            self.done(DiskOrder::Flush { file: FILE });
            self.done(DiskOrder::SyncFolder { place: at("lanes") });
        }
    }

    fn at(path: &str) -> Place {
        place(DIRECTORY, path)
    }

    #[test]
    fn a_created_file_needs_both_a_flush_and_a_folder_sync() {
        let mut rig = Rig::new();
        assert!(rig.disk.crash(|_| false).files.is_empty());
        let kept_name = rig.disk.crash(|loose| matches!(loose, Loose::Name { .. }));
        assert_eq!(*kept_name.files[&at("lanes/a")], []);
        rig.durable_file();
        assert_eq!(rig.disk.files().loose(), []);
        assert_eq!(*rig.disk.crash(|_| false).files[&at("lanes/a")], [0; 16384]);
    }

    #[test]
    fn a_flush_covers_only_the_writes_reported_before_it_was_given() {
        let mut rig = Rig::new();
        rig.durable_file();
        let write = rig.write(0, 7);
        rig.done(write);
        let late_write = rig.write(4096, 8);
        let late = rig.start(late_write);
        let flush = rig.start(DiskOrder::Flush { file: FILE });
        rig.disk.finish(0, late, None, &mut rig.memory);
        rig.disk.finish(0, flush, None, &mut rig.memory);
        let image = rig.disk.crash(|_| false);
        let bytes = &image.files[&at("lanes/a")];
        assert_eq!((bytes[0], bytes[4095], bytes[4096]), (7, 7, 0));
        assert_eq!(rig.disk.crash(|_| true).files[&at("lanes/a")][4096], 8);
        assert_eq!(rig.memory.leaks(), []);
    }

    #[test]
    fn any_subset_of_sectors_of_a_write_survives_even_while_it_is_in_flight() {
        let mut rig = Rig::new();
        rig.durable_file();
        let write = rig.write(4096, 9);
        rig.start(write);
        assert_eq!(rig.disk.files().loose().len(), 8);
        let mut number = 0;
        let image = rig.disk.crash(|_| {
            number += 1;
            number % 2 == 0
        });
        let bytes = &image.files[&at("lanes/a")][4096..];
        assert_eq!((bytes[0], bytes[511], bytes[512], bytes[1023], bytes[1024]), (0, 0, 9, 9, 0));
        assert!(
            rig.disk.files().live(InodeId(0)).iter().all(|byte| *byte == 0),
            "not yet reported"
        );
    }

    #[test]
    fn after_a_failed_flush_a_later_one_that_succeeds_makes_nothing_durable() {
        let mut rig = Rig::new();
        rig.durable_file();
        let write = rig.write(0, 7);
        rig.done(write);
        let flush = rig.start(DiskOrder::Flush { file: FILE });
        let refused = Some(Fault::Refuse(DiskError::Io));
        assert_eq!(
            rig.disk.finish(0, flush, refused, &mut rig.memory),
            DiskDone::Failed(DiskError::Io)
        );
        rig.done(DiskOrder::Flush { file: FILE });
        assert_eq!(rig.disk.crash(|_| false).files[&at("lanes/a")][0], 0);
    }

    #[test]
    fn names_survive_in_order_or_not_at_all() {
        let mut rig = Rig::new();
        rig.durable_file();
        rig.done(DiskOrder::Rename { file: FILE, to: at("lanes/b") });
        rig.done(DiskOrder::Create { file: FileId(2), place: at("lanes/a"), bytes: 4096 });
        rig.done(DiskOrder::Remove { place: at("lanes/b") });
        let names = |image: Image| {
            image.files.into_keys().map(|place| place.path.to_string()).collect::<Vec<_>>()
        };
        let mut asked = 0;
        let only_the_second = rig.disk.crash(|_| {
            asked += 1;
            asked == 2
        });
        assert_eq!(names(only_the_second), ["lanes/a"]);
        assert_eq!(rig.disk.crash(|_| false).files[&at("lanes/a")].len(), 16384);
        let mut asked = 0;
        let without_removal = rig.disk.crash(|_| {
            asked += 1;
            asked <= 2
        });
        assert_eq!(names(without_removal), ["lanes/a", "lanes/b"]);
        rig.done(DiskOrder::SyncFolder { place: at("lanes") });
        assert_eq!(names(rig.disk.crash(|_| false)), ["lanes/a"]);
    }

    #[test]
    fn a_replayed_trace_crashes_like_the_disk_itself() {
        let mut rig = Rig::new();
        rig.durable_file();
        let write = rig.write(8192, 3);
        rig.start(write);
        let prefix = rig.disk.trace().len();
        let keep = |loose: &Loose| matches!(loose, Loose::Sector { position, .. } if *position < 8192 + 1024);
        assert_eq!(rig.disk.crash_image(&Image::default(), prefix, keep), rig.disk.crash(keep));
        assert!(rig.disk.crash_image(&Image::default(), 0, keep).files.is_empty());
    }

    #[test]
    fn a_full_directory_refuses_new_files_until_one_is_removed_and_closed() {
        let mut rig = Rig::new();
        rig.disk.set_capacity(DIRECTORY, 20_000);
        let create = || DiskOrder::Create { file: FileId(2), place: at("lanes/b"), bytes: 8192 };
        assert_eq!(rig.disk.apply(0, create(), &mut rig.memory), DiskDone::Failed(DiskError::Full));
        rig.done(DiskOrder::Remove { place: at("lanes/a") });
        rig.done(DiskOrder::Close { file: FILE });
        rig.done(create());
    }

    #[test]
    fn a_misdirected_write_damages_another_place_and_leaves_its_own() {
        let mut rig = Rig::new();
        rig.durable_file();
        let write = rig.write(0, 5);
        let op = rig.start(write);
        rig.disk.finish(0, op, Some(Fault::Misdirect { blocks: 2 }), &mut rig.memory);
        let bytes = &rig.disk.crash(|_| false).files[&at("lanes/a")];
        assert_eq!((bytes[0], bytes[8192], bytes[12288]), (0, 5, 0));
    }
}
