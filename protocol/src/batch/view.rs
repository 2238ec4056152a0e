//! A batch, read where it lies.

use std::iter::FusedIterator;

use super::check::RecordCheck;
use super::error::BatchError;
use super::header::{BATCH_HEADER_BYTES, BatchHeader, Compression};
use super::record::Record;
use crate::checksum::crc32c;
use crate::layout::u32_at;

/// A batch whose header is sound. Borrows its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchView<'a> {
    header: BatchHeader,
    stored_crc: u32,
    bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// All checks at once. The records of a compressed batch are not walked.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let view = Self::check_header(bytes)?;
        view.check_crc()?;
        if view.header.compression == Compression::None {
            view.check_records()?;
        }
        Ok(view)
    }

    /// Checks the header, and that it and its records fill `bytes` exactly. Some ns.
    #[inline]
    pub fn check_header(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let header = BatchHeader::check(bytes, bytes.len())?;
        // The header has just been checked, so its first bytes are there.
        let stored_crc = bytes.first_chunk::<4>().map_or(0, |crc| u32_at(crc, 0));
        Ok(Self { header, stored_crc, bytes })
    }

    /// Checks the checksum: reads every byte once.
    #[inline]
    pub fn check_crc(&self) -> Result<(), BatchError> {
        self.check_crc_against(crc32c(&self.bytes[4..]))
    }

    /// Checks the checksum against one that was [computed](crate::checksum::Crc) over all bytes
    /// after the first four, while they arrived.
    #[inline]
    pub fn check_crc_against(&self, computed: u32) -> Result<(), BatchError> {
        if computed == self.stored_crc {
            Ok(())
        } else {
            Err(BatchError::Crc { stored: self.stored_crc, computed })
        }
    }

    /// Walks all records: their structure, their number, their timestamps, their headers' names.
    /// Touches lengths and names, not keys and values. For a walk in steps see [`RecordCheck`].
    pub fn check_records(&self) -> Result<(), BatchError> {
        let mut check = RecordCheck::new(self)?;
        while !check.advance(self, usize::MAX)? {}
        Ok(())
    }

    /// What the batch says of itself.
    #[inline]
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The checksum that the batch carries: its first four bytes.
    #[inline]
    pub const fn stored_crc(&self) -> u32 {
        self.stored_crc
    }

    /// Header and records.
    #[inline]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The records as they lie in the batch, perhaps compressed.
    #[inline]
    pub fn record_bytes(&self) -> &'a [u8] {
        &self.bytes[BATCH_HEADER_BYTES..]
    }

    /// The record at `cursor`, which moves to the next one. `None`, and no move, after the last; an
    /// error if the cursor is of another batch, or the records are not sound.
    pub fn next_record(&self, cursor: &mut RecordCursor) -> Result<Option<Record<'a>>, BatchError> {
        let header = &self.header;
        if header.compression != Compression::None {
            return Err(BatchError::Compressed { compression: header.compression });
        }
        if cursor.index >= header.record_count {
            return Ok(None);
        }
        let all = self.record_bytes();
        let mut rest = all.get(cursor.position..).unwrap_or_default();
        let (base, max) = (header.base_timestamp, header.max_timestamp);
        let record = Record::take(&mut rest, cursor.index, base, max)
            .map_err(|fault| BatchError::Record { index: cursor.index, fault })?;
        *cursor = RecordCursor { position: all.len() - rest.len(), index: cursor.index + 1 };
        Ok(Some(record))
    }

    /// The records in order, without copying. Checks as it goes, and ends after the first error.
    /// The only item of a compressed batch is [`BatchError::Compressed`].
    pub fn records(&self) -> Records<'a> {
        Records { bytes: self.record_bytes(), header: self.header, index: 0, failed: false }
    }
}

/// A place in a batch. Borrows nothing, so it can be kept beside the batch. The default is the first
/// record.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RecordCursor {
    /// In the record bytes.
    position: usize,
    index: u32,
}

/// The records of a batch.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    header: BatchHeader,
    index: u32,
    failed: bool,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if self.header.compression != Compression::None {
            self.failed = true;
            return Some(Err(BatchError::Compressed { compression: self.header.compression }));
        }
        if self.index == self.header.record_count {
            if self.bytes.is_empty() {
                return None;
            }
            self.failed = true;
            return Some(Err(BatchError::TrailingBytes { bytes: self.bytes.len() as u64 }));
        }
        let (base, max) = (self.header.base_timestamp, self.header.max_timestamp);
        let record = Record::take(&mut self.bytes, self.index, base, max)
            .map_err(|fault| BatchError::Record { index: self.index, fault });
        self.failed = record.is_err();
        self.index += 1;
        Some(record)
    }
}

impl FusedIterator for Records<'_> {}
