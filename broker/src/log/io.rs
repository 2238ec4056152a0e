//! What a step lends to the log: the time, the pool of memory, the list of effects, and the
//! source of order numbers. The log keeps none of it between steps.

use crate::disk::{DiskOrder, FileId, OpId};
use crate::memory::Memory;
use crate::shard::effect::{Effect, Effects};
use crate::time::Now;

/// Numbers of disk orders and files, unique on a shard. The owner (a log, usually) is in the top
/// 16 bits, so that a completion finds its owner without a map.
#[derive(Clone, Debug, Default)]
pub struct OpIds {
    issued: u64,
}

impl OpIds {
    const OWNER_SHIFT: u32 = 48;

    pub fn next(&mut self, owner: u16) -> OpId {
        self.issued += 1;
        assert!(self.issued < 1 << Self::OWNER_SHIFT);
        OpId(u64::from(owner) << Self::OWNER_SHIFT | self.issued)
    }

    pub fn next_file(&mut self, owner: u16) -> FileId {
        FileId(self.next(owner).0)
    }

    /// Whose order this is.
    pub fn owner(op: OpId) -> u16 {
        (op.0 >> Self::OWNER_SHIFT) as u16
    }
}

/// What a step lends to the log.
pub struct Io<'a, M: Memory> {
    pub now: Now,
    pub memory: &'a mut M,
    pub effects: &'a mut Effects,
    pub ops: &'a mut OpIds,
}

impl<M: Memory> Io<'_, M> {
    /// Gives an order to the disk.
    pub(super) fn disk(&mut self, owner: u16, order: DiskOrder) -> OpId {
        let op = self.ops.next(owner);
        self.effects.push(Effect::Disk { op, order });
        op
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_number_names_its_owner_and_is_never_given_twice() {
        let mut ops = OpIds::default();
        let first = ops.next(7);
        let second = ops.next(65_535);
        assert_eq!(OpIds::owner(first), 7);
        assert_eq!(OpIds::owner(second), 65_535);
        assert_ne!(first, ops.next(7));
    }
}
