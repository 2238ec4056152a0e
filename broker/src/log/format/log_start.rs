//! The body of a log start entry: which partitions begin where from now on.
//!
//! `crc u32 | count u32 | (partition u32, zero u32, log start u64) × count`.

use corelog_protocol::checksum::crc32c;
use corelog_protocol::ids::{Offset, PartitionId};

use super::{POSITION_MAX, u32_at, u64_at};

const PAIR_BYTES: usize = 16;

pub fn body_bytes(count: usize) -> usize {
    8 + PAIR_BYTES * count
}

pub fn encode(starts: impl Iterator<Item = (PartitionId, Offset)>) -> Vec<u8> {
    let mut body = vec![0; 8];
    let mut count = 0u32;
    for (partition, start) in starts {
        body.extend_from_slice(&partition.0.to_le_bytes());
        body.extend_from_slice(&[0; 4]);
        body.extend_from_slice(&start.0.to_le_bytes());
        count += 1;
    }
    body[4..8].copy_from_slice(&count.to_le_bytes());
    let crc = crc32c(&body[4..]);
    body[..4].copy_from_slice(&crc.to_le_bytes());
    body
}

/// `None` if the body does not hold what it says.
pub fn decode(body: &[u8]) -> Option<impl Iterator<Item = (PartitionId, Offset)>> {
    if body.len() < 8 || u32_at(body, 0) != crc32c(&body[4..]) {
        return None;
    }
    let pairs = &body[8..];
    if !pairs.len().is_multiple_of(PAIR_BYTES)
        || pairs.len() / PAIR_BYTES != u32_at(body, 4) as usize
    {
        return None;
    }
    let pair = |pair: &[u8]| (PartitionId(u32_at(pair, 0)), Offset(u64_at(pair, 8)));
    let is_possible = |(_, start): (PartitionId, Offset)| start.0 <= POSITION_MAX;
    let pairs = pairs.chunks_exact(PAIR_BYTES).map(pair);
    pairs.clone().all(is_possible).then_some(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_starts_come_back_and_wrong_counts_do_not() {
        let starts = [(PartitionId(1), Offset(5)), (PartitionId(9), Offset(1 << 40))];
        let body = encode(starts.into_iter());
        assert_eq!(body.len(), body_bytes(2));
        assert!(decode(&body).unwrap().eq(starts));
        let mut more = body[4..].to_vec();
        more[0] = 3;
        let mut wrong = crc32c(&more).to_le_bytes().to_vec();
        wrong.extend_from_slice(&more);
        assert!(decode(&wrong).is_none());
        assert!(decode(&body[..body.len() - 1]).is_none());
        assert!(decode(&[]).is_none());
    }
}
