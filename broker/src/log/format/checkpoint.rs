//! The body of the log's own checkpoint: what it knows of its partitions. The first entry of each
//! segment, so that a dropped segment takes no partition's next offset with it.
//!
//! `crc u32 | version u32 | rkyv image`. The image is validated with bytecheck after the CRC.

use corelog_protocol::checksum::crc32c;
use rkyv::{Archive, Deserialize, Serialize, rancor, util::AlignedVec};

use super::{POSITION_MAX, u32_at};

const VERSION: u32 = 1;
/// Bytes of a body in front of the image, and per partition in it.
pub const CHECKPOINT_FIXED_BYTES: usize = 64;
pub const CHECKPOINT_PARTITION_BYTES: usize = 24;

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

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct CheckpointImage {
    pub partitions: Vec<PartitionImage>,
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
    if body.len() < 8 || u32_at(body, 0) != crc32c(&body[4..]) || u32_at(body, 4) != VERSION {
        return None;
    }
    let mut image = AlignedVec::<16>::with_capacity(body.len());
    image.extend_from_slice(&body[8..]);
    let image = rkyv::from_bytes::<CheckpointImage, rancor::Error>(&image).ok()?;
    image.partitions.iter().all(PartitionImage::is_possible).then_some(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_comes_back_and_garbage_does_not() {
        let partition =
            |partition| PartitionImage { partition, deleted: 0, log_start: 3, next_offset: 9 };
        let image = CheckpointImage { partitions: (0..50).map(partition).collect() };
        let body = encode(&image);
        assert!(body.len() <= CHECKPOINT_FIXED_BYTES + 50 * CHECKPOINT_PARTITION_BYTES);
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
