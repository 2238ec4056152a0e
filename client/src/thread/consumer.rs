//! Reading partitions.

use super::Inner;
use super::core::Step;
use super::signal::Signal;
use crate::engine::{AssignmentId, ConsumerConfig, ConsumerId, Fetched, FetchedBatch, Position};
use crate::{Error, Offset};
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Reads partitions that are assigned to it, in the order of their offsets. Fetches ahead.
#[derive(Debug)]
pub struct Consumer {
    inner: Arc<Inner>,
    id: ConsumerId,
    signal: Arc<Signal<()>>,
    assignments: BTreeMap<(Box<str>, u32), AssignmentId>,
}

/// An error of one assigned partition. The others go on; this one stands still until it is
/// [sought](Consumer::seek) or [unassigned](Consumer::unassign).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumeError {
    pub topic: Arc<str>,
    pub partition: u32,
    pub error: Error,
}

impl fmt::Display for ConsumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} partition {}: {}", self.topic, self.partition, self.error)
    }
}

impl std::error::Error for ConsumeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl Consumer {
    pub(super) fn new(inner: Arc<Inner>, config: ConsumerConfig) -> Self {
        let signal = Arc::new(Signal::default());
        let mut core = inner.shared.lock();
        let id = core.engine.consumer(config);
        core.consumers.insert(id, Arc::clone(&signal));
        drop(core);
        Self { inner, id, signal, assignments: BTreeMap::new() }
    }

    fn step<R>(&self, act: impl FnOnce(&mut Step<'_>) -> R) -> R {
        let mut step = self.inner.shared.step();
        let result = act(&mut step);
        step.finish();
        result
    }

    /// Starts to read a partition; if it is assigned already, seeks it. Does not wait: a topic or
    /// partition that does not exist comes as an error from [`poll`](Self::poll).
    pub fn assign(&mut self, topic: &str, partition: u32, position: Position) {
        if self.assignment(topic, partition).is_some() {
            return self.seek(topic, partition, position);
        }
        let assignment = self.step(|Step { core, now, .. }| {
            let core = &mut **core;
            core.engine.assign(*now, self.id, topic, partition, position, &mut core.effects)
        });
        self.assignments.insert((topic.into(), partition), assignment);
    }

    /// Stops reading a partition. What was fetched of it is dropped.
    pub fn unassign(&mut self, topic: &str, partition: u32) {
        if let Some(assignment) = self.assignments.remove(&(topic.into(), partition)) {
            self.step(|Step { core, now, .. }| {
                let core = &mut **core;
                core.engine.unassign(*now, assignment, &mut core.effects);
            });
        }
    }

    /// Goes on from `position`. What was fetched is dropped, an error is cleared.
    pub fn seek(&mut self, topic: &str, partition: u32, position: Position) {
        if let Some(assignment) = self.assignment(topic, partition) {
            self.step(|Step { core, now, .. }| {
                let core = &mut **core;
                core.engine.seek(*now, assignment, position, &mut core.effects);
            });
        }
    }

    /// Neither fetches nor gives records of a partition until it is [resumed](Self::resume).
    pub fn pause(&mut self, topic: &str, partition: u32) {
        self.set_paused(topic, partition, true);
    }

    /// Ends a pause.
    pub fn resume(&mut self, topic: &str, partition: u32) {
        self.set_paused(topic, partition, false);
    }

    fn set_paused(&mut self, topic: &str, partition: u32, paused: bool) {
        if let Some(assignment) = self.assignment(topic, partition) {
            self.step(|Step { core, now, .. }| {
                let core = &mut **core;
                core.engine.pause(*now, assignment, paused, &mut core.effects);
            });
        }
    }

    /// The offset of the next record that [`poll`](Self::poll) gives of a partition, once known.
    #[must_use]
    pub fn position(&self, topic: &str, partition: u32) -> Option<Offset> {
        let assignment = self.assignment(topic, partition)?;
        self.inner.shared.lock().engine.position(assignment)
    }

    fn assignment(&self, topic: &str, partition: u32) -> Option<AssignmentId> {
        self.assignments.get(&(topic.into(), partition)).copied()
    }

    /// The next batch, waiting for it at most `timeout`. None: nothing came.
    ///
    /// The batch is checked, and shares the buffer in which it came: nothing is copied per record,
    /// and it may be kept or sent to another thread.
    ///
    /// # Errors
    /// If something is wrong with one of the partitions. The others go on.
    pub fn poll(&mut self, timeout: Duration) -> Result<Option<FetchedBatch>, ConsumeError> {
        let until = Instant::now().checked_add(timeout);
        loop {
            if let Some(taken) = self.take() {
                return taken.map(Some);
            }
            if self.inner.shared.lock().is_stopping || self.signal.wait_until(until).is_none() {
                return self.take().transpose();
            }
        }
    }

    /// The next batch, as a future. Never ends without one.
    ///
    /// # Errors
    /// If something is wrong with one of the partitions. The others go on.
    pub async fn next(&mut self) -> Result<FetchedBatch, ConsumeError> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// The same as a stream would do it, for those who implement one.
    pub fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<FetchedBatch, ConsumeError>> {
        loop {
            if let Some(taken) = self.take() {
                return Poll::Ready(taken);
            }
            if self.signal.poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn take(&self) -> Option<Result<FetchedBatch, ConsumeError>> {
        let fetched = self.step(|Step { core, now, .. }| {
            let core = &mut **core;
            core.engine.take(*now, self.id, &mut core.effects)
        })?;
        Some(match fetched {
            Fetched::Batch(batch) => Ok(batch),
            Fetched::Error { topic, partition, error, .. } => {
                Err(ConsumeError { topic, partition, error })
            }
        })
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let assignments = std::mem::take(&mut self.assignments);
        self.step(|Step { core, now, .. }| {
            let core = &mut **core;
            for assignment in assignments.into_values() {
                core.engine.unassign(*now, assignment, &mut core.effects);
            }
            core.consumers.remove(&self.id);
        });
    }
}
