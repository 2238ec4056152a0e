//! What is accepted from a broker as a partition's data: whole entries with sound checksums and
//! structure, of that partition, dense, committed. Anything else is a typed error.
//!
//! A packed batch is kept as it came, so that what is fetched ahead takes the memory that was
//! budgeted and no more, and is unpacked when it is taken.

use super::assignment::AssignmentId;
use crate::Error;
use crate::compression::Codec;
use corelog_protocol::batch::{BatchView, Compression, Headers, Record};
use corelog_protocol::entry::{ENTRY_HEADER_BYTES, EntryHeader, EntryKind, entry_bytes};
use corelog_protocol::ids::{Epoch, Offset, PartitionId};
use corelog_protocol::message::FetchedPartition;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A checked batch. Cheap to clone: it shares a buffer with its neighbours, which lives as long as
/// one of them does.
#[derive(Clone)]
pub struct FetchedBatch {
    pub assignment: AssignmentId,
    pub topic: Arc<str>,
    pub partition: u32,
    /// Of the first record wanted. The batch may hold earlier ones, which are skipped.
    pub first_offset: Offset,
    /// Of the first record in the batch.
    pub base_offset: Offset,
    /// After the last.
    pub end_offset: Offset,
    /// In which it was appended.
    pub epoch: Epoch,
    /// When it was appended, ms since the Unix epoch.
    pub append_time_ms: i64,
    /// How it was stored.
    pub compression: Compression,
    buffer: Arc<Vec<u8>>,
    range: Range<usize>,
    is_packed: bool,
}

/// A record, borrowed from its batch.
#[derive(Clone, Copy, Default, Debug)]
pub struct FetchedRecord<'a> {
    pub offset: Offset,
    /// As its producer set it, ms since the Unix epoch.
    pub timestamp_ms: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

impl FetchedBatch {
    pub(super) fn empty(
        assignment: AssignmentId,
        topic: &Arc<str>,
        partition: u32,
        buffer: &Arc<Vec<u8>>,
    ) -> Self {
        Self {
            assignment,
            topic: Arc::clone(topic),
            partition,
            first_offset: Offset(0),
            base_offset: Offset(0),
            end_offset: Offset(0),
            epoch: Epoch(0),
            append_time_ms: 0,
            compression: Compression::None,
            buffer: Arc::clone(buffer),
            range: 0..0,
            is_packed: false,
        }
    }

    /// The batch as its producer built it, before it was perhaps compressed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.buffer.get(self.range.clone()).unwrap_or_default()
    }

    /// What it counts in the budget of its consumer.
    pub(super) fn bytes(&self) -> usize {
        self.range.len()
    }

    /// Makes the records of a compressed batch readable, in a buffer of its own.
    pub(super) fn unpack(mut self, codec: &mut Codec) -> Result<Self, Error> {
        if self.is_packed {
            let (first, end) = (self.first_offset, self.end_offset);
            let plain = codec.unpack(self.as_bytes());
            let plain = plain.map_err(|fault| Error::Unpack { first, end, fault })?;
            self.range = 0..plain.len();
            self.buffer = Arc::new(plain);
            self.is_packed = false;
        }
        Ok(self)
    }

    /// Records from [`first_offset`](Self::first_offset) on.
    #[must_use]
    pub fn record_count(&self) -> u64 {
        self.end_offset.0 - self.first_offset.0
    }

    /// The records from [`first_offset`](Self::first_offset) on, without copying.
    pub fn records(&self) -> impl Iterator<Item = FetchedRecord<'_>> {
        // Checked when it was fetched or unpacked, so neither the view nor a record fails here.
        let records = BatchView::check_header(self.as_bytes()).ok().map(|view| view.records());
        let base = self.base_offset;
        let skip = (self.first_offset.0 - base.0) as usize;
        records
            .into_iter()
            .flatten()
            .map_while(Result::ok)
            .skip(skip)
            .map(move |record| FetchedRecord::new(base.advance(u64::from(record.index)), &record))
    }
}

impl<'a> FetchedRecord<'a> {
    pub(super) fn new(offset: Offset, record: &Record<'a>) -> Self {
        Self {
            offset,
            timestamp_ms: record.timestamp,
            key: record.key,
            value: record.value,
            headers: record.headers(),
        }
    }
}

impl fmt::Debug for FetchedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchedBatch")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("offsets", &(self.first_offset..self.end_offset))
            .field("bytes", &self.range.len())
            .finish_non_exhaustive()
    }
}

/// Checks the entries in `range` of the template's buffer, and hands on those that hold `next` or
/// follow it. `next` moves along. What was sound before an error is handed on.
pub(super) fn accept_entries(
    template: &mut FetchedBatch,
    id: PartitionId,
    next: &mut Offset,
    fetched: &FetchedPartition,
    range: Range<usize>,
    mut keep: impl FnMut(FetchedBatch),
) -> Result<(), Error> {
    let buffer = Arc::clone(&template.buffer);
    let mut at = range.start;
    let mut is_first = true;
    while at < range.end {
        let expected = *next;
        let corrupt = |reason| Error::CorruptEntry { expected, reason };
        let bytes = buffer.get(at..range.end).ok_or(corrupt("cut short"))?;
        let header = EntryHeader::decode(bytes).map_err(|_| corrupt("header"))?;
        if header.kind != EntryKind::Batch {
            return Err(corrupt("not a batch"));
        }
        if header.partition != id {
            return Err(corrupt("of another partition"));
        }
        let body = at + ENTRY_HEADER_BYTES..at + ENTRY_HEADER_BYTES + header.body_len as usize;
        let end = at + entry_bytes(header.body_len as usize);
        if end > range.end {
            return Err(corrupt("cut short"));
        }
        let view = buffer
            .get(body.clone())
            .and_then(|batch| BatchView::parse(batch).ok())
            .ok_or(corrupt("batch"))?;
        if view.stored_crc() != header.body_crc {
            return Err(corrupt("body of another header"));
        }
        if view.header().record_count != header.record_count {
            return Err(corrupt("record count"));
        }
        let base = header.base_offset;
        let count = u64::from(header.record_count);
        let Some(after) = base.0.checked_add(count).map(Offset) else {
            return Err(corrupt("offset overflow"));
        };
        // The first entry may begin before what was asked for; it must hold it.
        let follows = if is_first { base <= *next && *next < after } else { base == *next };
        if !follows {
            return Err(Error::NotDense { expected: *next, found: base });
        }
        if after > fetched.committed_end {
            return Err(corrupt("not committed"));
        }
        keep(FetchedBatch {
            first_offset: *next,
            base_offset: base,
            end_offset: after,
            epoch: header.epoch,
            append_time_ms: header.append_time,
            compression: view.header().compression,
            is_packed: view.header().compression != Compression::None,
            range: body,
            ..template.clone()
        });
        *next = after;
        at = end;
        is_first = false;
    }
    Ok(())
}
