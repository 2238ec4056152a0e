//! The next segment, made ready while the present one fills: created with space reserved (or an
//! expired file, whose old name is gone for good), headed, flushed, named, and its name made
//! durable. So a roll costs nothing, and no acknowledgment depends on what is not durable.
//!
//! ```text
//! fresh     Remove leftover, [Space], Create ─┐
//! recycled                        a spare file ┴─ header, Flush, Rename to .seg, SyncFolder ── ready
//! ```
//! A ready file is filled with zeros in small steps, in proportion to how far the present segment
//! is used, and no faster than commits earn it: a commit into zeros overwrites (69 µs), one into
//! reserved space converts it (157 µs), but every flush brings the zeros to the medium too.

use corelog_protocol::ids::{Epoch, Lsn};

use super::config::LogConfig;
use super::counters::LogCounters;
use super::event::LogFailure;
use super::format::segment_header::SegmentHeader;
use super::format::{COMMITS_START, name};
use crate::disk::{DiskDone, DiskError, DiskOrder, FileId};
use crate::memory::Memory;
use crate::planted::{Bug, is_planted};
use crate::replica::Position;
use crate::time::{Monotonic, Nanos};

/// 0.2 ms of a device at 1.3 GB/s: what a commit may have to wait behind.
const FILL_STEP_BYTES: u64 = 256 << 10;
/// This much is filled whatever the pace; a start waits for no more. 4 ms.
const FILL_FIRST_BYTES: u64 = 4 << 20;
/// Zeros per byte committed, at most: a segment of twice the size is full of zeros at 7/8 of the
/// present one with 16/7. What is behind catches up no faster, and never disturbs a quiet lane.
const FILL_PER_COMMIT: u64 = 3;
/// Credit does not pile up while there is nothing to fill.
const FILL_CREDIT_MAX: u64 = 4 * FILL_STEP_BYTES;
/// Expired files that wait for their next use. Retention does not drop exactly one segment per roll:
/// with one spare, every third roll of a steady load had to make a new file.
const SPARES_MAX: usize = 2;
const BACKOFF_MIN: Nanos = Nanos::from_millis(100);
const BACKOFF_MAX: Nanos = Nanos::from_secs(5);

/// A file with nothing of worth, open, under the durable name `<sequence>.new`.
#[derive(Clone, Copy, Debug)]
pub struct Spare {
    pub sequence: u64,
    pub file: FileId,
    pub file_bytes: u64,
}

/// What the header of the next segment says.
#[derive(Clone, Copy, Debug)]
pub struct Heading {
    pub nonce: u64,
    pub supersedes: Option<Lsn>,
    pub is_anew: bool,
    pub durable_end: Lsn,
    pub epoch: Epoch,
    pub mark: Option<Position>,
}

/// The order to give next, or the one in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Idle,
    /// Not before this time: the disk was full.
    Begin(Monotonic),
    RemoveLeftover,
    AskSpace,
    Create,
    Head,
    Flush,
    Name,
    SyncName,
    Ready,
    Fill,
    FlushFill,
    /// The file is of no use: closed, removed, and begun anew.
    DiscardClose(Monotonic),
    DiscardRemove(Monotonic),
}

/// A segment that may be used.
#[derive(Clone, Copy, Debug)]
pub struct Prepared {
    pub sequence: u64,
    pub file: FileId,
    pub file_bytes: u64,
    pub nonce: u64,
}

#[derive(Debug)]
pub struct Preparer {
    stage: Stage,
    in_flight: bool,
    sequence: u64,
    file: FileId,
    file_bytes: u64,
    nonce: u64,
    filled: u64,
    fill_flushed: bool,
    /// Bytes of zeros that commits have earned.
    credit: u64,
    bytes_wanted: u64,
    bytes_least: u64,
    /// At most `SPARES_MAX`, the largest last.
    spares: Vec<Spare>,
    backoff: Nanos,
    was_full: bool,
}

/// What a step of preparation may look at.
pub struct Around<'a> {
    pub config: &'a LogConfig,
    pub counters: &'a mut LogCounters,
    pub now: Monotonic,
    pub heading: Heading,
    /// Used share of the present segment, in 1/1024.
    pub used: u64,
    /// Commits are small enough for zeros to pay.
    pub fill: bool,
    /// No segment is in use yet: the first part is filled at once.
    pub is_start: bool,
    /// Somebody waits for the segment: no zeros now.
    pub urgent: bool,
}

impl Preparer {
    pub fn new() -> Self {
        Self {
            stage: Stage::Idle,
            in_flight: false,
            sequence: 0,
            file: FileId(0),
            file_bytes: 0,
            nonce: 0,
            filled: 0,
            fill_flushed: false,
            credit: 0,
            bytes_wanted: 0,
            bytes_least: 0,
            spares: Vec::new(),
            backoff: BACKOFF_MIN,
            was_full: false,
        }
    }

    pub fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready | Stage::Fill | Stage::FlushFill)
    }

    /// Ready, and no fill of it is in flight.
    pub fn can_take(&self) -> bool {
        self.stage == Stage::Ready
    }

    /// The disk was full at the last attempt.
    pub fn is_full(&self) -> bool {
        self.was_full
    }

    pub fn backoff_until(&self) -> Option<Monotonic> {
        match self.stage {
            Stage::Begin(until) => Some(until),
            _ => None,
        }
    }

    /// Takes a file with nothing of worth. Gives one back, to be closed and removed, if there is
    /// one too many.
    pub fn offer_spare(&mut self, spare: Spare) -> Option<Spare> {
        if let Stage::Begin(until) = &mut self.stage {
            *until = Monotonic(0);
        }
        let at = self.spares.partition_point(|known| known.file_bytes <= spare.file_bytes);
        self.spares.insert(at, spare);
        (self.spares.len() > SPARES_MAX).then(|| self.spares.remove(0))
    }

    /// Files that are open here.
    pub fn take_files(&mut self) -> impl Iterator<Item = FileId> {
        assert!(!self.in_flight);
        let has_file = matches!(
            self.stage,
            Stage::Head | Stage::Flush | Stage::Name | Stage::SyncName | Stage::Ready
        );
        let file = (has_file || self.is_ready()).then_some(self.file);
        self.stage = Stage::Idle;
        file.into_iter().chain(self.spares.drain(..).map(|spare| spare.file))
    }

    /// Asks for a segment. Only when idle. If the disk is full, `bytes_least` will do.
    pub fn begin(&mut self, sequence: u64, bytes_wanted: u64, bytes_least: u64) {
        assert_eq!(self.stage, Stage::Idle);
        self.sequence = sequence;
        self.bytes_wanted = bytes_wanted;
        self.bytes_least = bytes_least.min(bytes_wanted);
        self.stage = Stage::Begin(Monotonic(0));
    }

    /// The segment, if it can be used now. At a start the first part is filled first.
    pub fn take_ready(&mut self, is_start: bool) -> Option<Prepared> {
        let unfilled = self.filled < self.file_bytes.min(FILL_FIRST_BYTES);
        if self.stage != Stage::Ready || (is_start && unfilled) {
            return None;
        }
        self.stage = Stage::Idle;
        let Self { sequence, file, file_bytes, nonce, .. } = *self;
        Some(Prepared { sequence, file, file_bytes, nonce })
    }

    /// Replaces a ready segment that is smaller than this.
    pub fn demand(&mut self, bytes: u64) {
        self.bytes_least = self.bytes_least.max(bytes);
        self.bytes_wanted = self.bytes_wanted.max(bytes);
        if self.stage == Stage::Ready && self.file_bytes < bytes {
            self.stage = Stage::DiscardClose(Monotonic(0));
        }
    }

    /// A commit of so many bytes was written.
    pub fn earn(&mut self, commit_bytes: u64) {
        let credit = self.credit.saturating_add(commit_bytes * FILL_PER_COMMIT);
        self.credit = credit.min(FILL_CREDIT_MAX);
    }

    /// The next order, if it is time for one. At most one is in flight.
    pub fn advance<M: Memory>(
        &mut self,
        around: &mut Around<'_>,
        memory: &mut M,
        new_file: impl FnOnce() -> FileId,
    ) -> Option<DiskOrder> {
        if self.in_flight {
            return None;
        }
        let order = self.next_order(around, memory, new_file)?;
        self.in_flight = true;
        Some(order)
    }

    fn next_order<M: Memory>(
        &mut self,
        around: &mut Around<'_>,
        memory: &mut M,
        new_file: impl FnOnce() -> FileId,
    ) -> Option<DiskOrder> {
        let config = around.config;
        let (directory, lane) = (config.directory, config.lane);
        if let Stage::Begin(until) = self.stage {
            if around.now < until {
                return None;
            }
            self.begin_now(around.counters);
        }
        // A recycled file is known only now.
        let file = self.file;
        Some(match self.stage {
            Stage::Idle | Stage::Begin(_) => return None,
            Stage::RemoveLeftover => {
                DiskOrder::Remove { place: name::preparation(directory, lane, self.sequence) }
            }
            Stage::AskSpace => DiskOrder::Space { directory },
            Stage::Create => {
                self.file = new_file();
                let place = name::preparation(directory, lane, self.sequence);
                DiskOrder::Create { file: self.file, place, bytes: self.file_bytes }
            }
            Stage::Head => {
                let Heading { nonce, supersedes, is_anew, durable_end, epoch, mark } =
                    around.heading;
                self.nonce = nonce;
                let header = SegmentHeader {
                    lane,
                    cluster: config.cluster,
                    incarnation: config.incarnation,
                    sequence: self.sequence,
                    nonce,
                    supersedes,
                    is_anew,
                    durable_end,
                    epoch,
                    mark,
                    file_bytes: self.file_bytes,
                };
                let slot = memory.allocate(COMMITS_START as usize);
                header.write_blocks(memory.bytes_mut(slot));
                around.counters.bytes_header += COMMITS_START;
                DiskOrder::Write { file, position: 0, slot, len: COMMITS_START as u32 }
            }
            Stage::Flush | Stage::FlushFill => DiskOrder::Flush { file },
            Stage::Name => {
                DiskOrder::Rename { file, to: name::segment(directory, lane, self.sequence) }
            }
            Stage::SyncName => DiskOrder::SyncFolder { place: name::folder(directory, lane) },
            Stage::Ready => return self.fill(around),
            Stage::Fill => unreachable!("a fill is in flight as long as its stage lasts"),
            Stage::DiscardClose(_) => DiskOrder::Close { file },
            Stage::DiscardRemove(_) => {
                DiskOrder::Remove { place: name::segment(directory, lane, self.sequence) }
            }
        })
    }

    fn begin_now(&mut self, counters: &mut LogCounters) {
        let least = if self.was_full { self.bytes_least } else { self.bytes_wanted };
        if let Some(spare) = self.spares.pop_if(|largest| largest.file_bytes >= least) {
            self.file = spare.file;
            self.file_bytes = spare.file_bytes;
            self.filled = spare.file_bytes;
            self.fill_flushed = true;
            self.stage = Stage::Head;
            counters.segments_recycled += 1;
            return;
        }
        self.file_bytes = least;
        self.filled = COMMITS_START;
        self.fill_flushed = false;
        self.stage = Stage::RemoveLeftover;
    }

    fn fill(&mut self, around: &mut Around<'_>) -> Option<DiskOrder> {
        if around.urgent {
            return None;
        }
        // A little faster than the present segment is used up, so that it is done at 7/8 of it:
        // what a short run fills and never uses stays small.
        let share = (around.used * 8 / 7 + 16).min(1024);
        let target = (self.file_bytes / 1024 * share).max(FILL_FIRST_BYTES).min(self.file_bytes);
        let target = if share == 1024 { self.file_bytes } else { target };
        let len = FILL_STEP_BYTES.min(self.file_bytes - self.filled);
        let is_first = around.is_start && self.filled < FILL_FIRST_BYTES;
        if self.filled < target && (is_first || (around.fill && self.credit >= len)) {
            self.credit = self.credit.saturating_sub(len);
            self.stage = Stage::Fill;
            around.counters.bytes_fill += len;
            let position = self.filled;
            return Some(DiskOrder::Zero { file: self.file, position, len: len as u32 });
        }
        if self.filled == self.file_bytes && !self.fill_flushed {
            self.stage = Stage::FlushFill;
            return Some(DiskOrder::Flush { file: self.file });
        }
        None
    }

    /// The order in flight is complete.
    pub fn on_done(
        &mut self,
        config: &LogConfig,
        counters: &mut LogCounters,
        now: Monotonic,
        done: &DiskDone,
    ) -> Result<(), LogFailure> {
        assert!(self.in_flight);
        self.in_flight = false;
        let error = match done {
            DiskDone::Failed(error) => Some(*error),
            _ => None,
        };
        match (self.stage, error) {
            (Stage::RemoveLeftover, _) if config.reserve_bytes > 0 => self.stage = Stage::AskSpace,
            (Stage::RemoveLeftover, _) => self.stage = Stage::Create,
            (Stage::AskSpace, _) => {
                let wanted = self.file_bytes.saturating_add(config.reserve_bytes);
                self.stage = Stage::Create;
                if matches!(done, DiskDone::Space { free_bytes } if *free_bytes < wanted) {
                    self.stage = Stage::Begin(self.on_full(counters, now));
                }
            }
            (Stage::Create, Some(DiskError::Full | DiskError::Resources | DiskError::Exists)) => {
                self.stage = Stage::Begin(self.on_full(counters, now));
            }
            (Stage::Create, None) => {
                counters.segments_created += 1;
                self.stage = Stage::Head;
            }
            (Stage::Head, Some(DiskError::Full)) => {
                self.stage = Stage::DiscardClose(self.on_full(counters, now));
            }
            (Stage::Head, None) => self.stage = Stage::Flush,
            (Stage::Flush, None) => self.stage = Stage::Name,
            (Stage::Name, None) if is_planted(Bug::DirectoryNotSynced) => self.on_ready(counters),
            (Stage::Name, None) => self.stage = Stage::SyncName,
            (Stage::SyncName, None) => self.on_ready(counters),
            (Stage::Fill, None) => {
                self.filled += FILL_STEP_BYTES.min(self.file_bytes - self.filled);
                self.stage = Stage::Ready;
            }
            (Stage::Fill, Some(DiskError::Full)) => {
                // Zeros are for speed only: the space itself was promised at creation.
                self.filled = self.file_bytes;
                self.stage = Stage::Ready;
            }
            (Stage::FlushFill, None) => {
                self.fill_flushed = true;
                self.stage = Stage::Ready;
            }
            (Stage::DiscardClose(until), _) => self.stage = Stage::DiscardRemove(until),
            (Stage::DiscardRemove(until), _) => self.stage = Stage::Begin(until),
            (Stage::Flush | Stage::FlushFill, Some(_)) => return Err(LogFailure::Flush),
            (_, Some(_)) => return Err(LogFailure::Write),
            (stage, None) => unreachable!("no order is given in {stage:?}"),
        }
        Ok(())
    }

    fn on_ready(&mut self, counters: &mut LogCounters) {
        self.stage = Stage::Ready;
        self.backoff = BACKOFF_MIN;
        if self.was_full {
            self.was_full = false;
            counters.disk_full_recovered += 1;
        }
    }

    /// When to try again.
    fn on_full(&mut self, counters: &mut LogCounters, now: Monotonic) -> Monotonic {
        counters.disk_full += 1;
        self.was_full = true;
        let until = match is_planted(Bug::FullForEver) {
            true => Monotonic(u64::MAX / 2),
            false => now + self.backoff,
        };
        self.backoff = Nanos((self.backoff.0 * 2).min(BACKOFF_MAX.0));
        until
    }
}
