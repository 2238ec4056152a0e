//! What is known of one topic.

use corelog_protocol::ids::{LaneId, Offset, PartitionId, TopicId};

use crate::limits::{PARTITIONS_PER_TOPIC_MAX, TOPIC_NAME_BYTES_MAX};

/// What a topic's creator chooses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicSettings {
    /// 1 to `PARTITIONS_PER_TOPIC_MAX`.
    pub partitions: u32,
    /// Records older than this may be dropped. `None`: kept for ever.
    pub retention_ms: Option<u64>,
    /// A partition keeps at least its newest so many bytes. `None`: no bound.
    pub retention_bytes: Option<u64>,
}

impl TopicSettings {
    pub fn is_valid(&self) -> bool {
        (1..=PARTITIONS_PER_TOPIC_MAX).contains(&self.partitions)
            && self.retention_ms.is_none_or(|ms| ms > 0 && i64::try_from(ms).is_ok())
            && self.retention_bytes.is_none_or(|bytes| bytes > 0)
    }
}

/// What changes about a topic. `None` leaves it as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TopicChanges {
    /// The count from now on, not below the present one.
    pub partitions: Option<u32>,
    /// 0 stands for "for ever".
    pub retention_ms: Option<u64>,
    /// 0 stands for "no bound".
    pub retention_bytes: Option<u64>,
}

impl TopicChanges {
    /// The settings with these changes.
    pub fn apply_to(&self, settings: TopicSettings) -> TopicSettings {
        let changed = |new: Option<u64>, old: Option<u64>| match new {
            None => old,
            Some(0) => None,
            some => some,
        };
        TopicSettings {
            partitions: self.partitions.unwrap_or(settings.partitions),
            retention_ms: changed(self.retention_ms, settings.retention_ms),
            retention_bytes: changed(self.retention_bytes, settings.retention_bytes),
        }
    }
}

/// 1 to 249 bytes of `[a-zA-Z0-9._-]`, and neither `.` nor `..`.
pub fn is_valid_name(name: &str) -> bool {
    (1..=TOPIC_NAME_BYTES_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// One stretch of a partition's life in one lane: from `first_offset` to the next link's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    pub lane: LaneId,
    pub first_offset: Offset,
}

/// Consecutive partition ids: `first..first + count`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionRange {
    pub first: PartitionId,
    pub count: u32,
}

impl PartitionRange {
    /// The place of an id in the range.
    pub fn index_of(&self, partition: PartitionId) -> Option<u32> {
        partition.0.checked_sub(self.first.0).filter(|&index| index < self.count)
    }

    /// One after the last id, if that is a number.
    pub fn end(&self) -> Option<u32> {
        self.first.0.checked_add(self.count)
    }
}

/// A topic. The ids of its partitions are consecutive within a range; each time that partitions are
/// added to it, they are a range of their own, behind the others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topic {
    pub id: TopicId,
    pub name: Box<str>,
    pub settings: TopicSettings,
    /// At least one, none empty, together as long as `links`.
    pub ranges: Vec<PartitionRange>,
    /// Where each partition is. A list per partition in the design; every list has one link so far.
    pub links: Vec<Link>,
}

impl Topic {
    /// The link that takes new records of the partition, if it is one of this topic's.
    pub fn link(&self, partition: PartitionId) -> Option<Link> {
        let mut before = 0;
        for range in &self.ranges {
            if let Some(index) = range.index_of(partition) {
                return self.links.get((before + index) as usize).copied();
            }
            before += range.count;
        }
        None
    }

    /// All partitions with the link that takes new records.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionId, Link)> + '_ {
        let ids = self.ranges.iter().flat_map(|range| {
            (range.first.0..range.first.0.saturating_add(range.count)).map(PartitionId)
        });
        ids.zip(self.links.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        let long = "x".repeat(249);
        for good in ["a", "orders.v2", "A-b_c.9", "...", long.as_str()] {
            assert!(is_valid_name(good), "{good}");
        }
        let longer = "x".repeat(250);
        for bad in ["", ".", "..", "a b", "a/b", "ä", "a\0", "a\n", longer.as_str()] {
            assert!(!is_valid_name(bad), "{bad}");
        }
    }

    #[test]
    fn settings_have_bounds() {
        let good = TopicSettings { partitions: 1, retention_ms: None, retention_bytes: Some(1) };
        assert!(good.is_valid());
        assert!(!TopicSettings { partitions: 0, ..good }.is_valid());
        assert!(!TopicSettings { partitions: PARTITIONS_PER_TOPIC_MAX + 1, ..good }.is_valid());
        assert!(!TopicSettings { retention_ms: Some(0), ..good }.is_valid());
        assert!(!TopicSettings { retention_ms: Some(u64::MAX), ..good }.is_valid());
        assert!(!TopicSettings { retention_bytes: Some(0), ..good }.is_valid());
    }
}
