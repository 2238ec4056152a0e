//! The way out: from the tail cache at once, else from the disk in bounded pieces. What comes from
//! the disk is served only if it is what was asked for: intact header of this lane, the LSN that
//! follows the one before, the partition, and an intact body.
//!
//! One read stays in one segment. It walks entries from the point that the index names; behind a
//! damaged header it goes on at the next commit of the segment.

mod copies;
mod large;
mod scan;
mod seek;
mod walk;

use std::rc::Rc;

use corelog_protocol::ids::{Offset, PartitionId};

use super::event::{LogEvent, Lookup, Read, ReadId};
use super::format::footer::{self, IndexPoint, SegmentIndex};
use super::format::{COMMITS_START, blocks};
use super::segment::Place;
use super::{Io, Log, LogConfig, Purpose, hand_out};
use crate::disk::{DiskDone, DiskOrder, FileId};
use crate::limits::BLOCK_BYTES;
use crate::memory::{Memory, Piece, Slot};
use crate::planted::{Bug, is_planted};
use copies::Copying;
use walk::{Progress, Walk};

/// Reads of one log that may wait for its disk.
const READS_MAX: usize = 64;
/// One step checks at most this much, unless a single entry is larger: 25 µs of CRC.
const PIECE_BYTES: u64 = 256 << 10;
/// The largest single read; larger entries are put together from several.
const READ_BYTES_MAX: u64 = 1 << 20;
/// Indexes of sealed segments that stay in memory after a read asked for them.
const INDEXES_MAX: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Records { bytes_max: u32 },
    Time { time: i64 },
}

/// A read that waits for the disk.
#[derive(Debug)]
struct Job {
    id: ReadId,
    kind: Kind,
    partition: PartitionId,
    sequence: u64,
    file: FileId,
    /// True until the footer of the segment is read.
    needs_index: bool,
    /// Where the partition ends in this segment, as far as it may be served.
    end_offset: Offset,
    walk: Walk,
    slot: Slot,
    slot_bytes: u64,
    piece: (u64, u64),
    pieces: Vec<Piece>,
    retried: bool,
    cancelled: bool,
}

#[derive(Debug, Default)]
pub(super) struct Reads {
    jobs: Vec<Job>,
    issued: u64,
    /// A read was refused because too many waited: say when one of them is over.
    has_refused: bool,
    /// Sequences of sealed segments whose index was loaded, oldest first.
    loaded: Vec<u64>,
    copies: Copying,
}

impl Reads {
    pub fn is_reading(&self, sequence: u64) -> bool {
        self.jobs.iter().any(|job| job.sequence == sequence) || self.copies.is_reading(sequence)
    }

    pub fn memory_bytes(&self) -> usize {
        let jobs = self.jobs.iter().map(|job| job.slot_bytes as usize + job.walk.held_bytes());
        jobs.sum::<usize>() + self.copies.memory_bytes()
    }

    /// A number for one more, if not too many wait already.
    fn admit(&mut self, config: &LogConfig) -> Option<ReadId> {
        let reads_max = (config.read_bytes_max / PIECE_BYTES as usize).clamp(1, READS_MAX);
        if self.jobs.len() + self.copies.len() >= reads_max {
            self.has_refused = true;
            return None;
        }
        self.issued += 1;
        Some(ReadId(self.issued))
    }
}

/// Where an offset is on disk.
enum Located {
    Segment {
        sequence: u64,
        file: FileId,
        nonce: u64,
        end_position: u64,
        end_offset: Offset,
    },
    /// Nowhere: lost, up to this offset.
    Lost {
        to: Offset,
    },
}

impl Log {
    /// Reads whole entries of a partition from the one that holds `offset` on: about `bytes_max`
    /// bytes, at least one entry. Pieces are added to `pieces` only with `Read::Ready`. The partition is perhaps at
    /// `partition_at`, see [`Self::partition_at`].
    pub fn read<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        (partition, partition_at): (PartitionId, u32),
        offset: Offset,
        bytes_max: u32,
        pieces: &mut Vec<Piece>,
    ) -> Read {
        if !self.is_recovered() {
            return Read::Failed;
        }
        let at = self.partitions.find_at(partition, partition_at);
        let Some(at) = at else { return Read::UnknownPartition };
        let state = &self.partitions.list[at as usize];
        if state.deleted {
            return Read::UnknownPartition;
        }
        let served_end = if is_planted(Bug::UncommittedServed) {
            state.next_offset
        } else {
            state.committed_end
        };
        if offset < state.log_start || offset > state.next_offset {
            let (log_start, committed_end) = (state.log_start, state.committed_end);
            return Read::OutOfRange { log_start, committed_end };
        }
        // Also beyond it: a follower may have shown what is committed and not flushed here.
        if offset >= served_end {
            return Read::AtEnd;
        }
        if state.cached.front().is_some_and(|oldest| oldest.base <= offset) {
            let bytes = self.read_cached(io, at, offset, served_end, bytes_max, pieces);
            if bytes > 0 {
                self.counters.reads_cached += 1;
                return Read::Ready { bytes };
            }
            return Read::AtEnd;
        }
        if self.is_closing() {
            // The files are closed: nothing can be said of what they hold.
            return Read::Failed;
        }
        match self.locate(at, offset) {
            Located::Lost { to } => {
                self.counters.reads_corrupt += 1;
                Read::Corrupt { from: offset, to }
            }
            located => {
                match self.start_read(io, partition, offset, Kind::Records { bytes_max }, located) {
                    Some(id) => Read::Waiting(id),
                    None => Read::Busy,
                }
            }
        }
    }

    fn read_cached<M: Memory>(
        &self,
        io: &mut Io<'_, M>,
        at: u32,
        offset: Offset,
        end: Offset,
        bytes_max: u32,
        pieces: &mut Vec<Piece>,
    ) -> u32 {
        let cached = &self.partitions.list[at as usize].cached;
        let first = cached.partition_point(|entry| entry.next <= offset);
        let mut bytes = 0;
        let mut run: Option<Piece> = None;
        for entry in cached.range(first..) {
            let is_enough = bytes > 0 && bytes + entry.len > bytes_max;
            let Some(commit) = self.cache.get(entry.commit) else { break };
            if entry.next > end || is_enough {
                break;
            }
            bytes += entry.len;
            match &mut run {
                // Neighbours in the same commit travel as one piece.
                Some(piece)
                    if piece.slot == commit.slot && piece.start + piece.len == entry.start =>
                {
                    piece.len += entry.len;
                }
                _ => {
                    if let Some(piece) = run.take() {
                        hand_out(io.memory, piece, pieces);
                    }
                    run = Some(Piece { slot: commit.slot, start: entry.start, len: entry.len });
                }
            }
        }
        if let Some(piece) = run {
            hand_out(io.memory, piece, pieces);
        }
        bytes
    }

    /// The segment that holds an offset which is not cached.
    fn locate(&self, at: u32, offset: Offset) -> Located {
        let state = &self.partitions.list[at as usize];
        let committed_end = state.committed_end;
        let mut lost_to = committed_end;
        // Consumers are mostly near the end: newest first.
        if let Some(active) = &self.active
            && let Some(part) = active.in_active(state)
        {
            if part.first_offset <= offset.0 {
                return Located::Segment {
                    sequence: active.sequence,
                    file: active.file,
                    nonce: active.nonce,
                    end_position: active.durable_position,
                    end_offset: committed_end,
                };
            }
            lost_to = lost_to.min(Offset(part.first_offset));
        }
        for sealed in self.sealed.iter().rev() {
            let Some(part) = sealed.find(state.id) else { continue };
            if part.first <= offset.0 && offset.0 < part.next {
                return Located::Segment {
                    sequence: sealed.sequence,
                    file: sealed.file,
                    nonce: sealed.nonce,
                    end_position: sealed.commits_end,
                    end_offset: Offset(part.next).min(committed_end),
                };
            }
            if part.next <= offset.0 {
                break;
            }
            lost_to = lost_to.min(Offset(part.first));
        }
        Located::Lost { to: lost_to }
    }

    fn start_read<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        partition: PartitionId,
        offset: Offset,
        kind: Kind,
        located: Located,
    ) -> Option<ReadId> {
        let Located::Segment { sequence, file, nonce, end_position, end_offset } = located else {
            return None;
        };
        let id = self.reads.admit(&self.config)?;
        self.counters.reads_cold += 1;
        let slot = io.memory.allocate(BLOCK_BYTES);
        let slot_bytes = io.memory.capacity(slot) as u64;
        let range = (offset, end_offset);
        let walk = Walk::new(self.config.lane, nonce, partition, range, end_position, kind);
        self.reads.jobs.push(Job {
            id,
            kind,
            partition,
            sequence,
            file,
            needs_index: true,
            end_offset,
            walk,
            slot,
            slot_bytes,
            piece: (0, 0),
            pieces: Vec::new(),
            retried: false,
            cancelled: false,
        });
        let at = self.reads.jobs.len() - 1;
        self.begin_walk(io, at);
        Some(id)
    }

    /// Finds the point to walk from, reading the footer first if memory does not hold it.
    fn begin_walk<M: Memory>(&mut self, io: &mut Io<'_, M>, at: usize) {
        let job = &self.reads.jobs[at];
        let (sequence, partition, kind) = (job.sequence, job.partition, job.kind);
        let offset = job.walk.wanted();
        let is_before = |point: &IndexPoint| match kind {
            Kind::Records { .. } => point.offset <= offset.0,
            Kind::Time { time } => point.time < time,
        };
        let is_active = self.active.as_ref().filter(|active| active.sequence == sequence);
        let point = if let Some(active) = is_active {
            let state = self.partitions.get(partition);
            let part = state.and_then(|state| active.in_active(state));
            part.and_then(|part| active.find_point(&part, is_before))
        } else {
            let Some(sealed) = self.sealed.iter().find(|sealed| sealed.sequence == sequence) else {
                unreachable!("a segment that is read stays");
            };
            match (&sealed.index, &sealed.place) {
                (Some(index), _) => point_in(index, partition, is_before),
                (None, Place::Footer(trailer)) => {
                    let (position, bytes) = (trailer.image_position, blocks(trailer.image_bytes));
                    self.order_read_piece(io, at, position, bytes);
                    return;
                }
                (None, _) => unreachable!("an index without a footer stays in memory"),
            }
        };
        let job = &mut self.reads.jobs[at];
        job.needs_index = false;
        match point {
            Some(point) => job.walk.start_at(point),
            // No point, though the segment holds the partition: from the first commit on.
            None => job.walk.seek_from(COMMITS_START),
        }
        self.order_next_piece(io, at);
    }

    fn order_next_piece<M: Memory>(&mut self, io: &mut Io<'_, M>, at: usize) {
        let walk = &self.reads.jobs[at].walk;
        let (position, least) = walk.wants();
        let end = blocks(walk.end_position());
        let bytes = least.clamp(PIECE_BYTES, READ_BYTES_MAX).min(end - position);
        self.order_read_piece(io, at, position, bytes);
    }

    fn order_read_piece<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        at: usize,
        position: u64,
        bytes: u64,
    ) {
        let job = &mut self.reads.jobs[at];
        if job.slot_bytes < bytes {
            io.memory.release(job.slot);
            job.slot = io.memory.allocate(bytes as usize);
            job.slot_bytes = io.memory.capacity(job.slot) as u64;
        }
        job.piece = (position, bytes);
        let (id, file, slot) = (job.id, job.file, job.slot);
        self.counters.reads_cold_bytes += bytes;
        let order = DiskOrder::Read { file, position, slot, len: bytes as u32 };
        self.order(io, Purpose::Read(id), order);
    }

    pub(super) fn on_read_done<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        read: ReadId,
        done: &DiskDone,
    ) {
        let Some(at) = self.reads.jobs.iter().position(|job| job.id == read) else {
            return self.on_copies_read(io, read, done);
        };
        let job = &mut self.reads.jobs[at];
        let (position, bytes) = job.piece;
        if job.cancelled || self.state == super::State::Stopping {
            return self.finish_read(io, at, Read::Failed);
        }
        if matches!(done, DiskDone::Failed(_)) {
            if job.retried {
                return self.finish_read(io, at, Read::Failed);
            }
            job.retried = true;
            return self.order_read_piece(io, at, position, bytes);
        }
        job.retried = false;
        if job.needs_index {
            return self.on_index_read(io, at);
        }
        match job.walk.feed(io.memory, (job.slot, position, bytes), &mut job.pieces) {
            Progress::More => self.order_next_piece(io, at),
            Progress::Ready => {
                let bytes = job.pieces.iter().map(|piece| piece.len).sum();
                self.finish_read(io, at, Read::Ready { bytes });
            }
            Progress::Lost { to } => {
                let (from, end) = (job.walk.wanted(), job.end_offset);
                let to = to.map_or(end, |to| to.min(end));
                let sequence = job.sequence;
                self.search_damage(sequence);
                self.finish_read(io, at, Read::Corrupt { from, to });
            }
            Progress::Time(offset) => {
                self.finish_read(io, at, Read::Corrupt { from: offset, to: offset });
            }
        }
    }

    fn on_index_read<M: Memory>(&mut self, io: &mut Io<'_, M>, at: usize) {
        let job = &self.reads.jobs[at];
        let (sequence, slot) = (job.sequence, job.slot);
        let (from, to) = (job.walk.wanted(), job.end_offset);
        let Some(sealed) = self.sealed.iter_mut().find(|sealed| sealed.sequence == sequence) else {
            unreachable!("a segment that is read stays");
        };
        if let Place::Footer(trailer) = &sealed.place {
            let image = &io.memory.bytes(slot)[..trailer.image_bytes as usize];
            sealed.index = footer::decode(trailer, image, sealed.file_bytes).map(Rc::new);
        }
        if sealed.index.is_none() {
            // Damaged since it was written. Without an index, from the first commit on.
            self.counters.footers_unreadable += 1;
            let job = &mut self.reads.jobs[at];
            job.needs_index = false;
            job.walk.seek_from(COMMITS_START);
            assert!(from < to);
            return self.order_next_piece(io, at);
        }
        self.on_index_loaded(sequence);
        self.begin_walk(io, at);
    }

    /// Of the indexes that were loaded, the latest few stay.
    fn on_index_loaded(&mut self, sequence: u64) {
        self.reads.loaded.retain(|loaded| *loaded != sequence);
        self.reads.loaded.push(sequence);
        if self.reads.loaded.len() > INDEXES_MAX {
            let oldest = self.reads.loaded.remove(0);
            let oldest = self.sealed.iter_mut().find(|sealed| sealed.sequence == oldest);
            if let Some(sealed) = oldest.filter(|sealed| matches!(sealed.place, Place::Footer(_))) {
                sealed.index = None;
            }
        }
    }

    fn finish_read<M: Memory>(&mut self, io: &mut Io<'_, M>, at: usize, answer: Read) {
        let mut job = self.reads.jobs.swap_remove(at);
        // Also if this one was cancelled: nothing else may ever come for those that were refused.
        if std::mem::take(&mut self.reads.has_refused) {
            self.events.push_back(LogEvent::ReadRoom);
        }
        io.memory.release(job.slot);
        job.walk.release(io.memory);
        if job.cancelled {
            for piece in job.pieces.drain(..) {
                io.memory.release(piece.slot);
            }
            return;
        }
        let read = job.id;
        if let Kind::Time { .. } = job.kind {
            let answer = match answer {
                // What is damaged may be what was asked for: the consumer will be told there.
                Read::Corrupt { from, .. } => Lookup::Found(Some(from)),
                _ => Lookup::Failed,
            };
            self.events.push_back(LogEvent::LookupDone { read, answer });
            return;
        }
        if let Read::Corrupt { .. } = answer {
            self.counters.reads_corrupt += 1;
        }
        self.events.push_back(LogEvent::ReadDone { read, answer, pieces: job.pieces });
    }

    /// Gives up a waiting read: its event will not come.
    pub fn cancel_read<M: Memory>(&mut self, _io: &mut Io<'_, M>, read: ReadId) {
        if let Some(job) = self.reads.jobs.iter_mut().find(|job| job.id == read) {
            job.cancelled = true;
        }
        self.reads.copies.cancel(read);
    }

    /// From which offset on entries were appended at `time` (Unix ms) or later.
    pub fn offset_at_time<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        partition: PartitionId,
        time: i64,
    ) -> Lookup {
        if !self.is_recovered() || self.is_closing() {
            return Lookup::Failed;
        }
        let Some(at) = self.partitions.find(partition) else { return Lookup::UnknownPartition };
        let state = &self.partitions.list[at as usize];
        if state.deleted {
            return Lookup::UnknownPartition;
        }
        let (start, end) = (state.log_start, state.committed_end);
        // The oldest segment whose latest entry is late enough holds the first such entry.
        let part = self.sealed.iter().find_map(|sealed| {
            let part = sealed.find(partition)?;
            (part.time_max >= time && part.next > start.0).then_some(Offset(part.first))
        });
        let first = part.or_else(|| {
            let active = self.active.as_ref()?;
            let part = active.in_active(state)?;
            (part.time_max >= time).then_some(Offset(part.first_offset))
        });
        let Some(first) = first else { return Lookup::Found(None) };
        let first = first.max(start);
        if let Some(oldest) = state.cached.front()
            && (oldest.time < time || oldest.base <= first)
        {
            let found = state.cached.partition_point(|entry| entry.time < time);
            let found = state.cached.get(found).filter(|entry| entry.base < end);
            return Lookup::Found(found.map(|entry| entry.base));
        }
        if first >= end {
            return Lookup::Found(None);
        }
        match self.locate(at, first) {
            Located::Lost { .. } => Lookup::Found(Some(first)),
            located => match self.start_read(io, partition, first, Kind::Time { time }, located) {
                Some(id) => Lookup::Waiting(id),
                None => Lookup::Busy,
            },
        }
    }
}

fn point_in(
    index: &SegmentIndex,
    partition: PartitionId,
    is_before: impl Fn(&IndexPoint) -> bool,
) -> Option<IndexPoint> {
    let points = index.points_of(index.find(partition.0)?);
    let after = points.partition_point(is_before);
    points.get(after.saturating_sub(1)).copied()
}
