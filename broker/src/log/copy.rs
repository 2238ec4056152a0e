//! Entries of a leader, taken byte for byte. They come in LSN order, from a frame that may hold the leader's local
//! entries, which are skipped; each is checked here before it counts, and copied once, into the commit.

use corelog_protocol::entry::{ENTRY_HEADER_BYTES, EntryError, EntryHeader, EntryKind};
use corelog_protocol::ids::Offset;

use super::event::{AppendError, Body, CopyError};
use super::format::{is_possible, log_start};
use super::producers::{Claim, Known};
use super::replica::Uncommitted;
use super::{Io, Log};
use crate::limits::FRAME_BYTES_HARD;
use crate::memory::{Memory, Piece};
use crate::planted::{Bug, is_planted};

impl Log {
    /// Takes the whole entries at the beginning of `bytes`, as many as fit. Returns how many bytes were taken; if less
    /// than all, the next call says why. Needs an `on_turn` afterwards.
    ///
    /// # Errors
    /// Nothing was taken.
    pub fn append_copy<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        bytes: Piece,
    ) -> Result<u32, CopyError> {
        assert!(self.config.replicated);
        match self.check_open() {
            Ok(()) => return Err(CopyError::Leading),
            Err(AppendError::Recovering) if self.state == super::State::Running => {}
            Err(error) => return Err(CopyError::Refused(error)),
        }
        let mut used = 0;
        while used < bytes.len {
            let rest = Piece { slot: bytes.slot, start: bytes.start + used, len: bytes.len - used };
            match self.copy_entry(io, rest) {
                Ok(len) => used += len,
                Err(error) if used == 0 => return Err(error),
                Err(_) => break,
            }
        }
        if let Some(building) = &mut self.building
            && used > 0
        {
            building.patient_until = None;
        }
        Ok(used)
    }

    fn copy_entry<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        piece: Piece,
    ) -> Result<u32, CopyError> {
        let header = EntryHeader::decode(io.memory.piece(piece)).map_err(CopyError::Entry)?;
        let bytes = header.entry_bytes();
        if bytes > piece.len as usize {
            let have = piece.len as usize;
            return Err(CopyError::Entry(EntryError::Incomplete { have, need: bytes }));
        }
        self.check_copy(&header)?;
        if header.is_local() {
            return Ok(bytes as u32);
        }
        let at = match header.kind {
            EntryKind::Batch => Some(self.place_of_copy(&header)?),
            _ => None,
        };
        self.make_room(io, bytes, false).map_err(CopyError::Refused)?;
        let Some(building) = &mut self.building else {
            return Err(CopyError::Refused(AppendError::Busy));
        };
        if building.make_room(io.memory, bytes) {
            self.counters.commits_regrown += 1;
        }
        let (start, len) = (piece.start as usize + ENTRY_HEADER_BYTES, header.body_len as usize);
        let body = Body::Piece(Piece::new(piece.slot, start, len));
        let body_crc = building.copy_body(io.memory, body, false);
        if body_crc != Some(header.body_crc) && !is_planted(Bug::BodyChecksumNotChecked) {
            let (stored, computed) = (header.body_crc, body_crc.unwrap_or_default());
            return Err(CopyError::Entry(EntryError::BodyCrc { stored, computed }));
        }
        let start = building.push(io.memory, &header);
        let body = start + ENTRY_HEADER_BYTES..start + ENTRY_HEADER_BYTES + len;
        let slot = building.slot;
        self.next_lsn = header.next_lsn();
        self.epoch = header.epoch;
        self.epochs.note(header.epoch, header.lsn);
        self.append_time = self.append_time.max(header.append_time);
        self.counters.entries_copied += 1;
        self.unattested = true;
        self.idle_at = Some(io.now.monotonic + self.config.idle_padding_after);
        self.take_note(&header, at, start);
        let body = &io.memory.bytes(slot)[body];
        match header.kind {
            EntryKind::Batch => {
                if let Some(claim) = Claim::read(header.partition, body) {
                    let EntryHeader { lsn, base_offset, epoch, append_time, .. } = header;
                    let known = Known::new(&claim, lsn, base_offset, epoch, append_time);
                    self.producers.record(&claim, known);
                }
            }
            EntryKind::LogStart => self.note_log_starts(&header, body),
            _ => {}
        }
        Ok(bytes as u32)
    }

    fn check_copy(&self, header: &EntryHeader) -> Result<(), CopyError> {
        if header.lane != self.config.lane {
            return Err(CopyError::Lane(header.lane));
        }
        if header.lsn != self.next_lsn {
            return Err(CopyError::Lsn { expected: self.next_lsn, found: header.lsn });
        }
        let (last, accepted, found) = (self.epochs.last(), self.accepted, header.epoch);
        if (found < last || found > accepted) && !is_planted(Bug::CopyEpochNotChecked) {
            return Err(CopyError::Epoch { last, accepted, found });
        }
        if !is_possible(header) || header.partition == super::LOG_ITSELF && !header.is_local() {
            return Err(CopyError::Entry(EntryError::Counts));
        }
        if header.body_len as usize > FRAME_BYTES_HARD {
            let bytes_max = FRAME_BYTES_HARD as u32;
            return Err(CopyError::Refused(AppendError::TooLarge { bytes_max }));
        }
        Ok(())
    }

    /// Where the list has the partition of a batch, which may be new here.
    fn place_of_copy(&mut self, header: &EntryHeader) -> Result<u32, CopyError> {
        let (partition, found) = (header.partition, header.base_offset);
        let state = self.partitions.ensure(partition);
        let expected = state.next_offset;
        // The cached entries have no gap; and what came before the first entry of all was dropped at the leader.
        let is_next = found == expected || found > expected && state.cached.is_empty();
        if !is_next {
            return Err(CopyError::Offset { partition, expected, found });
        }
        if state.bytes == 0 && expected == Offset(0) && found > expected {
            state.log_start = found;
            state.committed_end = found;
        }
        let place = self.partitions.find(partition);
        Ok(place.expect("just made known"))
    }

    /// The leader's retention has moved them; here it is true when it is committed.
    fn note_log_starts(&mut self, header: &EntryHeader, body: &[u8]) {
        for (partition, start) in log_start::decode(body).into_iter().flatten() {
            let state = self.partitions.ensure(partition);
            state.log_start_told = state.log_start_told.max(start);
            state.next_offset = state.next_offset.max(start);
            if let Some(at) = self.partitions.find(partition) {
                self.uncommitted.push_back(Uncommitted::Start { lsn: header.lsn, at, start });
            }
        }
    }
}
