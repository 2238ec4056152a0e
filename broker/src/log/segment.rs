//! A segment in memory: the active one, which grows, and the sealed ones, of which little more is
//! held than where their footer is.

use std::rc::Rc;

use corelog_protocol::ids::{Lsn, PartitionId};

use super::epochs::Epochs;
use super::format::COMMITS_START;
use super::format::checkpoint::PartitionImage;
use super::format::footer::{self, IndexPartition, IndexPoint, SegmentIndex, Trailer};
use super::partitions::{InActive, Partition, Partitions};
use crate::disk::FileId;

/// A partition gets a point in the index each time this many of its bytes have gone by.
const POINT_EVERY_BYTES: u64 = 64 << 10;

#[derive(Clone, Copy, Debug)]
struct ChainedPoint {
    point: IndexPoint,
    previous: u32,
}

/// The segment that commits go to.
#[derive(Debug)]
pub struct Active {
    pub sequence: u64,
    pub file: FileId,
    pub file_bytes: u64,
    pub nonce: u64,
    /// Where the next commit begins.
    pub position: u64,
    /// Where the first commit that is not durable begins.
    pub durable_position: u64,
    pub commits: u64,
    pub first_lsn: Lsn,
    pub time_max: i64,
    pub epoch_last: u64,
    pub replay_end: u64,
    points: Vec<ChainedPoint>,
    touched: Vec<u32>,
}

/// An entry as the index sees it.
#[derive(Clone, Copy, Debug)]
pub struct Indexed {
    pub base: u64,
    pub lsn: u64,
    pub position: u64,
    pub bytes: u64,
    pub time: i64,
}

impl Active {
    pub fn new(sequence: u64, file: FileId, file_bytes: u64, nonce: u64, first_lsn: Lsn) -> Self {
        Self {
            sequence,
            file,
            file_bytes,
            nonce,
            position: COMMITS_START,
            durable_position: COMMITS_START,
            commits: 0,
            first_lsn,
            time_max: i64::MIN,
            epoch_last: 0,
            replay_end: 0,
            points: Vec::new(),
            touched: Vec::new(),
        }
    }

    /// The lists of a former segment, to use their room again.
    pub fn with_room_of(mut self, room: SparePoints) -> Self {
        self.points = room.points;
        self.touched = room.touched;
        self
    }

    fn stamp(&self) -> u64 {
        self.sequence + 1
    }

    pub fn in_active(&self, partition: &Partition) -> Option<InActive> {
        (partition.active.stamp == self.stamp()).then_some(partition.active)
    }

    /// An upper bound of the footer's bytes if one more entry comes.
    pub fn footer_bound(&self, states: usize, epochs: usize) -> u64 {
        footer::bytes_bound(
            self.touched.len() as u64 + 1,
            self.points.len() as u64 + 1,
            states as u64 + 1,
            epochs as u64 + 1,
        )
    }

    /// Takes note of a batch.
    pub fn index(&mut self, at: u32, partition: &mut Partition, entry: Indexed) {
        let stamp = self.stamp();
        let state = &mut partition.active;
        let is_first = state.stamp != stamp;
        if is_first {
            *state = InActive { stamp, first_offset: entry.base, ..InActive::default() };
            self.touched.push(at);
        }
        if is_first || state.bytes_since_point >= POINT_EVERY_BYTES {
            let point = IndexPoint {
                offset: entry.base,
                lsn: entry.lsn,
                position: entry.position,
                time: entry.time,
            };
            let previous = state.last_point;
            state.last_point = self.points.len() as u32;
            state.points += 1;
            state.bytes_since_point = 0;
            self.points.push(ChainedPoint { point, previous });
        }
        state.bytes += entry.bytes;
        state.bytes_since_point += entry.bytes;
        state.time_max = entry.time;
    }

    /// The latest point of a partition that satisfies `is_before`, or its first one.
    pub fn find_point(
        &self,
        state: &InActive,
        is_before: impl Fn(&IndexPoint) -> bool,
    ) -> Option<IndexPoint> {
        let mut at = state.last_point;
        for left in (0..state.points).rev() {
            let chained = self.points.get(at as usize)?;
            if left == 0 || is_before(&chained.point) {
                return Some(chained.point);
            }
            at = chained.previous;
        }
        None
    }

    /// Where to begin to look for an entry: the latest point in front of it.
    pub fn point_before(&self, lsn: Lsn) -> Option<IndexPoint> {
        let after = self.points.partition_point(|chained| chained.point.lsn <= lsn.0);
        Some(self.points.get(after.checked_sub(1)?)?.point)
    }

    /// The index of the segment as it is now, and the lists to use again.
    pub fn seal(
        mut self,
        partitions: &Partitions,
        epochs: &Epochs,
        end_lsn: Lsn,
    ) -> (Sealed, SparePoints) {
        self.touched.sort_unstable_by_key(|at| partitions.list[*at as usize].id);
        let mut index = SegmentIndex {
            first_lsn: self.first_lsn.0,
            end_lsn: end_lsn.0,
            epoch_last: self.epoch_last,
            time_max: self.time_max,
            commits_end: self.position,
            replay_end: self.replay_end,
            partitions: Vec::with_capacity(self.touched.len()),
            points: Vec::with_capacity(self.points.len()),
            states: states(partitions),
            epochs: epochs.images(),
        };
        for at in &self.touched {
            let partition = &partitions.list[*at as usize];
            let state = partition.active;
            let point_first = index.points.len();
            let mut at = state.last_point;
            for _ in 0..state.points {
                let chained = self.points[at as usize];
                index.points.push(chained.point);
                at = chained.previous;
            }
            index.points[point_first..].reverse();
            index.partitions.push(IndexPartition {
                partition: partition.id.0,
                point_first: point_first as u32,
                point_count: state.points,
                first_offset: state.first_offset,
                next_offset: partition.next_offset.0,
                bytes: state.bytes,
                time_max: state.time_max,
            });
        }
        let sealed = Sealed::new(
            self.sequence,
            self.file,
            self.file_bytes,
            self.nonce,
            Rc::new(index),
            Place::Memory,
        );
        self.points.clear();
        self.touched.clear();
        (sealed, SparePoints { points: self.points, touched: self.touched })
    }
}

/// Room for points, kept from segment to segment.
#[derive(Debug, Default)]
pub struct SparePoints {
    points: Vec<ChainedPoint>,
    touched: Vec<u32>,
}

/// All partitions as they are now, for checkpoints and footers.
pub fn states(partitions: &Partitions) -> Vec<PartitionImage> {
    let image = |partition: &Partition| PartitionImage {
        partition: partition.id.0,
        deleted: u32::from(partition.deleted),
        // An entry in front of this image may tell it already, and will not be read again.
        log_start: partition.log_start.max(partition.log_start_told).0,
        next_offset: partition.next_offset.0,
    };
    // A deleted partition is forgotten with its last byte: its id never comes back.
    let is_kept = |partition: &&Partition| !partition.deleted || partition.bytes > 0;
    partitions.list.iter().filter(is_kept).map(image).collect()
}

/// Where a sealed segment's index is.
#[derive(Clone, Debug)]
pub enum Place {
    /// The footer is still to be written.
    Memory,
    /// There is no room for a footer: the next start scans the segment.
    MemoryForGood,
    Footer(Trailer),
}

/// What memory holds of a partition in a sealed segment.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub partition: PartitionId,
    pub first: u64,
    pub next: u64,
    pub bytes: u64,
    pub time_max: i64,
}

#[derive(Debug)]
pub struct Sealed {
    pub sequence: u64,
    pub file: FileId,
    pub file_bytes: u64,
    pub nonce: u64,
    pub first_lsn: Lsn,
    pub end_lsn: Lsn,
    pub commits_end: u64,
    pub replay_end: u64,
    /// Sorted by partition.
    pub parts: Vec<Part>,
    pub place: Place,
    /// The index, while `place` says so or a reader has lately asked for it.
    pub index: Option<Rc<SegmentIndex>>,
    /// Prepared in a former life and never used: there is nothing to lose.
    pub void: bool,
}

impl Sealed {
    pub fn new(
        sequence: u64,
        file: FileId,
        file_bytes: u64,
        nonce: u64,
        index: Rc<SegmentIndex>,
        place: Place,
    ) -> Self {
        let part = |entry: &IndexPartition| Part {
            partition: PartitionId(entry.partition),
            first: entry.first_offset,
            next: entry.next_offset,
            bytes: entry.bytes,
            time_max: entry.time_max,
        };
        let is_empty = index.commits_end == COMMITS_START;
        Self {
            sequence,
            file,
            file_bytes,
            nonce,
            first_lsn: Lsn(index.first_lsn),
            end_lsn: Lsn(index.end_lsn),
            commits_end: index.commits_end,
            replay_end: index.replay_end,
            parts: index.partitions.iter().map(part).collect(),
            place,
            index: Some(index),
            void: is_empty,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.commits_end == COMMITS_START
    }

    pub fn find(&self, partition: PartitionId) -> Option<&Part> {
        let at = self.parts.binary_search_by_key(&partition, |part| part.partition).ok()?;
        self.parts.get(at)
    }
}
