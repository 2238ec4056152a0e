//! What a replica orders is carried out.

use corelog_protocol::ErrorCode;
use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{BrokerId, Epoch};

use crate::log::AppendError;
use crate::memory::Memory;
use crate::replica::{LaneLoad, LaneMessage, LaneReport, Meter, Order};
use crate::shard::message::Refusal;
use crate::shard::replicas::restart::log_resume;
use crate::shard::{Cx, Shard};

/// The batch may survive: the next leader decides.
pub(in crate::shard) const LEADER_CHANGED: Refusal = Refusal {
    code: ErrorCode::OutcomeUnknown,
    retry_after_ms: 0,
    message: "the lane's leader changed before the batch was committed",
};

impl Shard {
    /// Carries out what the replica has ordered, and sends what followers and leaders have to hear.
    pub(super) fn drive_replica<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) {
        loop {
            let seat = self.lanes[lane].seat.as_mut();
            let Some(replica) = seat.and_then(|seat| seat.replica.as_mut()) else { return };
            let Some(order) = replica.poll() else { break };
            self.carry_out(cx, lane, order);
        }
        let target = &mut self.lanes[lane];
        let replica = target.seat.as_mut().and_then(|seat| seat.replica.as_mut());
        let ack = replica.and_then(|replica| replica.ack(&target.log));
        if let Some((to, epoch, message)) = ack {
            self.say(cx, lane, to, epoch, &message);
        }
        self.feed_followers(cx, lane);
        self.look_after_readers(lane, cx.now.monotonic);
    }

    fn carry_out<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize, order: Order) {
        let id = self.lanes[lane].id;
        match order {
            Order::Store(vote) => {
                if let Some(seat) = &mut self.lanes[lane].seat {
                    seat.vote.store(cx, &mut self.ops, vote);
                }
            }
            Order::Resume(resume) => {
                self.counters.lane_resumes += 1;
                if let Some(seat) = &mut self.lanes[lane].seat {
                    seat.is_log_open = false;
                }
                let log = &mut self.lanes[lane].log;
                log.resume(&mut cx.io(&mut self.ops), log_resume(resume));
            }
            Order::Reopen(resume) => {
                if let Some(seat) = &mut self.lanes[lane].seat {
                    seat.base = None;
                }
                self.restart_log(cx, lane, resume);
            }
            Order::Rebuild(resume) => {
                self.counters.lane_rebuilds += 1;
                tracing::warn!(
                    lane = id.0,
                    at = resume.at.0,
                    "the leader's log begins above this one's end: it is dropped, and begins anew"
                );
                self.restart_log(cx, lane, resume);
            }
            Order::Begin(epoch) => self.begin_epoch(cx, lane, epoch),
            Order::Send { to, epoch, message } => _ = self.say(cx, lane, to, epoch, &message),
            Order::Answer(answer) => self.report_lane(cx, LaneReport::Answered(answer)),
            Order::Resign(epoch) => self.report_lane(cx, LaneReport::Resigned { lane: id, epoch }),
            Order::Settled(epoch) => self.report_lane(cx, LaneReport::Settled { lane: id, epoch }),
            Order::Offer { epoch, to, is_leaving } => {
                self.report_lane(cx, LaneReport::Offered { lane: id, epoch, to, is_leaving });
            }
            Order::Progress(progress) => {
                let epoch = progress.epoch;
                self.report_lane(cx, LaneReport::Progress(progress));
                self.report_load(cx, lane, epoch);
            }
            Order::HandedOver { epoch, number } => {
                self.report_lane(cx, LaneReport::HandedOver { lane: id, epoch, number });
            }
            Order::Commit(end) => {
                self.lanes[lane].log.set_committed(end);
                self.on_visible(cx, lane);
            }
            Order::Serve(epoch) => {
                self.counters.lanes_begun += 1;
                let target = &mut self.lanes[lane];
                target.meter = Some(Meter::new(target.traffic, cx.now.monotonic));
                tracing::info!(lane = id.0, epoch = epoch.0, "leads");
            }
            Order::Yield => self.yield_lane(cx, lane),
        }
    }

    /// Tells what the lane costs, once that is known.
    fn report_load<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize, epoch: Epoch) {
        let target = &mut self.lanes[lane];
        let Some(meter) = &mut target.meter else { return };
        meter.look(target.traffic, cx.now.monotonic);
        if let Some(rates) = meter.rates() {
            let load = LaneLoad { lane: target.id, epoch, rates };
            self.report_lane(cx, LaneReport::Load(load));
        }
    }

    /// Appends the epoch start, or waits for room.
    pub(super) fn begin_epoch<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize, epoch: Epoch) {
        let target = &mut self.lanes[lane];
        let Some(seat) = &mut target.seat else { return };
        let is_wanted = seat.replica.as_ref().and_then(|replica| replica.leading());
        if is_wanted.is_none_or(|leader| leader.epoch != epoch || leader.start.is_some()) {
            seat.begins = None;
            return;
        }
        match target.log.begin_epoch(&mut cx.io(&mut self.ops), epoch) {
            Ok(appended) => {
                seat.begins = None;
                let start = appended.lsn;
                self.with_replica(cx, lane, |replica, log, now| replica.on_begun(start, log, now));
            }
            Err(AppendError::Busy | AppendError::Full) => seat.begins = Some(epoch),
            Err(_) => self.on_replica_failed(cx, lane),
        }
    }

    /// Sends a message without entries. False: it is lost.
    pub(super) fn say<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        lane: usize,
        to: BrokerId,
        epoch: Epoch,
        message: &LaneMessage,
    ) -> bool {
        let id = self.lanes[lane].id;
        let Some(shard) = self.place_of(to, id) else { return false };
        self.send_peer(cx, to, shard, FrameKind::PeerLane, &message.encode(id, epoch), &[])
    }

    /// The lane is led here no more: those who wait learn that nobody here knows.
    fn yield_lane<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) {
        self.counters.lanes_yielded += 1;
        self.lanes[lane].meter = None;
        let id = self.lanes[lane].id;
        tracing::info!(lane = id.0, "leads no more");
        self.fail_pending_with(cx, lane, LEADER_CHANGED);
        let waiters = self.partitions.take_waiters_of(lane as u16);
        self.hurry_waiters(waiters);
        // Those who wait for room ask again, and are refused.
        self.lanes[lane].is_busy = false;
    }
}
