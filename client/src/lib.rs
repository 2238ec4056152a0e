#![cfg_attr(feature = "thread", doc = include_str!("../README.md"))]
//!
//! # How it works
//!
//! The [`engine`] decides everything: which shard a record goes to, when a batch leaves, what is
//! tried again, what is believed of an answer. It is a plain state machine. The driver in
//! `thread/` gives it sockets and a clock: whoever sends steps the engine and writes to the socket
//! itself; one IO thread reads, keeps the timers and tells users.
//!
//! The first record of a topic asks shard 0 where its partitions live. From then on each goes over
//! the connection to the shard that owns its partition: one connection per shard, opened when it is
//! first needed. When a broker restarts, or says that a partition has moved, the places are asked
//! again.

mod compression;
pub mod engine;
mod error;
#[cfg(feature = "glommio")]
pub mod glommio;
mod leader;
mod operation;
mod partition;
mod plan;
mod record;
#[cfg(any(feature = "thread", feature = "glommio"))]
mod seed;
#[cfg(feature = "thread")]
mod thread;

pub use compression::{PackFault, UNPACKED_BYTES_MAX, pack_batch, unpack_batch};
pub use corelog_protocol::Durability;
pub use corelog_protocol::ErrorCode;
pub use corelog_protocol::batch::{BatchError, Compression, Header};
pub use corelog_protocol::ids::{BrokerId, LaneId, Offset, ShardId};
pub use corelog_protocol::message::{
    BrokerPlace, BrokerStatus, Brokers, ClusterStatusReply, LaneLoad, LaneStatus, Obstacle,
    Operation, PartitionPlace, ReplicaPlace, ReplicaStatus, ShardCounters, StatusReply,
    TopicChanges, TopicInfo, TopicSettings, TopicSummary,
};
pub use corelog_protocol::produce::StageTimes;
pub use engine::{
    BatchRecords, ConsumedRecord, ConsumerConfig, FetchedBatch, FetchedRecord, ObjectiveReport,
    ObjectiveState, OutOfRange, Position,
};
pub use error::{Error, Refusal};
pub use leader::Leader;
pub use operation::{PlannedMove, Standing, planned_moves, standing};
pub use partition::{Partitioner, murmur2, partition_of_key};
pub use plan::{NoPlan, plan_balance, plan_removal};
pub use record::Record;
#[cfg(feature = "thread")]
pub use thread::{
    Admin, Batches, Builder, CallbackProducer, Client, ConsumeError, Consumer, Delivery,
    PlanProgress, Producer, Records, Report,
};
