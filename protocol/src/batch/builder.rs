//! Writes a batch, record by record, into a buffer that it uses again.

use std::error::Error;
use std::fmt;

use super::header::{BATCH_HEADER_BYTES, BatchHeader, Compression, RECORDS_PER_BATCH_MAX};
use super::record::NewRecord;
use crate::ids::ProducerId;

/// A batch under construction.
///
/// ```
/// use corelog_protocol::batch::{BatchBuilder, BatchView, NewRecord};
///
/// let mut builder = BatchBuilder::new(64 << 10, 1000);
/// builder.push(&NewRecord { timestamp: 7, value: Some(b"hello"), ..NewRecord::default() })?;
/// let bytes = builder.finish();
/// let record = BatchView::parse(bytes)?.records().next().unwrap()?;
/// assert_eq!(record.value, Some(&b"hello"[..]));
/// builder.clear();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    /// Room for the header, then the records.
    buffer: Vec<u8>,
    bytes_max: usize,
    records_max: u32,
    record_count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
    producer_id: ProducerId,
    producer_epoch: u16,
    base_sequence: u32,
}

/// Why a record was not added. The batch is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the fields' names say it")]
pub enum PushError {
    /// It does not fit any more: send this batch, then push again.
    Full,
    /// It does not fit into any batch of this size.
    TooLarge { bytes: usize, bytes_max: usize },
    /// Its timestamp is more than half of all time away from the first one: send this batch first.
    TimestampSpread,
    /// More headers than [`HEADERS_PER_RECORD_MAX`](super::HEADERS_PER_RECORD_MAX), or a name
    /// longer than [`HEADER_NAME_BYTES_MAX`](super::HEADER_NAME_BYTES_MAX).
    Headers,
}

impl BatchBuilder {
    /// For batches of at most `bytes_max` bytes, header included, and at most `records_max`
    /// records. The buffer grows as it is filled, and is then kept.
    ///
    /// # Panics
    /// If `bytes_max` leaves no room for a record or is above 1 GiB, or `records_max` is 0 or above
    /// [`RECORDS_PER_BATCH_MAX`].
    #[must_use]
    pub fn new(bytes_max: usize, records_max: u32) -> Self {
        assert!(bytes_max > BATCH_HEADER_BYTES);
        assert!(bytes_max <= 1 << 30);
        assert!(records_max > 0);
        assert!(records_max <= RECORDS_PER_BATCH_MAX);
        Self {
            buffer: vec![0; BATCH_HEADER_BYTES],
            bytes_max,
            records_max,
            record_count: 0,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: ProducerId(0),
            producer_epoch: 0,
            base_sequence: 0,
        }
    }

    /// Names the producer of this batch and the sequence of its first record. Survives
    /// [`clear`](Self::clear) only as "none".
    pub fn set_producer(&mut self, id: ProducerId, epoch: u16, base_sequence: u32) {
        assert!(id != ProducerId(0), "producer id 0 means none");
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
    }

    /// Adds a record, or leaves the batch as it was.
    pub fn push(&mut self, record: &NewRecord<'_>) -> Result<(), PushError> {
        if !record.headers_are_in_bounds() {
            return Err(PushError::Headers);
        }
        let first = self.record_count == 0;
        let base_timestamp = if first { record.timestamp } else { self.base_timestamp };
        let Some(delta) = record.timestamp.checked_sub(base_timestamp) else {
            return Err(PushError::TimestampSpread);
        };
        let (inner, bytes) = record.encoded_bytes(delta);
        let alone = BATCH_HEADER_BYTES + bytes;
        if alone > self.bytes_max {
            return Err(PushError::TooLarge { bytes: alone, bytes_max: self.bytes_max });
        }
        if self.record_count == self.records_max || self.buffer.len() + bytes > self.bytes_max {
            return Err(PushError::Full);
        }
        let before = self.buffer.len();
        record.put(&mut self.buffer, inner, delta);
        assert!(self.buffer.len() == before + bytes);
        self.base_timestamp = base_timestamp;
        self.max_timestamp =
            if first { record.timestamp } else { self.max_timestamp.max(record.timestamp) };
        self.record_count += 1;
        Ok(())
    }

    /// Records so far.
    #[must_use]
    pub const fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Whether there is no record yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Bytes that the batch would have now, header included.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Writes the header and gives the batch. More records may be pushed after it, and the batch
    /// finished again; [`clear`](Self::clear) begins a new one.
    ///
    /// # Panics
    /// If there is no record: an empty batch does not exist.
    pub fn finish(&mut self) -> &[u8] {
        assert!(self.record_count > 0, "an empty batch does not exist");
        let records = self.buffer.len() - BATCH_HEADER_BYTES;
        let header = BatchHeader {
            compression: Compression::None,
            records_len: u32::try_from(records).expect("batches are at most 1 GiB"),
            record_count: self.record_count,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: self.producer_id,
            base_sequence: self.base_sequence,
            producer_epoch: self.producer_epoch,
        };
        let header = header.encode(&self.buffer[BATCH_HEADER_BYTES..]);
        self.buffer[..BATCH_HEADER_BYTES].copy_from_slice(&header);
        &self.buffer
    }

    /// Finishes the batch and gives its buffer away, for a queue of sends. The builder is empty
    /// then, and continues in `spare`, whose contents do not matter.
    pub fn take(&mut self, spare: Vec<u8>) -> Vec<u8> {
        self.finish();
        let batch = std::mem::replace(&mut self.buffer, spare);
        self.clear();
        batch
    }

    /// Begins a new batch in the same buffer, without a producer.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.buffer.resize(BATCH_HEADER_BYTES, 0);
        self.record_count = 0;
        self.producer_id = ProducerId(0);
        self.producer_epoch = 0;
        self.base_sequence = 0;
    }
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the batch is full"),
            Self::TooLarge { bytes, bytes_max } => {
                write!(f, "a batch with this record has {bytes} bytes, above {bytes_max}")
            }
            Self::Headers => f.write_str("too many headers, or a name too long"),
            Self::TimestampSpread => f.write_str("timestamps too far apart for one batch"),
        }
    }
}

impl Error for PushError {}
