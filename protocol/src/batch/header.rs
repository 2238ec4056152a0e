//! The fixed part in front of a batch's records.

use std::fmt;
use std::str::FromStr;

use super::error::BatchError;
use crate::checksum::crc32c;
use crate::ids::ProducerId;
use crate::layout::{i64_at, put, u16_at, u32_at, u64_at};

/// Length of a batch header.
pub const BATCH_HEADER_BYTES: usize = 48;

/// The format of batches that this crate writes and reads.
pub const BATCH_FORMAT: u8 = 1;

/// The shortest record: length, timestamp delta, no key, no value, no headers; a byte each.
pub const RECORD_BYTES_MIN: usize = 5;

/// Records in a batch. Bounds the offsets that a few compressed bytes can take.
pub const RECORDS_PER_BATCH_MAX: u32 = 1 << 20;

/// Bits 0 and 1 of the attributes.
const COMPRESSION_MASK: u8 = 0b11;

/// How the records are compressed, as one block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Compression {
    /// They are not.
    #[default]
    None = 0,
    /// LZ4.
    Lz4 = 1,
    /// Zstandard.
    Zstd = 2,
}

impl Compression {
    /// The codec with this number, if it is known here.
    pub const fn from_wire(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::None),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Its number in the attributes.
    pub const fn to_wire(self) -> u8 {
        self as u8
    }

    /// Its name in configuration and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no compression.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownCompression;

impl fmt::Display for UnknownCompression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a compression: expected none, lz4 or zstd")
    }
}

impl std::error::Error for UnknownCompression {}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, UnknownCompression> {
        let all = [Self::None, Self::Lz4, Self::Zstd];
        all.into_iter().find(|known| known.name() == name).ok_or(UnknownCompression)
    }
}

/// What a batch says of itself, without the checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchHeader {
    /// How the records are compressed.
    pub compression: Compression,
    /// Bytes of the records, as they lie in the batch.
    pub records_len: u32,
    /// Records: 1 to [`RECORDS_PER_BATCH_MAX`].
    pub record_count: u32,
    /// What the records' timestamp deltas count from, ms since 1970. The first record's timestamp.
    pub base_timestamp: i64,
    /// The greatest timestamp of the records, ms since 1970.
    pub max_timestamp: i64,
    /// For deduplication. 0: none, and then the next two are 0 as well.
    pub producer_id: ProducerId,
    /// Sequence of the first record at this producer, in this partition.
    pub base_sequence: u32,
    /// Life of the producer id.
    pub producer_epoch: u16,
}

/// Names the producer of a finished batch anew, and its checksum.
///
/// # Panics
/// If `batch` is shorter than a header, or the id is 0, which means none.
pub fn set_producer(batch: &mut [u8], id: ProducerId, epoch: u16, base_sequence: u32) {
    assert!(id != ProducerId(0), "producer id 0 means none");
    batch[32..40].copy_from_slice(&id.0.to_le_bytes());
    batch[40..44].copy_from_slice(&base_sequence.to_le_bytes());
    batch[44..46].copy_from_slice(&epoch.to_le_bytes());
    let crc = crc32c(&batch[4..]);
    batch[..4].copy_from_slice(&crc.to_le_bytes());
}

impl BatchHeader {
    /// Header bytes, with a checksum over them and `records`.
    pub(crate) fn encode(&self, records: &[u8]) -> [u8; BATCH_HEADER_BYTES] {
        let mut bytes = [0; BATCH_HEADER_BYTES];
        bytes[4] = BATCH_FORMAT;
        bytes[5] = self.compression.to_wire();
        put(&mut bytes, 8, self.records_len.to_le_bytes());
        put(&mut bytes, 12, self.record_count.to_le_bytes());
        put(&mut bytes, 16, self.base_timestamp.to_le_bytes());
        put(&mut bytes, 24, self.max_timestamp.to_le_bytes());
        put(&mut bytes, 32, self.producer_id.0.to_le_bytes());
        put(&mut bytes, 40, self.base_sequence.to_le_bytes());
        put(&mut bytes, 44, self.producer_epoch.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c(&bytes[4..]), records);
        put(&mut bytes, 0, crc.to_le_bytes());
        bytes
    }

    /// Writes this header in front of the same records in another encoding: of `batch`, all from
    /// [`BATCH_HEADER_BYTES`] on is the records, encoded as `compression` says. Their length and the
    /// checksum are made anew, everything else stays.
    ///
    /// # Panics
    /// If `batch` has no room for the header, or more than 4 GiB.
    pub fn seal(&self, compression: Compression, batch: &mut [u8]) {
        let (head, records) = batch.split_at_mut(BATCH_HEADER_BYTES);
        let records_len = u32::try_from(records.len()).expect("batches are at most 1 GiB");
        head.copy_from_slice(&Self { compression, records_len, ..*self }.encode(records));
    }

    /// Reads the header at the start of `bytes`, of a batch that has `batch_len` bytes in all.
    /// Only the header need have arrived. Says nothing about the checksum.
    #[inline]
    pub fn check(bytes: &[u8], batch_len: usize) -> Result<Self, BatchError> {
        let Some(bytes) = bytes.first_chunk::<BATCH_HEADER_BYTES>() else {
            return Err(BatchError::TooShort { have: bytes.len() });
        };
        if bytes[4] != BATCH_FORMAT {
            return Err(BatchError::Format { format: bytes[4] });
        }
        let attributes = bytes[5];
        let compression = match Compression::from_wire(attributes & COMPRESSION_MASK) {
            Some(compression) if attributes & !COMPRESSION_MASK == 0 => compression,
            _ => return Err(BatchError::Attributes { attributes }),
        };
        let header = Self {
            compression,
            records_len: u32_at(bytes, 8),
            record_count: u32_at(bytes, 12),
            base_timestamp: i64_at(bytes, 16),
            max_timestamp: i64_at(bytes, 24),
            producer_id: ProducerId(u64_at(bytes, 32)),
            base_sequence: u32_at(bytes, 40),
            producer_epoch: u16_at(bytes, 44),
        };
        let anonymous = header.producer_id == ProducerId(0);
        if u16_at(bytes, 6) != 0
            || u16_at(bytes, 46) != 0
            || anonymous && (header.base_sequence != 0 || header.producer_epoch != 0)
        {
            return Err(BatchError::Reserved);
        }
        let declared = BATCH_HEADER_BYTES as u64 + u64::from(header.records_len);
        if declared != batch_len as u64 {
            return Err(BatchError::Length { declared, actual: batch_len as u64 });
        }
        header.check_counts()?;
        if header.max_timestamp < header.base_timestamp {
            return Err(BatchError::Timestamps);
        }
        Ok(header)
    }

    fn check_counts(&self) -> Result<(), BatchError> {
        let Self { record_count: count, records_len, .. } = *self;
        let fits = match self.compression {
            Compression::None => {
                u64::from(count) * RECORD_BYTES_MIN as u64 <= u64::from(records_len)
            }
            Compression::Lz4 | Compression::Zstd => records_len > 0,
        };
        if count == 0 || count > RECORDS_PER_BATCH_MAX || !fits {
            return Err(BatchError::RecordCount { count, records_len });
        }
        Ok(())
    }

    /// Bytes of the whole batch.
    #[inline]
    pub const fn batch_bytes(&self) -> usize {
        BATCH_HEADER_BYTES + self.records_len as usize
    }
}
