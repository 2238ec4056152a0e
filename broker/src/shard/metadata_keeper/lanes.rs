//! The leaders of lanes, as the leader of the metadata's group looks after them: `metadata/failover.rs` decides, here it
//! hears, gets the time, and has its commands proposed.
//!
//! Its time is the group's: ticks that were counted. A process that was paused counts one, and so blames nobody for
//! what it did not hear.

use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{BrokerId, ShardId};

use super::{MetadataKeeper, Proposer};
use crate::limits::GROUP_TICK_MS;
use crate::memory::Memory;
use crate::metadata::Command;
use crate::metadata::consensus::Group;
use crate::metadata::membership::{broker_of, member};
use crate::replica::LaneReport;
use crate::shard::{Cx, Shard};
use crate::time::{Monotonic, Nanos};

/// Ticks of the group after which a leadership that was not handed over is offered to the next broker.
const HAND_OVER_TICKS: u64 = 8;

impl MetadataKeeper {
    /// The time that lanes are looked after by.
    pub(super) fn group_time(&self) -> Monotonic {
        Monotonic(0) + Nanos(self.ticks.saturating_mul(Nanos::from_millis(GROUP_TICK_MS).0))
    }

    pub(super) fn on_heard(&mut self, from: BrokerId) {
        let now = self.group_time();
        if let Some(failover) = &mut self.failover {
            failover.on_heard(from, now);
        }
    }

    /// Tells how far each broker has what is agreed on.
    pub(super) fn look_at_lag(&mut self) {
        let (now, me) = (self.group_time(), self.me);
        let agreed = self.group.as_ref().and_then(Group::agreed);
        if let (Some(failover), Some((agreed, members))) = (&mut self.failover, agreed) {
            let brokers = members.filter_map(|(id, has)| Some((broker_of(id)?, has)));
            failover.on_agreed(agreed, brokers.filter(|(broker, _)| *broker != me), now);
        }
    }
}

impl Shard {
    /// What a replica of this broker has to say to the leader of the metadata. Lost if none is known: it is said
    /// again while it holds.
    pub(in crate::shard) fn report_lane<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        report: LaneReport,
    ) {
        let Some(keeper) = &self.keeper else {
            let message = Box::new(crate::shard::message::ShardMessage::LaneReport(report));
            let to = ShardId(0);
            return cx.effects.push(crate::shard::effect::Effect::Tell { to, message });
        };
        if keeper.is_leading() {
            self.on_lane_report(cx, self.config.broker, report);
        } else if let Some(leader) = keeper.leader_elsewhere() {
            let kind = FrameKind::PeerFence;
            self.send_peer(cx, leader, ShardId(0), kind, &report.encode(), &[]);
        }
    }

    /// What a replica on another broker reports.
    pub(in crate::shard) fn on_peer_fence<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        from: BrokerId,
        control: &[u8],
    ) {
        match LaneReport::decode(control) {
            Ok(report) => self.on_lane_report(cx, from, report),
            Err(_) => self.counters.frames_malformed += 1,
        }
    }

    fn on_lane_report<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        from: BrokerId,
        report: LaneReport,
    ) {
        let Some(keeper) = self.keeper.as_mut().filter(|keeper| keeper.is_leading()) else {
            return;
        };
        let now = keeper.group_time();
        let Some(failover) = &mut keeper.failover else { return };
        match report {
            LaneReport::Answered(answer) => failover.on_answer(from, &answer, now),
            LaneReport::Resigned { lane, epoch } => failover.on_resign(from, lane, epoch, now),
            LaneReport::Offered { lane, epoch, to, is_leaving } => {
                failover.on_offer(from, (lane, epoch), to, is_leaving, now);
            }
            LaneReport::Progress(progress) => failover.on_progress(from, progress, now),
            LaneReport::Load(load) => failover.on_load(from, load, now),
            LaneReport::HandedOver { lane, epoch, number } => {
                failover.on_handed_over(from, (lane, epoch), number, now);
            }
            LaneReport::Settled { lane, epoch } => {
                let is_due = keeper.state.lane(lane).is_some_and(|record| {
                    record.epoch == epoch
                        && record.leader_id() == Some(from)
                        && record.before.is_some()
                });
                if is_due {
                    // Not now: it is reported again.
                    _ = self.propose(cx, Proposer::Nobody, &Command::LaneSettled { lane, epoch });
                }
            }
        }
    }

    /// Proposes what is due for the lanes.
    pub(super) fn drive_lanes<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let Some(keeper) = self.keeper.as_mut().filter(|keeper| keeper.is_leading()) else {
            return;
        };
        let now = keeper.group_time();
        let version = keeper.state.version();
        let Some(failover) = &mut keeper.failover else { return };
        let is_due = failover.next_deadline().is_some_and(|deadline| deadline <= now);
        if !is_due && keeper.looked_at == version {
            return;
        }
        keeper.looked_at = version;
        let mut are_refused = false;
        for command in failover.tick(now, &keeper.state) {
            let proposer = Proposer::Failover(command.clone());
            are_refused = are_refused || self.propose(cx, proposer, &command).is_err();
            if are_refused {
                self.lane_command_dropped(&command);
            }
        }
    }

    /// Has a lane led by another broker, if that spreads the load.
    pub(super) fn balance_leaders<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let is_leaving = self.is_leaving();
        let Some(keeper) = self.keeper.as_mut().filter(|keeper| keeper.is_leading()) else {
            return;
        };
        let now = keeper.group_time();
        let (Some(failover), Some(balancer)) = (&keeper.failover, &mut keeper.balancer) else {
            return;
        };
        // With something on its way, what is known may not hold any more.
        if now < balancer.next_look() || is_leaving || !keeper.proposed.is_empty() {
            return;
        }
        let Some(command) = balancer.look(now, &keeper.state, failover) else { return };
        // Not now: it will be seen again.
        if self.propose(cx, Proposer::Nobody, &command).is_ok() {
            self.counters.leaders_balanced += 1;
            tracing::info!(?command, "a lane is to be led where there is less to do");
        }
    }

    /// A broker that leaves or drains, and leads no lane any more, lets another one lead the metadata's group as well; so
    /// does one whose disk stands still.
    pub(super) fn hand_over_group<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let is_done_here = self.is_leaving() && !self.leads_lanes();
        let is_stalled =
            self.is_directory_overtaken(self.lanes[super::LANE].log.config().directory);
        let is_urgent = self.leaving.is_some() || self.view.is_out();
        let Some(keeper) = self.keeper.as_mut().filter(|keeper| keeper.is_leading()) else {
            return;
        };
        // Given up by the group after an election's time: then the next one is tried.
        let round = keeper.ticks / HAND_OVER_TICKS;
        let is_stalled = is_stalled || keeper.is_disk_overtaken();
        let is_wanted = is_stalled || is_done_here && keeper.proposed.is_empty();
        if !is_wanted || !keeper.ticks.is_multiple_of(HAND_OVER_TICKS) {
            return;
        }
        let (me, now) = (keeper.me, keeper.group_time());
        let Some(failover) = &keeper.failover else { return };
        let state = &keeper.state;
        let Some(group) = &keeper.group else { return };
        // Whoever has no vote, or not all that is agreed on since its disk stands still as well, cannot lead, and must not
        // stand in front of those who can and drain.
        let could_lead = |id: &BrokerId| {
            let one = member(*id);
            let is_able = group.members().is_voter(one) && group.has_everything(one);
            *id != me && is_able && failover.is_alive(*id, now)
        };
        let mut others: Vec<BrokerId> =
            state.brokers().map(|it| it.id).filter(could_lead).collect();
        let is_draining = |id: &BrokerId| state.is_draining(*id);
        // Who drains as well is better than nobody, but no better than another one that drains.
        if !is_urgent && !is_stalled || !others.iter().all(is_draining) {
            others.retain(|id| !is_draining(id));
        }
        let Some(to) = others.get(round as usize % others.len().max(1)) else { return };
        if let Some(group) = &mut keeper.group {
            // It does not lead any more.
            _ = group.transfer_leader(member(*to));
        }
        self.drain_group(cx);
    }

    pub(super) fn lane_command_dropped(&mut self, command: &Command) {
        let Some(keeper) = &mut self.keeper else { return };
        // Tried again with the next tick: at once it would be refused again.
        let next = keeper.group_time() + Nanos::from_millis(GROUP_TICK_MS);
        if let Some(failover) = &mut keeper.failover {
            failover.on_dropped(command, next);
        }
    }
}
