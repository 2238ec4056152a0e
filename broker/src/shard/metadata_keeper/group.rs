//! The metadata's group on shard 0: its records become entries of lane 0, what it commits is applied to
//! the state, and time passes for it when it wants that.

use std::collections::VecDeque;

use corelog_protocol::ErrorCode;
use corelog_protocol::entry::EntryKind;
use corelog_protocol::ids::Lsn;

use super::{FIRST_BROKER, LANE, MetadataKeeper, outcome_answer};
use crate::log::{AppendError, Body, NO_PARTITION, NewEntry};
use crate::memory::Memory;
use crate::metadata::consensus::{
    Group, GroupConfig, Members, Output, Payload, RecordNumber, ReplicaId,
};
use crate::metadata::state::Outcome;
use crate::metadata::{Command, State};
use crate::random::Random;
use crate::shard::message::{Answer, Refusal};
use crate::shard::{Cx, Shard};

/// Records between the group and the disk.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// Of the group, not in the log yet: it had no room.
    waiting: VecDeque<(RecordNumber, Vec<u8>)>,
    /// In the log, not durable yet.
    appended: VecDeque<(Lsn, RecordNumber)>,
    /// First and last record of a checkpoint that is not durable yet, and where the first is.
    checkpoint: Option<(RecordNumber, RecordNumber, Option<Lsn>)>,
}

impl MetadataKeeper {
    /// Folds an entry that recovery found.
    pub fn replay(&mut self, kind: u8, body: &[u8]) {
        if kind == EntryKind::Consensus.to_wire() {
            self.fold.on_record(body);
        } else if !self.fold.is_empty() {
            // Brokers before the group wrote commands as entries. One that does so again is older than
            // the data, and has not seen what the records say.
            self.is_failed = true;
        } else if kind == EntryKind::Metadata.to_wire() {
            self.is_failed |= !apply(&mut self.state, body);
        } else if kind == EntryKind::Checkpoint.to_wire() {
            match State::from_image(body) {
                Ok(state) => self.state = state,
                Err(_) => self.is_failed = true,
            }
        }
    }

    /// All entries were folded: the group goes on from them, or begins with what older brokers wrote.
    fn end_replay(&mut self, is_corrupt: bool, random: Random) {
        // A lost command may have given out ids: what is there is served, nothing is changed.
        self.is_failed |= is_corrupt;
        let fold = std::mem::take(&mut self.fold);
        let me = ReplicaId(u64::from(FIRST_BROKER.0));
        let config = GroupConfig::new(me);
        if fold.is_empty() {
            if !self.is_failed {
                let members = Members::of_voters(&[me]);
                let image = self.state.image().into();
                self.group = Some(Group::bootstrap(config, members, image, random));
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

    /// Time has to be told to the group.
    pub fn wants_ticks(&self) -> bool {
        !self.is_failed && self.group.as_ref().is_some_and(Group::wants_ticks)
    }
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
        keeper.end_replay(is_corrupt, random);
        // What was committed comes first; the election of a group of one needs nobody's answer.
        self.hear_group();
        if let Some(group) = self.keeper.as_mut().and_then(|keeper| keeper.group.as_mut()) {
            group.campaign();
        }
        self.hear_group();
        if let Some(keeper) = &mut self.keeper
            && (keeper.is_failed || !keeper.state.lanes().is_empty())
        {
            keeper.is_changed = false;
            self.publish_view(cx);
        }
    }

    /// A tick of the group's time has passed.
    pub(in crate::shard) fn tick_keeper<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        if let Some(group) = self.keeper.as_mut().and_then(|keeper| keeper.group.as_mut()) {
            group.tick();
        }
        self.drain_group(cx);
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
        let dropped = self.hear_group();
        self.append_records(cx);
        if self.keeper.as_mut().is_some_and(|keeper| std::mem::take(&mut keeper.is_changed)) {
            self.publish_view(cx);
        }
        for (origin, is_lost) in dropped {
            let refusal = match is_lost {
                true => Refusal::new(ErrorCode::NotLeader, "another leader's change came first"),
                false => Refusal::new(ErrorCode::OutcomeUnknown, "the leader changed meanwhile"),
            };
            self.change_answered(cx, origin, Answer::Refused(refusal));
        }
    }

    /// Applies what is committed. Returns who proposed what will not be, and whether that is certain.
    fn hear_group(&mut self) -> Vec<(crate::shard::lane::Origin, bool)> {
        let mut dropped = Vec::new();
        let Some(keeper) = &mut self.keeper else { return dropped };
        let mut is_image_wanted = false;
        while let Some(output) = keeper.group.as_mut().and_then(Group::poll) {
            match output {
                Output::Append { number, body } => keeper.records.waiting.push_back((number, body)),
                Output::Committed { context, command, .. } => keeper.commit(context, &command),
                Output::Install(snapshot) => match State::from_image(&snapshot.image) {
                    Ok(state) => {
                        keeper.state = state;
                        keeper.is_changed = true;
                    }
                    Err(_) => keeper.is_failed = true,
                },
                Output::Dropped { context, is_lost } => {
                    let origin = keeper.take_proposed(context);
                    dropped.extend(origin.map(|origin| (origin, is_lost)));
                }
                Output::SnapshotWanted => is_image_wanted = true,
                // Nobody to send to: no broker knows another yet.
                Output::Send(_) | Output::Members { .. } | Output::Status(_) => {}
            }
        }
        if is_image_wanted && let Some(group) = &mut keeper.group {
            group.offer_snapshot(keeper.state.image().into());
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
        let origin = context.and_then(|context| self.take_proposed(context));
        if let Some(origin) = origin {
            let version = self.state.version();
            self.settling.push_back((version, origin, outcome_answer(outcome)));
        }
    }

    /// Who proposed it. None: nobody waits.
    fn take_proposed(&mut self, context: u64) -> Option<crate::shard::lane::Origin> {
        let at = self.proposed.iter().position(|(proposed, _)| *proposed == context)?;
        self.proposed.remove(at).and_then(|(_, origin)| origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DirectoryId;
    use crate::metadata::{LaneReplica, TopicSettings};

    const METADATA: u8 = EntryKind::Metadata.to_wire();
    const CHECKPOINT: u8 = EntryKind::Checkpoint.to_wire();
    const CONSENSUS: u8 = EntryKind::Consensus.to_wire();

    fn create(state: &State, name: &str) -> Command {
        let settings = TopicSettings { partitions: 2, retention_ms: None, retention_bytes: None };
        state.topic_create(name, settings).unwrap()
    }

    /// A disk of a broker before the group, and what it held: an image, and two commands behind it.
    fn old_disk() -> (Vec<(u8, Vec<u8>)>, State) {
        let mut state = State::default();
        let replica = LaneReplica { broker: FIRST_BROKER, directory: DirectoryId(0) };
        state.apply(&Command::Boot { lanes: vec![[replica].into()] });
        let mut disk = vec![(CHECKPOINT, state.image())];
        for name in ["a", "b"] {
            let command = create(&state, name);
            disk.push((METADATA, command.encode()));
            state.apply(&command);
        }
        (disk, state)
    }

    fn start(disk: &[(u8, Vec<u8>)], is_corrupt: bool) -> MetadataKeeper {
        let mut keeper = MetadataKeeper::new(1);
        disk.iter().for_each(|(kind, body)| keeper.replay(*kind, body));
        keeper.end_replay(is_corrupt, Random::new(1));
        hear(&mut keeper);
        keeper
    }

    /// What the group orders is appended, and what it commits applied.
    fn hear(keeper: &mut MetadataKeeper) {
        while let Some(output) = keeper.group.as_mut().and_then(Group::poll) {
            match output {
                Output::Append { number, body } => keeper.records.waiting.push_back((number, body)),
                Output::Committed { context, command, .. } => keeper.commit(context, &command),
                _ => {}
            }
        }
    }

    fn write(keeper: &mut MetadataKeeper, disk: &mut Vec<(u8, Vec<u8>)>) {
        let last = keeper.records.waiting.back().expect("some records").0;
        disk.extend(keeper.records.waiting.drain(..).map(|(_, body)| (CONSENSUS, body)));
        keeper.group.as_mut().unwrap().on_durable(last);
        hear(keeper);
    }

    fn lead_and_create(keeper: &mut MetadataKeeper, name: &str) {
        let command = create(&keeper.state, name).encode();
        let group = keeper.group.as_mut().unwrap();
        group.campaign();
        group.propose(command, 7).unwrap();
        hear(keeper);
    }

    #[test]
    fn what_brokers_before_the_group_wrote_is_carried_over() {
        let (mut disk, state) = old_disk();
        let mut keeper = start(&disk, false);
        assert_eq!(keeper.state, state);
        lead_and_create(&mut keeper, "c");
        assert!(keeper.state.topic("c").is_none(), "not durable yet");
        write(&mut keeper, &mut disk);
        assert!(keeper.state.topic("c").is_some());
        // A start afterwards knows all of it at once, from the group's records.
        let again = start(&disk, false);
        assert!(!again.is_failed);
        assert_eq!(again.state, keeper.state);
        // And so does one that finds the old entries gone.
        disk.drain(..3);
        assert_eq!(start(&disk, false).state, keeper.state);
    }

    #[test]
    fn a_carrying_over_that_was_cut_short_is_done_again() {
        let (mut disk, state) = old_disk();
        let mut keeper = start(&disk, false);
        lead_and_create(&mut keeper, "c");
        let all = disk.len();
        write(&mut keeper, &mut disk);
        for written in all..disk.len() {
            let keeper = start(&disk[..written], false);
            assert!(!keeper.is_failed && keeper.group.is_some());
            assert_eq!(keeper.state, state, "{} records", written - all);
        }
    }

    #[test]
    fn commands_of_an_older_broker_behind_the_records_are_not_guessed_at() {
        let (mut disk, _) = old_disk();
        let mut keeper = start(&disk, false);
        keeper.group.as_mut().unwrap().campaign();
        hear(&mut keeper);
        write(&mut keeper, &mut disk);
        disk.push((METADATA, create(&keeper.state, "late").encode()));
        let again = start(&disk, false);
        assert!(again.is_failed && again.group.is_none());
        assert_eq!(again.state, keeper.state, "what the records say is served");
    }

    #[test]
    fn damaged_metadata_is_served_as_far_as_it_goes_and_never_changed() {
        let (mut disk, _) = old_disk();
        let mut keeper = start(&disk, false);
        for name in ["c", "d"] {
            lead_and_create(&mut keeper, name);
            write(&mut keeper, &mut disk);
        }
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
