//! The fold: what the metadata is after the commands so far. [`State::apply`] is the only change.
//! What becomes of brokers and lanes: `brokers.rs` and `lanes.rs`. Its bytes in a checkpoint: `image.rs`.

mod brokers;
mod image;
mod lanes;

use std::sync::Arc;

use corelog_protocol::ids::{BrokerId, LaneId, Offset, PartitionId, TopicId};
use corelog_protocol::message::Obstacle;
use rpds::RedBlackTreeMapSync;

use super::broker::BrokerRecord;
use super::command::Command;
use super::lane::{LaneRecord, LaneReplica};
use super::placement;
use super::topic::{Link, PartitionRange, Topic, TopicChanges, TopicSettings, is_valid_name};
use crate::limits::{PARTITIONS_MAX, TOPICS_MAX};

/// What a command came to. Decided when it is applied, since another may have been first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Done(TopicId),
    /// What was said of brokers or lanes holds now.
    Noted,
    TopicExists,
    UnknownTopic,
    /// The command made no sense here: a lane that does not exist, a second boot, an epoch that is over.
    Invalid,
    /// The topic has more partitions than it shall have: their number never falls.
    FewerPartitions,
    /// No room for more topics, partitions or brokers.
    LimitReached,
    /// What was only asked about could be done.
    Possible,
    /// This is in the way of an operation.
    Obstructed(Obstacle),
}

/// Its maps are persistent: a copy shares all that did not change, so that a view for all shards after each
/// change costs the change, and not the 20,000 topics beside it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// Grows with each applied command.
    version: u64,
    /// By their ids, which are 1, 2, 3, ...
    lanes: Arc<Vec<LaneRecord>>,
    /// In the order of their ids.
    brokers: Arc<Vec<BrokerRecord>>,
    /// Brokers that were removed, sorted: none of them comes back.
    removed: Vec<BrokerId>,
    /// Where replicas were that lanes have no more, each broker once for a lane. One that comes back goes on there, from
    /// what it promised: on another disk it would not know of that.
    left: Vec<(LaneId, LaneReplica)>,
    /// Registered brokers that shall lead nothing, sorted.
    draining: Vec<BrokerId>,
    topics: RedBlackTreeMapSync<TopicId, Arc<Topic>>,
    names: RedBlackTreeMapSync<Box<str>, TopicId>,
    /// Whose a range of partitions is, by its first id.
    ranges: RedBlackTreeMapSync<PartitionId, TopicId>,
    /// How many living partitions each lane has, like `lanes`.
    counts: Vec<u32>,
    next_topic: u32,
    next_partition: u32,
    /// Partitions of deleted topics, sorted and merged. Data is deleted because it is listed here,
    /// never because it is not listed elsewhere.
    deleted: Vec<PartitionRange>,
}

impl State {
    pub fn version(&self) -> u64 {
        self.version
    }
    pub fn lanes(&self) -> &[LaneRecord] {
        &self.lanes
    }
    pub fn lane(&self, id: LaneId) -> Option<&LaneRecord> {
        self.lanes.get((id.0 as usize).checked_sub(1)?)
    }
    /// The registered brokers, in the order of their ids.
    pub fn brokers(&self) -> impl Iterator<Item = &BrokerRecord> {
        self.brokers.iter()
    }
    pub fn broker(&self, id: BrokerId) -> Option<&BrokerRecord> {
        self.brokers.get(self.broker_at(id).ok()?)
    }
    /// Whether a broker of this id was removed. None of that id comes back.
    pub fn is_removed(&self, id: BrokerId) -> bool {
        self.removed.binary_search(&id).is_ok()
    }
    /// Whether the broker shall lead nothing.
    pub fn is_draining(&self, id: BrokerId) -> bool {
        self.draining.binary_search(&id).is_ok()
    }
    /// The lanes of both are the same, found out without looking at each of them if nothing was said of any.
    pub fn has_lanes_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.lanes, &other.lanes) || self.lanes == other.lanes
    }
    pub fn deleted(&self) -> &[PartitionRange] {
        &self.deleted
    }
    pub fn topics(&self) -> &RedBlackTreeMapSync<TopicId, Arc<Topic>> {
        &self.topics
    }
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.names.get(name)?)
    }
    pub fn topic_with_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(&id)
    }

    /// Topics in the order of their names, from the first one greater than `after`.
    pub fn topics_after<'a>(
        &'a self,
        after: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Topic>> + use<'a> {
        let bounds = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        self.names.range::<str, _>(bounds).filter_map(|(_, id)| self.topics.get(id))
    }

    /// The living topic that this partition belongs to.
    pub fn topic_of(&self, partition: PartitionId) -> Option<&Arc<Topic>> {
        let (_, id) = self.ranges.range(..=partition).next_back()?;
        self.topics.get(id).filter(|topic| topic.link(partition).is_some())
    }

    /// The command that would create this topic now, its partitions placed.
    pub fn topic_create(&self, name: &str, settings: TopicSettings) -> Result<Command, Outcome> {
        if !is_valid_name(name) || !settings.is_valid() || self.lanes.is_empty() {
            return Err(Outcome::Invalid);
        }
        if self.names.contains_key(name) {
            return Err(Outcome::TopicExists);
        }
        let lanes = self.place(&[], settings.partitions);
        Ok(Command::TopicCreate { name: name.into(), settings, lanes })
    }

    /// The command that would change this topic now, its new partitions placed.
    pub fn topic_alter(&self, name: &str, changes: TopicChanges) -> Result<Command, Outcome> {
        let topic = self.topic(name).ok_or(Outcome::UnknownTopic)?;
        let lanes_from = topic.settings.partitions;
        let settings = changes.apply_to(topic.settings);
        let added = settings.partitions.checked_sub(lanes_from).ok_or(Outcome::FewerPartitions)?;
        if !settings.is_valid() {
            return Err(Outcome::Invalid);
        }
        Ok(Command::TopicAlter {
            topic: topic.id,
            changes,
            lanes_from,
            lanes: self.place(&topic.links, added),
        })
    }

    /// `links`: of the partitions that the topic has already.
    fn place(&self, links: &[Link], partitions: u32) -> Vec<LaneId> {
        let lanes = self.lanes.iter().map(|lane| (lane.preferred(), lane.id));
        let mut own = vec![0; self.lanes.len()];
        for link in links {
            own[link.lane.0 as usize - 1] += 1;
        }
        let held = |lane: LaneId| {
            let at = lane.0 as usize - 1;
            placement::Held { lane, own: own[at], all: self.counts[at] }
        };
        let lanes: Vec<_> = placement::by_turns(lanes).into_iter().map(held).collect();
        placement::place(&lanes, partitions)
    }

    /// Applies a committed command. Refused commands change nothing but the version.
    pub fn apply(&mut self, command: &Command) -> Outcome {
        self.version += 1;
        match command {
            Command::Boot { lanes } => self.boot(lanes),
            Command::LanesAdd { first, lanes } => self.add_lanes(*first, lanes),
            Command::TopicCreate { name, settings, lanes } => self.create(name, *settings, lanes),
            Command::TopicDelete { name } => self.delete(name),
            Command::TopicAlter { topic, changes, lanes_from, lanes } => {
                self.alter(*topic, *changes, *lanes_from, lanes)
            }
            Command::BrokerRegister { record } => self.register(record),
            Command::BrokerRemove { id } => self.remove_broker(*id),
            Command::LaneEnter { lane, epoch } => self.enter(*lane, *epoch),
            Command::LaneLeader { lane, epoch, broker, position } => {
                self.name_leader(*lane, *epoch, *broker, *position)
            }
            Command::LaneSettled { lane, epoch } => self.settle(*lane, *epoch),
            Command::LaneReplicas { lane, epoch, replicas } => {
                self.change_replicas(*lane, *epoch, replicas)
            }
            Command::LaneMove { lane, epoch, to } => self.move_lane(*lane, *epoch, *to),
            Command::LaneTransfer { lane, epoch, to } => self.transfer_lane(*lane, *epoch, *to),
            Command::LaneReplace { lane, epoch, replicas } => {
                self.replace_replicas(*lane, *epoch, replicas)
            }
            Command::LaneHandOver { lane, epoch, number } => self.hand_over(*lane, *epoch, *number),
            Command::BrokerDrain { id, is_draining } => self.drain(*id, *is_draining),
        }
    }

    fn create(&mut self, name: &str, settings: TopicSettings, lanes: &[LaneId]) -> Outcome {
        if self.names.contains_key(name) {
            return Outcome::TopicExists;
        }
        if lanes.len() != settings.partitions as usize || !self.are_known(lanes) {
            return Outcome::Invalid;
        }
        if self.topics.size() >= TOPICS_MAX
            || self.next_topic == u32::MAX
            || !self.has_room_for(settings.partitions)
        {
            return Outcome::LimitReached;
        }
        // 0 is never given out, so that an id of zeros is no topic.
        let id = TopicId(self.next_topic.max(1));
        let (range, links) = self.give_out(id, lanes);
        let name: Box<str> = name.into();
        self.names.insert_mut(name.clone(), id);
        let topic = Topic { id, name, settings, ranges: vec![range], links };
        self.topics.insert_mut(id, Arc::new(topic));
        self.next_topic = id.0 + 1;
        Outcome::Done(id)
    }

    fn alter(
        &mut self,
        id: TopicId,
        changes: TopicChanges,
        lanes_from: u32,
        lanes: &[LaneId],
    ) -> Outcome {
        let Some(topic) = self.topics.get(&id) else { return Outcome::UnknownTopic };
        let had = topic.settings.partitions;
        let settings = changes.apply_to(topic.settings);
        let Some(added) = settings.partitions.checked_sub(had) else {
            return Outcome::FewerPartitions;
        };
        // Partitions never become fewer, so what was made meanwhile is at the front of the list.
        let passed = had.saturating_sub(lanes_from) as usize;
        let lanes = lanes.get(passed..).unwrap_or(&[]);
        if lanes_from > had || !settings.is_valid() || !self.are_known(lanes) {
            return Outcome::Invalid;
        }
        let Some(lanes) = lanes.get(..added as usize) else { return Outcome::Invalid };
        if !self.has_room_for(added) {
            return Outcome::LimitReached;
        }
        let mut topic = Topic::clone(topic);
        topic.settings = settings;
        if !lanes.is_empty() {
            let (range, links) = self.give_out(id, lanes);
            topic.ranges.push(range);
            topic.links.extend(links);
        }
        self.topics.insert_mut(id, Arc::new(topic));
        Outcome::Done(id)
    }

    fn are_known(&self, lanes: &[LaneId]) -> bool {
        lanes.iter().all(|lane| (1..=self.lanes.len()).contains(&(lane.0 as usize)))
    }

    fn has_room_for(&self, partitions: u32) -> bool {
        let living: u64 = self.counts.iter().map(|&count| u64::from(count)).sum();
        living + u64::from(partitions) <= u64::from(PARTITIONS_MAX)
            && self.next_partition.max(1).checked_add(partitions).is_some()
    }

    /// New ids for partitions of this topic in these lanes. 0 is never given out, so that an id of
    /// zeros is no partition.
    fn give_out(&mut self, topic: TopicId, lanes: &[LaneId]) -> (PartitionRange, Vec<Link>) {
        let first = PartitionId(self.next_partition.max(1));
        let range = PartitionRange { first, count: lanes.len() as u32 };
        self.next_partition = first.0 + range.count;
        self.ranges.insert_mut(first, topic);
        for lane in lanes {
            self.counts[lane.0 as usize - 1] += 1;
        }
        let links = lanes.iter().map(|&lane| Link { lane, first_offset: Offset(0) }).collect();
        (range, links)
    }

    fn delete(&mut self, name: &str) -> Outcome {
        let Some(id) = self.names.get(name).copied() else { return Outcome::UnknownTopic };
        let topic =
            Arc::clone(self.topics.get(&id).expect("names and topics are changed together"));
        self.names.remove_mut(name);
        self.topics.remove_mut(&id);
        for link in &topic.links {
            self.counts[link.lane.0 as usize - 1] -= 1;
        }
        for &range in &topic.ranges {
            self.ranges.remove_mut(&range.first);
            insert_merged(&mut self.deleted, range);
        }
        Outcome::Done(id)
    }

    /// Whether the partition belonged to a topic that was deleted.
    pub fn is_deleted(&self, partition: PartitionId) -> bool {
        let after = self.deleted.partition_point(|range| range.first <= partition);
        let Some(range) = after.checked_sub(1).and_then(|at| self.deleted.get(at)) else {
            return false;
        };
        partition.0 - range.first.0 < range.count
    }
}

/// Adds a range to a sorted list of ranges that do not touch.
fn insert_merged(ranges: &mut Vec<PartitionRange>, new: PartitionRange) {
    let at = ranges.partition_point(|range| range.first < new.first);
    ranges.insert(at, new);
    let end = |range: &PartitionRange| range.first.0 + range.count;
    if ranges.get(at + 1).is_some_and(|next| next.first.0 == end(&ranges[at])) {
        ranges[at].count += ranges[at + 1].count;
        ranges.remove(at + 1);
    }
    if at > 0 && end(&ranges[at - 1]) == ranges[at].first.0 {
        ranges[at - 1].count += ranges[at].count;
        ranges.remove(at);
    }
}

#[cfg(test)]
mod tests;
