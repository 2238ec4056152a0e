//! When the messages of one producer were due and sent, until they are both settled and read.

use std::collections::VecDeque;

#[derive(Default)]
pub struct Times {
    /// The number of the first one.
    base: u64,
    entries: VecDeque<Entry>,
}

struct Entry {
    due: u64,
    sent_at: u64,
    is_settled: bool,
    is_read: bool,
}

impl Times {
    pub fn push(&mut self, due: u64, sent_at: u64) {
        self.entries.push_back(Entry { due, sent_at, is_settled: false, is_read: false });
    }

    /// Its answer came: when it was due and sent. `None` if it was settled before.
    pub fn settle(&mut self, number: u64) -> Option<(u64, u64)> {
        let entry = self.entry(number).filter(|entry| !entry.is_settled)?;
        entry.is_settled = true;
        let times = (entry.due, entry.sent_at);
        self.forget();
        Some(times)
    }

    /// Nobody needs to read it.
    pub fn give_up(&mut self, number: u64) {
        if let Some(entry) = self.entry(number) {
            entry.is_read = true;
        }
        self.forget();
    }

    /// A reader has it: when it was due. `None` if it was read before.
    pub fn read(&mut self, number: u64) -> Option<u64> {
        let entry = self.entry(number).filter(|entry| !entry.is_read)?;
        entry.is_read = true;
        let due = entry.due;
        self.forget();
        Some(due)
    }

    #[cfg(test)]
    pub fn remembered(&self) -> usize {
        self.entries.len()
    }

    fn entry(&mut self, number: u64) -> Option<&mut Entry> {
        let at = number.checked_sub(self.base)?;
        self.entries.get_mut(usize::try_from(at).ok()?)
    }

    fn forget(&mut self) {
        while self.entries.pop_front_if(|entry| entry.is_settled && entry.is_read).is_some() {
            self.base += 1;
        }
    }
}
