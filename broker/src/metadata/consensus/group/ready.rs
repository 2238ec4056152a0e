//! What the crate says is ready is carried out: records first, then what waits for them.

use raft::StateRole;
use raft::eraftpb::{Entry, Message};

use super::{Group, InFlight};
use crate::metadata::consensus::convert;
use crate::metadata::consensus::entry::{LogEntry, Payload, Snapshot};
use crate::metadata::consensus::members::{Change, ReplicaId};
use crate::metadata::consensus::message::{PeerBody, PeerMessage};
use crate::metadata::consensus::output::{Output, Role, Status};
use crate::metadata::consensus::record::Record;
use crate::planted::{Bug, is_planted};

impl Group {
    /// Carries out what the crate says is ready, until it is silent.
    pub(super) fn pump(&mut self) {
        self.has_proposed = false;
        loop {
            while self.raw.has_ready() {
                self.take_ready();
            }
            let is_durable = |waiting: &mut InFlight| waiting.number <= self.durable;
            let Some(waiting) = self.in_flight.pop_front_if(is_durable) else { break };
            self.on_persisted(waiting);
        }
        if self.raw.store().take_wanted() {
            self.outputs.push_back(Output::SnapshotWanted);
        }
        self.observe();
    }

    fn take_ready(&mut self) {
        let mut ready = self.raw.ready();
        self.send(&ready.take_messages());
        let hard = convert::hard_from_crate(&self.raw.raft.hard_state());
        let vote = hard.vote.map_or(0, |id| id.0);
        if self.recorded != (hard.term, vote) {
            self.recorded = (hard.term, vote);
            self.record(&Record::HardState(hard));
        }
        let mut snapshot = None;
        if !ready.snapshot().is_empty() {
            let new = convert::snapshot_from_crate(ready.snapshot());
            self.raw.mut_store().restore(new.index, new.term);
            self.record(&Record::Snapshot(new.clone()));
            snapshot = Some(new);
        }
        let entries = ready.take_entries();
        self.raw.mut_store().append(&entries);
        for entry in &entries {
            let entry = convert::entry_from_crate(entry);
            self.record(&Record::Entry { commit: hard.commit, entry });
        }
        let committed = ready.take_committed_entries();
        let messages: Vec<PeerMessage> =
            ready.take_persisted_messages().iter().map(convert::message_from_crate).collect();
        let number = ready.number();
        self.raw.advance_append_async(ready);
        // Also what needs no record of its own waits for those before it: an ack of entries that came
        // twice is true only when they are durable.
        let last = self.next_record - 1;
        let mut waiting = InFlight { number: last, ready: number, messages, snapshot };
        self.misbehave(&mut waiting);
        self.in_flight.push_back(waiting);
        self.apply(&committed);
    }

    /// Lets out too early what the planted bugs say.
    fn misbehave(&mut self, waiting: &mut InFlight) {
        let is_early = |message: &PeerMessage| match message.body {
            PeerBody::VoteReply { .. } | PeerBody::VoteRequest { .. } => {
                is_planted(Bug::VoteBeforeDurable)
            }
            PeerBody::AppendReply { .. } => is_planted(Bug::EntriesAckedBeforeDurable),
            _ => false,
        };
        for message in waiting.messages.extract_if(.., |message| is_early(message)) {
            self.outputs.push_back(Output::Send(message));
        }
    }

    fn on_persisted(&mut self, waiting: InFlight) {
        self.raw.on_persist_ready(waiting.ready);
        if let Some(snapshot) = waiting.snapshot {
            self.install(snapshot);
        }
        self.outputs.extend(waiting.messages.into_iter().map(Output::Send));
    }

    fn install(&mut self, snapshot: Snapshot) {
        self.raw.advance_apply_to(snapshot.index);
        while self.proposals.front().is_some_and(|proposal| proposal.index <= snapshot.index) {
            let Some(proposal) = self.proposals.pop_front() else { break };
            let context = proposal.context;
            // Whether it is in the image is not told.
            self.outputs.push_back(Output::Dropped { context, is_lost: false });
        }
        self.members = snapshot.members.clone();
        self.outputs.push_back(Output::Install(snapshot));
    }

    fn send(&mut self, messages: &[Message]) {
        let messages = messages.iter().map(convert::message_from_crate).map(Output::Send);
        self.outputs.extend(messages);
    }

    /// Gives out committed entries, and lets the members change.
    fn apply(&mut self, entries: &[Entry]) {
        let Some(last) = entries.last().map(|entry| entry.index) else { return };
        for entry in entries {
            let LogEntry { index, term, payload } = convert::entry_from_crate(entry);
            if let Payload::Members(changes) = &payload {
                self.apply_members(changes);
            }
            let context = self.proposer_of(index, term);
            match payload {
                Payload::Command(command) => {
                    self.outputs.push_back(Output::Committed { index, term, context, command });
                }
                Payload::Members(_) => {
                    let members = self.members.clone();
                    self.outputs.push_back(Output::Members { index, context, members });
                }
                Payload::Nothing => {
                    // The crate makes this of a change that it did not want.
                    self.outputs
                        .extend(context.map(|context| Output::Dropped { context, is_lost: true }));
                }
            }
        }
        self.raw.advance_apply_to(last);
    }

    fn apply_members(&mut self, changes: &[Change]) {
        // Every member comes to the same conclusion, also that a change is none.
        let Ok(state) = self.raw.apply_conf_change(&convert::changes_to_crate(changes)) else {
            return;
        };
        self.members = convert::members_from_crate(&state);
        // An image that is on offer names the members before: who has just come would not take it.
        self.raw.mut_store().offer(None);
        if self.raw.raft.state == StateRole::Leader && !self.members.is_voter(self.config.id) {
            // Proposed by another leader before this one: who is no voter does not lead.
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, raft::INVALID_ID);
        }
    }

    /// Who proposed the entry that is committed here, if it was one of ours; and what was proposed at
    /// this index by an earlier leadership is lost.
    fn proposer_of(&mut self, index: u64, term: u64) -> Option<u64> {
        while self.proposals.front().is_some_and(|proposal| proposal.index <= index) {
            let Some(proposal) = self.proposals.pop_front() else { break };
            if (proposal.index, proposal.term) == (index, term) {
                return Some(proposal.context);
            }
            let context = proposal.context;
            self.outputs.push_back(Output::Dropped { context, is_lost: true });
        }
        None
    }

    /// Tells what has become of the role, and draws a timeout for a new one.
    fn observe(&mut self) {
        let raft = &self.raw.raft;
        let (term, state) = (raft.term, raft.state);
        let leader = Some(raft.leader_id).filter(|&id| id != raft::INVALID_ID).map(ReplicaId);
        let role = match state {
            StateRole::Leader => Role::Leader,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            StateRole::Follower => Role::Follower,
        };
        if self.timeout_of != (term, state) {
            self.timeout_of = (term, state);
            let ticks = u64::from(self.config.election_ticks);
            self.timeout = (ticks + self.random.below(ticks)) as usize;
        }
        let status = Status { role, leader, term };
        if self.status != status {
            self.status = status;
            self.outputs.push_back(Output::Status(status));
        }
    }
}
