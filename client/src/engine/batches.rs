//! What becomes of a batch: acknowledged, refused, lost, late. Ends in exactly one effect per
//! record.

use super::queue::{Batch, BatchState, Done};
use super::time::Now;
use super::{Delivered, Effect, Effects, Engine, Failed, RETRY_NANOS};
use crate::{Error, Leader, Refusal};
use corelog_protocol::ErrorCode;
use corelog_protocol::ids::PartitionId;
use corelog_protocol::produce::ProduceAck;
use std::sync::Arc;

/// An ack, and the door that it came through.
#[derive(Clone, Copy)]
pub(super) struct Acked<'a> {
    pub ack: &'a ProduceAck,
    pub door: usize,
}

/// What a broker answers that does not lead the lane, or not any more; with `has_peers`, when others may.
pub(super) fn is_place_unknown(code: ErrorCode, has_peers: bool) -> bool {
    match code {
        ErrorCode::UnknownPartition
        | ErrorCode::UnknownTopic
        | ErrorCode::NotLeader
        | ErrorCode::Moved => true,
        ErrorCode::Stopping | ErrorCode::Recovering => has_peers,
        _ => false,
    }
}

impl<T> Engine<T> {
    /// Whether an ack says of a batch what an honest broker would say.
    pub(super) fn is_ack_sound(
        &self,
        queue: usize,
        id: u64,
        partition: PartitionId,
        ack: &ProduceAck,
    ) -> bool {
        let flying = &self.producer.queues[queue].flying;
        let Some(batch) = flying.iter().find(|batch| batch.id == id) else { return true };
        let level_reached = (!batch.level.is_durable() || ack.level.is_durable())
            && (!batch.level.is_quorum() || ack.level.is_quorum());
        ack.partition == partition && ack.record_count == batch.record_count && level_reached
    }

    pub(super) fn on_produce_ack(
        &mut self,
        now: Now,
        at: usize,
        id: u64,
        ack: Acked<'_>,
        effects: &mut Effects<T>,
    ) {
        let mut done = Vec::new();
        let queue = &mut self.producer.queues[at];
        if id > queue.unconfirmed {
            queue.unconfirmed = 0;
        }
        queue.redirects = 0;
        if queue.flying.front().is_some_and(|batch| batch.id == id) {
            // The usual case, without a list.
            queue.is_narrow = false;
            if let Some(batch) = queue.flying.pop_front() {
                self.conclude(at, batch, Ok(Some(ack)), effects);
            }
        } else {
            queue.on_appended(id, &mut done);
            self.conclude_all(at, done, Some(ack), effects);
        }
        self.after_flight(now, at);
    }

    /// A level `none` batch is with the socket: that is all that was asked.
    pub(super) fn on_handed_over(
        &mut self,
        now: Now,
        at: usize,
        id: u64,
        effects: &mut Effects<T>,
    ) {
        let mut done = Vec::new();
        self.producer.queues[at].on_appended(id, &mut done);
        self.conclude_all(at, done, None, effects);
        self.after_flight(now, at);
    }

    /// It may have been appended, and nobody will tell.
    pub(super) fn on_produce_lost(
        &mut self,
        now: Now,
        at: usize,
        id: u64,
        effects: &mut Effects<T>,
    ) {
        let mut done = Vec::new();
        self.producer.queues[at].on_failed(id, Error::ConnectionLost, true, &mut done);
        self.conclude_all(at, done, None, effects);
        self.after_flight(now, at);
    }

    pub(super) fn on_produce_refused(
        &mut self,
        now: Now,
        at: usize,
        id: u64,
        partition: PartitionId,
        refusal: Refusal,
        effects: &mut Effects<T>,
    ) {
        let has_peers = self.cluster.is_known();
        let queue = &mut self.producer.queues[at];
        let topic = queue.topic;
        let Some(batch) = queue.flying.iter().find(|batch| batch.id == id) else { return };
        let code = refusal.code;
        // A view of the metadata may lag behind: what the describe below says is final.
        let place_unknown = is_place_unknown(code, has_peers);
        // It may stand in the log, of this leader or the next: whoever leads then knows its stamp.
        let is_in_doubt = has_peers
            && batch.stamp.is_some()
            && matches!(code, ErrorCode::OutcomeUnknown | ErrorCode::StorageFailed);
        let is_gap = matches!(
            code,
            ErrorCode::OutOfOrder | ErrorCode::UnknownProducer | ErrorCode::ProducerFenced
        );
        if is_gap && batch.stamp.is_some() {
            return self.on_out_of_sequence(now, at, id, refusal, effects);
        }
        // Batches that were refused together count once.
        let redirects = queue.redirects;
        if (place_unknown || is_in_doubt) && !queue.has_refused() {
            queue.redirects = redirects.saturating_add(1);
        }
        if code == ErrorCode::NotLeader && redirects > 0 {
            self.turn_guide(now);
        }
        let queue = &mut self.producer.queues[at];
        if matches!(code, ErrorCode::NotLeader | ErrorCode::Moved) && id > queue.unconfirmed {
            // It was read, so all before it were.
            queue.unconfirmed = 0;
        }
        let hint = refusal.hint_nanos();
        let retry_nanos = match place_unknown || is_in_doubt {
            true if has_peers => hint.max(self.redirect_nanos(redirects)),
            _ if hint > 0 => hint,
            _ => RETRY_NANOS,
        };
        let queue = &mut self.producer.queues[at];
        let Some(batch) = queue.flying.iter_mut().find(|batch| batch.id == id) else { return };
        let in_time = now.monotonic.after(retry_nanos) < batch.deadline;
        let expired = batch.state == BatchState::Expired;
        let retry = (is_in_doubt || code.is_definite() && (code.may_retry() || place_unknown))
            && in_time
            && !expired;
        if retry {
            batch.is_unsure |= is_in_doubt;
        }
        if place_unknown || is_in_doubt {
            tracing::debug!(partition = partition.0, %code, "asking for places again");
            self.describe_topic(topic);
        }
        let queue = &mut self.producer.queues[at];
        if retry {
            queue.on_refused(id, Error::Refused(refusal), retry_nanos);
        } else {
            let maybe_appended = !code.is_definite();
            let mut done = Vec::new();
            queue.on_failed(id, Error::Refused(refusal), maybe_appended, &mut done);
            self.conclude_all(at, done, None, effects);
        }
        self.after_flight(now, at);
    }

    /// A batch before it has not been appended, or the broker has forgotten this producer. Nothing was appended.
    fn on_out_of_sequence(
        &mut self,
        now: Now,
        at: usize,
        id: u64,
        refusal: Refusal,
        effects: &mut Effects<T>,
    ) {
        let queue = &mut self.producer.queues[at];
        let Some(batch) = queue.flying.iter().find(|batch| batch.id == id) else { return };
        let is_current = batch.stamp.is_some_and(|stamp| stamp.epoch == queue.line.epoch);
        let (is_expired, is_unsure) = (batch.state == BatchState::Expired, batch.is_unsure);
        let (is_fenced, is_renewed) =
            (refusal.code == ErrorCode::ProducerFenced, batch.former.is_some());
        let waits = !is_fenced && queue.has_earlier(id);
        if is_current && !waits {
            queue.line.begin_epoch();
            self.counters.producer_epochs += 1;
        }
        // Who leads now judges by the new stamp and the old one, once.
        let is_open = is_unsure && (is_fenced || is_renewed);
        if is_expired || (is_open && !waits) {
            let mut done = Vec::new();
            queue.on_failed(id, Error::Refused(refusal), false, &mut done);
            self.conclude_all(at, done, None, effects);
        } else {
            queue.on_refused(id, Error::Refused(refusal), 0);
        }
        self.after_flight(now, at);
    }

    /// The connection was lost when the socket had taken `sent` bytes of its stream.
    pub(super) fn on_queue_cut(
        &mut self,
        now: Now,
        at: usize,
        sent: u64,
        effects: &mut Effects<T>,
    ) {
        let queue = &mut self.producer.queues[at];
        let mut lost = Vec::new();
        for batch in &mut queue.flying {
            match batch.state {
                BatchState::Sent { end } if end <= sent && batch.stamp.is_some() => {
                    // The broker will know it if it has it already.
                    batch.is_unsure = true;
                    let error = Error::ConnectionLost;
                    batch.state = BatchState::Refused { error, retry_nanos: 0 };
                }
                BatchState::Sent { end } if end <= sent => lost.push(batch.id),
                // It did not leave whole, so it cannot have been read.
                BatchState::Sent { .. } => {
                    batch.state = BatchState::Refused { error: Error::Unreachable, retry_nanos: 0 };
                }
                BatchState::Expired => lost.push(batch.id),
                BatchState::Refused { .. } | BatchState::Waiting => {}
            }
        }
        let mut done = Vec::new();
        for id in lost {
            queue.on_failed(id, Error::ConnectionLost, true, &mut done);
        }
        self.conclude_all(at, done, None, effects);
        self.after_flight(now, at);
    }

    /// The delivery deadline of a batch has come, if the batch is still there.
    pub(super) fn on_batch_deadline(
        &mut self,
        now: Now,
        at: usize,
        id: u64,
        effects: &mut Effects<T>,
    ) {
        let queue = &mut self.producer.queues[at];
        // Nobody leads it: that is no failure to reach one.
        let connected = !queue.is_led || self.doors[queue.door].is_open();
        if let Some(place) = queue.waiting.iter().position(|batch| batch.id == id) {
            if let Some(batch) = queue.waiting.remove(place) {
                let error = match &batch.refusal {
                    _ if batch.is_unsure => Error::DeadlineExceeded { sent: true },
                    Some(refusal) if *refusal != Error::Unreachable => refusal.clone(),
                    _ if connected => Error::DeadlineExceeded { sent: false },
                    _ => Error::Unreachable,
                };
                self.conclude(at, batch, Err(error), effects);
            }
        } else if let Some(batch) = queue.flying.iter_mut().find(|batch| batch.id == id) {
            match batch.state.clone() {
                BatchState::Sent { .. } => {
                    // Its place in the order stays taken until the answer comes or the connection goes.
                    batch.state = BatchState::Expired;
                    let tokens = std::mem::take(&mut batch.tokens);
                    let flush = batch.flush;
                    self.fail(at, tokens, flush, Error::DeadlineExceeded { sent: true }, effects);
                }
                BatchState::Refused { error, .. } => {
                    let error = match batch.is_unsure {
                        true => Error::DeadlineExceeded { sent: true },
                        false => error,
                    };
                    let mut done = Vec::new();
                    queue.on_failed(id, error, false, &mut done);
                    self.conclude_all(at, done, None, effects);
                }
                BatchState::Expired | BatchState::Waiting => {}
            }
        }
        self.after_flight(now, at);
    }

    fn after_flight(&mut self, now: Now, at: usize) {
        self.producer.queues[at].settle(now.monotonic);
        self.wake_queue(now.monotonic, at);
    }

    fn conclude_all(
        &mut self,
        at: usize,
        done: Vec<Done<T>>,
        ack: Option<Acked<'_>>,
        effects: &mut Effects<T>,
    ) {
        for Done { batch, error } in done {
            match error {
                Some(error) => self.conclude(at, batch, Err(error), effects),
                None => self.conclude(at, batch, Ok(ack), effects),
            }
        }
    }

    /// The end of a batch that stands in no list any more. `Ok(None)`: level `none`.
    pub(super) fn conclude(
        &mut self,
        at: usize,
        mut batch: Batch<T>,
        outcome: Result<Option<Acked<'_>>, Error>,
        effects: &mut Effects<T>,
    ) {
        self.producer.release(&mut batch);
        if batch.state == BatchState::Expired {
            // Its user was told at the deadline.
            return;
        }
        let Batch { tokens, flush, level, deadline, sent_at, is_full, .. } = batch;
        let acked = match outcome {
            Ok(acked) => acked,
            // What left before without an answer may be in the log, whatever became of it this time.
            Err(error) if batch.is_unsure && error.is_definite() => {
                return self.fail(at, tokens, flush, Error::ConnectionLost, effects);
            }
            Err(error) => return self.fail(at, tokens, flush, error, effects),
        };
        self.note_latency(tokens.len() as u64, deadline, sent_at, is_full);
        let queue = &self.producer.queues[at];
        let records = tokens.len() as u64;
        self.counters.records_delivered += records;
        let ack = acked.map(|acked| acked.ack);
        let leader = acked.map(|acked| {
            let door = &self.doors[acked.door];
            Leader { broker: door.broker, shard: door.shard }
        });
        effects.push(Effect::Delivered(Delivered {
            topic: Arc::clone(&self.topics[queue.topic].name),
            partition: queue.number,
            base_offset: ack.map(|ack| ack.base_offset),
            level: ack.map_or(level, |ack| ack.level),
            append_time_ms: ack.map_or(0, |ack| ack.append_time),
            leader,
            stages: ack.and_then(|ack| ack.stages),
            tokens,
        }));
        self.note_done(flush, records, effects);
    }

    fn fail(
        &mut self,
        at: usize,
        tokens: Vec<T>,
        flush: u64,
        error: Error,
        effects: &mut Effects<T>,
    ) {
        let queue = &self.producer.queues[at];
        let records = tokens.len() as u64;
        self.counters.records_failed += records;
        effects.push(Effect::Failed(Failed {
            topic: Arc::clone(&self.topics[queue.topic].name),
            partition: Some(queue.number),
            error,
            tokens,
        }));
        self.note_done(flush, records, effects);
    }

    pub(super) fn note_done(&mut self, flush: u64, records: u64, effects: &mut Effects<T>) {
        if let Some(mark) = self.producer.flushes.iter_mut().find(|mark| mark.id == flush) {
            mark.outstanding -= records;
        }
        self.note_flushes(effects);
    }

    /// Everything that waits in a queue fails with this error.
    pub(super) fn fail_waiting(&mut self, at: usize, error: &Error, effects: &mut Effects<T>) {
        while let Some(batch) = self.producer.queues[at].waiting.pop_front() {
            self.conclude(at, batch, Err(error.clone()), effects);
        }
    }

    /// The end of the client: nothing flies any more, connections are gone.
    pub(super) fn fail_all_records(&mut self, error: &Error, effects: &mut Effects<T>) {
        for at in 0..self.producer.queues.len() {
            self.fail_waiting(at, error, effects);
        }
        for topic in 0..self.topics.len() {
            self.fail_pending(topic, error, effects);
        }
    }
}
