//! What a member of the group orders and tells.

use bytes::Bytes;

use super::entry::Snapshot;
use super::members::{Members, ReplicaId};
use super::message::PeerMessage;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Follower,
    Candidate,
    Leader,
}

/// How it stands in the group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    pub role: Role,
    /// None: not known, or there is none.
    pub leader: Option<ReplicaId>,
    pub term: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Append this record behind all before it, and say when it is durable. Numbers are dense.
    Append {
        number: u64,
        body: Vec<u8>,
    },
    /// To a member, as it is, now. May be lost, delayed, doubled.
    Send(PeerMessage),
    /// Apply this command. Indexes rise, with gaps (not every entry is a command).
    Committed {
        index: u64,
        term: u64,
        /// Of the proposal, if it was made here in this life.
        context: Option<u64>,
        command: Bytes,
    },
    /// The state is this image from now on; what is committed behind it follows.
    Install(Snapshot),
    /// The members have changed.
    Members {
        index: u64,
        context: Option<u64>,
        members: Members,
    },
    /// What was proposed here with this context will not come as committed: another leader's entry went
    /// over it (`is_lost`), or nobody here can know whether it was committed.
    Dropped {
        context: u64,
        is_lost: bool,
    },
    /// Somebody is too far behind: offer an image of the state.
    SnapshotWanted,
    Status(Status),
}
