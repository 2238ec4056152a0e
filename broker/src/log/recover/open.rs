//! The first part of a start: which segments there are, their headers and their footers.

use super::{Old, Recovery, Step};
use crate::disk::ListedFile;
use crate::limits::BLOCK_BYTES;
use crate::log::event::LogFailure;
use crate::log::format::COMMITS_START;
use crate::log::format::footer::{self, Trailer};
use crate::log::format::name::{self, Name};
use crate::log::format::segment_header::{SegmentHeader, SegmentHeaderError};
use crate::log::{Io, Log};
use crate::memory::Memory;

impl Log {
    /// Once more, then it is a failure: without headers nothing can be said.
    pub(super) fn retry_read<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        recovery: &mut Recovery,
    ) -> Result<(), LogFailure> {
        let step = recovery.step;
        if !recovery.retried {
            recovery.retried = true;
            self.order_step(io, recovery, step);
            return Ok(());
        }
        recovery.retried = false;
        match step {
            // A footer that cannot be read is replaced by a walk.
            Step::Trailer(at) | Step::Image(at) => {
                self.counters.footers_unreadable += 1;
                recovery.old[at].trailer = None;
                self.order_step(io, recovery, Step::Open(at + 1));
                Ok(())
            }
            _ => Err(LogFailure::Recovery),
        }
    }

    pub(super) fn on_listed<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        recovery: &mut Recovery,
        files: Vec<ListedFile>,
    ) {
        for ListedFile { name: file_name, bytes } in files {
            match name::parse(&file_name) {
                Name::Segment(sequence) => recovery.old.push(Old {
                    sequence,
                    file: io.ops.next_file(self.config.owner),
                    file_bytes: bytes,
                    opened: false,
                    header: None,
                    trailer: None,
                    index: None,
                    expected: None,
                }),
                Name::Preparation => recovery.leftovers.push(file_name),
                Name::Other => {}
            }
        }
        recovery.old.sort_by_key(|old| old.sequence);
        recovery.report.segments = recovery.old.len() as u64;
        self.order_step(io, recovery, Step::RemoveLeftover(0));
    }

    pub(super) fn on_header<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        recovery: &mut Recovery,
        at: usize,
    ) -> Result<(), LogFailure> {
        let Some(slot) = recovery.slot else { return Err(LogFailure::Recovery) };
        let decoded =
            SegmentHeader::decode_blocks(&io.memory.bytes(slot)[..COMMITS_START as usize]);
        let old = &mut recovery.old[at];
        match decoded {
            Ok(header) => {
                let is_ours = header.lane == self.config.lane
                    && header.cluster == self.config.cluster
                    && header.sequence == old.sequence;
                if !is_ours {
                    return Err(LogFailure::Foreign);
                }
                recovery.epoch_seen = recovery.epoch_seen.max(header.epoch.0);
                recovery.accepted = recovery.accepted.max(header.epoch);
                old.header = Some(header);
            }
            Err(SegmentHeaderError::Version(_)) => return Err(LogFailure::Foreign),
            // Its name is given only when its header is durable: both copies are damaged.
            Err(SegmentHeaderError::Garbage) => return Err(LogFailure::Recovery),
        }
        self.order_step(io, recovery, Step::Trailer(at));
        Ok(())
    }

    pub(super) fn on_trailer<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        recovery: &mut Recovery,
        at: usize,
    ) {
        let Some(slot) = recovery.slot else { return };
        let old = &mut recovery.old[at];
        let block = &io.memory.bytes(slot)[..BLOCK_BYTES];
        old.trailer = Trailer::decode(block, old.file_bytes).filter(|trailer| {
            trailer.sequence == old.sequence
                && trailer.nonce == old.nonce()
                && trailer.image_bytes <= 16 << 20
        });
        self.order_step(io, recovery, Step::Image(at));
    }

    pub(super) fn on_image<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        recovery: &mut Recovery,
        at: usize,
    ) {
        let Some(slot) = recovery.slot else { return };
        let old = &mut recovery.old[at];
        if let Some(trailer) = old.trailer {
            let image = &io.memory.bytes(slot)[..trailer.image_bytes as usize];
            old.index = footer::decode(&trailer, image, old.file_bytes);
            if old.index.is_none() {
                self.counters.footers_unreadable += 1;
            }
        }
        self.order_step(io, recovery, Step::Open(at + 1));
    }
}
