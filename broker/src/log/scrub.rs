//! The scrub: a slow walk through the sealed segments, over and over, that compares every entry with its checksum. (The
//! active one is walked through only after a reader has met damage in it: a start reads it anyway.) What
//! lies on a disk unread may rot unread, until the other copies have rotted, too. It reads as a follower would, gives what it
//! has read back at once, and is no faster than configured. What it finds is told like any other damage
//! ([`Log::has`], `LogEvent::Damaged`).

use corelog_protocol::ids::Lsn;

use super::event::{Copies, LogEvent, ReadId};
use super::{Io, Log};
use crate::memory::{Memory, Piece};
use crate::time::{Monotonic, Nanos};

/// So much is read in one go.
const STEP_BYTES: u32 = 256 << 10;
/// How long a walk rests at its end.
const REST: Nanos = Nanos::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Scrub {
    /// The next entry to look at.
    next: Lsn,
    /// Not before this time.
    due: Monotonic,
    reading: Option<ReadId>,
    /// A read has met damage in a segment that ends here, and nobody knows yet which entry it is: up to here the walk
    /// does not rest, and does not wait for being turned on.
    hurries_to: Option<Lsn>,
    /// The segment that was searched last.
    searched: Option<u64>,
}

impl Log {
    fn is_scrubbing(&self) -> bool {
        self.config.scrub_bytes_per_second > 0 || self.scrub.hurries_to.is_some()
    }

    pub(super) fn scrub_deadline(&self) -> Option<Monotonic> {
        let has_any = !self.sealed.is_empty() || self.scrub.hurries_to.is_some();
        let is_due = self.is_scrubbing() && self.scrub.reading.is_none() && has_any;
        is_due.then_some(self.scrub.due)
    }

    /// Reads on, if it is time.
    pub(super) fn advance_scrub<M: Memory>(&mut self, io: &mut Io<'_, M>) {
        if self.scrub_deadline().is_none_or(|due| io.now.monotonic < due) {
            return;
        }
        let next = self.scrub.next;
        let mut held = self.sealed.iter().filter(|sealed| sealed.end_lsn > sealed.first_lsn);
        let sealed = held.find(|sealed| sealed.end_lsn.min(self.durable_end) > next);
        let hurries = self.scrub.hurries_to.is_some_and(|end| end > next);
        let active = self.active_first_lsn().filter(|_| hurries && next < self.durable_end);
        let first_lsn = match sealed.map(|sealed| sealed.first_lsn).or(active) {
            Some(first_lsn) => first_lsn,
            None => {
                let oldest = self.sealed.iter().find(|it| it.end_lsn > it.first_lsn);
                self.scrub.next = oldest.map_or(Lsn(0), |oldest| oldest.first_lsn);
                self.scrub.hurries_to = None;
                self.scrub.due = io.now.monotonic + REST;
                return;
            }
        };
        let from = next.max(first_lsn);
        self.scrub.next = from;
        self.scrub.reading = self.read_sealed(io, from, STEP_BYTES);
        if self.scrub.reading.is_none() {
            // Others read.
            self.scrub.due = io.now.monotonic + Nanos::from_millis(100);
        }
    }

    /// A read is over. Gives the pieces back if it was one of the scrub's.
    pub(super) fn scrubbed<M: Memory>(
        &mut self,
        io: &mut Io<'_, M>,
        read: ReadId,
        answer: Copies,
        pieces: Vec<Piece>,
    ) -> Option<Vec<Piece>> {
        if self.scrub.reading != Some(read) {
            return Some(pieces);
        }
        self.scrub.reading = None;
        for piece in pieces {
            io.memory.release(piece.slot);
        }
        let bytes = match answer {
            Copies::Ready { end, bytes } => {
                self.scrub.next = end.max(self.scrub.next.next());
                bytes
            }
            Copies::Unreadable { lsn } => {
                self.counters.scrub_damaged += 1;
                self.scrub.next = lsn.max(self.scrub.next).next();
                STEP_BYTES
            }
            _ => STEP_BYTES,
        };
        self.counters.scrub_bytes += u64::from(bytes);
        if self.scrub.hurries_to.is_some_and(|end| self.scrub.next >= end) {
            self.scrub.hurries_to = None;
        }
        let rate = match self.scrub.hurries_to {
            Some(_) => u64::MAX,
            None => self.config.scrub_bytes_per_second.max(1),
        };
        let pause = u64::from(bytes).saturating_mul(1_000_000_000) / rate;
        self.scrub.due = io.now.monotonic + Nanos(pause);
        None
    }

    /// A reader of one partition has met damage in this segment: which entry it is, is found out now, for
    /// another replica may have it.
    pub(super) fn search_damage(&mut self, sequence: u64) {
        if !self.config.replicated {
            return;
        }
        let sealed = self.sealed.iter().find(|sealed| sealed.sequence == sequence);
        let active = self.active.as_ref().filter(|active| active.sequence == sequence);
        let (first, end) = match (sealed, active) {
            (Some(sealed), _) => (sealed.first_lsn, sealed.end_lsn.min(self.durable_end)),
            (None, Some(active)) => (active.first_lsn, self.durable_end),
            (None, None) => return,
        };
        let is_known = self.unreadable.is_some_and(|lsn| first <= lsn && lsn < end);
        // A search that found nothing is not made again and again.
        if end > first && !is_known && self.scrub.searched != Some(sequence) {
            self.scrub.searched = Some(sequence);
            self.scrub.next = first;
            self.scrub.hurries_to = Some(end);
            self.scrub.due = Monotonic(0);
        }
    }

    /// A reader has met damage, and it is not known yet which entry it is.
    pub fn is_searching(&self) -> bool {
        self.scrub.hurries_to.is_some()
    }

    /// What was durable has been damaged. Nothing is told of it on disk: a start finds it again, or a read does.
    pub(super) fn on_unreadable(&mut self, lsn: Lsn) {
        let is_news = self.unreadable.is_none_or(|known| lsn < known);
        self.unreadable = Some(self.unreadable.map_or(lsn, |known| known.min(lsn)));
        if is_news {
            self.scrub.searched = None;
            let sealed = self.sealed.iter().find(|it| it.first_lsn <= lsn && lsn < it.end_lsn);
            let active = self.active.as_ref().map(|active| active.sequence);
            let sequence = sealed.map(|sealed| sealed.sequence).or(active).unwrap_or_default();
            self.events.push_back(LogEvent::Damaged { lsn, sequence });
        }
    }
}
