//! How a sender learns what became of a record: a handle to wait on or to await, or a callback.

use crate::engine::{Delivered, Failed, ObjectiveReport};
use crate::{Durability, Error, Leader, Offset, StageTimes};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Where a record went, and how safe it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    pub topic: Arc<str>,
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

/// A record on its way. Dropping it does not take the record back.
///
/// It is a `Future` for any runtime, and can be waited for in plain code.
#[derive(Debug)]
#[must_use = "nobody else learns what became of the record"]
pub struct Delivery {
    cell: Arc<Cell>,
}

#[derive(Debug, Default)]
pub(super) struct Cell {
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Result<Report, Error>>,
    is_done: bool,
    waker: Option<Waker>,
}

/// Called with the tag of a record and what became of it.
pub(super) type Callback = dyn Fn(u64, Result<&Report, &Error>) + Send + Sync;

/// Whom to tell.
pub(super) enum Token {
    Nobody,
    Handle(Arc<Cell>),
    Callback(Arc<Callback>, u64),
}

impl Delivery {
    pub(super) fn new() -> (Self, Arc<Cell>) {
        let cell = Arc::new(Cell::default());
        (Self { cell: Arc::clone(&cell) }, cell)
    }

    /// Blocks until the record is delivered or failed, which it is within the delivery deadline.
    ///
    /// # Errors
    /// What became of the record instead: see [`Error::is_definite`].
    pub fn wait(self) -> Result<Report, Error> {
        let mut state = self.cell.lock();
        while !state.is_done {
            state = self.cell.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.outcome.take().unwrap_or(Err(Error::Closed))
    }

    /// As [`wait`](Self::wait), for at most `patience`. Gives itself back if that was too short.
    ///
    /// # Errors
    /// Itself.
    pub fn wait_for(self, patience: Duration) -> Result<Result<Report, Error>, Self> {
        let until = Instant::now() + patience;
        let mut state = self.cell.lock();
        while !state.is_done {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(state);
                return Err(self);
            }
            let waited = self.cell.done.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(state.outcome.take().unwrap_or(Err(Error::Closed)))
    }

    /// True once [`wait`](Self::wait) would not block.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.cell.lock().is_done
    }
}

impl Future for Delivery {
    type Output = Result<Report, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.cell.lock();
        if state.is_done {
            return Poll::Ready(state.outcome.take().unwrap_or(Err(Error::Closed)));
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => state.waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl Cell {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, outcome: Result<Report, Error>) {
        let mut state = self.lock();
        state.outcome = Some(outcome);
        state.is_done = true;
        let waker = state.waker.take();
        drop(state);
        self.done.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Token {
    pub(super) fn is_callback(&self) -> bool {
        matches!(self, Self::Callback(..))
    }
}

/// A batch whose fate is known and whose senders are still to be told.
#[derive(Debug)]
pub(super) enum Outcome {
    Delivered(Delivered<Token>),
    Failed(Failed<Token>),
    Objective(ObjectiveReport, Listener),
}

/// Called when the objective becomes infeasible, or feasible again.
#[derive(Clone)]
pub(super) struct Listener(pub Arc<dyn Fn(&ObjectiveReport) + Send + Sync>);

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listener")
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Outcome {
    pub(super) fn has_callback(&self) -> bool {
        match self {
            Self::Delivered(delivered) => delivered.tokens.iter().any(Token::is_callback),
            Self::Failed(failed) => failed.tokens.iter().any(Token::is_callback),
            Self::Objective(..) => true,
        }
    }

    /// Tells every sender of the batch, and gives the token vector back.
    pub(super) fn tell(self) -> Vec<Token> {
        match self {
            Self::Objective(report, Listener(call)) => {
                call(&report);
                Vec::new()
            }
            Self::Delivered(delivered) => {
                let Delivered { mut tokens, base_offset, .. } = delivered;
                let mut report = Report {
                    topic: delivered.topic,
                    partition: delivered.partition,
                    offset: None,
                    level: delivered.level,
                    append_time_ms: delivered.append_time_ms,
                    leader: delivered.leader,
                    stages: delivered.stages,
                };
                for (index, token) in (0u64..).zip(tokens.drain(..)) {
                    report.offset = base_offset.map(|base| base.advance(index));
                    match token {
                        Token::Nobody => {}
                        Token::Handle(cell) => cell.tell(Ok(report.clone())),
                        Token::Callback(callback, tag) => callback(tag, Ok(&report)),
                    }
                }
                tokens
            }
            Self::Failed(Failed { mut tokens, error, .. }) => {
                for token in tokens.drain(..) {
                    match token {
                        Token::Nobody => {}
                        Token::Handle(cell) => cell.tell(Err(error.clone())),
                        Token::Callback(callback, tag) => callback(tag, Err(&error)),
                    }
                }
                tokens
            }
        }
    }
}
