//! Assignments: which partition is read, from where, and how far the first steps towards it have come.

use super::accept::FetchedBatch;
use super::consumer::ConsumerId;
use super::door::Ask;
use super::near::Near;
use super::time::{Monotonic, Now};
use super::{Effects, Engine};
use crate::Error;
use corelog_protocol::ids::{Offset, PartitionId};
use std::collections::VecDeque;
use std::sync::Arc;

/// A partition assigned to a consumer. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AssignmentId(pub u64);

/// Where to read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Position {
    /// The oldest record kept.
    Beginning,
    /// Only what comes after now.
    End,
    Offset(Offset),
    /// The first record at this time or later, ms since the Unix epoch; the end if none is.
    Time(i64),
}

#[derive(Debug)]
pub(super) struct Assignment {
    pub consumer: ConsumerId,
    pub topic: usize,
    pub name: Arc<str>,
    pub partition: u32,
    pub stage: Stage,
    /// What to fetch next.
    pub next: Offset,
    /// Grows with every seek: what was asked before is not wanted any more.
    pub generation: u64,
    pub is_paused: bool,
    pub is_fetching: bool,
    /// Where it was last asked for.
    pub door: Option<usize>,
    pub near: Near,
    /// Refusals in a row of brokers that do not lead the lane, and when it is tried again.
    pub redirects: u32,
    pub retry_at: Option<Monotonic>,
    /// The partition has had a record before `next`, or its end there: it has not been made up.
    pub is_reached: bool,
    /// In a list: its door's `fetchable`, its consumer's `starved`, or the engine's `retries`.
    pub is_listed: bool,
    pub is_readable: bool,
    pub buffered: VecDeque<FetchedBatch>,
    pub buffered_bytes: usize,
    pub error: Option<Error>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Waits for its topic's places.
    Placing(Position),
    /// Waits for an offset.
    Locating(Position),
    Fetching,
    /// An error was found. It may still have to be taken.
    Failed,
}

impl<T> Engine<T> {
    /// Starts to fetch a partition from `position`. An unknown topic or partition comes as an error
    /// from [`take`](Self::take).
    ///
    /// # Panics
    /// If there is no such consumer.
    pub fn assign(
        &mut self,
        now: Now,
        consumer: ConsumerId,
        topic: &str,
        partition: u32,
        position: Position,
        effects: &mut Effects<T>,
    ) -> AssignmentId {
        assert!((consumer.0 as usize) < self.consumers.len());
        self.clock = now.monotonic;
        let id = AssignmentId(self.next_assignment);
        self.next_assignment += 1;
        let found = self.topic(topic);
        let at = *found.as_ref().unwrap_or(&0);
        self.assignments.insert(
            id,
            Assignment {
                consumer,
                topic: at,
                name: topic.into(),
                partition,
                stage: Stage::Placing(position),
                next: Offset(0),
                generation: 0,
                is_paused: false,
                is_fetching: false,
                door: None,
                near: Near::default(),
                redirects: 0,
                retry_at: None,
                is_reached: false,
                is_listed: false,
                is_readable: false,
                buffered: VecDeque::new(),
                buffered_bytes: 0,
                error: None,
            },
        );
        if let Some(topic) = self.topics.get_mut(at) {
            topic.readers.push(id);
        }
        match found {
            Ok(_) => self.start(id, position, effects),
            Err(error) => self.fail_assignment(id, error, effects),
        }
        self.pump_all(now, effects);
        id
    }

    /// Ends an assignment; what it had fetched is dropped.
    pub fn unassign(&mut self, now: Now, assignment: AssignmentId, effects: &mut Effects<T>) {
        self.clock = now.monotonic;
        if let Some(gone) = self.assignments.remove(&assignment) {
            let consumer = &mut self.consumers[gone.consumer.0 as usize];
            consumer.used -= gone.buffered_bytes;
            consumer.readable.retain(|&other| other != assignment);
            if let Some(topic) = self.topics.get_mut(gone.topic) {
                topic.assignments.retain(|&other| other != assignment);
                topic.readers.retain(|&other| other != assignment);
            }
            self.feed_starved(gone.consumer);
            self.pump_all(now, effects);
        }
    }

    /// Goes on from `position`; what was fetched is dropped. Also clears an error.
    pub fn seek(
        &mut self,
        now: Now,
        assignment: AssignmentId,
        position: Position,
        effects: &mut Effects<T>,
    ) {
        self.clock = now.monotonic;
        let Some(at) = self.assignments.get_mut(&assignment) else { return };
        at.generation += 1;
        // What is under way is not wanted any more, and need not be waited for.
        at.is_fetching = false;
        at.error = None;
        at.buffered.clear();
        let consumer = at.consumer;
        self.consumers[consumer.0 as usize].used -= std::mem::take(&mut at.buffered_bytes);
        self.start(assignment, position, effects);
        self.feed_starved(consumer);
        self.pump_all(now, effects);
    }

    /// Stops (true) or goes on with fetching and taking from an assignment. What is fetched stays.
    pub fn pause(
        &mut self,
        now: Now,
        assignment: AssignmentId,
        paused: bool,
        effects: &mut Effects<T>,
    ) {
        self.clock = now.monotonic;
        let Some(at) = self.assignments.get_mut(&assignment) else { return };
        at.is_paused = paused;
        if !paused {
            self.want_fetch(assignment);
            self.note_readable(assignment, effects);
            self.pump_all(now, effects);
        }
    }

    /// The offset of the record that [`take`](Self::take) gives next, once it is known.
    #[must_use]
    pub fn position(&self, assignment: AssignmentId) -> Option<Offset> {
        let at = self.assignments.get(&assignment)?;
        match at.buffered.front() {
            Some(batch) => Some(batch.first_offset),
            None => (at.stage == Stage::Fetching).then_some(at.next),
        }
    }

    /// None while nobody leads the partition.
    pub(super) fn door_of(&self, assignment: &Assignment) -> Option<usize> {
        let topic = &self.topics[assignment.topic];
        let queue = &self.producer.queues[*topic.queues.get(assignment.partition as usize)?];
        queue.is_led.then(|| queue.target())
    }

    pub(super) fn partition_id(&self, assignment: &Assignment) -> Option<PartitionId> {
        let topic = &self.topics[assignment.topic];
        let queue = *topic.queues.get(assignment.partition as usize)?;
        Some(self.producer.queues[queue].id)
    }

    /// The first steps towards `position`, as far as they can be taken now.
    pub(super) fn start(&mut self, id: AssignmentId, position: Position, effects: &mut Effects<T>) {
        let Some(at) = self.assignments.get_mut(&id) else { return };
        at.stage = Stage::Placing(position);
        let topic = at.topic;
        if !self.topics[topic].is_known {
            if !self.topics[topic].assignments.contains(&id) {
                self.topics[topic].assignments.push(id);
            }
            self.describe_topic(topic);
            return;
        }
        if at.partition >= self.topics[topic].partition_count {
            let error =
                Error::UnknownPartition { topic: Arc::clone(&at.name), partition: at.partition };
            self.fail_assignment(id, error, effects);
            return;
        }
        if let Position::Offset(offset) = position {
            at.stage = Stage::Fetching;
            at.next = offset;
            at.is_reached = false;
            self.want_fetch(id);
        } else {
            at.stage = Stage::Locating(position);
            let generation = at.generation;
            let door = self.assignments.get(&id).and_then(|at| self.door_of(at));
            if let Some(at) = self.assignments.get_mut(&id) {
                at.door = door;
            }
            match door {
                Some(door) => self.doors[door].asks.push_back(Ask::Locate(id, generation)),
                None => self.describe_topic(topic),
            }
        }
    }

    pub(super) fn place_assignments(&mut self, topic: usize, effects: &mut Effects<T>) {
        for id in std::mem::take(&mut self.topics[topic].assignments) {
            if let Some(&Assignment { stage: Stage::Placing(position), .. }) =
                self.assignments.get(&id)
            {
                self.start(id, position, effects);
            }
        }
    }

    pub(super) fn fail_assignments(
        &mut self,
        topic: usize,
        error: &Error,
        effects: &mut Effects<T>,
    ) {
        self.topics[topic].assignments.clear();
        for id in self.topics[topic].readers.clone() {
            if self.assignments.get(&id).is_some_and(|at| at.stage != Stage::Failed) {
                self.fail_assignment(id, error.clone(), effects);
            }
        }
    }

    pub(super) fn fail_assignment(
        &mut self,
        id: AssignmentId,
        error: Error,
        effects: &mut Effects<T>,
    ) {
        if let Some(at) = self.assignments.get_mut(&id) {
            at.stage = Stage::Failed;
            at.error = Some(error);
            self.note_readable(id, effects);
        }
    }
}
