//! The sequences of one partition's batches, by which the broker knows a retry from news.
//!
//! A batch is stamped when it first leaves, and keeps its stamp however often it is sent again. The broker takes
//! stamps of an epoch without a gap only. When a batch has been given up before it was appended, or was lost with the leader that
//! had acknowledged it, the next one finds that gap: then a new epoch begins, and what is not answered is stamped anew. What may have been
//! appended under its old stamp names that too, and whoever leads judges both at once. It does so once: what is in doubt under two stamps
//! must not get a third, and its outcome stays open.

use super::queue::Batch;

/// As many batches as a broker remembers: more in flight could not all be told from news.
pub(super) const WINDOW_MAX: usize = 5;

/// Where a batch stands in its partition's line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    pub epoch: u16,
    /// Of the first record.
    pub sequence: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Line {
    pub epoch: u16,
    /// Of the next record that is stamped.
    next: u32,
    /// Batches that were stamped.
    count: u64,
}

impl Line {
    /// The stamp that a batch leaves with; none if it may stand in the log under two earlier ones.
    pub(super) fn stamp<T>(&self, batch: &Batch<T>) -> Option<Stamp> {
        match batch.stamp {
            Some(stamp) if stamp.epoch == self.epoch => Some(stamp),
            Some(_) if batch.is_unsure && batch.former.is_some() => None,
            _ => Some(Stamp { epoch: self.epoch, sequence: self.next }),
        }
    }

    /// A batch leaves with this stamp.
    pub(super) fn take<T>(&mut self, batch: &mut Batch<T>, stamp: Stamp) {
        if batch.stamp != Some(stamp) {
            let old = batch.stamp.replace(stamp);
            batch.former = old.filter(|_| batch.is_unsure);
            batch.place = self.count;
            self.count += 1;
            self.next = stamp.sequence.wrapping_add(batch.record_count);
        }
    }

    /// One more may be stamped, and the broker will still remember this one.
    pub(super) fn has_room_after<T>(&self, oldest: &Batch<T>) -> bool {
        self.count - oldest.place < WINDOW_MAX as u64
    }

    /// There is a gap that nothing will fill.
    pub(super) fn begin_epoch(&mut self) {
        self.epoch = self.epoch.saturating_add(1);
        self.next = 0;
    }
}
