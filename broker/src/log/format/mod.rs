//! The bytes of a segment, apart from the entries themselves (`corelog_protocol::entry`). Parsed
//! once, here, into types that are right; garbage is a value, never a panic.

pub mod checkpoint;
pub mod commit_header;
pub mod footer;
pub mod log_start;
pub mod name;
pub mod repair;
pub mod segment_header;

use corelog_protocol::entry::EntryHeader;

/// Where the first commit of a segment may begin: after two copies of the header.
pub const COMMITS_START: u64 = 2 * crate::limits::BLOCK_BYTES as u64;

/// No LSN, offset, epoch or sequence in the bytes of a segment is greater: such a one is forged, and
/// what is counted from it would overflow.
pub const POSITION_MAX: u64 = 1 << 62;

/// False for an intact entry header that says more than can be.
pub const fn is_possible(header: &EntryHeader) -> bool {
    header.lsn.0 < POSITION_MAX
        && header.epoch.0 < POSITION_MAX
        && header.next_offset().0 <= POSITION_MAX
}

/// Rounds up to whole blocks.
pub const fn blocks(bytes: u64) -> u64 {
    bytes.next_multiple_of(crate::limits::BLOCK_BYTES as u64)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}
