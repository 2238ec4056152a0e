//! What a batch's producer is told once the batch is in the log, and when: at once, or when a flush has covered it,
//! or that nobody knows.
//!
//! What fails here (a directory that breaks, a deadline) is indefinite: the batch may still survive.

use corelog_protocol::entry::entry_bytes;
use corelog_protocol::ids::Lsn;
use corelog_protocol::produce::{ProduceAck, StageTimes};
use corelog_protocol::{Durability, ErrorCode};

use super::batch::NewBatch;
use super::lane::{Origin, Pending};
use super::message::Refusal;
use super::produce::KIND;
use super::{Cx, Shard};
use crate::log::{Appended, Known};
use crate::memory::Memory;
use crate::planted::{Bug, is_planted};
use crate::time::{Monotonic, Nanos};

impl Shard {
    /// The batch is appended: it is told its place, as soon as that is at the level asked for.
    pub(super) fn acknowledge<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        lane: usize,
        new: &NewBatch,
        place: &Appended,
    ) {
        let level = new.produce.durability;
        let bytes = entry_bytes(new.batch.len as usize) as u32;
        let mut pending = pending_of(new, place, bytes, cx.now.monotonic);
        if self.lanes[lane].seat.is_some() {
            return self.await_replicas(cx, lane, new, pending);
        }
        if !level.is_durable() {
            pending.deadline = Monotonic(u64::MAX);
            pending.origin = Origin::Nobody;
            // One replica is its own quorum. Its memory is all that these levels ask for.
            self.acknowledge_at_once(cx, new, &pending, Durability::QuorumMemory);
        }
        self.lanes[lane].push_pending(pending);
    }

    /// The batch is in the log already: it is told its first place, as soon as that is at the level asked for.
    pub(super) fn acknowledge_again<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        lane: usize,
        new: &NewBatch,
        known: &Known,
    ) {
        let level = new.produce.durability;
        let log = &mut self.lanes[lane].log;
        let is_durable = known.lsn < log.committed_end();
        let place = Appended {
            // It waits with the last entry so far: its own may have left the queue.
            lsn: Lsn(log.next_lsn().0 - 1),
            partition_at: 0,
            base_offset: known.base_offset,
            epoch: known.epoch,
            append_time: known.append_time,
        };
        let pending = pending_of(new, &place, 0, cx.now.monotonic);
        if self.lanes[lane].seat.is_some() && !is_durable {
            return self.await_replicas(cx, lane, new, pending);
        }
        let log = &mut self.lanes[lane].log;
        if level.is_durable() && !is_durable && !is_planted(Bug::DuplicateAckedEarly) {
            log.hurry();
            return self.lanes[lane].push_pending(pending);
        }
        let reached = match is_durable || level.is_durable() {
            true => Durability::QuorumDurable,
            false => Durability::QuorumMemory,
        };
        self.acknowledge_at_once(cx, new, &pending, reached);
    }

    fn acknowledge_at_once<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        new: &NewBatch,
        pending: &Pending,
        reached: Durability,
    ) {
        if new.produce.durability.is_acknowledged() {
            self.ack(cx, new.origin, &ack_of(pending, reached, early_stages(pending)));
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
            let is_early =
                matches!(pending.level, Durability::LeaderDurable | Durability::QuorumMemory);
            let target = &mut self.lanes[lane];
            target.early = target.early.saturating_sub(u32::from(is_early));
            let mut stages = StageTimes::default();
            if pending.want_stages {
                let gathered_at = self.lanes[lane].gathered_at(pending.lsn).unwrap_or(now);
                let is_replicated = self.lanes[lane].seat.is_some();
                // With several replicas, what follows the leader's flush is the wait for the others: first that the
                // entry leaves for them, which it usually has long before, then that they have flushed it.
                let departed_at = self.lanes[lane].departed_at(pending.lsn);
                let departed_at = departed_at.unwrap_or(flush_done_at).max(flush_done_at);
                let after_flush = saturate(now - departed_at);
                stages = StageTimes {
                    append_ns: saturate(gathered_at.min(write_done_at) - pending.appended_at),
                    write_ns: saturate(write_done_at - gathered_at),
                    flush_ns: saturate(flush_done_at - write_done_at),
                    replicate_ns: saturate(departed_at - flush_done_at),
                    quorum_ns: if is_replicated { after_flush } else { 0 },
                    reply_ns: if is_replicated { 0 } else { after_flush },
                    ..early_stages(&pending)
                };
            }
            let ack = ack_of(&pending, Durability::QuorumDurable, stages);
            self.ack(cx, pending.origin, &ack);
        }
        let target = &mut self.lanes[lane];
        if target.pending.is_empty() {
            target.on_nobody_waits();
        }
    }

    /// One of several replicas has the batch: who asked for the leader's memory alone is told at once, everybody else
    /// when the level is reached.
    fn await_replicas<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        lane: usize,
        new: &NewBatch,
        mut pending: Pending,
    ) {
        match pending.level {
            Durability::None | Durability::LeaderMemory => {
                pending.deadline = Monotonic(u64::MAX);
                pending.origin = Origin::Nobody;
                self.acknowledge_at_once(cx, new, &pending, Durability::LeaderMemory);
            }
            Durability::QuorumMemory => {
                self.want_received(lane, pending.lsn);
                self.lanes[lane].early += 1;
            }
            Durability::LeaderDurable => self.lanes[lane].early += 1,
            Durability::QuorumDurable => {}
        }
        self.lanes[lane].push_pending(pending);
    }

    /// One of several replicas: more may be durable, in the memory of a quorum, or committed.
    pub(super) fn on_visible<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) {
        let (write_done_at, flush_done_at) = self.lanes[lane].flushed_at;
        if let Some(through) = self.lanes[lane].log.committed_end().0.checked_sub(1) {
            self.on_durable(cx, lane, Lsn(through), write_done_at, flush_done_at);
        }
        if self.lanes[lane].early == 0 {
            return;
        }
        let durable = self.lanes[lane].log.durable_end();
        let received = self.received_end(lane);
        let mut reached = Vec::new();
        for pending in &mut self.lanes[lane].pending {
            let end = match pending.level {
                Durability::LeaderDurable => durable,
                Durability::QuorumMemory => received,
                _ => continue,
            };
            if pending.lsn < end && pending.origin != Origin::Nobody {
                reached.push(*pending);
                pending.origin = Origin::Nobody;
                pending.deadline = Monotonic(u64::MAX);
            }
        }
        self.lanes[lane].early -= reached.len() as u32;
        for pending in reached {
            let ack = ack_of(&pending, pending.level, early_stages(&pending));
            self.ack(cx, pending.origin, &ack);
        }
    }

    /// The lane's directory failed: what is not durable may or may not survive.
    pub(super) fn fail_pending<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) {
        let failed = "the data directory failed before the batch was durable";
        self.fail_pending_with(cx, lane, Refusal::new(ErrorCode::StorageFailed, failed));
    }

    pub(super) fn fail_pending_with<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        lane: usize,
        refusal: Refusal,
    ) {
        while let Some(pending) = self.lanes[lane].pending.pop_front() {
            self.refuse(cx, pending.origin, KIND, refusal);
        }
        self.lanes[lane].early = 0;
        self.lanes[lane].on_nobody_waits();
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

/// `bytes`: of the entry that it added, 0 if it was there before.
fn pending_of(new: &NewBatch, place: &Appended, bytes: u32, now: Monotonic) -> Pending {
    Pending {
        lsn: place.lsn,
        origin: new.origin,
        base_offset: place.base_offset,
        epoch: place.epoch,
        append_time: place.append_time,
        partition: new.produce.partition,
        level: new.produce.durability,
        record_count: new.checked.record_count,
        bytes,
        socket_ns: new.socket_ns,
        queue_ns: saturate(now - new.received_at),
        want_stages: new.produce.want_stages,
        appended_at: now,
        deadline: new.deadline(),
    }
}

/// Of those that were over when the batch was appended.
fn early_stages(pending: &Pending) -> StageTimes {
    let Pending { socket_ns, queue_ns, .. } = *pending;
    StageTimes { socket_ns, queue_ns, ..StageTimes::default() }
}

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

/// In ns, as stage times have it.
pub(super) fn saturate(length: Nanos) -> u32 {
    u32::try_from(length.0).unwrap_or(u32::MAX)
}
