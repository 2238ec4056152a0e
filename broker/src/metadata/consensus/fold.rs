//! What the records on disk come to: hard state, snapshot, and the log behind it.
//!
//! ```text
//! records   S(1)  H  E2  E3  E4  E3'  E4'   S(3)  H  E4'
//! log                [2, 3,  4]→[2,  3',4']→[4']        a checkpoint says again what is behind it
//! ```
//! An entry with another term than the one at its index goes over it and all behind it. One with the
//! same term is the same entry, said again, and what is behind it stays: else a checkpoint that was cut
//! short by a crash would cut off entries that were acknowledged. A snapshot keeps what is behind it if
//! the log agrees with it, and stands for all of the log if not.
//!
//! Old records go from the front, so the first ones may speak of entries whose predecessors are gone; a
//! complete checkpoint always follows.

use std::collections::VecDeque;
use std::fmt;

use super::entry::{LogEntry, Snapshot};
use super::record::{HardState, Record};
use crate::metadata::codec::BadBytes;

/// What a replica had when it stopped.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    pub hard: HardState,
    /// None on a replica that has not joined yet.
    pub snapshot: Option<Snapshot>,
    /// Behind the snapshot, dense.
    pub log: VecDeque<LogEntry>,
}

/// The records are not what this replica can have written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FoldError {
    /// Not a record, or one of a newer version.
    BadRecord,
    /// An entry whose predecessor is missing.
    Gap { expected: u64, found: u64 },
    /// An entry of an older term than the one before it.
    TermFell { index: u64 },
    /// Entries, and nothing that they follow.
    NoSnapshot,
}

impl fmt::Display for FoldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRecord => write!(f, "a record that is none of this version"),
            Self::Gap { expected, found } => {
                write!(f, "entry {found} follows where entry {expected} was expected")
            }
            Self::TermFell { index } => write!(f, "the term falls at entry {index}"),
            Self::NoSnapshot => write!(f, "entries without the snapshot that they follow"),
        }
    }
}

impl std::error::Error for FoldError {}

/// Folds records in the order in which they were written.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    recovered: Recovered,
    error: Option<FoldError>,
    has_records: bool,
}

impl Fold {
    /// The body of a record.
    pub fn on_record(&mut self, body: &[u8]) {
        self.has_records = true;
        match Record::decode(body) {
            Ok(Record::HardState(state)) => self.on_hard_state(state),
            Ok(Record::Entry { commit, entry }) => self.on_entry(commit, entry),
            Ok(Record::Snapshot(snapshot)) => self.on_snapshot(snapshot),
            Err(BadBytes) => self.fail(FoldError::BadRecord),
        }
    }

    /// No record was seen.
    pub fn is_empty(&self) -> bool {
        !self.has_records
    }

    /// What can be read of a log that `finish` would refuse: the last snapshot, and the entries that were
    /// found behind it, in order, perhaps with gaps. To look at, never to go on from.
    pub fn salvage(&self) -> (Option<&Snapshot>, impl Iterator<Item = &LogEntry>) {
        (self.recovered.snapshot.as_ref(), self.recovered.log.iter())
    }

    /// All records were seen.
    pub fn finish(self) -> Result<Recovered, FoldError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let mut recovered = self.recovered;
        let base = match &recovered.snapshot {
            Some(snapshot) => (snapshot.index, snapshot.term),
            None if recovered.log.is_empty() => (0, 0),
            None => return Err(FoldError::NoSnapshot),
        };
        let first = recovered.log.front().map_or(base.0 + 1, |entry| entry.index);
        if first != base.0 + 1 {
            return Err(FoldError::Gap { expected: base.0 + 1, found: first });
        }
        let last = recovered.log.back().map_or(base, |entry| (entry.index, entry.term));
        let hard = &mut recovered.hard;
        if hard.term < last.1 {
            // A first start that was cut short behind its first record: nobody can have asked for a vote.
            *hard = HardState { term: last.1, vote: None, commit: hard.commit };
        }
        // What was committed beyond the end of this log is on others, and comes again.
        hard.commit = hard.commit.max(base.0).min(last.0);
        Ok(recovered)
    }

    fn on_hard_state(&mut self, state: HardState) {
        let hard = &mut self.recovered.hard;
        let commit = hard.commit.max(state.commit);
        if state.term >= hard.term {
            *hard = state;
        }
        hard.commit = commit;
    }

    fn on_entry(&mut self, commit: u64, entry: LogEntry) {
        let Recovered { hard, snapshot, log } = &mut self.recovered;
        hard.commit = hard.commit.max(commit);
        if snapshot.as_ref().is_some_and(|snapshot| entry.index <= snapshot.index) {
            return;
        }
        if let Some(at) = position(log, entry.index) {
            if log[at].term == entry.term {
                return;
            }
            log.truncate(at);
        }
        let base = snapshot.as_ref().map(|snapshot| (snapshot.index, snapshot.term));
        let last = log.back().map(|last| (last.index, last.term)).or(base);
        let follows = last.is_none_or(|(index, _)| index + 1 == entry.index);
        let error = match last {
            Some((_, term)) if follows && term > entry.term => {
                Some(FoldError::TermFell { index: entry.index })
            }
            Some((index, _)) if !follows && base.is_some() => {
                Some(FoldError::Gap { expected: index + 1, found: entry.index })
            }
            _ => None,
        };
        if !follows && base.is_none() {
            // Its predecessors were in a segment that is gone.
            log.clear();
        }
        log.push_back(entry);
        if let Some(error) = error {
            self.fail(error);
        }
    }

    fn on_snapshot(&mut self, new: Snapshot) {
        let Recovered { hard, snapshot, log } = &mut self.recovered;
        if snapshot.as_ref().is_some_and(|had| had.index > new.index) {
            return;
        }
        hard.commit = hard.commit.max(new.index);
        let had =
            snapshot.as_ref().is_some_and(|had| (had.index, had.term) == (new.index, new.term));
        let agrees = had || position(log, new.index).is_some_and(|at| log[at].term == new.term);
        match agrees {
            true => log.retain(|entry| entry.index > new.index),
            false => log.clear(),
        }
        *snapshot = Some(new);
    }

    fn fail(&mut self, error: FoldError) {
        self.error.get_or_insert(error);
    }
}

/// Where the entry with this index is.
fn position(log: &VecDeque<LogEntry>, index: u64) -> Option<usize> {
    log.binary_search_by_key(&index, |entry| entry.index).ok()
}
