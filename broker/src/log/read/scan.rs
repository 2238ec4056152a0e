//! The walk of one read of copies through one segment: entries of all kinds and partitions, in the order of LSNs, none
//! left out. Local entries that lie between are taken along; the one who copies skips them.

use corelog_protocol::entry::{ENTRY_HEADER_BYTES, EntryHeader, EntryKind};
use corelog_protocol::ids::{LaneId, Lsn};

use super::READ_BYTES_MAX;
use super::large::Large;
use super::seek::{Found, entry, look};
use super::walk::compact;
use crate::limits::BLOCK_BYTES;
use crate::log::format::blocks;
use crate::log::format::commit_header::COMMIT_HEADER_BYTES;
use crate::memory::{Memory, Piece, Slot};
use crate::planted::{Bug, is_planted};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// What a piece led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scanned {
    More,
    /// The pieces are the answer, up to [`Scan::next_lsn`].
    Ready,
    /// The entry with this LSN cannot be read.
    Unreadable(Lsn),
}

#[derive(Debug)]
pub struct Scan {
    lane: LaneId,
    nonce: u64,
    /// The first entry that is wanted, and the one after the last that may be served.
    from: Lsn,
    end: Lsn,
    bytes_max: u32,
    position: u64,
    end_position: u64,
    /// At a block boundary, looking for the next commit.
    seeking: bool,
    /// Of the entry at `position`, or of the next commit.
    next_lsn: Lsn,
    least: u64,
    bytes: u32,
    large: Option<Large>,
    /// The checkpoint in front of `from` is wanted, and nothing else.
    wants_base: bool,
}

impl Scan {
    /// Serves the LSNs of `range` from what is in front of `end_position`.
    pub fn new(
        lane: LaneId,
        nonce: u64,
        range: (Lsn, Lsn),
        end_position: u64,
        bytes_max: u32,
    ) -> Self {
        Self {
            lane,
            nonce,
            from: range.0,
            end: range.1,
            bytes_max,
            position: end_position,
            end_position,
            seeking: true,
            next_lsn: Lsn(0),
            least: 0,
            bytes: 0,
            large: None,
            wants_base: false,
        }
    }

    /// Of the checkpoint that the segment begins with, and nothing behind it.
    pub fn of_base(lane: LaneId, nonce: u64, first_lsn: Lsn, end_position: u64) -> Self {
        let all = (first_lsn, Lsn(u64::MAX));
        Self { wants_base: true, ..Self::new(lane, nonce, all, end_position, 1) }
    }

    pub fn from(&self) -> Lsn {
        self.from
    }

    pub fn next_lsn(&self) -> Lsn {
        self.next_lsn
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    pub fn end_position(&self) -> u64 {
        self.end_position
    }

    pub fn held_bytes(&self) -> usize {
        self.large.as_ref().map_or(0, Large::held_bytes)
    }

    /// The entry with this LSN, or a local one in front of it, is here; or the end of the commit in front of it.
    pub fn start_at(&mut self, position: u64, lsn: Lsn) {
        self.position = position;
        self.next_lsn = lsn;
        self.seeking = false;
    }

    /// From the segment's first commit on.
    pub fn seek_from(&mut self, position: u64, first_lsn: Lsn) {
        self.position = position;
        self.next_lsn = first_lsn;
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
        (slot, start, len): (Slot, u64, u64),
        pieces: &mut Vec<Piece>,
    ) -> Scanned {
        self.least = 0;
        let piece_end = start + len;
        if self.large.is_some() {
            let at = (self.position - start) as usize;
            return self.feed_large(memory, Piece::new(slot, at, len as usize - at), pieces);
        }
        let mut run: Option<Piece> = None;
        let scanned = loop {
            if self.next_lsn >= self.end || self.position >= self.end_position {
                break self.enough(Scanned::Unreadable(self.next_lsn.max(self.from)));
            }
            if self.position >= piece_end {
                break self.enough(Scanned::More);
            }
            let at = (self.position - start) as usize;
            let bytes = &memory.bytes(slot)[at..len as usize];
            if self.seeking {
                if let Err(lost) = self.seek(bytes) {
                    break self.enough(Scanned::Unreadable(lost));
                }
                continue;
            }
            if bytes.len() < ENTRY_HEADER_BYTES && piece_end < self.end_position {
                break self.enough(Scanned::More);
            }
            let Some((header, is_repaired)) = entry(bytes, self.lane, self.next_lsn) else {
                // The end of the commit, or a damaged header: on with the next commit.
                self.position = blocks(self.position);
                self.seeking = true;
                continue;
            };
            let entry_bytes = header.entry_bytes();
            if header.lsn < self.from || header.is_local() && run.is_none() && !self.wants_base {
                self.step_over(&header);
                continue;
            }
            let is_base = header.is_local() && header.kind == EntryKind::Checkpoint;
            if self.wants_base && self.bytes == 0 && !is_base {
                break Scanned::Unreadable(self.from);
            }
            if self.bytes > 0 && self.bytes as usize + entry_bytes > self.bytes_max as usize {
                break Scanned::Ready;
            }
            if entry_bytes > bytes.len() {
                break self.want_whole(memory, &header);
            }
            let body = &bytes[ENTRY_HEADER_BYTES..ENTRY_HEADER_BYTES + header.body_len as usize];
            if header.check_body(body).is_err() && !is_planted(Bug::BodyChecksumNotChecked) {
                break self.enough(Scanned::Unreadable(header.lsn));
            }
            if is_repaired {
                // It leaves as it was written.
                let target = &mut memory.bytes_mut(slot)[at..at + ENTRY_HEADER_BYTES];
                target.copy_from_slice(&header.encode());
            }
            match &mut run {
                Some(piece) if piece.range().end == at => piece.len += entry_bytes as u32,
                _ => {
                    if let Some(piece) = run.take() {
                        super::hand_out(memory, piece, pieces);
                    }
                    run = Some(Piece::new(slot, at, entry_bytes));
                }
            }
            self.bytes += entry_bytes as u32;
            self.step_over(&header);
        };
        if let Some(piece) = run {
            super::hand_out(memory, piece, pieces);
        }
        if scanned == Scanned::Ready {
            compact(memory, slot, self.bytes as usize, pieces);
        }
        scanned
    }

    fn enough(&self, otherwise: Scanned) -> Scanned {
        if self.bytes > 0 { Scanned::Ready } else { otherwise }
    }

    fn step_over(&mut self, header: &EntryHeader) {
        self.position += header.entry_bytes() as u64;
        self.next_lsn = header.next_lsn();
    }

    /// Looks for a commit at this block. An error is an LSN that is wanted and was not found.
    fn seek(&mut self, bytes: &[u8]) -> Result<(), Lsn> {
        let place = (self.nonce, self.position);
        let header = match look(bytes, self.lane, place, self.next_lsn) {
            Found::Commit(header) => header,
            Found::Entries => {
                self.position += COMMIT_HEADER_BYTES as u64;
                self.seeking = false;
                return Ok(());
            }
            Found::Nothing => {
                self.position += BLOCK;
                return Ok(());
            }
        };
        if header.first_lsn < self.next_lsn && header.end_lsn() <= self.next_lsn {
            // What it holds was found already.
            self.position += blocks(u64::from(header.length));
            return Ok(());
        }
        let lost = self.next_lsn.max(self.from);
        if header.first_lsn > lost {
            return Err(lost);
        }
        self.next_lsn = header.first_lsn;
        self.position += COMMIT_HEADER_BYTES as u64;
        self.seeking = false;
        Ok(())
    }

    /// The entry goes beyond what was read: read it from its first block on, or in parts.
    fn want_whole<M: Memory>(&mut self, memory: &mut M, header: &EntryHeader) -> Scanned {
        if self.bytes > 0 {
            return Scanned::Ready;
        }
        let entry_bytes = header.entry_bytes() as u64;
        if self.position + entry_bytes > self.end_position {
            return Scanned::Unreadable(header.lsn);
        }
        let need = blocks(self.position % BLOCK + entry_bytes);
        self.least = need.min(READ_BYTES_MAX);
        if need > READ_BYTES_MAX {
            self.large = Some(Large::new(memory, header));
        }
        Scanned::More
    }

    fn feed_large<M: Memory>(
        &mut self,
        memory: &mut M,
        piece: Piece,
        pieces: &mut Vec<Piece>,
    ) -> Scanned {
        let Some(large) = &mut self.large else { return Scanned::More };
        self.position += large.feed(memory, piece);
        if !large.is_whole() {
            self.least = READ_BYTES_MAX;
            return Scanned::More;
        }
        let Some(large) = self.large.take() else { return Scanned::More };
        let header = large.header;
        if !large.is_intact(memory) {
            memory.release(large.slot);
            return Scanned::Unreadable(header.lsn);
        }
        self.bytes = header.entry_bytes() as u32;
        self.next_lsn = header.next_lsn();
        pieces.push(Piece::new(large.slot, 0, header.entry_bytes()));
        Scanned::Ready
    }

    /// Gives back what is held.
    pub fn release<M: Memory>(&mut self, memory: &mut M) {
        if let Some(large) = self.large.take() {
            memory.release(large.slot);
        }
    }
}
