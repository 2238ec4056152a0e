//! The metadata on shard 0: proposes commands to its Raft group, applies them when they are committed,
//! and answers when every shard has the new view.
//!
//! ```text
//! change → queue → proposed to the group → committed: applied → view to all → applied everywhere: answered
//! ```
//! The group's records are entries of lane 0: see `group.rs`. It has one member yet, so a command is
//! committed when it is durable here, and a boot waits for no election.

mod group;
mod peers;

use std::collections::VecDeque;
use std::sync::Arc;

use corelog_protocol::ErrorCode;
use corelog_protocol::ids::{BrokerId, LaneId, ShardId, TopicId};

use super::effect::Effect;
use super::lane::{LaneState, Origin};
use super::message::{Answer, Change, Refusal, ShardMessage};
use super::route::METADATA_LOST;
use super::{Cx, Shard};
use crate::disk::DirectoryId;
use crate::limits::CHANGES_QUEUED_MAX;
use crate::log::{AppendError, Replayed};
use crate::memory::Memory;
use crate::metadata::consensus::{Fold, Group, ProposeError, Record};
use crate::metadata::state::Outcome;
use crate::metadata::view::View;
use crate::metadata::{Command, LaneReplica, State};
use group::Records;

/// A broker alone.
const FIRST_BROKER: BrokerId = BrokerId(1);

/// The metadata lane is the first of shard 0.
pub(super) const LANE: usize = 0;

#[derive(Debug)]
pub(super) struct MetadataKeeper {
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
    queue: VecDeque<(Origin, Change)>,
    /// Proposed, not committed yet: the context, and who waits, if anybody does.
    proposed: VecDeque<(u64, Option<Origin>)>,
    next_context: u64,
    /// Applied, not in force on every shard yet.
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
    pub fn new(shards: u16) -> Self {
        Self {
            state: State::default(),
            is_failed: false,
            fold: Fold::default(),
            group: None,
            records: Records::default(),
            is_full: false,
            queue: VecDeque::new(),
            proposed: VecDeque::new(),
            next_context: 0,
            settling: VecDeque::new(),
            published: 0,
            changed: Vec::new(),
            is_changed: false,
            applied: vec![0; usize::from(shards)],
            wants_checkpoint: false,
            is_checkpoint_put_off: false,
        }
    }

    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.proposed.is_empty() && self.settling.is_empty()
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
        let refusal = match &self.keeper {
            None => Some(Refusal::new(ErrorCode::NotLeader, "not the metadata's shard")),
            Some(_) if self.stopping.is_some() => Some(super::replies::STOPPING),
            Some(keeper) if keeper.is_failed => Some(METADATA_LOST),
            Some(_) if self.view.version() == 0 => Some(super::replies::RECOVERING),
            Some(keeper) if keeper.is_full => Some(metadata_refusal(AppendError::Full)),
            Some(keeper) if keeper.queue.len() >= CHANGES_QUEUED_MAX => {
                Some(super::replies::OVERLOADED)
            }
            Some(_) => None,
        };
        match (refusal, &mut self.keeper) {
            (None, Some(keeper)) => keeper.queue.push_back((origin, change)),
            (refusal, _) => {
                let refusal = refusal.unwrap_or(METADATA_LOST);
                self.change_answered(cx, origin, Answer::Refused(refusal));
            }
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
        origin: Option<Origin>,
        command: &Command,
    ) -> Result<(), NotProposed> {
        let Some(keeper) = &mut self.keeper else { return Err(NotProposed::Later) };
        let Some(group) = &mut keeper.group else { return Err(NotProposed::Later) };
        let command = command.encode();
        let bytes = Record::command_bytes(command.len());
        let room = self.lanes[LANE].log.make_room_for(&mut cx.io(&mut self.ops), bytes);
        match room {
            Ok(()) => {}
            Err(AppendError::Busy) => {
                self.lanes[LANE].is_busy = true;
                return Err(NotProposed::Later);
            }
            Err(error) => return Err(NotProposed::Refused(metadata_refusal(error))),
        }
        let context = keeper.next_context;
        match group.propose(command, context) {
            Ok(()) => {}
            Err(ProposeError::NotLeader { .. }) => return Err(NotProposed::Refused(NO_LEADER)),
            Err(_) => return Err(NotProposed::Later),
        }
        keeper.next_context += 1;
        keeper.proposed.push_back((context, origin));
        self.drain_group(cx);
        Ok(())
    }

    /// The first commands of all: which lanes there are.
    fn propose_boot<M: Memory>(&mut self, cx: &mut Cx<'_, M>) -> Result<(), NotProposed> {
        let count = u32::from(self.config.lanes_per_shard) * u32::from(self.config.shards);
        let shards = u32::from(self.config.shards);
        let directories = u32::from(self.config.directories);
        // The lanes of one shard are `shards` apart: dealt so, they lie on different disks.
        let directory =
            |id: u32| DirectoryId(((id - 1) / shards + (id - 1)) as u16 % directories as u16);
        let only = |id| [LaneReplica { broker: FIRST_BROKER, directory: directory(id) }].into();
        let command = Command::Boot { lanes: (1..=count).map(only).collect() };
        self.propose(cx, None, &command)
    }

    /// Proposes what waits, as far as the log has room.
    pub(super) fn pump_keeper<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let Some(keeper) = &self.keeper else { return };
        let lane = &self.lanes[LANE];
        let is_idle = keeper.queue.is_empty() && !keeper.is_checkpoint_due();
        let is_first = keeper.state.lanes().is_empty() && keeper.proposed.is_empty();
        let is_open = lane.state == LaneState::Serving && !lane.is_busy;
        if !is_open || keeper.is_failed || keeper.group.is_none() {
            return;
        }
        if keeper.has_records_waiting() && !self.append_records(cx) {
            self.refuse_what_waits(cx);
            return;
        }
        if is_first && self.stopping.is_none() {
            // Full: tried again when the log says that there is room.
            if self.propose_boot(cx).is_err() {
                self.lanes[LANE].is_busy = true;
            }
            return;
        }
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
            let Some((origin, change)) = keeper.queue.front() else { break };
            let origin = *origin;
            let command = change.command(&keeper.state);
            let refused = match command {
                Err(outcome) => outcome_answer(outcome),
                Ok(command) => match self.propose(cx, Some(origin), &command) {
                    Ok(()) => {
                        self.counters.metadata_commands += 1;
                        let keeper = self.keeper.as_mut().expect("looked up above");
                        keeper.queue.pop_front();
                        continue;
                    }
                    Err(NotProposed::Later) => break,
                    Err(NotProposed::Refused(refusal)) => Answer::Refused(refusal),
                },
            };
            if let Some(keeper) = &mut self.keeper {
                keeper.queue.pop_front();
            }
            self.change_answered(cx, origin, refused);
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
        for (origin, _) in std::mem::take(&mut keeper.queue) {
            self.change_answered(cx, origin, Answer::Refused(refusal));
        }
    }

    /// Sends the state as it is to all shards, this one first.
    pub(super) fn publish_view<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let Some(keeper) = &mut self.keeper else { return };
        let state = keeper.state.clone();
        let since = std::mem::replace(&mut keeper.published, state.version());
        let changed = std::mem::take(&mut keeper.changed);
        let view = Arc::new(match keeper.is_failed {
            true => View::lost(FIRST_BROKER, state),
            false => View::new(FIRST_BROKER, state, since, changed),
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
        let everywhere = keeper.applied.iter().copied().min().unwrap_or(0);
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
        keeper.group = None;
        keeper.records = Records::default();
        let queue = std::mem::take(&mut keeper.queue);
        let proposed = std::mem::take(&mut keeper.proposed);
        for (origin, _) in queue {
            self.change_answered(cx, origin, Answer::Refused(METADATA_LOST));
        }
        let unknown = Refusal::new(ErrorCode::StorageFailed, "the data directory failed meanwhile");
        for (_, origin) in proposed {
            self.change_answered(cx, origin.unwrap_or(Origin::Nobody), Answer::Refused(unknown));
        }
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

const NO_LEADER: Refusal = Refusal::new(ErrorCode::NotLeader, "the metadata has no leader here");

fn outcome_answer(outcome: Outcome) -> Answer {
    let refused = |code, message| Answer::Refused(Refusal::new(code, message));
    match outcome {
        Outcome::Done(topic) => Answer::Changed(topic),
        // Nobody waits for what brokers say of themselves.
        Outcome::Noted => Answer::Nothing,
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
