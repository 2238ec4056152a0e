//! A log, a pool and the smallest disk that can forget: what the stories are told with.

use std::collections::{BTreeMap, VecDeque};

use corelog_protocol::checksum::crc32c;
use corelog_protocol::entry::{Entries, EntryHeader, EntryKind};
pub use corelog_protocol::ids::PartitionId;
use corelog_protocol::ids::{ClusterId, Incarnation, LaneId, Lsn, Offset};

use crate::disk::{DirectoryId, DiskDone, DiskError, DiskOrder, FileId, ListedFile, OpId};
use crate::limits::BLOCK_BYTES;
use crate::log::{
    AppendError, Appended, Body, Claim, Copies, CopyError, Io, Log, LogConfig, LogEvent, NewEntry,
    OpIds, Read, Retention,
};
use crate::memory::{Memory, Piece};
use crate::random::Random;
use crate::shard::effect::{Effect, Effects};
use crate::sim::memory::SimMemory;
use crate::time::{Monotonic, Nanos, Now, Wall};

/// A file: what reads see, and what a power cut leaves.
#[derive(Clone, Default)]
pub struct File {
    pub live: Vec<u8>,
    pub durable: Vec<u8>,
    /// Writes that no flush has covered: where, and what.
    pub loose: Vec<(u64, Vec<u8>)>,
}

#[derive(Clone, Default)]
pub struct Disk {
    pub files: BTreeMap<String, File>,
    open: BTreeMap<FileId, String>,
    pub free_bytes: u64,
    pub fail_writes: bool,
    pub fail_flushes: bool,
    /// A sector of a file that cannot be read.
    pub unreadable: Option<(String, u64)>,
}

pub struct Rig {
    pub log: Log,
    pub memory: SimMemory,
    pub effects: Effects,
    pub ops: OpIds,
    pub disk: Disk,
    pub now: Now,
    pub orders: VecDeque<(OpId, DiskOrder)>,
    pub events: Vec<LogEvent>,
}

pub const P: PartitionId = PartitionId(1);
pub const Q: PartitionId = PartitionId(2);

pub fn config() -> LogConfig {
    let mut config = LogConfig::new(LaneId(3), DirectoryId(0), ClusterId(77), Incarnation(1), 5);
    config.segment_bytes = 64 << 10;
    config.segment_bytes_first = 64 << 10;
    config.body_bytes_max = 8 << 10;
    config.tail_cache_bytes = 1 << 20;
    config
}

/// Base offset and body of a batch.
type StoredBatch = (u64, Vec<u8>);

/// First offset and the one after the last.
type LostRange = (u64, u64);

impl Disk {
    pub fn new() -> Self {
        Self { free_bytes: 1 << 30, ..Self::default() }
    }

    /// What is left after a power cut that keeps those loose writes that `keep` chooses.
    pub fn after_power_cut(&self, mut keep: impl FnMut(&str, u64) -> bool) -> Self {
        let mut disk = Self { open: BTreeMap::new(), ..self.clone() };
        for (name, file) in &mut disk.files {
            for (position, bytes) in std::mem::take(&mut file.loose) {
                if keep(name, position) {
                    let at = position as usize;
                    file.durable[at..at + bytes.len()].copy_from_slice(&bytes);
                }
            }
            file.live.clone_from(&file.durable);
        }
        disk
    }

    /// What the next process finds after this one was killed: all, also what no flush covered.
    pub fn forget_handles(&mut self) {
        self.open.clear();
    }

    pub fn segments(&self) -> Vec<&str> {
        self.files.keys().filter(|name| name.ends_with(".seg")).map(String::as_str).collect()
    }

    /// Where a file has these bytes.
    pub fn find(&self, name: &str, bytes: &[u8]) -> usize {
        let mut windows = self.files[name].durable.windows(bytes.len());
        windows.position(|window| window == bytes).expect("they are durable")
    }

    /// Flips four bits of a byte, durably: in a header, a single one would be put right.
    pub fn flip(&mut self, name: &str, at: usize) {
        let file = self.files.get_mut(name).expect("a file to damage");
        file.live[at] ^= 0x55;
        file.durable[at] ^= 0x55;
    }

    pub fn carry_out(&mut self, memory: &mut SimMemory, order: &DiskOrder) -> DiskDone {
        match order {
            DiskOrder::MakeFolder { .. } | DiskOrder::SyncFolder { .. } => DiskDone::Done,
            DiskOrder::List { place } => {
                let prefix = format!("{}/", place.path);
                let listed = |(name, file): (&String, &File)| {
                    name.strip_prefix(&prefix)
                        .map(|name| ListedFile { name: name.into(), bytes: file.live.len() as u64 })
                };
                DiskDone::Listed { files: self.files.iter().filter_map(listed).collect() }
            }
            DiskOrder::Open { file, place } => match self.files.get(&*place.path) {
                Some(found) => {
                    self.open.insert(*file, place.path.to_string());
                    DiskDone::Opened { bytes: found.live.len() as u64 }
                }
                None => DiskDone::Failed(DiskError::Missing),
            },
            DiskOrder::Create { file, place, bytes } => {
                if self.files.contains_key(&*place.path) {
                    return DiskDone::Failed(DiskError::Exists);
                }
                if *bytes > self.free_bytes {
                    return DiskDone::Failed(DiskError::Full);
                }
                self.free_bytes -= bytes;
                let zeros = vec![0; *bytes as usize];
                let new = File { live: zeros.clone(), durable: zeros, loose: Vec::new() };
                self.files.insert(place.path.to_string(), new);
                self.open.insert(*file, place.path.to_string());
                DiskDone::Done
            }
            DiskOrder::Read { file, position, slot, len } => {
                let block = BLOCK_BYTES as u64;
                assert!(position.is_multiple_of(block) && u64::from(*len).is_multiple_of(block));
                assert!(*len > 0, "direct reads are of whole blocks");
                let name = &self.open[file];
                let range = *position..*position + u64::from(*len);
                if self.unreadable.as_ref().is_some_and(|(of, at)| of == name && range.contains(at))
                {
                    return DiskDone::Failed(DiskError::Io);
                }
                let file = &self.files[name];
                let at = *position as usize;
                let bytes = file.live[at..at + *len as usize].to_vec();
                memory.deliver(*slot, 0, &bytes);
                DiskDone::Done
            }
            DiskOrder::Write { file, position, slot, len } => {
                let bytes = memory.bytes(*slot)[..*len as usize].to_vec();
                memory.unpin(*slot);
                memory.release(*slot);
                if self.fail_writes {
                    return DiskDone::Failed(DiskError::Io);
                }
                self.write(*file, *position, bytes)
            }
            DiskOrder::Zero { file, position, len } => {
                self.write(*file, *position, vec![0; *len as usize])
            }
            DiskOrder::Flush { file } => {
                if self.fail_flushes {
                    return DiskDone::Failed(DiskError::Io);
                }
                let file = self.files.get_mut(&self.open[file]).expect("an open file");
                for (position, bytes) in file.loose.drain(..) {
                    let at = position as usize;
                    file.durable[at..at + bytes.len()].copy_from_slice(&bytes);
                }
                DiskDone::Done
            }
            DiskOrder::Rename { file, to } => {
                let from = self.open.insert(*file, to.path.to_string()).expect("an open file");
                let moved = self.files.remove(&from).expect("a file by that name");
                self.files.insert(to.path.to_string(), moved);
                DiskDone::Done
            }
            DiskOrder::Close { file } => {
                self.open.remove(file).expect("an open file");
                DiskDone::Done
            }
            DiskOrder::Remove { place } => {
                if let Some(file) = self.files.remove(&*place.path) {
                    self.free_bytes += file.live.len() as u64;
                }
                DiskDone::Done
            }
            DiskOrder::Space { .. } => DiskDone::Space { free_bytes: self.free_bytes },
        }
    }

    fn write(&mut self, file: FileId, position: u64, bytes: Vec<u8>) -> DiskDone {
        let file = self.files.get_mut(&self.open[&file]).expect("an open file");
        let at = position as usize;
        file.live[at..at + bytes.len()].copy_from_slice(&bytes);
        file.loose.push((position, bytes));
        DiskDone::Done
    }
}

/// A body of this many bytes that can be told from others.
pub fn body(tag: u32, len: usize) -> Vec<u8> {
    let mut body = vec![0; len.max(8)];
    for (at, byte) in body.iter_mut().enumerate() {
        *byte = (tag as usize * 31 + at) as u8;
    }
    body[4..8].copy_from_slice(&tag.to_le_bytes());
    let crc = crc32c(&body[4..]);
    body[..4].copy_from_slice(&crc.to_le_bytes());
    body
}

impl Rig {
    pub fn new(config: LogConfig, disk: Disk) -> Self {
        let mut rig = Self::made(config, disk);
        rig.call(|log, io| log.start(io));
        rig
    }

    /// Not started.
    pub fn made(config: LogConfig, disk: Disk) -> Self {
        let mut rig = Self {
            log: Log::new(config, Random::new(disk.files.len() as u64 + 9)),
            memory: SimMemory::new(1),
            effects: Effects::default(),
            ops: OpIds::default(),
            disk,
            now: Now { monotonic: Monotonic(1), wall: Wall(1_000) },
            orders: VecDeque::new(),
            events: Vec::new(),
        };
        rig.log.open_partition(P, Retention::default());
        rig.log.open_partition(Q, Retention::default());
        rig
    }

    /// Started on this disk, and recovered.
    pub fn started(config: LogConfig, disk: Disk) -> Self {
        let mut rig = Self::new(config, disk);
        rig.run();
        let is_recovered = |event: &LogEvent| matches!(event, LogEvent::Recovered(_));
        assert!(rig.events.iter().any(is_recovered), "{:?}", rig.events);
        rig
    }

    pub fn fresh() -> Self {
        Self::started(config(), Disk::new())
    }

    pub fn call<T>(&mut self, f: impl FnOnce(&mut Log, &mut Io<'_, SimMemory>) -> T) -> T {
        let mut io = Io {
            now: self.now,
            memory: &mut self.memory,
            effects: &mut self.effects,
            ops: &mut self.ops,
        };
        let result = f(&mut self.log, &mut io);
        for effect in self.effects.list.drain(..) {
            let Effect::Disk { op, order } = effect else { panic!("a log only orders disks") };
            if let DiskOrder::Write { slot, .. } = &order {
                self.memory.pin(*slot);
            }
            self.orders.push_back((op, order));
        }
        while let Some(event) = self.log.poll_event() {
            self.events.push(event);
        }
        result
    }

    /// Completes the first order that is like this.
    pub fn complete(&mut self, is_it: impl Fn(&DiskOrder) -> bool) -> DiskOrder {
        let at = self.orders.iter().position(|(_, order)| is_it(order));
        let at = at.unwrap_or_else(|| panic!("not among {:?}", self.orders));
        let (op, order) = self.orders.remove(at).expect("just found");
        let done = self.disk.carry_out(&mut self.memory, &order);
        self.call(|log, io| log.on_disk(io, op, done));
        order
    }

    /// Until nothing happens any more without time or appends.
    pub fn run(&mut self) {
        for _ in 0..100_000 {
            if self.log.wants_turn() {
                self.call(|log, io| log.on_turn(io));
            } else if !self.orders.is_empty() {
                self.complete(|_| true);
            } else {
                return;
            }
        }
        panic!("the log does not come to rest: {:?}", self.orders);
    }

    /// Lets time pass, and the log come to rest.
    pub fn pass(&mut self, millis: u64) {
        self.now.monotonic = self.now.monotonic + Nanos::from_millis(millis);
        self.now.wall.0 += millis as i64;
        self.call(|log, io| log.on_wake(io));
        self.run();
    }

    pub fn append(&mut self, partition: PartitionId, body: &[u8]) -> Result<Appended, AppendError> {
        self.append_entry(partition, body, true, None)
    }

    /// A batch that names its producer.
    pub fn append_of(&mut self, claim: Claim, batch: &[u8]) -> Result<Appended, AppendError> {
        self.append_entry(claim.partition, batch, true, Some(claim))
    }

    /// Nobody waits until it is durable.
    pub fn append_unawaited(
        &mut self,
        partition: PartitionId,
        body: &[u8],
    ) -> Result<Appended, AppendError> {
        self.append_entry(partition, body, false, None)
    }

    fn append_entry(
        &mut self,
        partition: PartitionId,
        body: &[u8],
        awaited: bool,
        claim: Option<Claim>,
    ) -> Result<Appended, AppendError> {
        let entry = NewEntry {
            kind: EntryKind::Batch.to_wire(),
            partition,
            partition_at: 0,
            record_count: 1,
            body: Body::Bytes(body),
            crc_checked: false,
            claim,
            awaited,
        };
        self.call(|log, io| log.append(io, entry))
    }

    /// Appends, and waits until it is durable.
    pub fn commit(&mut self, partition: PartitionId, body: &[u8]) -> Offset {
        for _ in 0..100 {
            match self.append(partition, body) {
                Ok(appended) => {
                    self.run();
                    assert!(self.log.durable_end() > appended.lsn);
                    return appended.base_offset;
                }
                Err(AppendError::Busy) => self.run(),
                Err(error) => panic!("{error:?}"),
            }
        }
        panic!("no room, ever");
    }

    /// The LSNs told as durable, in the order told.
    pub fn durable(&self) -> Vec<u64> {
        let through = |event: &LogEvent| match event {
            LogEvent::Durable { through, .. } => Some(through.0),
            _ => None,
        };
        self.events.iter().filter_map(through).collect()
    }

    /// A read, waited for: the bodies with their offsets, or why not.
    pub fn read(
        &mut self,
        partition: PartitionId,
        offset: u64,
        max: u32,
    ) -> Result<Vec<(u64, Vec<u8>)>, Read> {
        let mut pieces = Vec::new();
        let answer =
            self.call(|log, io| log.read(io, (partition, 0), Offset(offset), max, &mut pieces));
        let answer = match answer {
            Read::Waiting(id) => {
                self.run();
                let done = |event: &LogEvent| matches!(event, LogEvent::ReadDone { read, .. } if *read == id);
                let at = self.events.iter().position(done).expect("the read is answered");
                let LogEvent::ReadDone { answer, pieces: found, .. } = self.events.remove(at)
                else {
                    unreachable!()
                };
                pieces = found;
                answer
            }
            answer => answer,
        };
        let Read::Ready { bytes } = answer else {
            assert!(pieces.is_empty());
            return Err(answer);
        };
        let mut all = Vec::new();
        for piece in pieces {
            all.extend_from_slice(self.memory.piece(piece));
            self.memory.release(piece.slot);
        }
        assert_eq!(bytes as usize, all.len());
        let mut found = Vec::new();
        let mut rest = all.as_slice();
        while !rest.is_empty() {
            let header = EntryHeader::decode(rest).expect("only intact entries are served");
            assert_eq!(header.partition, partition);
            let body = &rest[64..64 + header.body_len as usize];
            header.check_body(body).expect("only intact bodies are served");
            found.push((header.base_offset.0, body.to_vec()));
            rest = &rest[header.entry_bytes()..];
        }
        Ok(found)
    }

    /// A read for a follower, waited for: the LSN after it, and the entries.
    pub fn copies(&mut self, from: Lsn, max: u32) -> Result<(Lsn, Vec<u8>), Copies> {
        let mut pieces = Vec::new();
        let mut answer = self.call(|log, io| log.read_copies(io, from, max, &mut pieces));
        if let Copies::Waiting(id) = answer {
            self.run();
            let done = |event: &LogEvent| matches!(event, LogEvent::CopiesDone { read, .. } if *read == id);
            let at = self.events.iter().position(done).expect("the read is answered");
            let LogEvent::CopiesDone { answer: found, pieces: of, from: asked, .. } =
                self.events.remove(at)
            else {
                unreachable!()
            };
            assert_eq!(asked, from);
            (answer, pieces) = (found, of);
        }
        let Copies::Ready { end, bytes } = answer else {
            assert!(pieces.is_empty());
            return Err(answer);
        };
        let mut all = Vec::new();
        for piece in pieces {
            all.extend_from_slice(self.memory.piece(piece));
            self.memory.release(piece.slot);
        }
        assert_eq!(bytes as usize, all.len());
        Ok((end, all))
    }

    /// All entries from an LSN on that are not local, and why there are no more.
    pub fn all_copies(&mut self, from: Lsn) -> (Vec<(Lsn, Vec<u8>)>, Copies) {
        let (mut found, mut at) = (Vec::new(), from);
        loop {
            let (end, bytes) = match self.copies(at, 1 << 16) {
                Ok(read) => read,
                Err(answer) => return (found, answer),
            };
            let mut rest = &bytes[..];
            for entry in Entries::new(&bytes) {
                let (header, _) = entry.expect("only intact entries are sent");
                let (bytes, behind) = rest.split_at(header.entry_bytes());
                rest = behind;
                if header.is_local() {
                    continue;
                }
                assert_eq!(header.lsn, at, "none is left out");
                found.push((at, bytes.to_vec()));
                at = header.next_lsn();
            }
            assert_eq!(at, end);
        }
    }

    /// Takes the entries of a leader, as many as may be.
    pub fn copy(&mut self, bytes: &[u8]) -> Result<u32, CopyError> {
        let slot = self.memory.allocate(bytes.len());
        self.memory.bytes_mut(slot)[..bytes.len()].copy_from_slice(bytes);
        let piece = Piece::new(slot, 0, bytes.len());
        let copied = self.call(|log, io| log.append_copy(io, piece));
        self.memory.release(slot);
        copied
    }

    /// Everything of a partition from an offset on; damaged ranges are skipped and listed.
    pub fn read_all(
        &mut self,
        partition: PartitionId,
        from: u64,
    ) -> (Vec<StoredBatch>, Vec<LostRange>) {
        let (mut found, mut lost, mut at) = (Vec::new(), Vec::new(), from);
        loop {
            match self.read(partition, at, 10_000) {
                Ok(entries) => {
                    let entries: Vec<_> =
                        entries.into_iter().filter(|(offset, _)| *offset >= at).collect();
                    at = entries.last().expect("progress").0 + 1;
                    found.extend(entries);
                }
                Err(Read::AtEnd) => return (found, lost),
                Err(Read::Corrupt { from, to }) => {
                    assert!(to > from, "a corrupt range that is empty");
                    lost.push((from.0, to.0));
                    at = to.0;
                }
                Err(other) => panic!("{other:?} at {at}"),
            }
        }
    }

    /// Stops in good order; nothing may be left behind.
    pub fn stop(&mut self) {
        self.call(|log, io| log.stop(io));
        self.run();
        assert!(matches!(self.events.last(), Some(LogEvent::Stopped)), "{:?}", self.events);
        self.drop_events();
        assert_eq!(self.memory.leaks(), []);
    }

    pub fn drop_events(&mut self) {
        for event in self.events.drain(..) {
            match event {
                LogEvent::Replayed(entry) => self.memory.release(entry.body.slot),
                LogEvent::ReadDone { pieces, .. } | LogEvent::CopiesDone { pieces, .. } => {
                    pieces.into_iter().for_each(|piece: Piece| self.memory.release(piece.slot));
                }
                _ => {}
            }
        }
    }
}
