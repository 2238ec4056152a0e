//! The way in: an entry gets its LSN and offset, its body is copied once into the commit under
//! construction, the commit is written, and when a flush has covered it, it is durable.
//!
//! No allocation per append or commit in steady state: slots come from the pool, lists are reused.

use corelog_protocol::checksum::crc32c;
use corelog_protocol::entry::{ENTRY_BODY_BYTES_MIN, EntryHeader, EntryKind, entry_bytes};
use corelog_protocol::ids::{Lsn, Offset, PartitionId};

use super::cache::{CachedCommit, Mark};
use super::commit::Building;
use super::event::{AppendError, Appended, Body, LogEvent, NO_PARTITION, NewEntry};
use super::format::blocks;
use super::format::commit_header::COMMIT_HEADER_BYTES;
use super::format::log_start;
use super::partitions::CachedEntry;
use super::producers::Known;
use super::replica::Uncommitted;
use super::segment::Indexed;
use super::{Io, LOG_ITSELF, Log, Purpose, State, WaitingFor, append_time, is_folded_by_shard};
use crate::disk::DiskOrder;
use crate::memory::Memory;
use crate::planted::{Bug, is_planted};
use crate::time::Monotonic;

impl Log {
    /// Appends an entry to the commit under construction, copying the body once. Needs an
    /// `on_turn` afterwards.
    ///
    /// # Errors
    /// Nothing was appended; the error says whether and when to try again.
    pub fn append<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        entry: NewEntry<'_>,
    ) -> Result<Appended, AppendError> {
        self.check_open()?;
        let records_max = self.config.records_per_entry_max;
        if entry.record_count > records_max {
            return Err(AppendError::TooManyRecords { records_max });
        }
        let Some(kind) = EntryKind::from_wire(entry.kind) else {
            unreachable!("the shard writes kinds that it can read");
        };
        let is_batch = kind == EntryKind::Batch;
        assert_eq!(is_batch, entry.record_count > 0, "records come in batches");
        assert_ne!(entry.partition, LOG_ITSELF);
        let NewEntry { partition, partition_at, record_count, body, crc_checked, .. } = entry;
        let place = (partition, partition_at);
        let appended =
            self.append_entry(io, kind, place, record_count, body, crc_checked, false)?;
        if let Some(building) = &mut self.building {
            building.await_until(entry.awaited, io.now.monotonic + self.config.patient_wait);
        }
        if let Some(claim) = &entry.claim {
            let Appended { lsn, base_offset, epoch, append_time, .. } = appended;
            let known = Known::new(claim, lsn, base_offset, epoch, append_time);
            self.producers.record(claim, known);
        }
        Ok(appended)
    }

    pub(super) fn check_open(&self) -> Result<(), AppendError> {
        match self.state {
            _ if self.failure.is_some() => Err(AppendError::Failed),
            State::New | State::Starting | State::Dormant | State::Resuming => {
                Err(AppendError::Recovering)
            }
            State::Stopping | State::Closing | State::Stopped => Err(AppendError::Stopping),
            State::Running if self.config.replicated && !self.epoch_started => {
                Err(AppendError::Recovering)
            }
            State::Running => Ok(()),
        }
    }

    /// Sees to it that the next [`Self::append`], of a body of at most this many bytes, is taken: for those
    /// who must know before they decide what to append.
    ///
    /// # Errors
    /// Those of the append.
    pub fn make_room_for<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        body_len: usize,
    ) -> Result<(), AppendError> {
        self.check_open()?;
        let bytes_max = self.config.body_bytes_max;
        if body_len > bytes_max as usize {
            return Err(AppendError::TooLarge { bytes_max });
        }
        self.make_room(io, entry_bytes(body_len), false)
    }

    /// `own`: an entry of the log itself, which may use the last blocks of a segment, so that a
    /// full disk can free itself.
    #[expect(clippy::too_many_arguments, reason = "the fields of an entry, and who wants it")]
    pub(super) fn append_entry<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        kind: EntryKind,
        (partition, partition_at): (PartitionId, u32),
        record_count: u32,
        body: Body<'_>,
        crc_checked: bool,
        own: bool,
    ) -> Result<Appended, AppendError> {
        let body_len = match body {
            Body::Piece(piece) => piece.len as usize,
            Body::Bytes(bytes) => bytes.len(),
        };
        let bytes_max = self.config.body_bytes_max;
        if !own && body_len > bytes_max as usize {
            return Err(AppendError::TooLarge { bytes_max });
        }
        if body_len < ENTRY_BODY_BYTES_MIN {
            return Err(AppendError::CorruptBody);
        }
        let at = match kind {
            EntryKind::Batch => {
                let at = self.partitions.find_at(partition, partition_at);
                let at = at.ok_or(AppendError::UnknownPartition)?;
                if self.partitions.list[at as usize].deleted {
                    return Err(AppendError::UnknownPartition);
                }
                Some(at)
            }
            _ => None,
        };
        let bytes = entry_bytes(body_len);
        self.make_room(io, bytes, own)?;
        let Some(building) = &mut self.building else { return Err(AppendError::Busy) };
        if building.make_room(io.memory, bytes) {
            self.counters.commits_regrown += 1;
        }
        let body_crc =
            building.copy_body(io.memory, body, crc_checked).ok_or(AppendError::CorruptBody)?;
        self.append_time = append_time(self.append_time, io.now);
        let base_offset = at.map_or(Offset(0), |at| self.partitions.list[at as usize].next_offset);
        let header = EntryHeader {
            kind,
            body_len: body_len as u32,
            record_count,
            partition,
            body_crc,
            lsn: self.next_lsn,
            epoch: self.epoch,
            base_offset,
            append_time: self.append_time,
            lane: self.config.lane,
        };
        let start = building.push(io.memory, &header);
        self.next_lsn = header.next_lsn();
        self.counters.entries_appended += 1;
        if kind != EntryKind::Padding {
            self.unattested = true;
        }
        self.idle_at = Some(io.now.monotonic + self.config.idle_padding_after);
        self.take_note(&header, at, start);
        let Self { epoch, append_time, .. } = *self;
        let partition_at = at.unwrap_or_default();
        Ok(Appended { lsn: header.lsn, partition_at, base_offset, epoch, append_time })
    }

    /// The index, the cache and the partition learn of the entry.
    pub(super) fn take_note(&mut self, header: &EntryHeader, at: Option<u32>, start: usize) {
        let (Some(building), Some(active)) = (&mut self.building, &mut self.active) else {
            unreachable!("an entry is in a commit, and that in a segment");
        };
        active.time_max = active.time_max.max(header.append_time);
        active.epoch_last = header.epoch.0;
        let Some(at) = at else {
            if is_folded_by_shard(header) {
                active.replay_end = header.lsn.0 + 1;
            }
            return;
        };
        let partition = &mut self.partitions.list[at as usize];
        let bytes = header.entry_bytes();
        let entry = Indexed {
            base: header.base_offset.0,
            lsn: header.lsn.0,
            position: building.position + start as u64,
            bytes: bytes as u64,
            time: header.append_time,
        };
        active.index(at, partition, entry);
        let next = header.next_offset();
        partition.next_offset = next;
        partition.bytes += bytes as u64;
        partition.cached.push_back(CachedEntry {
            base: header.base_offset,
            next,
            commit: building.number,
            start: start as u32,
            len: bytes as u32,
            time: header.append_time,
        });
        building.marks.push(Mark { at, next });
        if self.config.replicated {
            let (lsn, bytes) = (header.lsn, bytes as u32);
            self.uncommitted.push_back(Uncommitted::End { lsn, at, next, bytes });
        }
    }

    /// Sees to it that the commit under construction takes an entry of this size.
    pub(super) fn make_room<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        bytes: usize,
        own: bool,
    ) -> Result<(), AppendError> {
        // At most: close a full commit, roll, close the commit that the checkpoint filled.
        for _ in 0..4 {
            let Some(active) = &self.active else { return Err(self.refuse()) };
            let begun = self.building.as_ref().filter(|building| building.entry_count > 0);
            if begun.is_some_and(|building| !building.takes(bytes)) {
                if !self.has_pipeline_room() {
                    return Err(self.refuse());
                }
                self.close_commit(io);
                continue;
            }
            let len = begun.map_or(COMMIT_HEADER_BYTES, |building| building.len) + bytes;
            let reserve = if own || self.preparer.is_ready() { 0 } else { self.own_reserve() };
            let footer = active.footer_bound(self.partitions.list.len(), self.epochs.len());
            let end = active.position + blocks(len as u64) + reserve + blocks(footer);
            if end <= active.file_bytes {
                self.open_commit(io);
                return Ok(());
            }
            if begun.is_some() {
                if !self.has_pipeline_room() {
                    return Err(self.refuse());
                }
                self.close_commit(io);
            } else if !self.roll(io, bytes) {
                return Err(self.refuse());
            }
        }
        Err(self.refuse())
    }

    /// What is left at the end of a segment for log starts while no other segment is ready: a
    /// full disk frees itself by retention, which needs one entry.
    fn own_reserve(&self) -> u64 {
        let parts = self.sealed.front().map_or(0, |oldest| oldest.parts.len());
        let entry = entry_bytes(log_start::body_bytes(parts)) + COMMIT_HEADER_BYTES;
        2 * blocks(entry as u64)
    }

    fn refuse(&mut self) -> AppendError {
        if self.preparer.is_full() && self.has_pipeline_room() {
            // Who was told `Busy` before this has not been told that the disk is full.
            if self.waiting_for == WaitingFor::Nothing {
                self.waiting_for = WaitingFor::Space;
            }
            return AppendError::Full;
        }
        self.waiting_for = WaitingFor::Room;
        self.counters.appends_busy += 1;
        AppendError::Busy
    }

    /// True if an append that was refused may be tried again: it will be taken, or it will be
    /// refused for another reason, which the one who waits must hear.
    pub(super) fn has_room(&self) -> bool {
        if self.failure.is_some() {
            return self.waiting_for != WaitingFor::Nothing;
        }
        // A segment that is being filled is ready, but cannot be taken yet.
        let has_segment = self.active.is_some() && (!self.needs_roll || self.preparer.can_take());
        let may_try = match self.waiting_for {
            WaitingFor::Nothing => false,
            WaitingFor::Room => has_segment || self.preparer.is_full(),
            WaitingFor::Space => has_segment,
        };
        may_try && self.has_pipeline_room()
    }

    /// How much must gather before another commit joins those in flight. The more of them, the
    /// larger the next: each write and flush costs an exit to the hypervisor or a trip to the device,
    /// and large batches would otherwise be committed one by one.
    pub(super) fn gather_bytes_now(&self) -> usize {
        self.config.gather_bytes * self.pipeline.len()
    }

    /// Somebody waits for what is in the commit under construction.
    pub fn hurry(&mut self) {
        if let Some(building) = &mut self.building {
            building.patient_until = None;
        }
    }

    /// Nobody has come to wait for the commit under construction, but it has gathered long enough.
    pub(super) fn advance_patience(&mut self, now: Monotonic) {
        if let Some(building) = &mut self.building
            && building.patient_until.is_some_and(|until| until <= now)
        {
            building.patient_until = None;
        }
    }

    pub(super) fn has_pipeline_room(&self) -> bool {
        self.pipeline.len() < self.config.commits_in_flight_max
    }

    fn open_commit<M: Memory>(&mut self, io: &mut Io<'_, M>) {
        let Some(active) = &self.active else { return };
        if self.building.is_none() {
            let (number, marks) = (self.cache.next_number(), self.cache.marks());
            let expected = self.forecast.slot_bytes();
            let (position, lsn) = (active.position, self.next_lsn);
            self.building = Some(Building::open(io.memory, number, position, lsn, expected, marks));
        }
    }

    /// Writes the commit under construction. The pipeline must have room.
    pub(super) fn close_commit<M: Memory>(&mut self, io: &mut Io<'_, M>) {
        assert!(self.has_pipeline_room());
        let Some(building) = self.building.take() else { return };
        let Some(active) = &mut self.active else { unreachable!("a commit is in a segment") };
        assert_eq!(building.position, active.position);
        let durable_end = match is_planted(Bug::DurableEndTooHigh) {
            true => self.next_lsn,
            false => self.durable_end,
        };
        building.finish(io.memory, active.nonce, active.commits, durable_end);
        let disk_bytes = building.disk_bytes();
        let (file, position, slot) = (active.file, building.position, building.slot);
        active.position += disk_bytes as u64;
        active.commits += 1;
        self.counters.commits += 1;
        self.counters.bytes_data += building.len as u64;
        self.counters.bytes_padding += (disk_bytes - building.len) as u64;
        self.forecast.observe(building.len);
        self.preparer.earn(disk_bytes as u64);
        let now = io.now.monotonic;
        self.pipeline.on_write_ordered(building.number, file, self.next_lsn, now);
        self.cache.push(CachedCommit {
            slot,
            capacity: building.capacity,
            len: building.len as u32,
            first_lsn: building.first_lsn,
            end_lsn: self.next_lsn,
            marks: building.marks,
            end_position: active.position,
            sequence: active.sequence,
            durable: false,
        });
        // One reference goes with the order, one stays with the cache.
        io.memory.retain(slot);
        let len = disk_bytes as u32;
        let order = DiskOrder::Write { file, position, slot, len };
        self.order(io, Purpose::CommitWrite(building.number), order);
    }

    /// Orders the flushes that are due.
    pub(super) fn advance_flush<M: Memory>(&mut self, io: &mut Io<'_, M>) {
        while let Some((flush, file)) = self.pipeline.next_flush() {
            self.counters.flushes += 1;
            self.order(io, Purpose::CommitFlush(flush), DiskOrder::Flush { file });
        }
    }

    /// Lets the durable LSN advance over what the flushes have covered.
    pub(super) fn advance_durable<M: Memory>(&mut self, io: &mut Io<'_, M>) {
        while let Some(durable) = self.pipeline.pop_durable() {
            self.counters.commits_durable += 1;
            let reaches_further = durable.end_lsn > self.durable_end;
            self.durable_end = self.durable_end.max(durable.end_lsn);
            let Some(commit) = self.cache.get_mut(durable.number) else {
                unreachable!("a commit stays cached until it is durable");
            };
            commit.durable = true;
            if let Some(active) = &mut self.active
                && active.sequence == commit.sequence
            {
                active.durable_position = active.durable_position.max(commit.end_position);
            }
            if !self.config.replicated {
                for mark in &commit.marks {
                    let partition = &mut self.partitions.list[mark.at as usize];
                    partition.committed_end = partition.committed_end.max(mark.next);
                }
            }
            if reaches_further {
                self.events.push_back(LogEvent::Durable {
                    through: Lsn(durable.end_lsn.0 - 1),
                    write_ordered_at: durable.write_ordered_at,
                    write_done_at: durable.write_done_at,
                    flush_done_at: io.now.monotonic,
                });
            }
            self.idle_at = Some(io.now.monotonic + self.config.idle_padding_after);
        }
        while let Some(commit) = self.cache.pop_over(self.config.tail_cache_bytes) {
            for mark in &commit.marks {
                self.partitions.list[mark.at as usize].cached.pop_front();
            }
            io.memory.release(commit.slot);
            self.cache.take_back(commit.marks);
        }
        if self.config.replicated {
            self.advance_replica();
        } else if self.epoch_started && self.report.is_some() && self.durable_end == self.next_lsn {
            self.announce_recovered(true);
        }
    }

    /// A lane that has fallen idle says on disk that its last commit is durable.
    pub(super) fn advance_idle<M: Memory>(&mut self, io: &mut Io<'_, M>) {
        if !self.unattested {
            self.idle_at = None;
        }
        if self.idle_at.is_none_or(|at| io.now.monotonic < at) {
            return;
        }
        if self.building.is_none() && self.pipeline.is_empty() {
            self.write_padding(io);
        } else {
            // Not idle but slow: the deadline must not stay in the past.
            self.idle_at = Some(io.now.monotonic + self.config.idle_padding_after);
        }
    }

    /// A commit that holds nothing but the durable LSN in its header.
    pub(super) fn write_padding<M: Memory>(&mut self, io: &mut Io<'_, M>) {
        let body = crc32c(&[]).to_le_bytes();
        let kind = EntryKind::Padding;
        // Tried once: a lane without room attests with its next commit instead.
        self.unattested = false;
        self.idle_at = None;
        let appended =
            self.append_entry(io, kind, (NO_PARTITION, 0), 0, Body::Bytes(&body), true, false);
        if appended.is_ok() {
            self.counters.commits_idle_padding += 1;
            self.idle_at = None;
            if self.has_pipeline_room() {
                self.close_commit(io);
            }
        }
    }
}
