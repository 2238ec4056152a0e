//! The invariants of the design, one checker per file. They listen to the wire, to the disk and to the
//! clients, and believe none of them: what a shard says is compared with what its disk has.
//!
//! Each checker counts what it looked at. A run in which one looked at nothing proves nothing about it.

pub mod acks;
pub mod answers;
pub mod durable;
pub mod history;
pub mod medium;
pub mod memory;
pub mod order;
pub mod record;
pub mod recovery;
pub mod served;
pub mod space;

use acks::AckCheck;
use answers::AnswerCheck;
use durable::DurableIndex;
use history::History;
use memory::MemoryCheck;
use order::OrderCheck;
use recovery::RecoveryCheck;
use served::ServedCheck;
use space::SpaceCheck;

use crate::sim::tally::Tally;

#[derive(Debug, Default)]
pub struct Checks {
    pub durable: DurableIndex,
    pub acks: AckCheck,
    pub served: ServedCheck,
    pub answers: AnswerCheck,
    pub memory: MemoryCheck,
    pub history: History,
    pub order: OrderCheck,
    pub recovery: RecoveryCheck,
    pub space: SpaceCheck,
}

impl Checks {
    /// How much each checker looked at.
    pub fn count(&self, tally: &mut Tally) {
        tally.add("checked I1 durable records read back", self.history.read_back);
        tally.add("checked I2 acks against the disk", self.acks.looked);
        tally.add("checked I3 entries served", self.served.looked);
        tally.add("checked I4 records in order", self.order.looked);
        tally.add("records out of order, from a connection given up", self.order.excused);
        tally.add("records voided by the medium", self.history.voided);
        tally.add("records damaged, with a typed error", self.history.lost_to_damage);
        tally.add("checked I5 failures never seen", self.history.failures);
        tally.add("checked I9 recoveries", self.recovery.looked);
        tally.add("checked I10 bodies served", self.served.bodies);
        tally.add("checked I12 steps within memory", self.memory.looked);
        tally.add("checked I12 requests answered", self.answers.looked);
        tally.add("checked I13 full disks", self.space.looked);
    }
}
