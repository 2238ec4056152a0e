//! What a connection is to be sent. Frames written during a step are gathered in one slot and leave
//! with one send; payloads (stored entries) go between them as they are, without a copy.

use std::collections::VecDeque;

use crate::limits::SLOT_BYTES_MIN;
use crate::memory::{Memory, Piece, Slot};
use crate::shard::effect::Effects;
use crate::shard::event::Conn;

#[derive(Debug, Default)]
pub struct Outgoing {
    /// Under construction: `mark..filled` of the slot is not among the pieces yet. The slot's own
    /// reference belongs to the first piece made of it, each further piece has one more.
    slot: Option<Slot>,
    capacity: usize,
    mark: usize,
    filled: usize,
    is_shared: bool,
    pieces: Vec<Piece>,
    pieces_bytes: usize,
    /// Bytes of each send that the driver has, oldest first.
    sends: VecDeque<usize>,
    unsent: usize,
}

impl Outgoing {
    /// Room for a frame of `len` bytes, to be filled by the caller at once.
    pub fn frame<'m, M: Memory>(&mut self, memory: &'m mut M, len: usize) -> &'m mut [u8] {
        if self.slot.is_none() || self.capacity - self.filled < len {
            self.close_slot(memory);
            let slot = memory.allocate(len.max(SLOT_BYTES_MIN));
            self.capacity = memory.capacity(slot);
            self.slot = Some(slot);
        }
        let at = self.filled;
        self.filled += len;
        let slot = self.slot.expect("made above");
        &mut memory.bytes_mut(slot)[at..at + len]
    }

    /// Adds bytes as they lie, behind the frame written last. Takes over the caller's reference.
    pub fn payload<M: Memory>(&mut self, memory: &mut M, piece: Piece) {
        self.cut(memory);
        self.pieces_bytes += piece.len as usize;
        self.pieces.push(piece);
    }

    /// Makes a piece of what was written since the last one.
    fn cut<M: Memory>(&mut self, memory: &mut M) {
        let Some(slot) = self.slot else { return };
        if self.filled == self.mark {
            return;
        }
        if self.is_shared {
            memory.retain(slot);
        }
        self.is_shared = true;
        self.pieces.push(Piece::new(slot, self.mark, self.filled - self.mark));
        self.pieces_bytes += self.filled - self.mark;
        self.mark = self.filled;
    }

    fn close_slot<M: Memory>(&mut self, memory: &mut M) {
        self.cut(memory);
        if let Some(slot) = self.slot.take()
            && !self.is_shared
        {
            memory.release(slot);
        }
        (self.mark, self.filled, self.capacity, self.is_shared) = (0, 0, 0, false);
    }

    /// Orders everything gathered to be sent. Returns its bytes, 0 if there was nothing.
    pub fn flush<M: Memory>(&mut self, memory: &mut M, effects: &mut Effects, conn: Conn) -> usize {
        self.close_slot(memory);
        if self.pieces.is_empty() {
            return 0;
        }
        let bytes = std::mem::take(&mut self.pieces_bytes);
        effects.send(conn, self.pieces.drain(..));
        self.sends.push_back(bytes);
        self.unsent += bytes;
        bytes
    }

    /// The oldest send is complete.
    pub fn sent(&mut self) {
        let bytes = self.sends.pop_front().expect("a send was in flight");
        self.unsent -= bytes;
    }

    /// Bytes that the driver has not handed to the kernel yet, and those being gathered.
    pub fn pending_bytes(&self) -> usize {
        self.unsent + self.pieces_bytes + (self.filled - self.mark)
    }

    pub fn has_sends(&self) -> bool {
        !self.sends.is_empty()
    }

    /// Gives back what was gathered and will never be sent.
    pub fn release<M: Memory>(&mut self, memory: &mut M) {
        self.close_slot(memory);
        for piece in self.pieces.drain(..) {
            memory.release(piece.slot);
        }
        self.pieces_bytes = 0;
        self.sends.clear();
        self.unsent = 0;
    }
}
