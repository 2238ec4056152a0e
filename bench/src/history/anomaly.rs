//! What must not be, and who saw it.

use std::fmt;

use super::Partition;
use crate::verify::content::Identity;

/// Where a record lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Spot {
    pub partition: Partition,
    pub offset: u64,
}

/// Who read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reader {
    /// A consumer that was there all the time.
    Consumer(u32),
    /// The last one, through the leaders, when all was quiet again: what it got is what the cluster holds.
    Last,
    /// What a stopped broker has on its disk.
    Disk(u32),
}

/// Something that must not happen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Anomaly {
    /// Acknowledged by a quorum's disks, and not there.
    Lost { identity: Identity, told: Spot },
    /// Acknowledged at a lower level, and not there, though nothing but planned operations took place.
    Dropped { identity: Identity, told: Spot },
    /// Its producer was told of an error, or nothing, though nothing but planned operations took place.
    Disturbed { identity: Identity },
    /// There twice.
    Duplicate { identity: Identity, first: Spot, second: Spot },
    /// Behind a later one of the same producer, in the same partition.
    Reordered { identity: Identity, spot: Spot, behind: u64 },
    /// Sent after the other one was acknowledged, and in front of it.
    Overtook { identity: Identity, spot: Spot, other: Identity, other_spot: Spot },
    /// Nobody sent it, or not there, or not yet, or not with this key.
    Phantom { spot: Spot, reader: Reader },
    /// There, though its producer was told that it never will be.
    Refused { identity: Identity, spot: Spot },
    /// Elsewhere than its acknowledgment said.
    Misplaced { identity: Identity, told: Spot, found: Spot },
    /// Two records were acknowledged by quorums' disks with the same offset.
    OffsetConflict { identity: Identity, other: Identity, spot: Spot },
    /// Of the records of one batch some are there, or some were acknowledged.
    SplitBatch { spot: Spot, records: u64, reader: Reader },
    /// Offsets are missing in between.
    Gap { spot: Spot, found: u64, reader: Reader },
    /// A consumer got a record that is not what the cluster holds there.
    Vanished { spot: Spot, seen: Identity, reader: Reader },
    /// A replica holds another record there than the cluster.
    Divergence { spot: Spot, reader: Reader },
    /// Of this lane a disk has another entry there than the log of the latest epoch, and not as the tail of a leader that
    /// was deposed.
    Forked { lane: u32, lsn: u64, reader: Reader },
    /// Acknowledged by a quorum's disks, and on fewer disks than that.
    TooFewCopies { identity: Identity, spot: Spot, copies: u64 },
}

impl Anomaly {
    /// In one word, for counting.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lost { .. } => "lost",
            Self::Dropped { .. } => "dropped",
            Self::Disturbed { .. } => "disturbed",
            Self::Duplicate { .. } => "duplicate",
            Self::Reordered { .. } => "reordered",
            Self::Overtook { .. } => "overtook",
            Self::Phantom { .. } => "phantom",
            Self::Refused { .. } => "refused, yet there",
            Self::Misplaced { .. } => "misplaced",
            Self::OffsetConflict { .. } => "offset given twice",
            Self::SplitBatch { .. } => "split batch",
            Self::Gap { .. } => "gap",
            Self::Vanished { .. } => "vanished",
            Self::Divergence { .. } => "divergence",
            Self::Forked { .. } => "forked",
            Self::TooFewCopies { .. } => "too few copies",
        }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition: (topic, partition), offset } = self;
        write!(f, "topic {topic}, partition {partition}, offset {offset}")
    }
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consumer(number) => write!(f, "consumer {number}"),
            Self::Last => f.write_str("the last consumer"),
            Self::Disk(broker) => write!(f, "the disk of broker {broker}"),
        }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name())?;
        match self {
            Self::Lost { identity, told } | Self::Dropped { identity, told } => {
                write!(f, "{identity}, acknowledged at {told}")
            }
            Self::Disturbed { identity } => write!(f, "{identity}, by a planned operation"),
            Self::Duplicate { identity, first, second } => {
                write!(f, "{identity}, at {first} and again at {second}")
            }
            Self::Reordered { identity, spot, behind } => {
                write!(f, "{identity} at {spot}, behind record {behind} of its producer")
            }
            Self::Overtook { identity, spot, other, other_spot } => write!(
                f,
                "{identity} at {spot}, sent after {other} was acknowledged, which is at {other_spot}"
            ),
            Self::Phantom { spot, reader } => write!(f, "{spot}, seen by {reader}"),
            Self::Refused { identity, spot } => write!(f, "{identity} at {spot}"),
            Self::Misplaced { identity, told, found } => {
                write!(f, "{identity}, acknowledged at {told}, found at {found}")
            }
            Self::OffsetConflict { identity, other, spot } => {
                write!(f, "{identity} and {other} at {spot}")
            }
            Self::SplitBatch { spot, records, reader } => {
                write!(f, "{records} records from {spot}, seen by {reader}")
            }
            Self::Gap { spot, found, reader } => {
                write!(f, "{spot} was expected and {found} found by {reader}")
            }
            Self::Vanished { spot, seen, reader } => {
                write!(f, "{seen} at {spot}, once seen by {reader}")
            }
            Self::Divergence { spot, reader } => write!(f, "{spot}, on {reader}"),
            Self::Forked { lane, lsn, reader } => write!(f, "lane {lane}, LSN {lsn}, on {reader}"),
            Self::TooFewCopies { identity, spot, copies } => {
                write!(f, "{identity} at {spot} is on {copies} disks")
            }
        }
    }
}
