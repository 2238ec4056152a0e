//! Between our types and those of the Raft crate, which nobody else sees.
//!
//! The steps of a change of members are in an entry's context, in our own format. The crate keeps its own,
//! in protobuf, in the data of what is proposed here, and reads that only when it is proposed: so its
//! parser is never given a byte from a disk or from a peer.

use bytes::Bytes;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, Message,
    MessageType, Snapshot as CrateSnapshot,
};

use super::entry::{LogEntry, Payload, Snapshot};
use super::members::{Change, Members, ReplicaId};
use super::message::{Ballot, PeerBody, PeerMessage};
use super::record::{HardState, RECORD_FORMAT};
use crate::metadata::codec::{BadBytes, Reader, Writer};

/// The context of the election that a leader asked for, as the crate writes it.
const TRANSFER: &[u8] = raft::CAMPAIGN_TRANSFER;

const CHANGES_TAG: u8 = 4;

pub(super) fn changes_to_context(changes: &[Change]) -> Vec<u8> {
    let mut writer = Writer::new(RECORD_FORMAT, CHANGES_TAG);
    writer.u32(changes.len() as u32);
    changes.iter().for_each(|change| change.write(&mut writer));
    writer.finish()
}

fn changes_from_context(context: &[u8]) -> Result<Vec<Change>, BadBytes> {
    // The crate's own, which ends a change of several.
    if context.is_empty() {
        return Ok(Vec::new());
    }
    let (tag, mut reader) = Reader::new(context, RECORD_FORMAT)?;
    let changes = reader.list(Change::read)?;
    reader.finish()?;
    if tag == CHANGES_TAG { Ok(changes) } else { Err(BadBytes) }
}

pub(super) fn changes_to_crate(changes: &[Change]) -> ConfChangeV2 {
    let mut all = ConfChangeV2::default();
    for change in changes {
        let (kind, id) = match change {
            Change::AddVoter(id) => (ConfChangeType::AddNode, id),
            Change::AddLearner(id) => (ConfChangeType::AddLearnerNode, id),
            Change::Remove(id) => (ConfChangeType::RemoveNode, id),
        };
        let mut single = ConfChangeSingle::default();
        single.set_change_type(kind);
        single.node_id = id.0;
        all.mut_changes().push(single);
    }
    all
}

pub(super) fn members_to_crate(members: &Members) -> ConfState {
    let ids = |list: &[ReplicaId]| list.iter().map(|id| id.0).collect::<Vec<u64>>();
    let mut state = ConfState::default();
    state.set_voters(ids(&members.voters));
    state.set_learners(ids(&members.learners));
    state.set_voters_outgoing(ids(&members.voters_outgoing));
    state.set_learners_next(ids(&members.learners_next));
    state.auto_leave = members.auto_leave;
    state
}

pub(super) fn members_from_crate(state: &ConfState) -> Members {
    // The crate keeps them in maps: their order means nothing.
    let sorted = |ids: &[u64]| {
        let mut list: Vec<ReplicaId> = ids.iter().map(|&id| ReplicaId(id)).collect();
        list.sort_unstable();
        list
    };
    Members {
        voters: sorted(state.get_voters()),
        learners: sorted(state.get_learners()),
        voters_outgoing: sorted(state.get_voters_outgoing()),
        learners_next: sorted(state.get_learners_next()),
        auto_leave: state.auto_leave,
    }
}

pub(super) fn hard_to_crate(hard: &HardState) -> raft::eraftpb::HardState {
    let vote = hard.vote.map_or(0, |id| id.0);
    raft::eraftpb::HardState { term: hard.term, vote, commit: hard.commit, ..Default::default() }
}

pub(super) fn hard_from_crate(state: &raft::eraftpb::HardState) -> HardState {
    let vote = Some(state.vote).filter(|&id| id != 0).map(ReplicaId);
    HardState { term: state.term, vote, commit: state.commit }
}

pub(super) fn entry_to_crate(entry: &LogEntry) -> Entry {
    let mut crates = Entry { index: entry.index, term: entry.term, ..Entry::default() };
    match &entry.payload {
        Payload::Nothing => {}
        Payload::Command(command) => crates.data = command.clone(),
        Payload::Members(changes) => {
            crates.set_entry_type(EntryType::EntryConfChangeV2);
            crates.context = changes_to_context(changes).into();
        }
    }
    crates
}

pub(super) fn entry_from_crate(entry: &Entry) -> LogEntry {
    let payload = match entry.get_entry_type() {
        EntryType::EntryNormal if entry.data.is_empty() => Payload::Nothing,
        EntryType::EntryNormal => Payload::Command(entry.data.clone()),
        EntryType::EntryConfChangeV2 => Payload::Members(
            changes_from_context(&entry.context).expect("written here, or read at the door"),
        ),
        EntryType::EntryConfChange => unreachable!("only the second format is proposed"),
    };
    LogEntry { index: entry.index, term: entry.term, payload }
}

pub(super) fn snapshot_to_crate(snapshot: &Snapshot) -> CrateSnapshot {
    let mut crates = CrateSnapshot { data: snapshot.image.clone(), ..CrateSnapshot::default() };
    let metadata = crates.mut_metadata();
    metadata.index = snapshot.index;
    metadata.term = snapshot.term;
    metadata.set_conf_state(members_to_crate(&snapshot.members));
    crates
}

pub(super) fn snapshot_from_crate(snapshot: &CrateSnapshot) -> Snapshot {
    let metadata = snapshot.get_metadata();
    Snapshot {
        index: metadata.index,
        term: metadata.term,
        members: members_from_crate(metadata.get_conf_state()),
        image: snapshot.data.clone(),
    }
}

pub(super) fn message_to_crate(message: &PeerMessage) -> Message {
    let (from, to, term) = (message.from.0, message.to.0, message.term);
    let mut crates = Message { from, to, term, ..Message::default() };
    let kind = match &message.body {
        PeerBody::Append { previous_index, previous_term, commit, entries } => {
            crates.index = *previous_index;
            crates.log_term = *previous_term;
            crates.commit = *commit;
            crates.set_entries(entries.iter().map(entry_to_crate).collect::<Vec<_>>().into());
            MessageType::MsgAppend
        }
        PeerBody::AppendReply { index, commit, hint } => {
            crates.index = *index;
            crates.commit = *commit;
            if let Some((index, term)) = hint {
                crates.reject = true;
                crates.reject_hint = *index;
                crates.log_term = *term;
            }
            MessageType::MsgAppendResponse
        }
        PeerBody::VoteRequest {
            ballot,
            is_transfer,
            last_index,
            last_term,
            commit,
            commit_term,
        } => {
            crates.index = *last_index;
            crates.log_term = *last_term;
            crates.commit = *commit;
            crates.commit_term = *commit_term;
            if *is_transfer {
                crates.context = Bytes::from_static(TRANSFER);
            }
            match ballot {
                Ballot::Before => MessageType::MsgRequestPreVote,
                Ballot::Real => MessageType::MsgRequestVote,
            }
        }
        PeerBody::VoteReply { ballot, is_granted, commit, commit_term } => {
            crates.reject = !is_granted;
            crates.commit = *commit;
            crates.commit_term = *commit_term;
            match ballot {
                Ballot::Before => MessageType::MsgRequestPreVoteResponse,
                Ballot::Real => MessageType::MsgRequestVoteResponse,
            }
        }
        PeerBody::Snapshot(snapshot) => {
            crates.set_snapshot(snapshot_to_crate(snapshot));
            MessageType::MsgSnapshot
        }
        PeerBody::Heartbeat { commit } => {
            crates.commit = *commit;
            MessageType::MsgHeartbeat
        }
        PeerBody::HeartbeatReply { commit } => {
            crates.commit = *commit;
            MessageType::MsgHeartbeatResponse
        }
        PeerBody::TimeoutNow => MessageType::MsgTimeoutNow,
    };
    crates.set_msg_type(kind);
    crates
}

pub(super) fn message_from_crate(message: &Message) -> PeerMessage {
    let (commit, commit_term) = (message.commit, message.commit_term);
    let request = |ballot| PeerBody::VoteRequest {
        ballot,
        is_transfer: message.context == TRANSFER,
        last_index: message.index,
        last_term: message.log_term,
        commit,
        commit_term,
    };
    let reply =
        |ballot| PeerBody::VoteReply { ballot, is_granted: !message.reject, commit, commit_term };
    let body = match message.get_msg_type() {
        MessageType::MsgAppend => PeerBody::Append {
            previous_index: message.index,
            previous_term: message.log_term,
            commit,
            entries: message.get_entries().iter().map(entry_from_crate).collect(),
        },
        MessageType::MsgAppendResponse => PeerBody::AppendReply {
            index: message.index,
            commit,
            hint: message.reject.then_some((message.reject_hint, message.log_term)),
        },
        MessageType::MsgRequestVote => request(Ballot::Real),
        MessageType::MsgRequestPreVote => request(Ballot::Before),
        MessageType::MsgRequestVoteResponse => reply(Ballot::Real),
        MessageType::MsgRequestPreVoteResponse => reply(Ballot::Before),
        MessageType::MsgSnapshot => PeerBody::Snapshot(snapshot_from_crate(message.get_snapshot())),
        MessageType::MsgHeartbeat => PeerBody::Heartbeat { commit },
        MessageType::MsgHeartbeatResponse => PeerBody::HeartbeatReply { commit },
        MessageType::MsgTimeoutNow => PeerBody::TimeoutNow,
        kind => unreachable!("{kind:?} is never sent here"),
    };
    let (from, to) = (ReplicaId(message.from), ReplicaId(message.to));
    PeerMessage { from, to, term: message.term, body }
}
