//! The first two blocks of a segment: the same header, twice. Written while the segment is
//! prepared, so that a roll costs nothing; it therefore does not know its first LSN, which the
//! first commit tells.

use corelog_protocol::checksum::crc32c;
use corelog_protocol::ids::{ClusterId, Epoch, Incarnation, LaneId, Lsn};

use super::{POSITION_MAX, put, u32_at, u64_at};
use crate::limits::BLOCK_BYTES;
use crate::replica::Position;

const MAGIC: u64 = u64::from_le_bytes(*b"CRLGSEGM");
/// 2: local entries take no LSN. 3: the mark. 4, which only such headers have: the log begins anew.
const VERSION: u32 = 3;
const VERSION_ANEW: u32 = 4;
/// The checksum covers this much; the rest of the block is zero and means nothing.
const COVERED: usize = 124;
const NONE: u64 = u64::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    pub lane: LaneId,
    pub cluster: ClusterId,
    pub incarnation: Incarnation,
    pub sequence: u64,
    /// Tells this life of the file from its former ones. Never leaves the broker.
    pub nonce: u64,
    /// Entries with this LSN and above in segments of lower sequence are void.
    pub supersedes: Option<Lsn>,
    /// Segments of lower sequence are void altogether: the log begins with this one, at `supersedes`.
    pub is_anew: bool,
    /// Every LSN below this one was durable here when the header was written.
    pub durable_end: Lsn,
    /// The epoch at that time; of a replica, the one that it had accepted.
    pub epoch: Epoch,
    /// What was acknowledged and cannot be read, and is not replaced yet: nothing above this was.
    pub mark: Option<Position>,
    pub file_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentHeaderError {
    /// Damaged, or never written.
    Garbage,
    /// Intact, and of a version that this broker does not know.
    Version(u32),
}

impl SegmentHeader {
    /// One copy, without the zeros that fill its block.
    pub fn encode(&self) -> [u8; COVERED + 4] {
        let mut bytes = [0; COVERED + 4];
        put(&mut bytes, 0, &MAGIC.to_le_bytes());
        let version = if self.is_anew { VERSION_ANEW } else { VERSION };
        put(&mut bytes, 8, &version.to_le_bytes());
        put(&mut bytes, 12, &self.lane.0.to_le_bytes());
        put(&mut bytes, 16, &self.cluster.0.to_le_bytes());
        put(&mut bytes, 32, &self.incarnation.0.to_le_bytes());
        put(&mut bytes, 40, &self.sequence.to_le_bytes());
        put(&mut bytes, 48, &self.nonce.to_le_bytes());
        put(&mut bytes, 56, &self.supersedes.map_or(NONE, |lsn| lsn.0).to_le_bytes());
        put(&mut bytes, 64, &self.durable_end.0.to_le_bytes());
        put(&mut bytes, 72, &self.epoch.0.to_le_bytes());
        put(&mut bytes, 80, &self.file_bytes.to_le_bytes());
        let mark = self.mark.unwrap_or_default();
        put(&mut bytes, 88, &mark.epoch.0.to_le_bytes());
        put(&mut bytes, 96, &mark.end.0.to_le_bytes());
        let crc = crc32c(&bytes[..COVERED]);
        put(&mut bytes, COVERED, &crc.to_le_bytes());
        bytes
    }

    /// Fills the two header blocks.
    pub fn write_blocks(&self, blocks: &mut [u8]) {
        blocks[..2 * BLOCK_BYTES].fill(0);
        let copy = self.encode();
        put(blocks, 0, &copy);
        put(blocks, BLOCK_BYTES, &copy);
    }

    fn decode(bytes: &[u8]) -> Result<Self, SegmentHeaderError> {
        if bytes.len() < COVERED + 4
            || u64_at(bytes, 0) != MAGIC
            || u32_at(bytes, COVERED) != crc32c(&bytes[..COVERED])
        {
            return Err(SegmentHeaderError::Garbage);
        }
        let version = u32_at(bytes, 8);
        if !matches!(version, VERSION | VERSION_ANEW) {
            return Err(SegmentHeaderError::Version(version));
        }
        let supersedes = u64_at(bytes, 56);
        let mark = Position { epoch: Epoch(u64_at(bytes, 88)), end: Lsn(u64_at(bytes, 96)) };
        let low = u128::from(u64_at(bytes, 16));
        let high = u128::from(u64_at(bytes, 24));
        let header = Self {
            lane: LaneId(u32_at(bytes, 12)),
            cluster: ClusterId(high << 64 | low),
            incarnation: Incarnation(u64_at(bytes, 32)),
            sequence: u64_at(bytes, 40),
            nonce: u64_at(bytes, 48),
            supersedes: (supersedes != NONE).then_some(Lsn(supersedes)),
            is_anew: version == VERSION_ANEW,
            durable_end: Lsn(u64_at(bytes, 64)),
            epoch: Epoch(u64_at(bytes, 72)),
            mark: (mark != Position::default()).then_some(mark),
            file_bytes: u64_at(bytes, 80),
        };
        let is_possible = header.sequence < POSITION_MAX
            && header.epoch.0 < POSITION_MAX
            && mark.epoch.0 < POSITION_MAX
            && (mark.end.0 <= POSITION_MAX || mark.end == Lsn(u64::MAX))
            && header.durable_end.0 <= POSITION_MAX
            && header.supersedes.is_none_or(|lsn| lsn.0 <= POSITION_MAX)
            && !(header.is_anew && header.supersedes.is_none());
        if is_possible { Ok(header) } else { Err(SegmentHeaderError::Garbage) }
    }

    /// The first intact copy in the two header blocks.
    pub fn decode_blocks(blocks: &[u8]) -> Result<Self, SegmentHeaderError> {
        let first = Self::decode(blocks);
        if first.is_ok() {
            return first;
        }
        let second =
            blocks.get(BLOCK_BYTES..).map_or(Err(SegmentHeaderError::Garbage), Self::decode);
        match (first, second) {
            (_, Ok(header)) => Ok(header),
            (Err(SegmentHeaderError::Version(version)), _) => {
                Err(SegmentHeaderError::Version(version))
            }
            (_, second) => second,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            lane: LaneId(7),
            cluster: ClusterId(1 << 100 | 5),
            incarnation: Incarnation(3),
            sequence: 17,
            nonce: 0x1234_5678_9abc_def0,
            supersedes: Some(Lsn(99)),
            is_anew: true,
            durable_end: Lsn(98),
            epoch: Epoch(4),
            mark: Some(Position { epoch: Epoch(3), end: Lsn(u64::MAX) }),
            file_bytes: 4 << 20,
        }
    }

    #[test]
    fn either_copy_is_enough_and_no_single_bit_goes_unnoticed() {
        let mut blocks = vec![0xaa; 2 * BLOCK_BYTES];
        header().write_blocks(&mut blocks);
        assert_eq!(SegmentHeader::decode_blocks(&blocks), Ok(header()));
        for bit in 0..(COVERED + 4) * 8 {
            let mut damaged = blocks.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                SegmentHeader::decode_blocks(&damaged),
                Ok(header()),
                "copy 1 without bit {bit}"
            );
            damaged[BLOCK_BYTES + bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode_blocks(&damaged).is_err(), "both without bit {bit}");
        }
        assert_eq!(SegmentHeader::decode_blocks(&[]), Err(SegmentHeaderError::Garbage));
    }
}
