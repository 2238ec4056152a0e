//! Produce: check once, append once. What is told after that is in `acks`.
//!
//! The refusals here are definite: nothing was appended.

use corelog_protocol::batch::BatchError;
use corelog_protocol::entry::EntryKind;
use corelog_protocol::frame::{FrameHeader, FrameKind};
use corelog_protocol::produce::Produce;
use corelog_protocol::{Durability, ErrorCode};

use super::acks::saturate;
use super::batch::{CheckedBatch, NewBatch, deadline_of};
use super::event::Conn;
use super::lane::Origin;
use super::message::{Answer, Refusal};
use super::receive::Flow;
use super::replies::{OVERLOADED, RECOVERING, STOPPING};
use super::route::LED_ELSEWHERE;
use super::{Cx, Shard};
use crate::limits::{RETRY_AFTER_MS, SESSION_QUANTUM_BYTES};
use crate::log::{AppendError, Body, NewEntry, Verdict};
use crate::memory::{Memory, Piece};
use crate::session::Wait;

pub(super) const KIND: u8 = FrameKind::Produce.to_wire();

/// Why a batch was not appended.
enum NotAppended {
    Wait,
    Refused(Refusal),
}

impl Shard {
    pub(super) fn on_produce<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        header: &FrameHeader,
        produce: Produce,
        frame: Piece,
    ) -> Flow {
        let origin = Origin::Conn { conn, correlation: header.correlation };
        let range = header.payload_range();
        let batch = Piece::new(frame.slot, frame.start as usize + range.start, range.len());
        if self.stopping.is_some() {
            self.refuse(cx, origin, KIND, STOPPING);
            return Flow::Done;
        }
        let Some(lane) = self.partitions.get(produce.partition).map(|found| found.lane) else {
            return self.produce_elsewhere(cx, conn, header, produce, batch);
        };
        if self.lanes[usize::from(lane)].is_led_elsewhere() {
            self.refuse(cx, origin, KIND, LED_ELSEWHERE);
            return Flow::Done;
        }
        let session = self.sessions.get(conn).expect("a frame of this session is being taken");
        let received_at = session.incoming.last_byte_at;
        let socket_ns = saturate(received_at - session.incoming.first_byte_at);
        #[cfg(feature = "delays")]
        if self.is_put_off(received_at, cx.now.monotonic) {
            return Flow::Wait(Wait::Turn);
        }
        if self.lanes[usize::from(lane)].is_busy {
            if cx.now.monotonic > deadline_of(&produce, received_at) {
                self.counters.requests_expired += 1;
                self.refuse(cx, origin, KIND, EXPIRED);
                return Flow::Done;
            }
            // The frame stays in the session's slot until there is room.
            if self.can_hold(cx.memory, 2 * frame.len as usize) {
                self.counters.lane_busy += 1;
                return Flow::Wait(Wait::Lane(lane));
            }
            self.refuse(cx, origin, KIND, OVERLOADED);
            return Flow::Done;
        }
        // A commit holds a copy until it is durable, and the tail cache for a while.
        if !self.can_hold(cx.memory, batch.len as usize) {
            self.refuse(cx, origin, KIND, OVERLOADED);
            return Flow::Done;
        }
        let checked = match CheckedBatch::check(produce.partition, cx.memory.piece(batch)) {
            Ok(checked) => checked,
            Err(error) => {
                self.refuse_batch(cx, origin, error);
                return Flow::Done;
            }
        };
        let new = NewBatch { origin, produce, checked, batch, socket_ns, received_at };
        match self.append_batch(cx, usize::from(lane), &new) {
            Ok(()) => Flow::Done,
            Err(NotAppended::Wait) => {
                self.counters.lane_busy += 1;
                Flow::Wait(Wait::Lane(lane))
            }
            Err(NotAppended::Refused(refusal)) => {
                self.refuse(cx, origin, KIND, refusal);
                Flow::Done
            }
        }
    }

    fn refuse_batch<M: Memory>(&mut self, cx: &mut Cx<'_, M>, origin: Origin, error: BatchError) {
        self.counters.batches_invalid += 1;
        let refusal = Refusal::new(error.code(), "the batch breaks a rule; nothing was appended");
        self.refuse(cx, origin, KIND, refusal);
    }

    /// The partition is another shard's, or nobody's.
    fn produce_elsewhere<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        header: &FrameHeader,
        produce: Produce,
        batch: Piece,
    ) -> Flow {
        let origin = Origin::Conn { conn, correlation: header.correlation };
        let shard = match self.home_elsewhere(produce.partition) {
            Ok(shard) => shard,
            Err(refusal) => {
                self.refuse(cx, origin, KIND, refusal);
                return Flow::Done;
            }
        };
        match CheckedBatch::check(produce.partition, cx.memory.piece(batch)) {
            Ok(checked) => {
                self.forward_produce(cx, shard, conn, header, produce, checked, batch);
            }
            Err(error) => self.refuse_batch(cx, origin, error),
        }
        Flow::Done
    }

    /// A batch that another shard forwarded: appended now or when there is room, in order.
    pub(super) fn on_forwarded_produce<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        origin: Origin,
        produce: Produce,
        checked: CheckedBatch,
        bytes: &[u8],
    ) {
        self.counters.requests_adopted += 1;
        if self.stopping.is_some() {
            return self.refuse(cx, origin, KIND, STOPPING);
        }
        let Some(lane) = self.partitions.get(produce.partition).map(|found| found.lane) else {
            let refusal = self.unknown_partition(produce.partition);
            return self.refuse(cx, origin, KIND, refusal);
        };
        if !self.can_hold(cx.memory, 2 * bytes.len()) {
            return self.refuse(cx, origin, KIND, OVERLOADED);
        }
        let slot = cx.memory.allocate(bytes.len());
        cx.memory.bytes_mut(slot)[..bytes.len()].copy_from_slice(bytes);
        let batch = Piece::new(slot, 0, bytes.len());
        let received_at = cx.now.monotonic;
        let adopted = NewBatch { origin, produce, checked, batch, socket_ns: 0, received_at };
        self.lanes[usize::from(lane)].adopted.push_back(adopted);
        self.resume_all_adopted(cx, usize::from(lane));
    }

    fn resume_all_adopted<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) {
        let mut left = SESSION_QUANTUM_BYTES as i64;
        while left > 0 && !self.lanes[lane].is_busy && !self.lanes[lane].adopted.is_empty() {
            left -= self.resume_adopted(cx, lane);
        }
    }

    /// Appends the oldest forwarded batch. Returns the bytes touched.
    pub(super) fn resume_adopted<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) -> i64 {
        let Some(&adopted) = self.lanes[lane].adopted.front() else { return 0 };
        let NewBatch { origin, batch, .. } = adopted;
        match self.append_batch(cx, lane, &adopted) {
            Err(NotAppended::Wait) => return 0,
            // An ack of level `none` is not sent, but the one who forwarded waits for an answer.
            Ok(()) if adopted.produce.durability == Durability::None => {
                self.answer(cx, origin, Answer::Nothing);
            }
            Ok(()) => {}
            Err(NotAppended::Refused(refusal)) => self.refuse(cx, origin, KIND, refusal),
        }
        self.lanes[lane].adopted.pop_front();
        cx.memory.release(batch.slot);
        i64::from(batch.len)
    }

    /// Refuses those whose deadline passed while they waited for room.
    pub(super) fn expire_waiting<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) {
        if !self.lanes[lane].is_busy {
            return;
        }
        for _ in 0..self.lanes[lane].waiting.len() {
            let Some(conn) = self.lanes[lane].waiting.pop_front() else { break };
            // Still busy: it waits again, behind the others, unless its time is up.
            self.resume(cx, conn, Wait::Lane(lane as u16));
        }
        let now = cx.now.monotonic;
        for _ in 0..self.lanes[lane].adopted.len() {
            let Some(adopted) = self.lanes[lane].adopted.pop_front() else { break };
            if now <= adopted.deadline() {
                self.lanes[lane].adopted.push_back(adopted);
                continue;
            }
            self.counters.requests_expired += 1;
            cx.memory.release(adopted.batch.slot);
            self.refuse(cx, adopted.origin, KIND, EXPIRED);
        }
    }

    fn append_batch<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        lane: usize,
        new: &NewBatch,
    ) -> Result<(), NotAppended> {
        let NewBatch { produce, checked: CheckedBatch { record_count, claim }, batch, .. } = *new;
        if cx.now.monotonic > new.deadline() {
            self.counters.requests_expired += 1;
            return Err(NotAppended::Refused(EXPIRED));
        }
        if self.lanes[lane].is_refusing_batches() {
            return Err(NotAppended::Refused(LED_ELSEWHERE));
        }
        let found = self.partitions.get(produce.partition);
        let partition_at = found.map_or(0, |found| found.log_at);
        if let Some(claim) = &claim {
            let log = &self.lanes[lane].log;
            let verdict = match produce.former {
                Some(former) => log.judge_renewed(claim, former),
                None => log.judge(claim, produce.sent_before),
            };
            match verdict {
                Verdict::New => {}
                Verdict::Duplicate(known) => {
                    self.counters.batches_duplicate += 1;
                    self.acknowledge_again(cx, lane, new, &known);
                    return Ok(());
                }
                refused => {
                    self.counters.batches_out_of_sequence += 1;
                    return Err(NotAppended::Refused(sequence_refusal(refused)));
                }
            }
        }
        let has_waiters = found.is_some_and(|found| !found.waiters.is_empty());
        let entry = NewEntry {
            kind: EntryKind::Batch.to_wire(),
            partition: produce.partition,
            partition_at,
            record_count,
            body: Body::Piece(batch),
            crc_checked: true,
            claim,
            awaited: produce.durability.is_durable() || has_waiters,
        };
        let target = &mut self.lanes[lane];
        let appended = match target.log.append(&mut cx.io(&mut self.ops), entry) {
            Ok(appended) => appended,
            Err(AppendError::Busy) => {
                target.is_busy = true;
                return Err(NotAppended::Wait);
            }
            Err(error) => return Err(NotAppended::Refused(append_refusal(error))),
        };
        target.traffic.on_taken(u64::from(batch.len), u64::from(record_count));
        if appended.partition_at != partition_at
            && let Some(found) = self.partitions.get_mut(produce.partition)
        {
            found.log_at = appended.partition_at;
        }
        self.counters.batches_in += 1;
        self.counters.records_in += u64::from(record_count);
        self.counters.batch_bytes_in += u64::from(batch.len);
        self.acknowledge(cx, lane, new, &appended);
        Ok(())
    }
}

const EXPIRED: Refusal =
    Refusal::new(ErrorCode::Expired, "the deadline passed before the batch was appended");

fn append_refusal(error: AppendError) -> Refusal {
    let refusal = Refusal::new;
    match error {
        AppendError::Busy => OVERLOADED,
        AppendError::Full => Refusal {
            retry_after_ms: 20 * RETRY_AFTER_MS,
            ..refusal(ErrorCode::StorageFull, "no room on the disk; nothing was appended")
        },
        AppendError::Failed => {
            refusal(ErrorCode::StorageUnavailable, "the data directory has failed")
        }
        AppendError::Recovering => RECOVERING,
        AppendError::Stopping => STOPPING,
        AppendError::UnknownPartition => refusal(ErrorCode::UnknownPartition, "no such partition"),
        AppendError::TooLarge { .. } => refusal(ErrorCode::InvalidBatch, "the batch is too large"),
        AppendError::TooManyRecords { .. } => {
            refusal(ErrorCode::InvalidBatch, "the batch has too many records")
        }
        AppendError::CorruptBody => refusal(ErrorCode::CorruptBatch, "the batch is damaged"),
    }
}

fn sequence_refusal(verdict: Verdict) -> Refusal {
    let refusal = Refusal::new;
    match verdict {
        Verdict::Gap => refusal(
            ErrorCode::OutOfOrder,
            "a batch of this producer before it has not come; nothing was appended",
        ),
        Verdict::Unknown => refusal(
            ErrorCode::UnknownProducer,
            "nothing is remembered of this producer, or of its epoch before, and the batch is not its first, or was sent \
             before",
        ),
        Verdict::Mismatch => refusal(
            ErrorCode::DuplicateMismatch,
            "other records were appended under this sequence; nothing was appended",
        ),
        Verdict::Fenced => {
            refusal(ErrorCode::ProducerFenced, "a later epoch of this producer has written")
        }
        Verdict::DuplicateForgotten => {
            refusal(ErrorCode::DuplicateForgotten, "appended before; its offset is not remembered")
        }
        Verdict::New | Verdict::Duplicate(_) => unreachable!("these are no refusals"),
    }
}
