//! What members say to each other: the body of a frame between brokers. Read once, at the door, into
//! types that are right; what the receiver's state must allow besides is in `guard.rs`.
//!
//! ```text
//! crc32c u32 (of all that follows) | format u8 = 1 | tag u8 | 0 u16 | from u64 | to u64 | term u64 | fields
//! tag 1 Append:          previous index u64 | previous term u64 | commit u64 | count u32, count x entry
//! tag 2 AppendReply:     index u64 | commit u64 | rejected u8 | hint index u64 | hint term u64
//! tag 3 VoteRequest:     before u8 | transfer u8 | last index u64 | last term u64 | commit u64 | commit term u64
//! tag 4 VoteReply:       before u8 | granted u8 | commit u64 | commit term u64
//! tag 5 Snapshot:        snapshot
//! tag 6 Heartbeat:       commit u64
//! tag 7 HeartbeatReply:  commit u64
//! tag 8 TimeoutNow:      nothing
//! ```

use super::entry::{LogEntry, Snapshot, read_number, read_positive};
use super::members::ReplicaId;
use crate::metadata::codec::{BadBytes, Reader, Writer};

pub const MESSAGE_FORMAT: u8 = 1;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerMessage {
    pub from: ReplicaId,
    pub to: ReplicaId,
    /// The sender's, or the one that it asks a vote for.
    pub term: u64,
    pub body: PeerBody,
}

/// Which vote is asked for or given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ballot {
    /// "Would you vote for me?" Binds nobody, and keeps who was cut off from disturbing the others.
    Before,
    Real,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerBody {
    /// Entries behind (`previous_index`, `previous_term`), dense.
    Append {
        previous_index: u64,
        previous_term: u64,
        commit: u64,
        entries: Vec<LogEntry>,
    },
    /// Without a hint: everything through `index` is durable and as the leader has it. With one: what
    /// was to follow `index` did not fit; the hint (index, term) is where it might.
    AppendReply {
        index: u64,
        commit: u64,
        hint: Option<(u64, u64)>,
    },
    VoteRequest {
        ballot: Ballot,
        /// The leader itself asked for this election.
        is_transfer: bool,
        last_index: u64,
        last_term: u64,
        commit: u64,
        commit_term: u64,
    },
    VoteReply {
        ballot: Ballot,
        is_granted: bool,
        commit: u64,
        commit_term: u64,
    },
    Snapshot(Snapshot),
    Heartbeat {
        commit: u64,
    },
    HeartbeatReply {
        commit: u64,
    },
    /// Stand for election now: the leader hands over.
    TimeoutNow,
}

impl PeerMessage {
    pub fn encode(&self) -> Vec<u8> {
        let tag = match &self.body {
            PeerBody::Append { .. } => 1,
            PeerBody::AppendReply { .. } => 2,
            PeerBody::VoteRequest { .. } => 3,
            PeerBody::VoteReply { .. } => 4,
            PeerBody::Snapshot(_) => 5,
            PeerBody::Heartbeat { .. } => 6,
            PeerBody::HeartbeatReply { .. } => 7,
            PeerBody::TimeoutNow => 8,
        };
        let mut writer = Writer::new(MESSAGE_FORMAT, tag);
        writer.u64(self.from.0);
        writer.u64(self.to.0);
        writer.u64(self.term);
        match &self.body {
            PeerBody::Append { previous_index, previous_term, commit, entries } => {
                writer.u64(*previous_index);
                writer.u64(*previous_term);
                writer.u64(*commit);
                writer.u32(entries.len() as u32);
                entries.iter().for_each(|entry| entry.write(&mut writer));
            }
            PeerBody::AppendReply { index, commit, hint } => {
                writer.u64(*index);
                writer.u64(*commit);
                writer.u8(u8::from(hint.is_some()));
                let (index, term) = hint.unwrap_or_default();
                writer.u64(index);
                writer.u64(term);
            }
            PeerBody::VoteRequest {
                ballot,
                is_transfer,
                last_index,
                last_term,
                commit,
                commit_term,
            } => {
                writer.u8(ballot.to_wire());
                writer.u8(u8::from(*is_transfer));
                for number in [last_index, last_term, commit, commit_term] {
                    writer.u64(*number);
                }
            }
            PeerBody::VoteReply { ballot, is_granted, commit, commit_term } => {
                writer.u8(ballot.to_wire());
                writer.u8(u8::from(*is_granted));
                writer.u64(*commit);
                writer.u64(*commit_term);
            }
            PeerBody::Snapshot(snapshot) => snapshot.write(&mut writer),
            PeerBody::Heartbeat { commit } | PeerBody::HeartbeatReply { commit } => {
                writer.u64(*commit);
            }
            PeerBody::TimeoutNow => {}
        }
        writer.finish()
    }

    /// Reads what `encode` wrote; anything else, and anything that no member would say, is refused.
    pub fn decode(body: &[u8]) -> Result<Self, BadBytes> {
        let (tag, mut reader) = Reader::new(body, MESSAGE_FORMAT)?;
        let reader = &mut reader;
        let from = ReplicaId::checked(reader.u64()?)?;
        let to = ReplicaId::checked(reader.u64()?)?;
        let term = read_positive(reader)?;
        let body = match tag {
            1 => PeerBody::Append {
                previous_index: read_number(reader)?,
                previous_term: read_number(reader)?,
                commit: read_number(reader)?,
                entries: reader.list(LogEntry::read)?,
            },
            2 => {
                let (index, commit) = (read_number(reader)?, read_number(reader)?);
                let is_rejected = read_flag(reader)?;
                let hint = (read_number(reader)?, read_number(reader)?);
                if !is_rejected && hint != (0, 0) {
                    return Err(BadBytes);
                }
                PeerBody::AppendReply { index, commit, hint: is_rejected.then_some(hint) }
            }
            3 => PeerBody::VoteRequest {
                ballot: Ballot::read(reader)?,
                is_transfer: read_flag(reader)?,
                last_index: read_number(reader)?,
                last_term: read_number(reader)?,
                commit: read_number(reader)?,
                commit_term: read_number(reader)?,
            },
            4 => PeerBody::VoteReply {
                ballot: Ballot::read(reader)?,
                is_granted: read_flag(reader)?,
                commit: read_number(reader)?,
                commit_term: read_number(reader)?,
            },
            5 => PeerBody::Snapshot(Snapshot::read(reader)?),
            6 => PeerBody::Heartbeat { commit: read_number(reader)? },
            7 => PeerBody::HeartbeatReply { commit: read_number(reader)? },
            8 => PeerBody::TimeoutNow,
            _ => return Err(BadBytes),
        };
        let message = Self { from, to, term, body };
        if reader.is_over() && message.is_sensible() { Ok(message) } else { Err(BadBytes) }
    }

    /// Indexes are dense, terms never fall and are not ahead of the sender's.
    fn is_sensible(&self) -> bool {
        let is_apart = self.from != self.to;
        is_apart
            && match &self.body {
                PeerBody::Append { previous_index, previous_term, entries, .. } => {
                    let starts = (*previous_index == 0) == (*previous_term == 0);
                    let mut last = (*previous_index, *previous_term);
                    let are_dense = entries.iter().all(|entry| {
                        let follows = entry.index == last.0 + 1 && entry.term >= last.1;
                        last = (entry.index, entry.term);
                        follows
                    });
                    starts && are_dense && last.1 <= self.term
                }
                PeerBody::Snapshot(snapshot) => snapshot.term <= self.term,
                PeerBody::VoteRequest { last_index, last_term, .. } => {
                    (*last_index == 0) == (*last_term == 0) && *last_term <= self.term
                }
                _ => true,
            }
    }
}

impl Ballot {
    fn to_wire(self) -> u8 {
        u8::from(self == Self::Before)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BadBytes> {
        Ok(if read_flag(reader)? { Self::Before } else { Self::Real })
    }
}

fn read_flag(reader: &mut Reader<'_>) -> Result<bool, BadBytes> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(BadBytes),
    }
}
