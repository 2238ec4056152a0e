//! A lane's log: append, group commit, roll, recovery, reads, retention, for all partitions of
//! the lane. Pure: it returns disk orders and is told of their completion.
//!
//! Invariants: nothing here opens a file or asks the time; a block that holds durable bytes is
//! never written again; a flush covers only writes whose completion had been reported before it
//! was ordered. The bytes on disk are described in `FORMAT.md` beside this file.

mod config;
mod counters;
mod event;
mod io;

use std::collections::VecDeque;

use corelog_protocol::ids::{Epoch, Lsn, Offset, PartitionId};

use crate::disk::{DiskDone, OpId};
use crate::memory::{Memory, Piece};
use crate::random::Random;
use crate::time::Monotonic;

pub use config::{LogConfig, Retention};
pub use counters::LogCounters;
pub use event::{
    AppendError, Appended, Body, LogEvent, LogFailure, Lookup, NO_PARTITION, NewEntry,
    PartitionBounds, Read, ReadId, RecoveryReport, Replayed,
};
pub use io::{Io, OpIds};

/// One lane's log on one replica. See the module's page.
pub struct Log {
    config: LogConfig,
    #[expect(dead_code, reason = "used by the segment headers")]
    random: Random,
    counters: LogCounters,
    events: VecDeque<LogEvent>,
}

impl Log {
    pub fn new(config: LogConfig, random: Random) -> Self {
        config.check();
        Self { config, random, counters: LogCounters::default(), events: VecDeque::new() }
    }

    /// Begins recovery. `LogEvent::Recovered` or `Failed` ends it.
    pub fn start<M: Memory>(&mut self, io: &mut Io<'_, M>) {
        let _ = (io, self.config.next_segment_bytes(None));
    }

    /// A disk order of this log (see [`OpIds::owner`]) is complete.
    pub fn on_disk<M: Memory>(&mut self, io: &mut Io<'_, M>, op: OpId, done: DiskDone) {
        let _ = (
            io.disk(0, crate::disk::DiskOrder::Space { directory: self.config.directory }),
            op,
            done,
        );
    }

    /// What was ready has been delivered: closes the commit under construction if the pipeline
    /// has room, and goes on with work that was put off.
    pub fn on_turn<M: Memory>(&mut self, _io: &mut Io<'_, M>) {}

    /// True if `on_turn` has something to do: ask for `Effect::Turn`.
    pub fn wants_turn(&self) -> bool {
        false
    }

    /// The deadline given by `next_deadline` may have passed. Cheap if it has not.
    pub fn on_wake<M: Memory>(&mut self, _io: &mut Io<'_, M>) {}

    pub fn next_deadline(&self) -> Option<Monotonic> {
        None
    }

    /// Appends an entry to the commit under construction, copying the body once. Needs an
    /// `on_turn` afterwards.
    ///
    /// # Errors
    /// Nothing was appended; the error says whether and when to try again.
    pub fn append<M: Memory>(
        &mut self,
        _io: &mut Io<'_, M>,
        _entry: NewEntry<'_>,
    ) -> Result<Appended, AppendError> {
        Err(AppendError::Recovering)
    }

    /// Reads whole entries of a partition from the one that holds `offset` on: about `bytes_max`
    /// bytes, at least one entry. Pieces are added to `pieces` only with `Read::Ready`.
    pub fn read<M: Memory>(
        &mut self,
        _io: &mut Io<'_, M>,
        _partition: PartitionId,
        _offset: Offset,
        _bytes_max: u32,
        _pieces: &mut Vec<Piece>,
    ) -> Read {
        Read::UnknownPartition
    }

    /// Gives up a waiting read: its event will not come.
    pub fn cancel_read<M: Memory>(&mut self, _io: &mut Io<'_, M>, _read: ReadId) {}

    /// From which offset on entries were appended at `time` (Unix ms) or later.
    pub fn offset_at_time<M: Memory>(
        &mut self,
        _io: &mut Io<'_, M>,
        _partition: PartitionId,
        _time: i64,
    ) -> Lookup {
        Lookup::UnknownPartition
    }

    /// Makes a partition known, or sets its retention. May be called at any time, also before
    /// recovery is over.
    pub fn open_partition(&mut self, _partition: PartitionId, _retention: Retention) {}

    /// The partition is deleted for good: its data goes with the segments that hold it.
    pub fn delete_partition(&mut self, _partition: PartitionId) {}

    pub fn partition(&self, _partition: PartitionId) -> Option<PartitionBounds> {
        None
    }

    /// Entries below this LSN that are not batches are no longer needed by the shard (a
    /// checkpoint that replaces them is durable). Until called, none may be dropped.
    pub fn set_needed_from(&mut self, _lsn: Lsn) {}

    /// Another log of the same data directory failed: this one takes nothing any more either.
    pub fn fail(&mut self) {
        self.events.push_back(LogEvent::Failed(LogFailure::Directory));
    }

    pub fn poll_event(&mut self) -> Option<LogEvent> {
        self.events.pop_front()
    }

    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    pub fn counters(&self) -> &LogCounters {
        &self.counters
    }

    /// Bytes of pool slots that the log holds now: commits, tail cache, reads.
    pub fn memory_bytes(&self) -> usize {
        0
    }

    /// The epoch of this life; 0 until recovery is over.
    pub fn epoch(&self) -> Epoch {
        Epoch(0)
    }

    /// The LSN that the next entry will get.
    pub fn next_lsn(&self) -> Lsn {
        Lsn(0)
    }

    /// Every LSN below this one is durable here.
    pub fn durable_end(&self) -> Lsn {
        Lsn(0)
    }

    /// Takes no more entries; makes what was appended durable, closes its files, then
    /// `LogEvent::Stopped`.
    pub fn stop<M: Memory>(&mut self, _io: &mut Io<'_, M>) {}
}
