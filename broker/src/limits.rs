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

/// With n commits in flight, another starts only when n times this much is gathered.
pub const GATHER_BYTES_DEFAULT: usize = 128 << 10;

/// A commit for which nobody waits (levels below durable, no consumer at the end) starts when so much is
/// gathered, or so much later. It may hold up a durable batch that joins it by the writing of these
/// bytes, 0.2 to 0.5 ms; the time bounds what a crash may take of records acknowledged in memory.
pub const PATIENT_BYTES: usize = 256 << 10;
pub const PATIENT_WAIT_NS: u64 = 4_000_000;

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

/// How fast a shard's scrub reads, bytes a second.
pub const SCRUB_BYTES_DEFAULT: u64 = 8 << 20;

/// The first segment of a lane; each next one doubles until it is full-grown.
pub const SEGMENT_BYTES_FIRST: usize = 4 << 20;

/// The metadata lane: an image of `TOPICS_MAX` topics with names of usual length is about 4 MiB.
pub const METADATA_SEGMENT_BYTES: usize = 16 << 20;
pub const METADATA_BODY_BYTES_MAX: usize = 4 << 20;

/// Free space that data lanes leave to the metadata and to what frees space.
pub const RESERVE_BYTES_MAX: usize = 64 << 20;

/// The largest batch: with its entry header it must travel in one fetch reply.
pub const BODY_BYTES_HARD: usize = FRAME_BYTES_HARD - (128 << 10);

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

/// Where clients and other brokers connect, unless configured.
pub const PORT_DEFAULT: u16 = 7420;

/// Replicas of a lane: by default, and at most. Odd, since an even one more makes no loss more bearable.
pub const REPLICAS_DEFAULT: u8 = 3;
pub const REPLICAS_MAX: u8 = crate::metadata::REPLICAS_MAX as u8;

/// A broker that was not heard for so long is taken for dead.
pub const DETECT_MS_DEFAULT: u64 = 500;

/// What may wait on one link to another broker: more means that it does not keep up, and is refused.
pub const PEER_SEND_BYTES_MAX: usize = 8 << 20;

/// When to dial a broker again that did not answer: doubled from the first to the second, half of it by chance.
pub const REDIAL_MS_MIN: u64 = 20;
pub const REDIAL_MS_MAX: u64 = 1_000;

/// Connections beyond the limits that are kept for the addresses of brokers, until it is known who they are.
pub const PEER_CONNECTIONS_RESERVED: u32 = 64;

/// Brokers of which a shard remembers the incarnation that it has met.
pub const PEERS_MET_MAX: usize = 1024;

/// What one connection uses up before others have their turn.
pub const SESSION_QUANTUM_BYTES: usize = 16 << 10;

/// A connection whose unsent replies exceed this is not listened to until it has read some.
pub const SEND_BYTES_MAX: usize = 4 << 20;

/// The same while the admitted part of the memory is used up.
pub const SEND_BYTES_SHORT: usize = 4 * SLOT_BYTES_MIN;

/// Requests of one connection that may wait at once: long polls, questions to other shards.
pub const REQUESTS_PER_SESSION_MAX: u32 = 256;

/// Long polls and reads of one shard that may wait at once.
pub const FETCHES_MAX: usize = 20_000;

/// What one shard may have asked others and not been told yet.
pub const FORWARDS_MAX: usize = 10_000;

/// Changes of the metadata that wait to be proposed.
pub const CHANGES_QUEUED_MAX: usize = 1_000;

/// Partitions in one fetch or offsets request.
pub const PARTITIONS_PER_REQUEST_MAX: usize = 1024;

/// A fetch waits no longer than this, and returns about so much at most.
pub const FETCH_WAIT_MS_MAX: u32 = 60_000;
pub const FETCH_BYTES_MAX: u32 = 4 << 20;

/// Deadlines count in ticks of the shard's own timer, so that a paused process blames nobody.
pub const TICK_MS: u64 = 1_000;
/// A log whose deadline has passed, but which waits for the disk, is woken so much later.
pub const LANE_WAKE_MS_MIN: u64 = 10;
pub const HELLO_TICKS_MAX: u32 = 5;
pub const FRAME_TICKS_MAX: u32 = 30;
pub const SEND_TICKS_MAX: u32 = 30;

/// While a frame arrives at this rate or faster, its deadline moves on.
pub const FRAME_BYTES_PER_TICK_MIN: usize = 64 << 10;

/// Frames of unknown kind before hello, and broken ones after it, until the connection is closed.
pub const FRAMES_UNSUPPORTED_MAX: u32 = 3;
pub const FRAMES_MALFORMED_MAX: u32 = 10;

/// When to try again after `Overloaded`: a few commits later.
pub const RETRY_AFTER_MS: u32 = 50;

/// The time of the metadata's group: heartbeats every 2 ticks, elections after 10 to 19 without one.
/// A group of one needs no time.
pub const GROUP_TICK_MS: u64 = 50;

/// How long a stopping shard waits for others before it gives up on them.
pub const STOP_GRACE_MS: u64 = 5_000;

/// How long a broker of several that stops still speaks for the metadata's group. Its log takes nothing any more, and as
/// long as a leader speaks the others choose no other one.
pub const STOP_SPEAKING_MS: u64 = 500;

/// How long a broker that stops waits for others to lead what it leads.
pub const LEAVE_MS: u64 = 3_000;

pub const TOPIC_NAME_BYTES_MAX: usize = 249;
pub const PARTITIONS_PER_TOPIC_MAX: u32 = 10_000;

/// Living topics and partitions of the cluster: what a metadata image of about 64 MiB could hold
/// is far more, but each shard keeps the whole list.
pub const TOPICS_MAX: usize = 20_000;
pub const PARTITIONS_MAX: u32 = 200_000;

/// Producers that a lane remembers for deduplication, each once per partition. Fewer on small segments, whose
/// first entry they may fill to an eighth, and on small memory budgets.
pub const PRODUCERS_MAX: usize = 65_536;
/// What one takes in memory, about, and in a checkpoint.
pub const PRODUCER_BYTES: usize = 352;
pub const PRODUCER_IMAGE_BYTES: usize = 256;
/// A producer that was silent for so long is forgotten: a day, far above any delivery deadline.
pub const PRODUCER_IDLE_MS_MAX: i64 = 24 * 3_600 * 1_000;

const _: () = assert!(BLOCK_BYTES.is_power_of_two());
const _: () = assert!(REPLICAS_DEFAULT % 2 == 1 && REPLICAS_DEFAULT <= REPLICAS_MAX);
const _: () = assert!(REDIAL_MS_MIN <= REDIAL_MS_MAX);
const _: () = assert!(PARTITIONS_PER_TOPIC_MAX <= PARTITIONS_MAX);
const _: () = assert!(SESSION_QUANTUM_BYTES <= RECEIVE_BYTES);
const _: () = assert!(FETCH_BYTES_MAX as usize <= FRAME_BYTES_HARD);
const _: () = assert!(HELLO_TICKS_MAX < FRAME_TICKS_MAX);
const _: () = assert!(SHARD_MEMORY_BYTES_MIN >= 2 * SEND_BYTES_MAX);
const _: () =
    assert!((CONNECTIONS_DEFAULT as usize) * FRAME_BYTES_PRE_HELLO <= SHARD_MEMORY_BYTES_DEFAULT);
const _: () = assert!(METADATA_BODY_BYTES_MAX + 8 * BLOCK_BYTES <= METADATA_SEGMENT_BYTES);
const _: () = assert!(SEGMENT_BYTES_MIN > 8 * BLOCK_BYTES);
const _: () = assert!(BODY_BYTES_HARD + 8 * BLOCK_BYTES <= SEGMENT_BYTES_DEFAULT);
const _: () =
    assert!(PARTITIONS_PER_REQUEST_MAX == corelog_protocol::message::FETCH_PARTITIONS_MAX);
const _: () = assert!(RECEIVE_BYTES >= FRAME_BYTES_PRE_HELLO);
const _: () = assert!(FRAME_BYTES_DEFAULT <= FRAME_BYTES_HARD);
const _: () = assert!(COMMIT_BYTES_TARGET < SEGMENT_BYTES_DEFAULT);
const _: () = assert!(PATIENT_BYTES < COMMIT_BYTES_TARGET);
const _: () = assert!(SEGMENT_BYTES_MIN <= SEGMENT_BYTES_DEFAULT);
const _: () = assert!(SEGMENT_BYTES_DEFAULT <= SEGMENT_BYTES_MAX);

/// What a leader has under way to one follower of a lane, sent and not received there.
pub const REPLICATION_WINDOW_BYTES: usize = 4 << 20;

/// A leader that has not heard a quorum of its followers for so long serves no more until it does.
pub const QUORUM_SILENCE_NS: u64 = 1_000_000_000;

/// A preferred leader that has kept up with the present one for so long is given the lane, 5 s.
pub const READY_AFTER_NS: u64 = 5_000_000_000;

/// How often a leader tells whoever leads the metadata how far its followers are, unless it has news, 1 s.
pub const PROGRESS_EVERY_NS: u64 = 1_000_000_000;

/// What a lane costs its leader is smoothed over about so long, 30 s, and means nothing before the leader has measured
/// for so long, 3 s.
pub const LOAD_SMOOTHING_NS: u64 = 30_000_000_000;
pub const LOAD_KNOWN_AFTER_NS: u64 = 3_000_000_000;
const _: () = assert!(LOAD_KNOWN_AFTER_NS >= 2 * PROGRESS_EVERY_NS);

/// How often whoever leads the metadata looks whether a lane had better be led by another broker, 60 s. Twice the
/// smoothing, so that what a look sees is hardly of the time before the last one.
pub const BALANCE_EVERY_NS: u64 = 60_000_000_000;
const _: () = assert!(BALANCE_EVERY_NS >= 2 * LOAD_SMOOTHING_NS);

/// Differences of load below this are noise: 64 KiB a second, or 16 requests.
pub const LOAD_NOISE: u64 = 64 << 10;

/// How often a leader that serves tells its followers what is committed though nothing is new, 500 ms.
pub const COMMITTED_EVERY_NS: u64 = 500_000_000;

/// What a follower knows to be committed and can read may be so old when it serves readers, 2 s.
pub const FOLLOWER_AGE_NS: u64 = 2_000_000_000;
const _: () = assert!(FOLLOWER_AGE_NS > 2 * COMMITTED_EVERY_NS);

/// A leader introduces itself again to a follower that has not answered for so long.
pub const LEAD_AGAIN_NS: u64 = 200_000_000;

/// What a leader has sent to a follower, and of which it hears nothing for so long, is sent again.
pub const REPLICATION_STALL_NS: u64 = 5_000_000_000;

/// A leader whose disk has made nothing durable at so many ticks in a row, about 2 s, while a follower's has, lets another
/// one lead. Counted, so that a process which was paused does not blame its disk.
pub const DISK_STALL_TICKS: u32 = 20;

/// The most bytes of entries in one frame to a follower.
pub const REPLICATION_FRAME_BYTES: usize = 1 << 20;

/// How often replicas repeat what may have been lost, and shards that share lanes say that they are there.
pub const REPLICA_TICK_MS: u64 = 100;
