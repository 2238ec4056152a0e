//! What the driver drives. One implementation in the product; the driver's own tests use others.

use crate::driver::memory::DmaMemory;
use crate::log::LogCounters;
use crate::shard::Shard;
use crate::shard::effect::Effects;
use crate::shard::event::Event;
use crate::time::Now;

pub trait Machine {
    fn step(&mut self, now: Now, event: Event, memory: &mut DmaMemory, effects: &mut Effects);

    /// Calls `visit` with each counter, in a fixed order.
    fn each_counter(&self, visit: &mut dyn FnMut(&'static str, u64));
}

impl Machine for Shard {
    fn step(&mut self, now: Now, event: Event, memory: &mut DmaMemory, effects: &mut Effects) {
        Shard::step(self, now, event, memory, effects);
    }

    fn each_counter(&self, visit: &mut dyn FnMut(&'static str, u64)) {
        self.counters().each(&mut *visit);
        let mut logs = LogCounters::default();
        self.lane_counters().for_each(|(_, counters)| logs.add(counters));
        logs.list().into_iter().for_each(|(name, value)| visit(name, value));
    }
}
