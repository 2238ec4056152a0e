//! The pool of buffers that the state machines borrow: DMA memory in power-of-two classes, each
//! with a free list. Buffers come from the executor's registered memory while there is some, then
//! from the heap, and go back to their free list for ever or until too many lie idle.

use std::mem::{ManuallyDrop, forget};
use std::ptr;
use std::rc::Rc;

use glommio::io::DmaBuffer;

use crate::limits::SLOT_BYTES_MIN;
use crate::memory::{Memory, Slot, slot_bytes};

/// Idle bytes that one class keeps. Beyond that a freed buffer goes back where it came from.
const IDLE_BYTES_MAX: usize = 32 << 20;

/// A DMA buffer of which a prefix can be written.
///
/// glommio writes a buffer as long as it is, and shortening one is for ever. So a write is given a
/// shortened bitwise copy, which is never dropped as a buffer and owns nothing.
struct Block {
    full: ManuallyDrop<DmaBuffer>,
    /// One per write that was ever in flight at the same time; reused.
    aliases: Vec<Rc<ManuallyDrop<DmaBuffer>>>,
}

impl Block {
    fn new(mut full: DmaBuffer) -> Self {
        // Fresh memory is uninitialised; this also brings in its pages.
        full.as_bytes_mut().fill(0);
        Self { full: ManuallyDrop::new(full), aliases: Vec::new() }
    }

    /// The first `len` bytes as a buffer of their own.
    fn prefix(&mut self, len: usize) -> Rc<DmaBuffer> {
        // SAFETY: a bitwise copy of a live buffer. It is inside `ManuallyDrop`, so what it seems to
        // own is freed once, by `full`, which outlives it (see `drop`).
        let mut copy = ManuallyDrop::new(unsafe { ptr::read(&*self.full) });
        copy.trim_to_size(len);
        let alias = match self.aliases.iter_mut().position(|alias| Rc::strong_count(alias) == 1) {
            Some(free) => {
                let alias = &mut self.aliases[free];
                *Rc::get_mut(alias).expect("counted above; there are no weak references") = copy;
                alias
            }
            None => {
                self.aliases.push(Rc::new(copy));
                self.aliases.last().expect("just pushed")
            }
        };
        let raw = Rc::into_raw(Rc::clone(alias)).cast::<DmaBuffer>();
        // SAFETY: `ManuallyDrop` has its content's layout, and `from_raw` allows another type of
        // the same size and alignment. This reference is never the last one: `aliases` keeps
        // one until all others are gone, so no buffer is dropped through it.
        unsafe { Rc::from_raw(raw) }
    }

    fn len(&self) -> usize {
        self.full.len()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.aliases.iter().all(|alias| Rc::strong_count(alias) == 1) {
            // SAFETY: dropped once, here, and no copy is left in use.
            unsafe { ManuallyDrop::drop(&mut self.full) };
        } else {
            // The executor ends with a write in flight: the kernel may still read the memory.
            forget(std::mem::take(&mut self.aliases));
        }
    }
}

struct SlotState {
    block: Option<Block>,
    generation: u32,
    references: u32,
    /// Writes and sends in flight.
    lent: u32,
}

/// The pool of one shard.
pub struct DmaMemory {
    slots: Vec<SlotState>,
    /// Free slots that keep their buffer, by class.
    idle: Vec<Vec<u32>>,
    /// Free slots without a buffer.
    bare: Vec<u32>,
    used_bytes: usize,
}

#[inline]
fn class_of(bytes: usize) -> usize {
    (bytes.trailing_zeros() - SLOT_BYTES_MIN.trailing_zeros()) as usize
}

impl DmaMemory {
    /// Must be made on an executor, whose registered memory it uses.
    pub fn new() -> Self {
        Self { slots: Vec::new(), idle: Vec::new(), bare: Vec::new(), used_bytes: 0 }
    }

    #[inline]
    fn state(&self, slot: Slot) -> &SlotState {
        let state = &self.slots[slot.index as usize];
        assert_eq!(state.generation, slot.generation, "a stale slot");
        assert!(state.references > 0, "a freed slot");
        state
    }

    #[inline]
    fn state_mut(&mut self, slot: Slot) -> &mut SlotState {
        let state = &mut self.slots[slot.index as usize];
        assert_eq!(state.generation, slot.generation, "a stale slot");
        assert!(state.references > 0, "a freed slot");
        state
    }

    /// The first `len` bytes for a write, of a slot that was lent to it.
    pub fn prefix(&mut self, slot: Slot, len: usize) -> Rc<DmaBuffer> {
        let state = self.state_mut(slot);
        assert!(state.lent > 0, "only what is lent can be written");
        state.block.as_mut().expect("a used slot has a buffer").prefix(len)
    }

    /// Marks the slot as being read by somebody else, until `give_back`.
    pub fn lend(&mut self, slot: Slot) {
        self.state_mut(slot).lent += 1;
    }

    /// Ends a loan.
    pub fn give_back(&mut self, slot: Slot) {
        let state = self.state_mut(slot);
        assert!(state.lent > 0, "given back more often than lent");
        state.lent -= 1;
    }
}

impl Memory for DmaMemory {
    fn allocate(&mut self, bytes: usize) -> Slot {
        let bytes = slot_bytes(bytes);
        let class = class_of(bytes);
        if self.idle.len() <= class {
            self.idle.resize_with(class + 1, Vec::new);
        }
        let index = match self.idle[class].pop() {
            Some(index) => index,
            None => {
                let block = Block::new(glommio::allocate_dma_buffer(bytes));
                match self.bare.pop() {
                    Some(index) => {
                        self.slots[index as usize].block = Some(block);
                        index
                    }
                    None => {
                        let state =
                            SlotState { block: Some(block), generation: 0, references: 0, lent: 0 };
                        self.slots.push(state);
                        u32::try_from(self.slots.len() - 1).expect("fewer than 4 billion slots")
                    }
                }
            }
        };
        self.used_bytes += bytes;
        let state = &mut self.slots[index as usize];
        assert_eq!((state.references, state.lent), (0, 0));
        state.references = 1;
        Slot { index, generation: state.generation }
    }

    #[inline]
    fn capacity(&self, slot: Slot) -> usize {
        self.state(slot).block.as_ref().expect("a used slot has a buffer").len()
    }

    #[inline]
    fn bytes(&self, slot: Slot) -> &[u8] {
        self.state(slot).block.as_ref().expect("a used slot has a buffer").full.as_bytes()
    }

    #[inline]
    fn bytes_mut(&mut self, slot: Slot) -> &mut [u8] {
        let state = self.state_mut(slot);
        assert_eq!(state.lent, 0, "a slot is changed while a write or send of it is in flight");
        state.block.as_mut().expect("a used slot has a buffer").full.as_bytes_mut()
    }

    #[inline]
    fn pair(&mut self, source: Slot, target: Slot) -> (&[u8], &mut [u8]) {
        assert_ne!(source.index, target.index, "a slot cannot be copied onto itself");
        _ = self.state(source);
        assert_eq!(self.state(target).lent, 0, "a slot is changed while lent");
        let (source, target) = (source.index as usize, target.index as usize);
        let [source, target] =
            self.slots.get_disjoint_mut([source, target]).expect("both exist and differ");
        let source = source.block.as_ref().expect("a used slot has a buffer");
        let target = target.block.as_mut().expect("a used slot has a buffer");
        (source.full.as_bytes(), target.full.as_bytes_mut())
    }

    #[inline]
    fn retain(&mut self, slot: Slot) {
        self.state_mut(slot).references += 1;
    }

    fn release(&mut self, slot: Slot) {
        let state = self.state_mut(slot);
        state.references -= 1;
        if state.references > 0 {
            return;
        }
        assert_eq!(state.lent, 0, "the last reference is given back before the loan");
        state.generation = state.generation.wrapping_add(1);
        let bytes = state.block.as_ref().expect("a used slot has a buffer").len();
        self.used_bytes -= bytes;
        let idle = &mut self.idle[class_of(bytes)];
        if idle.len() * bytes < IDLE_BYTES_MAX {
            idle.push(slot.index);
        } else {
            self.slots[slot.index as usize].block = None;
            self.bare.push(slot.index);
        }
    }

    #[inline]
    fn used_bytes(&self) -> usize {
        self.used_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs on an executor of its own, since buffers come from one.
    fn on_executor(test: impl FnOnce() + Send + 'static) {
        let executor = glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound)
            .io_memory(256 << 10)
            .spawn(move || async move { test() })
            .expect("an executor");
        executor.join().expect("the test passes");
    }

    #[test]
    fn a_slot_keeps_its_capacity_after_a_short_write_was_lent() {
        on_executor(|| {
            let mut memory = DmaMemory::new();
            let slot = memory.allocate(10_000);
            assert_eq!(memory.capacity(slot), 16 << 10);
            memory.bytes_mut(slot)[0] = 7;
            memory.lend(slot);
            memory.lend(slot);
            let first = memory.prefix(slot, 4096);
            let second = memory.prefix(slot, 8192);
            assert_eq!((first.len(), second.len(), first.as_bytes()[0]), (4096, 8192, 7));
            assert_eq!(first.as_ptr() as usize % 4096, 0);
            drop((first, second));
            memory.give_back(slot);
            memory.give_back(slot);
            assert_eq!(memory.capacity(slot), 16 << 10);
            memory.release(slot);
            assert_eq!(memory.used_bytes(), 0);
            let again = memory.allocate(16 << 10);
            assert_eq!(again.index, slot.index);
            assert_ne!(again.generation, slot.generation);
            memory.release(again);
        });
    }

    #[test]
    fn buffers_beyond_the_registered_memory_come_from_the_heap() {
        on_executor(|| {
            let mut memory = DmaMemory::new();
            let slots: Vec<Slot> = (0..64).map(|_| memory.allocate(1 << 20)).collect();
            assert_eq!(memory.used_bytes(), 64 << 20);
            for (value, slot) in (0u8..).zip(&slots) {
                memory.bytes_mut(*slot).fill(value);
            }
            for (value, slot) in (0u8..).zip(&slots) {
                assert_eq!(memory.bytes(*slot)[(1 << 20) - 1], value);
            }
            for slot in slots {
                memory.release(slot);
            }
            assert_eq!(memory.used_bytes(), 0);
        });
    }
}
