//! Records that own what they point to: each holds a share in the buffer of its batch, so it may be
//! kept, and sent to another thread. Nothing is copied; keys and values are found again when asked for.

use super::accept::{FetchedBatch, FetchedRecord};
use corelog_protocol::batch::{BatchView, Headers, RecordCursor};
use corelog_protocol::ids::Offset;
use std::fmt;
use std::sync::Arc;

/// A record that was read. Cheap to clone. Its batch, a few hundred KiB, lives as long as it does:
/// copy out what is to be kept for long.
#[derive(Clone)]
pub struct ConsumedRecord {
    batch: Arc<FetchedBatch>,
    place: RecordCursor,
    offset: Offset,
}

/// The records of a batch, one by one, each with a share in it.
#[derive(Clone, Debug)]
pub struct BatchRecords {
    batch: Arc<FetchedBatch>,
    next: RecordCursor,
    offset: Offset,
}

impl ConsumedRecord {
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.batch.topic
    }

    #[must_use]
    pub fn partition(&self) -> u32 {
        self.batch.partition
    }

    #[must_use]
    pub const fn offset(&self) -> Offset {
        self.offset
    }

    /// As its producer set it, ms since the Unix epoch.
    #[must_use]
    pub fn timestamp_ms(&self) -> i64 {
        self.get().timestamp_ms
    }

    /// When the broker appended it, ms since the Unix epoch.
    #[must_use]
    pub fn append_time_ms(&self) -> i64 {
        self.batch.append_time_ms
    }

    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.get().key
    }

    /// None is a tombstone, which differs from an empty value.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.get().value
    }

    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        self.get().headers
    }

    /// All of it, borrowed.
    #[must_use]
    pub fn get(&self) -> FetchedRecord<'_> {
        // Checked when it was fetched or unpacked, so it is there.
        let view = BatchView::check_header(self.batch.as_bytes());
        let record = view.and_then(|view| view.next_record(&mut self.place.clone()));
        record.ok().flatten().map_or_else(
            || FetchedRecord { offset: self.offset, ..FetchedRecord::default() },
            |record| FetchedRecord::new(self.offset, &record),
        )
    }
}

impl BatchRecords {
    /// The offset of the next one.
    #[must_use]
    pub const fn offset(&self) -> Offset {
        self.offset
    }

    /// The batch, of which only those that have not come yet are wanted.
    #[must_use]
    pub fn into_batch(self) -> FetchedBatch {
        let mut batch = Arc::unwrap_or_clone(self.batch);
        batch.first_offset = self.offset;
        batch
    }

    /// The batch that they are of.
    #[must_use]
    pub fn batch(&self) -> &FetchedBatch {
        &self.batch
    }
}

impl IntoIterator for FetchedBatch {
    type Item = ConsumedRecord;
    type IntoIter = BatchRecords;

    fn into_iter(self) -> BatchRecords {
        let wanted = self.first_offset;
        let offset = self.base_offset;
        let batch = Arc::new(self);
        let mut records = BatchRecords { batch, next: RecordCursor::default(), offset };
        while records.offset < wanted && records.next().is_some() {}
        records
    }
}

impl Iterator for BatchRecords {
    type Item = ConsumedRecord;

    fn next(&mut self) -> Option<ConsumedRecord> {
        let place = self.next;
        let view = BatchView::check_header(self.batch.as_bytes()).ok()?;
        view.next_record(&mut self.next).ok().flatten()?;
        let offset = self.offset;
        self.offset = offset.advance(1);
        Some(ConsumedRecord { batch: Arc::clone(&self.batch), place, offset })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.batch.end_offset.0.saturating_sub(self.offset.0) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for BatchRecords {}

impl fmt::Debug for ConsumedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumedRecord")
            .field("topic", &self.topic())
            .field("partition", &self.partition())
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}
