//! Fetching: assignments, positions, fetch ahead within a budget, and what is accepted from a
//! broker. Each assignment stands in at most one fetch under way; what a fetch brings is checked
//! before it is kept, in `accept.rs`.

use super::door::{Ask, Frame, Request};
use super::links::Wrong;
use super::time::{MILLIS, Now};
use super::{ConsumerConfig, Effect, Effects, Engine, RETRY_NANOS, Retry};
use crate::engine::accept::accept_entries;
use crate::{Error, Refusal};
use corelog_protocol::ErrorCode;
use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{Offset, PartitionId};
use corelog_protocol::message::{
    FETCH_PARTITIONS_MAX, Fetch, FetchPartition, FetchReply, FetchedPartition, Offsets,
    OffsetsAnswer, OffsetsQuery,
};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

pub use super::accept::{FetchedBatch, FetchedRecord};

/// A group of assignments that share a budget.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConsumerId(pub u32);

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

/// Fetches under way per connection. The last two wait only briefly for data, so that a partition
/// that comes when all are under way is not left out for long.
const FETCHES_PER_LINK: usize = 8;
const FETCHES_LONG: usize = FETCHES_PER_LINK - 2;

/// Of the budget, what one fetch may bring.
const BUDGET_PARTS: usize = 8;

/// Left for the control part of a reply: 1,024 partitions of 48 bytes, and the header.
const REPLY_CONTROL_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Consumer {
    config: ConsumerConfig,
    /// Fetched and not taken; asked for and not come.
    used: usize,
    reserved: usize,
    /// Assignments that wait for room in the budget.
    starved: Vec<AssignmentId>,
    /// Assignments with something to take, in turn.
    readable: VecDeque<AssignmentId>,
}

#[derive(Debug)]
pub(super) struct Assignment {
    consumer: ConsumerId,
    topic: usize,
    name: Arc<str>,
    partition: u32,
    stage: Stage,
    /// What to fetch next.
    next: Offset,
    /// Grows with every seek: what was asked before is not wanted any more.
    generation: u64,
    is_paused: bool,
    is_fetching: bool,
    /// In a list: its door's `fetchable`, its consumer's `starved`, or the engine's `retries`.
    is_listed: bool,
    is_readable: bool,
    buffered: VecDeque<FetchedBatch>,
    buffered_bytes: usize,
    error: Option<Error>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Waits for its topic's places.
    Placing(Position),
    /// Waits for an offset.
    Locating(Position),
    Fetching,
    /// An error was found. It may still have to be taken.
    Failed,
}

/// An assignment in a fetch under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFetch {
    assignment: AssignmentId,
    generation: u64,
    id: PartitionId,
}

impl Consumer {
    pub(super) fn new(config: ConsumerConfig) -> Self {
        Self { config, used: 0, reserved: 0, starved: Vec::new(), readable: VecDeque::new() }
    }

    fn room(&self) -> usize {
        self.config.ahead_bytes_max.saturating_sub(self.used + self.reserved)
    }
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
                is_listed: false,
                is_readable: false,
                buffered: VecDeque::new(),
                buffered_bytes: 0,
                error: None,
            },
        );
        match found {
            Ok(_) => self.start(id, position, effects),
            Err(error) => self.fail_assignment(id, error, effects),
        }
        self.pump_all(now, effects);
        id
    }

    /// Ends an assignment; what it had fetched is dropped.
    pub fn unassign(&mut self, now: Now, assignment: AssignmentId, effects: &mut Effects<T>) {
        if let Some(gone) = self.assignments.remove(&assignment) {
            let consumer = &mut self.consumers[gone.consumer.0 as usize];
            consumer.used -= gone.buffered_bytes;
            consumer.readable.retain(|&other| other != assignment);
            self.topics.iter_mut().for_each(|topic| topic.assignments.retain(|&a| a != assignment));
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
        let Some(at) = self.assignments.get_mut(&assignment) else { return };
        at.generation += 1;
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

    fn door_of(&self, assignment: &Assignment) -> Option<usize> {
        let topic = &self.topics[assignment.topic];
        let queue = &self.producer.queues[*topic.queues.get(assignment.partition as usize)?];
        Some(queue.next_door.unwrap_or(queue.door))
    }

    fn partition_id(&self, assignment: &Assignment) -> Option<PartitionId> {
        let topic = &self.topics[assignment.topic];
        let queue = *topic.queues.get(assignment.partition as usize)?;
        Some(self.producer.queues[queue].id)
    }

    /// The first steps towards `position`, as far as they can be taken now.
    fn start(&mut self, id: AssignmentId, position: Position, effects: &mut Effects<T>) {
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
            self.want_fetch(id);
        } else {
            at.stage = Stage::Locating(position);
            let generation = at.generation;
            let door = self.assignments.get(&id).and_then(|at| self.door_of(at));
            if let Some(door) = door {
                self.doors[door].asks.push_back(Ask::Locate(id, generation));
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
        let all: Vec<_> = self
            .assignments
            .iter()
            .filter(|(_, at)| at.topic == topic && at.stage != Stage::Failed)
            .map(|(&id, _)| id)
            .collect();
        for id in all {
            self.fail_assignment(id, error.clone(), effects);
        }
    }

    fn fail_assignment(&mut self, id: AssignmentId, error: Error, effects: &mut Effects<T>) {
        if let Some(at) = self.assignments.get_mut(&id) {
            at.stage = Stage::Failed;
            at.error = Some(error);
            self.note_readable(id, effects);
        }
    }

    /// An error in what was fetched: what was fetched after it is dropped.
    fn fail_at(&mut self, id: AssignmentId, error: Error, effects: &mut Effects<T>) {
        if let Some(at) = self.assignments.get_mut(&id) {
            at.buffered.clear();
            let bytes = std::mem::take(&mut at.buffered_bytes);
            self.consumers[at.consumer.0 as usize].used -= bytes;
            self.fail_assignment(id, error, effects);
        }
    }

    fn note_readable(&mut self, id: AssignmentId, effects: &mut Effects<T>) {
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

    pub(super) fn encode_locate(
        &self,
        correlation: u64,
        id: AssignmentId,
        generation: u64,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(at) = self.assignments.get(&id).filter(|at| at.generation == generation) else {
            return false;
        };
        let Some(partition) = self.partition_id(at) else { return false };
        let timestamp = match at.stage {
            Stage::Locating(Position::Time(time)) => Some(time),
            Stage::Locating(_) => None,
            _ => return false,
        };
        Offsets { partitions: vec![OffsetsQuery { partition, timestamp }] }
            .encode(correlation, out);
        true
    }

    pub(super) fn on_located(
        &mut self,
        now: Now,
        id: AssignmentId,
        generation: u64,
        answer: Result<OffsetsAnswer, Refusal>,
        effects: &mut Effects<T>,
    ) -> Result<(), Wrong> {
        let Some(at) = self.assignments.get_mut(&id) else { return Ok(()) };
        let Stage::Locating(position) = at.stage else { return Ok(()) };
        if at.generation != generation {
            return Ok(());
        }
        match answer {
            Ok(OffsetsAnswer { error: None, log_start, committed_end, offset_at, .. }) => {
                at.next = match position {
                    Position::Beginning => log_start,
                    Position::End => committed_end,
                    Position::Time(_) => offset_at.unwrap_or(committed_end),
                    Position::Offset(offset) => offset,
                };
                at.stage = Stage::Fetching;
                self.want_fetch(id);
            }
            Ok(OffsetsAnswer { error: Some(code), .. }) => {
                let refusal = Refusal { code, retry_after_ms: 0, message: Box::from("") };
                self.on_read_refused(now, id, refusal, effects);
            }
            Err(refusal) => self.on_read_refused(now, id, refusal, effects),
        }
        Ok(())
    }

    /// A read was refused: try it again later, or tell the user.
    fn on_read_refused(
        &mut self,
        now: Now,
        id: AssignmentId,
        refusal: Refusal,
        effects: &mut Effects<T>,
    ) {
        let Some(at) = self.assignments.get_mut(&id) else { return };
        let place_unknown = matches!(
            refusal.code,
            ErrorCode::UnknownPartition
                | ErrorCode::UnknownTopic
                | ErrorCode::NotLeader
                | ErrorCode::Moved
        );
        // A read has no effect, so an indefinite failure of it does no harm either.
        let passing = !refusal.code.is_definite() && refusal.code != ErrorCode::Unrecognised;
        if !place_unknown && !passing && !refusal.code.may_retry() {
            self.fail_assignment(id, Error::Refused(refusal), effects);
            return;
        }
        let hint = u64::from(refusal.retry_after_ms) * MILLIS;
        at.is_listed = true;
        let topic = at.topic;
        self.retries.insert((now.monotonic.after(hint.max(RETRY_NANOS)), Retry::Assignment(id)));
        if place_unknown {
            self.describe_topic(topic);
        }
    }

    pub(super) fn on_assignment_retry(&mut self, id: AssignmentId, effects: &mut Effects<T>) {
        let Some(at) = self.assignments.get_mut(&id) else { return };
        at.is_listed = false;
        match at.stage {
            Stage::Locating(position) => self.start(id, position, effects),
            Stage::Fetching => self.want_fetch(id),
            Stage::Placing(_) | Stage::Failed => {}
        }
    }

    /// Lists an assignment for the next fetch, if it may have one.
    fn want_fetch(&mut self, id: AssignmentId) {
        let Some(at) = self.assignments.get(&id) else { return };
        let config = &self.consumers[at.consumer.0 as usize].config;
        if at.stage != Stage::Fetching
            || at.is_paused
            || at.is_fetching
            || at.is_listed
            || at.buffered_bytes >= config.partition_bytes_max as usize
        {
            return;
        }
        if let Some(door) = self.door_of(at)
            && let Some(at) = self.assignments.get_mut(&id)
        {
            at.is_listed = true;
            self.doors[door].fetchable.push_back(id);
        }
    }

    fn feed_starved(&mut self, consumer: ConsumerId) {
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

    pub(super) fn send_fetches(&mut self, now: Now, door: usize, effects: &mut Effects<T>) {
        while let Some(link) = self.doors[door].open_link()
            && link.fetches < FETCHES_PER_LINK
        {
            let is_brief = link.fetches >= FETCHES_LONG;
            // All assignments of the first one's consumer; the others keep their place.
            let mut list = std::mem::take(&mut self.doors[door].fetchable);
            let mut consumer = None;
            let mut asked: Vec<InFetch> = Vec::new();
            let mut partitions: Vec<FetchPartition> = Vec::new();
            let mut ids = BTreeSet::new();
            list.retain(|&id| {
                let Some(at) = self.assignments.get(&id) else { return false };
                let wanted = *consumer.get_or_insert(at.consumer);
                if at.consumer != wanted || asked.len() >= FETCH_PARTITIONS_MAX {
                    return true;
                }
                let config = &self.consumers[wanted.0 as usize].config;
                let place = (at.stage == Stage::Fetching && !at.is_paused)
                    .then(|| self.partition_id(at))
                    .flatten();
                let (next, generation) = (at.next, at.generation);
                if place.is_some_and(|partition| !ids.insert(partition)) {
                    // Assigned twice: a fetch names a partition once, the other has the next.
                    return true;
                }
                if let Some(at) = self.assignments.get_mut(&id) {
                    at.is_listed = false;
                }
                if let Some(partition) = place {
                    asked.push(InFetch { assignment: id, generation, id: partition });
                    let bytes_max = config.partition_bytes_max;
                    partitions.push(FetchPartition { partition, offset: next, bytes_max });
                }
                false
            });
            self.doors[door].fetchable = list;
            let Some(id) = consumer else { return };
            if asked.is_empty() {
                continue;
            }
            let at = &mut self.consumers[id.0 as usize];
            let part = at.config.ahead_bytes_max / BUDGET_PARTS;
            let wanted = asked.len().saturating_mul(at.config.partition_bytes_max as usize);
            let bytes_max = at
                .room()
                .min(part.max(at.config.partition_bytes_max as usize))
                .min(wanted)
                .min(self.config.frame_bytes_max.saturating_sub(REPLY_CONTROL_BYTES));
            if bytes_max == 0 {
                at.starved.extend(asked.iter().map(|one| one.assignment));
                for one in asked {
                    if let Some(at) = self.assignments.get_mut(&one.assignment) {
                        at.is_listed = true;
                    }
                }
                continue;
            }
            at.reserved += bytes_max;
            let wait = at.config.wait_ms_max;
            let message = Fetch {
                wait_max_ms: if is_brief { wait / 8 } else { wait },
                bytes_min: at.config.bytes_min,
                bytes_max: bytes_max as u32,
                partitions,
            };
            for one in &asked {
                if let Some(at) = self.assignments.get_mut(&one.assignment) {
                    at.is_fetching = true;
                }
            }
            let patience = self.config.request_nanos_max + u64::from(wait) * MILLIS;
            let Some(link) = self.doors[door].open_link() else { return };
            link.fetches += 1;
            let request = Request::Fetch { consumer: id, asked, bytes_max };
            let correlation = link.begin(request, now.monotonic.after(patience));
            let mut bytes = Vec::new();
            message.encode(correlation, &mut bytes);
            self.send_frames(door, correlation, bytes, effects);
        }
    }

    /// A fetch is over, whatever came of it. Gives those that are still where they were.
    fn end_fetch(&mut self, consumer: ConsumerId, asked: &[InFetch], bytes_max: usize) {
        self.consumers[consumer.0 as usize].reserved -= bytes_max;
        for one in asked {
            if let Some(at) = self.assignments.get_mut(&one.assignment) {
                at.is_fetching = false;
            }
        }
    }

    pub(super) fn on_fetch_lost(
        &mut self,
        consumer: ConsumerId,
        asked: &[InFetch],
        bytes_max: usize,
    ) {
        self.end_fetch(consumer, asked, bytes_max);
        for one in asked {
            self.want_fetch(one.assignment);
        }
        self.feed_starved(consumer);
    }

    pub(super) fn on_fetch_refused(
        &mut self,
        now: Now,
        consumer: ConsumerId,
        asked: &[InFetch],
        bytes_max: usize,
        refusal: &Refusal,
        effects: &mut Effects<T>,
    ) {
        self.end_fetch(consumer, asked, bytes_max);
        for one in asked {
            if self.is_current(one) {
                self.on_read_refused(now, one.assignment, refusal.clone(), effects);
            }
            self.want_fetch(one.assignment);
        }
        self.feed_starved(consumer);
    }

    fn is_current(&self, one: &InFetch) -> bool {
        let at = self.assignments.get(&one.assignment);
        at.is_some_and(|at| at.generation == one.generation && at.stage == Stage::Fetching)
    }

    pub(super) fn on_fetch_reply(
        &mut self,
        now: Now,
        consumer: ConsumerId,
        asked: &[InFetch],
        bytes_max: usize,
        frame: Frame<'_>,
        effects: &mut Effects<T>,
    ) -> Result<(), Wrong> {
        self.end_fetch(consumer, asked, bytes_max);
        let outcome = self.keep_fetched(now, asked, frame, effects);
        for one in asked {
            self.want_fetch(one.assignment);
        }
        self.feed_starved(consumer);
        outcome
    }

    fn keep_fetched(
        &mut self,
        now: Now,
        asked: &[InFetch],
        frame: Frame<'_>,
        effects: &mut Effects<T>,
    ) -> Result<(), Wrong> {
        let header = *frame.header();
        if header.kind != FrameKind::FetchReply {
            return Err("an answer of the wrong kind");
        }
        let control = header.control(frame.bytes()).map_err(|_| "a damaged control part")?;
        let reply = FetchReply::decode(control).map_err(|_| "a malformed fetch reply")?;
        let total: usize = reply.partitions.iter().map(|fetched| fetched.bytes as usize).sum();
        if total != header.payload_len as usize {
            return Err("a fetch reply of another length");
        }
        let (buffer, mut start) = match frame {
            _ if total == 0 => (Arc::default(), 0),
            Frame::Owned(_, bytes) => (Arc::new(bytes), header.payload_range().start),
            Frame::Borrowed(_, bytes) => {
                let payload = bytes.get(header.payload_range()).unwrap_or_default();
                (Arc::new(payload.to_vec()), 0)
            }
        };
        // Answers may come in any order, and some be left out: a broker that gathers them from
        // several shards takes them as they come. Usually each follows the one before.
        let mut questions: VecDeque<&InFetch> = asked.iter().collect();
        for fetched in &reply.partitions {
            let found = questions.iter().position(|one| one.id == fetched.partition);
            let Some(one) = found.and_then(|at| questions.remove(at)) else {
                return Err("a partition that was not asked for");
            };
            let range = start..start + fetched.bytes as usize;
            start = range.end;
            if self.is_current(one) {
                self.keep_partition(now, one, fetched, &buffer, range, effects);
            }
        }
        Ok(())
    }

    fn keep_partition(
        &mut self,
        now: Now,
        one: &InFetch,
        fetched: &FetchedPartition,
        buffer: &Arc<Vec<u8>>,
        range: std::ops::Range<usize>,
        effects: &mut Effects<T>,
    ) {
        let Some(at) = self.assignments.get_mut(&one.assignment) else { return };
        let mut batch = FetchedBatch::empty(one.assignment, &at.name, at.partition, buffer);
        let mut kept = 0;
        let accepted = accept_entries(&mut batch, one.id, &mut at.next, fetched, range, |batch| {
            kept += batch.bytes();
            self.counters.records_fetched += batch.record_count();
            at.buffered.push_back(batch);
        });
        at.buffered_bytes += kept;
        self.consumers[at.consumer.0 as usize].used += kept;
        let error = match (accepted, fetched.error) {
            (Err(error), _) => Some(error),
            (Ok(()), None) => None,
            (Ok(()), Some(ErrorCode::OffsetOutOfRange)) => Some(Error::OffsetOutOfRange {
                asked: at.next,
                log_start: fetched.log_start,
                committed_end: fetched.committed_end,
            }),
            (Ok(()), Some(ErrorCode::RangeCorrupt)) => {
                let range = fetched
                    .corrupt
                    .clone()
                    .unwrap_or_else(|| at.next..Offset(at.next.0.saturating_add(1)));
                Some(Error::RangeCorrupt { first: range.start, end: range.end })
            }
            (Ok(()), Some(code)) => {
                let refusal = Refusal { code, retry_after_ms: 0, message: Box::from("") };
                self.on_read_refused(now, one.assignment, refusal, effects);
                None
            }
        };
        match error {
            Some(error) => self.fail_assignment(one.assignment, error, effects),
            None => self.note_readable(one.assignment, effects),
        }
    }
}
