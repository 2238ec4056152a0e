//! The header in front of each entry of a lane, on disk and in replies to fetches.
//!
//! The broker stamps it; the body behind it is what the producer sent, and is never re-encoded.
//! Each body, of any kind, starts with the CRC32C of its rest, and the header repeats it: so header
//! and body cannot be mixed up. Entries are 8-aligned: the next one starts at
//! [`entry_bytes`]`(body_len)`.

use std::error::Error;
use std::fmt;
use std::iter::FusedIterator;

use crate::checksum::{Crc, crc32c};
use crate::ids::{Epoch, LaneId, Lsn, Offset, PartitionId};
use crate::layout::{i64_at, pad8, put, u16_at, u32_at, u64_at};

/// Length of an entry header.
pub const ENTRY_HEADER_BYTES: usize = 64;

/// Every body starts with its checksum.
pub const ENTRY_BODY_BYTES_MIN: usize = 4;

/// The first two bytes of an entry: `CE` when read in order.
pub const ENTRY_MAGIC: u16 = u16::from_le_bytes(*b"CE");

/// The version of entry headers that this crate writes and reads.
pub const ENTRY_VERSION: u8 = 1;

/// Bytes of an entry with such a body, with its header and its zero padding to 8.
#[inline]
#[must_use]
pub const fn entry_bytes(body_len: usize) -> usize {
    ENTRY_HEADER_BYTES + pad8(body_len)
}

/// What an entry's body is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum EntryKind {
    /// A batch of records, as its producer sent it.
    Batch = 1,
    /// A leader begins its epoch.
    EpochStart = 2,
    /// Offsets and state of consumer groups.
    GroupOffsets = 3,
    /// Leases and redelivery of queues.
    QueueState = 4,
    /// Deduplication.
    ProducerState = 5,
    /// A partition's log start moved.
    LogStart = 6,
    /// The partition ends in this lane.
    Seal = 7,
    /// The partition begins in this lane.
    Open = 8,
    /// The fold of everything before it.
    Checkpoint = 9,
    /// Says nothing; covers the durable LSN of a lane that falls idle.
    Padding = 10,
    /// A change of the metadata.
    Metadata = 11,
}

impl EntryKind {
    /// All kinds, by number.
    pub const ALL: [Self; 11] = [
        Self::Batch,
        Self::EpochStart,
        Self::GroupOffsets,
        Self::QueueState,
        Self::ProducerState,
        Self::LogStart,
        Self::Seal,
        Self::Open,
        Self::Checkpoint,
        Self::Padding,
        Self::Metadata,
    ];

    /// The kind with this number, if it is known here.
    pub const fn from_wire(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Batch),
            2 => Some(Self::EpochStart),
            3 => Some(Self::GroupOffsets),
            4 => Some(Self::QueueState),
            5 => Some(Self::ProducerState),
            6 => Some(Self::LogStart),
            7 => Some(Self::Seal),
            8 => Some(Self::Open),
            9 => Some(Self::Checkpoint),
            10 => Some(Self::Padding),
            11 => Some(Self::Metadata),
            _ => None,
        }
    }

    /// Its number on the wire and on disk.
    pub const fn to_wire(self) -> u8 {
        self as u8
    }
}

/// Where an entry lies, and what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryHeader {
    /// What the body is.
    pub kind: EntryKind,
    /// Bytes of the body, without padding. At least 4.
    pub body_len: u32,
    /// Records in the body: 0 for all kinds but [`EntryKind::Batch`].
    pub record_count: u32,
    /// The partition, or 0 for entries of the lane itself.
    pub partition: PartitionId,
    /// The first four bytes of the body: CRC32C of its rest.
    pub body_crc: u32,
    /// Its position in the lane.
    pub lsn: Lsn,
    /// The epoch in which it was appended.
    pub epoch: Epoch,
    /// Offset of the first record.
    pub base_offset: Offset,
    /// When it was appended, ms since 1970.
    pub append_time: i64,
    /// The lane.
    pub lane: LaneId,
}

/// Why bytes are no entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the fields' names say it")]
pub enum EntryError {
    /// Fewer bytes than an entry of this size has.
    Incomplete { have: usize, need: usize },
    /// The header is damaged, or it is no header.
    HeaderCrc,
    /// An intact header of something else.
    Magic,
    /// Intact, but of a version that is not known here.
    Version { version: u8 },
    /// Intact, but of a kind that is not known here.
    Kind { kind: u8 },
    /// A reserved field is not zero.
    Reserved,
    /// A body shorter than its checksum, or record counts that do not fit the kind.
    Counts,
    /// The padding after the body is not zero.
    Padding,
    /// The body is damaged, or is the body of another header.
    BodyCrc { stored: u32, computed: u32 },
}

impl EntryHeader {
    /// The bytes to store.
    #[inline]
    pub fn encode(&self) -> [u8; ENTRY_HEADER_BYTES] {
        let mut bytes = [0; ENTRY_HEADER_BYTES];
        put(&mut bytes, 0, ENTRY_MAGIC.to_le_bytes());
        bytes[2] = ENTRY_VERSION;
        bytes[3] = self.kind.to_wire();
        put(&mut bytes, 8, self.body_len.to_le_bytes());
        put(&mut bytes, 12, self.record_count.to_le_bytes());
        put(&mut bytes, 16, self.partition.0.to_le_bytes());
        put(&mut bytes, 20, self.body_crc.to_le_bytes());
        put(&mut bytes, 24, self.lsn.0.to_le_bytes());
        put(&mut bytes, 32, self.epoch.0.to_le_bytes());
        put(&mut bytes, 40, self.base_offset.0.to_le_bytes());
        put(&mut bytes, 48, self.append_time.to_le_bytes());
        put(&mut bytes, 56, self.lane.0.to_le_bytes());
        let crc = header_crc(&bytes);
        put(&mut bytes, 4, crc.to_le_bytes());
        bytes
    }

    /// Reads a header from the start of `bytes`. The body is not looked at.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let Some(bytes) = bytes.first_chunk::<ENTRY_HEADER_BYTES>() else {
            let need = ENTRY_HEADER_BYTES;
            return Err(EntryError::Incomplete { have: bytes.len(), need });
        };
        if u32_at(bytes, 4) != header_crc(bytes) {
            return Err(EntryError::HeaderCrc);
        }
        if u16_at(bytes, 0) != ENTRY_MAGIC {
            return Err(EntryError::Magic);
        }
        if bytes[2] != ENTRY_VERSION {
            return Err(EntryError::Version { version: bytes[2] });
        }
        let Some(kind) = EntryKind::from_wire(bytes[3]) else {
            return Err(EntryError::Kind { kind: bytes[3] });
        };
        if u32_at(bytes, 60) != 0 {
            return Err(EntryError::Reserved);
        }
        let header = Self {
            kind,
            body_len: u32_at(bytes, 8),
            record_count: u32_at(bytes, 12),
            partition: PartitionId(u32_at(bytes, 16)),
            body_crc: u32_at(bytes, 20),
            lsn: Lsn(u64_at(bytes, 24)),
            epoch: Epoch(u64_at(bytes, 32)),
            base_offset: Offset(u64_at(bytes, 40)),
            append_time: i64_at(bytes, 48),
            lane: LaneId(u32_at(bytes, 56)),
        };
        let is_batch = kind == EntryKind::Batch;
        if (header.body_len as usize) < ENTRY_BODY_BYTES_MIN
            || is_batch != (header.record_count > 0)
            || header.base_offset.0.checked_add(u64::from(header.record_count)).is_none()
            || header.lsn.0 == u64::MAX
        {
            return Err(EntryError::Counts);
        }
        Ok(header)
    }

    /// Checks the body against this header and against its own checksum. `body` has `body_len`
    /// bytes, no padding.
    #[inline]
    pub fn check_body(&self, body: &[u8]) -> Result<(), EntryError> {
        let need = self.body_len as usize;
        let Some((stored, rest)) = body.split_first_chunk::<4>() else {
            return Err(EntryError::Incomplete { have: body.len(), need });
        };
        if body.len() != need {
            return Err(EntryError::Incomplete { have: body.len(), need });
        }
        let stored = u32::from_le_bytes(*stored);
        let computed = crc32c(rest);
        if stored != computed || stored != self.body_crc {
            return Err(EntryError::BodyCrc { stored: self.body_crc, computed });
        }
        Ok(())
    }

    /// Bytes of the whole entry, with header and padding.
    #[inline]
    pub const fn entry_bytes(&self) -> usize {
        entry_bytes(self.body_len as usize)
    }

    /// The offset after the last record.
    #[inline]
    pub const fn next_offset(&self) -> Offset {
        self.base_offset.advance(self.record_count as u64)
    }
}

/// The checksum that a header has stored in itself, for digests over many headers.
#[inline]
#[must_use]
pub fn stored_header_crc(header: &[u8; ENTRY_HEADER_BYTES]) -> u32 {
    u32_at(header, 4)
}

/// Over all of the header but the checksum itself.
#[inline]
fn header_crc(bytes: &[u8; ENTRY_HEADER_BYTES]) -> u32 {
    let mut crc = Crc::new();
    crc.update(&bytes[..4]);
    crc.update(&bytes[8..]);
    crc.value()
}

/// Walks the entries that lie one after the other in a slice, each with its padding: the payload
/// of a fetch, or the inside of a commit. Checks header, body and padding. Ends after an error.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Entries<'a> {
    /// From the first byte of an entry to the last one's padding.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take(&mut self) -> Result<(EntryHeader, &'a [u8]), EntryError> {
        let header = EntryHeader::decode(self.rest)?;
        let need = header.entry_bytes();
        let Some((entry, rest)) = self.rest.split_at_checked(need) else {
            return Err(EntryError::Incomplete { have: self.rest.len(), need });
        };
        // entry_bytes covers header, body and padding.
        let (body, padding) = entry[ENTRY_HEADER_BYTES..].split_at(header.body_len as usize);
        header.check_body(body)?;
        if padding.iter().any(|&byte| byte != 0) {
            return Err(EntryError::Padding);
        }
        self.rest = rest;
        Ok((header, body))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<(EntryHeader, &'a [u8]), EntryError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = self.take();
        if entry.is_err() {
            self.rest = &[];
        }
        Some(entry)
    }
}

impl FusedIterator for Entries<'_> {}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete { have, need } => write!(f, "{have} of {need} entry bytes"),
            Self::HeaderCrc => f.write_str("entry header checksum does not match"),
            Self::Magic => f.write_str("not an entry"),
            Self::Version { version } => write!(f, "entry version {version} is not known"),
            Self::Kind { kind } => write!(f, "entry kind {kind} is not known"),
            Self::Reserved => f.write_str("a reserved entry field is not zero"),
            Self::Counts => f.write_str("entry counts contradict each other"),
            Self::Padding => f.write_str("entry padding is not zero"),
            Self::BodyCrc { stored, computed } => {
                write!(f, "entry body checksum is {computed:#010x}, header says {stored:#010x}")
            }
        }
    }
}

impl Error for EntryError {}
