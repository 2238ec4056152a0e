//! What a journalled file system with a volatile device cache may keep.
//!
//! For each file: the bytes that reads see, the bytes that are durable, and the writes in between,
//! each in flight, reported, or in doubt. Names are durable only after a sync of their folder, in
//! order; a size only after a flush. [`Files::loose`] lists all that a crash now would decide,
//! [`Files::crash`] decides it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::disk::{DirectoryId, Place};
use crate::sim::disk::SECTOR_BYTES;
use crate::sim::disk::image::{Image, folder_of};
use crate::sim::disk::step::{Content, InodeId, Step};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    InFlight,
    Reported,
    /// Refused by the device, or given up by a flush that failed.
    InDoubt,
}

#[derive(Clone, Debug)]
struct Pending {
    id: u64,
    position: u64,
    content: Content,
    stage: Stage,
}

#[derive(Clone, Debug)]
struct Inode {
    directory: DirectoryId,
    /// Both shared with images, and with one another, until a write makes them differ.
    live: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    size_durable: bool,
    pending: Vec<Pending>,
    /// Live names, and open handles. Without any, the file's space is free.
    links: u32,
    opens: u32,
}

/// A change of a name that no folder sync has covered.
#[derive(Clone, Debug)]
enum NameChange {
    Add { place: Place, inode: InodeId },
    Move { from: Place, to: Place, inode: InodeId },
    Drop { place: Place },
}

impl NameChange {
    fn folders(&self) -> (Place, Option<Place>) {
        match self {
            NameChange::Add { place, .. } | NameChange::Drop { place } => (folder_of(place), None),
            NameChange::Move { from, to, .. } => {
                let (from, to) = (folder_of(from), folder_of(to));
                let other = (from != to).then_some(from);
                (to, other)
            }
        }
    }

    fn touches(&self, folder: &Place) -> bool {
        let (first, second) = self.folders();
        first == *folder || second.as_ref() == Some(folder)
    }

    fn apply(&self, names: &mut BTreeMap<Place, InodeId>) {
        match self {
            NameChange::Add { place, inode } => {
                names.insert(place.clone(), *inode);
            }
            NameChange::Move { from, to, inode } => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            NameChange::Drop { place } => {
                names.remove(place);
            }
        }
    }
}

/// Something that a crash would keep or drop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Loose {
    /// One sector of one write. Kept ones of the same place apply in the order listed.
    Sector { inode: InodeId, write: u64, position: u64 },
    /// The size of a new file; dropped, the file is empty.
    Size { inode: InodeId },
    /// The creation, renaming or removal of a name. A dropped one drops all later ones of its folder.
    Name { place: Place },
}

#[derive(Clone, Debug)]
enum Barrier {
    Flush { inode: InodeId, covers: Vec<u64> },
    Sync { folder: Place, changes: u64 },
}

/// The file systems of one broker: all its data directories.
#[derive(Clone, Default, Debug)]
pub struct Files {
    inodes: BTreeMap<InodeId, Inode>,
    names: BTreeMap<Place, InodeId>,
    durable_names: BTreeMap<Place, InodeId>,
    /// By sequence number, not yet durable.
    changes: BTreeMap<u64, NameChange>,
    changes_next: u64,
    folders: BTreeSet<Place>,
    barriers: BTreeMap<u64, Barrier>,
    /// Which file a write in flight or pending belongs to.
    writes: BTreeMap<u64, InodeId>,
    inodes_next: u32,
}

impl Files {
    /// Everything in the image is durable.
    pub fn load(image: &Image) -> Self {
        let mut files = Self { folders: image.folders.clone(), ..Self::default() };
        for (place, bytes) in &image.files {
            let inode = files.next_inode();
            files.inodes_next += 1;
            files.inodes.insert(
                inode,
                Inode {
                    directory: place.directory,
                    live: bytes.clone(),
                    durable: bytes.clone(),
                    size_durable: true,
                    pending: Vec::new(),
                    links: 1,
                    opens: 0,
                },
            );
            files.names.insert(place.clone(), inode);
            files.durable_names.insert(place.clone(), inode);
        }
        files
    }

    pub fn next_inode(&self) -> InodeId {
        InodeId(self.inodes_next)
    }

    pub fn lookup(&self, place: &Place) -> Option<InodeId> {
        self.names.get(place).copied()
    }

    pub fn name_of(&self, inode: InodeId) -> Option<&Place> {
        self.names.iter().find(|(_, of)| **of == inode).map(|(place, _)| place)
    }

    pub fn folder_exists(&self, place: &Place) -> bool {
        place.path.is_empty() || self.folders.contains(place)
    }

    /// What reads see. Empty for a file that is gone.
    pub fn live(&self, inode: InodeId) -> &[u8] {
        self.inodes.get(&inode).map_or(&[], |inode| &inode.live)
    }

    /// The same, to keep. Copies nothing.
    pub fn live_shared(&self, inode: InodeId) -> Arc<Vec<u8>> {
        self.inodes.get(&inode).map(|inode| inode.live.clone()).unwrap_or_default()
    }

    /// What is on the medium for certain.
    pub fn durable(&self, inode: InodeId) -> &[u8] {
        self.inodes.get(&inode).map_or(&[], |inode| &inode.durable)
    }

    /// The live names of a folder's files, sorted, and their files.
    pub fn list<'a>(
        &'a self,
        folder: &'a Place,
    ) -> impl Iterator<Item = (&'a Place, InodeId)> + 'a {
        self.names
            .iter()
            .filter(move |(place, _)| folder_of(place) == *folder)
            .map(|(place, inode)| (place, *inode))
    }

    pub fn names(&self) -> &BTreeMap<Place, InodeId> {
        &self.names
    }

    /// Bytes that the files of a data directory reserve. A removed file's space is free at once.
    pub fn used_bytes(&self, directory: DirectoryId) -> u64 {
        let held = |inode: &&Inode| inode.directory == directory && inode.links + inode.opens > 0;
        let files = self.inodes.values().filter(held);
        files.map(|inode| inode.live.len() as u64).sum()
    }

    /// The content of the writes that a running flush will make durable.
    pub fn covered_by(&self, flush: u64) -> impl Iterator<Item = (u64, &Content)> {
        let (inode, covers) = match self.barriers.get(&flush) {
            Some(Barrier::Flush { inode, covers }) => (self.inodes.get(inode), covers.as_slice()),
            _ => (None, [].as_slice()),
        };
        let pending = inode.into_iter().flat_map(|inode| &inode.pending);
        pending
            .filter(|write| covers.contains(&write.id))
            .map(|write| (write.position, &write.content))
    }

    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::MakeFolder { place } => self.make_folder(place),
            Step::Create { inode, place, bytes } => self.create(*inode, place, *bytes),
            Step::WriteStart { id, inode, position, content } => {
                let pending = Pending {
                    id: *id,
                    position: *position,
                    content: content.clone(),
                    stage: Stage::InFlight,
                };
                self.writes.insert(*id, *inode);
                self.file(*inode).pending.push(pending);
            }
            Step::WriteEnd { id, ok } => self.write_end(*id, *ok),
            Step::WriteLost { id } => {
                let inode = self.writes.remove(id).expect("a write in flight");
                self.file(inode).pending.retain(|write| write.id != *id);
            }
            Step::FlushStart { id, inode } => {
                let reported =
                    self.file(*inode).pending.iter().filter(|write| write.stage == Stage::Reported);
                let covers = reported.map(|write| write.id).collect();
                self.barriers.insert(*id, Barrier::Flush { inode: *inode, covers });
            }
            Step::SyncStart { id, place } => {
                let changes = self.changes_next;
                self.barriers.insert(*id, Barrier::Sync { folder: place.clone(), changes });
            }
            Step::FlushEnd { id, ok } | Step::SyncEnd { id, ok } => self.barrier_end(*id, *ok),
            Step::Rename { inode, from, to } => {
                let replaced =
                    self.names.insert(to.clone(), *inode).filter(|replaced| replaced != inode);
                if from != to {
                    self.names.remove(from);
                }
                let change = NameChange::Move { from: from.clone(), to: to.clone(), inode: *inode };
                self.change_name(change);
                replaced.into_iter().for_each(|inode| self.unlink(inode));
            }
            Step::Remove { place } => {
                if let Some(inode) = self.names.remove(place) {
                    self.change_name(NameChange::Drop { place: place.clone() });
                    self.unlink(inode);
                }
            }
            Step::Open { inode } => self.file(*inode).opens += 1,
            Step::Close { inode } => {
                self.file(*inode).opens -= 1;
                self.free_unused();
            }
        }
    }

    /// All that a crash at this moment would decide, without what makes no difference.
    pub fn loose(&self) -> Vec<Loose> {
        let mut loose = Vec::new();
        for change in self.changes.values() {
            let (NameChange::Add { place, .. }
            | NameChange::Drop { place }
            | NameChange::Move { to: place, .. }) = change;
            loose.push(Loose::Name { place: place.clone() });
        }
        for (id, inode) in &self.inodes {
            if !inode.size_durable {
                loose.push(Loose::Size { inode: *id });
            }
            for write in &inode.pending {
                for start in (0..write.content.len()).step_by(SECTOR_BYTES) {
                    let mut sector = [0; SECTOR_BYTES];
                    write.content.copy_to(start, &mut sector);
                    let position = write.position + start as u64;
                    let range = position as usize..position as usize + SECTOR_BYTES;
                    let others = inode.pending.iter().any(|other| {
                        let end = other.position + other.content.len() as u64;
                        other.id != write.id && (other.position..end).contains(&position)
                    });
                    if others || inode.durable[range] != sector {
                        loose.push(Loose::Sector { inode: *id, write: write.id, position });
                    }
                }
            }
        }
        loose
    }

    /// The image after a crash that keeps what `keep` says, asked in the order of [`Files::loose`].
    /// What makes no difference is not asked for.
    pub fn crash(&self, mut keep: impl FnMut(&Loose) -> bool) -> Image {
        let loose = self.loose();
        let mut cut: BTreeSet<Place> = BTreeSet::new();
        let mut names = self.durable_names.clone();
        let mut kept = loose.iter();
        for change in self.changes.values() {
            let keep = kept.next().is_some_and(&mut keep);
            let (first, second) = change.folders();
            let is_cut =
                cut.contains(&first) || second.as_ref().is_some_and(|folder| cut.contains(folder));
            if keep && !is_cut {
                change.apply(&mut names);
            } else {
                cut.insert(first);
                cut.extend(second);
            }
        }
        let mut contents: BTreeMap<InodeId, Arc<Vec<u8>>> =
            self.inodes.iter().map(|(id, inode)| (*id, inode.durable.clone())).collect();
        let mut emptied = BTreeSet::new();
        for item in kept {
            match item {
                Loose::Size { inode } if !keep(item) => {
                    emptied.insert(*inode);
                }
                Loose::Sector { inode, write, position } if keep(item) => {
                    let pending = &self.inodes[inode].pending;
                    let write = pending
                        .iter()
                        .find(|pending| pending.id == *write)
                        .expect("listed just now");
                    let start = *position as usize;
                    let content = contents.get_mut(inode).expect("listed just now");
                    let target = &mut Arc::make_mut(content)[start..start + SECTOR_BYTES];
                    write.content.copy_to(start - write.position as usize, target);
                }
                _ => {}
            }
        }
        let mut image = Image { folders: self.folders.clone(), files: BTreeMap::new() };
        for (place, inode) in names {
            let bytes =
                if emptied.contains(&inode) { Arc::default() } else { contents[&inode].clone() };
            image.files.insert(place, bytes);
        }
        image
    }

    /// Changes durable and visible bytes behind the file system's back.
    pub fn damage(
        &mut self,
        inode: InodeId,
        position: u64,
        len: usize,
        change: impl Fn(&mut [u8]),
    ) {
        let file = self.file(inode);
        let range = position as usize..position as usize + len;
        change(&mut Arc::make_mut(&mut file.durable)[range.clone()]);
        change(&mut Arc::make_mut(&mut file.live)[range]);
    }

    fn file(&mut self, inode: InodeId) -> &mut Inode {
        self.inodes.get_mut(&inode).expect("a file that was not freed")
    }

    fn make_folder(&mut self, place: &Place) {
        let mut folder = place.clone();
        while !folder.path.is_empty() {
            let parent = folder_of(&folder);
            self.folders.insert(folder);
            folder = parent;
        }
    }

    fn create(&mut self, inode: InodeId, place: &Place, bytes: u64) {
        assert_eq!(inode, self.next_inode());
        self.inodes_next += 1;
        let zeros = Arc::new(vec![0; bytes as usize]);
        let file = Inode {
            directory: place.directory,
            live: zeros.clone(),
            durable: zeros,
            size_durable: false,
            pending: Vec::new(),
            links: 1,
            opens: 1,
        };
        self.inodes.insert(inode, file);
        self.names.insert(place.clone(), inode);
        self.change_name(NameChange::Add { place: place.clone(), inode });
    }

    fn write_end(&mut self, id: u64, ok: bool) {
        let inode = self.writes[&id];
        let file = self.inodes.get_mut(&inode).expect("a file that was not freed");
        let write =
            file.pending.iter_mut().find(|write| write.id == id).expect("a write in flight");
        assert_eq!(write.stage, Stage::InFlight);
        if !ok {
            write.stage = Stage::InDoubt;
            return;
        }
        write.stage = Stage::Reported;
        let start = write.position as usize;
        let live = Arc::make_mut(&mut file.live);
        write.content.copy_to(0, &mut live[start..start + write.content.len()]);
    }

    fn barrier_end(&mut self, id: u64, ok: bool) {
        match self.barriers.remove(&id).expect("a barrier that started") {
            Barrier::Flush { inode, covers } => {
                let Some(file) = self.inodes.get_mut(&inode) else { return };
                if !ok {
                    for write in file.pending.iter_mut().filter(|write| covers.contains(&write.id))
                    {
                        write.stage = Stage::InDoubt;
                    }
                    return;
                }
                file.size_durable = true;
                let durable = &mut file.durable;
                file.pending.retain(|write| {
                    let covered = covers.contains(&write.id) && write.stage == Stage::Reported;
                    if covered {
                        let start = write.position as usize;
                        let durable = Arc::make_mut(durable);
                        write.content.copy_to(0, &mut durable[start..start + write.content.len()]);
                    }
                    !covered
                });
                for id in covers {
                    self.writes.remove(&id);
                }
            }
            Barrier::Sync { folder, changes } => {
                if !ok {
                    return;
                }
                let covered: Vec<u64> = self
                    .changes
                    .range(..changes)
                    .filter(|(_, change)| change.touches(&folder))
                    .map(|(n, _)| *n)
                    .collect();
                for number in covered {
                    let change = self.changes.remove(&number).expect("listed just now");
                    change.apply(&mut self.durable_names);
                }
                self.free_unused();
            }
        }
    }

    fn change_name(&mut self, change: NameChange) {
        self.changes.insert(self.changes_next, change);
        self.changes_next += 1;
    }

    fn unlink(&mut self, inode: InodeId) {
        self.file(inode).links -= 1;
        self.free_unused();
    }

    /// Frees the files that no name, durable name, change of a name or handle leads to.
    fn free_unused(&mut self) {
        let unused = self.inodes.iter().filter(|(_, inode)| inode.links == 0 && inode.opens == 0);
        let unused: Vec<InodeId> = unused.map(|(id, _)| *id).collect();
        for id in unused {
            let durable = self.durable_names.values().any(|inode| *inode == id);
            let changing = self.changes.values().any(|change| match change {
                NameChange::Add { inode, .. } | NameChange::Move { inode, .. } => *inode == id,
                NameChange::Drop { .. } => false,
            });
            if !durable && !changing {
                for write in &self.inodes[&id].pending {
                    self.writes.remove(&write.id);
                }
                self.inodes.remove(&id);
            }
        }
    }
}
