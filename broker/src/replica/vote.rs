//! What a replica must not forget, apart from its log: two epochs, in a file of two blocks that are written
//! alternately, so that one of them is always whole.
//!
//! ```text
//! magic u64 | version u32 | lane u32 | number u64 | promised u64 | accepted u64 | incarnation u64 | crc32c u32
//! ```
//! The block with the greater number counts. If neither can be read, the replica does not take part: what it has
//! promised is unknown.

use corelog_protocol::checksum::crc32c;
use corelog_protocol::ids::{Epoch, Incarnation, LaneId};

use crate::limits::BLOCK_BYTES;

const MAGIC: u64 = u64::from_le_bytes(*b"CRLGVOTE");
const VERSION: u32 = 1;
const COVERED: usize = 48;

/// Bytes of the file.
pub const VOTE_BYTES: usize = 2 * BLOCK_BYTES;

/// Both only grow, and `accepted` is at most `promised`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Vote {
    /// It obeys nothing below this epoch.
    pub promised: Epoch,
    /// The last epoch in which it took entries, or led, without having to truncate first: a truncation is one record
    /// with the epoch for which it was made, in the header of a segment.
    pub accepted: Epoch,
}

/// A vote as it is on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    /// Grows with each write. 0: nothing was ever stored.
    pub number: u64,
    pub vote: Vote,
}

impl Stored {
    /// Which of the two blocks is written with this number.
    pub fn block(&self) -> usize {
        (self.number % 2) as usize
    }

    /// Fills a block.
    pub fn encode(&self, lane: LaneId, incarnation: Incarnation, block: &mut [u8]) {
        block.fill(0);
        let fields = [
            (0, &MAGIC.to_le_bytes()[..]),
            (8, &VERSION.to_le_bytes()),
            (12, &lane.0.to_le_bytes()),
            (16, &self.number.to_le_bytes()),
            (24, &self.vote.promised.0.to_le_bytes()),
            (32, &self.vote.accepted.0.to_le_bytes()),
            (40, &incarnation.0.to_le_bytes()),
        ];
        for (at, bytes) in fields {
            block[at..at + bytes.len()].copy_from_slice(bytes);
        }
        let crc = crc32c(&block[..COVERED]);
        block[COVERED..COVERED + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// The vote in a file. `None`: it cannot be known, or is of another lane or incarnation.
    pub fn decode(lane: LaneId, incarnation: Incarnation, file: &[u8]) -> Option<Self> {
        let blocks = file.chunks_exact(BLOCK_BYTES).take(2);
        let read = blocks.enumerate().filter_map(|(at, block)| {
            let stored = Self::decode_block(lane, incarnation, block)?;
            (stored.block() == at).then_some(stored)
        });
        read.max_by_key(|stored| stored.number)
    }

    fn decode_block(lane: LaneId, incarnation: Incarnation, block: &[u8]) -> Option<Self> {
        let u64_at = |at: usize| Some(u64::from_le_bytes(*block.get(at..)?.first_chunk()?));
        let u32_at = |at: usize| Some(u32::from_le_bytes(*block.get(at..)?.first_chunk()?));
        let is_ours = u64_at(0)? == MAGIC
            && u32_at(8)? == VERSION
            && u32_at(12)? == lane.0
            && u64_at(40)? == incarnation.0
            && u32_at(COVERED)? == crc32c(block.get(..COVERED)?);
        let vote = Vote { promised: Epoch(u64_at(24)?), accepted: Epoch(u64_at(32)?) };
        is_ours.then_some(Self { number: u64_at(16)?, vote })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: LaneId = LaneId(4);
    const LIFE: Incarnation = Incarnation(77);

    fn stored(number: u64, promised: u64) -> Stored {
        Stored { number, vote: Vote { promised: Epoch(promised), accepted: Epoch(promised - 1) } }
    }

    fn write(file: &mut [u8], stored: Stored) {
        let start = stored.block() * BLOCK_BYTES;
        stored.encode(LANE, LIFE, &mut file[start..start + BLOCK_BYTES]);
    }

    #[test]
    fn the_later_block_counts_and_the_earlier_one_survives_a_torn_write() {
        let mut file = vec![0; VOTE_BYTES];
        assert_eq!(Stored::decode(LANE, LIFE, &file), None, "an empty file says nothing");
        for number in 1..6 {
            let before = Stored::decode(LANE, LIFE, &file);
            let next = stored(number, 10 + number);
            let mut torn = file.clone();
            write(&mut torn, next);
            let start = next.block() * BLOCK_BYTES;
            torn[start + 30] ^= 0xff;
            assert_eq!(Stored::decode(LANE, LIFE, &torn), before);
            write(&mut file, next);
            assert_eq!(Stored::decode(LANE, LIFE, &file), Some(next));
        }
    }

    #[test]
    fn another_lane_or_incarnation_is_not_believed_and_no_flipped_bit_is() {
        let mut file = vec![0; VOTE_BYTES];
        write(&mut file, stored(2, 9));
        assert_eq!(Stored::decode(LaneId(5), LIFE, &file), None);
        assert_eq!(Stored::decode(LANE, Incarnation(78), &file), None);
        for bit in 0..(COVERED + 4) * 8 {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Stored::decode(LANE, LIFE, &flipped), None, "bit {bit}");
        }
        assert_eq!(Stored::decode(LANE, LIFE, &file[..100]), None);
    }
}
