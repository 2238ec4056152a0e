//! What the group keeps on disk: records in an append-only log, in the manner of etcd's. What a later
//! record says goes over what an earlier one said, so nothing is ever cut off: see `fold.rs`.
//!
//! ```text
//! crc32c u32 (of all that follows) | format u8 = 1 | tag u8 | 0 u16 | fields
//! tag 1 HardState: term u64 | vote u64 (0: none) | commit u64
//! tag 2 Entry:     commit u64 | entry
//! tag 3 Snapshot:  snapshot
//! ```
//! `commit` is what was known to be committed when the record was made: never too much, often less than
//! is true by now, so it needs no record of its own.

use super::entry::{LogEntry, Snapshot, read_number};
use super::members::ReplicaId;
use crate::metadata::codec::{BadBytes, Reader, Writer};

/// The format of records that is written.
pub const RECORD_FORMAT: u8 = 1;

/// What a replica must not forget, lest it votes twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HardState {
    pub term: u64,
    pub vote: Option<ReplicaId>,
    pub commit: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    HardState(HardState),
    Entry { commit: u64, entry: LogEntry },
    Snapshot(Snapshot),
}

impl Record {
    /// The body of an entry of the metadata lane.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::HardState(state) => {
                let mut writer = Writer::new(RECORD_FORMAT, 1);
                writer.u64(state.term);
                writer.u64(state.vote.map_or(0, |id| id.0));
                writer.u64(state.commit);
                writer.finish()
            }
            Self::Entry { commit, entry } => {
                let mut writer = Writer::new(RECORD_FORMAT, 2);
                writer.u64(*commit);
                entry.write(&mut writer);
                writer.finish()
            }
            Self::Snapshot(snapshot) => {
                let mut writer = Writer::new(RECORD_FORMAT, 3);
                snapshot.write(&mut writer);
                writer.finish()
            }
        }
    }

    /// Bytes of the record of an entry with a command of so many bytes.
    pub const fn command_bytes(command: usize) -> usize {
        // Checksum and tag, commit, index, term, kind, length.
        8 + 8 + 8 + 8 + 1 + 4 + command
    }

    /// Reads what `encode` wrote; anything else is refused.
    pub fn decode(body: &[u8]) -> Result<Self, BadBytes> {
        let (tag, mut reader) = Reader::new(body, RECORD_FORMAT)?;
        let record = match tag {
            1 => {
                let term = read_number(&mut reader)?;
                let vote = match read_number(&mut reader)? {
                    0 => None,
                    id => Some(ReplicaId(id)),
                };
                Self::HardState(HardState { term, vote, commit: read_number(&mut reader)? })
            }
            2 => {
                let commit = read_number(&mut reader)?;
                Self::Entry { commit, entry: LogEntry::read(&mut reader)? }
            }
            3 => Self::Snapshot(Snapshot::read(&mut reader)?),
            _ => return Err(BadBytes),
        };
        reader.finish()?;
        Ok(record)
    }
}
