//! An entry that is larger than a read, put together from several.

use corelog_protocol::entry::{ENTRY_HEADER_BYTES, EntryHeader};

use crate::memory::{Memory, Piece, Slot};
use crate::planted::{Bug, is_planted};

#[derive(Debug)]
pub struct Large {
    pub slot: Slot,
    capacity: usize,
    pub header: EntryHeader,
    have: usize,
}

impl Large {
    pub fn new<M: Memory>(memory: &mut M, header: &EntryHeader) -> Self {
        let slot = memory.allocate(header.entry_bytes());
        Self { slot, capacity: memory.capacity(slot), header: *header, have: 0 }
    }

    pub fn held_bytes(&self) -> usize {
        self.capacity
    }

    /// Takes what comes next of it. Returns how many bytes that was.
    pub fn feed<M: Memory>(&mut self, memory: &mut M, piece: Piece) -> u64 {
        let part = (self.header.entry_bytes() - self.have).min(piece.len as usize);
        let (source, target) = memory.pair(piece.slot, self.slot);
        let source = &source[piece.range()];
        target[self.have..self.have + part].copy_from_slice(&source[..part]);
        self.have += part;
        part as u64
    }

    pub fn is_whole(&self) -> bool {
        self.have == self.header.entry_bytes()
    }

    /// Whether the body is that of the header, which is put in its place as it was written.
    pub fn is_intact<M: Memory>(&self, memory: &mut M) -> bool {
        let stored = &mut memory.bytes_mut(self.slot)[..ENTRY_HEADER_BYTES];
        stored.copy_from_slice(&self.header.encode());
        let body_end = ENTRY_HEADER_BYTES + self.header.body_len as usize;
        let body = &memory.bytes(self.slot)[ENTRY_HEADER_BYTES..body_end];
        self.header.check_body(body).is_ok() || is_planted(Bug::BodyChecksumNotChecked)
    }
}
