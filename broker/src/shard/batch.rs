//! A batch on its way into a lane: checked at the door, once, whatever shard's door it came to.
//!
//! What is read of it there goes with it, so that nothing reads its header again, however often it
//! waits for room and wherever it is forwarded to.

use corelog_protocol::batch::{BatchError, BatchView, Compression};
use corelog_protocol::ids::PartitionId;
use corelog_protocol::produce::Produce;

use super::lane::Origin;
use crate::log::Claim;
use crate::memory::Piece;
use crate::planted::{Bug, is_planted};
use crate::time::{Monotonic, Nanos};

/// What a batch says, all of which has been checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckedBatch {
    pub record_count: u32,
    /// `None` if it names no producer.
    pub claim: Option<Claim>,
}

impl CheckedBatch {
    /// Header, checksum, records: each once.
    ///
    /// # Errors
    /// The first rule that the batch breaks.
    pub fn check(partition: PartitionId, bytes: &[u8]) -> Result<Self, BatchError> {
        let batch = BatchView::check_header(bytes)?;
        if !is_planted(Bug::BodyChecksumNotChecked) {
            batch.check_crc()?;
        }
        let header = batch.header();
        if header.compression == Compression::None {
            batch.check_records()?;
        }
        let claim = Claim::of(partition, header, batch.stored_crc());
        Ok(Self { record_count: header.record_count, claim })
    }
}

/// A batch for a lane of this shard, on the way or waiting for room.
#[derive(Clone, Copy, Debug)]
pub struct NewBatch {
    pub origin: Origin,
    pub produce: Produce,
    pub checked: CheckedBatch,
    pub batch: Piece,
    pub socket_ns: u32,
    pub received_at: Monotonic,
}

impl NewBatch {
    pub fn deadline(&self) -> Monotonic {
        deadline_of(&self.produce, self.received_at)
    }
}

/// When a produce that was received then is no longer wanted. `Monotonic(u64::MAX)`: always wanted.
pub fn deadline_of(produce: &Produce, received_at: Monotonic) -> Monotonic {
    match produce.timeout_ms {
        0 => Monotonic(u64::MAX),
        timeout_ms => received_at + Nanos::from_millis(u64::from(timeout_ms)),
    }
}
