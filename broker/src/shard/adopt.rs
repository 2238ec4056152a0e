//! Lanes that the metadata gives this broker, or takes from it, while it runs.
//!
//! A lane that comes is made as at a start: empty, or as it was left when it was here before, it promises, and its leader
//! sends what it lacks. A lane whose last set does not count any more goes: its log is stopped, and its place in the list of
//! lanes stays empty until the process ends, for the disk's orders name it. Its files stay: what was promised is in them.

use std::sync::Arc;

use corelog_protocol::ids::LaneId;

use super::lane::LaneState;
use super::{Cx, Shard};
use crate::memory::Memory;

impl Shard {
    /// What has changed about whose the lanes are.
    pub(super) fn adopt_lanes<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        // Of metadata that cannot be read whole it is not known whether it is true any more.
        if !self.are_lanes_made || self.stopping.is_some() || self.view.is_lost() {
            return;
        }
        let view = Arc::clone(&self.view);
        let me = view.me();
        for lane in 0..self.lanes.len() {
            let record = view.lane(self.lanes[lane].id);
            if record.is_some_and(|record| record.member(me).is_none()) && !self.is_parted(lane) {
                self.part_with(cx, lane);
            }
        }
        for record in view.lanes_of(self.config.shard, self.config.shards) {
            let Some(replica) = record.member(me) else { continue };
            // One that was here before must have closed its files.
            let is_open = |it: &super::lane::Lane| it.id == record.id && !it.is_closed();
            // A disk that has failed is not written to any more.
            let has_failed = |it: &super::lane::Lane| {
                it.log.config().directory == replica.directory && it.state == LaneState::Failed
            };
            let is_free = !self.lanes.iter().any(|it| is_open(it) || has_failed(it));
            if self.lane_index(record.id).is_none() && is_free {
                self.counters.lanes_adopted += 1;
                self.make_lane(cx, record.id, replica.directory, record.is_replicated());
                self.open_partitions_in(record.id);
            }
        }
    }

    /// A lane that is not this broker's any more, and whose log is stopping or has stopped.
    pub(super) fn is_parted(&self, lane: usize) -> bool {
        self.lane_index(self.lanes[lane].id) != Some(lane as u16)
    }

    fn part_with<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) {
        let id = self.lanes[lane].id;
        tracing::info!(lane = id.0, "is on other brokers now: parted with");
        self.counters.lanes_parted += 1;
        self.on_replica_failed(cx, lane);
        self.lane_indexes[id.0 as usize] = None;
        let view = Arc::clone(&self.view);
        for topic in view.state().topics().values() {
            for (partition, _) in topic.partitions().filter(|(_, link)| link.lane == id) {
                if let Some(closed) = self.partitions.remove(partition) {
                    self.hurry_waiters(closed.waiters);
                }
            }
        }
        let target = &mut self.lanes[lane];
        target.is_busy = false;
        if let Some(seat) = &mut target.seat {
            seat.part(cx.memory);
        }
        if !matches!(target.state, LaneState::Failed | LaneState::Stopped) {
            target.log.stop(&mut cx.io(&mut self.ops));
        }
        self.close_parted(cx);
    }

    /// The votes of lanes that went are closed as soon as nothing is being written to them.
    pub(super) fn close_parted<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        for lane in 0..self.lanes.len() {
            if self.is_parted(lane)
                && let Some(seat) = &mut self.lanes[lane].seat
            {
                seat.close(cx, &mut self.ops);
            }
        }
    }

    pub(super) fn has_parted(&self) -> bool {
        (0..self.lanes.len()).any(|lane| self.is_parted(lane))
    }

    /// Serves the partitions of a lane that has just come.
    fn open_partitions_in(&mut self, id: LaneId) {
        let Some(lane) = self.lane_index(id) else { return };
        let view = Arc::clone(&self.view);
        for topic in view.state().topics().values() {
            for (partition, _) in topic.partitions().filter(|(_, link)| link.lane == id) {
                if self.partitions.get(partition).is_none() {
                    self.partitions.insert(partition, lane);
                }
            }
        }
        self.open_partitions_of(usize::from(lane));
    }
}
