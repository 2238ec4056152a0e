//! The log of one replica of several (`LogConfig::replicated`). What differs from the log of a lane that is alone:
//!
//! - A start ends **dormant**: what can be read without a hole is served, nothing is written, and [`Log::has`] and
//!   [`Log::perhaps`] say where the log ends. What lies above the first hole is neither served nor voided.
//! - [`Log::resume`], or [`Log::start_at`] if entries have to go, begins a segment. Its header is the one durable
//!   record of the truncation, the accepted epoch, and the mark of what is not replaced yet.
//! - Entries are copied from a leader ([`Log::append_copy`]), or appended after [`Log::begin_epoch`].
//! - What is durable here is not committed: [`Log::set_committed`] says what is.
//!
//! Which epoch, which leader, where to truncate: not decided here. The rules are in `broker/model/README.md`.

use corelog_protocol::ids::{Epoch, Lsn, Offset, PartitionId};

use super::event::{AppendError, Appended, LogEvent, LogFailure, Resume};
use super::format::COMMITS_START;
use super::{Io, Log, State};
use crate::memory::Memory;
use crate::planted::{Bug, is_planted};
use crate::replica::Position;

/// What becomes true when the entry with this LSN is committed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Uncommitted {
    /// The partition at this place of the list is committed up to `next`, by an entry of so many bytes.
    End { lsn: Lsn, at: u32, next: Offset, bytes: u32 },
    /// Or begins at `start`.
    Start { lsn: Lsn, at: u32, start: Offset },
}

impl Uncommitted {
    fn lsn(self) -> Lsn {
        match self {
            Self::End { lsn, .. } | Self::Start { lsn, .. } => lsn,
        }
    }
}

impl Log {
    /// As [`Self::start`], but what has LSN `resume.at` or above is void, and the log goes on there:
    /// `LogEvent::Recovered` comes when all that `resume` says is durable. If the log cannot be read so far, or has
    /// accepted a later epoch, it is dormant instead, and the report says so.
    pub fn start_at<M: Memory>(&mut self, io: &mut Io<'_, M>, resume: Resume) {
        assert!(self.config.replicated);
        self.resume = Some(resume);
        self.start(io);
    }

    /// A dormant log goes on where it ends; `LogEvent::Resumed` comes when that is durable.
    ///
    /// # Panics
    /// If the log is not dormant, ends elsewhere, or has accepted a later epoch.
    pub fn resume<M: Memory>(&mut self, io: &mut Io<'_, M>, resume: Resume) {
        assert_eq!(self.state, State::Dormant);
        assert_eq!(resume.at, self.next_lsn);
        assert!(resume.accepted >= self.accepted);
        self.go_on(resume);
        self.advance(io);
    }

    fn go_on(&mut self, resume: Resume) {
        self.state = State::Resuming;
        self.accepted = resume.accepted;
        self.mark = resume.perhaps.filter(|mark| mark.end > resume.at);
        self.begin_preparation();
    }

    /// Recovery is over: dormant, or on to the first segment.
    pub(super) fn on_replica_recovered(&mut self) {
        self.recovered_end = self.next_lsn;
        let lsn = Lsn(self.next_lsn.0.saturating_sub(1));
        for (at, partition) in (0..).zip(&mut self.partitions.list) {
            let next = partition.next_offset;
            partition.committed_end = partition.log_start;
            if next > partition.log_start {
                let bytes = u32::MAX;
                self.uncommitted.push_back(Uncommitted::End { lsn, at, next, bytes });
            }
        }
        if let Some(resume) = self.resume.take() {
            if resume.accepted < self.accepted {
                // Whoever says so does not know this log, and entries were left out for it.
                self.fail_with(LogFailure::Recovery);
                return;
            }
            if resume.at == self.next_lsn {
                self.go_on(resume);
                return;
            }
        }
        self.announce_recovered(true);
        self.state = State::Dormant;
    }

    /// After the durable LSN has perhaps advanced.
    pub(super) fn advance_replica(&mut self) {
        let is_begun = self.active.as_ref().is_some_and(|it| it.durable_position > COMMITS_START);
        if self.state == State::Resuming && is_begun {
            match &mut self.report {
                Some(report) => {
                    report.resumed = true;
                    self.announce_recovered(true);
                }
                None => self.events.push_back(LogEvent::Resumed),
            }
            self.state = State::Running;
        }
        if self.mark.is_some_and(|mark| mark.end <= self.durable_end) {
            self.mark = None;
        }
        self.advance_committed();
    }

    /// Every entry below `end` is on a quorum. May be ahead of what is durable here, or of what is here at all.
    pub fn set_committed(&mut self, end: Lsn) {
        assert!(self.config.replicated);
        self.committed = self.committed.max(end);
        self.advance_committed();
    }

    fn advance_committed(&mut self) {
        let end = self.committed_end();
        while let Some(next) = self.uncommitted.front()
            && next.lsn() < end
        {
            let (at, bytes) = match *next {
                Uncommitted::End { at, next, bytes, .. } => {
                    let partition = &mut self.partitions.list[at as usize];
                    partition.committed_end = partition.committed_end.max(next);
                    (at, bytes)
                }
                Uncommitted::Start { at, start, .. } => {
                    let partition = &mut self.partitions.list[at as usize];
                    partition.log_start = partition.log_start.max(start);
                    partition.committed_end = partition.committed_end.max(start);
                    self.counters.log_starts_moved += 1;
                    self.events.push_back(LogEvent::LogStartMoved);
                    (at, u32::MAX)
                }
            };
            self.uncommitted.pop_front();
            // Whoever leads knows by what it has acknowledged.
            if self.is_watched && !self.epoch_started {
                self.note_grown(at, bytes);
            }
        }
    }

    fn note_grown(&mut self, at: u32, bytes: u32) {
        let partition = self.partitions.list[at as usize].id;
        match self.grown.last_mut().filter(|(last, _)| *last == partition) {
            Some((_, sum)) => *sum = sum.saturating_add(bytes),
            None => self.grown.push((partition, bytes)),
        }
    }

    /// From now on it is noted in which partitions more is committed: somebody waits for that, and this log follows.
    pub fn watch(&mut self) {
        self.is_watched = true;
    }

    /// The partitions in which more is committed since the last call, with the bytes of that, once somebody watches. A
    /// partition may be there more than once.
    pub fn take_grown(&mut self) -> Vec<(PartitionId, u32)> {
        std::mem::take(&mut self.grown)
    }

    /// Every entry below this LSN is committed, and durable here.
    pub fn committed_end(&self) -> Lsn {
        match self.config.replicated {
            true if is_planted(Bug::UncommittedServed) => self.durable_end,
            true => self.committed.min(self.durable_end),
            false => self.durable_end,
        }
    }

    /// Whether what recovery found is committed: until then it may be void.
    pub(super) fn is_recovered_committed(&self) -> bool {
        self.committed_end() >= self.recovered_end
    }

    /// This replica leads the epoch that it has accepted: appends its first entry. What is appended from now on is of
    /// this epoch, and no copies are taken any more.
    ///
    /// # Errors
    /// As for an append.
    ///
    /// # Panics
    /// If another epoch was accepted, or this one has entries: an epoch has one log.
    pub fn begin_epoch<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        epoch: Epoch,
    ) -> Result<Appended, AppendError> {
        assert!(self.config.replicated);
        match self.check_open() {
            Err(AppendError::Recovering) if self.state == State::Running => {}
            Err(error) => return Err(error),
            Ok(()) => unreachable!("an epoch is begun once"),
        }
        assert_eq!(epoch, self.accepted);
        let before = self.epochs.last();
        assert!(before < epoch);
        let follower = std::mem::replace(&mut self.epoch, epoch);
        let appended = self.append_epoch_start(io, before);
        if appended.is_err() {
            self.epoch = follower;
        }
        appended
    }

    /// The log is durable, and can be read without a hole, through here. While a truncation is not durable
    /// (`LogEvent::Resumed` has not come), this is no answer to a fence.
    pub fn has(&self) -> Position {
        let end = self.unreadable.unwrap_or(self.durable_end).min(self.durable_end);
        self.epochs.position_at(end)
    }

    /// Nothing that this replica acknowledged lies above. The same as [`Self::has`] if nothing is bad; its `end` is
    /// `u64::MAX` if nobody can tell how far what is bad has reached.
    pub fn perhaps(&self) -> Position {
        let is_told =
            |mark: &Position| mark.end > self.next_lsn || !is_planted(Bug::MarkDroppedEarly);
        let mark = self.mark.filter(is_told).unwrap_or_default();
        let damaged = self.unreadable.map(|_| self.epochs.position_at(self.durable_end));
        self.has().max(mark).max(damaged.unwrap_or_default())
    }

    /// An entry that was durable was found to be unreadable since the start.
    pub fn is_damaged(&self) -> bool {
        self.unreadable.is_some()
    }

    /// If something cannot be read, or was not replaced yet: the LSN after the last entry that this may be true of,
    /// `u64::MAX` if nobody can tell.
    pub fn bad_end(&self) -> Option<Lsn> {
        let marked = self.mark.map(|mark| mark.end);
        marked.max(self.unreadable.map(|_| self.durable_end))
    }

    /// A running log takes or appends entries of this epoch from now on. Nothing is truncated for it, and it is durable
    /// elsewhere that it was accepted. If it led an epoch before this one, it leads no more.
    pub fn accept(&mut self, epoch: Epoch) {
        if epoch > self.accepted {
            self.accepted = epoch;
            self.epoch_started = false;
        }
    }

    /// Recovered, and no segment of this life is begun.
    pub fn is_dormant(&self) -> bool {
        self.state == State::Dormant
    }

    /// The greatest epoch in which entries were taken or appended, or could have been.
    pub fn accepted(&self) -> Epoch {
        self.accepted
    }

    /// (epoch, LSN of its first entry) of all epochs that have entries here, ascending. Of epochs that retention has
    /// taken, the last.
    pub fn epoch_history(&self) -> &[(Epoch, Lsn)] {
        self.epochs.list()
    }

    /// The epoch of this entry; `None` if there is no such entry.
    pub fn epoch_of(&self, lsn: Lsn) -> Option<Epoch> {
        self.epochs.of(lsn).filter(|_| lsn < self.next_lsn)
    }

    /// The position of this log if it ended here.
    pub fn position_at(&self, end: Lsn) -> Position {
        self.epochs.position_at(end)
    }
}
