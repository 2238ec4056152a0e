//! The change of segments. The active one is sealed, the prepared one becomes active, and its first
//! entry is a checkpoint. No order to the disk is needed for that, and no acknowledgment waits.

use corelog_protocol::checksum::crc32c;
use corelog_protocol::entry::{EntryKind, entry_bytes};
use corelog_protocol::ids::{Epoch, Lsn};

use super::event::{AppendError, Appended, Body, LogEvent, NO_PARTITION};
use super::format::checkpoint::{self, CheckpointImage};
use super::format::commit_header::COMMIT_HEADER_BYTES;
use super::format::{COMMITS_START, blocks, footer};
use super::prepare::{Around, Heading};
use super::segment::{Active, states};
use super::{Io, LOG_ITSELF, Log, Purpose, State};
use crate::memory::Memory;
use crate::planted::{Bug, is_planted};
use crate::time::Nanos;

/// How long after a roll its checkpoint is durable, nearly always.
const LOOK_AFTER_ROLL: Nanos = Nanos::from_millis(10);

impl Log {
    /// Changes to the prepared segment, if it is ready and has room for an entry of this size.
    pub(super) fn roll<M: Memory>(&mut self, io: &mut Io<'_, M>, bytes: usize) -> bool {
        assert!(self.building.as_ref().is_none_or(|building| building.entry_count == 0));
        let waits_already = std::mem::replace(&mut self.needs_roll, true);
        self.preparer.demand(self.segment_bytes_for(bytes));
        let Some(prepared) = self.preparer.take_ready(false) else {
            self.counters.rolls_waited += u64::from(!waits_already);
            // One that is too small is discarded: nothing else may come that would order so.
            self.advance_preparer(io);
            return false;
        };
        if let Some(building) = self.building.take() {
            // It holds nothing yet, and belongs to the old segment.
            io.memory.release(building.slot);
            self.cache.take_back(building.marks);
        }
        if let Some(active) = self.active.take() {
            let (sealed, room) = active.seal(&self.partitions, &self.epochs, self.next_lsn);
            self.sealed.push_back(sealed);
            self.spare_points = room;
        }
        self.counters.rolls += 1;
        self.activate(io, prepared);
        true
    }

    fn activate<M: Memory>(&mut self, io: &mut Io<'_, M>, prepared: super::prepare::Prepared) {
        let super::prepare::Prepared { sequence, file, file_bytes, nonce } = prepared;
        let room = std::mem::take(&mut self.spare_points);
        let active = Active::new(sequence, file, file_bytes, nonce, self.next_lsn);
        self.active = Some(active.with_room_of(room));
        self.needs_roll = false;
        // One segment more: the oldest may be one too many, once the checkpoint is durable.
        let soon = io.now.monotonic + LOOK_AFTER_ROLL;
        self.retention_at = self.retention_at.map(|at| at.min(soon));
        self.events.push_back(LogEvent::Rolled { first_lsn: self.next_lsn });
        let partitions = states(&self.partitions);
        let image = CheckpointImage {
            partitions,
            producers: self.producers.images(),
            epochs: self.epochs.images(),
            forgotten_time: self.producers.forgotten_time(),
        };
        let body = checkpoint::encode(&image);
        let kind = EntryKind::Checkpoint;
        let appended =
            self.append_entry(io, kind, (LOG_ITSELF, 0), 0, Body::Bytes(&body), true, true);
        appended.expect("a prepared segment has room for its checkpoint");
        self.begin_preparation();
    }

    /// The first segment of this life, and in it the start of the own epoch.
    pub(super) fn advance_start<M: Memory>(&mut self, io: &mut Io<'_, M>) {
        if self.active.is_some() || self.is_closing() || self.state == State::Dormant {
            return;
        }
        let least = self.segment_bytes_least();
        self.preparer.demand(least);
        let Some(prepared) = self.preparer.take_ready(true) else { return };
        self.activate(io, prepared);
        if !self.config.replicated {
            let before = Epoch(self.epoch.0 - 1);
            let appended = self.append_epoch_start(io, before);
            appended.expect("a prepared segment has room for an epoch start");
        }
        self.close_commit(io);
    }

    /// From now on what is appended here is of the own epoch.
    pub(super) fn append_epoch_start<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        before: Epoch,
    ) -> Result<Appended, AppendError> {
        let mut body = [0; 16];
        body[8..].copy_from_slice(&before.0.to_le_bytes());
        let crc = crc32c(&body[4..]);
        body[..4].copy_from_slice(&crc.to_le_bytes());
        let kind = EntryKind::EpochStart;
        let appended =
            self.append_entry(io, kind, (NO_PARTITION, 0), 0, Body::Bytes(&body), true, true)?;
        self.epochs.note(appended.epoch, appended.lsn);
        self.epoch_started = true;
        Ok(appended)
    }

    /// Asks for the segment after the active one: twice its size, up to the configured.
    pub(super) fn begin_preparation(&mut self) {
        let sequence = self.sequence_next;
        self.sequence_next += 1;
        let previous = self.active.as_ref().map(|active| active.file_bytes);
        let least = self.segment_bytes_least();
        let wanted = self.config.next_segment_bytes(previous).max(least);
        self.preparer.begin(sequence, wanted, least);
    }

    /// What a segment needs for its own entries and the largest body.
    pub(super) fn segment_bytes_least(&self) -> u64 {
        let body = entry_bytes(self.config.body_bytes_max as usize);
        self.segment_bytes_for(body).max(self.config.next_segment_bytes(None))
    }

    /// What a segment needs for its own entries and one of this size.
    fn segment_bytes_for(&self, bytes: usize) -> u64 {
        let count = self.partitions.list.len();
        let epochs = self.epochs.len() + 16;
        let checkpoint = checkpoint::bytes_bound(count + 16, self.producers.len(), epochs);
        let checkpoint = entry_bytes(checkpoint);
        // The checkpoint may share its commit, or fill one; an epoch start comes with it.
        let first = blocks((COMMIT_HEADER_BYTES + checkpoint + entry_bytes(16)) as u64);
        let body = blocks((COMMIT_HEADER_BYTES + bytes) as u64);
        let reserve = 4 * blocks((COMMIT_HEADER_BYTES + entry_bytes(8 + 16 * count)) as u64);
        let footer = blocks(footer::bytes_bound(3, 3, count as u64 + 16, epochs as u64));
        COMMITS_START + first + body + reserve + footer
    }

    pub(super) fn advance_preparer<M: Memory>(&mut self, io: &mut Io<'_, M>) {
        let heading = Heading {
            nonce: self.random.next_u64(),
            supersedes: self.supersedes(),
            is_anew: self.begins_anew && self.active.is_none(),
            durable_end: self.durable_end,
            epoch: if self.config.replicated { self.accepted } else { self.epoch },
            mark: self.mark,
        };
        let used =
            self.active.as_ref().map_or(1024, |active| active.position * 1024 / active.file_bytes);
        let mut around = Around {
            config: &self.config,
            counters: &mut self.counters,
            now: io.now.monotonic,
            heading,
            used,
            fill: self.forecast.average() <= self.config.fill_commit_bytes_max,
            is_start: self.active.is_none(),
            urgent: self.needs_roll,
        };
        let owner = self.config.owner;
        let ops = &mut *io.ops;
        let order = self.preparer.advance(&mut around, io.memory, || ops.next_file(owner));
        if let Some(order) = order {
            self.order(io, Purpose::Prepare, order);
        }
    }

    /// The first segment of a life says where the lives before it end.
    fn supersedes(&self) -> Option<Lsn> {
        let is_first = self.active.is_none();
        let forgets = self.config.replicated && is_planted(Bug::AcceptedWithoutTruncation);
        (is_first && !forgets).then_some(self.next_lsn)
    }

    /// Where the log goes on, for those who only look.
    pub fn active_first_lsn(&self) -> Option<Lsn> {
        self.active.as_ref().map(|active| active.first_lsn)
    }
}
