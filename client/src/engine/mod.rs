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

pub mod config;
pub mod consumer;
pub mod event;
pub mod time;

pub use config::{Config, ConsumerConfig, ProducerConfig};
pub use consumer::{AssignmentId, ConsumerId, Fetched, FetchedBatch, Position};
pub use event::{Delivered, Effect, Effects, Event, Failed, Outgoing};
pub use time::{Monotonic, Now};

use crate::{Error, Record};

/// One connection, as the engine names it. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// One [`Engine::flush`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FlushId(pub u64);

/// One [`Engine::request`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// Something asked of the cluster rather than of a partition's data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdminRequest {
    CreateTopic {
        name: String,
        settings: TopicSettings,
    },
    ListTopics,
    DescribeTopic {
        name: String,
    },
    DeleteTopic {
        name: String,
    },
    /// The bounds of a partition, and where `at` lies in it.
    Offsets {
        topic: String,
        partition: u32,
        at: Position,
    },
    /// The broker's counters.
    Status,
}

/// What a topic is made with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicSettings {
    pub partitions: u32,
    /// Milliseconds. None: for ever.
    pub retention_ms: Option<u64>,
    /// Bytes per partition. None: no bound.
    pub retention_bytes: Option<u64>,
}

/// The answer to an [`AdminRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdminReply {
    Created(TopicDescription),
    Topics(Vec<TopicSummary>),
    Topic(TopicDescription),
    Deleted,
    Offsets {
        log_start: u64,
        committed_end: u64,
        found: u64,
    },
    /// (shard, counter, value), as the broker lists them.
    Status(Vec<(u16, String, u64)>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicSummary {
    pub name: String,
    pub partitions: u32,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicDescription {
    pub name: String,
    pub topic: u32,
    /// By partition, from 0.
    pub partitions: Vec<PartitionPlace>,
}

/// Where a partition lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionPlace {
    pub id: u32,
    pub lane: u32,
    pub shard: u16,
}

/// What the engine counted since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    pub records_accepted: u64,
    pub records_delivered: u64,
    pub records_failed: u64,
    pub batches_sent: u64,
    pub batches_retried: u64,
    pub records_fetched: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub connects: u64,
    /// Connections closed because the broker broke the protocol.
    pub protocol_errors: u64,
}

/// The state machine. `T` is the driver's token for a record: a handle, a callback, a number.
#[derive(Debug)]
pub struct Engine<T> {
    tokens: Vec<T>,
}

impl<T> Engine<T> {
    /// `seed` only feeds the jitter of reconnects.
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Self {
        let _ = (config, seed);
        unreachable!()
    }

    /// Tells what happened outside.
    pub fn on_event(&mut self, now: Now, event: Event<'_>, effects: &mut Effects<T>) {
        let _ = (now, event, effects);
        unreachable!()
    }

    /// Accepts a record: from here on it is delivered or failed, once, within the delivery deadline.
    ///
    /// # Errors
    /// With the token, if the record cannot be accepted: [`Error::Full`], `InvalidRecord`, `Closed`.
    pub fn produce(
        &mut self,
        now: Now,
        record: &Record<'_>,
        token: T,
        effects: &mut Effects<T>,
    ) -> Result<(), (Error, T)> {
        let _ = (now, record, token, effects);
        unreachable!()
    }

    /// Sends what lingers; [`Effect::Flushed`] comes when all that was accepted before is delivered or failed.
    pub fn flush(&mut self, now: Now, effects: &mut Effects<T>) -> FlushId {
        let _ = (now, effects);
        unreachable!()
    }

    /// A consumer: a group of assignments that share a budget and are taken together.
    pub fn consumer(&mut self, config: ConsumerConfig) -> ConsumerId {
        let _ = config;
        unreachable!()
    }

    /// Starts to fetch a partition from `position`.
    pub fn assign(
        &mut self,
        now: Now,
        consumer: ConsumerId,
        topic: &str,
        partition: u32,
        position: Position,
        effects: &mut Effects<T>,
    ) -> AssignmentId {
        let _ = (now, consumer, topic, partition, position, effects);
        unreachable!()
    }

    /// Ends an assignment; what it had fetched is dropped.
    pub fn unassign(&mut self, now: Now, assignment: AssignmentId, effects: &mut Effects<T>) {
        let _ = (now, assignment, effects);
        unreachable!()
    }

    /// Goes on from `position`; what was fetched is dropped. Also clears an error.
    pub fn seek(
        &mut self,
        now: Now,
        assignment: AssignmentId,
        position: Position,
        effects: &mut Effects<T>,
    ) {
        let _ = (now, assignment, position, effects);
        unreachable!()
    }

    /// Stops (true) or goes on with fetching and taking from an assignment. What is fetched stays.
    pub fn pause(
        &mut self,
        now: Now,
        assignment: AssignmentId,
        paused: bool,
        effects: &mut Effects<T>,
    ) {
        let _ = (now, assignment, paused, effects);
        unreachable!()
    }

    /// The next batch or error of a consumer, in turn over its assignments, and makes room for more.
    pub fn take(
        &mut self,
        now: Now,
        consumer: ConsumerId,
        effects: &mut Effects<T>,
    ) -> Option<Fetched> {
        let _ = (now, consumer, effects);
        unreachable!()
    }

    /// Asks the cluster something. [`Effect::Answered`] comes by `deadline`.
    pub fn request(
        &mut self,
        now: Now,
        request: AdminRequest,
        deadline: Monotonic,
        effects: &mut Effects<T>,
    ) -> RequestId {
        let _ = (now, request, deadline, effects);
        unreachable!()
    }

    /// When to tell [`Event::Timer`], if nothing else happens before.
    #[must_use]
    pub fn next_wake(&self) -> Option<Monotonic> {
        unreachable!()
    }

    /// Fails everything outstanding and closes every connection. Afterwards all commands are refused.
    pub fn close(&mut self, now: Now, effects: &mut Effects<T>) {
        let _ = (now, effects);
        unreachable!()
    }

    #[must_use]
    pub fn counters(&self) -> &Counters {
        unreachable!()
    }

    /// Gives a token vector back for reuse, emptied: spares an allocation per batch.
    pub fn recycle(&mut self, tokens: Vec<T>) {
        self.tokens = tokens;
    }
}
