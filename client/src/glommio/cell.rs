//! A value that one task leaves and another one waits for.

use crate::{Durability, Leader, Offset, StageTimes};
use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Where a record went, and how safe it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivered {
    pub topic: Rc<str>,
    pub partition: u32,
    /// None at level `none`: nobody told.
    pub offset: Option<Offset>,
    /// The level reached: at least the one asked for.
    pub level: Durability,
    /// When the leader appended it, ms since the Unix epoch. 0 at level `none`.
    pub append_time_ms: i64,
    /// Who acknowledged it. None at level `none`: nobody told.
    pub leader: Option<Leader>,
    /// Where the time went at the broker, if asked.
    pub stages: Option<StageTimes>,
}

#[derive(Debug)]
pub(super) struct Cell<V> {
    state: RefCell<(Option<V>, Option<Waker>)>,
}

impl<V> Default for Cell<V> {
    fn default() -> Self {
        Self { state: RefCell::new((None, None)) }
    }
}

impl<V> Cell<V> {
    pub(super) fn set(&self, value: V) {
        let mut state = self.state.borrow_mut();
        state.0 = Some(value);
        let waker = state.1.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    pub(super) async fn wait(&self) -> V {
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            if let Some(value) = state.0.take() {
                return Poll::Ready(value);
            }
            state.1 = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}
