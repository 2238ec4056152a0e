//! The tail cache: the slots of recent commits, from which consumers near the end are served
//! without a read. Commits enter when they are built and leave, oldest first, once they are
//! durable and the bound is passed. Bounded by the capacity of the slots, not by what they hold.

use std::collections::VecDeque;

use corelog_protocol::ids::{Lsn, Offset};

use crate::memory::{Memory, Slot};

/// What a commit did to a partition: one per batch.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// The partition's dense index.
    pub at: u32,
    pub next: Offset,
}

/// A commit whose slot is held.
#[derive(Debug)]
pub struct CachedCommit {
    pub slot: Slot,
    pub capacity: usize,
    /// Bytes of its header and entries.
    pub len: u32,
    pub first_lsn: Lsn,
    pub end_lsn: Lsn,
    pub marks: Vec<Mark>,
    /// Where the commit ends in its file.
    pub end_position: u64,
    pub sequence: u64,
    pub durable: bool,
}

#[derive(Debug, Default)]
pub struct Cache {
    commits: VecDeque<CachedCommit>,
    /// The number of the oldest.
    first: u64,
    bytes: usize,
    spare_marks: Vec<Vec<Mark>>,
}

impl Cache {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of the next commit to enter.
    pub fn next_number(&self) -> u64 {
        self.first + self.commits.len() as u64
    }

    pub fn push(&mut self, commit: CachedCommit) {
        self.bytes += commit.capacity;
        self.commits.push_back(commit);
    }

    pub fn get(&self, number: u64) -> Option<&CachedCommit> {
        self.commits.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// The commits from the one on that has this entry; `None` if it has left, or never was here.
    pub fn from(&self, lsn: Lsn) -> Option<impl Iterator<Item = &CachedCommit>> {
        let at = self.commits.partition_point(|commit| commit.end_lsn <= lsn);
        let has_it = self.commits.get(at).is_some_and(|commit| commit.first_lsn <= lsn);
        has_it.then(|| self.commits.range(at..))
    }

    pub fn get_mut(&mut self, number: u64) -> Option<&mut CachedCommit> {
        self.commits.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// The oldest commit, if it is durable and more is held than `bytes_max`.
    pub fn pop_over(&mut self, bytes_max: usize) -> Option<CachedCommit> {
        let may_go = self.bytes > bytes_max && self.commits.front()?.durable;
        if !may_go {
            return None;
        }
        let commit = self.commits.pop_front()?;
        self.first += 1;
        self.bytes -= commit.capacity;
        Some(commit)
    }

    pub fn marks(&mut self) -> Vec<Mark> {
        self.spare_marks.pop().unwrap_or_default()
    }

    pub fn take_back(&mut self, mut marks: Vec<Mark>) {
        marks.clear();
        self.spare_marks.push(marks);
    }

    /// Gives every slot back.
    pub fn clear<M: Memory>(&mut self, memory: &mut M) {
        for commit in self.commits.drain(..) {
            self.first += 1;
            memory.release(commit.slot);
        }
        self.bytes = 0;
    }
}
