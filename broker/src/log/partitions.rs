//! The partitions of the lane: their bounds, their cached entries, and what the active segment
//! holds of them. Addressed by a dense index that never changes in the life of the process.

use std::collections::{BTreeMap, VecDeque};

use corelog_protocol::ids::{Lsn, Offset, PartitionId};

use super::config::Retention;
use super::event::PartitionBounds;

/// An entry in a slot of the tail cache.
#[derive(Clone, Copy, Debug)]
pub struct CachedEntry {
    pub base: Offset,
    pub next: Offset,
    pub commit: u64,
    pub start: u32,
    pub len: u32,
    pub time: i64,
}

/// What the active segment holds of a partition. Void if `stamp` is not that of the segment.
#[derive(Clone, Copy, Debug, Default)]
pub struct InActive {
    pub stamp: u64,
    pub first_offset: u64,
    pub bytes: u64,
    pub time_max: i64,
    /// The latest point, in the segment's list; each point names the one before.
    pub last_point: u32,
    pub points: u32,
    pub bytes_since_point: u64,
}

#[derive(Debug)]
pub struct Partition {
    pub id: PartitionId,
    /// `None` until the shard has opened it: then nothing of it expires.
    pub retention: Option<Retention>,
    pub deleted: bool,
    pub log_start: Offset,
    /// The log start that the log tells, perhaps not durably yet.
    pub log_start_told: Offset,
    pub next_offset: Offset,
    pub committed_end: Offset,
    /// Recovery: the last entry of it that was found.
    pub seen_lsn: Lsn,
    /// Stored bytes in all segments.
    pub bytes: u64,
    /// The newest entries, without a gap up to `next_offset`.
    pub cached: VecDeque<CachedEntry>,
    pub active: InActive,
}

impl Partition {
    fn new(id: PartitionId) -> Self {
        Self {
            id,
            retention: None,
            deleted: false,
            log_start: Offset(0),
            log_start_told: Offset(0),
            next_offset: Offset(0),
            committed_end: Offset(0),
            seen_lsn: Lsn(0),
            bytes: 0,
            cached: VecDeque::new(),
            active: InActive::default(),
        }
    }

    pub fn bounds(&self) -> PartitionBounds {
        PartitionBounds {
            log_start: self.log_start,
            next_offset: self.next_offset,
            committed_end: self.committed_end,
        }
    }
}

#[derive(Debug, Default)]
pub struct Partitions {
    pub list: Vec<Partition>,
    by_id: BTreeMap<PartitionId, u32>,
}

impl Partitions {
    pub fn find(&self, id: PartitionId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// The same, without a search if it is at `at`.
    pub fn find_at(&self, id: PartitionId, at: u32) -> Option<u32> {
        let is_there = self.list.get(at as usize).is_some_and(|partition| partition.id == id);
        if is_there { Some(at) } else { self.find(id) }
    }

    pub fn get(&self, id: PartitionId) -> Option<&Partition> {
        self.find(id).map(|at| &self.list[at as usize])
    }

    pub fn get_mut(&mut self, id: PartitionId) -> Option<&mut Partition> {
        self.find(id).map(|at| &mut self.list[at as usize])
    }

    /// The partition, made known if it was not.
    pub fn ensure(&mut self, id: PartitionId) -> &mut Partition {
        let next = self.list.len() as u32;
        let at = *self.by_id.entry(id).or_insert(next);
        if at == next {
            self.list.push(Partition::new(id));
        }
        &mut self.list[at as usize]
    }
}
