//! Why bytes are no batch.

use std::error::Error;
use std::fmt;

use super::header::Compression;
use crate::error_code::ErrorCode;

/// Why bytes are no batch, or why its records cannot be read here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the fields' names say it")]
pub enum BatchError {
    /// Shorter than a batch header.
    TooShort { have: usize },
    /// Of a format that is not known here.
    Format { format: u8 },
    /// An attribute bit or compression that is not known here.
    Attributes { attributes: u8 },
    /// A reserved field is not zero, or a sequence is given without a producer.
    Reserved,
    /// Header and records do not fill the given bytes exactly.
    Length { declared: u64, actual: u64 },
    /// No records, more than allowed, or more than fit into that many bytes.
    RecordCount { count: u32, records_len: u32 },
    /// The greatest timestamp is below the base timestamp of its only record, or the like.
    Timestamps,
    /// Damaged on its way or on the disk.
    Crc { stored: u32, computed: u32 },
    /// The record with this index breaks a rule.
    Record { index: u32, fault: RecordFault },
    /// There are bytes after the last record.
    TrailingBytes { bytes: u64 },
    /// The records are compressed: they must be decompressed before they can be walked.
    Compressed { compression: Compression },
}

/// What is wrong with a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordFault {
    /// It ends before it is complete.
    Truncated,
    /// A number is too large for its field, or not written in its shortest form.
    Varint,
    /// Its timestamp overflows, or lies above the batch's greatest.
    Timestamp,
    /// A header's name is not UTF-8, or too long.
    HeaderName,
    /// Too many headers.
    HeaderCount,
    /// Its parts do not fill its length exactly.
    Length,
}

impl BatchError {
    /// What to answer to a producer.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Crc { .. } => ErrorCode::CorruptBatch,
            Self::Format { .. } | Self::Attributes { .. } | Self::Compressed { .. } => {
                ErrorCode::Unsupported
            }
            _ => ErrorCode::InvalidBatch,
        }
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { have } => write!(f, "a batch of {have} bytes has no header"),
            Self::Format { format } => write!(f, "batch format {format} is not known"),
            Self::Attributes { attributes } => {
                write!(f, "batch attributes {attributes:#04x} are not known")
            }
            Self::Reserved => f.write_str("a reserved batch field is not zero"),
            Self::Length { declared, actual } => {
                write!(f, "batch declares {declared} bytes and has {actual}")
            }
            Self::RecordCount { count, records_len } => {
                write!(f, "batch declares {count} records in {records_len} bytes")
            }
            Self::Timestamps => f.write_str("batch timestamps contradict its records"),
            Self::Crc { stored, computed } => {
                write!(f, "batch checksum is {computed:#010x}, header says {stored:#010x}")
            }
            Self::Record { index, fault } => write!(f, "record {index}: {fault}"),
            Self::TrailingBytes { bytes } => write!(f, "{bytes} bytes after the last record"),
            Self::Compressed { compression } => {
                write!(f, "records are compressed with {}", compression.name())
            }
        }
    }
}

impl fmt::Display for RecordFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "ends before it is complete",
            Self::Varint => "a number is too large or not in its shortest form",
            Self::Timestamp => "timestamp out of bounds",
            Self::HeaderName => "a header name is not UTF-8 or too long",
            Self::HeaderCount => "too many headers",
            Self::Length => "its parts do not fill its length",
        })
    }
}

impl Error for BatchError {}
