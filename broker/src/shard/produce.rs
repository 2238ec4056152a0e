//! Produce: check once, append once, acknowledge at the level asked for.
//!
//! The refusals before the append are definite: nothing was appended. What fails after it (a
//! directory that breaks, a deadline) may still survive, and says so.

use corelog_protocol::batch::BatchError;
use corelog_protocol::entry::{EntryKind, entry_bytes};
use corelog_protocol::frame::{FrameHeader, FrameKind};
use corelog_protocol::ids::Lsn;
use corelog_protocol::produce::{Produce, ProduceAck, StageTimes};
use corelog_protocol::{Durability, ErrorCode};

use super::batch::{CheckedBatch, NewBatch, deadline_of};
use super::event::Conn;
use super::lane::{Origin, Pending};
use super::message::{Answer, Refusal};
use super::receive::Flow;
use super::replies::{OVERLOADED, RECOVERING, STOPPING};
use super::{Cx, Shard};
use crate::limits::{RETRY_AFTER_MS, SESSION_QUANTUM_BYTES};
use crate::log::{AppendError, Body, Known, NewEntry, Verdict};
use crate::memory::{Memory, Piece};
use crate::planted::{Bug, is_planted};
use crate::session::Wait;
use crate::time::{Monotonic, Nanos};

const KIND: u8 = FrameKind::Produce.to_wire();

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
        let session = self.sessions.get(conn).expect("a frame of this session is being taken");
        let received_at = session.incoming.last_byte_at;
        let socket_ns = saturate(received_at - session.incoming.first_byte_at);
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
        let now = cx.now.monotonic;
        let NewBatch { produce, checked: CheckedBatch { record_count, claim }, batch, .. } = *new;
        let deadline = new.deadline();
        if now > deadline {
            self.counters.requests_expired += 1;
            return Err(NotAppended::Refused(EXPIRED));
        }
        let found = self.partitions.get(produce.partition);
        let partition_at = found.map_or(0, |found| found.log_at);
        if let Some(claim) = &claim {
            match self.lanes[lane].log.judge(claim) {
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
        if appended.partition_at != partition_at
            && let Some(found) = self.partitions.get_mut(produce.partition)
        {
            found.log_at = appended.partition_at;
        }
        self.counters.batches_in += 1;
        self.counters.records_in += u64::from(record_count);
        self.counters.batch_bytes_in += u64::from(batch.len);
        let level = produce.durability;
        let mut pending = Pending {
            lsn: appended.lsn,
            origin: new.origin,
            base_offset: appended.base_offset,
            epoch: appended.epoch,
            append_time: appended.append_time,
            partition: produce.partition,
            record_count,
            bytes: entry_bytes(batch.len as usize) as u32,
            socket_ns: new.socket_ns,
            queue_ns: saturate(now - new.received_at),
            want_stages: produce.want_stages,
            appended_at: now,
            deadline,
        };
        if !level.is_durable() {
            // One replica is its own quorum. Its memory is all that these levels ask for.
            let reached = Durability::QuorumMemory;
            pending.deadline = Monotonic(u64::MAX);
            pending.origin = Origin::Nobody;
            if level.is_acknowledged() {
                let stages = StageTimes {
                    socket_ns: pending.socket_ns,
                    queue_ns: pending.queue_ns,
                    ..StageTimes::default()
                };
                let ack = ack_of(&pending, reached, stages);
                self.ack(cx, new.origin, &ack);
            }
        }
        self.lanes[lane].push_pending(pending);
        Ok(())
    }

    /// The batch is in the log already: it is told its first place, as soon as that is at the level asked for.
    fn acknowledge_again<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        lane: usize,
        new: &NewBatch,
        known: &Known,
    ) {
        let now = cx.now.monotonic;
        let produce = &new.produce;
        let is_durable = known.lsn < self.lanes[lane].log.durable_end();
        let pending = Pending {
            // It waits with the last entry so far: its own may have left the queue.
            lsn: Lsn(self.lanes[lane].log.next_lsn().0 - 1),
            origin: new.origin,
            base_offset: known.base_offset,
            epoch: known.epoch,
            append_time: known.append_time,
            partition: produce.partition,
            record_count: known.record_count,
            bytes: 0,
            socket_ns: new.socket_ns,
            queue_ns: saturate(now - new.received_at),
            want_stages: produce.want_stages,
            appended_at: now,
            deadline: new.deadline(),
        };
        if produce.durability.is_durable() && !is_durable && !is_planted(Bug::DuplicateAckedEarly) {
            self.lanes[lane].log.hurry();
            return self.lanes[lane].push_pending(pending);
        }
        if produce.durability.is_acknowledged() {
            let reached = match is_durable || produce.durability.is_durable() {
                true => Durability::QuorumDurable,
                false => Durability::QuorumMemory,
            };
            let stages = StageTimes {
                socket_ns: pending.socket_ns,
                queue_ns: pending.queue_ns,
                ..StageTimes::default()
            };
            let ack = ack_of(&pending, reached, stages);
            self.ack(cx, new.origin, &ack);
        }
    }

    /// Everything through this LSN is durable, and since there is one replica, committed.
    pub(super) fn on_durable<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        lane: usize,
        through: Lsn,
        write_done_at: Monotonic,
        flush_done_at: Monotonic,
    ) {
        let now = cx.now.monotonic;
        loop {
            let target = &mut self.lanes[lane];
            let Some(pending) = target.pending.front().copied() else { break };
            if pending.lsn > through {
                break;
            }
            target.pending.pop_front();
            self.wake_waiters(pending.partition, pending.bytes);
            if pending.origin == Origin::Nobody {
                continue;
            }
            let mut stages = StageTimes::default();
            if pending.want_stages {
                let gathered_at = self.lanes[lane].gathered_at(pending.lsn).unwrap_or(now);
                stages = StageTimes {
                    socket_ns: pending.socket_ns,
                    queue_ns: pending.queue_ns,
                    append_ns: saturate(gathered_at.min(write_done_at) - pending.appended_at),
                    write_ns: saturate(write_done_at - gathered_at),
                    flush_ns: saturate(flush_done_at - write_done_at),
                    replicate_ns: 0,
                    quorum_ns: 0,
                    reply_ns: saturate(now - flush_done_at),
                };
            }
            let ack = ack_of(&pending, Durability::QuorumDurable, stages);
            self.ack(cx, pending.origin, &ack);
        }
        let target = &mut self.lanes[lane];
        if target.pending.is_empty() {
            target.turns.clear();
            target.deadline_min = Monotonic(u64::MAX);
        }
    }

    /// The lane's directory failed: what is not durable may or may not survive.
    pub(super) fn fail_pending<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) {
        let failed = "the data directory failed before the batch was durable";
        while let Some(pending) = self.lanes[lane].pending.pop_front() {
            self.refuse(cx, pending.origin, KIND, Refusal::new(ErrorCode::StorageFailed, failed));
        }
        self.lanes[lane].turns.clear();
        self.lanes[lane].deadline_min = Monotonic(u64::MAX);
    }

    /// Tells those whose deadline has passed that the outcome is open. Their batches stay.
    pub(super) fn expire_pending<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) {
        let now = cx.now.monotonic;
        if self.lanes[lane].deadline_min > now {
            return;
        }
        let mut next = Monotonic(u64::MAX);
        for at in 0..self.lanes[lane].pending.len() {
            let pending = &mut self.lanes[lane].pending[at];
            if pending.deadline > now {
                next = next.min(pending.deadline);
                continue;
            }
            let origin = std::mem::replace(&mut pending.origin, Origin::Nobody);
            pending.deadline = Monotonic(u64::MAX);
            self.counters.requests_expired += 1;
            let late = "the deadline passed before the batch was durable";
            self.refuse(cx, origin, KIND, Refusal::new(ErrorCode::DeadlineExceeded, late));
        }
        self.lanes[lane].deadline_min = next;
    }
}

const EXPIRED: Refusal =
    Refusal::new(ErrorCode::Expired, "the deadline passed before the batch was appended");

fn ack_of(pending: &Pending, level: Durability, stages: StageTimes) -> ProduceAck {
    ProduceAck {
        base_offset: pending.base_offset,
        epoch: pending.epoch,
        append_time: pending.append_time,
        partition: pending.partition,
        record_count: pending.record_count,
        level: if is_planted(Bug::LevelOverstated) { Durability::QuorumDurable } else { level },
        stages: pending.want_stages.then_some(stages),
    }
}

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
            "nothing is remembered of this producer, and the batch is not its first",
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

fn saturate(length: Nanos) -> u32 {
    u32::try_from(length.0).unwrap_or(u32::MAX)
}
