//! What is known of topics: where their partitions live, and what waits until that is known.

use super::assignment::AssignmentId;
use super::door::Ask;
use super::links::Wrong;
use super::produce::new_record;
use super::time::{MILLIS, Monotonic, Now};
use super::{Effects, Engine, Failed, RETRY_NANOS, Retry};
use crate::engine::Effect;
use crate::{Durability, Error, Record, Refusal};
use corelog_protocol::ErrorCode;
use corelog_protocol::batch::{Header, record_bytes_max};
use corelog_protocol::ids::{BrokerId, LaneId};
use corelog_protocol::message::{TopicInfo, check_topic_name};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// So often a topic that some broker does not know is asked for again, of others.
pub(super) const DENIALS_MAX: u32 = 8;

/// And so long. A topic that was just created is known to the broker that created it and, as soon as the metadata's
/// leader has told them, to the others: two of them may be behind together.
const DENIED_NANOS: u64 = 500 * MILLIS;

#[derive(Debug)]
pub(super) struct Topic<T> {
    pub name: Arc<str>,
    /// Its places were told at least once, and it was there when they were told last.
    pub is_known: bool,
    /// It is being asked for.
    is_asked: bool,
    /// Answers in a row that left something to be asked again.
    unsettled: u32,
    /// Said by a broker, to be confirmed by another one.
    denied: Option<Denied>,
    /// How many partitions it has now. `queues` may be longer if it was made anew with fewer.
    pub partition_count: u32,
    pub queues: Vec<usize>,
    /// Which brokers have copies of its lanes.
    pub copies: BTreeMap<LaneId, Vec<BrokerId>>,
    pub pending: VecDeque<Pending<T>>,
    /// Assignments that wait for the places.
    pub assignments: Vec<AssignmentId>,
    /// All assignments to its partitions, in the order in which they were made.
    pub readers: Vec<AssignmentId>,
    pub sticky: u32,
    pub is_sticky_used: bool,
}

/// There is no such topic, says a broker that may be behind.
#[derive(Clone, Copy, Debug)]
struct Denied {
    /// The one that said so first.
    by: BrokerId,
    since: Monotonic,
    is_by_two: bool,
}

type Bytes = Option<Box<[u8]>>;

/// A record that waits for its topic's places: owned, since nobody knows its batch yet.
#[derive(Debug)]
pub(super) struct Pending<T> {
    partition: Option<u32>,
    key: Bytes,
    value: Bytes,
    headers: Vec<(Box<str>, Bytes)>,
    timestamp_ms: i64,
    level: Option<Durability>,
    stages: bool,
    token: T,
    flush: u64,
    pub deadline: Monotonic,
    bytes: usize,
}

impl<T> Pending<T> {
    pub(super) fn new(
        record: &Record<'_>,
        timestamp_ms: i64,
        token: T,
        flush: u64,
        deadline: Monotonic,
        bytes: usize,
    ) -> Self {
        let headers = record.headers.iter();
        Self {
            partition: record.partition,
            key: record.key.map(Into::into),
            value: record.value.map(Into::into),
            headers: headers
                .map(|header| (header.name.into(), header.value.map(Into::into)))
                .collect(),
            timestamp_ms,
            level: record.level,
            stages: record.stages,
            token,
            flush,
            deadline,
            bytes,
        }
    }
}

impl<T> Engine<T> {
    /// The place of a topic in our list; a new one if the name may be one.
    pub(super) fn topic(&mut self, name: &str) -> Result<usize, Error> {
        if let Some(&topic) = self.topic_by_name.get(name) {
            return Ok(topic);
        }
        if check_topic_name(name).is_err() {
            return Err(Error::InvalidArgument("not a topic name"));
        }
        let name: Arc<str> = name.into();
        let topic = self.topics.len();
        self.topics.push(Topic {
            name: Arc::clone(&name),
            is_known: false,
            is_asked: false,
            unsettled: 0,
            denied: None,
            partition_count: 0,
            queues: Vec::new(),
            copies: BTreeMap::new(),
            pending: VecDeque::new(),
            assignments: Vec::new(),
            readers: Vec::new(),
            // Clients that start together do not all start with partition 0.
            sticky: self.random.below(1 << 31) as u32,
            is_sticky_used: false,
        });
        self.topic_by_name.insert(name, topic);
        Ok(topic)
    }

    /// Asks for the places of a topic, unless that is under way.
    pub(super) fn describe_topic(&mut self, topic: usize) {
        if !std::mem::replace(&mut self.topics[topic].is_asked, true) {
            let door = self.door_of_metadata();
            self.doors[door].asks.push_back(Ask::Describe(topic));
        }
    }

    /// Asks again for all places: the broker may have been restarted with other shards.
    pub(super) fn refresh_topics(&mut self) {
        for topic in 0..self.topics.len() {
            if self.topics[topic].is_known {
                self.describe_topic(topic);
            }
        }
    }

    pub(super) fn on_described(
        &mut self,
        now: Now,
        door: usize,
        topic: usize,
        answer: Result<TopicInfo, Refusal>,
        effects: &mut Effects<T>,
    ) -> Result<(), Wrong> {
        match answer {
            Ok(info) => {
                if *info.name != *self.topics[topic].name || info.places.is_empty() {
                    return Err("a topic that was not asked for");
                }
                self.topics[topic].denied = None;
                let is_news = self.learn_brokers(door, &info);
                // Until then it counts as asked: who finds that nobody leads a partition shall not ask at once again.
                if is_news && self.place(now, topic, &info, effects) && self.has_no_question(topic)
                {
                    self.topics[topic].is_asked = false;
                    self.topics[topic].unsettled = 0;
                } else {
                    self.ask_again(now, topic, 0);
                }
            }
            Err(refusal) if refusal.code.may_retry() => {
                self.ask_again(now, topic, refusal.hint_nanos().max(RETRY_NANOS));
                self.turn_address(now, &refusal, effects);
            }
            Err(refusal) if self.is_to_be_confirmed(now, door, topic, &refusal) => {
                self.ask_again(now, topic, refusal.hint_nanos().max(RETRY_NANOS));
            }
            Err(refusal) => {
                self.topics[topic].is_asked = false;
                self.topics[topic].unsettled = 0;
                self.topics[topic].is_known = false;
                let error = match refusal.code {
                    ErrorCode::UnknownTopic => {
                        Error::UnknownTopic(Arc::clone(&self.topics[topic].name))
                    }
                    _ => Error::Refused(refusal),
                };
                self.fail_pending(topic, &error, effects);
                for queue in self.topics[topic].queues.clone() {
                    self.fail_waiting(queue, &error, effects);
                }
                self.fail_assignments(topic, &error, effects);
                self.fail_requests(topic, &error, effects);
            }
        }
        Ok(())
    }

    /// The broker behind this door does not know the topic. In a cluster it may be behind, and says so or not.
    fn is_to_be_confirmed(
        &mut self,
        now: Now,
        door: usize,
        topic: usize,
        refusal: &Refusal,
    ) -> bool {
        let by = self.doors[door].broker;
        let at = &mut self.topics[topic];
        let first = Denied { by, since: now.monotonic, is_by_two: false };
        let mut denied = at.denied.take().unwrap_or(first);
        denied.is_by_two |= denied.by != by;
        let is_agreed = denied.is_by_two || at.unsettled >= DENIALS_MAX;
        let is_late = now.monotonic >= denied.since.after(DENIED_NANOS);
        let is_behind = refusal.retry_after_ms > 0 || self.cluster.has_others(by);
        let is_to_be =
            refusal.code == ErrorCode::UnknownTopic && is_behind && !(is_agreed && is_late);
        at.denied = is_to_be.then_some(denied);
        is_to_be
    }

    /// Asks for a topic again, after `least_nanos` or more, and of another broker if there is one. Till then it
    /// counts as asked, so that nobody asks a second time.
    fn ask_again(&mut self, now: Now, topic: usize, least_nanos: u64) {
        let mut wait = least_nanos;
        if self.cluster.is_known() {
            wait = wait.max(self.redirect_nanos(self.topics[topic].unsettled));
            self.turn_guide(now);
        }
        let at = &mut self.topics[topic];
        at.unsettled = at.unsettled.saturating_add(1);
        at.is_asked = true;
        self.retries.insert((now.monotonic.after(wait), Retry::Topic(topic)));
    }

    pub(super) fn on_topic_retry(&mut self, topic: usize) {
        self.topics[topic].is_asked = false;
        self.describe_topic(topic);
    }

    pub(super) fn append_pending(&mut self, now: Now, topic: usize, effects: &mut Effects<T>) {
        while let Some(pending) = self.topics[topic].pending.pop_front() {
            self.producer.memory_used -= pending.bytes;
            let headers: Vec<Header<'_>> = pending
                .headers
                .iter()
                .map(|(name, value)| Header { name, value: value.as_deref() })
                .collect();
            let mut record = Record::to("");
            record.key = pending.key.as_deref();
            record.value = pending.value.as_deref();
            record.headers = &headers;
            record.timestamp_ms = Some(pending.timestamp_ms);
            let new = new_record(&record, now);
            let level = pending.level.unwrap_or(self.config.producer.durability);
            let (stages, flush, deadline) = (pending.stages, pending.flush, pending.deadline);
            let appended =
                match self.choose(topic, pending.partition, record.key, record_bytes_max(&new)) {
                    Err(error) => Err((error, pending.token)),
                    Ok(queue) => self
                        .append(now, queue, &new, level, stages, pending.token, flush, deadline)
                        .map(|()| self.wake_queue(now.monotonic, queue)),
                };
            if let Err((error, token)) = appended {
                self.fail_pending_one(topic, pending.partition, token, flush, error, effects);
            }
        }
        // A flush that was asked for meanwhile found no batch of theirs to close.
        let current = self.producer.current_flush();
        for at in self.topics[topic].queues.clone() {
            if let Some(batch) = self.producer.queues[at].waiting.back_mut()
                && batch.flush != current
            {
                batch.closed = true;
                self.wake_queue(now.monotonic, at);
            }
        }
    }

    /// Fails the records of a topic that wait for its places.
    pub(super) fn fail_pending(&mut self, topic: usize, error: &Error, effects: &mut Effects<T>) {
        while let Some(pending) = self.topics[topic].pending.pop_front() {
            self.producer.memory_used -= pending.bytes;
            let Pending { partition, token, flush, .. } = pending;
            self.fail_pending_one(topic, partition, token, flush, error.clone(), effects);
        }
    }

    /// Fails those whose deadline has come.
    pub(super) fn expire_pending(&mut self, now: Now, topic: usize, effects: &mut Effects<T>) {
        let door = self.door_of_metadata();
        let error = match self.doors[door].is_open() {
            true => Error::DeadlineExceeded { sent: false },
            false => self.unreachable(),
        };
        while let Some(pending) = self.topics[topic].pending.front()
            && pending.deadline <= now.monotonic
            && let Some(pending) = self.topics[topic].pending.pop_front()
        {
            self.producer.memory_used -= pending.bytes;
            let Pending { partition, token, flush, .. } = pending;
            self.fail_pending_one(topic, partition, token, flush, error.clone(), effects);
        }
    }

    fn fail_pending_one(
        &mut self,
        topic: usize,
        partition: Option<u32>,
        token: T,
        flush: u64,
        error: Error,
        effects: &mut Effects<T>,
    ) {
        self.counters.records_failed += 1;
        let topic = Arc::clone(&self.topics[topic].name);
        effects.push(Effect::Failed(Failed { topic, partition, error, tokens: vec![token] }));
        self.note_done(flush, 1, effects);
    }
}
