//! The walk of one read through one segment, from piece to piece.

use corelog_protocol::entry::{ENTRY_HEADER_BYTES, EntryHeader, EntryKind};
use corelog_protocol::ids::{LaneId, Lsn, Offset, PartitionId};

use super::large::Large;
use super::seek::{Found, entry, look};
use super::{Kind, READ_BYTES_MAX};
use crate::limits::BLOCK_BYTES;
use crate::log::format::blocks;
use crate::log::format::commit_header::COMMIT_HEADER_BYTES;
use crate::log::format::footer::IndexPoint;
use crate::memory::{Memory, Piece, Slot};
use crate::planted::{Bug, is_planted};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// What a piece led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    More,
    /// The pieces are the answer.
    Ready,
    /// From the wanted offset on up to `to`, or to the end of the partition in this segment,
    /// nothing can be read.
    Lost {
        to: Option<Offset>,
    },
    /// The first entry that is late enough.
    Time(Offset),
}

#[derive(Debug)]
pub struct Walk {
    lane: LaneId,
    nonce: u64,
    partition: PartitionId,
    /// The next offset that is wanted.
    wanted: Offset,
    /// What may be served: a sealed segment may hold commits that are still in flight.
    end_offset: Offset,
    position: u64,
    end_position: u64,
    /// At a block boundary, looking for the next commit.
    seeking: bool,
    next_lsn: Lsn,
    kind: Kind,
    /// Bytes to read at `position` at least.
    least: u64,
    bytes: u32,
    large: Option<Large>,
}

impl Walk {
    /// Serves the offsets of `range`, up to its end.
    pub fn new(
        lane: LaneId,
        nonce: u64,
        partition: PartitionId,
        range: (Offset, Offset),
        end_position: u64,
        kind: Kind,
    ) -> Self {
        Self {
            lane,
            nonce,
            partition,
            wanted: range.0,
            end_offset: range.1,
            position: end_position,
            end_position,
            seeking: true,
            next_lsn: Lsn(0),
            kind,
            least: 0,
            bytes: 0,
            large: None,
        }
    }

    pub fn wanted(&self) -> Offset {
        self.wanted
    }

    pub fn end_position(&self) -> u64 {
        self.end_position
    }

    pub fn held_bytes(&self) -> usize {
        self.large.as_ref().map_or(0, Large::held_bytes)
    }

    pub fn start_at(&mut self, point: IndexPoint) {
        self.position = point.position;
        self.next_lsn = Lsn(point.lsn);
        self.seeking = false;
    }

    pub fn seek_from(&mut self, position: u64) {
        self.position = position;
        self.seeking = true;
    }

    /// Where to read, block-aligned, and how much at least.
    pub fn wants(&self) -> (u64, u64) {
        (self.position - self.position % BLOCK, self.least)
    }

    /// Takes what was read: (slot, position in the file, bytes).
    pub fn feed<M: Memory>(
        &mut self,
        memory: &mut M,
        read: (Slot, u64, u64),
        pieces: &mut Vec<Piece>,
    ) -> Progress {
        let (slot, start, len) = read;
        self.least = 0;
        let piece_end = start + len;
        if self.large.is_some() {
            return self.feed_large(memory, read, pieces);
        }
        let mut run: Option<Piece> = None;
        let progress = loop {
            if self.position >= self.end_position {
                break self.at_end(run.is_some());
            }
            if self.position >= piece_end {
                break if run.is_some() { Progress::Ready } else { Progress::More };
            }
            let at = (self.position - start) as usize;
            let bytes = &memory.bytes(slot)[at..len as usize];
            if self.seeking {
                self.seek(bytes);
                continue;
            }
            if bytes.len() < ENTRY_HEADER_BYTES && piece_end < self.end_position {
                break if run.is_some() { Progress::Ready } else { Progress::More };
            }
            let Some((header, is_repaired)) = entry(bytes, self.lane, self.next_lsn) else {
                // The end of the commit, or a damaged header: on with the next commit.
                self.position = blocks(self.position);
                self.seeking = true;
                continue;
            };
            if is_repaired {
                // It is served as it was written.
                let target = &mut memory.bytes_mut(slot)[at..at + ENTRY_HEADER_BYTES];
                target.copy_from_slice(&header.encode());
            }
            let bytes = &memory.bytes(slot)[at..len as usize];
            let entry_bytes = header.entry_bytes() as u64;
            let is_ours = header.kind == EntryKind::Batch
                && header.partition == self.partition
                && header.next_offset() > self.wanted;
            if !is_ours {
                self.step_over(&header);
                continue;
            }
            if header.next_offset() > self.end_offset {
                break self.at_end(run.is_some());
            }
            if header.base_offset > self.wanted && self.bytes == 0 && !self.is_time() {
                break Progress::Lost { to: Some(header.base_offset) };
            }
            let bytes_max = match self.kind {
                Kind::Time { time } => {
                    if header.append_time >= time {
                        break Progress::Time(header.base_offset.max(self.wanted));
                    }
                    self.wanted = header.next_offset();
                    self.step_over(&header);
                    continue;
                }
                Kind::Records { bytes_max } => bytes_max,
            };
            let is_enough = u64::from(self.bytes) + entry_bytes > u64::from(bytes_max);
            if self.bytes > 0 && (is_enough || header.base_offset > self.wanted) {
                break Progress::Ready;
            }
            if entry_bytes > bytes.len() as u64 {
                break self.want_whole(memory, &header);
            }
            let body = &bytes[ENTRY_HEADER_BYTES..ENTRY_HEADER_BYTES + header.body_len as usize];
            if header.check_body(body).is_err() && !is_planted(Bug::BodyChecksumNotChecked) {
                break match run {
                    Some(_) => Progress::Ready,
                    None => Progress::Lost { to: Some(header.next_offset()) },
                };
            }
            match &mut run {
                Some(piece) if piece.range().end == at => piece.len += entry_bytes as u32,
                _ => {
                    if let Some(piece) = run.take() {
                        super::hand_out(memory, piece, pieces);
                    }
                    run = Some(Piece::new(slot, at, entry_bytes as usize));
                }
            }
            self.bytes += entry_bytes as u32;
            self.wanted = header.next_offset();
            self.step_over(&header);
        };
        if let Some(piece) = run {
            super::hand_out(memory, piece, pieces);
        }
        if progress == Progress::Ready {
            compact(memory, slot, self.bytes as usize, pieces);
        }
        progress
    }

    fn is_time(&self) -> bool {
        matches!(self.kind, Kind::Time { .. })
    }

    fn step_over(&mut self, header: &EntryHeader) {
        self.position += header.entry_bytes() as u64;
        self.next_lsn = header.next_lsn();
    }

    fn at_end(&self, has_pieces: bool) -> Progress {
        if has_pieces {
            Progress::Ready
        } else if self.is_time() {
            Progress::Time(self.wanted)
        } else {
            Progress::Lost { to: None }
        }
    }

    fn seek(&mut self, bytes: &[u8]) {
        let place = (self.nonce, self.position);
        match look(bytes, self.lane, place, self.next_lsn) {
            Found::Commit(header) if header.first_lsn >= self.next_lsn => {
                self.next_lsn = header.first_lsn;
            }
            Found::Entries => {}
            Found::Commit(_) | Found::Nothing => {
                self.position += BLOCK;
                return;
            }
        }
        self.position += COMMIT_HEADER_BYTES as u64;
        self.seeking = false;
    }

    /// The entry goes beyond what was read: read it from its first block on, or in parts.
    fn want_whole<M: Memory>(&mut self, memory: &mut M, header: &EntryHeader) -> Progress {
        if self.bytes > 0 {
            return Progress::Ready;
        }
        let entry_bytes = header.entry_bytes() as u64;
        if self.position + entry_bytes > self.end_position {
            return Progress::Lost { to: Some(header.next_offset()) };
        }
        let need = blocks(self.position % BLOCK + entry_bytes);
        if need <= READ_BYTES_MAX {
            self.least = need;
            return Progress::More;
        }
        self.large = Some(Large::new(memory, header));
        self.least = READ_BYTES_MAX;
        Progress::More
    }

    fn feed_large<M: Memory>(
        &mut self,
        memory: &mut M,
        read: (Slot, u64, u64),
        pieces: &mut Vec<Piece>,
    ) -> Progress {
        let (slot, start, len) = read;
        let Some(large) = &mut self.large else { return Progress::More };
        let at = (self.position - start) as usize;
        self.position += large.feed(memory, Piece::new(slot, at, len as usize - at));
        if !large.is_whole() {
            self.least = READ_BYTES_MAX;
            return Progress::More;
        }
        let Some(large) = self.large.take() else { return Progress::More };
        let entry_bytes = large.header.entry_bytes();
        if !large.is_intact(memory) {
            memory.release(large.slot);
            return Progress::Lost { to: Some(large.header.next_offset()) };
        }
        self.bytes = entry_bytes as u32;
        self.wanted = large.header.next_offset();
        pieces.push(Piece::new(large.slot, 0, entry_bytes));
        Progress::Ready
    }

    /// Gives back what is held.
    pub fn release<M: Memory>(&mut self, memory: &mut M) {
        if let Some(large) = self.large.take() {
            memory.release(large.slot);
        }
    }
}

/// A slow reader should not pin a large slot for a few entries of it.
pub(super) fn compact<M: Memory>(
    memory: &mut M,
    slot: Slot,
    bytes: usize,
    pieces: &mut Vec<Piece>,
) {
    if bytes * 2 > memory.capacity(slot) {
        return;
    }
    let target = memory.allocate(bytes);
    let mut at = 0;
    for piece in pieces.drain(..) {
        let (source, copy) = memory.pair(piece.slot, target);
        let part = &source[piece.range()];
        copy[at..at + part.len()].copy_from_slice(part);
        at += part.len();
        memory.release(piece.slot);
    }
    pieces.push(Piece::new(target, 0, at));
}
