//! The walk over a batch's records, in steps: a step of a shard touches 64 KiB at most.

use super::error::BatchError;
use super::header::Compression;
use super::record::Record;
use super::view::BatchView;

/// How far the walk has come. Borrows nothing, so it can wait between two steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordCheck {
    /// Where the next record starts in the record bytes.
    position: usize,
    index: u32,
    max_timestamp: i64,
}

impl RecordCheck {
    /// At the first record. A compressed batch cannot be walked.
    pub fn new(batch: &BatchView<'_>) -> Result<Self, BatchError> {
        match batch.header().compression {
            Compression::None => Ok(Self { position: 0, index: 0, max_timestamp: i64::MIN }),
            compression => Err(BatchError::Compressed { compression }),
        }
    }

    /// Walks on over at least one record and then until `bytes_max` bytes lie behind it, in the
    /// same batch as before. `true`: all records are sound.
    pub fn advance(&mut self, batch: &BatchView<'_>, bytes_max: usize) -> Result<bool, BatchError> {
        let header = batch.header();
        let all = batch.record_bytes();
        let stop = self.position.saturating_add(bytes_max);
        let mut rest = all.get(self.position..).unwrap_or_default();
        while self.index < header.record_count {
            let (base, max) = (header.base_timestamp, header.max_timestamp);
            let record = Record::take(&mut rest, self.index, base, max)
                .map_err(|fault| BatchError::Record { index: self.index, fault })?;
            // The first record's timestamp is the base: one batch, one encoding.
            if self.index == 0 && record.timestamp != base {
                return Err(BatchError::Timestamps);
            }
            self.max_timestamp = self.max_timestamp.max(record.timestamp);
            self.index += 1;
            self.position = all.len() - rest.len();
            if self.position >= stop {
                break;
            }
        }
        if self.index < header.record_count {
            return Ok(false);
        }
        if !rest.is_empty() {
            return Err(BatchError::TrailingBytes { bytes: rest.len() as u64 });
        }
        // Retention believes it, so it must be true.
        if self.max_timestamp != header.max_timestamp {
            return Err(BatchError::Timestamps);
        }
        Ok(true)
    }
}
