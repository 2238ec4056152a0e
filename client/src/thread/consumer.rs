//! Reading partitions.

use super::Inner;
use super::core::Step;
use super::signal::Signal;
use super::stream::Batches;
use crate::engine::{
    AssignmentId, BatchRecords, ConsumedRecord, ConsumerConfig, ConsumerId, Fetched, FetchedBatch,
    Position,
};
use crate::{Error, Offset};
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Reads partitions that are assigned to it, in the order of their offsets. Fetches ahead.
///
/// It gives records one by one, or batches, in any mixture: nothing is left out or comes twice.
///
/// | | records | batches |
/// | --- | --- | --- |
/// | blocking, with patience | [`next_record`](Self::next_record) | [`poll`](Self::poll) |
/// | blocking, as an iterator | `for record in consumer`, [`records`](Self::records) | |
/// | as a future | | [`next_batch`](Self::next_batch) |
/// | as a `futures_core::Stream` | the consumer itself | [`batches`](Self::batches) |
#[derive(Debug)]
pub struct Consumer {
    inner: Arc<Inner>,
    id: ConsumerId,
    signal: Arc<Signal<()>>,
    assignments: BTreeMap<(Box<str>, u32), AssignmentId>,
    /// The batch that is given record by record.
    current: Option<BatchRecords>,
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
        Self { inner, id, signal, assignments: BTreeMap::new(), current: None }
    }

    fn step<R>(&self, act: impl FnOnce(&mut Step<'_>) -> R) -> R {
        let mut step = self.inner.shared.step();
        let result = act(&mut step);
        step.finish();
        result
    }

    /// Starts to read a partition; if it is assigned already, seeks it. Does not wait: a topic or
    /// partition that does not exist comes as an error from whatever gives records.
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
        self.give_back();
        if let Some(assignment) = self.assignments.remove(&(topic.into(), partition)) {
            self.step(|Step { core, now, .. }| {
                let core = &mut **core;
                core.engine.unassign(*now, assignment, &mut core.effects);
            });
        }
    }

    /// Goes on from `position`. What was fetched is dropped, an error is cleared.
    pub fn seek(&mut self, topic: &str, partition: u32, position: Position) {
        self.give_back();
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
        self.give_back();
        if let Some(assignment) = self.assignment(topic, partition) {
            self.step(|Step { core, now, .. }| {
                let core = &mut **core;
                core.engine.pause(*now, assignment, paused, &mut core.effects);
            });
        }
    }

    /// The offset of the next record that is given of a partition, once known.
    #[must_use]
    pub fn position(&self, topic: &str, partition: u32) -> Option<Offset> {
        let assignment = self.assignment(topic, partition)?;
        match &self.current {
            Some(records) if records.batch().assignment == assignment && records.len() > 0 => {
                Some(records.offset())
            }
            _ => self.inner.shared.lock().engine.position(assignment),
        }
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
        self.give_back();
        self.wait(Instant::now().checked_add(timeout))
    }

    /// The next record, waiting for it at most `timeout`. None: nothing came. Between two calls the
    /// consumer is free for anything else.
    ///
    /// # Errors
    /// If something is wrong with one of the partitions. The others go on.
    pub fn next_record(
        &mut self,
        timeout: Duration,
    ) -> Result<Option<ConsumedRecord>, ConsumeError> {
        self.record_until(Instant::now().checked_add(timeout))
    }

    /// Records as an iterator, which waits for them as long as it takes.
    pub fn records(&mut self) -> Records<&mut Self> {
        Records { consumer: self, patience: None }
    }

    /// The next batch, as a future. Never ends without one.
    ///
    /// # Errors
    /// If something is wrong with one of the partitions. The others go on.
    pub async fn next_batch(&mut self) -> Result<FetchedBatch, ConsumeError> {
        poll_fn(|context| self.poll_next_batch(context)).await
    }

    /// Batches as a stream. The consumer itself is a stream of records.
    pub fn batches(&mut self) -> Batches<'_> {
        Batches { consumer: self }
    }

    /// The same as a stream would do it, for those who implement one.
    pub fn poll_next_batch(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<FetchedBatch, ConsumeError>> {
        self.give_back();
        loop {
            if let Some(taken) = self.take() {
                return Poll::Ready(taken);
            }
            if self.signal.poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }

    pub(super) fn poll_next_record(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<ConsumedRecord, ConsumeError>> {
        loop {
            if let Some(record) = self.current.as_mut().and_then(Iterator::next) {
                return Poll::Ready(Ok(record));
            }
            match self.poll_next_batch(context) {
                Poll::Ready(Ok(batch)) => self.current = Some(batch.into_iter()),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn record_until(
        &mut self,
        until: Option<Instant>,
    ) -> Result<Option<ConsumedRecord>, ConsumeError> {
        loop {
            if let Some(record) = self.current.as_mut().and_then(Iterator::next) {
                return Ok(Some(record));
            }
            self.current = None;
            match self.wait(until)? {
                Some(batch) => self.current = Some(batch.into_iter()),
                None => return Ok(None),
            }
        }
    }

    /// The next batch. None: it did not come until then, or the client is at its end.
    fn wait(&self, until: Option<Instant>) -> Result<Option<FetchedBatch>, ConsumeError> {
        loop {
            if let Some(taken) = self.take() {
                return taken.map(Some);
            }
            if self.inner.shared.lock().is_stopping || self.signal.wait_until(until).is_none() {
                return self.take().transpose();
            }
        }
    }

    /// What was not yet given of a batch that is given record by record goes back to the engine, which
    /// knows of pauses and seeks.
    fn give_back(&mut self) {
        if let Some(records) = self.current.take()
            && records.len() > 0
        {
            self.step(|Step { core, .. }| {
                let core = &mut **core;
                core.engine.give_back(records.into_batch(), &mut core.effects);
            });
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

/// Records, as an iterator that blocks until there is one. An error of a partition is an item, and
/// the others go on behind it.
#[derive(Debug)]
pub struct Records<C = Consumer> {
    consumer: C,
    patience: Option<Duration>,
}

impl<C> Records<C> {
    /// Ends once nothing has come for this long. Otherwise it never does.
    #[must_use]
    pub fn until_idle(self, patience: Duration) -> Self {
        Self { patience: Some(patience), ..self }
    }
}

impl Records {
    /// The consumer again. Nothing is lost: what was not given yet comes next.
    #[must_use]
    pub fn into_consumer(self) -> Consumer {
        self.consumer
    }
}

impl<C: std::borrow::BorrowMut<Consumer>> Iterator for Records<C> {
    type Item = Result<ConsumedRecord, ConsumeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let until = self.patience.and_then(|patience| Instant::now().checked_add(patience));
        self.consumer.borrow_mut().record_until(until).transpose()
    }
}

impl IntoIterator for Consumer {
    type Item = Result<ConsumedRecord, ConsumeError>;
    type IntoIter = Records;

    fn into_iter(self) -> Records {
        Records { consumer: self, patience: None }
    }
}

impl<'a> IntoIterator for &'a mut Consumer {
    type Item = Result<ConsumedRecord, ConsumeError>;
    type IntoIter = Records<&'a mut Consumer>;

    fn into_iter(self) -> Self::IntoIter {
        self.records()
    }
}
