//! What can go wrong, and what the caller may conclude from it.

use crate::compression::PackFault;
use crate::plan::NoPlan;
use corelog_protocol::ErrorCode;
use corelog_protocol::ids::{LaneId, Offset};
use corelog_protocol::message::Obstacle;
use std::fmt;
use std::sync::Arc;

/// A failure of the client or a refusal of the broker.
///
/// Two questions matter to a caller, and each error answers both: is it certain that nothing
/// happened ([`is_definite`](Error::is_definite)), and may the same call succeed later
/// ([`may_retry`](Error::may_retry))?
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The memory budget is used up. Try again when deliveries have come in.
    Full,
    /// The record can never be sent: too large, or a field out of bounds.
    InvalidRecord(&'static str),
    /// A name or number that the caller gave is not usable.
    InvalidArgument(&'static str),
    UnknownTopic(Arc<str>),
    UnknownPartition {
        topic: Arc<str>,
        partition: u32,
    },
    /// Time ran out. `sent`: the request had left, so it may yet be carried out.
    DeadlineExceeded {
        sent: bool,
    },
    /// The connection ended after the request had left, before its answer.
    ConnectionLost,
    /// The broker could not be reached at all within the deadline.
    Unreachable,
    /// The broker answered with an error.
    Refused(Refusal),
    /// This is in the way of an operation, and nothing was changed.
    Obstructed(Obstacle),
    /// What was wanted cannot be done in any order of operations. Nothing was changed by this, though earlier steps may
    /// have been carried out.
    NoPlan(NoPlan),
    /// An operation was begun and has not come about in time: these lanes are left. It may go on by itself.
    Unfinished {
        lanes: Vec<LaneId>,
    },
    /// The broker sent what it must not. The connection was closed.
    Protocol(&'static str),
    /// The position lies outside what the partition holds.
    OffsetOutOfRange {
        asked: Offset,
        log_start: Offset,
        committed_end: Offset,
    },
    /// The broker's copy of this range, end excluded, is damaged. Reads may go on after it.
    RangeCorrupt {
        first: Offset,
        end: Offset,
    },
    /// A fetched entry fails its checksum or its structure.
    CorruptEntry {
        expected: Offset,
        reason: &'static str,
    },
    /// A fetched batch is as its producer made it, and cannot be unpacked. Reads may go on after it,
    /// at `end`.
    Unpack {
        first: Offset,
        end: Offset,
        fault: PackFault,
    },
    /// A fetched entry does not follow the one before.
    NotDense {
        expected: Offset,
        found: Offset,
    },
    /// The client is closed.
    Closed,
}

/// An error that the broker answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub code: ErrorCode,
    /// The broker's hint, 0 if none.
    pub retry_after_ms: u32,
    pub message: Box<str>,
}

impl Refusal {
    /// The broker's hint in nanoseconds, 0 if none.
    pub(crate) fn hint_nanos(&self) -> u64 {
        u64::from(self.retry_after_ms) * 1_000_000
    }
}

impl Error {
    /// True if what was asked has not happened and will not. False: it may have, or may yet.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        match self {
            Self::ConnectionLost | Self::Protocol(_) | Self::Unfinished { .. } => false,
            Self::DeadlineExceeded { sent } => !sent,
            Self::Refused(refusal) => refusal.code.is_definite(),
            _ => true,
        }
    }

    /// True if the same call may succeed later. After an indefinite error a retry may duplicate.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        match self {
            Self::Full
            | Self::DeadlineExceeded { .. }
            | Self::ConnectionLost
            | Self::Unreachable
            | Self::Protocol(_) => true,
            Self::Refused(refusal) => refusal.code.may_retry(),
            Self::Obstructed(obstacle) => obstacle.is_passing(),
            Self::NoPlan(why) => {
                matches!(why, NoPlan::NobodyKnows | NoPlan::LoadNotKnown { .. })
            }
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the producer's memory budget is used up"),
            Self::InvalidRecord(why) => write!(f, "the record cannot be sent: {why}"),
            Self::InvalidArgument(why) => f.write_str(why),
            Self::UnknownTopic(topic) => write!(f, "there is no topic {topic:?}"),
            Self::UnknownPartition { topic, partition } => {
                write!(f, "topic {topic:?} has no partition {partition}")
            }
            Self::DeadlineExceeded { sent: false } => {
                f.write_str("the deadline passed before the request left")
            }
            Self::DeadlineExceeded { sent: true } => {
                f.write_str("the deadline passed without an answer; the outcome is unknown")
            }
            Self::ConnectionLost => {
                f.write_str("the connection was lost before the answer; the outcome is unknown")
            }
            Self::Unreachable => f.write_str("no broker could be reached"),
            Self::Refused(refusal) => {
                write!(f, "the broker refused: {}: {}", refusal.code, refusal.message)
            }
            Self::Obstructed(obstacle) => write!(f, "{obstacle}"),
            Self::NoPlan(why) => write!(f, "{why}"),
            Self::Unfinished { lanes } if lanes.is_empty() => {
                f.write_str("the operation was begun, and is not over in time")
            }
            Self::Unfinished { lanes } => {
                let lanes: Vec<String> = lanes.iter().map(ToString::to_string).collect();
                let lanes = lanes.join(", ");
                write!(
                    f,
                    "the operation was begun, and is not over in time: left are lanes {lanes}"
                )
            }
            Self::Protocol(what) => write!(f, "the broker broke the protocol: {what}"),
            Self::OffsetOutOfRange { asked, log_start, committed_end } => {
                write!(f, "offset {asked} is outside {log_start}..{committed_end}")
            }
            Self::RangeCorrupt { first, end } => {
                write!(f, "offsets {first}..{end} are damaged at the broker")
            }
            Self::CorruptEntry { expected, reason } => {
                write!(f, "the entry at offset {expected} is corrupt: {reason}")
            }
            Self::Unpack { first, end, fault } => {
                write!(f, "the batch of offsets {first}..{end} cannot be unpacked: {fault}")
            }
            Self::NotDense { expected, found } => {
                write!(f, "offset {expected} expected, {found} found")
            }
            Self::Closed => f.write_str("the client is closed"),
        }
    }
}

impl std::error::Error for Error {}
