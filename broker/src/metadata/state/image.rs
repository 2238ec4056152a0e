//! The state as bytes in a checkpoint entry, and back.
//!
//! ```text
//! crc32c u32 (of all that follows) | format u8 = 6 | tag u8 = 0x49 | 0 u16
//! version u64 | next_topic u32 | next_partition u32
//! count u32, count x broker | count u32, count x id u32          the removed brokers
//! count u32, count x id u32                                      the draining ones
//! count u32, count x (lane u32, broker u32, directory u16)       where replicas were that left
//! count u32, count x lane                                        lanes 1, 2, 3, ...
//! count u32, count x topic | count u32, count x (first u32, count u32)      the deleted partitions
//! lane:  epoch u64 | leader u32 (0: none) | its position | set | set before (empty: none)
//!        | move: broker u32 (0: none), number u64, is it to stay u8 | next set (empty: none)
//! topic: id u32 | name | retention_ms u64 | retention_bytes u64 | count u32, count x (first u32, count u32)
//!        | count u32, count x (lane u32, first_offset u64)
//! ```
//! Brokers, sets and positions are as in commands.

use std::sync::Arc;

use corelog_protocol::ids::{BrokerId, LaneId, Offset, PartitionId, TopicId};

use super::State;
use crate::disk::DirectoryId;
use crate::metadata::broker::BrokerRecord;
use crate::metadata::codec::{BadBytes, Reader, Writer};
use crate::metadata::lane::{LaneRecord, LaneReplica};
use crate::metadata::topic::{Link, PartitionRange, Topic, TopicSettings, is_valid_name};

const IMAGE_FORMAT: u8 = 6;
const IMAGE_TAG: u8 = 0x49;

/// No version in an image is greater: commands are counted one by one, so such a one is forged.
const VERSION_MAX: u64 = 1 << 62;

impl State {
    /// The whole state as the body of a checkpoint entry.
    pub fn image(&self) -> Vec<u8> {
        let mut writer = Writer::new(IMAGE_FORMAT, IMAGE_TAG);
        writer.u64(self.version);
        writer.u32(self.next_topic);
        writer.u32(self.next_partition);
        writer.u32(self.brokers.len() as u32);
        self.brokers.iter().for_each(|broker| broker.write(&mut writer));
        writer.u32(self.removed.len() as u32);
        self.removed.iter().for_each(|id| writer.u32(id.0));
        writer.u32(self.draining.len() as u32);
        self.draining.iter().for_each(|id| writer.u32(id.0));
        writer.u32(self.left.len() as u32);
        for (lane, replica) in &self.left {
            writer.u32(lane.0);
            writer.u32(replica.broker.0);
            writer.u16(replica.directory.0);
        }
        writer.u32(self.lanes.len() as u32);
        self.lanes.iter().for_each(|lane| lane.write(&mut writer));
        writer.u32(self.topics.size() as u32);
        for topic in self.topics.values() {
            writer.u32(topic.id.0);
            writer.text(&topic.name);
            writer.optional(topic.settings.retention_ms);
            writer.optional(topic.settings.retention_bytes);
            writer.u32(topic.ranges.len() as u32);
            for range in &topic.ranges {
                writer.u32(range.first.0);
                writer.u32(range.count);
            }
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
        if state.version > VERSION_MAX {
            return Err(BadBytes);
        }
        state.next_topic = reader.u32()?;
        state.next_partition = reader.u32()?;
        state.brokers = Arc::new(reader.list(BrokerRecord::read)?);
        state.removed = reader.list(|reader| reader.u32().map(BrokerId))?;
        state.draining = reader.list(|reader| reader.u32().map(BrokerId))?;
        state.left = reader.list(|reader| {
            let lane = LaneId(reader.u32()?);
            let broker = BrokerId(reader.u32()?);
            Ok((lane, LaneReplica { broker, directory: DirectoryId(reader.u16()?) }))
        })?;
        let mut ids = (1..).map(LaneId);
        state.lanes = Arc::new(reader.list(|reader| {
            let id = ids.next().ok_or(BadBytes)?;
            LaneRecord::read(id, reader)
        })?);
        let is_possible = |(lane, replica): &(LaneId, LaneReplica)| {
            state.lane(*lane).is_some() && state.are_placed(std::slice::from_ref(replica))
        };
        if !state.left.iter().all(is_possible) {
            return Err(BadBytes);
        }
        let latest = |lane: &LaneRecord| lane.moving.map_or(0, |moving| moving.number);
        let are_moves_past = state.lanes.iter().all(|lane| latest(lane) <= state.version);
        if !state.are_brokers_possible() || !are_moves_past {
            return Err(BadBytes);
        }
        state.counts = vec![0; state.lanes.len()];
        let topics = reader.list(read_topic)?;
        let mut last = TopicId(0);
        for topic in topics {
            if topic.id <= last || topic.id.0 >= state.next_topic {
                return Err(BadBytes);
            }
            last = topic.id;
            for range in &topic.ranges {
                let is_given_out = range.end().is_some_and(|end| end <= state.next_partition);
                let is_new = !state.ranges.contains_key(&range.first);
                state.ranges.insert_mut(range.first, topic.id);
                if range.first.0 == 0 || range.count == 0 || !is_given_out || !is_new {
                    return Err(BadBytes);
                }
            }
            for link in &topic.links {
                let at = link.lane.0.checked_sub(1).ok_or(BadBytes)?;
                *state.counts.get_mut(at as usize).ok_or(BadBytes)? += 1;
            }
            if state.names.contains_key(&topic.name) {
                return Err(BadBytes);
            }
            state.names.insert_mut(topic.name.clone(), topic.id);
            state.topics.insert_mut(topic.id, Arc::new(topic));
        }
        state.deleted = reader.list(read_range)?;
        if !state.are_deleted_possible() || !state.are_ranges_apart() {
            return Err(BadBytes);
        }
        reader.finish()?;
        Ok(state)
    }

    /// The deleted ranges are of ids that were given out, sorted, and do not touch: else they would
    /// have been merged.
    fn are_deleted_possible(&self) -> bool {
        let was_given_out = |range: &PartitionRange| {
            let end = range.end().is_some_and(|end| end <= self.next_partition);
            range.first.0 > 0 && range.count > 0 && end
        };
        self.deleted.iter().all(was_given_out)
            && self
                .deleted
                .windows(2)
                .all(|pair| pair[0].end().is_some_and(|end| end < pair[1].first.0))
    }

    /// No partition is of two topics, and none of a topic is deleted.
    fn are_ranges_apart(&self) -> bool {
        let living = self.topics.values().flat_map(|topic| &topic.ranges);
        let mut ranges: Vec<_> = living.chain(&self.deleted).collect();
        ranges.sort_by_key(|range| range.first);
        ranges.windows(2).all(|pair| pair[0].end().is_some_and(|end| end <= pair[1].first.0))
    }
}

fn read_range(reader: &mut Reader<'_>) -> Result<PartitionRange, BadBytes> {
    Ok(PartitionRange { first: PartitionId(reader.u32()?), count: reader.u32()? })
}

fn read_topic(reader: &mut Reader<'_>) -> Result<Topic, BadBytes> {
    let id = TopicId(reader.u32()?);
    let name: Box<str> = reader.text()?.into();
    let retention_ms = reader.optional()?;
    let retention_bytes = reader.optional()?;
    let ranges = reader.list(read_range)?;
    let links = reader.list(|reader| {
        Ok(Link { lane: LaneId(reader.u32()?), first_offset: Offset(reader.u64()?) })
    })?;
    let partitions = u32::try_from(links.len()).map_err(|_| BadBytes)?;
    let settings = TopicSettings { partitions, retention_ms, retention_bytes };
    let count = ranges.iter().map(|range| u64::from(range.count)).sum::<u64>();
    if !settings.is_valid() || !is_valid_name(&name) || count != u64::from(partitions) {
        return Err(BadBytes);
    }
    Ok(Topic { id, name, settings, ranges, links })
}
