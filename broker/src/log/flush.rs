//! The flush rule, and nothing else: which commits a flush covers, and when the durable LSN may
//! advance. Knows neither slots nor disks, so that a table can show that it is right.
//!
//! A commit goes `Writing → Written → Flushing → Durable`. A flush of a file covers the commits of
//! that file that were `Written` when it was ordered, and no others. Commits leave in order: the
//! durable LSN advances over a contiguous prefix, also when the segment rolls and two files flush.

use std::collections::VecDeque;

use corelog_protocol::ids::Lsn;

use crate::disk::FileId;
use crate::limits::COMMITS_IN_FLIGHT_MAX;
use crate::planted::{Bug, is_planted};
use crate::time::Monotonic;

/// A flush may start while others run: it covers writes that completed meanwhile. With two, large
/// commits waited for a flush that could not cover them, and a flush is most of what they wait for.
const FLUSHES_IN_FLIGHT_MAX: usize = COMMITS_IN_FLIGHT_MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Writing,
    Written,
    Flushing(u64),
    Durable,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    number: u64,
    file: FileId,
    end_lsn: Lsn,
    stage: Stage,
    write_ordered_at: Monotonic,
    write_done_at: Monotonic,
}

/// A commit that is durable, with all before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Durable {
    pub number: u64,
    pub end_lsn: Lsn,
    pub write_ordered_at: Monotonic,
    pub write_done_at: Monotonic,
}

#[derive(Debug, Default)]
pub struct Pipeline {
    flights: VecDeque<Flight>,
    flushes: Vec<(u64, FileId)>,
    flushes_ordered: u64,
}

impl Pipeline {
    pub fn new() -> Self {
        Self {
            flights: VecDeque::with_capacity(COMMITS_IN_FLIGHT_MAX + 1),
            flushes: Vec::with_capacity(FLUSHES_IN_FLIGHT_MAX),
            flushes_ordered: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.flights.len()
    }

    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// The write of a commit was ordered.
    pub fn on_write_ordered(&mut self, number: u64, file: FileId, end_lsn: Lsn, at: Monotonic) {
        assert!(self.flights.len() < COMMITS_IN_FLIGHT_MAX);
        if let Some(last) = self.flights.back() {
            assert!(last.number < number);
            // Equal: it holds nothing but local entries.
            assert!(last.end_lsn <= end_lsn);
        }
        let write_done_at = Monotonic(0);
        self.flights.push_back(Flight {
            number,
            file,
            end_lsn,
            stage: Stage::Writing,
            write_ordered_at: at,
            write_done_at,
        });
    }

    pub fn on_write_done(&mut self, number: u64, at: Monotonic) {
        let flight = self.flights.iter_mut().find(|flight| flight.number == number);
        let flight = flight.expect("a write completes once, before its commit leaves");
        assert_eq!(flight.stage, Stage::Writing);
        flight.stage = Stage::Written;
        flight.write_done_at = at;
        if is_planted(Bug::AckBeforeFlush) {
            flight.stage = Stage::Durable;
        }
    }

    /// Whether a commit to this file is still on its way.
    pub fn is_in_flight(&self, file: FileId) -> bool {
        self.flights.iter().any(|flight| flight.file == file)
    }

    /// The flush to order now, if any: it must help the oldest commit that no flush covers.
    pub fn next_flush(&mut self) -> Option<(u64, FileId)> {
        if self.flushes.len() == FLUSHES_IN_FLIGHT_MAX {
            return None;
        }
        let is_covered = |stage| matches!(stage, Stage::Flushing(_) | Stage::Durable);
        let oldest = self.flights.iter().find(|flight| !is_covered(flight.stage))?;
        if oldest.stage != Stage::Written {
            return None;
        }
        let file = oldest.file;
        self.flushes_ordered += 1;
        let flush = self.flushes_ordered;
        for flight in &mut self.flights {
            if flight.file == file && flight.stage == Stage::Written {
                flight.stage = Stage::Flushing(flush);
            }
        }
        self.flushes.push((flush, file));
        Some((flush, file))
    }

    pub fn on_flush_done(&mut self, flush: u64) {
        let at = self.flushes.iter().position(|(ordered, _)| *ordered == flush);
        let (_, file) = self.flushes.swap_remove(at.expect("a flush completes once"));
        for flight in &mut self.flights {
            if flight.stage == Stage::Flushing(flush) {
                flight.stage = Stage::Durable;
            }
            if is_planted(Bug::FlushCoversLaterWrite)
                && flight.file == file
                && matches!(flight.stage, Stage::Written | Stage::Flushing(_))
            {
                flight.stage = Stage::Durable;
            }
        }
    }

    /// The oldest commit, once it is durable.
    pub fn pop_durable(&mut self) -> Option<Durable> {
        if is_planted(Bug::AckOutOfOrder) {
            let at = self.flights.iter().rposition(|flight| flight.stage == Stage::Durable)?;
            let flight = self.flights.remove(at)?;
            return Some(durable(&flight));
        }
        if self.flights.front()?.stage != Stage::Durable {
            return None;
        }
        self.flights.pop_front().map(|flight| durable(&flight))
    }
}

fn durable(flight: &Flight) -> Durable {
    Durable {
        number: flight.number,
        end_lsn: flight.end_lsn,
        write_ordered_at: flight.write_ordered_at,
        write_done_at: flight.write_done_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: FileId = FileId(1);
    const B: FileId = FileId(2);
    const T: Monotonic = Monotonic(0);

    fn pipeline(commits: &[(u64, FileId)]) -> Pipeline {
        let mut pipeline = Pipeline::new();
        for (number, file) in commits {
            pipeline.on_write_ordered(*number, *file, Lsn(10 * number), T);
        }
        pipeline
    }

    fn popped(pipeline: &mut Pipeline) -> Vec<u64> {
        std::iter::from_fn(|| pipeline.pop_durable()).map(|durable| durable.number).collect()
    }

    #[test]
    fn flush_does_not_cover_a_write_that_completed_after_it_was_ordered() {
        let mut pipeline = pipeline(&[(1, A), (2, A)]);
        pipeline.on_write_done(1, T);
        let (first, _) = pipeline.next_flush().unwrap();
        pipeline.on_write_done(2, T);
        pipeline.on_flush_done(first);
        assert_eq!(popped(&mut pipeline), [1]);
        let (second, file) = pipeline.next_flush().unwrap();
        assert_eq!(file, A);
        pipeline.on_flush_done(second);
        assert_eq!(popped(&mut pipeline), [2]);
    }

    #[test]
    fn one_flush_covers_all_writes_reported_before_it() {
        let mut pipeline = pipeline(&[(1, A), (2, A), (3, A)]);
        pipeline.on_write_done(2, T);
        assert_eq!(pipeline.next_flush(), None, "it would not help commit 1");
        pipeline.on_write_done(1, T);
        let (flush, _) = pipeline.next_flush().unwrap();
        assert_eq!(pipeline.next_flush(), None);
        pipeline.on_flush_done(flush);
        assert_eq!(popped(&mut pipeline), [1, 2]);
    }

    #[test]
    fn across_a_roll_the_new_file_waits_for_the_old_one() {
        let mut pipeline = pipeline(&[(1, A), (2, B)]);
        pipeline.on_write_done(1, T);
        pipeline.on_write_done(2, T);
        let (old, file) = pipeline.next_flush().unwrap();
        assert_eq!(file, A);
        let (new, file) = pipeline.next_flush().unwrap();
        assert_eq!(file, B);
        pipeline.on_flush_done(new);
        assert_eq!(popped(&mut pipeline), [0; 0], "commit 2 is durable, but 1 is not");
        pipeline.on_flush_done(old);
        assert_eq!(popped(&mut pipeline), [1, 2]);
        assert!(pipeline.is_empty());
    }

    #[test]
    fn flushes_that_complete_in_the_wrong_order_do_not_ack_in_the_wrong_order() {
        let mut pipeline = pipeline(&[(1, A), (2, A)]);
        pipeline.on_write_done(1, T);
        let (first, _) = pipeline.next_flush().unwrap();
        pipeline.on_write_done(2, T);
        let (second, _) = pipeline.next_flush().unwrap();
        pipeline.on_flush_done(second);
        assert_eq!(popped(&mut pipeline), [0; 0]);
        pipeline.on_flush_done(first);
        assert_eq!(popped(&mut pipeline), [1, 2]);
    }
}
