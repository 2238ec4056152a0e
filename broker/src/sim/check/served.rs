//! I3 and I10, on the wire: fetches carry only batches that are on the medium, with sound checksums.

use corelog_protocol::entry::{EntryHeader, EntryKind};

use super::durable::{DurableIndex, Placed, entries};
use crate::sim::trace::{Checked, Violation};

#[derive(Debug, Default)]
pub struct ServedCheck {
    pub looked: u64,
    pub bodies: u64,
}

impl ServedCheck {
    /// The payload of a fetch's answer. Returns how many batches it holds.
    pub fn on_reply(&mut self, payload: &[u8], durable: &DurableIndex) -> Result<u64, Violation> {
        let (mut read, mut count) = (0, 0);
        for (header, body) in entries(payload) {
            read += header.entry_bytes();
            count += 1;
            self.check(&header, body, durable)?;
        }
        if read != payload.len() {
            let text = format!(
                "a fetch was answered with bytes that are no entry, at {read} of {}",
                payload.len()
            );
            return Err(Violation::new("I10", text));
        }
        Ok(count)
    }

    fn check(&mut self, header: &EntryHeader, body: &[u8], durable: &DurableIndex) -> Checked {
        self.bodies += 1;
        if let Err(error) = header.check_body(body) {
            return Err(Violation::new("I10", format!("{header:?} was served: {error}")));
        }
        if header.kind != EntryKind::Batch {
            return Err(Violation::new("I3", format!("{header:?} was served to a consumer")));
        }
        self.looked += 1;
        let placed = Placed {
            partition: header.partition,
            base_offset: header.base_offset,
            record_count: header.record_count,
            body_crc: header.body_crc,
        };
        if !durable.holds(&placed) {
            return Err(Violation::new(
                "I3",
                format!("{header:?} was served before it was durable"),
            ));
        }
        Ok(())
    }
}
