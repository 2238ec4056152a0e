//! Consumers: groups of assignments that share a budget, and what can be taken of them.

use super::assignment::AssignmentId;
use super::time::Now;
use super::{ConsumerConfig, Effect, Effects, Engine};
use crate::Error;
use crate::engine::accept::FetchedBatch;
use std::collections::VecDeque;
use std::sync::Arc;

/// A group of assignments that share a budget.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConsumerId(pub u32);

/// What [`take`](Engine::take) hands out.
#[derive(Clone, Debug)]
pub enum Fetched {
    Batch(FetchedBatch),
    /// The assignment stands still until it is sought or ended.
    Error {
        assignment: AssignmentId,
        topic: Arc<str>,
        partition: u32,
        error: Error,
    },
}

/// Of the budget, what one fetch may bring.
pub(super) const BUDGET_PARTS: usize = 8;

#[derive(Debug)]
pub(super) struct Consumer {
    pub config: ConsumerConfig,
    /// Fetched and not taken; asked for and not come.
    pub used: usize,
    pub reserved: usize,
    /// Assignments that wait for room in the budget.
    pub starved: Vec<AssignmentId>,
    /// Assignments with something to take, in turn.
    pub readable: VecDeque<AssignmentId>,
}

impl Consumer {
    pub(super) fn new(config: ConsumerConfig) -> Self {
        Self { config, used: 0, reserved: 0, starved: Vec::new(), readable: VecDeque::new() }
    }

    pub(super) fn room(&self) -> usize {
        self.config.ahead_bytes_max.saturating_sub(self.used + self.reserved)
    }
}

impl<T> Engine<T> {
    /// The next batch or error of a consumer, in turn over its assignments, and makes room for more.
    ///
    /// # Panics
    /// If there is no such consumer.
    pub fn take(
        &mut self,
        now: Now,
        consumer: ConsumerId,
        effects: &mut Effects<T>,
    ) -> Option<Fetched> {
        self.clock = now.monotonic;
        while let Some(id) = self.consumers[consumer.0 as usize].readable.pop_front() {
            let Some(at) = self.assignments.get_mut(&id) else { continue };
            at.is_readable = false;
            if at.is_paused {
                continue;
            }
            if let Some(batch) = at.buffered.pop_front() {
                let bytes = batch.bytes();
                at.buffered_bytes -= bytes;
                if !at.buffered.is_empty() || at.error.is_some() {
                    at.is_readable = true;
                    self.consumers[consumer.0 as usize].readable.push_back(id);
                }
                self.consumers[consumer.0 as usize].used -= bytes;
                self.want_fetch(id);
                self.feed_starved(consumer);
                self.pump_all(now, effects);
                match batch.unpack(&mut self.codec) {
                    Ok(batch) => return Some(Fetched::Batch(batch)),
                    Err(error) => self.fail_at(id, error, effects),
                }
                continue;
            }
            if let Some(error) = at.error.take() {
                let (topic, partition) = (Arc::clone(&at.name), at.partition);
                return Some(Fetched::Error { assignment: id, topic, partition, error });
            }
        }
        None
    }

    /// Takes back the rest of a batch that was taken, if its assignment has not been sought or ended
    /// since: it is given again, before what follows it.
    pub fn give_back(&mut self, batch: FetchedBatch, effects: &mut Effects<T>) {
        let id = batch.assignment;
        if let Some(at) = self.assignments.get_mut(&id) {
            let bytes = batch.bytes();
            at.buffered_bytes += bytes;
            at.buffered.push_front(batch);
            self.consumers[at.consumer.0 as usize].used += bytes;
            self.note_readable(id, effects);
        }
    }

    /// An error in what was fetched: what was fetched after it is dropped.
    pub(super) fn fail_at(&mut self, id: AssignmentId, error: Error, effects: &mut Effects<T>) {
        if let Some(at) = self.assignments.get_mut(&id) {
            at.buffered.clear();
            let bytes = std::mem::take(&mut at.buffered_bytes);
            self.consumers[at.consumer.0 as usize].used -= bytes;
            self.fail_assignment(id, error, effects);
        }
    }

    pub(super) fn note_readable(&mut self, id: AssignmentId, effects: &mut Effects<T>) {
        let Some(at) = self.assignments.get_mut(&id) else { return };
        if at.is_readable || at.is_paused || (at.buffered.is_empty() && at.error.is_none()) {
            return;
        }
        at.is_readable = true;
        let readable = &mut self.consumers[at.consumer.0 as usize].readable;
        readable.push_back(id);
        if readable.len() == 1 {
            effects.push(Effect::Readable { consumer: at.consumer });
        }
    }

    pub(super) fn feed_starved(&mut self, consumer: ConsumerId) {
        let at = &mut self.consumers[consumer.0 as usize];
        if at.room() > at.config.ahead_bytes_max / BUDGET_PARTS {
            for id in std::mem::take(&mut at.starved) {
                if let Some(at) = self.assignments.get_mut(&id) {
                    at.is_listed = false;
                    self.want_fetch(id);
                }
            }
        }
    }
}
