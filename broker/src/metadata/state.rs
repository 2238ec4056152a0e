//! The fold: what the metadata is after the commands so far. [`State::apply`] is the only change.

use std::collections::BTreeMap;
use std::sync::Arc;

use corelog_protocol::ids::{LaneId, Offset, PartitionId, TopicId};

use super::codec::{BadBytes, Reader, Writer};
use super::command::Command;
use super::placement;
use super::topic::{LaneRecord, Link, Topic, TopicSettings, is_valid_name};
use crate::disk::DirectoryId;
use crate::limits::{PARTITIONS_MAX, TOPICS_MAX};

/// The format of an image, in its fifth byte.
pub const IMAGE_FORMAT: u8 = 1;
const IMAGE_TAG: u8 = 0x49;

/// What a command came to. Decided when it is applied, since another may have been first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Done(TopicId),
    TopicExists,
    UnknownTopic,
    /// The command made no sense here: a lane that does not exist, a second boot.
    Invalid,
    /// No room for more topics or partitions.
    LimitReached,
}

/// Consecutive partition ids: `first..first + count`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionRange {
    pub first: PartitionId,
    pub count: u32,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// Grows with each applied command.
    version: u64,
    lanes: Vec<LaneRecord>,
    topics: BTreeMap<TopicId, Arc<Topic>>,
    names: BTreeMap<Box<str>, TopicId>,
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
    pub fn deleted(&self) -> &[PartitionRange] {
        &self.deleted
    }
    pub fn topics(&self) -> &BTreeMap<TopicId, Arc<Topic>> {
        &self.topics
    }
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.names.get(name)?)
    }

    /// Topics in the order of their names, from the first one greater than `after`.
    pub fn topics_after<'a>(
        &'a self,
        after: &str,
    ) -> impl Iterator<Item = &'a Arc<Topic>> + use<'a> {
        let bounds = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        self.names.range::<str, _>(bounds).filter_map(|(_, id)| self.topics.get(id))
    }

    /// The living topic that this partition belongs to.
    pub fn topic_of(&self, partition: PartitionId) -> Option<&Arc<Topic>> {
        // Topics and their partitions get their ids in the same order, so ids can be halved.
        let (mut low, mut high) = (0u32, self.next_topic);
        while low < high {
            let middle = low + (high - low) / 2;
            let Some((id, topic)) = self.topics.range(TopicId(middle)..TopicId(high)).next() else {
                high = middle;
                continue;
            };
            if partition < topic.first_partition {
                high = middle;
            } else if topic.link(partition).is_some() {
                return Some(topic);
            } else {
                low = id.0 + 1;
            }
        }
        None
    }

    /// The command that would create this topic now, its partitions placed.
    pub fn topic_create(&self, name: &str, settings: TopicSettings) -> Result<Command, Outcome> {
        if !is_valid_name(name) || !settings.is_valid() || self.lanes.is_empty() {
            return Err(Outcome::Invalid);
        }
        if self.names.contains_key(name) {
            return Err(Outcome::TopicExists);
        }
        let counts: Vec<(LaneId, u32)> =
            self.lanes.iter().zip(&self.counts).map(|(lane, &count)| (lane.id, count)).collect();
        let lanes = placement::place(&counts, settings.partitions);
        Ok(Command::TopicCreate { name: name.into(), settings, lanes })
    }

    /// Applies a committed command. Refused commands change nothing but the version.
    pub fn apply(&mut self, command: &Command) -> Outcome {
        self.version += 1;
        match command {
            Command::Boot { lanes } => self.boot(lanes),
            Command::TopicCreate { name, settings, lanes } => self.create(name, *settings, lanes),
            Command::TopicDelete { name } => self.delete(name),
        }
    }

    fn boot(&mut self, lanes: &[LaneRecord]) -> Outcome {
        // Ids 1, 2, 3, ...: a lane is found by its place.
        let dense = lanes.iter().zip(1u32..).all(|(lane, id)| lane.id.0 == id);
        if !self.lanes.is_empty() || lanes.is_empty() || !dense {
            return Outcome::Invalid;
        }
        self.lanes = lanes.to_vec();
        self.counts = vec![0; lanes.len()];
        Outcome::Done(TopicId(0))
    }

    fn create(&mut self, name: &str, settings: TopicSettings, lanes: &[LaneId]) -> Outcome {
        if self.names.contains_key(name) {
            return Outcome::TopicExists;
        }
        let known = |lane: &LaneId| (1..=self.lanes.len()).contains(&(lane.0 as usize));
        if lanes.len() != settings.partitions as usize || !lanes.iter().all(known) {
            return Outcome::Invalid;
        }
        let living: u64 = self.counts.iter().map(|&count| u64::from(count)).sum();
        if self.topics.len() >= TOPICS_MAX
            || living + lanes.len() as u64 > u64::from(PARTITIONS_MAX)
            || self.next_partition.checked_add(settings.partitions).is_none()
            || self.next_topic == u32::MAX
        {
            return Outcome::LimitReached;
        }
        // 0 is never given out, so that an id of zeros is no partition.
        let id = TopicId(self.next_topic.max(1));
        let first_partition = PartitionId(self.next_partition.max(1));
        let links = lanes.iter().map(|&lane| Link { lane, first_offset: Offset(0) }).collect();
        for lane in lanes {
            self.counts[lane.0 as usize - 1] += 1;
        }
        let name: Box<str> = name.into();
        self.names.insert(name.clone(), id);
        self.topics.insert(id, Arc::new(Topic { id, name, settings, first_partition, links }));
        self.next_topic = id.0 + 1;
        self.next_partition = first_partition.0 + settings.partitions;
        Outcome::Done(id)
    }

    fn delete(&mut self, name: &str) -> Outcome {
        let Some(id) = self.names.remove(name) else { return Outcome::UnknownTopic };
        let topic = self.topics.remove(&id).expect("names and topics are changed together");
        for link in &topic.links {
            self.counts[link.lane.0 as usize - 1] -= 1;
        }
        let range =
            PartitionRange { first: topic.first_partition, count: topic.settings.partitions };
        insert_merged(&mut self.deleted, range);
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

    /// The whole state as the body of a checkpoint entry.
    pub fn image(&self) -> Vec<u8> {
        let mut writer = Writer::new(IMAGE_FORMAT, IMAGE_TAG);
        writer.u64(self.version);
        writer.u32(self.next_topic);
        writer.u32(self.next_partition);
        writer.u32(self.lanes.len() as u32);
        for lane in &self.lanes {
            writer.u16(lane.directory.0);
        }
        writer.u32(self.topics.len() as u32);
        for topic in self.topics.values() {
            writer.u32(topic.id.0);
            writer.text(&topic.name);
            writer.optional(topic.settings.retention_ms);
            writer.optional(topic.settings.retention_bytes);
            writer.u32(topic.first_partition.0);
            writer.u32(topic.links.len() as u32);
            for link in &topic.links {
                writer.u32(link.lane.0);
                writer.u64(link.first_offset.0);
            }
        }
        writer.u32(self.deleted.len() as u32);
        for range in &self.deleted {
            writer.u32(range.first.0);
            writer.u32(range.count);
        }
        writer.finish()
    }

    /// Reads what `image` wrote; anything that could not have been written is refused.
    pub fn from_image(body: &[u8]) -> Result<Self, BadBytes> {
        let (tag, mut reader) = Reader::new(body, IMAGE_FORMAT)?;
        if tag != IMAGE_TAG {
            return Err(BadBytes);
        }
        let mut state = Self { version: reader.u64()?, ..Self::default() };
        state.next_topic = reader.u32()?;
        state.next_partition = reader.u32()?;
        let directories = reader.list(|reader| reader.u16().map(DirectoryId))?;
        let record = |(directory, id)| LaneRecord { id: LaneId(id), directory };
        state.lanes = directories.into_iter().zip(1..).map(record).collect();
        state.counts = vec![0; state.lanes.len()];
        let topics = reader.list(read_topic)?;
        let mut last = (0, 0);
        for topic in topics {
            let first = topic.first_partition.0;
            let end = first.checked_add(topic.settings.partitions).ok_or(BadBytes)?;
            if topic.id.0 <= last.0 || first < last.1 || first == 0 {
                return Err(BadBytes);
            }
            if topic.id.0 >= state.next_topic || end > state.next_partition {
                return Err(BadBytes);
            }
            last = (topic.id.0, end);
            for link in &topic.links {
                let at = link.lane.0.checked_sub(1).ok_or(BadBytes)?;
                *state.counts.get_mut(at as usize).ok_or(BadBytes)? += 1;
            }
            if state.names.insert(topic.name.clone(), topic.id).is_some() {
                return Err(BadBytes);
            }
            state.topics.insert(topic.id, Arc::new(topic));
        }
        state.deleted = reader.list(|reader| {
            Ok(PartitionRange { first: PartitionId(reader.u32()?), count: reader.u32()? })
        })?;
        let sorted = state.deleted.windows(2).all(|pair| {
            pair[0].first.0.checked_add(pair[0].count).is_some_and(|end| end < pair[1].first.0)
        });
        if !sorted {
            return Err(BadBytes);
        }
        reader.finish()?;
        Ok(state)
    }
}

fn read_topic(reader: &mut Reader<'_>) -> Result<Topic, BadBytes> {
    let id = TopicId(reader.u32()?);
    let name: Box<str> = reader.text()?.into();
    let retention_ms = reader.optional()?;
    let retention_bytes = reader.optional()?;
    let first_partition = PartitionId(reader.u32()?);
    let links = reader.list(|reader| {
        Ok(Link { lane: LaneId(reader.u32()?), first_offset: Offset(reader.u64()?) })
    })?;
    let partitions = u32::try_from(links.len()).map_err(|_| BadBytes)?;
    let settings = TopicSettings { partitions, retention_ms, retention_bytes };
    if !settings.is_valid() || !is_valid_name(&name) {
        return Err(BadBytes);
    }
    Ok(Topic { id, name, settings, first_partition, links })
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
