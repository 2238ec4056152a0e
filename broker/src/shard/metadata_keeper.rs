//! The metadata on shard 0: proposes commands to its Raft group, applies them when they are committed,
//! and answers when every shard has the new view.
//!
//! ```text
//! change → queue → proposed to the group → committed: applied → view to all → applied everywhere: answered
//!     └──► another broker leads the group: asked there ────────────────────────────┘
//! ```
//! The group's records are entries of lane 0: see `group`. Its members are the brokers of the cluster, which speak
//! through `peers`; what is asked of its leader is in `asked` and `survey`, how a cluster begins and who joins it in
//! `registration`, what the leader does for lanes in `lanes` and for the group itself in `members`. In a group of one a command is committed when it is durable here, and a
//! start waits for no election.

mod asked;
mod group;
mod lanes;
mod members;
mod peers;
mod registration;
mod survey;

use std::collections::VecDeque;
use std::sync::Arc;

use corelog_protocol::ErrorCode;
use corelog_protocol::ids::{BrokerId, LaneId, ShardId, TopicId};

use super::effect::Effect;
use super::lane::{LaneState, Origin};
use super::message::{Answer, Change, Refusal, ShardMessage};
use super::route::METADATA_LOST;
use super::{Cx, Shard, ShardConfig};
use crate::limits::{CHANGES_QUEUED_MAX, RETRY_AFTER_MS};
use crate::log::{AppendError, Replayed};
use crate::memory::Memory;
use crate::metadata::balance::Balancer;
use crate::metadata::consensus::{Fold, Group, ProposeError, Record, Role};
use crate::metadata::failover::{Failover, FailoverConfig};
use crate::metadata::membership::broker_of;
use crate::metadata::state::Outcome;
use crate::metadata::view::View;
use crate::metadata::{ChangeReply, Command, Heard, State};
use asked::Asked;
use group::Records;
pub(super) use members::REMOVED;

/// The metadata lane is the first of shard 0.
pub(super) const LANE: usize = 0;

/// Who wants a change, and is to be told what became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asker {
    Here(Origin),
    /// Another broker, for somebody there.
    Peer {
        broker: BrokerId,
        token: u64,
    },
}

/// For whom a command was proposed.
#[derive(Debug)]
enum Proposer {
    Nobody,
    Asker(Asker),
    /// The lanes: they want to know if it will not be committed.
    Failover(Command),
}

#[derive(Debug)]
pub(super) struct MetadataKeeper {
    me: BrokerId,
    pub state: State,
    /// Part of it could not be read, or its directory failed: no more changes.
    pub is_failed: bool,
    /// What recovery has found so far.
    fold: Fold,
    /// From the end of recovery on, unless the metadata is failed.
    group: Option<Group>,
    records: Records,
    /// The disk is full, and records of the group wait for room: no change can be made.
    is_full: bool,
    /// Not proposed yet.
    queue: VecDeque<(Asker, Change)>,
    /// Proposed, not committed yet, by the context.
    proposed: VecDeque<(u64, Proposer)>,
    next_context: u64,
    /// Asked of the leader elsewhere, not answered yet.
    asked: Asked,
    /// Decided here for other brokers that do not know it yet.
    replies: Vec<(BrokerId, ChangeReply)>,
    /// Ticks of the group that were counted, and how many pass until the next try to register.
    ticks: u64,
    register_ticks: u32,
    /// How often it asked somebody to let it join: each time the next one.
    join_turn: usize,
    /// The members of the group have changed since the links were looked at.
    are_members_new: bool,
    /// Others have said that this broker was removed, or it has seen it leave the group itself.
    is_out: bool,
    /// The other broker that led the group last.
    led_by: Option<BrokerId>,
    /// In a cluster: looks after the leaders of lanes while this broker leads the group.
    failover: Option<Failover>,
    /// Spreads their load, if it shall.
    balancer: Option<Balancer>,
    /// The version of the state that it has looked at.
    looked_at: u64,
    /// Applied, not in force on every shard yet, by the version from which on they are.
    settling: VecDeque<(u64, Origin, Answer)>,
    /// The version of the last view, and the topics that changed since.
    published: u64,
    changed: Vec<TopicId>,
    is_changed: bool,
    /// The version in force on each shard.
    applied: Vec<u64>,
    /// The log has begun a new segment: an image shall let go of the old ones.
    wants_checkpoint: bool,
    /// There was no room for it: changes go first, and it is tried again when there is.
    is_checkpoint_put_off: bool,
}

impl MetadataKeeper {
    pub fn new(config: &ShardConfig) -> Self {
        let failover = FailoverConfig { me: config.broker, detect: config.detect };
        Self {
            me: config.broker,
            state: State::default(),
            is_failed: false,
            fold: Fold::default(),
            group: None,
            records: Records::default(),
            is_full: false,
            queue: VecDeque::new(),
            proposed: VecDeque::new(),
            next_context: 0,
            asked: Asked::new(config.life),
            replies: Vec::new(),
            ticks: 0,
            register_ticks: 0,
            join_turn: 0,
            are_members_new: false,
            is_out: false,
            led_by: None,
            failover: config.is_clustered().then(|| Failover::new(failover)),
            balancer: config.balance.map(Balancer::new),
            looked_at: 0,
            settling: VecDeque::new(),
            published: 0,
            changed: Vec::new(),
            is_changed: false,
            applied: vec![0; usize::from(config.shards)],
            wants_checkpoint: false,
            is_checkpoint_put_off: false,
        }
    }

    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.proposed.is_empty()
            && self.settling.is_empty()
            && self.asked.is_empty()
    }

    pub fn is_leading(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.status().role == Role::Leader)
    }

    /// The other broker that leads the group, as far as that is known.
    fn leader_elsewhere(&self) -> Option<BrokerId> {
        let leader = self.group.as_ref()?.status().leader?;
        // Members are brokers.
        broker_of(leader).filter(|id| *id != self.me)
    }

    /// The command that would do it now, or what it would come to.
    fn command_of(&self, change: &Change) -> Result<Command, Outcome> {
        let now = self.group_time();
        let heard = match (&self.failover, &self.group) {
            (Some(failover), Some(group)) => {
                Some(Heard { failover, now, members: group.members() })
            }
            _ => None,
        };
        change.command(&self.state, heard)
    }

    /// Who asked is answered when this version is in force on every shard.
    fn settle_later(&mut self, version: u64, origin: Origin, answer: Answer) {
        let at = self.settling.partition_point(|(earlier, ..)| *earlier <= version);
        self.settling.insert(at, (version, origin, answer));
    }

    pub fn on_rolled(&mut self) {
        self.wants_checkpoint = true;
        self.is_checkpoint_put_off = false;
    }

    /// The log has room again.
    pub fn on_room(&mut self) {
        self.is_checkpoint_put_off = false;
        self.is_full = false;
    }

    fn is_checkpoint_due(&self) -> bool {
        self.wants_checkpoint && !self.is_checkpoint_put_off
    }
}

impl Shard {
    /// Someone wants to change the metadata.
    pub(super) fn on_change<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        origin: Origin,
        change: Change,
    ) {
        // While it leaves, some of its shards may have stopped: they would never say that a change is in force.
        let leaving = self.leaving.is_some().then_some(super::replies::STOPPING);
        let refusal = leaving.or(self.why_no_change(&change));
        let is_clustered = self.config.is_clustered();
        match (refusal, &mut self.keeper) {
            (None, Some(keeper)) if is_clustered && !keeper.is_leading() => {
                self.ask_leader(cx, origin, change);
            }
            (None, Some(keeper)) => keeper.queue.push_back((Asker::Here(origin), change)),
            (refusal, _) => {
                let refusal = refusal.unwrap_or(METADATA_LOST);
                self.change_answered(cx, origin, Answer::Refused(refusal));
            }
        }
    }

    /// Why a change cannot even be queued, if so.
    fn why_no_change(&self, change: &Change) -> Option<Refusal> {
        let Some(keeper) = &self.keeper else {
            return Some(Refusal::new(ErrorCode::NotLeader, "not the metadata's shard"));
        };
        // Brokers register before there are lanes for topics.
        let is_early = keeper.state.lanes().is_empty() || self.view.version() == 0;
        let is_registration = matches!(change, Change::BrokerRegister { .. });
        match keeper {
            _ if self.stopping.is_some() => Some(super::replies::STOPPING),
            _ if keeper.is_failed => Some(METADATA_LOST),
            _ if is_early && !is_registration => Some(super::replies::RECOVERING),
            _ if keeper.is_full => Some(metadata_refusal(AppendError::Full)),
            _ if keeper.queue.len() >= CHANGES_QUEUED_MAX => Some(super::replies::OVERLOADED),
            _ => None,
        }
    }

    fn change_answered<M: Memory>(&mut self, cx: &mut Cx<'_, M>, origin: Origin, answer: Answer) {
        match origin {
            Origin::Conn { .. } | Origin::Gather(_) => self.on_own_change(cx, origin, answer),
            Origin::Shard { .. } => self.answer(cx, origin, answer),
            Origin::Nobody => {}
        }
    }

    /// Proposes a command, if the log has room for its record: what was proposed cannot be taken back.
    fn propose<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        proposer: Proposer,
        command: &Command,
    ) -> Result<(), NotProposed> {
        if self.keeper.as_ref().is_none_or(|keeper| keeper.group.is_none()) {
            return Err(NotProposed::Later);
        }
        let command = command.encode();
        self.make_room_for_record(cx, command.len())?;
        let Some(keeper) = &mut self.keeper else { return Err(NotProposed::Later) };
        let Some(group) = &mut keeper.group else { return Err(NotProposed::Later) };
        let context = keeper.next_context;
        match group.propose(command, context) {
            Ok(()) => {}
            Err(ProposeError::NotLeader { .. }) => return Err(NotProposed::Refused(NO_LEADER)),
            Err(_) => return Err(NotProposed::Later),
        }
        keeper.next_context += 1;
        keeper.proposed.push_back((context, proposer));
        self.drain_group(cx);
        Ok(())
    }

    /// What is proposed with so many bytes will find room in the log.
    fn make_room_for_record<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        bytes: usize,
    ) -> Result<(), NotProposed> {
        let bytes = Record::command_bytes(bytes);
        match self.lanes[LANE].log.make_room_for(&mut cx.io(&mut self.ops), bytes) {
            Ok(()) => Ok(()),
            Err(AppendError::Busy) => {
                self.lanes[LANE].is_busy = true;
                Err(NotProposed::Later)
            }
            Err(error) => Err(NotProposed::Refused(metadata_refusal(error))),
        }
    }

    /// Proposes what waits, as far as the log has room.
    pub(super) fn pump_keeper<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let Some(keeper) = &self.keeper else { return };
        let lane = &self.lanes[LANE];
        let is_idle = keeper.queue.is_empty() && !keeper.is_checkpoint_due();
        let is_open = lane.state == LaneState::Serving && !lane.is_busy;
        if !is_open || keeper.is_failed || keeper.group.is_none() {
            return;
        }
        if keeper.has_records_waiting() && !self.append_records(cx) {
            self.refuse_what_waits(cx);
            return;
        }
        if self.is_boot_due() {
            // Full: tried again when the log says that there is room.
            if self.propose_boot(cx).is_err() {
                self.lanes[LANE].is_busy = true;
            }
            return;
        }
        self.drive_lanes(cx);
        self.balance_leaders(cx);
        if is_idle {
            return;
        }
        while let Some(keeper) = &mut self.keeper {
            if keeper.is_checkpoint_due() {
                // With nothing on its way, the image is all there is to say.
                if !keeper.proposed.is_empty() || self.stopping.is_some() {
                    break;
                }
                if !self.checkpoint_keeper(cx) {
                    break;
                }
                continue;
            }
            if keeper.has_records_waiting() {
                break;
            }
            let Some((asker, change)) = keeper.queue.front() else { break };
            let asker = *asker;
            let decided = match keeper.command_of(change) {
                Err(outcome) => Err(outcome),
                Ok(command) => Ok(match self.propose(cx, Proposer::Asker(asker), &command) {
                    Ok(()) => {
                        self.counters.metadata_commands += 1;
                        None
                    }
                    Err(NotProposed::Later) => break,
                    Err(NotProposed::Refused(refusal)) => Some(refusal),
                }),
            };
            if let Some(keeper) = &mut self.keeper {
                keeper.queue.pop_front();
            }
            match decided {
                Ok(None) => {}
                Ok(Some(refusal)) => self.refuse_change(cx, asker, refusal),
                Err(outcome) => self.change_decided(cx, asker, outcome),
            }
        }
    }

    /// Records of the group could not be written: if that is not soon over, nobody shall wait for it.
    fn refuse_what_waits<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let Some(keeper) = &mut self.keeper else { return };
        let refusal = match self.stopping {
            Some(_) => super::replies::STOPPING,
            None if keeper.is_full => metadata_refusal(AppendError::Full),
            None => return,
        };
        for (asker, _) in std::mem::take(&mut keeper.queue) {
            self.refuse_change(cx, asker, refusal);
        }
    }

    /// Sends the state as it is to all shards, this one first.
    pub(super) fn publish_view<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let Some(keeper) = &mut self.keeper else { return };
        let state = keeper.state.clone();
        let since = std::mem::replace(&mut keeper.published, state.version());
        let changed = std::mem::take(&mut keeper.changed);
        let view = Arc::new(match (keeper.is_out, keeper.is_failed) {
            (true, _) => View::told_out(keeper.me, state),
            (false, true) => View::lost(keeper.me, state),
            (false, false) => View::new(keeper.me, state, since, changed),
        });
        for to in (1..self.config.shards).map(ShardId) {
            let message = Box::new(ShardMessage::View(Arc::clone(&view)));
            cx.effects.push(Effect::Tell { to, message });
        }
        let version = view.version();
        self.on_view(cx, view);
        self.on_view_applied(cx, self.config.shard, version);
    }

    pub(super) fn on_view_applied<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        shard: ShardId,
        version: u64,
    ) {
        let Some(keeper) = &mut self.keeper else { return };
        let Some(applied) = keeper.applied.get_mut(usize::from(shard.0)) else { return };
        *applied = version.max(*applied);
        self.settle_changes(cx);
    }

    /// Answers whose change is in force on every shard.
    pub(super) fn settle_changes<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let Some(keeper) = &self.keeper else { return };
        let everywhere = match self.stopping {
            // What was told to all is in force: who has stopped does not contradict it.
            Some(_) => self.view.version(),
            None => keeper.applied.iter().copied().min().unwrap_or(0),
        };
        while let Some(keeper) = &mut self.keeper
            && keeper.settling.front().is_some_and(|(version, ..)| *version <= everywhere)
        {
            let Some((_, origin, answer)) = keeper.settling.pop_front() else { break };
            self.change_answered(cx, origin, answer);
        }
    }

    /// The metadata's directory failed, or the metadata cannot be read.
    pub(super) fn fail_keeper<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let Some(keeper) = &mut self.keeper else { return };
        keeper.is_failed = true;
        let unknown = Refusal::new(ErrorCode::StorageFailed, "the data directory failed meanwhile");
        self.leave_group(cx, METADATA_LOST, unknown);
    }

    /// The broker stops, and the log of the metadata has, or is not waited for any more: the group can write nothing, and
    /// a leader that goes on to speak would keep the others from choosing another one.
    pub(super) fn retire_keeper<M: Memory>(&mut self, cx: &mut Cx<'_, M>, is_silent: bool) {
        let has_group = self.keeper.as_ref().is_some_and(|keeper| keeper.group.is_some());
        if has_group && (is_silent || self.lanes[LANE].state == LaneState::Stopped) {
            let unknown = Refusal::new(ErrorCode::OutcomeUnknown, "the broker stopped meanwhile");
            self.leave_group(cx, super::replies::STOPPING, unknown);
        }
    }

    /// Takes no more part. What is not proposed is refused, and of the rest nobody knows what becomes of it.
    fn leave_group<M: Memory>(&mut self, cx: &mut Cx<'_, M>, refusal: Refusal, unknown: Refusal) {
        let Some(keeper) = &mut self.keeper else { return };
        keeper.group = None;
        keeper.records = Records::default();
        let queue = std::mem::take(&mut keeper.queue);
        let proposed = std::mem::take(&mut keeper.proposed);
        for (asker, _) in queue {
            self.refuse_change(cx, asker, refusal);
        }
        for (_, proposer) in proposed {
            if let Proposer::Asker(asker) = proposer {
                self.refuse_change(cx, asker, unknown);
            }
        }
        self.give_up_asked(cx);
    }

    /// Recovery found an entry that is not a batch.
    pub(super) fn on_replayed<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        lane: usize,
        entry: &Replayed,
    ) {
        let keeper = self.keeper.as_mut().filter(|_| self.lanes[lane].id == LaneId::METADATA);
        if let Some(keeper) = keeper {
            keeper.replay(entry.kind, cx.memory.piece(entry.body));
        }
        cx.memory.release(entry.body.slot);
    }
}

/// Why a command was not proposed.
enum NotProposed {
    /// The log or the group says when to try again.
    Later,
    Refused(Refusal),
}

const NO_LEADER: Refusal = Refusal {
    code: ErrorCode::NotLeader,
    retry_after_ms: RETRY_AFTER_MS,
    message: "the metadata has no leader here",
};

/// `version`: of the state from which on it holds.
fn outcome_answer(outcome: Outcome, version: u64) -> Answer {
    let refused = |code, message| Answer::Refused(Refusal::new(code, message));
    match outcome {
        Outcome::Done(topic) => Answer::Changed(topic),
        Outcome::Noted => Answer::Operated(Ok(version)),
        Outcome::Possible => Answer::Operated(Ok(0)),
        Outcome::Obstructed(obstacle) => Answer::Operated(Err(obstacle)),
        Outcome::TopicExists => refused(ErrorCode::TopicExists, "a topic of this name exists"),
        Outcome::UnknownTopic => refused(ErrorCode::UnknownTopic, "no topic of this name"),
        Outcome::Invalid => refused(ErrorCode::InvalidConfig, "a setting is out of its bounds"),
        Outcome::FewerPartitions => {
            refused(ErrorCode::InvalidConfig, "the number of partitions can only grow")
        }
        Outcome::LimitReached => refused(ErrorCode::LimitReached, "too many topics or partitions"),
    }
}

fn metadata_refusal(error: AppendError) -> Refusal {
    match error {
        AppendError::Full => Refusal::new(ErrorCode::StorageFull, "no room for the metadata"),
        AppendError::Stopping => super::replies::STOPPING,
        AppendError::Recovering => super::replies::RECOVERING,
        AppendError::TooLarge { .. } => {
            Refusal::new(ErrorCode::InvalidConfig, "more partitions than an entry can hold")
        }
        _ => METADATA_LOST,
    }
}
