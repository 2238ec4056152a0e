//! Entries for a follower: all of the lane, in the order of LSNs. From the tail cache, where a commit is one piece, also
//! one that is written and not durable yet; else from the disk.

use std::rc::Rc;

use corelog_protocol::entry::EntryHeader;
use corelog_protocol::ids::Lsn;

use super::scan::{Scan, Scanned};
use super::{PIECE_BYTES, READ_BYTES_MAX};
use crate::disk::{DiskDone, DiskOrder, FileId};
use crate::limits::BLOCK_BYTES;
use crate::log::cache::CachedCommit;
use crate::log::event::{Copies, LogEvent, ReadId};
use crate::log::format::commit_header::COMMIT_HEADER_BYTES;
use crate::log::format::footer::{self, SegmentIndex};
use crate::log::format::{COMMITS_START, blocks};
use crate::log::segment::Place;
use crate::log::{Io, Log, Purpose, State, hand_out};
use crate::memory::{Memory, Piece, Slot};

/// One for each follower that is far behind.
const CURSORS_MAX: usize = 4;

/// Where a read ended: the next of the same reader begins there.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    sequence: u64,
    position: u64,
    lsn: Lsn,
}

/// A read of copies that waits for the disk.
#[derive(Debug)]
struct Job {
    id: ReadId,
    sequence: u64,
    file: FileId,
    first_lsn: Lsn,
    /// True until it is known where to begin.
    needs_index: bool,
    scan: Scan,
    slot: Slot,
    slot_bytes: u64,
    piece: (u64, u64),
    pieces: Vec<Piece>,
    retried: bool,
    cancelled: bool,
}

#[derive(Debug, Default)]
pub(super) struct Copying {
    jobs: Vec<Job>,
    /// The latest last.
    cursors: Vec<Cursor>,
}

impl Copying {
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    pub fn is_reading(&self, sequence: u64) -> bool {
        self.jobs.iter().any(|job| job.sequence == sequence)
    }

    pub fn memory_bytes(&self) -> usize {
        self.jobs.iter().map(|job| job.slot_bytes as usize + job.scan.held_bytes()).sum()
    }

    pub fn cancel(&mut self, read: ReadId) {
        if let Some(job) = self.jobs.iter_mut().find(|job| job.id == read) {
            job.cancelled = true;
        }
    }
}

/// A segment that has an entry, and how far it may be read.
struct Holder {
    sequence: u64,
    file: FileId,
    nonce: u64,
    first_lsn: Lsn,
    end_lsn: Lsn,
    end_position: u64,
}

impl Log {
    /// Reads entries for a follower, from the one with LSN `from` on: about `bytes_max` bytes, at least one entry, all
    /// that commits have, durable or not. Pieces are added to `pieces` only with `Copies::Ready`.
    pub fn read_copies<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        from: Lsn,
        bytes_max: u32,
        pieces: &mut Vec<Piece>,
    ) -> Copies {
        if !self.is_recovered() || self.is_closing() {
            return Copies::Failed;
        }
        if from >= self.building_first_lsn().unwrap_or(self.next_lsn) {
            return Copies::AtEnd;
        }
        if let Some(commits) = self.cache.from(from) {
            self.counters.reads_cached += 1;
            return from_cache(io, commits, from, bytes_max, pieces);
        }
        match self.holder_of(from) {
            Ok(holder) => match self.start_copies(io, &holder, from, bytes_max) {
                Some(id) => Copies::Waiting(id),
                None => Copies::Busy,
            },
            Err(answer) => answer,
        }
    }

    /// Reads the checkpoint that the log begins with, for a follower that is further behind than that. The answer
    /// comes as that of [`Self::read_copies`] does: one entry, and `from` and `end` are where the log begins.
    pub fn read_base<M: Memory>(&mut self, io: &mut Io<'_, M>) -> Copies {
        if !self.is_recovered() || self.is_closing() {
            return Copies::Failed;
        }
        let sealed = self.sealed.iter().find(|it| it.end_lsn > it.first_lsn);
        let sealed =
            sealed.map(|it| (it.sequence, it.file, it.nonce, it.first_lsn, it.commits_end));
        let active = self.active.as_ref();
        let active =
            active.map(|it| (it.sequence, it.file, it.nonce, it.first_lsn, it.durable_position));
        let Some((sequence, file, nonce, first_lsn, end)) = sealed.or(active) else {
            return Copies::AtEnd;
        };
        if end == COMMITS_START {
            return Copies::Busy;
        }
        let scan = Scan::of_base(self.config.lane, nonce, first_lsn, end);
        let Some(at) = self.add_copies(io, (sequence, file, first_lsn), scan) else {
            return Copies::Busy;
        };
        let id = self.reads.copies.jobs[at].id;
        self.scan_from(io, at, None);
        Copies::Waiting(id)
    }

    fn holder_of(&self, lsn: Lsn) -> Result<Holder, Copies> {
        let mut holders = self.sealed.iter().filter(|it| it.end_lsn > it.first_lsn);
        let first = holders.clone().next().map(|oldest| oldest.first_lsn);
        let active = self.active.as_ref();
        let first = first.or(active.map(|active| active.first_lsn)).unwrap_or(self.next_lsn);
        if lsn < first {
            return Err(Copies::Gone { first });
        }
        if let Some(sealed) = holders.find(|sealed| sealed.end_lsn > lsn) {
            // What a segment lacks at its beginning is lost.
            return match sealed.first_lsn <= lsn {
                true => Ok(Holder {
                    sequence: sealed.sequence,
                    file: sealed.file,
                    nonce: sealed.nonce,
                    first_lsn: sealed.first_lsn,
                    end_lsn: sealed.end_lsn.min(self.durable_end),
                    end_position: sealed.commits_end,
                }),
                false => Err(Copies::Unreadable { lsn }),
            };
        }
        let active = active.filter(|active| active.first_lsn <= lsn && lsn < self.durable_end);
        let active = active.ok_or(Copies::Unreadable { lsn })?;
        Ok(Holder {
            sequence: active.sequence,
            file: active.file,
            nonce: active.nonce,
            first_lsn: active.first_lsn,
            end_lsn: self.durable_end,
            end_position: active.durable_position,
        })
    }

    /// Reads entries of a sealed segment from the disk, also those that are cached. `None`: too many wait.
    pub(in crate::log) fn read_sealed<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        from: Lsn,
        bytes_max: u32,
    ) -> Option<ReadId> {
        let holder = self.holder_of(from).ok()?;
        self.start_copies(io, &holder, from, bytes_max)
    }

    fn start_copies<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        holder: &Holder,
        from: Lsn,
        bytes_max: u32,
    ) -> Option<ReadId> {
        let Holder { sequence, file, nonce, first_lsn, end_lsn, end_position } = *holder;
        let range = (from, end_lsn);
        let scan = Scan::new(self.config.lane, nonce, range, end_position, bytes_max);
        let at = self.add_copies(io, (sequence, file, first_lsn), scan)?;
        let id = self.reads.copies.jobs[at].id;
        self.begin_scan(io, at);
        Some(id)
    }

    /// Another read, if not too many wait already.
    fn add_copies<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        (sequence, file, first_lsn): (u64, FileId, Lsn),
        scan: Scan,
    ) -> Option<usize> {
        let id = self.reads.admit(&self.config)?;
        self.counters.reads_cold += 1;
        let slot = io.memory.allocate(BLOCK_BYTES);
        let slot_bytes = io.memory.capacity(slot) as u64;
        self.reads.copies.jobs.push(Job {
            id,
            sequence,
            file,
            first_lsn,
            needs_index: true,
            scan,
            slot,
            slot_bytes,
            piece: (0, 0),
            pieces: Vec::new(),
            retried: false,
            cancelled: false,
        });
        Some(self.reads.copies.jobs.len() - 1)
    }

    /// Finds where to begin, reading the footer first if memory does not hold it.
    fn begin_scan<M: Memory>(&mut self, io: &mut Io<'_, M>, at: usize) {
        let job = &self.reads.copies.jobs[at];
        let (sequence, from) = (job.sequence, job.scan.from());
        let cursors = self.reads.copies.cursors.iter();
        let cursor = cursors.rev().find(|it| it.sequence == sequence && it.lsn == from);
        let active = self.active.as_ref().filter(|active| active.sequence == sequence);
        let place = if let Some(cursor) = cursor {
            Some((cursor.position, cursor.lsn))
        } else if let Some(active) = active {
            active.point_before(from).map(|point| (point.position, Lsn(point.lsn)))
        } else {
            let Some(sealed) = self.sealed.iter().find(|sealed| sealed.sequence == sequence) else {
                unreachable!("a segment that is read stays");
            };
            match (&sealed.index, &sealed.place) {
                (Some(index), _) => place_in(index, from),
                (None, Place::Footer(trailer)) => {
                    let (position, bytes) = (trailer.image_position, blocks(trailer.image_bytes));
                    return self.order_copies_piece(io, at, position, bytes);
                }
                (None, _) => unreachable!("an index without a footer stays in memory"),
            }
        };
        self.scan_from(io, at, place);
    }

    fn scan_from<M: Memory>(&mut self, io: &mut Io<'_, M>, at: usize, place: Option<(u64, Lsn)>) {
        let job = &mut self.reads.copies.jobs[at];
        job.needs_index = false;
        match place {
            Some((position, lsn)) => job.scan.start_at(position, lsn),
            None => job.scan.seek_from(COMMITS_START, job.first_lsn),
        }
        self.order_next_copies(io, at);
    }

    fn order_next_copies<M: Memory>(&mut self, io: &mut Io<'_, M>, at: usize) {
        let scan = &self.reads.copies.jobs[at].scan;
        let (position, least) = scan.wants();
        let end = blocks(scan.end_position());
        let bytes = least.clamp(PIECE_BYTES, READ_BYTES_MAX).min(end - position);
        self.order_copies_piece(io, at, position, bytes);
    }

    fn order_copies_piece<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        at: usize,
        position: u64,
        bytes: u64,
    ) {
        let job = &mut self.reads.copies.jobs[at];
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

    pub(super) fn on_copies_read<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        read: ReadId,
        done: &DiskDone,
    ) {
        let Some(at) = self.reads.copies.jobs.iter().position(|job| job.id == read) else { return };
        let job = &mut self.reads.copies.jobs[at];
        let (position, bytes) = job.piece;
        if job.cancelled || self.state == State::Stopping {
            return self.finish_copies(io, at, Copies::Failed);
        }
        if matches!(done, DiskDone::Failed(_)) {
            if !std::mem::replace(&mut job.retried, true) {
                return self.order_copies_piece(io, at, position, bytes);
            }
            if job.needs_index {
                job.retried = false;
                return self.scan_from(io, at, None);
            }
            let lsn = job.scan.next_lsn().max(job.scan.from());
            return self.finish_copies(io, at, Copies::Unreadable { lsn });
        }
        job.retried = false;
        if job.needs_index {
            return self.on_copies_index(io, at);
        }
        match job.scan.feed(io.memory, (job.slot, position, bytes), &mut job.pieces) {
            Scanned::More => self.order_next_copies(io, at),
            Scanned::Unreadable(lsn) => self.finish_copies(io, at, Copies::Unreadable { lsn }),
            Scanned::Ready => {
                let (sequence, position, lsn) =
                    (job.sequence, job.scan.position(), job.scan.next_lsn());
                let end_position = job.scan.end_position();
                let (from, bytes) = (job.scan.from(), job.pieces.iter().map(|it| it.len).sum());
                let cursors = &mut self.reads.copies.cursors;
                cursors.retain(|cursor| cursor.sequence != sequence || cursor.lsn != from);
                // At the end there is nothing to read. If something should be there, its header is damaged.
                if position < end_position {
                    if cursors.len() == CURSORS_MAX {
                        cursors.remove(0);
                    }
                    cursors.push(Cursor { sequence, position, lsn });
                }
                self.finish_copies(io, at, Copies::Ready { end: lsn, bytes });
            }
        }
    }

    fn on_copies_index<M: Memory>(&mut self, io: &mut Io<'_, M>, at: usize) {
        let job = &self.reads.copies.jobs[at];
        let (sequence, slot) = (job.sequence, job.slot);
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
            return self.scan_from(io, at, None);
        }
        self.on_index_loaded(sequence);
        self.begin_scan(io, at);
    }

    fn finish_copies<M: Memory>(&mut self, io: &mut Io<'_, M>, at: usize, answer: Copies) {
        let mut job = self.reads.copies.jobs.swap_remove(at);
        if std::mem::take(&mut self.reads.has_refused) {
            self.events.push_back(LogEvent::ReadRoom);
        }
        io.memory.release(job.slot);
        job.scan.release(io.memory);
        if job.cancelled || !matches!(answer, Copies::Ready { .. }) {
            for piece in job.pieces.drain(..) {
                io.memory.release(piece.slot);
            }
        }
        if job.cancelled {
            return;
        }
        if let Copies::Unreadable { lsn } = answer {
            self.counters.reads_corrupt += 1;
            self.on_unreadable(lsn);
        }
        let (read, from) = (job.id, job.scan.from());
        let Some(pieces) = self.scrubbed(io, read, answer, job.pieces) else { return };
        self.events.push_back(LogEvent::CopiesDone { read, from, answer, pieces });
    }
}

/// The latest point in front of an entry. Points are sorted by partition first.
fn place_in(index: &SegmentIndex, lsn: Lsn) -> Option<(u64, Lsn)> {
    let points = index.points.iter().filter(|point| point.lsn <= lsn.0);
    let point = points.max_by_key(|point| point.lsn)?;
    Some((point.position, Lsn(point.lsn)))
}

fn from_cache<'a, M: Memory>(
    io: &mut Io<'_, M>,
    commits: impl Iterator<Item = &'a CachedCommit>,
    from: Lsn,
    bytes_max: u32,
    pieces: &mut Vec<Piece>,
) -> Copies {
    let (mut end, mut bytes) = (from, 0);
    for commit in commits {
        if commit.end_lsn == commit.first_lsn {
            continue;
        }
        let room = bytes_max.saturating_sub(bytes);
        let start = COMMIT_HEADER_BYTES as u32;
        let whole = Piece { slot: commit.slot, start, len: commit.len - start };
        if commit.first_lsn == end && whole.len <= room {
            hand_out(io.memory, whole, pieces);
            (end, bytes) = (commit.end_lsn, bytes + whole.len);
            continue;
        }
        let least = u32::from(bytes == 0);
        let Some((part, part_end)) = part_of(io.memory, whole, end, room, least) else { break };
        hand_out(io.memory, part, pieces);
        bytes += part.len;
        end = part_end;
        if end < commit.end_lsn {
            break;
        }
    }
    Copies::Ready { end, bytes }
}

/// The entries of a commit from `from` on that have room, and the LSN after them; at least so many as `least`.
fn part_of<M: Memory>(
    memory: &M,
    commit: Piece,
    from: Lsn,
    room: u32,
    least: u32,
) -> Option<(Piece, Lsn)> {
    let bytes = memory.piece(commit);
    let (mut at, mut end, mut count) = (0, from, 0);
    let mut start = None;
    while let Ok(header) = EntryHeader::decode(bytes.get(at as usize..)?) {
        let len = header.entry_bytes() as u32;
        if header.lsn >= from && !(header.is_local() && start.is_none()) {
            let begin = *start.get_or_insert(at);
            if at + len - begin > room && count >= least {
                break;
            }
            count += 1;
            end = header.next_lsn();
        }
        at += len;
        if at >= commit.len {
            break;
        }
    }
    let start = start.filter(|_| count > 0)?;
    Some((Piece { slot: commit.slot, start: commit.start + start, len: at - start }, end))
}
