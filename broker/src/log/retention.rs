//! Dropping what has expired: whole segments, oldest first. The new log starts are durable
//! entries before the file goes, and no file goes while a reader holds it.
//!
//! `decide → LogStart entry → durable → Remove, or Rename to a spare → SyncFolder → decide …`

use corelog_protocol::entry::EntryKind;
use corelog_protocol::ids::{Lsn, Offset, PartitionId};

use super::event::{Body, LogEvent, LogFailure, NO_PARTITION};
use super::format::{COMMITS_START, log_start, name};
use super::prepare::Spare;
use super::segment::{Part, Sealed};
use super::{Io, Log, Purpose};
use crate::disk::{DiskDone, DiskOrder};
use crate::memory::Memory;
use crate::planted::{Bug, is_planted};
use crate::time::{Monotonic, Wall};

#[derive(Debug, Default)]
pub(super) enum Retention {
    #[default]
    Idle,
    /// The log starts are in the entry with this LSN; it is not durable yet.
    Announced(Lsn),
    /// Out of the list; its file goes.
    Leaving(Leaving),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    spare: Spare,
    step: LeavingStep,
    keep: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LeavingStep {
    Closing,
    Renaming,
    Removing,
    Syncing,
}

impl Log {
    /// Looks at the oldest segment, not more often than configured, and goes on with what was
    /// begun.
    pub(super) fn advance_retention<M: Memory>(&mut self, io: &mut Io<'_, M>) {
        match self.retention {
            Retention::Idle if self.retention_at.is_some_and(|at| io.now.monotonic >= at) => {
                self.retention_at = Some(io.now.monotonic + self.config.retention_every);
                self.decide_retention(io);
            }
            Retention::Announced(lsn) if self.committed_end() > lsn => {
                self.move_log_starts();
                self.drop_oldest(io);
            }
            _ => {}
        }
    }

    fn decide_retention<M: Memory>(&mut self, io: &mut Io<'_, M>) {
        // An empty segment, prepared in a former life and never used, may go whatever its place.
        if let Some(at) = self.sealed.iter().position(|sealed| sealed.void) {
            self.remove_segment(io, at);
            return;
        }
        if !self.is_recovered_committed() {
            return;
        }
        let Some(oldest) = self.sealed.front() else { return };
        // A segment without batches goes with those after it: a log that has all its batches is whole.
        if self.config.replicated && oldest.parts.is_empty() && oldest.first_lsn == Lsn(0) {
            return;
        }
        let is_pinned = self.reads.is_reading(oldest.sequence)
            || self.footer.as_ref().is_some_and(|job| job.sequence() == oldest.sequence)
            || oldest.end_lsn > self.committed_end()
            || self.pipeline.is_in_flight(oldest.file)
            // Until the next checkpoint is durable, this one may be the last that knows everything.
            || self.active.as_ref().is_none_or(|active| active.durable_position == COMMITS_START)
            || oldest.replay_end > self.needed_from.0;
        if is_pinned {
            return;
        }
        let is_expired = |part: &Part| self.is_expired(part, io.now.wall);
        let expired = if is_planted(Bug::RetentionTooEager) {
            oldest.parts.iter().any(is_expired)
        } else {
            oldest.parts.iter().all(is_expired)
        };
        if !expired {
            return;
        }
        let starts: Vec<(PartitionId, Offset)> =
            oldest.parts.iter().filter_map(|part| self.moved_start(part)).collect();
        if starts.is_empty() {
            self.drop_oldest(io);
            return;
        }
        let body = log_start::encode(starts.iter().copied());
        let appended = self.append_entry(
            io,
            EntryKind::LogStart,
            (NO_PARTITION, 0),
            0,
            Body::Bytes(&body),
            true,
            true,
        );
        if let Ok(appended) = appended {
            for (partition, start) in starts {
                if let Some(partition) = self.partitions.get_mut(partition) {
                    partition.log_start_told = partition.log_start_told.max(start);
                }
            }
            self.retention = Retention::Announced(appended.lsn);
        }
    }

    fn moved_start(&self, part: &Part) -> Option<(PartitionId, Offset)> {
        let partition = self.partitions.get(part.partition)?;
        (partition.log_start.0 < part.next).then_some((part.partition, Offset(part.next)))
    }

    fn is_expired(&self, part: &Part, now: Wall) -> bool {
        let Some(partition) = self.partitions.get(part.partition) else { return false };
        if partition.deleted || part.next <= partition.log_start.0 {
            return true;
        }
        let Some(retention) = partition.retention else { return false };
        // A follower's log starts are its leader's.
        if self.config.replicated && !self.epoch_started {
            return false;
        }
        let too_old = retention.age_ms.is_some_and(|age| {
            now.0.saturating_sub(part.time_max) > i64::try_from(age).unwrap_or(i64::MAX)
        });
        let too_much =
            retention.bytes.is_some_and(|keep| partition.bytes.saturating_sub(part.bytes) >= keep);
        too_old || too_much
    }

    /// What the durable log start entry says becomes true.
    fn move_log_starts(&mut self) {
        let Some(oldest) = self.sealed.front() else { return };
        for part in &oldest.parts {
            if let Some(partition) = self.partitions.get_mut(part.partition) {
                partition.log_start = partition.log_start.max(Offset(part.next));
                self.counters.log_starts_moved += 1;
            }
        }
        self.events.push_back(LogEvent::LogStartMoved);
    }

    fn drop_oldest<M: Memory>(&mut self, io: &mut Io<'_, M>) {
        // A reader may have come since the decision: then later.
        self.retention = Retention::Idle;
        let oldest = self.sealed.front().map(|oldest| oldest.sequence);
        if oldest.is_some_and(|oldest| !self.reads.is_reading(oldest)) {
            self.remove_segment(io, 0);
        }
    }

    fn remove_segment<M: Memory>(&mut self, io: &mut Io<'_, M>, at: usize) {
        let Some(sealed) = self.sealed.remove(at) else { return };
        let Sealed { sequence, file, file_bytes, ref parts, .. } = sealed;
        for part in parts {
            if let Some(partition) = self.partitions.get_mut(part.partition) {
                partition.bytes = partition.bytes.saturating_sub(part.bytes);
            }
        }
        self.counters.segments_dropped += 1;
        self.epochs.forget_below(sealed.end_lsn);
        // A file much smaller than what is needed next is not worth keeping.
        let keep = file_bytes >= self.segment_bytes_least();
        let step = if keep { LeavingStep::Renaming } else { LeavingStep::Closing };
        let leaving = Leaving { spare: Spare { sequence, file, file_bytes }, step, keep };
        self.order_leaving(io, leaving);
    }

    fn order_leaving<M: Memory>(&mut self, io: &mut Io<'_, M>, leaving: Leaving) {
        let (directory, lane) = (self.config.directory, self.config.lane);
        let Spare { sequence, file, .. } = leaving.spare;
        let order = match leaving.step {
            LeavingStep::Closing => DiskOrder::Close { file },
            LeavingStep::Renaming => {
                DiskOrder::Rename { file, to: name::preparation(directory, lane, sequence) }
            }
            LeavingStep::Removing => {
                DiskOrder::Remove { place: name::segment(directory, lane, sequence) }
            }
            LeavingStep::Syncing => DiskOrder::SyncFolder { place: name::folder(directory, lane) },
        };
        self.retention = Retention::Leaving(leaving);
        self.order(io, Purpose::Retention, order);
    }

    pub(super) fn on_retention_done<M: Memory>(&mut self, io: &mut Io<'_, M>, done: &DiskDone) {
        let Retention::Leaving(mut leaving) = self.retention else {
            unreachable!("only a leaving segment gives orders");
        };
        if matches!(done, DiskDone::Failed(_)) {
            // Whether the old name is gone is not known: nothing may be written to the file.
            self.fail_with(LogFailure::Write);
            return;
        }
        match leaving.step {
            LeavingStep::Closing => leaving.step = LeavingStep::Removing,
            // The next drop waits for this one to be durable: names go in the order of the log.
            LeavingStep::Renaming | LeavingStep::Removing => leaving.step = LeavingStep::Syncing,
            LeavingStep::Syncing => {
                self.retention = Retention::Idle;
                // Where one has gone, another may be due.
                self.retention_at = Some(Monotonic(0));
                if leaving.keep
                    && let Some(surplus) = self.preparer.offer_spare(leaving.spare)
                {
                    self.close_and_remove(io, surplus);
                }
                return;
            }
        }
        self.order_leaving(io, leaving);
    }

    /// A spare too many. Its `.new` name would be removed at the next start anyway.
    fn close_and_remove<M: Memory>(&mut self, io: &mut Io<'_, M>, spare: Spare) {
        self.order(io, Purpose::CloseSpare(spare.sequence), DiskOrder::Close { file: spare.file });
    }
}
