//! The memory budget. Everything that a client can make the shard hold is counted: slots of the
//! pool (frames in part, commits, replies not read yet, entries that they name) and the heap bytes
//! of what waits. Work that would exceed the budget is refused at once, with a hint.
//!
//! ```text
//! 0 ────────────── admitted ──────────────┤ 3/4 ├─ replies, commits, recovery: never refused ─┤
//! ```

use super::Shard;
use crate::memory::Memory;
use crate::planted::{Bug, is_planted};

impl Shard {
    /// Whether a client may make the shard hold this many bytes more.
    #[inline]
    pub(super) fn can_hold<M: Memory>(&self, memory: &M, bytes: usize) -> bool {
        let held = memory.used_bytes() + self.held_bytes;
        if is_planted(Bug::BudgetIgnored) {
            return true;
        }
        held.saturating_add(bytes) <= admitted_bytes(self.config.memory_bytes)
    }

    /// How many bytes more a client may make the shard hold.
    #[inline]
    pub(super) fn room<M: Memory>(&self, memory: &M) -> usize {
        let held = memory.used_bytes() + self.held_bytes;
        admitted_bytes(self.config.memory_bytes).saturating_sub(held)
    }
}

/// The part of the budget that clients can fill.
pub const fn admitted_bytes(memory_bytes: usize) -> usize {
    memory_bytes - memory_bytes / 4
}
