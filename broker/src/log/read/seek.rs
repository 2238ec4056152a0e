//! What begins at a block of a segment, for those who read on behind something that they could not read.

use corelog_protocol::entry::EntryHeader;
use corelog_protocol::ids::{LaneId, Lsn};

use crate::log::format::commit_header::{COMMIT_HEADER_BYTES, CommitHeader};
use crate::log::format::repair;

pub enum Found {
    Commit(CommitHeader),
    /// The commit's header is damaged, and the entry that is wanted next lies behind it.
    Entries,
    Nothing,
}

pub fn look(bytes: &[u8], lane: LaneId, (nonce, position): (u64, u64), next_lsn: Lsn) -> Found {
    let header =
        CommitHeader::decode(bytes).or_else(|| repair::commit_header(bytes, nonce, position));
    match header {
        Some(header) if header.nonce == nonce && header.position == position => {
            Found::Commit(header)
        }
        // Of another life of the file, or meant for another place: so are its entries.
        Some(_) => Found::Nothing,
        None => {
            let behind = bytes.get(COMMIT_HEADER_BYTES..);
            let is_next = behind.is_some_and(|behind| entry(behind, lane, next_lsn).is_some());
            if is_next { Found::Entries } else { Found::Nothing }
        }
    }
}

/// The header of the lane's entry with this LSN, and whether it was damaged and could be repaired: then it has to be put
/// right in what is served.
pub fn entry(bytes: &[u8], lane: LaneId, lsn: Lsn) -> Option<(EntryHeader, bool)> {
    let (header, is_repaired) = match EntryHeader::decode(bytes) {
        Ok(header) => (header, false),
        Err(_) => (repair::entry_header(bytes, lane, lsn)?, true),
    };
    (header.lane == lane && header.lsn == lsn).then_some((header, is_repaired))
}
