//! What a log is told when it is made. Checked once, here, so that the rest can rely on it.

use corelog_protocol::ids::{ClusterId, Incarnation, LaneId};

use crate::disk::DirectoryId;
use crate::limits::{
    BLOCK_BYTES, COMMITS_IN_FLIGHT_MAX, FRAME_BYTES_HARD, GATHER_BYTES_DEFAULT, PATIENT_BYTES,
    PATIENT_WAIT_NS, PRODUCER_IDLE_MS_MAX, PRODUCERS_MAX, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN,
};
use crate::time::Nanos;

/// How long, and how much of, a partition is kept. Whole segments are dropped, so both are lower
/// bounds of what stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Retention {
    /// Milliseconds since the append; `None` keeps for ever.
    pub age_ms: Option<u64>,
    /// Stored bytes of the partition that stay; `None` sets no bound.
    pub bytes: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct LogConfig {
    pub lane: LaneId,
    pub directory: DirectoryId,
    pub cluster: ClusterId,
    pub incarnation: Incarnation,
    /// The log of one replica of several: see `replica.rs`. Of a lane that has one replica: false.
    pub replicated: bool,
    /// The owner in this log's order numbers ([`super::OpIds`]): one per log on a shard.
    pub owner: u16,
    /// A full-grown segment.
    pub segment_bytes: u64,
    /// The first segment after a start; each next one doubles, up to `segment_bytes`.
    pub segment_bytes_first: u64,
    /// The greatest body that `append` takes.
    pub body_bytes_max: u32,
    /// The greatest `record_count` that `append` takes.
    pub records_per_entry_max: u32,
    /// Commits written or being written and not yet durable: 1 to `COMMITS_IN_FLIGHT_MAX`.
    pub commits_in_flight_max: usize,
    /// With n commits in flight, another starts only when n times this much is gathered.
    pub gather_bytes: usize,
    /// A commit for which nobody waits starts when so much is gathered, or after `patient_wait`.
    pub patient_bytes: usize,
    pub patient_wait: Nanos,
    /// Producers that are remembered, each once per partition; and how long, ms, after their last batch.
    pub producers_max: usize,
    pub producer_idle_ms_max: i64,
    /// After this long without an append, a padding commit says that the last one is durable.
    pub idle_padding_after: Nanos,
    /// Bytes of slots that the tail cache may hold.
    pub tail_cache_bytes: usize,
    /// Bytes of slots that reads from the disk may fill at once; one read always may.
    pub read_bytes_max: usize,
    /// Free space that this log leaves to others (0 for the metadata lane).
    pub reserve_bytes: u64,
    /// How fast sealed segments are read and compared with their checksums, over and over; 0: never.
    pub scrub_bytes_per_second: u64,
    /// How often retention looks at the oldest segment.
    pub retention_every: Nanos,
    /// Space is zero-filled ahead only while commits are smaller than this on average: above it,
    /// filling would double what each flush has to bring to the medium, and converting an extent
    /// costs less than that.
    pub fill_commit_bytes_max: usize,
}

impl LogConfig {
    pub fn new(
        lane: LaneId,
        directory: DirectoryId,
        cluster: ClusterId,
        incarnation: Incarnation,
        owner: u16,
    ) -> Self {
        Self {
            lane,
            directory,
            cluster,
            incarnation,
            replicated: false,
            owner,
            segment_bytes: SEGMENT_BYTES_DEFAULT as u64,
            segment_bytes_first: 4 << 20,
            body_bytes_max: 1 << 20,
            records_per_entry_max: 1 << 20,
            commits_in_flight_max: COMMITS_IN_FLIGHT_MAX,
            gather_bytes: GATHER_BYTES_DEFAULT,
            patient_bytes: PATIENT_BYTES,
            patient_wait: Nanos(PATIENT_WAIT_NS),
            producers_max: PRODUCERS_MAX,
            producer_idle_ms_max: PRODUCER_IDLE_MS_MAX,
            idle_padding_after: Nanos::from_millis(50),
            tail_cache_bytes: 16 << 20,
            read_bytes_max: 16 << 20,
            reserve_bytes: 0,
            scrub_bytes_per_second: 0,
            retention_every: Nanos::from_secs(1),
            fill_commit_bytes_max: 16 << 10,
        }
    }

    /// # Panics
    /// If a bound contradicts another: a mistake of the caller, not of the world.
    pub(super) fn check(&self) {
        assert!(self.segment_bytes >= SEGMENT_BYTES_MIN as u64);
        assert!(self.segment_bytes <= SEGMENT_BYTES_MAX as u64);
        assert!(self.segment_bytes.is_multiple_of(BLOCK_BYTES as u64));
        assert!(self.segment_bytes_first.is_multiple_of(BLOCK_BYTES as u64));
        assert!(self.body_bytes_max as usize <= FRAME_BYTES_HARD);
        assert!((1..=COMMITS_IN_FLIGHT_MAX).contains(&self.commits_in_flight_max));
        assert!(
            u64::from(self.body_bytes_max) + SEGMENT_OVERHEAD_BYTES <= self.segment_bytes,
            "a batch of the greatest size must fit a segment",
        );
    }

    /// The size of a segment made now, after one of `previous` bytes.
    pub(super) fn next_segment_bytes(&self, previous: Option<u64>) -> u64 {
        let least = self.segment_bytes_first.max(
            (u64::from(self.body_bytes_max) + SEGMENT_OVERHEAD_BYTES)
                .next_multiple_of(BLOCK_BYTES as u64),
        );
        let wanted = previous.map_or(least, |bytes| bytes.saturating_mul(2).max(least));
        wanted.min(self.segment_bytes)
    }
}

/// Headers, commit header, entry header, and a small footer: what a segment needs besides a body.
/// Two header blocks, one block for commit and entry headers, one for a checkpoint, two for a footer.
const SEGMENT_OVERHEAD_BYTES: u64 = 6 * BLOCK_BYTES as u64;
