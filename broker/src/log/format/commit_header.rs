//! The 64 bytes in front of each commit, at the start of a block.

use corelog_protocol::checksum::Crc;
use corelog_protocol::ids::Lsn;

use super::{POSITION_MAX, put, u32_at, u64_at};

pub const COMMIT_HEADER_BYTES: usize = 64;

pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"CRLC");

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitHeader {
    /// The nonce of the segment in whose life this was written.
    pub nonce: u64,
    /// Dense from 0 in each segment.
    pub number: u64,
    /// Where in the file this header is: a misdirected write does not pass.
    pub position: u64,
    /// Header and entries, without the padding to the block.
    pub length: u32,
    pub entry_count: u32,
    /// How many of them are local: they take no LSN.
    pub local_count: u32,
    pub first_lsn: Lsn,
    /// Every LSN below this one was durable here when the commit was issued.
    pub durable_end: Lsn,
    /// CRC32C over the header CRCs of the entries in order: stale entries cannot stand in.
    pub entries_digest: u32,
}

impl CommitHeader {
    pub fn encode(&self) -> [u8; COMMIT_HEADER_BYTES] {
        let mut bytes = [0; COMMIT_HEADER_BYTES];
        put(&mut bytes, 0, &MAGIC.to_le_bytes());
        put(&mut bytes, 8, &self.nonce.to_le_bytes());
        put(&mut bytes, 16, &self.number.to_le_bytes());
        put(&mut bytes, 24, &self.position.to_le_bytes());
        put(&mut bytes, 32, &self.length.to_le_bytes());
        put(&mut bytes, 36, &self.entry_count.to_le_bytes());
        put(&mut bytes, 40, &self.first_lsn.0.to_le_bytes());
        put(&mut bytes, 48, &self.durable_end.0.to_le_bytes());
        put(&mut bytes, 56, &self.entries_digest.to_le_bytes());
        put(&mut bytes, 60, &self.local_count.to_le_bytes());
        let crc = crc(&bytes);
        put(&mut bytes, 4, &crc.to_le_bytes());
        bytes
    }

    /// An intact header at the start of `bytes`, whatever segment it belongs to.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; COMMIT_HEADER_BYTES] = bytes.first_chunk()?;
        if u32_at(bytes, 0) != MAGIC || u32_at(bytes, 4) != crc(bytes) {
            return None;
        }
        let header = Self {
            nonce: u64_at(bytes, 8),
            number: u64_at(bytes, 16),
            position: u64_at(bytes, 24),
            length: u32_at(bytes, 32),
            entry_count: u32_at(bytes, 36),
            first_lsn: Lsn(u64_at(bytes, 40)),
            durable_end: Lsn(u64_at(bytes, 48)),
            entries_digest: u32_at(bytes, 56),
            local_count: u32_at(bytes, 60),
        };
        let sane = header.length as usize > COMMIT_HEADER_BYTES
            && header.entry_count > 0
            && header.local_count <= header.entry_count
            && header.first_lsn.0.saturating_add(u64::from(header.entry_count)) <= POSITION_MAX
            && header.durable_end.0 <= POSITION_MAX;
        sane.then_some(header)
    }

    /// The LSN after the last entry.
    pub const fn end_lsn(&self) -> Lsn {
        self.first_lsn.advance((self.entry_count - self.local_count) as u64)
    }
}

fn crc(bytes: &[u8; COMMIT_HEADER_BYTES]) -> u32 {
    let mut crc = Crc::new();
    crc.update(&bytes[..4]);
    crc.update(&bytes[8..]);
    crc.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_single_bit_of_a_commit_header_goes_unnoticed() {
        let header = CommitHeader {
            nonce: 1 << 63 | 9,
            number: 3,
            position: 8192,
            length: 200,
            entry_count: 3,
            local_count: 1,
            first_lsn: Lsn(41),
            durable_end: Lsn(40),
            entries_digest: 0xdead_beef,
        };
        let bytes = header.encode();
        assert_eq!(CommitHeader::decode(&bytes), Some(header));
        assert_eq!(header.end_lsn(), Lsn(43));
        for bit in 0..COMMIT_HEADER_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(CommitHeader::decode(&damaged), None, "bit {bit}");
        }
        assert_eq!(CommitHeader::decode(&bytes[..63]), None);
        assert_eq!(CommitHeader::decode(&[0; 64]), None);
    }
}
