//! Any bytes at all as each part of a segment that is not an entry, behind checksums that are right: what a
//! decoder believes must make sense to it again, and nothing may make it panic (I15).

use corelog_protocol::checksum::crc32c;
use corelog_protocol::ids::{Offset, PartitionId};

use crate::log::format::checkpoint::{
    self, BatchImage, CheckpointImage, EpochImage, PartitionImage, ProducerImage, REMEMBERED,
};
use crate::log::format::commit_header::CommitHeader;
use crate::log::format::footer::{self, IndexPartition, IndexPoint, SegmentIndex, Trailer};
use crate::log::format::log_start;
use crate::log::format::segment_header::SegmentHeader;

/// The image of a footer, under a trailer that fits it.
///
/// # Panics
/// If an index that was believed is not, once it is written again.
pub fn footer(image: &[u8]) -> bool {
    let trailer = |image: &[u8]| {
        let image_bytes = image.len() as u64;
        let image_crc = crc32c(image);
        Trailer { nonce: 1, sequence: 2, image_position: 8192, image_bytes, image_crc }
    };
    let file_bytes = 1 << 20;
    let Some(index) = footer::decode(&trailer(image), image, file_bytes) else { return false };
    for partition in &index.partitions {
        assert!(index.points_of(partition).len() == partition.point_count as usize);
        let found = index.find(partition.partition).expect("the list is sorted");
        assert!(found == partition);
    }
    let again = footer::encode(&index);
    assert!(footer::decode(&trailer(&again), &again, file_bytes) == Some(index));
    true
}

/// The last block of a file.
///
/// # Panics
/// If a trailer that was believed points outside of its file.
pub fn trailer(block: &[u8], file_bytes: u64) -> bool {
    let Some(trailer) = Trailer::decode(block, file_bytes) else { return false };
    assert!(trailer.image_position + trailer.image_bytes <= file_bytes);
    true
}

/// The body of a log's own checkpoint.
///
/// # Panics
/// If an image that was believed is not, once it is written again.
pub fn checkpoint(body: &[u8]) -> bool {
    let Some(image) = checkpoint::decode(&sealed(body)) else { return false };
    assert!(checkpoint::decode(&checkpoint::encode(&image)) == Some(image));
    true
}

/// The body of a log start entry.
///
/// # Panics
/// If starts that were believed are not, once they are written again.
pub fn log_starts(body: &[u8]) -> bool {
    let body = sealed(body);
    let Some(starts) = log_start::decode(&body) else { return false };
    let starts: Vec<_> = starts.collect();
    let again = log_start::encode(starts.iter().copied());
    assert!(log_start::decode(&again).expect("just written").eq(starts));
    true
}

/// The two header blocks of a segment, and the header of a commit.
///
/// # Panics
/// If a header that was believed is not, once it is written again.
pub fn headers(bytes: &[u8]) -> bool {
    let segment = SegmentHeader::decode_blocks(bytes);
    if let Ok(header) = segment {
        assert!(SegmentHeader::decode_blocks(&header.encode()) == Ok(header));
    }
    let commit = CommitHeader::decode(bytes);
    if let Some(header) = commit {
        assert!(CommitHeader::decode(&header.encode()) == Some(header));
        assert!(header.end_lsn() >= header.first_lsn);
    }
    segment.is_ok() || commit.is_some()
}

/// The CRC32C of the rest, in the first four bytes.
pub fn sealed(body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    if let Some((crc, rest)) = body.split_first_chunk_mut::<4>() {
        *crc = crc32c(rest).to_le_bytes();
    }
    body
}

/// A footer's image, a checkpoint and a log start that are as they should be.
pub fn samples() -> [Vec<u8>; 3] {
    let state = |partition| PartitionImage { partition, deleted: 0, log_start: 1, next_offset: 9 };
    let states: Vec<_> = (1..4).map(state).collect();
    let point = |number: u64| IndexPoint {
        offset: 1 + number,
        lsn: 10 + number,
        position: 8192 + 64 * number,
        time: 70,
    };
    let partition = |number: u32| IndexPartition {
        partition: 1 + number,
        point_first: 2 * number,
        point_count: 2,
        first_offset: 1,
        next_offset: 9,
        bytes: 300,
        time_max: 77,
    };
    let epoch = |epoch: u64| EpochImage { epoch, first_lsn: 9 * epoch };
    let epochs: Vec<_> = (1..4).map(epoch).collect();
    let index = SegmentIndex {
        first_lsn: 10,
        end_lsn: 30,
        epoch_last: 2,
        time_max: 77,
        commits_end: 20_480,
        replay_end: 12,
        partitions: (0..2).map(partition).collect(),
        points: (0..4).map(point).collect(),
        states: states.clone(),
        epochs: epochs.clone(),
    };
    let batch = BatchImage { lsn: 12, record_count: 2, sequence: 4, ..BatchImage::default() };
    let producer = ProducerImage {
        producer: 77,
        partition: 2,
        epoch: 1,
        count: 2,
        batches: [batch; REMEMBERED],
    };
    let starts = [(PartitionId(1), Offset(5)), (PartitionId(2), Offset(7))];
    [
        footer::encode(&index).to_vec(),
        checkpoint::encode(&CheckpointImage {
            partitions: states,
            producers: vec![producer],
            epochs,
            forgotten_time: Some(60),
        }),
        log_start::encode(starts.into_iter()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_are_believed_and_what_is_cut_short_is_not() {
        let [index, image, starts] = samples();
        assert!(footer(&index) && checkpoint(&image) && log_starts(&starts));
        assert!(!footer(&index[..index.len() - 1]));
        assert!(!checkpoint(&image[..image.len() - 1]));
        assert!(!log_starts(&starts[..starts.len() - 1]));
        assert!(!headers(&[0; 8192]) && !trailer(&[0; 4096], 1 << 20));
    }
}
