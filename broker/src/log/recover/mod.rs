//! From the bytes of a crashed life to a log that goes on.
//!
//! ```text
//! list ─ open and read each header ─ read footers ─ walk what has none ─ decide ─ fold ─ flush
//! ```
//! Then a new segment begins, whose header says what it supersedes; nothing old is ever written
//! over or continued, so recovery may crash at any point and be run again. What was read may still
//! be in the device's cache only, so the walked files are flushed before anything is served.
//! Every step reads a bounded piece and returns.

mod decide;
mod fold;
mod hole;
mod open;
mod walk;

use std::rc::Rc;

use corelog_protocol::ids::{Epoch, Lsn};

use super::event::{LogEvent, LogFailure, RecoveryReport, Replayed};
use super::format::footer::{SegmentIndex, Trailer};
use super::format::name;
use super::format::segment_header::SegmentHeader;
use super::format::{COMMITS_START, blocks};
use super::segment::{Place, Sealed};
use super::{Io, Log, LogConfig, Purpose, append_time};
use crate::disk::{DiskDone, DiskError, DiskOrder, FileId};
use crate::limits::BLOCK_BYTES;
use crate::memory::{Memory, Piece, Slot};
use crate::planted::{Bug, is_planted};
use crate::replica::Position;
use decide::{Found, Headed, Verdict, decide};
use fold::Fold;
use hole::decide_replica;
use walk::{CommitFound, Item, Walker};

/// How much one step of a walk reads, and checks: 25 µs of CRC.
const PIECE_BYTES: u64 = 256 << 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    MakeFolder,
    List,
    RemoveLeftover(usize),
    Open(usize),
    Header(usize),
    Trailer(usize),
    Image(usize),
    Walk(usize),
    Fold(usize),
    Flush(usize),
}

/// A segment file that was found.
#[derive(Debug)]
struct Old {
    sequence: u64,
    file: FileId,
    file_bytes: u64,
    opened: bool,
    header: Option<SegmentHeader>,
    trailer: Option<Trailer>,
    index: Option<SegmentIndex>,
    /// The LSN before which the walk stood when it came here.
    expected: Option<Lsn>,
}

impl Old {
    fn nonce(&self) -> u64 {
        self.header.map_or(0, |header| header.nonce)
    }

    fn headed(&self) -> Headed {
        self.header.map_or(Headed::default(), |header| Headed {
            supersedes: header.supersedes,
            durable_end: header.durable_end,
        })
    }
}

/// A segment that a later one voids altogether.
pub(super) struct Voided {
    pub sequence: u64,
    pub file: FileId,
    pub file_bytes: u64,
    pub nonce: u64,
}

pub(super) struct Recovery {
    step: Step,
    leftovers: Vec<Box<str>>,
    old: Vec<Old>,
    /// In front of where the log begins anew.
    voided: Vec<Old>,
    slot: Option<Slot>,
    slot_bytes: u64,
    walker: Option<Walker>,
    /// From which LSN on the entries of each segment are void.
    limits: Vec<Lsn>,
    /// The same, as the segments alone say it.
    superseded: Vec<Lsn>,
    /// Behind all that was found is a commit of which nothing can be read.
    is_ruined: bool,
    found: Vec<Found>,
    verdict: Verdict,
    fold: Fold,
    retried: bool,
    piece: (u64, u64),
    /// What the walk could not read and took for zeros: segment, position, bytes.
    unreadable: Vec<(usize, u64, u64)>,
    report: RecoveryReport,
    epoch_seen: u64,
    /// The greatest epoch of a segment header.
    accepted: Epoch,
}

impl Recovery {
    fn new(config: &LogConfig) -> Self {
        Self {
            step: Step::MakeFolder,
            leftovers: Vec::new(),
            old: Vec::new(),
            voided: Vec::new(),
            slot: None,
            slot_bytes: 0,
            walker: None,
            limits: Vec::new(),
            superseded: Vec::new(),
            is_ruined: false,
            found: Vec::new(),
            verdict: Verdict::default(),
            fold: Fold::new(config),
            retried: false,
            piece: (0, 0),
            unreadable: Vec::new(),
            report: RecoveryReport::default(),
            epoch_seen: 0,
            accepted: Epoch(0),
        }
    }

    /// Gives back what is held, and names the files that are open.
    pub fn abandon<M: Memory>(mut self, memory: &mut M) -> Vec<FileId> {
        if let Some(slot) = self.slot.take() {
            memory.release(slot);
        }
        let all = self.voided.iter().chain(&self.old);
        all.filter(|old| old.opened).map(|old| old.file).collect()
    }
}

/// What the log begins its new life with.
pub(super) struct Recovered {
    pub next_lsn: Lsn,
    pub epoch: Epoch,
    pub accepted: Epoch,
    pub mark: Option<Position>,
    pub sequence_next: u64,
    pub report: RecoveryReport,
}

impl Log {
    pub(super) fn start_recovery<M: Memory>(&mut self, io: &mut Io<'_, M>) {
        self.counters.recoveries += 1;
        let mut recovery = Box::new(Recovery::new(&self.config));
        self.order_step(io, &mut recovery, Step::MakeFolder);
        self.recovery = Some(recovery);
    }

    /// Gives the order that a step begins with, or skips to the next step that needs one.
    fn order_step<M: Memory>(&mut self, io: &mut Io<'_, M>, recovery: &mut Recovery, step: Step) {
        recovery.step = step;
        let (directory, lane) = (self.config.directory, self.config.lane);
        let folder = name::folder(directory, lane);
        let count = recovery.old.len();
        let order = match step {
            Step::MakeFolder => DiskOrder::MakeFolder { place: folder },
            Step::List => DiskOrder::List { place: folder },
            Step::RemoveLeftover(at) => match recovery.leftovers.get(at) {
                Some(name) => {
                    let path = format!("{}/{name}", folder.path).into();
                    DiskOrder::Remove { place: crate::disk::Place { directory, path } }
                }
                None => return self.order_step(io, recovery, Step::Open(0)),
            },
            Step::Open(at) => match recovery.old.get(at) {
                Some(old) => DiskOrder::Open {
                    file: old.file,
                    place: name::segment(directory, lane, old.sequence),
                },
                None => return self.order_walk(io, recovery, 0),
            },
            Step::Header(at) => {
                let bytes = recovery.old[at].file_bytes.min(COMMITS_START);
                return self.order_read(io, recovery, at, 0, bytes);
            }
            Step::Trailer(at) => {
                let position = recovery.old[at].file_bytes - BLOCK_BYTES as u64;
                return self.order_read(io, recovery, at, position, BLOCK_BYTES as u64);
            }
            Step::Image(at) => {
                let Some(trailer) = recovery.old[at].trailer else {
                    return self.order_step(io, recovery, Step::Open(at + 1));
                };
                let bytes = blocks(trailer.image_bytes);
                return self.order_read(io, recovery, at, trailer.image_position, bytes);
            }
            Step::Walk(at) | Step::Fold(at) => {
                let wanted = recovery.walker.as_ref().and_then(Walker::wants);
                let Some(position) = wanted else { return self.on_walked(io, recovery, at) };
                let end = recovery.old[at].file_bytes / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
                let bytes = PIECE_BYTES.min(end - position);
                return self.order_read(io, recovery, at, position, bytes);
            }
            // With a footer, all was durable before the footer was written.
            Step::Flush(at) => match (at..count).find(|at| recovery.old[*at].index.is_none()) {
                Some(at) => {
                    recovery.step = Step::Flush(at);
                    DiskOrder::Flush { file: recovery.old[at].file }
                }
                None => return self.finish_recovery(io, recovery),
            },
        };
        self.order(io, Purpose::Recover, order);
    }

    fn order_read<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        recovery: &mut Recovery,
        at: usize,
        position: u64,
        bytes: u64,
    ) {
        if recovery.slot.is_none() || recovery.slot_bytes < bytes {
            if let Some(slot) = recovery.slot.take() {
                io.memory.release(slot);
            }
            let wanted = bytes.max(PIECE_BYTES.min(self.config.segment_bytes));
            let slot = io.memory.allocate(wanted as usize);
            recovery.slot_bytes = io.memory.capacity(slot) as u64;
            recovery.slot = Some(slot);
        }
        let Some(slot) = recovery.slot else { return };
        recovery.piece = (position, bytes);
        self.counters.recovery_read_bytes += bytes;
        recovery.report.bytes_read += bytes;
        let file = recovery.old[at].file;
        self.order(
            io,
            Purpose::Recover,
            DiskOrder::Read { file, position, slot, len: bytes as u32 },
        );
    }

    pub(super) fn on_recovery_done<M: Memory>(&mut self, io: &mut Io<'_, M>, done: DiskDone) {
        let Some(mut recovery) = self.recovery.take() else { return };
        let result = if self.is_closing() || self.failure.is_some() {
            Ok(())
        } else {
            self.on_step_done(io, &mut recovery, done)
        };
        match result {
            Err(failure) => {
                self.fail_with(failure);
                self.recovery = Some(recovery);
            }
            Ok(()) if self.recovered => {
                if let Some(slot) = recovery.slot.take() {
                    io.memory.release(slot);
                }
            }
            Ok(()) => self.recovery = Some(recovery),
        }
    }

    fn on_step_done<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        recovery: &mut Recovery,
        done: DiskDone,
    ) -> Result<(), LogFailure> {
        let error = match &done {
            DiskDone::Failed(error) => Some(*error),
            _ => None,
        };
        match recovery.step {
            Step::MakeFolder if error.is_none() => self.order_step(io, recovery, Step::List),
            Step::List => {
                let DiskDone::Listed { files } = done else { return Err(LogFailure::Recovery) };
                self.on_listed(io, recovery, files);
            }
            // A leftover that will not go is tried again at the next start.
            Step::RemoveLeftover(at) => {
                self.order_step(io, recovery, Step::RemoveLeftover(at + 1));
            }
            Step::Open(at) => {
                let DiskDone::Opened { bytes } = done else { return Err(LogFailure::Recovery) };
                // Reads are of whole blocks: of a file that was cut, the rest of the last is no use.
                let bytes = bytes - bytes % BLOCK_BYTES as u64;
                recovery.old[at].file_bytes = bytes;
                recovery.old[at].opened = true;
                if bytes < COMMITS_START {
                    return Err(LogFailure::Recovery);
                }
                self.order_step(io, recovery, Step::Header(at));
            }
            Step::Header(_) | Step::Trailer(_) | Step::Image(_) if error.is_some() => {
                self.retry_read(io, recovery)?;
            }
            Step::Header(at) => {
                recovery.retried = false;
                self.on_header(io, recovery, at)?;
            }
            Step::Trailer(at) => {
                recovery.retried = false;
                self.on_trailer(io, recovery, at);
            }
            Step::Image(at) => {
                recovery.retried = false;
                self.on_image(io, recovery, at);
            }
            Step::Walk(at) | Step::Fold(at) => self.on_piece(io, recovery, at, error)?,
            Step::Flush(at) if error.is_none() => {
                self.order_step(io, recovery, Step::Flush(at + 1));
            }
            Step::MakeFolder | Step::Flush(_) => return Err(LogFailure::Recovery),
        }
        Ok(())
    }

    /// Goes to the next segment that has to be walked; after the last, decides.
    fn order_walk<M: Memory>(&mut self, io: &mut Io<'_, M>, recovery: &mut Recovery, from: usize) {
        if from == 0 {
            self.set_voided_apart(recovery);
            let headed: Vec<Headed> = recovery.old.iter().map(Old::headed).collect();
            recovery.superseded = decide::limits(&headed, None);
            recovery.limits = decide::limits(&headed, self.resume.map(|resume| resume.at));
        }
        for at in from..recovery.old.len() {
            let expected = recovery.found.last().map(|found| found.commit.end_lsn);
            let limit = recovery.limits[at];
            let old = &mut recovery.old[at];
            // What a segment supersedes is where it begins.
            old.expected = old.headed().supersedes.or(expected);
            // A footer that reaches into what was superseded later is not believed.
            old.index = old.index.take().filter(|index| index.end_lsn <= limit.0);
            if let Some(index) = &old.index {
                recovery.found.push(Found { segment: at, commit: whole(index) });
                recovery.is_ruined = false;
                continue;
            }
            self.counters.recoveries_scanned_segments += 1;
            recovery.report.segments_scanned += 1;
            let walker =
                Walker::new(self.config.lane, old.nonce(), old.file_bytes, old.expected, false);
            recovery.walker = Some(walker);
            return self.order_step(io, recovery, Step::Walk(at));
        }
        self.decide_and_fold(io, recovery);
    }

    /// The log begins with the last segment that says so; a start with a base, behind all of them.
    fn set_voided_apart(&self, recovery: &mut Recovery) {
        let is_anew = |old: &Old| old.header.is_some_and(|header| header.is_anew);
        let count = match self.base {
            Some(_) => recovery.old.len(),
            None => recovery.old.iter().rposition(is_anew).unwrap_or(0),
        };
        recovery.voided = recovery.old.drain(..count).collect();
    }

    fn on_piece<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        recovery: &mut Recovery,
        at: usize,
        error: Option<DiskError>,
    ) -> Result<(), LogFailure> {
        let Some(slot) = recovery.slot else { return Err(LogFailure::Recovery) };
        let (position, bytes) = recovery.piece;
        let step = recovery.step;
        if error.is_some() {
            if !recovery.retried {
                recovery.retried = true;
                self.order_step(io, recovery, step);
                return Ok(());
            }
            // Whatever was there is missing: corruption, if a later segment says that it was
            // durable. If none does, perhaps it was acknowledged: no end may be drawn from it.
            let is_known = recovery.unreadable.iter().any(|(segment, from, len)| {
                *segment == at && *from < position + bytes && position < from + len
            });
            let was_decided = match step {
                // The verdict was made without it.
                Step::Fold(_) => is_known,
                _ => recovery.superseded[at] != Lsn(u64::MAX),
            };
            if !was_decided {
                return Err(LogFailure::Recovery);
            }
            if !is_known {
                recovery.unreadable.push((at, position, bytes));
            }
            io.memory.bytes_mut(slot)[..bytes as usize].fill(0);
        }
        recovery.retried = false;
        let Some(mut walker) = recovery.walker.take() else { return Err(LogFailure::Recovery) };
        match step {
            Step::Walk(_) => {
                let found = &mut recovery.found;
                let piece = &io.memory.bytes(slot)[..bytes as usize];
                walker.feed(position, piece, &mut |item| {
                    if let Item::End(commit) = item {
                        found.push(Found { segment: at, commit });
                    }
                });
            }
            _ => {
                let fold = &mut recovery.fold;
                let piece = &io.memory.bytes(slot)[..bytes as usize];
                let partitions = &mut self.partitions;
                walker.feed(position, piece, &mut |item| fold.on_item(partitions, &item));
                self.deliver_replays(io, recovery);
            }
        }
        recovery.walker = Some(walker);
        self.order_step(io, recovery, step);
        Ok(())
    }

    fn on_walked<M: Memory>(&mut self, io: &mut Io<'_, M>, recovery: &mut Recovery, at: usize) {
        let walker = recovery.walker.take();
        match recovery.step {
            Step::Walk(_) => {
                let is_ruined = walker.is_some_and(|walker| walker.is_ruined());
                if recovery.found.last().is_some_and(|found| found.segment == at) || is_ruined {
                    // What is superseded ends where the later segment says.
                    recovery.is_ruined = is_ruined && recovery.superseded[at] == Lsn(u64::MAX);
                }
                self.order_walk(io, recovery, at + 1);
            }
            _ => {
                recovery.fold.end_walk(recovery.verdict.checkpoint == Some(at));
                self.finish_fold(recovery, at);
                self.order_fold(io, recovery, at + 1);
            }
        }
    }

    fn decide_and_fold<M: Memory>(&mut self, io: &mut Io<'_, M>, recovery: &mut Recovery) {
        let headed: Vec<Headed> = recovery.old.iter().map(Old::headed).collect();
        recovery.verdict = match self.config.replicated {
            true => self.decide_replica(recovery, &headed),
            false => decide(&headed, &recovery.found),
        };
        let verdict = &recovery.verdict;
        let epochs = recovery.found.iter().map(|found| found.commit.epoch_last);
        recovery.epoch_seen = recovery.epoch_seen.max(epochs.max().unwrap_or(0));
        self.counters.commits_truncated += verdict.commits_truncated;
        self.counters.torn_tails += u64::from(verdict.commits_truncated > 0);
        self.counters.corrupt_entries += verdict.entries_corrupt;
        recovery.report.commits_truncated = verdict.commits_truncated;
        recovery.report.entries_corrupt = verdict.entries_corrupt;
        recovery.report.next_lsn = verdict.next_lsn;
        recovery.found = Vec::new();
        self.order_fold(io, recovery, 0);
    }

    /// Where a replica's log ends. If it is to go on at an LSN up to which it cannot be read, it will not, and must
    /// tell of all that it cannot read.
    fn decide_replica(&self, recovery: &Recovery, headed: &[Headed]) -> Verdict {
        let Recovery { found, limits, superseded, is_ruined, .. } = recovery;
        let mut verdict = decide_replica(headed, limits, found, *is_ruined);
        if self.resume.is_some_and(|resume| verdict.next_lsn < resume.at) {
            verdict.bad_end = decide_replica(headed, superseded, found, *is_ruined).bad_end;
        }
        verdict
    }

    fn order_fold<M: Memory>(&mut self, io: &mut Io<'_, M>, recovery: &mut Recovery, from: usize) {
        let checkpoint = recovery.verdict.checkpoint;
        for at in from..recovery.old.len() {
            let old = &recovery.old[at];
            let file = (old.sequence, old.file, old.file_bytes, old.nonce());
            recovery.fold.begin(&recovery.verdict, at, file);
            let needs_walk = match &old.index {
                Some(index) => {
                    recovery.fold.on_index(&mut self.partitions, index);
                    // No later segment's checkpoint tells of its producers.
                    index.replay_end > 0 || checkpoint.is_none_or(|segment| segment <= at)
                }
                None => recovery.fold.has_commits(),
            };
            if needs_walk {
                let (lane, nonce) = (self.config.lane, old.nonce());
                recovery.fold.begin_walk();
                recovery.walker =
                    Some(Walker::new(lane, nonce, old.file_bytes, old.expected, true));
                return self.order_step(io, recovery, Step::Fold(at));
            }
            self.finish_fold(recovery, at);
        }
        let records_max = u64::from(self.config.records_per_entry_max);
        let fold = &mut recovery.fold;
        self.counters.corrupt_ranges +=
            fold.end(&mut self.partitions, recovery.verdict.next_lsn, records_max);
        self.append_time = self.append_time.max(fold.time_max());
        // What cannot be read may hold batches that nobody remembers, so that a retry would look like news. Whoever
        // has one under way must hear that it is not known.
        let has_lost = !self.config.replicated && recovery.verdict.entries_corrupt > 0;
        let is_whole = !has_lost && !fold.has_missed();
        if !is_whole {
            self.producers.on_lost(append_time(self.append_time, io.now));
        } else if !is_planted(Bug::ProducersForgotten) {
            self.producers = fold.take_producers();
        }
        self.epochs = fold.take_epochs();
        self.offset_floor = fold.offset_floor();
        self.order_step(io, recovery, Step::Flush(0));
    }

    /// A segment is folded: from now on it is one of the sealed.
    fn finish_fold(&mut self, recovery: &mut Recovery, at: usize) {
        let old = &mut recovery.old[at];
        let verdict = &recovery.verdict;
        let sealed = match (old.index.as_ref(), old.trailer) {
            (Some(index), Some(trailer)) => {
                let index = Rc::new(index.clone());
                let place = Place::Footer(trailer);
                let (sequence, file) = (old.sequence, old.file);
                let mut sealed =
                    Sealed::new(sequence, file, old.file_bytes, old.nonce(), index, place);
                sealed.index = None;
                sealed
            }
            _ => {
                let mut sealed = recovery.fold.seal(&self.partitions);
                if verdict.entries_corrupt > 0 {
                    // Nothing is written where perhaps something durable was.
                    sealed.place = Place::MemoryForGood;
                    sealed.void = false;
                }
                sealed
            }
        };
        self.sealed.push_back(sealed);
    }

    fn deliver_replays<M: Memory>(&mut self, io: &mut Io<'_, M>, recovery: &mut Recovery) {
        for (header, body) in recovery.fold.take_replays() {
            let slot = io.memory.allocate(body.len());
            io.memory.bytes_mut(slot)[..body.len()].copy_from_slice(&body);
            self.events.push_back(LogEvent::Replayed(Replayed {
                lsn: header.lsn,
                epoch: header.epoch,
                kind: header.kind.to_wire(),
                partition: header.partition,
                append_time: header.append_time,
                body: Piece::new(slot, 0, body.len()),
            }));
        }
    }

    fn finish_recovery<M: Memory>(&mut self, io: &mut Io<'_, M>, recovery: &mut Recovery) {
        let last = recovery.old.last().or(recovery.voided.last()).map(|old| old.sequence);
        if let Some(base) = self.base.take() {
            recovery.verdict.next_lsn = self.begin_with_base(&base);
            recovery.report.next_lsn = base.first();
        }
        let voided = |old: Old| Voided {
            sequence: old.sequence,
            file: old.file,
            file_bytes: old.file_bytes,
            nonce: old.nonce(),
        };
        self.keep_voided(recovery.voided.drain(..).map(voided));
        let next_lsn = recovery.verdict.next_lsn;
        let accepted = recovery.accepted;
        let epoch = match self.config.replicated {
            true => self.epochs.last(),
            false => Epoch(recovery.epoch_seen + 1),
        };
        recovery.report.epoch = epoch;
        recovery.report.accepted = accepted;
        recovery.report.writable = true;
        let marked = recovery.old.last().and_then(|old| old.header).and_then(|header| header.mark);
        let bad = recovery.verdict.bad_end.map(|end| Position { epoch: accepted, end });
        let recovered = Recovered {
            next_lsn,
            epoch,
            accepted,
            mark: marked.filter(|mark| mark.end > next_lsn).max(bad),
            sequence_next: last.map_or(0, |last| last + 1),
            report: recovery.report.clone(),
        };
        self.on_recovered(io, recovered);
    }
}

/// A segment with a footer, as one commit that is whole.
fn whole(index: &SegmentIndex) -> CommitFound {
    CommitFound {
        position: COMMITS_START,
        number: 0,
        end_position: index.commits_end,
        first_lsn: Lsn(index.first_lsn),
        end_lsn: Lsn(index.end_lsn),
        whole_end: Lsn(index.end_lsn),
        durable_end: Lsn(index.end_lsn),
        epoch_first: index.epoch_last,
        epoch_last: index.epoch_last,
        lost: 0,
        damaged: 0,
        has_checkpoint: true,
        bound: true,
    }
}
