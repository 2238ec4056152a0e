//! A value or a mark that one thread leaves and another one waits for, blocking or as a future.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

#[derive(Debug)]
pub(super) struct Signal<V> {
    state: Mutex<(Option<V>, Option<Waker>)>,
    came: Condvar,
}

impl<V> Default for Signal<V> {
    fn default() -> Self {
        Self { state: Mutex::new((None, None)), came: Condvar::new() }
    }
}

impl<V> Signal<V> {
    fn lock(&self) -> MutexGuard<'_, (Option<V>, Option<Waker>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, value: V) {
        let mut state = self.lock();
        state.0 = Some(value);
        let waker = state.1.take();
        drop(state);
        self.came.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes the value, waiting for it until then. None: it did not come.
    pub(super) fn wait_until(&self, until: Option<Instant>) -> Option<V> {
        let mut state = self.lock();
        loop {
            if let Some(value) = state.0.take() {
                return Some(value);
            }
            state = match until {
                None => self.came.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    self.came.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<V> {
        let mut state = self.lock();
        if let Some(value) = state.0.take() {
            return Poll::Ready(value);
        }
        state.1 = Some(context.waker().clone());
        Poll::Pending
    }
}
