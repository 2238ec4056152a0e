//! Pooled memory that the driver owns and the state machines borrow.
//!
//! A payload crosses the seam as a [`Piece`]: a range of a [`Slot`]. Slots are aligned for direct
//! I/O (4 KiB) and counted: each effect that names a slot owns one reference, which the driver
//! gives back when the effect is complete. The state machines keep the budget: they ask
//! [`Memory::used_bytes`] before they allocate.

use crate::limits::SLOT_BYTES_MIN;

/// A buffer of the pool. A stale generation is a bug, and panics.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Slot {
    pub index: u32,
    pub generation: u32,
}

/// A range of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    pub slot: Slot,
    pub start: u32,
    pub len: u32,
}

impl Piece {
    pub fn new(slot: Slot, start: usize, len: usize) -> Self {
        let narrow = |value: usize| u32::try_from(value).expect("slots are far below 4 GiB");
        Self { slot, start: narrow(start), len: narrow(len) }
    }

    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}

/// The pool, as a state machine sees it. Implemented over DMA buffers by the driver, and over
/// plain vectors by the simulator.
pub trait Memory {
    /// A slot of at least `bytes` (rounded up to [`slot_bytes`]), with one reference and
    /// unspecified contents. The pool itself has no limit: budgets are the caller's.
    fn allocate(&mut self, bytes: usize) -> Slot;

    /// How many bytes the slot holds.
    fn capacity(&self, slot: Slot) -> usize;

    fn bytes(&self, slot: Slot) -> &[u8];

    /// # Panics
    /// If a write or send of the slot is in flight.
    fn bytes_mut(&mut self, slot: Slot) -> &mut [u8];

    /// A readable and a writable slot at once, to copy without a detour. The two must differ.
    fn pair(&mut self, source: Slot, target: Slot) -> (&[u8], &mut [u8]);

    /// Adds a reference.
    fn retain(&mut self, slot: Slot);

    /// Gives a reference back; the last one frees the slot.
    fn release(&mut self, slot: Slot);

    /// Bytes of all slots that have a reference.
    fn used_bytes(&self) -> usize;

    fn piece(&self, piece: Piece) -> &[u8] {
        &self.bytes(piece.slot)[piece.range()]
    }
}

/// The size of the slot that serves a request for `bytes`: a power of two, at least 4 KiB.
/// Doubling wastes at most half of a slot and keeps the free lists few.
pub const fn slot_bytes(bytes: usize) -> usize {
    if bytes <= SLOT_BYTES_MIN { SLOT_BYTES_MIN } else { bytes.next_power_of_two() }
}
