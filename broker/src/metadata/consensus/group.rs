//! One member of the group: the Raft crate's node, and around it what the crate leaves to its user: the
//! order of disk and network, members, snapshots, and who proposed what.
//!
//! ```text
//! tick, message, proposal ─►  crate  ─► records (numbered) ─► on disk ─► on_durable(n) ─┐
//!                              │ ▲                                                      │
//!                              │ └───────────── what waited for record n ◄──────────────┘
//!                              ├─► a leader's messages: at once
//!                              ├─► all others' (votes, acks): once every record so far is durable
//!                              └─► committed entries: durable here, and on a quorum
//! ```
//! Several records may be on their way to the disk; nothing here waits. Time comes as ticks, randomness
//! from the random numbers that it was given: the crate draws a timeout of its own from the operating
//! system, and ours goes over it before it is looked at.

mod ready;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use raft::{ProgressState, RawNode, SnapshotStatus, StateRole};
use slog::{Discard, Logger, o};

use super::convert;
use super::entry::{LogEntry, Payload, Snapshot};
use super::fold::Recovered;
use super::guard::{Refused, Standing};
use super::members::{Change, MEMBERS_MAX, Members, ReplicaId};
use super::message::{PeerBody, PeerMessage};
use super::output::{Output, Role, Status};
use super::record::{HardState, Record};
use super::store::Store;
use crate::planted::{Bug, is_planted};
use crate::random::Random;

/// How a group of members is tuned. Times are in ticks.
#[derive(Clone, Copy, Debug)]
pub struct GroupConfig {
    pub id: ReplicaId,
    pub heartbeat_ticks: u32,
    /// Without a word from the leader for so long, and up to twice as long, a member stands for
    /// election; a leader that hears of no quorum for so long steps down. More than `heartbeat_ticks`.
    pub election_ticks: u32,
    /// Entries of one message, bytes. A larger one travels alone.
    pub message_bytes_max: u64,
    /// Messages with entries under way to one member.
    pub messages_in_flight_max: usize,
    /// Proposed and not committed, bytes; at least one proposal always fits.
    pub uncommitted_bytes_max: u64,
}

impl GroupConfig {
    pub fn new(id: ReplicaId) -> Self {
        Self {
            id,
            heartbeat_ticks: 2,
            election_ticks: 10,
            message_bytes_max: 256 << 10,
            messages_in_flight_max: 64,
            uncommitted_bytes_max: 8 << 20,
        }
    }
}

/// Why nothing was proposed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProposeError {
    NotLeader {
        leader: Option<ReplicaId>,
    },
    /// Too much is not committed yet, the leadership is being handed over, or another change of members
    /// is under way: later.
    Busy,
    /// The leader does not remove or demote itself: hand over first.
    TransferFirst,
    /// There is no such change to the members as they are.
    Invalid,
}

/// A record on its way to the disk. Dense from 1 in the life of a [`Group`].
pub type RecordNumber = u64;

/// What waits until a record and all before it are durable.
struct InFlight {
    number: RecordNumber,
    ready: u64,
    messages: Vec<PeerMessage>,
    snapshot: Option<Snapshot>,
}

struct Proposal {
    index: u64,
    term: u64,
    context: u64,
}

/// A member. See the module's page.
pub struct Group {
    config: GroupConfig,
    raw: RawNode<Store>,
    random: Random,
    /// Of elections, in ticks.
    timeout: usize,
    /// When it was drawn: anew for each term and role.
    timeout_of: (u64, StateRole),
    next_record: RecordNumber,
    durable: RecordNumber,
    in_flight: VecDeque<InFlight>,
    /// Term and vote of the last such record.
    recorded: (u64, u64),
    proposals: VecDeque<Proposal>,
    outputs: VecDeque<Output>,
    status: Status,
    members: Members,
    /// Something was proposed since the crate was last asked what is to be done.
    has_proposed: bool,
    /// Found out that its disk is not the one that it had.
    amnesia: Option<Refused>,
    /// For how many ticks a snapshot has been under way to a member.
    snapshot_ticks: BTreeMap<u64, u32>,
    offer_ticks: u32,
}

impl Group {
    /// The first start of a group. All its first members start with the same members and image; who
    /// comes later joins.
    ///
    /// # Panics
    /// If `members` are not valid, or the config is not.
    pub fn bootstrap(config: GroupConfig, members: Members, image: Bytes, random: Random) -> Self {
        // The log begins behind a snapshot, so that it can never be read without knowing the members.
        let snapshot = Snapshot { index: 1, term: 1, members, image };
        let hard = HardState { term: 1, vote: None, commit: 1 };
        let recovered = Recovered { hard, snapshot: Some(snapshot.clone()), log: VecDeque::new() };
        let mut group = Self::restart(config, recovered, random);
        group.record(&Record::Snapshot(snapshot));
        group.record(&Record::HardState(hard));
        group
    }

    /// The first start of one that is added to a group that is there: it is told everything.
    pub fn join(config: GroupConfig, random: Random) -> Self {
        Self::restart(config, Recovered::default(), random)
    }

    /// Goes on from what the records came to. The state begins as the recovered snapshot's image;
    /// what was committed behind it comes as [`Output::Committed`].
    ///
    /// # Panics
    /// If the members in it are not valid, or the config is not.
    pub fn restart(config: GroupConfig, mut recovered: Recovered, mut random: Random) -> Self {
        let snapshot = recovered.snapshot.take();
        let members = snapshot.as_ref().map(|snapshot| snapshot.members.clone());
        assert!(members.as_ref().is_none_or(Members::is_valid));
        let members = members.unwrap_or_default();
        let base = snapshot.map_or((0, 0), |snapshot| (snapshot.index, snapshot.term));
        let mut hard = recovered.hard;
        let changes_members = |entry: &LogEntry| matches!(entry.payload, Payload::Members(_));
        if members.is_only_voter(config.id) && !recovered.log.iter().any(changes_members) {
            // What is durable on the only voter is committed: no need to wait for an election to say so.
            hard.commit = base.0 + recovered.log.len() as u64;
        }
        let crates = convert::hard_to_crate(&hard);
        let mut store = Store::new(crates, convert::members_to_crate(&members), base);
        let entries: Vec<_> = recovered.log.iter().map(convert::entry_to_crate).collect();
        store.append(&entries);
        let election_ticks = config.election_ticks as usize;
        let raft_config = raft::Config {
            id: config.id.0,
            election_tick: election_ticks,
            heartbeat_tick: config.heartbeat_ticks as usize,
            applied: base.0,
            max_size_per_msg: config.message_bytes_max,
            max_inflight_msgs: config.messages_in_flight_max,
            check_quorum: true,
            pre_vote: true,
            batch_append: true,
            max_uncommitted_size: config.uncommitted_bytes_max,
            ..raft::Config::default()
        };
        let raw = RawNode::new(&raft_config, store, &Logger::root(Discard, o!()))
            .expect("the config is ours and the state was checked");
        let timeout = election_ticks + random.below(election_ticks as u64) as usize;
        let mut group = Self {
            config,
            raw,
            random,
            timeout,
            timeout_of: (hard.term, StateRole::Follower),
            next_record: 1,
            durable: 0,
            in_flight: VecDeque::new(),
            recorded: (hard.term, hard.vote.map_or(0, |id| id.0)),
            proposals: VecDeque::new(),
            outputs: VecDeque::new(),
            status: Status { role: Role::Follower, leader: None, term: hard.term },
            members,
            has_proposed: false,
            amnesia: None,
            snapshot_ticks: BTreeMap::new(),
            offer_ticks: 0,
        };
        group.pump();
        group
    }

    pub fn id(&self) -> ReplicaId {
        self.config.id
    }

    pub fn status(&self) -> Status {
        self.status
    }

    /// The members as of the last committed entry that was given out.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Everything through this index was given out as committed or is in the state.
    pub fn applied(&self) -> u64 {
        self.raw.raft.raft_log.applied
    }

    /// The last entry of its log, durable or not.
    pub fn last_index(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    /// The term of an entry, if it is still in memory.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        self.raw.raft.raft_log.term(index).ok().filter(|&term| term > 0)
    }

    /// It leads, and another member has made durable what is not durable here.
    pub fn is_overtaken(&self) -> bool {
        let id = self.config.id.0;
        let progress = self.raw.raft.prs();
        let own = progress.get(id).map_or(0, |own| own.matched);
        self.raw.raft.state == StateRole::Leader
            && progress.iter().any(|(other, progress)| *other != id && progress.matched > own)
    }

    /// It has joined nobody yet: it waits for a leader that tells it everything.
    pub fn is_joining(&self) -> bool {
        self.members.voters.is_empty()
    }

    /// Whether a member has everything that is committed, as far as this leader knows. False of strangers, and when
    /// another member leads.
    pub fn has_everything(&self, id: ReplicaId) -> bool {
        let raft = &self.raw.raft;
        let progress = raft.prs().get(id.0).filter(|_| raft.state == StateRole::Leader);
        progress.is_some_and(|progress| progress.matched >= raft.raft_log.committed)
    }

    /// How far the group agrees, and what each member has on its disk as far as this leader knows. `None`: another leads.
    pub fn agreed(&self) -> Option<(u64, impl Iterator<Item = (ReplicaId, u64)>)> {
        let raft = &self.raw.raft;
        let members = raft.prs().iter().map(|(id, it)| (ReplicaId(*id), it.matched));
        (raft.state == StateRole::Leader).then_some((raft.raft_log.committed, members))
    }

    /// There is nobody to talk to and nothing to wait for: time need not be told.
    pub fn wants_ticks(&self) -> bool {
        self.status.role != Role::Leader || !self.members.is_alone(self.config.id)
    }

    /// What is to be done, in order. Ask until there is nothing more, after every call.
    pub fn poll(&mut self) -> Option<Output> {
        self.flush_proposals();
        self.outputs.pop_front()
    }

    /// Some time has passed, always the same.
    pub fn tick(&mut self) {
        self.flush_proposals();
        let is_leader = self.raw.raft.state == StateRole::Leader;
        if self.amnesia.is_some() || (!is_leader && !self.may_campaign()) {
            return;
        }
        self.raw.raft.set_randomized_election_timeout(self.timeout);
        self.raw.tick();
        if self.raw.raft.state == StateRole::Leader {
            self.tick_leader();
        }
        self.pump();
    }

    /// Stands for election now. Whoever decides alone is elected at once.
    pub fn campaign(&mut self) {
        self.flush_proposals();
        if self.amnesia.is_none() && self.may_campaign() && self.raw.raft.promotable() {
            // Refused only while members change, and then a tick tries again.
            _ = self.raw.campaign();
        }
        self.pump();
    }

    /// Proposes a command (not empty). `context` comes back with it.
    pub fn propose(&mut self, command: Vec<u8>, context: u64) -> Result<(), ProposeError> {
        assert!(!command.is_empty());
        self.check_leads()?;
        self.raw.propose(Vec::new(), command).map_err(|_| ProposeError::Busy)?;
        self.on_proposed(context);
        Ok(())
    }

    /// Changes the members: one step at once, several by way of a joint majority. The context comes back
    /// as with a command, after [`Output::Members`].
    pub fn change_members(&mut self, changes: &[Change], context: u64) -> Result<(), ProposeError> {
        self.check_leads()?;
        let raft = &self.raw.raft;
        if raft.has_pending_conf() || self.members.is_joint() {
            return Err(ProposeError::Busy);
        }
        let demotes_self = |change: &Change| match *change {
            Change::AddLearner(id) | Change::Remove(id) => id == self.config.id,
            Change::AddVoter(_) => false,
        };
        if changes.iter().any(demotes_self) {
            return Err(ProposeError::TransferFirst);
        }
        let crates = convert::changes_to_crate(changes);
        let mut changer = raft::Changer::new(raft.prs());
        let changed = match crates.enter_joint() {
            Some(auto_leave) => changer.enter_joint(auto_leave, &crates.changes),
            None => changer.simple(&crates.changes),
        };
        let is_too_many = self.members.all().len() + changes.len() > MEMBERS_MAX;
        if changes.is_empty() || changed.is_err() || is_too_many {
            return Err(ProposeError::Invalid);
        }
        let own = convert::changes_to_context(changes);
        self.raw.propose_conf_change(own, crates).map_err(|_| ProposeError::Busy)?;
        self.on_proposed(context);
        Ok(())
    }

    /// Hands the leadership over to a voter. Given up when that takes longer than an election.
    pub fn transfer_leader(&mut self, to: ReplicaId) -> Result<(), ProposeError> {
        self.check_leads()?;
        if !self.members.is_voter(to) || to == self.config.id {
            return Err(ProposeError::Invalid);
        }
        self.flush_proposals();
        self.raw.transfer_leader(to.0);
        self.pump();
        Ok(())
    }

    /// A member says something. A refused message has changed nothing; after [`Refused::Amnesia`] all
    /// are refused.
    pub fn on_message(&mut self, message: &PeerMessage) -> Result<(), Refused> {
        if let Some(amnesia) = self.amnesia {
            return Err(amnesia);
        }
        self.flush_proposals();
        let standing = Standing {
            id: self.config.id,
            term: self.raw.raft.term,
            last_index: self.last_index(),
            is_leader: self.raw.raft.state == StateRole::Leader,
            may_campaign: self.may_campaign(),
        };
        if let Err(refused) = standing.check(message) {
            if matches!(refused, Refused::Amnesia { .. }) {
                self.amnesia = Some(refused);
            }
            return Err(refused);
        }
        if let PeerBody::Snapshot(snapshot) = &message.body
            && is_planted(Bug::OldSnapshotInstalled)
            && snapshot.index <= self.applied()
        {
            self.outputs.push_back(Output::Install(snapshot.clone()));
        }
        let stepped = self.raw.step(convert::message_to_crate(message));
        self.pump();
        stepped.map_err(|_| Refused::Stranger { from: message.from })
    }

    /// A message could not be sent: its receiver is asked what it has before more is sent.
    pub fn on_unreachable(&mut self, peer: ReplicaId) {
        self.flush_proposals();
        self.raw.report_unreachable(peer.0);
        self.pump();
    }

    /// What became of a message with a snapshot. Unsaid, it counts as lost after a while.
    pub fn on_snapshot_sent(&mut self, peer: ReplicaId, has_arrived: bool) {
        self.flush_proposals();
        self.snapshot_ticks.remove(&peer.0);
        let status = if has_arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.raw.report_snapshot(peer.0, status);
        self.pump();
    }

    /// All records through this one are durable.
    pub fn on_durable(&mut self, through: RecordNumber) {
        assert!(through < self.next_record);
        self.flush_proposals();
        self.durable = self.durable.max(through);
        self.pump();
    }

    /// The image of the state as of [`Self::applied`], because [`Output::SnapshotWanted`] asked.
    ///
    /// # Panics
    /// If outputs have not been polled: the state would lag behind.
    pub fn offer_snapshot(&mut self, image: Bytes) {
        assert!(self.outputs.is_empty() && !self.has_proposed);
        if let Some(snapshot) = self.snapshot_of(image) {
            self.raw.mut_store().offer(Some(convert::snapshot_to_crate(&snapshot)));
            self.offer_ticks = 0;
        }
    }

    /// Bytes of the first record of a [`Self::checkpoint`] with an image of so many bytes.
    pub fn snapshot_record_bytes(&self, image: usize) -> usize {
        let snapshot = self.snapshot_of(Bytes::new());
        snapshot.map_or(0, |snapshot| Record::Snapshot(snapshot).encode().len()) + image
    }

    /// Records the image of the state as of [`Self::applied`], and again what is not in it. When the last
    /// of these records is durable, no record before the first of them is needed any more. None: not
    /// possible now.
    ///
    /// # Panics
    /// If outputs have not been polled: the state would lag behind.
    pub fn checkpoint(&mut self, image: Bytes) -> Option<(RecordNumber, RecordNumber)> {
        assert!(self.outputs.is_empty() && !self.has_proposed);
        if self.is_installing() {
            return None;
        }
        let snapshot = self.snapshot_of(image)?;
        let applied = snapshot.index;
        let first = self.record(&Record::Snapshot(snapshot));
        let hard = convert::hard_from_crate(&self.raw.raft.hard_state());
        let mut last = self.record(&Record::HardState(hard));
        let behind: Vec<LogEntry> =
            self.raw.store().since(applied).map(convert::entry_from_crate).collect();
        for entry in behind {
            if is_planted(Bug::CheckpointForgetsTail) {
                break;
            }
            last = self.record(&Record::Entry { commit: hard.commit, entry });
        }
        self.raw.mut_store().compact(applied);
        Some((first, last))
    }

    fn snapshot_of(&self, image: Bytes) -> Option<Snapshot> {
        let index = self.applied();
        let term = self.term_at(index)?;
        Some(Snapshot { index, term, members: self.members.clone(), image })
    }

    fn check_leads(&self) -> Result<(), ProposeError> {
        if self.raw.raft.state != StateRole::Leader {
            return Err(ProposeError::NotLeader { leader: self.status.leader });
        }
        if self.raw.raft.lead_transferee.is_some() {
            return Err(ProposeError::Busy);
        }
        Ok(())
    }

    fn on_proposed(&mut self, context: u64) {
        let (index, term) = (self.last_index(), self.raw.raft.term);
        // Of an earlier leadership, and gone over since.
        while self.proposals.back().is_some_and(|proposal| proposal.index >= index) {
            let Some(Proposal { context, .. }) = self.proposals.pop_back() else { break };
            self.outputs.push_back(Output::Dropped { context, is_lost: true });
        }
        self.proposals.push_back(Proposal { index, term, context });
        self.has_proposed = true;
    }

    /// The crate must not stand for election while it does not know what it has: a snapshot that is not
    /// durable yet, or, where this member decides alone, any record.
    fn may_campaign(&self) -> bool {
        let alone = [self.config.id];
        let decides_alone = self.members.voters == alone
            && (!self.members.is_joint() || self.members.voters_outgoing == alone);
        !self.is_installing() && (!decides_alone || self.in_flight.is_empty())
    }

    fn is_installing(&self) -> bool {
        self.in_flight.iter().any(|waiting| waiting.snapshot.is_some())
    }

    fn tick_leader(&mut self) {
        // The crate ends a change of several when it is applied; if the leader changed before, nobody does.
        if self.members.is_joint() && !self.raw.raft.has_pending_conf() {
            let leave = convert::changes_to_crate(&[]);
            _ = self.raw.propose_conf_change(convert::changes_to_context(&[]), leave);
        }
        let receiving: Vec<u64> = (self.raw.raft.prs().iter())
            .filter(|(_, progress)| progress.state == ProgressState::Snapshot)
            .map(|(id, _)| *id)
            .collect();
        self.snapshot_ticks.retain(|id, _| receiving.contains(id));
        for id in &receiving {
            let ticks = self.snapshot_ticks.entry(*id).or_default();
            *ticks += 1;
            if *ticks > 10 * self.config.election_ticks {
                self.snapshot_ticks.remove(id);
                self.raw.report_snapshot(*id, SnapshotStatus::Failure);
            }
        }
        self.offer_ticks += 1;
        if receiving.is_empty()
            && self.offer_ticks > 4 * self.config.election_ticks
            && self.raw.store().has_offer()
        {
            self.raw.mut_store().offer(None);
        }
    }

    fn flush_proposals(&mut self) {
        if self.has_proposed {
            self.pump();
        }
    }

    fn record(&mut self, record: &Record) -> RecordNumber {
        let number = self.next_record;
        self.next_record += 1;
        self.outputs.push_back(Output::Append { number, body: record.encode() });
        number
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group")
            .field("id", &self.config.id)
            .field("status", &self.status)
            .field("members", &self.members)
            .field("applied", &self.applied())
            .finish_non_exhaustive()
    }
}
