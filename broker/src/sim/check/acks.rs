//! I2: an acknowledgment of a durable level leaves only after the flush that covers the batch, and
//! everything before it in its lane. Compared with the disk at the moment of the send.

use corelog_protocol::Durability;
use corelog_protocol::produce::ProduceAck;

use super::answers::Request;
use super::durable::{DurableIndex, Placed};
use crate::sim::tally::Tally;
use crate::sim::trace::{Checked, Violation};

#[derive(Debug, Default)]
pub struct AckCheck {
    pub looked: u64,
}

impl AckCheck {
    pub fn on_ack(
        &mut self,
        request: &Request,
        ack: &ProduceAck,
        durable: &DurableIndex,
        tally: &mut Tally,
    ) -> Checked {
        let Request::Produce { partition, durability, body_crc, record_count } = *request else {
            return Err(Violation::new("I12", format!("{ack:?} answers {request:?}")));
        };
        tally.add("records acknowledged", u64::from(record_count));
        tally.add(level_name(ack.level), u64::from(record_count));
        let faithful = ack.partition == partition && ack.record_count == record_count;
        if !faithful || durability == Durability::None {
            return Err(Violation::new("I12", format!("{ack:?} does not answer {request:?}")));
        }
        if durability.is_durable() && !ack.level.is_durable() {
            return Err(Violation::new("I2", format!("asked for {durability}, got {ack:?}")));
        }
        if !ack.level.is_durable() {
            return Ok(());
        }
        self.looked += 1;
        let placed = Placed { partition, base_offset: ack.base_offset, record_count, body_crc };
        if !durable.holds(&placed) {
            return Err(Violation::new("I2", format!("{ack:?} left before its batch was durable")));
        }
        if !durable.is_reachable(&placed) {
            let text = format!("{ack:?} left before an earlier entry of its lane was durable");
            return Err(Violation::new("I2", text));
        }
        Ok(())
    }
}

fn level_name(level: Durability) -> &'static str {
    match level {
        Durability::None => "records acknowledged none",
        Durability::LeaderMemory => "records acknowledged leader_memory",
        Durability::LeaderDurable => "records acknowledged leader_durable",
        Durability::QuorumMemory => "records acknowledged quorum_memory",
        Durability::QuorumDurable => "records acknowledged quorum_durable",
    }
}
