//! I12, the part that the operator feels: a shard's slots never exceed its budget, and none leaks.

use crate::limits::RECEIVE_BYTES;
use crate::memory::Memory;
use crate::sim::memory::SimMemory;
use crate::sim::trace::{Checked, Violation};

#[derive(Debug, Default)]
pub struct MemoryCheck {
    pub looked: u64,
    pub used_max: usize,
}

impl MemoryCheck {
    /// After each step. The shared receive buffer is the driver's, and not part of the budget.
    pub fn on_step(&mut self, memory: &SimMemory, budget: usize) -> Checked {
        self.looked += 1;
        let used = memory.used_bytes() - RECEIVE_BYTES;
        self.used_max = self.used_max.max(used);
        if used > budget {
            let text = format!("a shard holds {used} bytes of a budget of {budget}");
            return Err(Violation::new("I12", text));
        }
        Ok(())
    }

    /// After a stop in good order only the receive buffer is left.
    pub fn on_stopped(&mut self, memory: &SimMemory) -> Checked {
        match memory.leaks().as_slice() {
            [_] => Ok(()),
            leaks => {
                Err(Violation::new("I12", format!("slots leak after a stop: {:?}", &leaks[1..])))
            }
        }
    }
}
