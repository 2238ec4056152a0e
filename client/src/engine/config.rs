//! The engine's settings, each with unit, bound and default.

use super::time::MILLIS;
use crate::{Durability, Partitioner};
use corelog_protocol::batch::Compression;
use corelog_protocol::ids::ShardId;
use std::net::SocketAddr;

/// Settings of one client. Made by [`Config::new`], then changed field by field.
#[derive(Clone, Debug)]
pub struct Config {
    /// Brokers of the cluster, tried in turn. At least one; they tell of the others.
    pub addresses: Vec<SocketAddr>,
    /// Told to the broker, for its logs. At most 249 bytes.
    pub client_name: String,
    /// For tests: every connection asks for this shard, and everything goes through it.
    pub insist_on_shard: Option<ShardId>,
    /// Caps a frame from the broker, control and payload together. Default 16 MiB, the hard cap.
    pub frame_bytes_max: usize,
    /// First and longest wait before a connection is tried again. It doubles in between, and a jitter
    /// of up to half is taken off. Default 10 ms to 2 s.
    pub reconnect_nanos_min: u64,
    pub reconnect_nanos_max: u64,
    /// A connection whose oldest request waits longer than this for its answer is closed. Default 30 s.
    pub request_nanos_max: u64,
    /// A broker of a cluster that owes an answer and has said nothing for so long is doubted: another one
    /// is asked who leads. Default 500 ms.
    pub doubt_nanos: u64,
    /// Where the client is, for consumers that do not say it: see [`ConsumerConfig::rack`]. Default none.
    pub rack: Option<String>,
    pub producer: ProducerConfig,
}

/// How records are gathered and sent.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// The level of records that name none. Default `quorum_durable`.
    pub durability: Durability,
    /// How long a batch may wait for company. 0, the default: it leaves at once if the window has
    /// room, and gathers while it has not.
    pub linger_nanos: u64,
    /// Instead of a linger: the 99th of 100 records is to be delivered within this time, ns, and linger
    /// and batch size follow from what is measured. See [`ObjectiveReport`](super::ObjectiveReport).
    /// Default none. At least 1.
    pub objective_nanos: Option<u64>,
    /// A batch leaves when it holds this much. Default 256 KiB. A single larger record travels alone.
    pub batch_bytes_max: usize,
    /// How batches are compressed, each by itself, when they leave. One that does not get smaller
    /// leaves plain. Default none. It is done by whoever steps the engine: 256 KiB of short JSON took
    /// 0.5 ms with LZ4 (to 28 %) and 1.7 ms with Zstandard (to 19 %) on a core of a virtual machine that
    /// was shared.
    pub compression: Compression,
    /// Whether the broker recognises batches that are sent again, so that a lost answer neither loses nor doubles
    /// a record. Default true. Records of level `none` are never sent again.
    pub is_idempotent: bool,
    /// Batches of one partition that may be unanswered. Default 5; at most 5 with idempotence. Without it: with 1,
    /// every refusal that may be retried is; with more, one that a later batch has overtaken is
    /// reported instead, so that order is kept.
    pub window_batches: usize,
    /// Bytes unanswered per connection. Default 8 MiB. One batch may always leave.
    pub window_bytes: usize,
    /// From `produce` to delivery or failure. Default 30 s.
    pub delivery_nanos_max: u64,
    /// All bytes accepted and not yet delivered or failed. Default 64 MiB. Beyond it: `Full`.
    pub memory_bytes_max: usize,
    /// Where records without key and partition go. Default sticky.
    pub partitioner: Partitioner,
}

impl Config {
    /// The defaults, for these brokers.
    #[must_use]
    pub fn new(addresses: Vec<SocketAddr>) -> Self {
        Self {
            addresses,
            client_name: String::from("corelog"),
            insist_on_shard: None,
            frame_bytes_max: 16 << 20,
            reconnect_nanos_min: 10 * MILLIS,
            reconnect_nanos_max: 2_000 * MILLIS,
            request_nanos_max: 30_000 * MILLIS,
            doubt_nanos: 500 * MILLIS,
            rack: None,
            producer: ProducerConfig::default(),
        }
    }
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            durability: Durability::QuorumDurable,
            linger_nanos: 0,
            objective_nanos: None,
            batch_bytes_max: 256 << 10,
            is_idempotent: true,
            compression: Compression::None,
            window_batches: 5,
            window_bytes: 8 << 20,
            delivery_nanos_max: 30_000 * MILLIS,
            memory_bytes_max: 64 << 20,
            partitioner: Partitioner::Sticky,
        }
    }
}

/// How one consumer fetches.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// Bytes fetched and not yet taken, over all its partitions, as they came: a packed batch is
    /// unpacked when it is taken. Default 16 MiB. One batch may exceed it.
    pub ahead_bytes_max: usize,
    /// Asked of the broker for one partition in one fetch. Default 1 MiB.
    pub partition_bytes_max: u32,
    /// How long the broker may hold a fetch that finds nothing. Default 500 ms.
    pub wait_ms_max: u32,
    /// What a fetch waits for. Default 1 byte: whatever comes.
    pub bytes_min: u32,
    /// What to do when the next offset is not in the partition. Default: tell.
    pub out_of_range: OutOfRange,
    /// The rack, or zone, of the consumer, named as brokers name theirs (`cluster.rack`). Partitions are then fetched
    /// from a replica in it, if there is one, which perhaps follows: what is served is the same, and comes up to some
    /// hundred milliseconds later. Default none, as is an empty name: leaders are read.
    pub rack: Option<String>,
}

/// What a consumer does when it is to read at an offset that its partition does not have: one that
/// retention has removed, or one beyond the end.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum OutOfRange {
    /// Tell [`Error::OffsetOutOfRange`](crate::Error::OffsetOutOfRange), and stand still until sought.
    #[default]
    Error,
    /// Go on at the oldest record kept, and count it in [`Counters`](super::Counters). Records that
    /// were removed are not told of; after an offset beyond the end, records come again.
    Earliest,
    /// Go on at the end, and count it. What lies between is not read.
    Latest,
}

impl ConsumerConfig {
    /// The same for a consumer in this rack: see [`rack`](Self::rack).
    #[must_use]
    pub fn in_rack(mut self, rack: &str) -> Self {
        self.rack = Some(rack.to_owned());
        self
    }
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            ahead_bytes_max: 16 << 20,
            partition_bytes_max: 1 << 20,
            wait_ms_max: 500,
            bytes_min: 1,
            out_of_range: OutOfRange::Error,
            rack: None,
        }
    }
}
