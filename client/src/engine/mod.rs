//! The client as a plain state machine: routing, batching, windows, retries, deadlines, consumer
//! positions. No sockets, clock, threads or randomness of its own, so a driver on real sockets and
//! a simulator run the very same code.
//!
//! How to drive it:
//!  - Call a command ([`produce`](Engine::produce), [`flush`](Engine::flush), [`assign`](Engine::assign), [`take`](Engine::take), [`request`](Engine::request)) or tell an event
//!    ([`on_event`](Engine::on_event)), each with the time. Each appends to `effects`; carry them out in order.
//!  - After each call ask [`next_wake`](Engine::next_wake), and tell [`Event::Timer`] when that time has come.
//!  - Time never goes back between calls.
//!
//! The same calls with the same times and the same seed give the same effects.

mod accept;
mod admin;
mod assignment;
mod batches;
mod cluster;
pub mod config;
mod consumed;
mod consumer;
mod door;
mod doubt;
pub mod event;
mod fetch;
mod latency;
mod line;
mod links;
mod locate;
mod moving;
mod near;
mod objective;
mod produce;
mod queue;
pub(crate) mod random;
pub mod time;
mod timers;
mod topics;
mod wire;

pub use accept::{FetchedBatch, FetchedRecord};
pub use admin::{AdminReply, AdminRequest, PartitionOffsets};
pub use assignment::{AssignmentId, Position};
pub use config::{Config, ConsumerConfig, OutOfRange, ProducerConfig};
pub use consumed::{BatchRecords, ConsumedRecord};
pub use consumer::{ConsumerId, Fetched};
pub use event::{Delivered, Effect, Effects, Event, Failed, Outgoing};
pub use objective::{ObjectiveReport, ObjectiveState};
pub use time::{Monotonic, Now};

use crate::compression::Codec;
use crate::{Error, Record};
use assignment::Assignment;
use cluster::Cluster;
use corelog_protocol::ids::ShardId;
use door::Door;
use objective::Objective;
use produce::Producer;
use random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use topics::Topic;

/// One connection, as the engine names it. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// One [`Engine::flush`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FlushId(pub u64);

/// One [`Engine::request`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// Where the metadata lives: on the first shard of a broker.
const METADATA_SHARD: ShardId = ShardId(0);

/// Doors that are kept apart. Shards beyond share the door "any": a broker that invents shard
/// numbers cannot make the client open 65,535 connections.
const DOORS_MAX: usize = 1024;

/// How long to wait before a retriable refusal without a hint is tried again, ns.
const RETRY_NANOS: u64 = 20 * time::MILLIS;

/// What the engine counted since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    pub records_accepted: u64,
    pub records_delivered: u64,
    pub records_failed: u64,
    pub batches_sent: u64,
    pub batches_retried: u64,
    /// Sequences that were begun anew, after a batch had been given up.
    pub producer_epochs: u64,
    pub records_fetched: u64,
    /// Of them, those that came from a follower in the consumer's rack.
    pub records_of_followers: u64,
    /// Times that a partition was asked for of its leader, and of a follower in the consumer's rack.
    pub fetches_of_leaders: u64,
    pub fetches_of_followers: u64,
    /// Times that a follower refused, was silent or did not keep up, and a partition was read from its leader for a while.
    pub followers_left: u64,
    /// Positions that were out of range and were moved, as [`OutOfRange`] says.
    pub positions_moved: u64,
    pub bytes_sent: u64,
    /// By which compression made batches smaller.
    pub bytes_saved: u64,
    pub bytes_received: u64,
    pub connects: u64,
    /// Refusals of level `none`, of which no user is told.
    pub records_refused_unanswered: u64,
    /// Connections closed because the broker broke the protocol.
    pub protocol_errors: u64,
}

/// The state machine. `T` is the driver's token for a record: a handle, a callback, a number.
#[derive(Debug)]
pub struct Engine<T> {
    config: Config,
    random: Random,
    counters: Counters,
    is_closed: bool,
    /// One for each shard of a broker that was ever needed. Few: they are found by a walk.
    doors: Vec<Door>,
    next_link: u64,
    /// The address to try next.
    address: usize,
    cluster: Cluster,
    topics: Vec<Topic<T>>,
    topic_by_name: BTreeMap<Arc<str>, usize>,
    producer: Producer<T>,
    codec: Codec,
    objective: Option<Objective>,
    /// The time of the step.
    clock: Monotonic,
    consumers: Vec<consumer::Consumer>,
    assignments: BTreeMap<AssignmentId, Assignment>,
    next_assignment: u64,
    requests: BTreeMap<RequestId, admin::Asked>,
    next_request: u64,
    retries: BTreeSet<(Monotonic, Retry)>,
}

/// What is tried again at a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Retry {
    Queue(usize),
    Topic(usize),
    Assignment(AssignmentId),
    Request(RequestId),
    /// Of the door: all doors are looked at after any event.
    Fetches(usize),
}

impl<T> Engine<T> {
    /// `seed` feeds jitter (of reconnects, and of the partition where keyless records start), and is the id by which
    /// brokers know this producer's batches: two engines with the same seed would be taken for one.
    ///
    /// # Panics
    /// If there is no address, or a bound of the settings is 0 where that makes no sense.
    #[must_use]
    pub fn new(mut config: Config, seed: u64) -> Self {
        assert!(!config.addresses.is_empty(), "at least one address");
        assert!(config.producer.window_batches > 0);
        assert!(config.reconnect_nanos_min > 0);
        assert!(config.reconnect_nanos_max >= config.reconnect_nanos_min);
        if config.producer.is_idempotent {
            config.producer.window_batches = config.producer.window_batches.min(line::WINDOW_MAX);
        }
        let ProducerConfig { objective_nanos, batch_bytes_max, .. } = config.producer;
        let objective = objective_nanos.map(|goal| Objective::new(goal, batch_bytes_max));
        let mut random = Random::new(seed);
        let producer = Producer::new(&config.producer, random.next_u64());
        Self {
            config,
            random,
            counters: Counters::default(),
            is_closed: false,
            doors: Vec::new(),
            next_link: 1,
            address: 0,
            cluster: Cluster::default(),
            topics: Vec::new(),
            topic_by_name: BTreeMap::new(),
            producer,
            codec: Codec::default(),
            objective,
            clock: Monotonic(0),
            consumers: Vec::new(),
            assignments: BTreeMap::new(),
            next_assignment: 1,
            requests: BTreeMap::new(),
            next_request: 1,
            retries: BTreeSet::new(),
        }
    }

    /// Tells what happened outside.
    pub fn on_event(&mut self, now: Now, event: Event<'_>, effects: &mut Effects<T>) {
        if self.is_closed {
            return;
        }
        self.clock = now.monotonic;
        match event {
            Event::Connected { link } => self.on_connected(now, link, effects),
            Event::Received { link, bytes } => self.on_received(now, link, bytes, effects),
            Event::Sent { link, bytes } => self.on_sent(now, link, bytes, effects),
            Event::Closed { link } => self.on_closed(now, link, effects),
            Event::Timer => self.on_timer(now, effects),
        }
        self.judge_objective(now, effects);
        self.pump_all(now, effects);
    }

    /// Accepts a record: from here on it is delivered or failed, once, within the delivery deadline.
    ///
    /// # Errors
    /// With the token, if the record is not accepted: [`Error::Full`], `InvalidRecord`,
    /// `InvalidArgument`, `UnknownPartition`, `Closed`. Nothing has happened then.
    pub fn produce(
        &mut self,
        now: Now,
        record: &Record<'_>,
        token: T,
        effects: &mut Effects<T>,
    ) -> Result<(), (Error, T)> {
        self.clock = now.monotonic;
        self.accept(now, record, token, effects)
    }

    /// Sends what lingers; [`Effect::Flushed`] comes when all that was accepted before is delivered
    /// or failed.
    pub fn flush(&mut self, now: Now, effects: &mut Effects<T>) -> FlushId {
        self.clock = now.monotonic;
        self.begin_flush(now, effects)
    }

    /// A consumer: a group of assignments that share a budget and are taken together.
    pub fn consumer(&mut self, mut config: ConsumerConfig) -> ConsumerId {
        config.rack = config.rack.or_else(|| self.config.rack.clone());
        self.consumers.push(consumer::Consumer::new(config));
        ConsumerId(self.consumers.len() as u32 - 1)
    }

    /// Fails everything outstanding and closes every connection. Afterwards commands are refused
    /// and events ignored.
    pub fn close(&mut self, now: Now, effects: &mut Effects<T>) {
        if self.is_closed {
            return;
        }
        for door in 0..self.doors.len() {
            if let Some(link) = &self.doors[door].link {
                effects.push(Effect::Close { link: link.id });
                self.lose(now, door, effects);
            }
        }
        self.is_closed = true;
        self.fail_all_records(&Error::Closed, effects);
        for request in std::mem::take(&mut self.requests).into_keys() {
            effects.push(Effect::Answered { request, answer: Err(Error::Closed) });
        }
    }

    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How the producer stands to its objective. None: it has none.
    #[must_use]
    pub fn objective(&self) -> Option<ObjectiveReport> {
        self.objective.as_ref().map(Objective::report)
    }

    /// Bytes accepted and not yet delivered or failed, as counted against the budget.
    #[must_use]
    pub fn memory_used(&self) -> usize {
        self.producer.memory_used
    }

    /// Gives a token vector back for reuse: spares an allocation per batch.
    pub fn recycle(&mut self, mut tokens: Vec<T>) {
        tokens.clear();
        if self.producer.token_pool.len() < produce::POOL_MAX && tokens.capacity() > 0 {
            self.producer.token_pool.push(tokens);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
