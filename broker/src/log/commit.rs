//! The commit under construction: a slot into which entries are copied one behind the other, with
//! room for the header in front. Direct I/O writes whole blocks, and a block with durable bytes is
//! never written again, so a commit is padded to a block at its end. Knows nothing of files.

use corelog_protocol::checksum::{Crc, crc32c};
use corelog_protocol::entry::{ENTRY_HEADER_BYTES, EntryHeader};
use corelog_protocol::ids::Lsn;

use super::cache::Mark;
use super::event::Body;
use super::format::commit_header::{COMMIT_HEADER_BYTES, CommitHeader};
use crate::limits::{BLOCK_BYTES, COMMIT_BYTES_TARGET};
use crate::memory::{Memory, Slot, slot_bytes};
use crate::planted::{Bug, is_planted};
use crate::time::Monotonic;

#[derive(Debug)]
pub struct Building {
    pub slot: Slot,
    pub capacity: usize,
    /// Header and entries so far.
    pub len: usize,
    pub number: u64,
    /// Where in the file it will begin.
    pub position: u64,
    pub first_lsn: Lsn,
    pub entry_count: u32,
    local_count: u32,
    /// When it may start at the latest, while nobody waits for it.
    pub patient_until: Option<Monotonic>,
    digest: Crc,
    pub marks: Vec<Mark>,
}

impl Building {
    pub fn open<M: Memory>(
        memory: &mut M,
        number: u64,
        position: u64,
        first_lsn: Lsn,
        bytes_expected: usize,
        marks: Vec<Mark>,
    ) -> Self {
        let slot = memory.allocate(bytes_expected);
        Self {
            slot,
            capacity: memory.capacity(slot),
            len: COMMIT_HEADER_BYTES,
            number,
            position,
            first_lsn,
            entry_count: 0,
            local_count: 0,
            patient_until: None,
            digest: Crc::new(),
            marks,
        }
    }

    /// True if the target allows this entry too. A single larger one has a commit of its own.
    pub fn takes(&self, entry_bytes: usize) -> bool {
        self.entry_count == 0 || self.len + entry_bytes <= COMMIT_BYTES_TARGET
    }

    /// Makes room for the entry. True if what was there had to be copied.
    pub fn make_room<M: Memory>(&mut self, memory: &mut M, entry_bytes: usize) -> bool {
        let need = (self.len + entry_bytes).next_multiple_of(BLOCK_BYTES);
        if need <= self.capacity {
            return false;
        }
        // Four times as much, so that a burst is copied at most a few times; not beyond the target.
        let generous = slot_bytes(self.capacity * 4).min(COMMIT_BYTES_TARGET);
        let larger = memory.allocate(need.max(generous));
        let (source, target) = memory.pair(self.slot, larger);
        target[..self.len].copy_from_slice(&source[..self.len]);
        memory.release(self.slot);
        self.slot = larger;
        self.capacity = memory.capacity(larger);
        self.entry_count > 0
    }

    /// Copies the body behind room for its header; `None`, and nothing happened, if the body does
    /// not match its CRC. Returns the body's CRC. `make_room` comes first, `push` after.
    pub fn copy_body<M: Memory>(
        &mut self,
        memory: &mut M,
        body: Body<'_>,
        crc_checked: bool,
    ) -> Option<u32> {
        let start = self.len + ENTRY_HEADER_BYTES;
        let (target, len) = match body {
            Body::Piece(piece) => {
                let (source, target) = memory.pair(piece.slot, self.slot);
                let source = &source[piece.range()];
                let target = &mut target[start..];
                target[..source.len()].copy_from_slice(source);
                (target, source.len())
            }
            Body::Bytes(source) => {
                let target = &mut memory.bytes_mut(self.slot)[start..];
                target[..source.len()].copy_from_slice(source);
                (target, source.len())
            }
        };
        let crc = u32::from_le_bytes(*target[..len].first_chunk()?);
        if !crc_checked
            && crc != crc32c(&target[4..len])
            && !is_planted(Bug::BodyChecksumNotChecked)
        {
            return None;
        }
        target[len..len.next_multiple_of(8)].fill(0);
        Some(crc)
    }

    /// The entry whose body was just copied. Returns where in the slot it starts.
    pub fn push<M: Memory>(&mut self, memory: &mut M, header: &EntryHeader) -> usize {
        let start = self.len;
        let bytes = header.encode();
        memory.bytes_mut(self.slot)[start..start + ENTRY_HEADER_BYTES].copy_from_slice(&bytes);
        self.digest.update(&bytes[4..8]);
        self.len += header.entry_bytes();
        self.entry_count += 1;
        self.local_count += u32::from(header.is_local());
        start
    }

    /// After a `push`: whether somebody waits for the entry, and how long nobody need otherwise.
    pub fn await_until(&mut self, awaited: bool, patient_until: Monotonic) {
        if awaited {
            self.patient_until = None;
        } else if self.entry_count == 1 {
            self.patient_until = Some(patient_until);
        }
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> usize {
        self.len.next_multiple_of(BLOCK_BYTES)
    }

    /// Writes the header and zeroes the padding.
    pub fn finish<M: Memory>(&self, memory: &mut M, nonce: u64, number: u64, durable_end: Lsn) {
        assert!(self.entry_count > 0, "an empty commit says nothing");
        let header = CommitHeader {
            nonce,
            number,
            position: self.position,
            length: u32::try_from(self.len).expect("a commit fits a slot"),
            entry_count: self.entry_count,
            local_count: self.local_count,
            first_lsn: self.first_lsn,
            durable_end,
            entries_digest: self.digest.value(),
        };
        let end = self.disk_bytes();
        let bytes = memory.bytes_mut(self.slot);
        bytes[..COMMIT_HEADER_BYTES].copy_from_slice(&header.encode());
        if !is_planted(Bug::PaddingNotZeroed) {
            bytes[self.len..end].fill(0);
        }
    }
}

/// Foresees how large the next commit will be, so that a small one does not pin a large slot.
#[derive(Debug)]
pub struct SizeForecast {
    bytes: usize,
    average: usize,
}

impl SizeForecast {
    pub fn new() -> Self {
        Self { bytes: 4 * BLOCK_BYTES, average: 0 }
    }

    pub fn observe(&mut self, commit_bytes: usize) {
        // Up at once, down by an eighth: a slot too large costs memory, one too small a copy.
        let lower = self.bytes - self.bytes / 8;
        self.bytes = commit_bytes.max(lower);
        self.average = (self.average * 15 + commit_bytes) / 16;
    }

    /// Room for a commit as large as the recent ones.
    pub fn slot_bytes(&self) -> usize {
        slot_bytes(self.bytes).min(COMMIT_BYTES_TARGET)
    }

    pub fn average(&self) -> usize {
        self.average
    }
}
