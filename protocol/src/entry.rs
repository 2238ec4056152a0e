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

/// The partition that a replica's own checkpoints name.
pub const LOCAL_PARTITION: PartitionId = PartitionId(u32::MAX);

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
    /// The fold of everything before it. Local if its partition is [`LOCAL_PARTITION`].
    Checkpoint = 9,
    /// Says nothing; covers the durable LSN of a lane that falls idle. Local.
    Padding = 10,
    /// A change of the metadata, as brokers wrote it before its group. Still read.
    Metadata = 11,
    /// A record of the metadata's Raft group.
    Consensus = 12,
}

impl EntryKind {
    /// All kinds, by number.
    pub const ALL: [Self; 12] = [
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
        Self::Consensus,
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
            12 => Some(Self::Consensus),
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

    /// Written by one replica for itself: it has the LSN of the entry that follows it, and takes none.
    /// So replicas agree about LSNs, though each begins its segments when it likes.
    #[inline]
    #[must_use]
    pub const fn is_local(&self) -> bool {
        match self.kind {
            EntryKind::Padding => true,
            EntryKind::Checkpoint => self.partition.0 == LOCAL_PARTITION.0,
            _ => false,
        }
    }

    /// The LSN of the next entry.
    #[inline]
    #[must_use]
    pub const fn next_lsn(&self) -> Lsn {
        if self.is_local() { self.lsn } else { self.lsn.next() }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A body whose first four bytes are the checksum of its rest.
    fn body_of(rest: &[u8]) -> Vec<u8> {
        [&crc32c(rest).to_le_bytes(), rest].concat()
    }

    fn header_of(body: &[u8], lsn: u64) -> EntryHeader {
        EntryHeader {
            kind: EntryKind::Batch,
            body_len: body.len() as u32,
            record_count: 2,
            partition: PartitionId(7),
            body_crc: u32::from_le_bytes(*body.first_chunk().unwrap()),
            lsn: Lsn(lsn),
            epoch: Epoch(3),
            base_offset: Offset(2 * lsn),
            append_time: -1,
            lane: LaneId(5),
        }
    }

    fn entry_of(body: &[u8], lsn: u64) -> Vec<u8> {
        let mut entry = [&header_of(body, lsn).encode(), body].concat();
        entry.resize(entry_bytes(body.len()), 0);
        entry
    }

    /// A header with one byte replaced and its checksum made right.
    fn decode_with(at: usize, value: u8) -> Result<EntryHeader, EntryError> {
        let mut bytes = header_of(&body_of(b"some"), 9).encode();
        bytes[at] = value;
        let crc = header_crc(&bytes);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        EntryHeader::decode(&bytes)
    }

    #[test]
    fn a_sound_body_under_the_header_of_another_entry_is_noticed() {
        let (ours, other) = (body_of(b"ours"), body_of(b"othe"));
        let header = header_of(&ours, 0);
        assert_eq!(header.check_body(&ours), Ok(()));
        let verdict = header.check_body(&other);
        assert!(
            matches!(verdict, Err(EntryError::BodyCrc { stored, .. }) if stored == header.body_crc)
        );
        let have = ours.len() - 1;
        let need = ours.len();
        assert_eq!(header.check_body(&ours[..have]), Err(EntryError::Incomplete { have, need }));
        assert_eq!(header.check_body(&[]), Err(EntryError::Incomplete { have: 0, need }));
    }

    #[test]
    fn headers_of_other_formats_are_told_apart_from_damage() {
        assert!(decode_with(3, EntryKind::Batch.to_wire()).is_ok());
        assert_eq!(decode_with(0, b'X'), Err(EntryError::Magic));
        assert_eq!(decode_with(2, 2), Err(EntryError::Version { version: 2 }));
        assert_eq!(decode_with(3, 0), Err(EntryError::Kind { kind: 0 }));
        assert_eq!(decode_with(3, 13), Err(EntryError::Kind { kind: 13 }));
        assert_eq!(decode_with(60, 1), Err(EntryError::Reserved));
        // Records in something that is no batch, and a batch without records.
        assert_eq!(decode_with(3, EntryKind::Seal.to_wire()), Err(EntryError::Counts));
        assert_eq!(decode_with(12, 0), Err(EntryError::Counts));
        let mut header = header_of(&body_of(b"some"), 9);
        header.base_offset = Offset(u64::MAX - 1);
        assert_eq!(EntryHeader::decode(&header.encode()), Err(EntryError::Counts));
        for kind in EntryKind::ALL {
            assert_eq!(EntryKind::from_wire(kind.to_wire()), Some(kind));
        }
    }

    #[test]
    fn entries_are_walked_until_the_first_that_is_not_sound() {
        let bodies = [body_of(b""), body_of(b"1"), body_of(b"1234"), body_of(b"12345")];
        let mut bytes = Vec::new();
        for (lsn, body) in (0..).zip(&bodies) {
            bytes.extend(entry_of(body, lsn));
            assert!(bytes.len().is_multiple_of(8));
        }
        let walked: Vec<_> = Entries::new(&bytes).map(Result::unwrap).collect();
        assert!(walked.iter().map(|(_, body)| *body).eq(bodies.iter().map(Vec::as_slice)));
        assert_eq!(walked[2].0.next_offset(), Offset(6));

        // A padding byte of the last one: 9 bytes of body, 7 of padding.
        let last = bytes.len() - 1;
        bytes[last] = 1;
        let walked: Vec<_> = Entries::new(&bytes).collect();
        assert_eq!(walked.len(), 4);
        assert_eq!(walked[3], Err(EntryError::Padding));
        let walked: Vec<_> = Entries::new(&bytes[..last]).collect();
        assert!(matches!(walked[..], [Ok(_), Ok(_), Ok(_), Err(EntryError::Incomplete { .. })]));
    }
}
