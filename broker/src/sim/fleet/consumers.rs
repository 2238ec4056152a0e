//! What consumers do: they check every byte, the order and the offsets, at their own speed.

use corelog::Error;
use corelog::engine::{AssignmentId, ConsumerConfig, ConsumerId, Fetched, FetchedBatch, Position};
use corelog_protocol::ids::Offset;

use super::World;
use super::clients::{Reader, Role, topic_name};
use super::plan::{ConsumerPlan, rack_name};
use crate::sim::check::history::PartitionRef;
use crate::sim::check::record::{RecordId, read_value};
use crate::sim::trace::Violation;

impl World {
    pub(super) fn places(&self) -> Vec<PartitionRef> {
        let topics = self.plan.topics.iter().enumerate();
        let places = topics.flat_map(|(topic, partitions)| {
            (0..*partitions).map(move |partition| PartitionRef { topic, partition })
        });
        places.collect()
    }

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
        let Some(consumer) = consumer else { return self.start_consumer(client, plan) };
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

    fn start_consumer(&mut self, client: usize, plan: ConsumerPlan) {
        let rack = plan.rack.map(rack_name);
        let config =
            ConsumerConfig { wait_ms_max: plan.wait_ms, rack, ..ConsumerConfig::default() };
        let consumer = self.with_client(client, |engine, _, _| engine.consumer(config));
        for place in self.places() {
            let assignment = self.assign(client, consumer, place, Position::Beginning);
            if let Role::Consumer { reads, .. } = &mut self.clients[client].role {
                reads.insert(assignment, Reader { place, next: Some(0) });
            }
        }
        if let Role::Consumer { consumer: at, .. } = &mut self.clients[client].role {
            *at = Some(consumer);
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

    fn reader(&mut self, client: usize, assignment: AssignmentId) -> Option<&mut Reader> {
        match &mut self.clients[client].role {
            Role::Consumer { reads, .. } => reads.get_mut(&assignment),
            _ => None,
        }
    }

    fn on_batch(&mut self, client: usize, batch: &FetchedBatch) {
        let Some(reader) = self.reader(client, batch.assignment) else { return };
        let (place, mut next) = (reader.place, reader.next);
        for (offset, _) in self.read_batch(place, batch) {
            if next.is_some_and(|next| next != offset) {
                let text =
                    format!("client {client} read {place:?} offset {offset} and expected {next:?}");
                self.violated(Violation::new("I3", text));
            }
            next = Some(offset + 1);
        }
        if let Some(reader) = self.reader(client, batch.assignment) {
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
            self.tally.one("records consumed");
            let checked = self.checks.history.on_seen(id, value.len(), place, offset);
            self.check(checked);
            seen.push((offset, id));
        }
        seen
    }

    fn on_fetch_error(&mut self, client: usize, assignment: AssignmentId, error: &Error) {
        self.line(|| format!("client {client}: {assignment:?} fails: {error}"));
        let next = self.reader(client, assignment).and_then(|reader| reader.next).unwrap_or(0);
        match error {
            Error::OffsetOutOfRange { .. } => {
                self.violated(Violation::new("I3", format!("a partition's end fell: {error}")));
            }
            Error::RangeCorrupt { .. }
            | Error::CorruptEntry { .. }
            | Error::NotDense { .. }
            | Error::Protocol(_) => {
                let text = format!("a consumer was served nonsense: {error}");
                self.violated(Violation::new("I10", text));
            }
            _ => self.seek(client, assignment, Position::Offset(Offset(next))),
        }
    }
}
