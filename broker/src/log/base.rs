//! What a log begins with whose leader's reaches back no further: the checkpoint at the beginning of the leader's oldest
//! segment. It stands for all entries below, which are committed, and which nobody keeps any more.
//!
//! The follower drops its whole log for it. One durable record says so, the header of the segment that begins anew:
//! before it is durable the old log is as it was, after it nothing of that counts, and until the checkpoint
//! is durable, too, the log is empty, and tells that it perhaps had all below ([`Log::bad_end`]).

use std::rc::Rc;

use corelog_protocol::entry::{ENTRY_HEADER_BYTES, EntryHeader, EntryKind};
use corelog_protocol::ids::{Epoch, LaneId, Lsn, Offset, PartitionId};

use super::event::Resume;
use super::format::COMMITS_START;
use super::format::checkpoint::{self, CheckpointImage};
use super::format::footer::SegmentIndex;
use super::format::is_possible;
use super::recover::Voided;
use super::segment::{Place, Sealed};
use super::{Io, Log};
use crate::memory::Memory;

/// The state of a lane before its entry `first`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Base {
    first: Lsn,
    image: CheckpointImage,
}

impl Base {
    /// From the checkpoint entry of another replica; `None` if it is none, is damaged, or says what cannot be.
    pub fn read(lane: LaneId, entry: &[u8]) -> Option<Self> {
        let header = EntryHeader::decode(entry).ok()?;
        let body = entry.get(ENTRY_HEADER_BYTES..)?.get(..header.body_len as usize)?;
        let is_checkpoint = header.kind == EntryKind::Checkpoint && header.is_local();
        if !is_checkpoint || header.lane != lane || !is_possible(&header) {
            return None;
        }
        header.check_body(body).ok()?;
        let image = checkpoint::decode(body)?;
        let is_below = image.epochs.last().is_none_or(|last| last.first_lsn < header.lsn.0);
        is_below.then_some(Self { first: header.lsn, image })
    }

    /// The LSN of the first entry that is not in it.
    pub fn first(&self) -> Lsn {
        self.first
    }

    /// The epoch of the entry before `first`.
    pub fn epoch(&self) -> Epoch {
        self.image.epochs.last().map_or(Epoch(0), |last| Epoch(last.epoch))
    }
}

impl Log {
    /// As [`Self::start_at`], but nothing that is on the disk counts: the log begins with `base`, at its `first`, which
    /// is where it goes on. The space of what was there is free once the new beginning is durable.
    ///
    /// # Panics
    /// If `resume` goes on elsewhere.
    pub fn start_anew<M: Memory>(&mut self, io: &mut Io<'_, M>, resume: Resume, base: Base) {
        assert_eq!(resume.at, base.first);
        self.base = Some(Box::new(base));
        self.start_at(io, resume);
    }

    /// Becomes what the base says. Returns where the log goes on.
    pub(super) fn begin_with_base(&mut self, base: &Base) -> Lsn {
        for state in &base.image.partitions {
            let partition = self.partitions.ensure(PartitionId(state.partition));
            partition.log_start = Offset(state.log_start);
            partition.log_start_told = Offset(state.log_start);
            partition.next_offset = Offset(state.next_offset);
            partition.deleted |= state.deleted == 1;
        }
        self.producers.load(&base.image.producers, base.image.forgotten_time);
        self.epochs.load(&base.image.epochs);
        self.begins_anew = true;
        base.first
    }

    /// Segments of which nothing counts any more wait for retention, which frees them.
    pub(super) fn keep_voided(&mut self, voided: impl DoubleEndedIterator<Item = Voided>) {
        for Voided { sequence, file, file_bytes, nonce } in voided.rev() {
            let index = SegmentIndex { commits_end: COMMITS_START, ..SegmentIndex::default() };
            let place = Place::MemoryForGood;
            let sealed = Sealed::new(sequence, file, file_bytes, nonce, Rc::new(index), place);
            self.sealed.push_front(sealed);
        }
    }
}
