//! The end of a sealed segment: its index as an rkyv image, then a trailer in the last 64 bytes of
//! the file. Written when every commit of the segment is durable, so it also says that they were.
//!
//! `image | zeros | trailer`, in whole blocks that end where the file ends. The image is read only
//! after the trailer's CRC, the nonce and the image's CRC, and is validated with bytecheck.

use corelog_protocol::checksum::crc32c;
use rkyv::{Archive, Deserialize, Serialize, rancor, util::AlignedVec};

use super::checkpoint::{self, CHECKPOINT_EPOCH_BYTES, EpochImage, PartitionImage};
use super::{COMMITS_START, POSITION_MAX, blocks, put, u32_at, u64_at};

const MAGIC: u64 = u64::from_le_bytes(*b"CRLGFOOT");
const VERSION: u32 = 2;
pub const TRAILER_BYTES: usize = 64;
const COVERED: usize = 60;

/// No footer is larger: 256 MiB of segment cannot need more, and nothing larger is believed.
pub const FOOTER_BYTES_MAX: u64 = 64 << 20;

/// A partition in a segment.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexPartition {
    pub partition: u32,
    /// Its points in `SegmentIndex::points`.
    pub point_first: u32,
    pub point_count: u32,
    pub first_offset: u64,
    pub next_offset: u64,
    /// Stored bytes of its entries.
    pub bytes: u64,
    /// The latest append time, ms.
    pub time_max: i64,
}

/// An entry from which a reader can walk on. About one per 64 KiB of a partition.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexPoint {
    pub offset: u64,
    pub lsn: u64,
    /// Of the entry's header in the file.
    pub position: u64,
    /// Append time of the entry, ms. Never falls within a partition: this is the time index too.
    pub time: i64,
}

/// Everything that a reader, retention or a recovery wants to know of a sealed segment.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct SegmentIndex {
    pub first_lsn: u64,
    /// The LSN after the last.
    pub end_lsn: u64,
    pub epoch_last: u64,
    pub time_max: i64,
    /// Where the commits end.
    pub commits_end: u64,
    /// The LSN after the last entry that the shard folds; 0 if there is none.
    pub replay_end: u64,
    /// Sorted by partition.
    pub partitions: Vec<IndexPartition>,
    /// Grouped by partition, in the order of offsets.
    pub points: Vec<IndexPoint>,
    /// All partitions of the lane when the segment was sealed.
    pub states: Vec<PartitionImage>,
    /// All epochs of the log so far.
    pub epochs: Vec<EpochImage>,
}

impl SegmentIndex {
    pub fn find(&self, partition: u32) -> Option<&IndexPartition> {
        let at = self.partitions.binary_search_by_key(&partition, |entry| entry.partition).ok()?;
        self.partitions.get(at)
    }

    pub fn points_of(&self, partition: &IndexPartition) -> &[IndexPoint] {
        let first = partition.point_first as usize;
        self.points.get(first..first + partition.point_count as usize).unwrap_or(&[])
    }

    /// What bytecheck cannot know: that the parts fit each other.
    fn is_sane(&self, file_bytes: u64) -> bool {
        let sorted = self.partitions.is_sorted_by(|a, b| a.partition < b.partition);
        let ranges = self.partitions.iter().all(|entry| {
            let end = u64::from(entry.point_first) + u64::from(entry.point_count);
            entry.first_offset <= entry.next_offset
                && entry.next_offset <= POSITION_MAX
                && entry.bytes <= file_bytes
                && end <= self.points.len() as u64
        });
        let positions = self.points.iter().all(|point| {
            point.position >= COMMITS_START
                && point.position < self.commits_end
                && point.position.is_multiple_of(8)
        });
        sorted
            && ranges
            && positions
            && self.states.iter().all(PartitionImage::is_possible)
            && checkpoint::are_possible(&self.epochs)
            && self.epochs.last().is_none_or(|last| last.first_lsn < self.end_lsn)
            && self.end_lsn <= POSITION_MAX
            && self.epoch_last < POSITION_MAX
            && self.replay_end <= self.end_lsn
            && self.first_lsn <= self.end_lsn
            && self.commits_end <= file_bytes
            && self.commits_end >= COMMITS_START
    }
}

/// An upper bound of a footer's bytes on disk.
pub const fn bytes_bound(partitions: u64, points: u64, states: u64, epochs: u64) -> u64 {
    256 + 48 * partitions
        + 32 * points
        + 24 * states
        + CHECKPOINT_EPOCH_BYTES as u64 * epochs
        + TRAILER_BYTES as u64
}

/// Where the image is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trailer {
    pub nonce: u64,
    pub sequence: u64,
    pub image_position: u64,
    pub image_bytes: u64,
    pub image_crc: u32,
}

impl Trailer {
    pub fn encode(&self) -> [u8; TRAILER_BYTES] {
        let mut bytes = [0; TRAILER_BYTES];
        put(&mut bytes, 0, &MAGIC.to_le_bytes());
        put(&mut bytes, 8, &VERSION.to_le_bytes());
        put(&mut bytes, 12, &self.image_crc.to_le_bytes());
        put(&mut bytes, 16, &self.nonce.to_le_bytes());
        put(&mut bytes, 24, &self.sequence.to_le_bytes());
        put(&mut bytes, 32, &self.image_position.to_le_bytes());
        put(&mut bytes, 40, &self.image_bytes.to_le_bytes());
        let crc = crc32c(&bytes[..COVERED]);
        put(&mut bytes, COVERED, &crc.to_le_bytes());
        bytes
    }

    /// The trailer at the end of a file's last block.
    pub fn decode(block: &[u8], file_bytes: u64) -> Option<Self> {
        let bytes = block.last_chunk::<TRAILER_BYTES>()?;
        let intact = u64_at(bytes, 0) == MAGIC
            && u32_at(bytes, COVERED) == crc32c(&bytes[..COVERED])
            && u32_at(bytes, 8) == VERSION;
        let trailer = Self {
            image_crc: u32_at(bytes, 12),
            nonce: u64_at(bytes, 16),
            sequence: u64_at(bytes, 24),
            image_position: u64_at(bytes, 32),
            image_bytes: u64_at(bytes, 40),
        };
        let sane = (1..=FOOTER_BYTES_MAX).contains(&trailer.image_bytes)
            && trailer.image_position.is_multiple_of(crate::limits::BLOCK_BYTES as u64)
            && trailer.image_position >= COMMITS_START
            && trailer.image_position.checked_add(disk_bytes(trailer.image_bytes))
                == Some(file_bytes);
        (intact && sane).then_some(trailer)
    }
}

/// Bytes on disk of an image with its trailer.
pub const fn disk_bytes(image_bytes: u64) -> u64 {
    blocks(image_bytes + TRAILER_BYTES as u64)
}

pub fn encode(index: &SegmentIndex) -> AlignedVec {
    rkyv::to_bytes::<rancor::Error>(index).expect("an index in memory serialises")
}

/// The index in an image, if trailer and image belong together and say nothing impossible.
pub fn decode(trailer: &Trailer, image: &[u8], file_bytes: u64) -> Option<SegmentIndex> {
    if image.len() as u64 != trailer.image_bytes || crc32c(image) != trailer.image_crc {
        return None;
    }
    let mut aligned = AlignedVec::<16>::with_capacity(image.len());
    aligned.extend_from_slice(image);
    let index = rkyv::from_bytes::<SegmentIndex, rancor::Error>(&aligned).ok()?;
    index.is_sane(file_bytes).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> SegmentIndex {
        SegmentIndex {
            first_lsn: 10,
            end_lsn: 30,
            epoch_last: 2,
            time_max: 77,
            commits_end: 20_480,
            replay_end: 0,
            partitions: vec![IndexPartition {
                partition: 4,
                point_first: 0,
                point_count: 2,
                first_offset: 100,
                next_offset: 120,
                bytes: 9_000,
                time_max: 77,
            }],
            points: vec![
                IndexPoint { offset: 100, lsn: 10, position: 8256, time: 70 },
                IndexPoint { offset: 110, lsn: 20, position: 16_448, time: 75 },
            ],
            states: vec![PartitionImage {
                partition: 4,
                deleted: 0,
                log_start: 1,
                next_offset: 120,
            }],
            epochs: vec![
                EpochImage { epoch: 1, first_lsn: 0 },
                EpochImage { epoch: 2, first_lsn: 12 },
            ],
        }
    }

    #[test]
    fn a_footer_is_found_from_the_end_of_the_file_and_fits_its_bound() {
        let image = encode(&index());
        assert!(image.len() as u64 + TRAILER_BYTES as u64 <= bytes_bound(1, 2, 1, 2));
        let file_bytes = 65_536;
        let trailer = Trailer {
            nonce: 5,
            sequence: 17,
            image_position: file_bytes - disk_bytes(image.len() as u64),
            image_bytes: image.len() as u64,
            image_crc: crc32c(&image),
        };
        let mut block = vec![0; 4096];
        block[4096 - TRAILER_BYTES..].copy_from_slice(&trailer.encode());
        assert_eq!(Trailer::decode(&block, file_bytes), Some(trailer));
        assert_eq!(Trailer::decode(&block, file_bytes * 2), None);
        let empty = Trailer { image_bytes: 0, image_position: file_bytes - 4096, ..trailer };
        block[4096 - TRAILER_BYTES..].copy_from_slice(&empty.encode());
        assert_eq!(Trailer::decode(&block, file_bytes), None, "there is no image of no bytes");
        assert_eq!(decode(&trailer, &image, file_bytes), Some(index()));
        for bit in 0..image.len() * 8 {
            let mut damaged = image.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&trailer, &damaged, file_bytes), None);
            // With a CRC to match: refused or harmless, but no panic.
            let forged = Trailer { image_crc: crc32c(&damaged), ..trailer };
            let _ = decode(&forged, &damaged, file_bytes);
        }
    }

    #[test]
    fn an_index_that_points_outside_its_segment_is_refused() {
        let wrong: [fn(&mut SegmentIndex); 7] = [
            |index| index.epochs[1].first_lsn = 30,
            |index| index.epochs[1].epoch = 1,
            |index| index.points[1].position = 1 << 40,
            |index| index.partitions[0].point_count = 3,
            |index| index.commits_end = 1 << 50,
            |index| index.end_lsn = 9,
            |index| index.partitions[0].next_offset = 1,
        ];
        for change in wrong {
            let mut index = index();
            change(&mut index);
            assert!(!index.is_sane(65_536), "{index:?}");
        }
    }
}
