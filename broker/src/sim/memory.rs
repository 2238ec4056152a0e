//! The pool of a simulated shard: plain vectors that are counted, poisoned and checked.
//!
//! A new slot is full of garbage and a freed one too, so that padding that was not zeroed, or a
//! read after the last release, shows as wrong bytes. A stale generation, a release too many, or a
//! write to a slot that is in flight panics.

use crate::memory::{Memory, Slot, slot_bytes};
use crate::random::Random;

#[derive(Debug)]
struct Buffer {
    bytes: Box<[u8]>,
    generation: u32,
    references: u32,
    /// Writes and sends under way: the bytes must not change.
    pins: u32,
}

/// Slots by index; freed ones wait by size class for their next life.
#[derive(Debug)]
pub struct SimMemory {
    buffers: Vec<Buffer>,
    free: [Vec<u32>; 32],
    garbage: Random,
    used: usize,
    used_max: usize,
    allocations: u64,
}

/// A slot that still has references.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leak {
    pub slot: Slot,
    pub references: u32,
    pub bytes: usize,
}

impl SimMemory {
    pub fn new(seed: u64) -> Self {
        Self {
            buffers: Vec::new(),
            free: Default::default(),
            garbage: Random::new(seed),
            used: 0,
            used_max: 0,
            allocations: 0,
        }
    }

    /// Forbids changes to the slot's bytes until [`SimMemory::unpin`].
    pub fn pin(&mut self, slot: Slot) {
        self.buffer_mut(slot).pins += 1;
    }

    pub fn unpin(&mut self, slot: Slot) {
        let buffer = self.buffer_mut(slot);
        assert!(buffer.pins > 0, "{slot:?} is not in flight");
        buffer.pins -= 1;
    }

    /// Writes what a device or a peer delivered into a slot, whoever else holds it.
    pub fn deliver(&mut self, slot: Slot, start: usize, bytes: &[u8]) {
        self.bytes_mut(slot)[start..start + bytes.len()].copy_from_slice(bytes);
    }

    /// Every slot that has a reference beside those of writes and sends in flight, in the order of
    /// their indexes.
    pub fn leaks(&self) -> Vec<Leak> {
        let held =
            self.buffers.iter().enumerate().filter(|(_, buffer)| buffer.references > buffer.pins);
        held.map(|(index, buffer)| Leak {
            slot: Slot { index: index as u32, generation: buffer.generation },
            references: buffer.references - buffer.pins,
            bytes: buffer.bytes.len(),
        })
        .collect()
    }

    /// The most bytes that were ever held at once.
    pub fn used_bytes_max(&self) -> usize {
        self.used_max
    }

    pub fn allocations(&self) -> u64 {
        self.allocations
    }

    fn buffer(&self, slot: Slot) -> &Buffer {
        let buffer = &self.buffers[slot.index as usize];
        assert_eq!(buffer.generation, slot.generation, "{slot:?} is stale");
        assert!(buffer.references > 0, "{slot:?} was freed");
        buffer
    }

    fn buffer_mut(&mut self, slot: Slot) -> &mut Buffer {
        let buffer = &mut self.buffers[slot.index as usize];
        assert_eq!(buffer.generation, slot.generation, "{slot:?} is stale");
        assert!(buffer.references > 0, "{slot:?} was freed");
        buffer
    }
}

fn poison(bytes: &mut [u8], word: u64) {
    // Never a zero byte: zeros are what forgotten padding would like to find.
    let word = (word | 0x0101_0101_0101_0101).to_le_bytes();
    for chunk in bytes.chunks_exact_mut(8) {
        chunk.copy_from_slice(&word);
    }
}

impl Memory for SimMemory {
    fn allocate(&mut self, bytes: usize) -> Slot {
        let bytes = slot_bytes(bytes);
        let class = bytes.trailing_zeros() as usize;
        let word = self.garbage.next_u64();
        self.allocations += 1;
        self.used += bytes;
        self.used_max = self.used_max.max(self.used);
        if let Some(index) = self.free[class].pop() {
            let buffer = &mut self.buffers[index as usize];
            assert_eq!(buffer.references, 0);
            buffer.references = 1;
            // What its last life left is garbage enough for most of a large one.
            for part in buffer.bytes.chunks_mut(64 << 10) {
                let len = part.len().min(4096);
                poison(&mut part[..len], word);
            }
            return Slot { index, generation: buffer.generation };
        }
        let mut fresh = vec![0; bytes].into_boxed_slice();
        poison(&mut fresh, word);
        self.buffers.push(Buffer { bytes: fresh, generation: 1, references: 1, pins: 0 });
        Slot { index: self.buffers.len() as u32 - 1, generation: 1 }
    }

    fn capacity(&self, slot: Slot) -> usize {
        self.buffer(slot).bytes.len()
    }

    fn bytes(&self, slot: Slot) -> &[u8] {
        &self.buffer(slot).bytes
    }

    fn bytes_mut(&mut self, slot: Slot) -> &mut [u8] {
        let buffer = self.buffer_mut(slot);
        assert_eq!(buffer.pins, 0, "{slot:?} is written or sent at this moment");
        &mut buffer.bytes
    }

    fn pair(&mut self, source: Slot, target: Slot) -> (&[u8], &mut [u8]) {
        assert_ne!(source.index, target.index, "a slot cannot be copied onto itself");
        assert_eq!(self.buffer(target).pins, 0, "{target:?} is written or sent at this moment");
        self.buffer(source);
        let indexes = [source.index as usize, target.index as usize];
        let [source, target] = self.buffers.get_disjoint_mut(indexes).expect("two known slots");
        (&source.bytes, &mut target.bytes)
    }

    fn retain(&mut self, slot: Slot) {
        self.buffer_mut(slot).references += 1;
    }

    fn release(&mut self, slot: Slot) {
        let buffer = self.buffer_mut(slot);
        buffer.references -= 1;
        if buffer.references > 0 {
            return;
        }
        assert_eq!(buffer.pins, 0, "{slot:?} was freed while it is written or sent");
        buffer.generation += 1;
        let bytes = buffer.bytes.len();
        // The head is enough to make a late reader stumble; all of it would double the cost.
        poison(&mut buffer.bytes[..64], 0xdead_dead_dead_dead);
        self.free[bytes.trailing_zeros() as usize].push(slot.index);
        self.used -= bytes;
    }

    fn used_bytes(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_lives_as_long_as_its_last_reference_and_leaks_are_named() {
        let mut memory = SimMemory::new(1);
        let slot = memory.allocate(5000);
        assert_eq!(memory.capacity(slot), 8192);
        memory.retain(slot);
        memory.release(slot);
        assert_eq!(memory.leaks(), [Leak { slot, references: 1, bytes: 8192 }]);
        memory.release(slot);
        assert_eq!(memory.leaks(), []);
        assert_eq!((memory.used_bytes(), memory.used_bytes_max()), (0, 8192));
    }

    #[test]
    fn a_new_slot_holds_garbage_without_a_zero_byte_also_in_its_second_life() {
        let mut memory = SimMemory::new(2);
        for _ in 0..2 {
            let slot = memory.allocate(1);
            assert!(memory.bytes(slot).iter().all(|byte| *byte != 0));
            memory.bytes_mut(slot).fill(0);
            memory.release(slot);
        }
    }

    #[test]
    #[should_panic(expected = "is stale")]
    fn a_slot_of_an_earlier_life_panics() {
        let mut memory = SimMemory::new(3);
        let slot = memory.allocate(1);
        memory.release(slot);
        memory.allocate(1);
        memory.bytes(slot);
    }

    #[test]
    #[should_panic(expected = "at this moment")]
    fn a_slot_in_flight_cannot_be_changed() {
        let mut memory = SimMemory::new(4);
        let slot = memory.allocate(1);
        memory.pin(slot);
        memory.bytes_mut(slot);
    }
}
