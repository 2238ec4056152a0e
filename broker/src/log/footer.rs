//! Writing the footer of a sealed segment, in the background, once all its commits are durable.
//! Until it is durable the index stays in memory; a start that finds none scans the segment.

use corelog_protocol::checksum::crc32c;

use super::format::footer::{self, TRAILER_BYTES, Trailer};
use super::segment::Place;
use super::{Io, Log, Purpose};
use crate::disk::{DiskDone, DiskOrder, FileId};
use crate::memory::Memory;

#[derive(Clone, Copy, Debug)]
pub(super) struct FooterJob {
    sequence: u64,
    file: FileId,
    trailer: Trailer,
    written: bool,
}

impl FooterJob {
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl Log {
    /// Begins the next footer, if one is due. One at a time.
    pub(super) fn advance_footer<M: Memory>(&mut self, io: &mut Io<'_, M>) {
        if self.footer.is_some() || self.is_closing() {
            return;
        }
        let (durable_end, pipeline) = (self.durable_end, &self.pipeline);
        let due = self.sealed.iter_mut().find(|sealed| {
            matches!(sealed.place, Place::Memory)
                && sealed.end_lsn <= durable_end
                && !pipeline.is_in_flight(sealed.file)
                && !sealed.is_empty()
        });
        let Some(sealed) = due else { return };
        let Some(index) = &sealed.index else { return };
        let image = footer::encode(index);
        let disk_bytes = footer::disk_bytes(image.len() as u64);
        let Some(image_position) = sealed
            .file_bytes
            .checked_sub(disk_bytes)
            .filter(|position| *position >= sealed.commits_end && disk_bytes <= 16 << 20)
        else {
            sealed.place = Place::MemoryForGood;
            return;
        };
        let trailer = Trailer {
            nonce: sealed.nonce,
            sequence: sealed.sequence,
            image_position,
            image_bytes: image.len() as u64,
            image_crc: crc32c(&image),
        };
        let slot = io.memory.allocate(disk_bytes as usize);
        let bytes = &mut io.memory.bytes_mut(slot)[..disk_bytes as usize];
        let trailer_start = bytes.len() - TRAILER_BYTES;
        bytes[..image.len()].copy_from_slice(&image);
        bytes[image.len()..trailer_start].fill(0);
        bytes[trailer_start..].copy_from_slice(&trailer.encode());
        let file = sealed.file;
        self.footer = Some(FooterJob { sequence: sealed.sequence, file, trailer, written: false });
        self.counters.bytes_footer += disk_bytes;
        let len = disk_bytes as u32;
        self.order(
            io,
            Purpose::Footer,
            DiskOrder::Write { file, position: image_position, slot, len },
        );
    }

    pub(super) fn on_footer_done<M: Memory>(&mut self, io: &mut Io<'_, M>, done: &DiskDone) {
        let Some(mut job) = self.footer.take() else { return };
        if matches!(done, DiskDone::Failed(_)) {
            self.fail_with(if job.written {
                super::LogFailure::Flush
            } else {
                super::LogFailure::Write
            });
            return;
        }
        if !job.written {
            job.written = true;
            self.footer = Some(job);
            self.order(io, Purpose::Footer, DiskOrder::Flush { file: job.file });
            return;
        }
        self.counters.footers_written += 1;
        if let Some(sealed) = self.sealed.iter_mut().find(|sealed| sealed.sequence == job.sequence)
        {
            sealed.place = Place::Footer(job.trailer);
            sealed.index = None;
        }
    }
}
