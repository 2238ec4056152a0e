//! Every bound of the broker, and how the bounds relate. A relation that does not hold does not
//! compile.

/// The largest power loss unit that is assumed, and the alignment of commits and slots.
pub const BLOCK_BYTES: usize = 4096;

/// The smallest buffer of the pool.
pub const SLOT_BYTES_MIN: usize = BLOCK_BYTES;

/// How much a step touches at most, and so the size of the shared receive buffer.
pub const RECEIVE_BYTES: usize = 64 << 10;

/// A commit stops growing here, so that one commit cannot hold its neighbours for long: 1 MiB is
/// about 0.7 ms of a device at 1.5 GB/s. A single larger entry travels in a commit of its own.
pub const COMMIT_BYTES_TARGET: usize = 1 << 20;

/// Commits written or being written and not yet durable. 2 hide the flush behind the next write;
/// more than 4 only add latency.
pub const COMMITS_IN_FLIGHT_MAX: usize = 4;

/// Frame caps: before hello, by default, and hard (bytes of control table and payload together).
pub const FRAME_BYTES_PRE_HELLO: usize = 4 << 10;
pub const FRAME_BYTES_DEFAULT: usize = 1 << 20;
pub const FRAME_BYTES_HARD: usize = 16 << 20;

/// Segment sizes, bytes.
pub const SEGMENT_BYTES_MIN: usize = 64 << 10;
pub const SEGMENT_BYTES_DEFAULT: usize = 256 << 20;
pub const SEGMENT_BYTES_MAX: usize = 1 << 30;

/// Shards of one broker. A shard number is 16 bits, and the last stands for "any".
pub const SHARDS_MAX: u16 = 1024;

/// Lanes led per shard.
pub const LANES_PER_SHARD_DEFAULT: u16 = 2;
pub const LANES_PER_SHARD_MAX: u16 = 64;

/// What a shard may hold for clients and commits.
pub const SHARD_MEMORY_BYTES_DEFAULT: usize = 256 << 20;
pub const SHARD_MEMORY_BYTES_MIN: usize = 8 << 20;

/// Connections of one shard, all in all and from one address.
pub const CONNECTIONS_DEFAULT: u32 = 10_000;
pub const CONNECTIONS_PER_ADDRESS_DEFAULT: u32 = 256;

pub const TOPIC_NAME_BYTES_MAX: usize = 249;
pub const PARTITIONS_PER_TOPIC_MAX: u32 = 10_000;

/// Living topics and partitions of the cluster: what a metadata image of about 64 MiB could hold
/// is far more, but each shard keeps the whole list.
pub const TOPICS_MAX: usize = 20_000;
pub const PARTITIONS_MAX: u32 = 200_000;

const _: () = assert!(BLOCK_BYTES.is_power_of_two());
const _: () = assert!(PARTITIONS_PER_TOPIC_MAX <= PARTITIONS_MAX);
const _: () = assert!(RECEIVE_BYTES >= FRAME_BYTES_PRE_HELLO);
const _: () = assert!(FRAME_BYTES_DEFAULT <= FRAME_BYTES_HARD);
const _: () = assert!(COMMIT_BYTES_TARGET < SEGMENT_BYTES_DEFAULT);
const _: () = assert!(SEGMENT_BYTES_MIN <= SEGMENT_BYTES_DEFAULT);
const _: () = assert!(SEGMENT_BYTES_DEFAULT <= SEGMENT_BYTES_MAX);
