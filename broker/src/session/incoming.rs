//! Bytes of a connection that are not used up yet.
//!
//! Most frames are whole in the shared receive buffer and never come here. A session has a slot of
//! its own only while part of a frame is there, or frames wait for their turn:
//!
//! ```text
//! own slot:  ···used up···[start── not used up ──end]···room for the rest of the frame···
//! ```
//! The slot grows with what has arrived, never from a declared length alone: to four times of what
//! is there, or to the largest frame that this connection has completed before.

use corelog_protocol::frame::FRAME_HEADER_BYTES;

use crate::limits::{RECEIVE_BYTES, SLOT_BYTES_MIN};
use crate::memory::{Memory, Piece, Slot};
use crate::time::Monotonic;

/// Frames smaller than half of this are read many at a time.
const STREAM_BYTES: usize = RECEIVE_BYTES;

#[derive(Debug, Default)]
pub struct Incoming {
    own: Option<Slot>,
    start: usize,
    end: usize,
    /// Bytes of a refused frame that have yet to come, and to be dropped.
    pub skip: u64,
    /// The largest frame that was whole, bytes.
    frame_bytes_seen_max: usize,
    /// Bytes that came last.
    pub last_bytes: usize,
    /// When the first byte of what is not used up came.
    pub first_byte_at: Monotonic,
    /// When the last one came.
    pub last_byte_at: Monotonic,
}

impl Incoming {
    /// What is in the own slot.
    pub fn held(&self) -> Option<Piece> {
        let slot = self.own?;
        (self.end > self.start).then(|| Piece::new(slot, self.start, self.end - self.start))
    }

    pub fn held_bytes(&self) -> usize {
        self.end - self.start
    }

    pub fn has_slot(&self) -> bool {
        self.own.is_some()
    }

    /// Whether these bytes came into the own slot, right behind what was there.
    pub fn is_own(&self, piece: Piece) -> bool {
        self.own == Some(piece.slot)
    }

    /// Bytes came into the own slot.
    pub fn received_own(&mut self, piece: Piece) {
        assert!(self.end == piece.start as usize, "received elsewhere than ordered");
        self.end = piece.range().end;
    }

    pub fn frame_is_whole(&mut self, frame_bytes: usize) {
        self.frame_bytes_seen_max = self.frame_bytes_seen_max.max(frame_bytes);
    }

    /// Copies bytes from the shared buffer behind those that are held.
    pub fn hold<M: Memory>(&mut self, memory: &mut M, piece: Piece) {
        let wanted = self.held_bytes() + piece.len as usize;
        self.make_room(memory, wanted);
        let slot = self.own.expect("room was made");
        let (source, target) = memory.pair(piece.slot, slot);
        target[self.end..self.end + piece.len as usize].copy_from_slice(&source[piece.range()]);
        self.end += piece.len as usize;
    }

    /// The first bytes of what is held are used up. The last ones give the slot back.
    pub fn use_up<M: Memory>(&mut self, memory: &mut M, bytes: usize) {
        self.start += bytes;
        assert!(self.start <= self.end);
        if self.start == self.end {
            self.release(memory);
        }
    }

    pub fn release<M: Memory>(&mut self, memory: &mut M) {
        if let Some(slot) = self.own.take() {
            memory.release(slot);
        }
        self.start = 0;
        self.end = 0;
    }

    /// How large a slot a frame of `frame_bytes` may have, when `have` of its bytes are there.
    pub fn grant(&self, have: usize, frame_bytes: usize) -> usize {
        // The header of the next frame too: then that one's bytes can go straight to their slot.
        let whole = frame_bytes + FRAME_HEADER_BYTES;
        let earned = (4 * have).max(self.frame_bytes_seen_max + FRAME_HEADER_BYTES);
        whole.min(earned.max(SLOT_BYTES_MIN))
    }

    /// Where the rest of a frame of `frame_bytes` shall go. What is there of it is held.
    ///
    /// A large frame is read to its end and no further, so that it need not be moved. Among small
    /// ones that stream in, reading one at a time would cost a system call for each: if memory is
    /// `roomy`, the slot is as large as what came last suggests, and is filled.
    pub fn target<M: Memory>(&mut self, memory: &mut M, frame_bytes: usize, roomy: bool) -> Piece {
        let granted = self.grant(self.held_bytes(), frame_bytes);
        let is_small = frame_bytes < STREAM_BYTES / 2;
        let streamed = if is_small && roomy { (4 * self.last_bytes).min(STREAM_BYTES) } else { 0 };
        self.make_room(memory, granted.max(streamed));
        let slot = self.own.expect("room was made");
        let capacity = memory.capacity(slot);
        let whole = self.start + frame_bytes + FRAME_HEADER_BYTES;
        let stop = if is_small { capacity } else { whole.min(capacity) };
        assert!(stop > self.end, "an empty target would never be filled");
        Piece::new(slot, self.end, stop - self.end)
    }

    /// Afterwards the slot holds `wanted` bytes from `start` on, and room for at least one more.
    fn make_room<M: Memory>(&mut self, memory: &mut M, wanted: usize) {
        let wanted = wanted.max(self.held_bytes() + 1);
        let Some(old) = self.own else {
            self.own = Some(memory.allocate(wanted));
            (self.start, self.end) = (0, 0);
            return;
        };
        let capacity = memory.capacity(old);
        if self.start + wanted <= capacity {
            return;
        }
        let held = self.held_bytes();
        if wanted <= capacity {
            memory.bytes_mut(old).copy_within(self.start..self.end, 0);
        } else {
            let new = memory.allocate(wanted);
            let (source, target) = memory.pair(old, new);
            target[..held].copy_from_slice(&source[self.start..self.end]);
            memory.release(old);
            self.own = Some(new);
        }
        (self.start, self.end) = (0, held);
    }
}
