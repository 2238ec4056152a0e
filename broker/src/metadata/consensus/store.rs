//! The log as the Raft crate reads it: in memory, behind the last snapshot and a little before it. What is
//! here may not be durable yet; the crate is told of that separately.

use std::cell::Cell;
use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

/// Entries kept before a checkpoint, so that a follower which is a little behind needs no snapshot.
const TRAILING: u64 = 256;

#[derive(Debug, Default)]
pub(super) struct Store {
    hard: HardState,
    members: ConfState,
    /// Index and term of what is before the first entry.
    base: (u64, u64),
    entries: VecDeque<Entry>,
    /// To be sent to those who are behind the first entry.
    outgoing: Option<Snapshot>,
    is_snapshot_wanted: Cell<bool>,
}

impl Store {
    pub fn new(hard: HardState, members: ConfState, base: (u64, u64)) -> Self {
        Self { hard, members, base, ..Self::default() }
    }

    fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    /// Goes over what is at these indexes and behind them.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > self.base.0 && first.index <= self.last() + 1);
        self.entries.truncate((first.index - self.base.0 - 1) as usize);
        self.entries.extend(entries.iter().cloned());
    }

    /// A snapshot from the leader stands for everything.
    pub fn restore(&mut self, index: u64, term: u64) {
        self.base = (index, term);
        self.entries.clear();
        self.outgoing = None;
    }

    /// What was applied through this index is in a checkpoint.
    pub fn compact(&mut self, applied: u64) {
        let to = applied.saturating_sub(TRAILING);
        while self.base.0 < to
            && let Some(entry) = self.entries.pop_front()
        {
            self.base = (entry.index, entry.term);
        }
        // Who installed it could not go on from there.
        self.outgoing.take_if(|snapshot| snapshot.get_metadata().index < self.base.0);
    }

    pub fn since(&self, index: u64) -> impl Iterator<Item = &Entry> {
        self.entries.iter().skip(index.saturating_sub(self.base.0) as usize)
    }

    pub fn offer(&mut self, snapshot: Option<Snapshot>) {
        self.outgoing = snapshot;
    }

    pub fn has_offer(&self) -> bool {
        self.outgoing.is_some()
    }

    /// True once after each time that a snapshot was asked for and not there.
    pub fn take_wanted(&self) -> bool {
        self.is_snapshot_wanted.take()
    }
}

impl Storage for Store {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard.clone(), self.members.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last() + 1 && low <= high);
        let (from, to) = (low - self.base.0 - 1, high - self.base.0 - 1);
        let mut bytes_left = max_size.into().unwrap_or(u64::MAX);
        let mut found = Vec::new();
        for entry in self.entries.range(from as usize..to as usize) {
            let bytes = (entry.data.len() + 32) as u64;
            if bytes > bytes_left && !found.is_empty() {
                break;
            }
            bytes_left = bytes_left.saturating_sub(bytes);
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base.0 {
            return Ok(self.base.1);
        }
        let Some(at) = index.checked_sub(self.base.0 + 1) else {
            return Err(Error::Store(StorageError::Compacted));
        };
        let entry = self.entries.get(at as usize);
        entry.map(|entry| entry.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _: u64) -> raft::Result<Snapshot> {
        match &self.outgoing {
            Some(snapshot) if snapshot.get_metadata().index >= request_index => {
                Ok(snapshot.clone())
            }
            _ => {
                self.is_snapshot_wanted.set(true);
                Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}
