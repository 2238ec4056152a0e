//! The metadata's group on shard 0: its records become entries of lane 0, what it commits is applied to
//! the state, and time passes for it when it wants that.

use std::collections::VecDeque;

use corelog_protocol::ErrorCode;
use corelog_protocol::entry::EntryKind;
use corelog_protocol::ids::Lsn;

use super::{Asker, LANE, MetadataKeeper, Proposer, outcome_answer};
use crate::log::{AppendError, Body, NO_PARTITION, NewEntry};
use crate::memory::Memory;
use crate::metadata::consensus::{
    Group, GroupConfig, Members, Output, Payload, PeerMessage, RecordNumber, ReplicaId, Role,
};
use crate::metadata::membership::member;
use crate::metadata::state::Outcome;
use crate::metadata::{ChangeReply, ChangeResult, Command, State};
use crate::random::Random;
use crate::shard::message::Refusal;
use crate::shard::{Cx, Shard, ShardConfig};

/// Records between the group and the disk.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// Of the group, not in the log yet: it had no room.
    waiting: VecDeque<(RecordNumber, Vec<u8>)>,
    /// In the log, not durable yet.
    appended: VecDeque<(Lsn, RecordNumber)>,
    /// First and last record of a checkpoint that is not durable yet, and where the first is.
    checkpoint: Option<(RecordNumber, RecordNumber, Option<Lsn>)>,
    /// The oldest record that was not durable at the last tick, and at how many in a row it was the same.
    oldest_at_tick: Option<RecordNumber>,
    stalled_ticks: u32,
}

/// A leader of the group one of whose records is not durable after so many ticks, 1 s, lets another one lead.
const STALL_TICKS: u32 = 20;

impl Records {
    fn on_tick(&mut self) {
        let waiting = self.waiting.front().map(|(number, _)| *number);
        let oldest = self.appended.front().map(|(_, number)| *number).or(waiting);
        let is_stalled = oldest.is_some() && oldest == self.oldest_at_tick;
        self.stalled_ticks = if is_stalled { self.stalled_ticks.saturating_add(1) } else { 0 };
        self.oldest_at_tick = oldest;
    }

    fn is_stalled(&self) -> bool {
        self.stalled_ticks >= STALL_TICKS
    }
}

impl MetadataKeeper {
    /// Folds an entry that recovery found.
    pub fn replay(&mut self, kind: u8, body: &[u8]) {
        if kind == EntryKind::Consensus.to_wire() {
            self.fold.on_record(body);
        }
    }

    /// All entries were folded: the group goes on from them. If there was none it begins, or this broker joins one.
    fn end_replay(&mut self, config: &ShardConfig, is_corrupt: bool, random: Random) {
        // A lost command may have given out ids: what is there is served, nothing is changed.
        self.is_failed |= is_corrupt;
        let fold = std::mem::take(&mut self.fold);
        let members = first_members(config);
        let is_joiner = config.join;
        let config = group_config(config);
        if fold.is_empty() {
            if !self.is_failed {
                self.group = Some(match is_joiner {
                    true => Group::join(config, random),
                    false => {
                        let members = Members::of_voters(&members);
                        let image = self.state.image().into();
                        Group::bootstrap(config, members, image, random)
                    }
                });
            }
            return;
        }
        let state = |image: &[u8]| State::from_image(image).ok();
        match fold.clone().finish() {
            Ok(recovered) if !self.is_failed => {
                let image = recovered.snapshot.as_ref().map(|snapshot| &snapshot.image[..]);
                // Without a snapshot it has joined nobody yet.
                let state = image.map_or(Some(State::default()), state);
                self.is_failed |= state.is_none();
                self.state = state.unwrap_or_default();
                if !self.is_failed {
                    self.group = Some(Group::restart(config, recovered, random));
                }
            }
            _ => {
                self.is_failed = true;
                let (snapshot, entries) = fold.salvage();
                self.state =
                    snapshot.and_then(|snapshot| state(&snapshot.image)).unwrap_or_default();
                for entry in entries {
                    if let Payload::Command(command) = &entry.payload {
                        _ = apply(&mut self.state, command);
                    }
                }
            }
        }
    }

    /// The group may propose nothing before all its records are in the log.
    pub(super) fn has_records_waiting(&self) -> bool {
        !self.records.waiting.is_empty()
    }

    /// The disk does not take what the group has to remember, and that of another member does. While it leads,
    /// nothing is agreed on.
    pub(super) fn is_disk_overtaken(&self) -> bool {
        self.records.is_stalled() && self.group.as_ref().is_some_and(Group::is_overtaken)
    }

    /// Time has to be told to the group.
    pub fn wants_ticks(&self) -> bool {
        !self.is_failed && self.group.as_ref().is_some_and(Group::wants_ticks)
    }
}

/// The brokers that begin the group: those of the configuration, or this one alone.
fn first_members(config: &ShardConfig) -> Vec<ReplicaId> {
    match config.is_clustered() {
        true => config.cluster_brokers.iter().map(|(id, _)| member(*id)).collect(),
        false => vec![member(config.broker)],
    }
}

/// Heartbeats every 100 ms; an election after 300 to 550 ms without one.
fn group_config(config: &ShardConfig) -> GroupConfig {
    let new = GroupConfig::new(member(config.broker));
    GroupConfig { heartbeat_ticks: 2, election_ticks: 6, ..new }
}

/// False if a newer broker wrote it: what it did is unknown here.
fn apply(state: &mut State, command: &[u8]) -> bool {
    let command = Command::decode(command);
    command.map(|command| state.apply(&command)).is_ok()
}

impl Shard {
    /// Recovery has replayed all of lane 0.
    pub(in crate::shard) fn on_metadata_recovered<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        is_corrupt: bool,
    ) {
        let random = Random::new(self.random.next_u64());
        let Some(keeper) = &mut self.keeper else { return };
        keeper.end_replay(&self.config, is_corrupt, random);
        // What was committed comes first; the election of a group of one needs nobody's answer.
        self.hear_group(cx);
        let is_clustered = self.config.is_clustered();
        if let Some(keeper) = self.keeper.as_mut().filter(|_| !is_clustered)
            && let Some(group) = &mut keeper.group
        {
            group.campaign();
        }
        self.hear_group(cx);
        if let Some(keeper) = &mut self.keeper
            && (keeper.is_failed || keeper.state.version() > 0)
        {
            keeper.is_changed = false;
            self.publish_view(cx);
        }
    }

    /// A tick of the group's time has passed.
    pub(in crate::shard) fn tick_keeper<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let Some(keeper) = &mut self.keeper else { return };
        keeper.ticks += 1;
        keeper.records.on_tick();
        if let Some(group) = &mut keeper.group {
            group.tick();
        }
        keeper.look_at_lag();
        self.drain_group(cx);
        self.register_broker(cx);
        self.keep_members(cx);
        self.hand_over_group(cx);
        self.expire_asked(cx);
    }

    /// Everything in lane 0 through this LSN is durable.
    pub(in crate::shard) fn on_metadata_durable<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        through: Lsn,
    ) {
        let Some(keeper) = &mut self.keeper else { return };
        keeper.is_checkpoint_put_off = false;
        let mut durable = None;
        while let Some((_, number)) =
            keeper.records.appended.pop_front_if(|(lsn, _)| *lsn <= through)
        {
            durable = Some(number);
        }
        let Some(number) = durable else { return };
        if let Some((_, last, Some(first_lsn))) = keeper.records.checkpoint
            && last <= number
        {
            keeper.records.checkpoint = None;
            self.lanes[LANE].log.set_needed_from(first_lsn);
        }
        if let Some(group) = &mut keeper.group {
            group.on_durable(number);
        }
        self.drain_group(cx);
    }

    /// Carries out what the group orders, and publishes what has changed by it.
    pub(super) fn drain_group<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let dropped = self.hear_group(cx);
        self.append_records(cx);
        if self.keeper.as_mut().is_some_and(|keeper| std::mem::take(&mut keeper.is_changed)) {
            self.publish_view(cx);
        }
        if self.keeper.as_mut().is_some_and(|keeper| std::mem::take(&mut keeper.are_members_new)) {
            self.on_members_changed(cx);
        }
        if let Some(keeper) = self.keeper.as_mut().filter(|keeper| !keeper.replies.is_empty()) {
            for (broker, reply) in std::mem::take(&mut keeper.replies) {
                self.reply_to_peer(cx, broker, reply);
            }
        }
        for (proposer, is_lost) in dropped {
            let refusal = match is_lost {
                true => Refusal::new(ErrorCode::NotLeader, "another leader's change came first"),
                false => Refusal::new(ErrorCode::OutcomeUnknown, "the leader changed meanwhile"),
            };
            match proposer {
                Proposer::Nobody => {}
                Proposer::Asker(asker) => self.refuse_change(cx, asker, refusal),
                Proposer::Failover(command) => self.lane_command_dropped(&command),
            }
        }
    }

    /// Applies what is committed, and sends what is to be sent. Returns for whom was proposed what will not be
    /// committed, and whether that is certain.
    fn hear_group<M: Memory>(&mut self, cx: &mut Cx<'_, M>) -> Vec<(Proposer, bool)> {
        let mut dropped = Vec::new();
        let mut is_image_wanted = false;
        loop {
            let Some(keeper) = &mut self.keeper else { return dropped };
            let messages = keeper.hear_group(&mut dropped, &mut is_image_wanted);
            // What cannot be sent may make the group say something more, but never for ever.
            if messages.is_empty() {
                break;
            }
            for message in &messages {
                self.send_group_message(cx, message);
            }
        }
        if is_image_wanted && let Some(keeper) = &mut self.keeper {
            let image = keeper.state.image();
            if let Some(group) = &mut keeper.group {
                group.offer_snapshot(image.into());
            }
        }
        dropped
    }

    /// Puts the group's records into the log, as far as there is room. False: some wait.
    pub(super) fn append_records<M: Memory>(&mut self, cx: &mut Cx<'_, M>) -> bool {
        while let Some(keeper) = &mut self.keeper
            && let Some((number, body)) = keeper.records.waiting.pop_front()
        {
            let entry = NewEntry {
                kind: EntryKind::Consensus.to_wire(),
                partition: NO_PARTITION,
                partition_at: 0,
                record_count: 0,
                body: Body::Bytes(&body),
                crc_checked: true,
                claim: None,
                awaited: true,
            };
            match self.lanes[LANE].log.append(&mut cx.io(&mut self.ops), entry) {
                Ok(appended) => {
                    keeper.records.appended.push_back((appended.lsn, number));
                    if let Some((first, _, lsn)) = &mut keeper.records.checkpoint
                        && *first == number
                    {
                        *lsn = Some(appended.lsn);
                    }
                }
                Err(error) => {
                    keeper.records.waiting.push_front((number, body));
                    keeper.is_full = error == AppendError::Full;
                    self.lanes[LANE].is_busy |=
                        matches!(error, AppendError::Busy | AppendError::Full);
                    return false;
                }
            }
        }
        true
    }

    /// Lets the log begin anew with an image of the state. False: not now.
    pub(super) fn checkpoint_keeper<M: Memory>(&mut self, cx: &mut Cx<'_, M>) -> bool {
        let Some(keeper) = &mut self.keeper else { return false };
        let Some(group) = &mut keeper.group else { return false };
        let image = keeper.state.image();
        let bytes = group.snapshot_record_bytes(image.len());
        match self.lanes[LANE].log.make_room_for(&mut cx.io(&mut self.ops), bytes) {
            Ok(()) => {}
            Err(AppendError::Busy) => {
                self.lanes[LANE].is_busy = true;
                return false;
            }
            Err(_) => {
                keeper.is_checkpoint_put_off = true;
                return true;
            }
        }
        match group.checkpoint(image.into()) {
            Some((first, last)) => {
                keeper.wants_checkpoint = false;
                keeper.records.checkpoint = Some((first, last, None));
            }
            // A snapshot of the leader's is on its way to the disk.
            None => keeper.is_checkpoint_put_off = true,
        }
        self.drain_group(cx);
        true
    }
}

impl MetadataKeeper {
    /// What the group has to say, but for its messages, which are returned.
    fn hear_group(
        &mut self,
        dropped: &mut Vec<(Proposer, bool)>,
        is_image_wanted: &mut bool,
    ) -> Vec<PeerMessage> {
        let mut messages = Vec::new();
        while let Some(output) = self.group.as_mut().and_then(Group::poll) {
            match output {
                Output::Append { number, body } => self.records.waiting.push_back((number, body)),
                Output::Committed { context, command, .. } => self.commit(context, &command),
                Output::Install(snapshot) => match State::from_image(&snapshot.image) {
                    Ok(state) => {
                        self.state = state;
                        self.is_changed = true;
                        self.are_members_new = true;
                        // What it changed is not told: the next view follows no other.
                        self.published = u64::MAX;
                    }
                    Err(_) => self.is_failed = true,
                },
                Output::Dropped { context, is_lost } => {
                    dropped.extend(self.take_proposed(context).map(|proposer| (proposer, is_lost)));
                }
                Output::SnapshotWanted => *is_image_wanted = true,
                Output::Send(message) => messages.push(message),
                Output::Status(status) => {
                    // A new leader is asked at once.
                    self.register_ticks = 0;
                    let now = self.group_time();
                    self.led_by = self.leader_elsewhere().or(self.led_by);
                    if let Some(failover) = &mut self.failover
                        && status.role == Role::Leader
                    {
                        failover.reset(now, self.led_by);
                        if let Some(balancer) = &mut self.balancer {
                            balancer.reset(now);
                        }
                    }
                }
                Output::Members { context, .. } => {
                    self.are_members_new = true;
                    // Nobody waits for it.
                    _ = context.and_then(|context| self.take_proposed(context));
                }
            }
        }
        messages
    }

    fn commit(&mut self, context: Option<u64>, command: &[u8]) {
        let Ok(command) = Command::decode(command) else {
            self.is_failed = true;
            return;
        };
        let outcome = self.state.apply(&command);
        self.is_changed = true;
        if let Outcome::Done(topic) = outcome {
            self.changed.push(topic);
        }
        let version = self.state.version();
        match context.and_then(|context| self.take_proposed(context)) {
            Some(Proposer::Asker(Asker::Here(origin))) => {
                self.settle_later(version, origin, outcome_answer(outcome, version));
            }
            Some(Proposer::Asker(Asker::Peer { broker, token })) => {
                let result = ChangeResult::Decided { outcome, version };
                self.replies.push((broker, ChangeReply { token, result }));
            }
            Some(Proposer::Nobody | Proposer::Failover(_)) | None => {}
        }
    }

    /// For whom it was proposed.
    fn take_proposed(&mut self, context: u64) -> Option<Proposer> {
        let at = self.proposed.iter().position(|(proposed, _)| *proposed == context)?;
        self.proposed.remove(at).map(|(_, proposer)| proposer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::boot::boot;
    use crate::metadata::{BrokerRecord, TopicSettings};
    use corelog_protocol::ids::{ClusterId, Incarnation, ShardId};

    fn config() -> ShardConfig {
        ShardConfig::new(ShardId(0), 1, ClusterId(1), Incarnation(1))
    }

    /// The records in lane 0.
    type Disk = Vec<Vec<u8>>;

    fn start(disk: &Disk, is_corrupt: bool) -> MetadataKeeper {
        let config = config();
        let mut keeper = MetadataKeeper::new(&config);
        disk.iter().for_each(|body| keeper.replay(EntryKind::Consensus.to_wire(), body));
        keeper.end_replay(&config, is_corrupt, Random::new(1));
        hear(&mut keeper);
        keeper
    }

    fn hear(keeper: &mut MetadataKeeper) {
        let messages = keeper.hear_group(&mut Vec::new(), &mut false);
        assert!(messages.is_empty(), "there is nobody to speak to");
    }

    fn write(keeper: &mut MetadataKeeper, disk: &mut Disk) {
        let last = keeper.records.waiting.back().expect("some records").0;
        disk.extend(keeper.records.waiting.drain(..).map(|(_, body)| body));
        keeper.group.as_mut().unwrap().on_durable(last);
        hear(keeper);
    }

    fn propose(keeper: &mut MetadataKeeper, command: &Command) {
        let group = keeper.group.as_mut().unwrap();
        group.propose(command.encode(), 7).unwrap();
        hear(keeper);
    }

    fn create(keeper: &mut MetadataKeeper, disk: &mut Disk, name: &str) {
        let settings = TopicSettings { partitions: 2, retention_ms: None, retention_bytes: None };
        let command = keeper.state.topic_create(name, settings).unwrap();
        propose(keeper, &command);
        assert!(keeper.state.topic(name).is_none(), "not durable yet");
        write(keeper, disk);
        assert!(keeper.state.topic(name).is_some());
    }

    /// A broker alone that has created these topics.
    fn disk_with(topics: &[&str]) -> (Disk, MetadataKeeper) {
        let mut disk = Disk::new();
        let mut keeper = start(&disk, false);
        keeper.group.as_mut().unwrap().campaign();
        hear(&mut keeper);
        write(&mut keeper, &mut disk);
        let own = BrokerRecord::of_a_test(keeper.me, 1);
        propose(&mut keeper, &boot(&[&own], 1, 3));
        write(&mut keeper, &mut disk);
        topics.iter().for_each(|name| create(&mut keeper, &mut disk, name));
        (disk, keeper)
    }

    #[test]
    fn a_start_goes_on_from_the_records() {
        let (disk, keeper) = disk_with(&["a", "b"]);
        let again = start(&disk, false);
        assert!(!again.is_failed && again.group.is_some());
        assert_eq!(again.state, keeper.state);
    }

    #[test]
    fn a_first_start_that_was_cut_short_is_done_again() {
        let (disk, _) = disk_with(&[]);
        for written in 0..disk.len() {
            let keeper = start(&disk[..written].to_vec(), false);
            assert!(!keeper.is_failed && keeper.group.is_some(), "{written} records");
            assert_eq!(keeper.state, State::default(), "{written} records");
        }
    }

    #[test]
    fn damaged_metadata_is_served_as_far_as_it_goes_and_never_changed() {
        let (mut disk, keeper) = disk_with(&["b", "c", "d"]);
        let whole = start(&disk, true);
        assert!(whole.is_failed && whole.group.is_none(), "what is missing is not known");
        assert_eq!(whole.state, keeper.state);
        // The record of "c" is the last but one.
        disk.remove(disk.len() - 2);
        let damaged = start(&disk, true);
        assert!(damaged.is_failed && damaged.state.topic("c").is_none());
        assert!(damaged.state.topic("b").is_some() && damaged.state.topic("d").is_some());
    }
}
