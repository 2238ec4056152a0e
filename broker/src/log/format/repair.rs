//! A header with one wrong bit, put right. Bits rot one at a time, and a lost header takes more with
//! it than its own bytes: the length to the next entry, or whose offsets they were.
//!
//! The CRC32C of 60 bytes has a distance of 6, so no two headers are two bits apart, and a repaired one is the one
//! that was written. Only bytes that are what is expected there, but for one bit, are tried at all.

use corelog_protocol::entry::{ENTRY_HEADER_BYTES, ENTRY_MAGIC, ENTRY_VERSION, EntryHeader};
use corelog_protocol::ids::{LaneId, Lsn};

use super::commit_header::{COMMIT_HEADER_BYTES, CommitHeader, MAGIC};

/// The entry header that was here, if it is one bit away.
#[cold]
pub fn entry_header(bytes: &[u8], lane: LaneId, lsn: Lsn) -> Option<EntryHeader> {
    let mut bytes: [u8; ENTRY_HEADER_BYTES] = *bytes.first_chunk()?;
    let wrong = wrong_bits(&bytes[..2], &ENTRY_MAGIC.to_le_bytes())
        + wrong_bits(&bytes[2..3], &[ENTRY_VERSION])
        + wrong_bits(&bytes[24..32], &lsn.0.to_le_bytes())
        + wrong_bits(&bytes[56..60], &lane.0.to_le_bytes())
        + wrong_bits(&bytes[60..], &[0; 4]);
    if wrong > 1 {
        return None;
    }
    one_bit_away(&mut bytes, |bytes| EntryHeader::decode(bytes).ok())
        .filter(|header| header.lane == lane && header.lsn == lsn)
}

/// The commit header that was here, if it is one bit away.
#[cold]
pub fn commit_header(bytes: &[u8], nonce: u64, position: u64) -> Option<CommitHeader> {
    let mut bytes: [u8; COMMIT_HEADER_BYTES] = *bytes.first_chunk()?;
    let wrong = wrong_bits(&bytes[..4], &MAGIC.to_le_bytes())
        + wrong_bits(&bytes[8..16], &nonce.to_le_bytes())
        + wrong_bits(&bytes[24..32], &position.to_le_bytes());
    if wrong > 1 {
        return None;
    }
    one_bit_away(&mut bytes, CommitHeader::decode)
        .filter(|header| header.nonce == nonce && header.position == position)
}

/// Whether a commit header of this life of the segment was here, whatever has become of it: its nonce is there but for a
/// few bits, and its magic or its position is right. One of a former life has another nonce.
pub fn is_ruin(bytes: &[u8], nonce: u64, position: u64) -> bool {
    let field = |at: usize, expected: &[u8]| bytes.get(at..at + expected.len()) == Some(expected);
    let stored = bytes.get(8..16).unwrap_or_default();
    stored.len() == 8
        && wrong_bits(stored, &nonce.to_le_bytes()) <= 8
        && (field(0, &MAGIC.to_le_bytes()) || field(24, &position.to_le_bytes()))
}

fn wrong_bits(found: &[u8], expected: &[u8]) -> u32 {
    found.iter().zip(expected).map(|(found, expected)| (found ^ expected).count_ones()).sum()
}

fn one_bit_away<const N: usize, T>(
    bytes: &mut [u8; N],
    decode: impl Fn(&[u8]) -> Option<T>,
) -> Option<T> {
    for bit in 0..N * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Some(found) = decode(bytes) {
            return Some(found);
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    None
}

#[cfg(test)]
mod tests {
    use corelog_protocol::entry::EntryKind;
    use corelog_protocol::ids::{Epoch, Offset, PartitionId};

    use super::*;

    fn entry() -> EntryHeader {
        EntryHeader {
            kind: EntryKind::Batch,
            body_len: 99,
            record_count: 3,
            partition: PartitionId(7),
            body_crc: 0xfeed_beef,
            lsn: Lsn(41),
            epoch: Epoch(2),
            base_offset: Offset(1000),
            append_time: 1_700_000_000_000,
            lane: LaneId(4),
        }
    }

    #[test]
    fn every_single_bit_of_an_entry_header_is_put_right_and_two_are_not() {
        let bytes = entry().encode();
        for bit in 0..ENTRY_HEADER_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(entry_header(&damaged, LaneId(4), Lsn(41)), Some(entry()), "bit {bit}");
            assert_eq!(entry_header(&damaged, LaneId(4), Lsn(40)), None);
            let other = (bit + 77) % (ENTRY_HEADER_BYTES * 8);
            damaged[other / 8] ^= 1 << (other % 8);
            assert_eq!(entry_header(&damaged, LaneId(4), Lsn(41)), None, "bits {bit} and {other}");
        }
        assert_eq!(entry_header(&[0; 64], LaneId(0), Lsn(0)), None);
        assert_eq!(entry_header(&bytes[..63], LaneId(4), Lsn(41)), None);
    }

    #[test]
    fn every_single_bit_of_a_commit_header_is_put_right_in_its_own_place_only() {
        let header = CommitHeader {
            nonce: 1 << 63 | 9,
            number: 3,
            position: 8192,
            length: 200,
            entry_count: 2,
            local_count: 1,
            first_lsn: Lsn(41),
            durable_end: Lsn(40),
            entries_digest: 0xdead_beef,
        };
        for bit in 0..COMMIT_HEADER_BYTES * 8 {
            let mut damaged = header.encode();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(commit_header(&damaged, header.nonce, 8192), Some(header), "bit {bit}");
            assert_eq!(commit_header(&damaged, header.nonce, 4096), None);
            assert_eq!(commit_header(&damaged, 7, 8192), None);
        }
    }
}
