//! The metadata on shard 0: proposes commands as entries of lane 0, applies them when they are
//! committed, and answers when every shard has the new view.
//!
//! ```text
//! change → queue → proposed (in the log) → committed: applied → view to all → applied everywhere: answered
//! ```
//! A Raft group would replace the middle: who orders the entries and says that they are committed.

use std::collections::VecDeque;
use std::sync::Arc;

use corelog_protocol::ErrorCode;
use corelog_protocol::entry::EntryKind;
use corelog_protocol::ids::{LaneId, Lsn, ShardId, TopicId};

use super::effect::Effect;
use super::lane::{LaneState, Origin};
use super::message::{Answer, Change, Refusal, ShardMessage};
use super::route::METADATA_LOST;
use super::{Cx, Shard};
use crate::disk::DirectoryId;
use crate::limits::CHANGES_QUEUED_MAX;
use crate::log::{AppendError, Body, NO_PARTITION, NewEntry, Replayed};
use crate::memory::Memory;
use crate::metadata::state::Outcome;
use crate::metadata::view::View;
use crate::metadata::{Command, LaneRecord, State};

/// The metadata lane is the first of shard 0.
pub(super) const LANE: usize = 0;

#[derive(Debug)]
pub(super) struct MetadataKeeper {
    pub state: State,
    /// Part of it could not be read, or its directory failed: no more changes.
    pub is_failed: bool,
    /// Not proposed yet.
    queue: VecDeque<(Origin, Change)>,
    /// In the log, not committed yet.
    proposed: VecDeque<(Lsn, Option<Origin>, Command)>,
    /// Applied, not in force on every shard yet.
    settling: VecDeque<(u64, Origin, Answer)>,
    /// The version of the last view, and the topics that changed since.
    published: u64,
    changed: Vec<TopicId>,
    /// The version in force on each shard.
    applied: Vec<u64>,
    /// The log has begun a new segment: an image shall let go of the old ones.
    wants_checkpoint: bool,
    /// There was no room for it: changes go first, and it is tried again when there is.
    is_checkpoint_put_off: bool,
    checkpoint: Option<Lsn>,
}

impl MetadataKeeper {
    pub fn new(shards: u16) -> Self {
        Self {
            state: State::default(),
            is_failed: false,
            queue: VecDeque::new(),
            proposed: VecDeque::new(),
            settling: VecDeque::new(),
            published: 0,
            changed: Vec::new(),
            applied: vec![0; usize::from(shards)],
            wants_checkpoint: false,
            is_checkpoint_put_off: false,
            checkpoint: None,
        }
    }

    /// Folds an entry that recovery found.
    pub fn replay(&mut self, kind: u8, body: &[u8]) {
        if kind == EntryKind::Metadata.to_wire() {
            match Command::decode(body) {
                Ok(command) => _ = self.state.apply(&command),
                // Its checksum is right, so a newer broker wrote it: what it did is unknown here.
                Err(_) => self.is_failed = true,
            }
        } else if kind == EntryKind::Checkpoint.to_wire() {
            match State::from_image(body) {
                Ok(state) => self.state = state,
                Err(_) => self.is_failed = true,
            }
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

    fn append_metadata<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        kind: EntryKind,
        body: &[u8],
    ) -> Result<Lsn, AppendError> {
        let entry = NewEntry {
            kind: kind.to_wire(),
            partition: NO_PARTITION,
            partition_at: 0,
            record_count: 0,
            body: Body::Bytes(body),
            crc_checked: true,
            claim: None,
            awaited: true,
        };
        let appended = self.lanes[LANE].log.append(&mut cx.io(&mut self.ops), entry);
        if appended == Err(AppendError::Busy) {
            self.lanes[LANE].is_busy = true;
        }
        appended.map(|appended| appended.lsn)
    }

    /// The first commands of all: which lanes there are.
    fn propose_boot<M: Memory>(&mut self, cx: &mut Cx<'_, M>) -> Result<(), AppendError> {
        let count = u32::from(self.config.lanes_per_shard) * u32::from(self.config.shards);
        let shards = u32::from(self.config.shards);
        let directories = u32::from(self.config.directories);
        // The lanes of one shard are `shards` apart: dealt so, they lie on different disks.
        let directory =
            |id: u32| DirectoryId(((id - 1) / shards + (id - 1)) as u16 % directories as u16);
        let record = |id| LaneRecord { id: LaneId(id), directory: directory(id) };
        let command = Command::Boot { lanes: (1..=count).map(record).collect() };
        let lsn = self.append_metadata(cx, EntryKind::Metadata, &command.encode())?;
        let keeper = self.keeper.as_mut().expect("on shard 0");
        keeper.proposed.push_back((lsn, None, command));
        Ok(())
    }

    /// Proposes what waits, as far as the log has room.
    pub(super) fn pump_keeper<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let Some(keeper) = &self.keeper else { return };
        let lane = &self.lanes[LANE];
        let is_idle = keeper.queue.is_empty() && !keeper.is_checkpoint_due();
        let is_first = keeper.state.lanes().is_empty() && keeper.proposed.is_empty();
        if lane.state != LaneState::Serving || lane.is_busy || keeper.is_failed {
            return;
        }
        if is_first && self.stopping.is_none() {
            // Full or busy: tried again when the log says that there is room.
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
                // An image is what the committed commands came to, so none may be in between.
                if !keeper.proposed.is_empty() || self.stopping.is_some() {
                    break;
                }
                let image = keeper.state.image();
                let appended = self.append_metadata(cx, EntryKind::Checkpoint, &image);
                let Some(keeper) = &mut self.keeper else { break };
                match appended {
                    Ok(lsn) => {
                        keeper.wants_checkpoint = false;
                        keeper.checkpoint = Some(lsn);
                    }
                    Err(AppendError::Busy) => break,
                    Err(_) => keeper.is_checkpoint_put_off = true,
                }
                continue;
            }
            let Some((origin, change)) = keeper.queue.front() else { break };
            let origin = *origin;
            let command = match change {
                Change::TopicCreate { name, settings } => {
                    keeper.state.topic_create(name, *settings)
                }
                Change::TopicDelete { name } => match keeper.state.topic(name) {
                    Some(_) => Ok(Command::TopicDelete { name: name.clone() }),
                    None => Err(Outcome::UnknownTopic),
                },
                Change::TopicAlter { name, changes } => keeper.state.topic_alter(name, *changes),
            };
            let refused = match command {
                Err(outcome) => outcome_answer(outcome),
                Ok(command) => {
                    match self.append_metadata(cx, EntryKind::Metadata, &command.encode()) {
                        Ok(lsn) => {
                            self.counters.metadata_commands += 1;
                            let keeper = self.keeper.as_mut().expect("looked up above");
                            keeper.proposed.push_back((lsn, Some(origin), command));
                            keeper.queue.pop_front();
                            continue;
                        }
                        Err(AppendError::Busy) => break,
                        Err(error) => Answer::Refused(metadata_refusal(error)),
                    }
                }
            };
            if let Some(keeper) = &mut self.keeper {
                keeper.queue.pop_front();
            }
            self.change_answered(cx, origin, refused);
        }
    }

    /// Entries of lane 0 through this LSN are committed.
    pub(super) fn on_metadata_durable<M: Memory>(&mut self, cx: &mut Cx<'_, M>, through: Lsn) {
        let Some(keeper) = &mut self.keeper else { return };
        keeper.on_room();
        let mut is_changed = false;
        while keeper.proposed.front().is_some_and(|(lsn, ..)| *lsn <= through) {
            let Some((_, origin, command)) = keeper.proposed.pop_front() else { break };
            let outcome = keeper.state.apply(&command);
            is_changed = true;
            if let Outcome::Done(topic) = outcome {
                keeper.changed.push(topic);
            }
            if let Some(origin) = origin {
                let version = keeper.state.version();
                keeper.settling.push_back((version, origin, outcome_answer(outcome)));
            }
        }
        if let Some(lsn) = keeper.checkpoint.filter(|lsn| *lsn <= through) {
            keeper.checkpoint = None;
            self.lanes[LANE].log.set_needed_from(lsn);
        }
        if is_changed {
            self.publish_view(cx);
        }
    }

    /// Sends the state as it is to all shards, this one first.
    pub(super) fn publish_view<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let Some(keeper) = &mut self.keeper else { return };
        let state = keeper.state.clone();
        let since = std::mem::replace(&mut keeper.published, state.version());
        let changed = std::mem::take(&mut keeper.changed);
        let view = Arc::new(match keeper.is_failed {
            true => View::lost(state),
            false => View::new(state, since, changed),
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
        let queue = std::mem::take(&mut keeper.queue);
        let proposed = std::mem::take(&mut keeper.proposed);
        for (origin, _) in queue {
            self.change_answered(cx, origin, Answer::Refused(METADATA_LOST));
        }
        let unknown = Refusal::new(ErrorCode::StorageFailed, "the data directory failed meanwhile");
        for (_, origin, _) in proposed {
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

fn outcome_answer(outcome: Outcome) -> Answer {
    let refused = |code, message| Answer::Refused(Refusal::new(code, message));
    match outcome {
        Outcome::Done(topic) => Answer::Changed(topic),
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
