//! The body of the log's own checkpoint: what it knows of its partitions, their producers and its epochs. The first entry of each
//! segment, so that a dropped segment takes no partition's next offset and no producer's sequence with it.
//!
//! `crc u32 | version u32 | rkyv image`. The image is validated with bytecheck after the CRC.

use corelog_protocol::checksum::crc32c;
use rkyv::{Archive, Deserialize, Serialize, rancor, util::AlignedVec};

use super::{POSITION_MAX, u32_at};
use crate::limits::PRODUCER_IMAGE_BYTES;

const VERSION: u32 = 3;
/// Bytes of a body in front of the image, and per partition in it.
pub const CHECKPOINT_FIXED_BYTES: usize = 80;
pub const CHECKPOINT_PARTITION_BYTES: usize = 24;
pub const CHECKPOINT_EPOCH_BYTES: usize = 16;

const _: () = assert!(size_of::<ArchivedProducerImage>() == PRODUCER_IMAGE_BYTES);
/// How many batches of a producer are remembered per partition; so many may be in flight.
pub const REMEMBERED: usize = 5;

/// What is known of a partition.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionImage {
    pub partition: u32,
    /// 1 if the partition is deleted.
    pub deleted: u32,
    pub log_start: u64,
    pub next_offset: u64,
}

impl PartitionImage {
    pub fn is_possible(&self) -> bool {
        self.log_start <= POSITION_MAX && self.next_offset <= POSITION_MAX
    }
}

/// A batch of a producer.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BatchImage {
    pub base_offset: u64,
    pub lsn: u64,
    pub epoch: u64,
    pub append_time: i64,
    pub sequence: u32,
    pub record_count: u32,
    pub crc: u32,
}

/// A producer in a partition.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerImage {
    pub producer: u64,
    pub partition: u32,
    pub epoch: u16,
    /// Of the batches, the oldest first.
    pub count: u16,
    pub batches: [BatchImage; REMEMBERED],
}

impl ProducerImage {
    fn is_possible(&self) -> bool {
        let batches = self.batches.get(..usize::from(self.count)).unwrap_or_default();
        !batches.is_empty()
            && self.producer != 0
            && batches.iter().all(|batch| {
                batch.record_count > 0
                    && batch.base_offset <= POSITION_MAX
                    && batch.lsn <= POSITION_MAX
                    && batch.epoch <= POSITION_MAX
            })
    }
}

/// Where an epoch began.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochImage {
    pub epoch: u64,
    /// Of its first entry.
    pub first_lsn: u64,
}

/// Ascending, and nothing that cannot be.
pub fn are_possible(epochs: &[EpochImage]) -> bool {
    epochs.is_sorted_by(|a, b| a.epoch < b.epoch && a.first_lsn < b.first_lsn)
        && epochs
            .last()
            .is_none_or(|last| last.epoch < POSITION_MAX && last.first_lsn <= POSITION_MAX)
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct CheckpointImage {
    pub partitions: Vec<PartitionImage>,
    /// The one that was silent longest first.
    pub producers: Vec<ProducerImage>,
    pub epochs: Vec<EpochImage>,
    /// No batch of a producer that was forgotten early is younger, ms. `None`: there is none.
    pub forgotten_time: Option<i64>,
}

/// An upper bound of a body's bytes.
pub const fn bytes_bound(partitions: usize, producers: usize, epochs: usize) -> usize {
    CHECKPOINT_FIXED_BYTES
        + CHECKPOINT_PARTITION_BYTES * partitions
        + PRODUCER_IMAGE_BYTES * producers
        + CHECKPOINT_EPOCH_BYTES * epochs
}

pub fn encode(image: &CheckpointImage) -> Vec<u8> {
    let bytes = rkyv::to_bytes::<rancor::Error>(image).expect("an image in memory serialises");
    let mut body = Vec::with_capacity(8 + bytes.len());
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(&VERSION.to_le_bytes());
    body.extend_from_slice(&bytes);
    let crc = crc32c(&body[4..]);
    body[..4].copy_from_slice(&crc.to_le_bytes());
    body
}

/// `None` for anything that is not a checkpoint of a known version.
pub fn decode(body: &[u8]) -> Option<CheckpointImage> {
    if body.len() < 8 || u32_at(body, 0) != crc32c(&body[4..]) {
        return None;
    }
    let mut bytes = AlignedVec::<16>::with_capacity(body.len());
    bytes.extend_from_slice(&body[8..]);
    if u32_at(body, 4) != VERSION {
        return None;
    }
    let image = rkyv::from_bytes::<CheckpointImage, rancor::Error>(&bytes).ok()?;
    let is_possible = image.partitions.iter().all(PartitionImage::is_possible)
        && image.producers.iter().all(ProducerImage::is_possible)
        && are_possible(&image.epochs);
    is_possible.then_some(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_comes_back_and_garbage_does_not() {
        let partition =
            |partition| PartitionImage { partition, deleted: 0, log_start: 3, next_offset: 9 };
        let batch = BatchImage { record_count: 1, sequence: 9, lsn: 4, ..BatchImage::default() };
        let producer = |producer| ProducerImage {
            producer,
            partition: 3,
            epoch: 1,
            count: 2,
            batches: [batch; REMEMBERED],
        };
        let partitions = (0..50).map(partition).collect();
        let producers = (1..=20).map(producer).collect();
        let epochs = (1..=7).map(|epoch| EpochImage { epoch, first_lsn: 9 * epoch }).collect();
        let image = CheckpointImage { partitions, producers, epochs, forgotten_time: Some(-5) };
        let body = encode(&image);
        assert!(body.len() <= bytes_bound(50, 20, 7), "{} bytes", body.len());
        assert_eq!(decode(&body), Some(image));
        assert_eq!(decode(&[]), None);
        for bit in 0..body.len() * 8 {
            let mut damaged = body.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&damaged), None, "bit {bit}");
        }
        // The CRC of an attacker is right; bytecheck still has to refuse without a panic.
        for start in 8..body.len() {
            let mut hostile = body.clone();
            hostile[start..].fill(0xff);
            let crc = crc32c(&hostile[4..]);
            hostile[..4].copy_from_slice(&crc.to_le_bytes());
            let _ = decode(&hostile);
        }
    }
}
