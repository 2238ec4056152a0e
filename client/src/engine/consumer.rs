//! Fetching: positions, fetch ahead, and what is accepted from a broker.

use crate::Error;
use corelog_protocol::ids::{Epoch, Offset};
use std::ops::Range;
use std::sync::Arc;

/// A group of assignments that share a budget.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConsumerId(pub u32);

/// A partition assigned to a consumer. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AssignmentId(pub u64);

/// Where to read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Position {
    /// The oldest record kept.
    Beginning,
    /// Only what comes after now.
    End,
    Offset(Offset),
    /// The first record appended at this time or later, ms since the Unix epoch; the end if none is.
    Time(i64),
}

/// What [`take`](super::Engine::take) hands out.
#[derive(Clone, Debug)]
pub enum Fetched {
    Batch(FetchedBatch),
    /// The assignment stands still until it is sought or ended.
    Error {
        assignment: AssignmentId,
        error: Error,
    },
}

/// A checked batch in a buffer that it shares with its neighbours.
#[derive(Clone, Debug)]
pub struct FetchedBatch {
    pub assignment: AssignmentId,
    pub topic: Arc<str>,
    pub partition: u32,
    /// Of the first record wanted; the batch may hold earlier ones, which are skipped.
    pub first_offset: Offset,
    /// Of the batch.
    pub base_offset: Offset,
    pub epoch: Epoch,
    pub append_time_ms: i64,
    pub(crate) buffer: Arc<Vec<u8>>,
    pub(crate) range: Range<usize>,
}
