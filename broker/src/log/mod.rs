//! A lane's log: append, group commit, roll, recovery, reads, retention, for all partitions of
//! the lane. Pure: it returns disk orders and is told of their completion.
//!
//! Invariants: nothing here opens a file or asks the time; a block that holds durable bytes is
//! never written again; a flush covers only writes whose completion had been reported before it
//! was ordered. The bytes on disk are described in `FORMAT.md` beside this file.
//!
//! Enter at [`Log`]. `append` and `commit` are the way in, `flush` the rule of durability, `roll`
//! and `prepare` the change of segments, `read` the way out, `recover` the way back.

mod append;
mod base;
mod cache;
mod commit;
mod config;
mod copy;
mod counters;
mod epochs;
mod event;
mod flush;
mod footer;
pub(crate) mod format;
mod io;
mod partitions;
mod prepare;
mod producers;
mod read;
mod recover;
mod replica;
mod retention;
mod roll;
mod scrub;
mod segment;
#[cfg(all(test, feature = "sim"))]
mod tests;

use std::collections::VecDeque;

use corelog_protocol::entry::{EntryHeader, EntryKind, LOCAL_PARTITION as LOG_ITSELF};
use corelog_protocol::ids::{Epoch, Lsn, Offset, PartitionId};
use corelog_protocol::produce::FormerStamp;

use crate::disk::{DiskDone, DiskOrder, OpId};
use crate::memory::{Memory, Piece};
use crate::planted::{Bug, is_planted};
use crate::random::Random;
use crate::replica::Position;
use crate::time::{Monotonic, Now};

pub use base::Base;
pub use config::{LogConfig, Retention};
pub use counters::LogCounters;
pub use event::{
    AppendError, Appended, Body, Copies, CopyError, LogEvent, LogFailure, Lookup, NO_PARTITION,
    NewEntry, PartitionBounds, Read, ReadId, RecoveryReport, Replayed, Resume,
};
pub use io::{Io, OpIds};
pub use producers::{Claim, Known, Verdict};

use cache::Cache;
use commit::{Building, SizeForecast};
use epochs::Epochs;
use flush::Pipeline;
use footer::FooterJob;
use partitions::Partitions;
use prepare::Preparer;
use producers::Producers;
use read::Reads;
use recover::{Recovered, Recovery};
use replica::Uncommitted;
use segment::{Active, Sealed, SparePoints};

/// What an order was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    CommitWrite(u64),
    CommitFlush(u64),
    Prepare,
    Footer,
    Retention,
    CloseSpare(u64),
    RemoveSpare,
    Recover,
    Read(ReadId),
    Close,
}

/// What must come before `LogEvent::Room` is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WaitingFor {
    /// No append was refused.
    Nothing,
    /// An append was refused as `Busy`: also that the disk is full must be told.
    Room,
    /// All that were refused were told that the disk is full.
    Space,
}

/// Where the log is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    New,
    /// Recovery, then the first segment of this life.
    Starting,
    /// Of a replica: recovered, and nothing is written until `resume`.
    Dormant,
    /// The first segment of this life is on its way.
    Resuming,
    Running,
    Stopping,
    /// Only closes are still in flight.
    Closing,
    Stopped,
}

/// One lane's log on one replica. See the module's page.
pub struct Log {
    config: LogConfig,
    random: Random,
    counters: LogCounters,
    events: VecDeque<LogEvent>,
    state: State,
    failure: Option<LogFailure>,
    /// Orders in flight: few, so a list.
    ops: Vec<(OpId, Purpose)>,

    next_lsn: Lsn,
    durable_end: Lsn,
    /// Of what is appended here.
    epoch: Epoch,
    epoch_started: bool,
    epochs: Epochs,

    /// Of a replica (`replica.rs`): the greatest epoch accepted.
    accepted: Epoch,
    mark: Option<Position>,
    /// An entry that was found to be damaged since.
    unreadable: Option<Lsn>,
    /// How the start goes on.
    resume: Option<Resume>,
    /// What the log begins with, instead of what is on the disk.
    base: Option<Box<Base>>,
    /// The first segment of this life voids all before it.
    begins_anew: bool,
    /// Every LSN below this one is on a quorum.
    committed: Lsn,
    /// Where recovery ended.
    recovered_end: Lsn,
    uncommitted: VecDeque<Uncommitted>,
    /// Partitions in which more is committed, and bytes of that, for readers of a follower once there are any.
    grown: Vec<(PartitionId, u32)>,
    is_watched: bool,

    /// Append times never fall, whatever the clock does.
    append_time: i64,
    partitions: Partitions,
    producers: Producers,
    /// Where partitions begin that are new in this life.
    offset_floor: Offset,

    building: Option<Building>,
    pipeline: Pipeline,
    cache: Cache,
    forecast: SizeForecast,
    /// An append was refused: say when there is room.
    waiting_for: WaitingFor,
    /// The active segment is full, and the next was not ready.
    needs_roll: bool,
    /// Data whose durability no commit header on disk attests yet.
    unattested: bool,
    idle_at: Option<Monotonic>,

    active: Option<Active>,
    sealed: VecDeque<Sealed>,
    spare_points: SparePoints,
    preparer: Preparer,
    sequence_next: u64,
    footer: Option<FooterJob>,
    retention: retention::Retention,
    retention_at: Option<Monotonic>,
    needed_from: Lsn,
    reads: Reads,
    scrub: scrub::Scrub,
    recovery: Option<Box<Recovery>>,
    recovered: bool,
    report: Option<RecoveryReport>,
}

impl Log {
    pub fn new(config: LogConfig, random: Random) -> Self {
        config.check();
        let producers = Producers::new(config.producers_max, config.producer_idle_ms_max);
        Self {
            config,
            producers,
            random,
            counters: LogCounters::default(),
            events: VecDeque::with_capacity(64),
            state: State::New,
            failure: None,
            ops: Vec::with_capacity(64),
            next_lsn: Lsn(0),
            durable_end: Lsn(0),
            epoch: Epoch(0),
            epoch_started: false,
            epochs: Epochs::default(),
            accepted: Epoch(0),
            mark: None,
            unreadable: None,
            resume: None,
            base: None,
            begins_anew: false,
            committed: Lsn(0),
            recovered_end: Lsn(0),
            uncommitted: VecDeque::new(),
            grown: Vec::new(),
            is_watched: false,
            append_time: i64::MIN,
            partitions: Partitions::default(),
            offset_floor: Offset(0),
            building: None,
            pipeline: Pipeline::new(),
            cache: Cache::default(),
            forecast: SizeForecast::new(),
            waiting_for: WaitingFor::Nothing,
            needs_roll: false,
            unattested: false,
            idle_at: None,
            active: None,
            sealed: VecDeque::new(),
            spare_points: SparePoints::default(),
            preparer: Preparer::new(),
            sequence_next: 0,
            footer: None,
            retention: retention::Retention::default(),
            retention_at: None,
            needed_from: Lsn(0),
            reads: Reads::default(),
            scrub: scrub::Scrub::default(),
            recovery: None,
            recovered: false,
            report: None,
        }
    }

    /// Begins recovery. `LogEvent::Recovered` or `Failed` ends it.
    pub fn start<M: Memory>(&mut self, io: &mut Io<'_, M>) {
        assert_eq!(self.state, State::New);
        self.state = State::Starting;
        self.start_recovery(io);
    }

    /// What recovery found; now the first segment of this life.
    fn on_recovered<M: Memory>(&mut self, io: &mut Io<'_, M>, recovered: Recovered) {
        self.recovered = true;
        self.next_lsn = recovered.next_lsn;
        self.durable_end = recovered.next_lsn;
        self.epoch = recovered.epoch;
        self.accepted = recovered.accepted;
        self.mark = recovered.mark;
        self.sequence_next = recovered.sequence_next;
        self.report = Some(recovered.report);
        self.retention_at = Some(io.now.monotonic + self.config.retention_every);
        if self.config.replicated {
            self.on_replica_recovered();
        } else {
            self.begin_preparation();
        }
    }

    /// Recovery is told as over when the own epoch has begun durably, or when the disk is too full
    /// for that to happen soon.
    fn announce_recovered(&mut self, writable: bool) {
        if let Some(mut report) = self.report.take() {
            report.writable = writable;
            self.state = State::Running;
            self.events.push_back(LogEvent::Recovered(report));
        }
    }

    /// A disk order of this log (see [`OpIds::owner`]) is complete.
    pub fn on_disk<M: Memory>(&mut self, io: &mut Io<'_, M>, op: OpId, done: DiskDone) {
        let Some(at) = self.ops.iter().position(|(ordered, _)| *ordered == op) else {
            unreachable!("{op:?} is not an order of this log");
        };
        let (_, purpose) = self.ops.swap_remove(at);
        let failed = matches!(done, DiskDone::Failed(_)) && !is_planted(Bug::WriteErrorIgnored);
        match purpose {
            Purpose::CommitWrite(_) if failed => self.fail_with(LogFailure::Write),
            Purpose::CommitFlush(_) if failed => self.fail_with(LogFailure::Flush),
            // Once failed, nothing is acknowledged any more, not even what was in flight.
            Purpose::CommitWrite(_) | Purpose::CommitFlush(_) if self.failure.is_some() => {}
            Purpose::CommitWrite(number) => {
                self.pipeline.on_write_done(number, io.now.monotonic);
                self.advance_durable(io);
            }
            Purpose::CommitFlush(flush) => {
                self.pipeline.on_flush_done(flush);
                self.advance_durable(io);
            }
            Purpose::Prepare => {
                let now = io.now.monotonic;
                let done = self.preparer.on_done(&self.config, &mut self.counters, now, &done);
                if let Err(failure) = done {
                    self.fail_with(failure);
                }
                // A replica promised nothing yet that it could not keep: it waits for space.
                if self.preparer.is_full() && !self.config.replicated {
                    self.announce_recovered(false);
                }
            }
            Purpose::Footer => self.on_footer_done(io, &done),
            Purpose::Retention => self.on_retention_done(io, &done),
            Purpose::CloseSpare(sequence) => {
                let (directory, lane) = (self.config.directory, self.config.lane);
                let place = format::name::preparation(directory, lane, sequence);
                self.order(io, Purpose::RemoveSpare, DiskOrder::Remove { place });
            }
            Purpose::RemoveSpare | Purpose::Close => {}
            Purpose::Recover => self.on_recovery_done(io, done),
            Purpose::Read(read) => self.on_read_done(io, read, &done),
        }
        self.advance(io);
    }

    /// What was ready has been delivered: closes the commit under construction if the pipeline
    /// has room.
    pub fn on_turn<M: Memory>(&mut self, io: &mut Io<'_, M>) {
        if self.wants_turn() {
            self.close_commit(io);
        }
        self.advance(io);
    }

    /// True if `on_turn` has something to do: ask for `Effect::Turn`.
    pub fn wants_turn(&self) -> bool {
        // At once when nothing is in flight, unless nobody waits; otherwise the flush under way is
        // time to gather.
        let gathered = self.building.as_ref().filter(|building| building.entry_count > 0);
        self.failure.is_none()
            && gathered.is_some_and(|building| {
                let is_patient = building.patient_until.is_some();
                let patient_bytes = if is_patient { self.config.patient_bytes } else { 0 };
                let gathers = building.len < self.gather_bytes_now().max(patient_bytes);
                match self.pipeline.is_empty() {
                    true => !(is_patient && gathers),
                    false => !gathers && self.has_pipeline_room(),
                }
            })
    }

    /// The deadline given by `next_deadline` may have passed. Cheap if it has not.
    pub fn on_wake<M: Memory>(&mut self, io: &mut Io<'_, M>) {
        self.advance(io);
    }

    /// When `on_wake` is due. Changes with every call of another method.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        if self.failure.is_some()
            || !matches!(self.state, State::Starting | State::Resuming | State::Running)
        {
            return None;
        }
        // Retention has something to look at only if there is more than the active segment.
        let is_looking = matches!(self.retention, retention::Retention::Idle);
        let retention_at = self.retention_at.filter(|_| is_looking && !self.sealed.is_empty());
        let patient_until = self.building.as_ref().and_then(|building| building.patient_until);
        let scrub_at = self.scrub_deadline().filter(|_| self.state == State::Running);
        let prepared_at = self.preparer.backoff_until();
        let deadlines = [self.idle_at, prepared_at, retention_at, patient_until, scrub_at];
        deadlines.into_iter().flatten().min()
    }

    /// Everything that may go on by itself, after whatever happened.
    fn advance<M: Memory>(&mut self, io: &mut Io<'_, M>) {
        if self.failure.is_none() && self.recovered {
            self.advance_patience(io.now.monotonic);
            self.advance_flush(io);
            self.advance_start(io);
            if !self.is_closing() {
                self.advance_preparer(io);
                // A footer would hide what a replica must go on to tell, until the header of its first segment does.
                if !self.config.replicated || self.state == State::Running {
                    self.advance_footer(io);
                    self.advance_retention(io);
                    self.advance_idle(io);
                    if self.state == State::Running {
                        self.advance_scrub(io);
                    }
                }
            }
        }
        if self.has_room() {
            self.waiting_for = WaitingFor::Nothing;
            self.events.push_back(LogEvent::Room);
        }
        self.advance_stop(io);
    }

    fn order<M: Memory>(&mut self, io: &mut Io<'_, M>, purpose: Purpose, order: DiskOrder) {
        let op = io.disk(self.config.owner, order);
        self.ops.push((op, purpose));
    }

    fn fail_with(&mut self, failure: LogFailure) {
        if self.failure.is_none() {
            self.failure = Some(failure);
            self.counters.failures += 1;
            self.events.push_back(LogEvent::Failed(failure));
        }
    }

    /// Makes a partition known, or sets its retention. May be called at any time, also before
    /// recovery is over.
    pub fn open_partition(&mut self, partition: PartitionId, retention: Retention) {
        assert_ne!(partition, LOG_ITSELF);
        let is_new = self.partitions.find(partition).is_none();
        let floor = self.offset_floor;
        let partition = self.partitions.ensure(partition);
        partition.retention = Some(retention);
        if is_new {
            partition.next_offset = floor;
            partition.committed_end = floor;
        }
    }

    /// The partition is deleted for good: its data goes with the segments that hold it.
    pub fn delete_partition(&mut self, partition: PartitionId) {
        if let Some(partition) = self.partitions.get_mut(partition) {
            partition.deleted = true;
        }
    }

    /// False until recovery is over, and for good if it failed: nothing is known of what the
    /// partitions hold, so reads are answered as failed.
    pub fn is_recovered(&self) -> bool {
        self.recovered
    }

    /// None also if the log failed before it was recovered.
    pub fn partition(&self, partition: PartitionId) -> Option<PartitionBounds> {
        self.partition_at(partition, 0).map(|(_, bounds)| bounds)
    }

    /// The same, and where it is in the list of partitions: without a search if that is `at`, as it was the last time.
    pub fn partition_at(&self, partition: PartitionId, at: u32) -> Option<(u32, PartitionBounds)> {
        if !self.recovered && self.failure.is_some() {
            return None;
        }
        let at = self.partitions.find_at(partition, at)?;
        let partition = &self.partitions.list[at as usize];
        (!partition.deleted).then(|| (at, partition.bounds()))
    }

    /// Every partition that the log knows, in no particular order.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionId, PartitionBounds)> {
        let known = self.partitions.list.iter().filter(|partition| !partition.deleted);
        known.map(|partition| (partition.id, partition.bounds()))
    }

    /// What is to become of a batch that names its producer: ask before each append. `sent_before`: the producer
    /// does not know what became of it.
    pub fn judge(&self, claim: &Claim, sent_before: bool) -> Verdict {
        self.producers.judge(claim, sent_before)
    }

    /// The same of a batch that was sent before under another stamp.
    pub fn judge_renewed(&self, claim: &Claim, former: FormerStamp) -> Verdict {
        self.producers.judge_renewed(claim, former)
    }

    /// Producers that are remembered.
    #[cfg(test)]
    pub fn producer_count(&self) -> usize {
        self.producers.len()
    }

    /// Entries below this LSN that the shard folds are no longer needed (a checkpoint that
    /// replaces them is durable). Until called, none may be dropped.
    pub fn set_needed_from(&mut self, lsn: Lsn) {
        self.needed_from = self.needed_from.max(lsn);
    }

    /// Another log of the same data directory failed: this one takes nothing any more either.
    pub fn fail(&mut self) {
        self.fail_with(LogFailure::Directory);
    }

    pub fn failure(&self) -> Option<LogFailure> {
        self.failure
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
        let building = self.building.as_ref().map_or(0, |building| building.capacity);
        self.cache.bytes() + building + self.reads.memory_bytes()
    }

    /// Segments on disk, with the active one.
    pub fn segment_count(&self) -> usize {
        self.sealed.len() + usize::from(self.active.is_some())
    }

    /// The epoch of this life; 0 until recovery is over.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The LSN that the next entry will get.
    pub fn next_lsn(&self) -> Lsn {
        self.next_lsn
    }

    /// The first entry of the commit that is being gathered, if one is.
    pub fn building_first_lsn(&self) -> Option<Lsn> {
        self.building.as_ref().filter(|building| building.entry_count > 0).map(|b| b.first_lsn)
    }

    /// Every LSN below this one is durable here.
    pub fn durable_end(&self) -> Lsn {
        self.durable_end
    }

    /// Takes no more entries; makes what was appended durable, closes its files, then
    /// `LogEvent::Stopped`.
    pub fn stop<M: Memory>(&mut self, io: &mut Io<'_, M>) {
        if !self.is_closing() {
            self.state = State::Stopping;
        }
        self.advance(io);
    }

    fn is_closing(&self) -> bool {
        matches!(self.state, State::Stopping | State::Closing | State::Stopped)
    }

    fn advance_stop<M: Memory>(&mut self, io: &mut Io<'_, M>) {
        if self.state == State::Stopping {
            let is_well = self.failure.is_none() && self.recovered && self.active.is_some();
            if is_well {
                let has_entries =
                    self.building.as_ref().is_some_and(|building| building.entry_count > 0);
                if has_entries && self.has_pipeline_room() {
                    self.close_commit(io);
                }
                if self.building.is_none() && self.pipeline.is_empty() && self.unattested {
                    self.write_padding(io);
                }
                let has_entries =
                    self.building.as_ref().is_some_and(|building| building.entry_count > 0);
                if has_entries || !self.pipeline.is_empty() {
                    return;
                }
            }
            if !self.ops.is_empty() {
                return;
            }
            self.state = State::Closing;
            self.close_files(io);
        }
        if self.state == State::Closing && self.ops.is_empty() {
            self.state = State::Stopped;
            self.events.push_back(LogEvent::Stopped);
        }
    }

    fn close_files<M: Memory>(&mut self, io: &mut Io<'_, M>) {
        if let Some(building) = self.building.take() {
            io.memory.release(building.slot);
        }
        self.cache.clear(io.memory);
        for partition in &mut self.partitions.list {
            partition.cached.clear();
        }
        let mut files = Vec::new();
        if let Some(recovery) = self.recovery.take() {
            files.extend(recovery.abandon(io.memory));
        } else {
            files.extend(self.sealed.drain(..).map(|sealed| sealed.file));
        }
        files.extend(self.active.take().map(|active| active.file));
        files.extend(self.preparer.take_files());
        for file in files {
            self.order(io, Purpose::Close, DiskOrder::Close { file });
        }
    }
}

/// An entry that says nothing to the log: what it means is the shard's, to which it is replayed.
fn is_folded_by_shard(header: &EntryHeader) -> bool {
    !header.is_local()
        && !matches!(header.kind, EntryKind::Batch | EntryKind::EpochStart | EntryKind::LogStart)
}

/// The append time of an entry: the wall clock, but never before the entry before.
fn append_time(last: i64, now: Now) -> i64 {
    last.max(now.wall.0)
}

/// A piece of a slot that the caller now owns a reference of.
fn hand_out<M: Memory>(memory: &mut M, piece: Piece, pieces: &mut Vec<Piece>) {
    memory.retain(piece.slot);
    pieces.push(piece);
}
