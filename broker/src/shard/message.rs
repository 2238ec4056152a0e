//! What the shards of one broker say to each other. Owned data: a message crosses cores.
//!
//! A question carries a token of the one who asks, and is answered exactly once with
//! [`ShardMessage::Answer`] and that token. Between two shards, messages arrive in order.

use std::sync::Arc;

use corelog_protocol::ErrorCode;
use corelog_protocol::ids::TopicId;
use corelog_protocol::message::{
    ClusterStatusReply, Fetch, FetchedPartition, Obstacle, OffsetsAnswer, OffsetsQuery,
};
use corelog_protocol::produce::{Produce, ProduceAck};

use super::batch::CheckedBatch;
use crate::disk::DirectoryId;
pub use crate::metadata::Change;
use crate::metadata::view::View;
use crate::replica::LaneReport;

/// Names a question to whoever asked it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Token(pub u64);

/// Not on the path of a client that talks to the right core.
#[derive(Debug)]
pub enum ShardMessage {
    /// From shard 0: the metadata as of now. Answered with `ViewApplied`.
    View(Arc<View>),
    /// To shard 0: this version is in force here.
    ViewApplied {
        version: u64,
    },
    /// A request that came to the wrong shard. Its batch has been checked.
    Produce {
        token: Token,
        produce: Produce,
        checked: CheckedBatch,
        batch: Vec<u8>,
    },
    Fetch {
        token: Token,
        fetch: Fetch,
    },
    /// Answer that fetch now, with what there is.
    FetchHurry {
        token: Token,
    },
    /// The payload of a fetch that was answered for the other one is in its hands: who sent it no
    /// longer counts it.
    PayloadTaken {
        bytes: usize,
    },
    Offsets {
        token: Token,
        queries: Vec<OffsetsQuery>,
    },
    /// To shard 0: a change of the metadata.
    Change {
        token: Token,
        change: Change,
    },
    Status {
        token: Token,
    },
    /// To shard 0: how are brokers and lanes?
    Cluster {
        token: Token,
    },
    /// To shard 0: what a replica here has to say to the leader of the metadata.
    LaneReport(LaneReport),
    Answer {
        token: Token,
        answer: Answer,
    },
    /// A write or flush failed there: every lane in this directory is failed.
    DirectoryFailed {
        directory: DirectoryId,
    },
}

#[derive(Debug)]
pub enum Answer {
    Produced(ProduceAck),
    /// The batch is appended, and no ack was wanted.
    Nothing,
    Fetched {
        partitions: Vec<FetchedPartition>,
        payload: Vec<u8>,
    },
    Offsets(Vec<OffsetsAnswer>),
    /// The change is in force on every shard.
    Changed(TopicId),
    /// An operation has begun in this version of the metadata, which is in force on every shard.
    Operated(Result<u64, Obstacle>),
    Cluster(Box<ClusterStatusReply>),
    /// Values of the counters, in the fixed order of `status::names`.
    Counters(Vec<u64>),
    Refused(Refusal),
}

/// Why a request is not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub code: ErrorCode,
    /// 0: no hint.
    pub retry_after_ms: u32,
    /// For people.
    pub message: &'static str,
}

impl Refusal {
    pub const fn new(code: ErrorCode, message: &'static str) -> Self {
        Self { code, retry_after_ms: 0, message }
    }
}
