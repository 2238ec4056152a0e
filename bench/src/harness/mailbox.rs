//! From many threads to one that looks now and then: a list behind a lock that is held for a push, or for taking all.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub struct Mailbox<T> {
    list: Mutex<Vec<T>>,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self { list: Mutex::new(Vec::new()) }
    }
}

impl<T> Mailbox<T> {
    pub fn push(&self, letter: T) {
        self.lock().push(letter);
    }

    pub fn append(&self, letters: &mut Vec<T>) {
        self.lock().append(letters);
    }

    /// Everything that has come, into `taken`, which is empty.
    pub fn take(&self, taken: &mut Vec<T>) {
        std::mem::swap(&mut *self.lock(), taken);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
