//! From a record to a batch to the door: acceptance, partitioning, gathering, sending.
//! What becomes of a sent batch is in `batches.rs`.

use super::door::{Request, UNANSWERED};
use super::line::Stamp;
use super::queue::{Batch, BatchState, Body, Queue};
use super::time::{MILLIS, Monotonic, Now};
use super::topics::Pending;
use super::{Effect, Effects, Engine, FlushId, Outgoing, ProducerConfig, Retry};
use crate::{Durability, Error, Partitioner, Record, partition_of_key};
use corelog_protocol::batch::{
    BATCH_HEADER_BYTES, BatchBuilder, NewRecord, PushError, record_bytes_max, set_producer,
};
use corelog_protocol::ids::ProducerId;
use corelog_protocol::produce::{FormerStamp, Produce};
use std::collections::VecDeque;
use std::sync::Arc;

/// Builders, buffers and token vectors that are kept for reuse, each.
pub(super) const POOL_MAX: usize = 256;

/// A pooled buffer that grew beyond this for one large record is not kept.
const POOL_BYTES_MAX: usize = 1 << 20;

/// No frame is larger, whatever a broker says.
const FRAME_BYTES_HARD: usize = 16 << 20;

/// Counted for a batch beside its bytes: its place in queues and maps.
const BATCH_OVERHEAD_BYTES: usize = 256;

/// 65,536 records of the least size are 384 KiB: more only makes the unit of failure larger.
const RECORDS_PER_BATCH: u32 = 1 << 16;

/// What the engine knows of all records on their way.
#[derive(Debug)]
pub(super) struct Producer<T> {
    /// None without idempotence.
    id: Option<ProducerId>,
    pub queues: Vec<Queue<T>>,
    pub memory_used: usize,
    next_batch: u64,
    batch_bytes_max: usize,
    /// When batches have lingered. One length for all, so the order of time is the order of arrival;
    /// when an objective shortens it, the times are brought forward.
    pub lingering: VecDeque<(Monotonic, usize, u64)>,
    /// The same for deadlines.
    pub deadlines: VecDeque<(Monotonic, Due)>,
    /// From the oldest unfinished flush to the one that is not asked for yet.
    pub flushes: VecDeque<FlushMark>,
    /// Boxed: they move between here and their batches.
    #[allow(clippy::vec_box)]
    pub builders: Vec<Box<Builder>>,
    pub buffers: Vec<Arc<Vec<u8>>>,
    pub token_pool: Vec<Vec<T>>,
}

/// A batch builder, and how large its batches may grow.
#[derive(Debug)]
pub(super) struct Builder {
    batch: BatchBuilder,
    bytes_max: usize,
}

impl Builder {
    fn new(bytes_max: usize, records_max: u32) -> Box<Self> {
        Box::new(Self { batch: BatchBuilder::new(bytes_max, records_max), bytes_max })
    }

    /// A record of at most `bytes` fits beside what is there.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.batch.len_bytes() + bytes <= self.bytes_max
            && self.batch.record_count() < RECORDS_PER_BATCH
    }
}

/// What a delivery deadline is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    Batch {
        queue: usize,
        batch: u64,
    },
    /// Records of a topic whose partitions are not known yet.
    Pending {
        topic: usize,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct FlushMark {
    pub id: u64,
    /// Records accepted before it, after the one before, and not done.
    pub outstanding: u64,
    pub is_asked: bool,
}

impl<T> Producer<T> {
    pub(super) fn new(config: &ProducerConfig, id: u64) -> Self {
        Self {
            id: config.is_idempotent.then_some(ProducerId(id.max(1))),
            queues: Vec::new(),
            memory_used: 0,
            next_batch: 1,
            batch_bytes_max: config.batch_bytes_max.clamp(4 << 10, FRAME_BYTES_HARD - 4096),
            lingering: VecDeque::new(),
            deadlines: VecDeque::new(),
            flushes: VecDeque::from([FlushMark { id: 1, outstanding: 0, is_asked: false }]),
            builders: Vec::new(),
            buffers: Vec::new(),
            token_pool: Vec::new(),
        }
    }

    /// A broker said how large a frame may be.
    pub(super) fn limit_batches(&mut self, frame_bytes_max: usize) {
        let most = frame_bytes_max.saturating_sub(Produce::CONTROL_BYTES).max(4 << 10);
        if most < self.batch_bytes_max {
            self.batch_bytes_max = most;
            self.builders.clear();
        }
    }

    pub(super) fn current_flush(&self) -> u64 {
        self.flushes.back().map_or(0, |mark| mark.id)
    }

    fn builder(&mut self) -> Box<Builder> {
        let bytes_max = self.batch_bytes_max;
        self.builders.pop().unwrap_or_else(|| Builder::new(bytes_max, RECORDS_PER_BATCH))
    }

    /// Finishes an open batch, packs it and gives its builder back. With `stamp` it names its producer so.
    fn build(
        &mut self,
        body: &mut Body,
        stamp: Option<Stamp>,
        pack: impl FnOnce(&mut Vec<u8>),
    ) -> Arc<Vec<u8>> {
        let stamp = self.id.zip(stamp);
        match body {
            Body::Built(bytes) => {
                if let Some((id, Stamp { epoch, sequence })) = stamp {
                    // A driver may still hold the bytes under their old stamp.
                    set_producer(Arc::<Vec<u8>>::make_mut(bytes), id, epoch, sequence);
                }
                Arc::clone(bytes)
            }
            Body::Open(builder) => {
                if let Some((id, Stamp { epoch, sequence })) = stamp {
                    builder.batch.set_producer(id, epoch, sequence);
                }
                let mut shared = self.buffers.pop().unwrap_or_default();
                if Arc::get_mut(&mut shared).is_none() {
                    // A driver still holds it.
                    shared = Arc::default();
                }
                if let Some(buffer) = Arc::get_mut(&mut shared) {
                    *buffer = builder.batch.take(std::mem::take(buffer));
                    pack(buffer);
                }
                if let Body::Open(builder) =
                    std::mem::replace(body, Body::Built(Arc::clone(&shared)))
                    && self.builders.len() < POOL_MAX
                    && builder.bytes_max == self.batch_bytes_max
                {
                    self.builders.push(builder);
                }
                shared
            }
        }
    }

    /// A batch is done with: its memory is free, its parts are kept.
    pub(super) fn release(&mut self, batch: &mut Batch<T>) {
        self.memory_used -= batch.bytes;
        batch.bytes = 0;
        let body = std::mem::replace(&mut batch.body, Body::Built(Arc::default()));
        match body {
            Body::Built(bytes) => {
                if self.buffers.len() < POOL_MAX && bytes.capacity() <= POOL_BYTES_MAX {
                    self.buffers.push(bytes);
                }
            }
            Body::Open(mut builder) => {
                if self.builders.len() < POOL_MAX && builder.bytes_max == self.batch_bytes_max {
                    builder.batch.clear();
                    self.builders.push(builder);
                }
            }
        }
    }
}

impl<T> Engine<T> {
    pub(super) fn accept(
        &mut self,
        now: Now,
        record: &Record<'_>,
        token: T,
        effects: &mut Effects<T>,
    ) -> Result<(), (Error, T)> {
        if self.is_closed {
            return Err((Error::Closed, token));
        }
        let new = new_record(record, now);
        let bytes = record_bytes_max(&new);
        if bytes + BATCH_HEADER_BYTES > FRAME_BYTES_HARD - Produce::CONTROL_BYTES {
            return Err((Error::InvalidRecord("larger than any frame"), token));
        }
        let cost = bytes + BATCH_HEADER_BYTES + BATCH_OVERHEAD_BYTES;
        // One record may always pass, or a small budget would refuse it for ever.
        if self.producer.memory_used > 0
            && self.producer.memory_used + cost > self.config.producer.memory_bytes_max
        {
            return Err((Error::Full, token));
        }
        let topic = match self.topic(record.topic) {
            Ok(topic) => topic,
            Err(error) => return Err((error, token)),
        };
        let flush = self.producer.current_flush();
        let deadline = now.monotonic.after(self.config.producer.delivery_nanos_max);
        if !self.topics[topic].is_known {
            let pending = Pending::new(record, new.timestamp, token, flush, deadline, cost);
            self.topics[topic].pending.push_back(pending);
            self.producer.memory_used += cost;
            self.producer.deadlines.push_back((deadline, Due::Pending { topic }));
            self.note_accepted(flush, 1);
            self.describe_topic(topic);
            self.pump_all(now, effects);
            return Ok(());
        }
        let queue = match self.choose(topic, record.partition, record.key, bytes) {
            Ok(queue) => queue,
            Err(error) => return Err((error, token)),
        };
        let level = record.level.unwrap_or(self.config.producer.durability);
        self.append(now, queue, &new, level, record.stages, token, flush, deadline)?;
        self.note_accepted(flush, 1);
        self.wake_queue(now.monotonic, queue);
        let Queue { door, is_led, .. } = self.producer.queues[queue];
        if is_led {
            self.pump(now, door, effects);
        } else {
            self.describe_topic(topic);
            self.pump_all(now, effects);
        }
        Ok(())
    }

    pub(super) fn note_accepted(&mut self, flush: u64, records: u64) {
        self.counters.records_accepted += records;
        if let Some(objective) = &mut self.objective {
            objective.on_accepted(self.clock);
        }
        if let Some(mark) = self.producer.flushes.iter_mut().rfind(|mark| mark.id == flush) {
            mark.outstanding += records;
        }
    }

    /// The queue of the partition that a record of at most `bytes` goes to.
    pub(super) fn choose(
        &mut self,
        topic: usize,
        partition: Option<u32>,
        key: Option<&[u8]>,
        bytes: usize,
    ) -> Result<usize, Error> {
        let partitioner = self.config.producer.partitioner;
        let at = &mut self.topics[topic];
        let count = at.partition_count;
        if count == 0 {
            return Err(Error::UnknownTopic(Arc::clone(&at.name)));
        }
        let number = match (partition, key) {
            (Some(number), _) if number < count => number,
            (Some(partition), _) => {
                return Err(Error::UnknownPartition { topic: Arc::clone(&at.name), partition });
            }
            (None, Some(key)) => partition_of_key(key, count),
            (None, None) => {
                at.sticky %= count;
                // A batch that is full ends its partition's turn, also when the next one could
                // begin there at once: else a fast sender would never leave it.
                let gathers = |number: u32| {
                    let queue = at.queues[number as usize];
                    let last = self.producer.queues[queue].waiting.back();
                    last.is_some_and(|batch| batch.has_room(bytes))
                };
                if at.is_sticky_used
                    && (partitioner == Partitioner::RoundRobin || !gathers(at.sticky))
                {
                    at.sticky = (at.sticky + 1) % count;
                }
                at.is_sticky_used = true;
                at.sticky
            }
        };
        Ok(at.queues[number as usize])
    }

    /// Adds a record to the last batch of its queue, or to a new one.
    #[allow(clippy::too_many_arguments)] // One call site per origin of a record; a struct would only rename them.
    pub(super) fn append(
        &mut self,
        now: Now,
        at: usize,
        record: &NewRecord<'_>,
        level: Durability,
        stages: bool,
        token: T,
        flush: u64,
        deadline: Monotonic,
    ) -> Result<(), (Error, T)> {
        let queue = &mut self.producer.queues[at];
        if let Some(batch) = queue.waiting.back_mut()
            && !batch.closed
            && let Body::Open(builder) = &mut batch.body
        {
            let before = builder.batch.len_bytes();
            let is_alike = batch.level == level && batch.stages == stages && batch.flush == flush;
            // An objective may want batches smaller than they could be.
            let has_room = self
                .objective
                .as_ref()
                .is_none_or(|it| before + record_bytes_max(record) <= it.batch_bytes());
            if is_alike && has_room && builder.batch.push(record).is_ok() {
                let added = builder.batch.len_bytes() - before + size_of::<T>();
                batch.bytes += added;
                batch.tokens.push(token);
                batch.record_count += 1;
                self.producer.memory_used += added;
                return Ok(());
            }
            batch.closed = true;
            batch.is_full = is_alike;
        }
        let mut builder = self.producer.builder();
        match builder.batch.push(record) {
            Ok(()) => {}
            Err(PushError::TooLarge { bytes, .. }) => {
                // It travels alone.
                self.producer.builders.push(builder);
                builder = Builder::new(bytes, 1);
                if builder.batch.push(record).is_err() {
                    return Err((Error::InvalidRecord("too large"), token));
                }
            }
            Err(PushError::Headers) => {
                self.producer.builders.push(builder);
                return Err((Error::InvalidRecord("too many headers"), token));
            }
            Err(PushError::Full | PushError::TimestampSpread) => {
                return Err((Error::InvalidRecord("it fits no empty batch"), token));
            }
        }
        self.forget_settled();
        let id = self.producer.next_batch;
        self.producer.next_batch += 1;
        let linger_nanos = match &self.objective {
            Some(objective) => objective.linger(),
            None => self.config.producer.linger_nanos,
        };
        let linger_until = now.monotonic.after(linger_nanos);
        let mut tokens = self.producer.token_pool.pop().unwrap_or_default();
        tokens.push(token);
        let bytes = builder.batch.len_bytes() + BATCH_OVERHEAD_BYTES + size_of::<T>();
        self.producer.memory_used += bytes;
        self.producer.queues[at].waiting.push_back(Batch {
            id,
            level,
            stages,
            tokens,
            body: Body::Open(builder),
            closed: false,
            bytes,
            linger_until,
            sent_at: now.monotonic,
            is_full: false,
            deadline,
            flush,
            state: BatchState::Waiting,
            refusal: None,
            record_count: 1,
            stamp: None,
            former: None,
            place: 0,
            is_unsure: false,
        });
        if linger_nanos > 0 {
            self.producer.lingering.push_back((linger_until, at, id));
        }
        self.producer.deadlines.push_back((deadline, Due::Batch { queue: at, batch: id }));
        Ok(())
    }

    /// Puts a queue into its door's list if its front batch may leave.
    pub(super) fn wake_queue(&mut self, now: Monotonic, at: usize) {
        let queue = &mut self.producer.queues[at];
        if queue.flying.is_empty()
            && queue.unconfirmed == 0
            && let Some(door) = queue.next_door.take()
        {
            if std::mem::take(&mut queue.is_ready) {
                self.doors[queue.door].ready.retain(|&other| other != at);
            }
            queue.door = door;
        }
        if !queue.is_led && std::mem::take(&mut queue.is_ready) {
            self.doors[queue.door].ready.retain(|&other| other != at);
        }
        if queue.not_before > now && !queue.waiting.is_empty() {
            self.retries.insert((queue.not_before, Retry::Queue(at)));
        } else if !queue.is_ready && queue.may_send(now, self.config.producer.window_batches) {
            queue.is_ready = true;
            self.doors[queue.door].ready.push_back(at);
        }
    }

    pub(super) fn send_batches(&mut self, now: Now, door: usize, effects: &mut Effects<T>) {
        let window = self.config.producer.window_batches;
        while let Some(&at) = self.doors[door].ready.front() {
            let Some(link) = self.doors[door].open_link() else { return };
            if link.produce_bytes >= self.config.producer.window_bytes {
                return;
            }
            let frame_bytes = link.peer_frame_bytes;
            self.doors[door].ready.pop_front();
            let queue = &mut self.producer.queues[at];
            queue.is_ready = false;
            if queue.door != door {
                self.wake_queue(now.monotonic, at);
                continue;
            }
            if !queue.may_send(now.monotonic, window) {
                continue;
            }
            let Some(mut batch) = queue.waiting.pop_front() else { continue };
            let mut stamp = None;
            if self.producer.id.is_some() && batch.level.is_acknowledged() {
                stamp = queue.line.stamp(&batch);
                if stamp.is_none() {
                    self.conclude(at, batch, Err(Error::ConnectionLost), effects);
                    self.wake_queue(now.monotonic, at);
                    continue;
                }
            }
            let news = stamp.filter(|_| stamp != batch.stamp);
            let (compression, codec) = (self.config.producer.compression, &mut self.codec);
            let saved = &mut self.counters.bytes_saved;
            let bytes = self.producer.build(&mut batch.body, news, |bytes| {
                *saved += codec.pack(compression, bytes) as u64;
            });
            if bytes.len() + Produce::CONTROL_BYTES > frame_bytes {
                let error = Error::InvalidRecord("larger than a frame that the broker takes");
                self.conclude(at, batch, Err(error), effects);
            } else {
                if let Some(stamp) = stamp {
                    self.producer.queues[at].line.take(&mut batch, stamp);
                }
                self.send_batch(now, door, at, batch, bytes, effects);
            }
            self.wake_queue(now.monotonic, at);
        }
    }

    fn send_batch(
        &mut self,
        now: Now,
        door: usize,
        at: usize,
        mut batch: Batch<T>,
        bytes: Arc<Vec<u8>>,
        effects: &mut Effects<T>,
    ) {
        let Some(link) = self.doors[door].open_link() else { return };
        let queue = &mut self.producer.queues[at];
        // An answer to the last batch through a door says that all before it were taken.
        let durability = match queue.needs_confirmation() {
            true if !batch.level.is_acknowledged() => Durability::LeaderMemory,
            _ => batch.level,
        };
        if !durability.is_acknowledged() {
            queue.unconfirmed = batch.id;
        }
        let remaining_ms = batch.deadline.since(now.monotonic) / MILLIS;
        let produce = Produce {
            partition: queue.id,
            timeout_ms: remaining_ms.clamp(1, u64::from(u32::MAX)) as u32,
            durability,
            want_stages: batch.stages,
            sent_before: batch.is_unsure,
            former: batch.former.map(|Stamp { epoch, sequence }| FormerStamp { epoch, sequence }),
        };
        let frame = Produce::HEAD_BYTES + bytes.len();
        let end;
        let correlation;
        if durability.is_acknowledged() {
            let answer_by = now.monotonic.after(self.config.request_nanos_max);
            let request =
                Request::Produce { queue: at, batch: batch.id, bytes: frame, partition: queue.id };
            correlation = link.begin(request, answer_by);
            end = link.order(correlation, frame);
        } else {
            correlation = UNANSWERED | batch.id;
            link.ordered += frame as u64;
            end = link.ordered;
            link.unanswered.push_back((end, at, batch.id, frame));
        }
        link.produce_bytes += frame;
        let head = produce.encode_head(correlation, bytes.len());
        self.counters.batches_sent += 1;
        self.counters.batches_retried += u64::from(batch.refusal.is_some());
        self.counters.bytes_sent += frame as u64;
        batch.state = BatchState::Sent { end };
        batch.sent_at = now.monotonic;
        queue.flying.push_back(batch);
        effects.push(Effect::Send { link: link.id, bytes: Outgoing::produce(head, bytes) });
    }

    pub(super) fn begin_flush(&mut self, now: Now, effects: &mut Effects<T>) -> FlushId {
        let id = self.producer.current_flush();
        if let Some(mark) = self.producer.flushes.back_mut() {
            mark.is_asked = true;
        }
        self.producer.flushes.push_back(FlushMark { id: id + 1, outstanding: 0, is_asked: false });
        for at in 0..self.producer.queues.len() {
            if let Some(batch) = self.producer.queues[at].waiting.back_mut() {
                batch.closed = true;
                self.wake_queue(now.monotonic, at);
            }
        }
        self.note_flushes(effects);
        self.pump_all(now, effects);
        FlushId(id)
    }

    /// Tells the flushes that have nothing left to wait for.
    pub(super) fn note_flushes(&mut self, effects: &mut Effects<T>) {
        while let Some(mark) = self.producer.flushes.front()
            && mark.is_asked
            && mark.outstanding == 0
        {
            effects.push(Effect::Flushed { flush: FlushId(mark.id) });
            self.producer.flushes.pop_front();
        }
    }
}

pub(super) fn new_record<'a>(record: &Record<'a>, now: Now) -> NewRecord<'a> {
    NewRecord {
        timestamp: record.timestamp_ms.unwrap_or(now.wall_ms),
        key: record.key,
        value: record.value,
        headers: record.headers,
    }
}
