//! A replica's disk: a log of which every entry is written, durable or bad, and a vote.

use corelog_protocol::ids::{Epoch, Lsn};

use crate::random::Random;
use crate::replica::{History, LaneLog, Position, Resume, Vote};

/// What an entry is, apart from its place: nothing else is compared by the checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub epoch: Epoch,
    pub unique: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Written,
    Durable,
    /// Written and never durable.
    Torn,
    /// Durable once.
    Rotten,
}

impl State {
    fn is_bad(self) -> bool {
        matches!(self, State::Torn | State::Rotten)
    }
}

/// The log in force, as its replica sees it.
#[derive(Clone, Default, Debug)]
pub struct Disk {
    slots: Vec<(Entry, State)>,
    header_accepted: Epoch,
    /// From the header: entries below may be bad, though nothing of them is left.
    mark: Option<Lsn>,
    is_dormant: bool,
    history: Vec<(Epoch, Lsn)>,
    pub vote: Vote,
    /// Ordered and not durable yet.
    pub storing: Option<Vote>,
    pub opening: Option<Resume>,
}

impl Disk {
    fn readable(&self) -> usize {
        self.slots.iter().take_while(|(_, state)| !state.is_bad()).count()
    }

    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.slots[..self.readable()].iter().map(|(entry, _)| *entry)
    }

    pub fn entry(&self, lsn: Lsn) -> Option<Entry> {
        let (entry, state) = self.slots.get(lsn.0 as usize)?;
        (!state.is_bad()).then_some(*entry)
    }

    pub fn is_durable(&self, lsn: Lsn) -> bool {
        self.slots.get(lsn.0 as usize).is_some_and(|(_, state)| *state == State::Durable)
    }

    pub fn append(&mut self, entry: Entry) {
        assert!(!self.is_dormant && self.opening.is_none());
        self.slots.push((entry, State::Written));
        self.index();
    }

    /// Some of what was written, in order, or all. True if that is anything.
    pub fn flush(&mut self, random: &mut Random) -> bool {
        let written = self.slots.iter().filter(|(_, state)| *state == State::Written).count();
        if written == 0 {
            return false;
        }
        let count = 1 + random.below(written as u64) as usize;
        for (_, state) in
            self.slots.iter_mut().filter(|(_, state)| *state == State::Written).take(count)
        {
            *state = State::Durable;
        }
        if self.mark.is_some_and(|mark| mark <= self.has().end) {
            self.mark = None;
        }
        true
    }

    pub fn finish_store(&mut self) {
        self.vote = self.storing.take().expect("ordered");
    }

    pub fn finish_open(&mut self) {
        let resume = self.opening.take().expect("ordered");
        self.slots.truncate(resume.at.0 as usize);
        assert!(self.readable() == self.slots.len(), "goes on above something bad");
        // Opening flushes what it keeps.
        for (_, state) in &mut self.slots {
            *state = State::Durable;
        }
        self.header_accepted = self.header_accepted.max(resume.accepted);
        self.mark = resume.bad_end;
        self.is_dormant = false;
        self.index();
    }

    /// A crash, and the recovery after it. `tears`: what was written and not flushed may be left as something bad.
    pub fn crash(&mut self, random: &mut Random, tears: bool) {
        // What was under way has happened, or has not.
        if self.storing.is_some() && random.chance(1, 2) {
            self.finish_store();
        }
        if self.opening.is_some() && random.chance(1, 2) {
            self.finish_open();
        }
        (self.storing, self.opening) = (None, None);
        let flushed = self.slots.iter().take_while(|(_, state)| *state != State::Written).count();
        let written = (self.slots.len() - flushed) as u64;
        if tears {
            for (_, state) in &mut self.slots[flushed..] {
                *state = if random.chance(1, 2) { State::Durable } else { State::Torn };
            }
            // Of what did not reach the medium at all there is no trace.
            while matches!(self.slots.last(), Some((_, State::Torn))) && random.chance(1, 2) {
                self.slots.pop();
            }
        } else {
            self.slots.truncate(flushed + random.below(written + 1) as usize);
            for (_, state) in &mut self.slots[flushed..] {
                *state = State::Durable;
            }
        }
        self.is_dormant = true;
        self.index();
    }

    /// A durable entry rots, if there is one there. Noticed by a recovery.
    pub fn rot(&mut self, lsn: Lsn) -> bool {
        match self.slots.get_mut(lsn.0 as usize) {
            Some((_, state)) if *state == State::Durable => *state = State::Rotten,
            _ => return false,
        }
        self.index();
        true
    }

    fn index(&mut self) {
        self.history.clear();
        let entries: Vec<Entry> = self.entries().collect();
        for (lsn, entry) in (0..).zip(entries) {
            if self.history.last().is_none_or(|(epoch, _)| *epoch != entry.epoch) {
                self.history.push((entry.epoch, Lsn(lsn)));
            }
        }
    }
}

impl LaneLog for Disk {
    fn has(&self) -> Position {
        let durable = self.slots.iter().take_while(|(_, state)| *state == State::Durable).count();
        let last = durable.checked_sub(1).map(|last| self.slots[last].0.epoch);
        Position { epoch: last.unwrap_or_default(), end: Lsn(durable as u64) }
    }

    fn bad_end(&self) -> Option<Lsn> {
        let has_bad = self.slots.iter().any(|(_, state)| state.is_bad());
        let end = has_bad.then_some(Lsn(self.slots.len() as u64));
        end.max(self.mark)
    }

    fn is_damaged(&self) -> bool {
        self.slots.iter().any(|(_, state)| state.is_bad())
    }

    fn accepted(&self) -> Epoch {
        self.header_accepted
    }

    fn next_lsn(&self) -> Lsn {
        Lsn(self.readable() as u64)
    }

    fn is_dormant(&self) -> bool {
        self.is_dormant
    }

    fn history(&self) -> &History {
        &self.history
    }
}
