//! What this replica's state must allow before a message reaches the crate, which panics on some that no
//! healthy member sends.

use std::fmt;

use super::members::ReplicaId;
use super::message::{PeerBody, PeerMessage};

/// Why a message was not taken. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// For another replica. Its sender believes that one to be here.
    NotForUs { to: ReplicaId },
    /// A reply of one that is no member (any more).
    Stranger { from: ReplicaId },
    /// It is said to have entries that this leader never had.
    AheadOfLeader { from: ReplicaId, index: u64 },
    /// The leader knows this replica to have entries that it has not: its disk was lost, or is an old
    /// one. What it has promised is not known, so it takes part in nothing until it is removed and
    /// joins again under another id.
    Amnesia { known: u64, last: u64 },
    /// A snapshot of a group that this replica is not in.
    NotAMember,
    /// It cannot stand for election now: something that it must know first is not durable yet.
    NotNow,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotForUs { to } => write!(f, "the message is for replica {}", to.0),
            Self::Stranger { from } => write!(f, "replica {} is no member", from.0),
            Self::AheadOfLeader { from, index } => {
                write!(f, "replica {} tells of entry {index}, which no leader had", from.0)
            }
            Self::Amnesia { known, last } => write!(
                f,
                "this replica had entry {known} and now ends at {last}: its disk was lost or is an old \
                 one; remove it from the group and add it under a new id"
            ),
            Self::NotAMember => write!(f, "a snapshot of a group without this replica"),
            Self::NotNow => write!(f, "not ready to stand for election"),
        }
    }
}

impl std::error::Error for Refused {}

/// What the guard looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub id: ReplicaId,
    pub term: u64,
    pub last_index: u64,
    pub is_leader: bool,
    pub may_campaign: bool,
}

impl Standing {
    pub fn check(&self, message: &PeerMessage) -> Result<(), Refused> {
        if message.to != self.id {
            return Err(Refused::NotForUs { to: message.to });
        }
        match &message.body {
            // The leader names no commit beyond what it knows to be here.
            PeerBody::Heartbeat { commit }
                if message.term >= self.term && *commit > self.last_index =>
            {
                return Err(Refused::Amnesia { known: *commit, last: self.last_index });
            }
            PeerBody::AppendReply { index, hint, .. }
                if self.is_leader && message.term == self.term =>
            {
                let index = (*index).max(hint.map_or(0, |(index, _)| index));
                if index > self.last_index {
                    return Err(Refused::AheadOfLeader { from: message.from, index });
                }
            }
            PeerBody::Snapshot(snapshot) if !snapshot.members.all().contains(&self.id) => {
                return Err(Refused::NotAMember);
            }
            PeerBody::TimeoutNow if !self.may_campaign => return Err(Refused::NotNow),
            _ => {}
        }
        Ok(())
    }
}
