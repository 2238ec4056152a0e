//! What consumers do: they check every byte, the order and the offsets, at their own speed.

use std::collections::BTreeMap;

use corelog::Error;
use corelog::engine::{AssignmentId, ConsumerConfig, ConsumerId, Fetched, FetchedBatch, Position};
use corelog_protocol::ids::Offset;

use super::World;
use super::clients::{Reader, Role, topic_name};
use crate::sim::check::history::PartitionRef;
use crate::sim::check::record::{RecordId, key_of, read_value};
use crate::sim::plan::ConsumerPlan;
use crate::sim::trace::Violation;

impl World {
    pub(super) fn on_readable(&mut self, client: usize) {
        let slowness = match &self.clients[client].role {
            Role::Consumer { plan, .. } => plan.slowness,
            _ => 0,
        };
        let delay = if slowness == 0 { 1 } else { 1 + self.random.below(slowness) };
        self.plan_work(client, delay);
    }

    pub(super) fn consumer_work(&mut self, client: usize) {
        let Role::Consumer { plan, consumer, .. } = self.clients[client].role else { return };
        let Some(consumer) = consumer else {
            self.start_consumer(client, plan);
            return;
        };
        // A slow consumer takes one batch and rests.
        for _ in 0..if plan.slowness > 0 { 1 } else { 64 } {
            let fetched = self
                .with_client(client, |engine, now, effects| engine.take(now, consumer, effects));
            match fetched {
                None => return,
                Some(Fetched::Batch(batch)) => self.on_batch(client, &batch),
                Some(Fetched::Error { assignment, error, .. }) => {
                    self.on_fetch_error(client, assignment, &error)
                }
            }
        }
        self.on_readable(client);
    }

    pub(super) fn start_consumer(&mut self, client: usize, plan: ConsumerPlan) {
        let config = ConsumerConfig {
            ahead_bytes_max: plan.ahead_bytes,
            wait_ms_max: plan.wait_ms,
            bytes_min: plan.bytes_min,
            ..ConsumerConfig::default()
        };
        let consumer = self.with_client(client, |engine, _, _| engine.consumer(config));
        let position = if plan.from_end { Position::End } else { Position::Beginning };
        let mut started = BTreeMap::new();
        for topic in 0..self.plan.topics.len() {
            for partition in 0..self.topics[topic] {
                let assignment =
                    self.assign(client, consumer, PartitionRef { topic, partition }, position);
                let next = None;
                started
                    .insert(assignment, Reader { place: PartitionRef { topic, partition }, next });
            }
        }
        if let Role::Consumer { consumer: at, reads, .. } = &mut self.clients[client].role {
            *at = Some(consumer);
            reads.append(&mut started);
        }
        self.on_readable(client);
    }

    pub(super) fn assign(
        &mut self,
        client: usize,
        consumer: ConsumerId,
        place: PartitionRef,
        position: Position,
    ) -> AssignmentId {
        let name = topic_name(place.topic);
        self.with_client(client, |engine, now, effects| {
            engine.assign(now, consumer, &name, place.partition, position, effects)
        })
    }

    pub(super) fn seek(&mut self, client: usize, assignment: AssignmentId, position: Position) {
        self.with_client(client, |engine, now, effects| {
            engine.seek(now, assignment, position, effects)
        });
    }

    pub(super) fn on_batch(&mut self, client: usize, batch: &FetchedBatch) {
        let Role::Consumer { reads, .. } = &mut self.clients[client].role else { return };
        let Some(reader) = reads.get_mut(&batch.assignment) else { return };
        let place = reader.place;
        let mut next = reader.next;
        let seen = self.read_batch(place, batch);
        for (offset, _) in seen {
            if next.is_some_and(|next| next != offset) {
                let text =
                    format!("client {client} read {place:?} offset {offset} and expected {next:?}");
                self.violated(Violation::new("I3", text));
            }
            next = Some(offset + 1);
        }
        if let Role::Consumer { reads, .. } = &mut self.clients[client].role
            && let Some(reader) = reads.get_mut(&batch.assignment)
        {
            reader.next = next;
        }
    }

    /// Checks every record of a batch, and says which there are.
    pub(super) fn read_batch(
        &mut self,
        place: PartitionRef,
        batch: &FetchedBatch,
    ) -> Vec<(u64, RecordId)> {
        let mut scratch = Vec::new();
        let mut seen = Vec::new();
        for record in batch.records() {
            let offset = record.offset.0;
            let value = record.value.unwrap_or_default();
            let Some(id) = read_value(value, &mut scratch) else {
                let text =
                    format!("{place:?} offset {offset}: {} bytes that nobody sent", value.len());
                self.violated(Violation::new("I10", text));
                return seen;
            };
            if record.key.is_some_and(|key| key != key_of(id)) {
                self.violated(Violation::new(
                    "I10",
                    format!("{place:?} offset {offset}: another key"),
                ));
            }
            self.tally.one("records consumed");
            let checked = self.checks.history.on_seen(id, value.len(), place, offset);
            self.check(checked);
            seen.push((offset, id));
        }
        seen
    }

    pub(super) fn on_fetch_error(
        &mut self,
        client: usize,
        assignment: AssignmentId,
        error: &Error,
    ) {
        self.trace.line(self.now, || format!("client {client}: {assignment:?} fails: {error}"));
        let position = match error {
            Error::RangeCorrupt { end, .. } => {
                self.tally.one("corrupt ranges told to consumers");
                if !self.faults.has_damaged {
                    self.violated(Violation::new(
                        "I10",
                        format!("{error}, and nothing was damaged"),
                    ));
                }
                Position::Offset(*end)
            }
            Error::OffsetOutOfRange { asked, log_start, committed_end } => {
                self.tally.one("offsets out of range");
                let place = self.place_of(client, assignment);
                let history = &self.checks.history;
                let excused = |place| history.may_have_ended(place, committed_end.0);
                let lost = committed_end < asked && !place.is_some_and(excused);
                let kept = self.may_forget(client, assignment);
                if lost {
                    self.violated(Violation::new("I3", format!("the end fell: {error}")));
                } else if asked < log_start && !kept && !self.faults.has_damaged {
                    self.violated(Violation::new(
                        "I1",
                        format!("the start rose without retention: {error}"),
                    ));
                }
                Position::Beginning
            }
            Error::CorruptEntry { .. } | Error::NotDense { .. } | Error::Protocol(_) => {
                self.violated(Violation::new(
                    "I10",
                    format!("a consumer was served nonsense: {error}"),
                ));
                return;
            }
            _ => match self.next_of(client, assignment) {
                Some(next) => Position::Offset(Offset(next)),
                None => Position::Beginning,
            },
        };
        if let Role::Consumer { reads, .. } = &mut self.clients[client].role
            && let Some(reader) = reads.get_mut(&assignment)
        {
            reader.next = match position {
                Position::Offset(Offset(offset)) => Some(offset),
                _ => None,
            };
        }
        self.seek(client, assignment, position);
    }

    fn place_of(&self, client: usize, assignment: AssignmentId) -> Option<PartitionRef> {
        match &self.clients[client].role {
            Role::Consumer { reads, .. } => Some(reads.get(&assignment)?.place),
            _ => None,
        }
    }

    fn next_of(&self, client: usize, assignment: AssignmentId) -> Option<u64> {
        match &self.clients[client].role {
            Role::Consumer { reads, .. } => reads.get(&assignment)?.next,
            _ => None,
        }
    }

    /// Whether retention may move the start of what an assignment reads.
    pub(super) fn may_forget(&self, client: usize, assignment: AssignmentId) -> bool {
        let Role::Consumer { reads, .. } = &self.clients[client].role else { return true };
        let topic = reads.get(&assignment).map(|reader| reader.place.topic);
        let kept = topic.and_then(|topic| self.plan.topics.get(topic)).map(|plan| plan.kept);
        kept.is_none_or(|kept| kept.age_ms.is_some() || kept.bytes.is_some())
    }
}
