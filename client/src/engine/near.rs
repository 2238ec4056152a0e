//! Reading near. A consumer that has a rack fetches from the replica in it, which perhaps follows: that spares traffic
//! between racks. A follower that refuses, is silent, or does not keep up is left for its leader, for a while.
//!
//! A follower only ever serves what is committed, and every entry is checked as a leader's is. So whom a consumer asks
//! changes neither what it is given nor in which order, and the next offset to fetch is the only memory of it.

use super::assignment::AssignmentId;
use super::batches::is_place_unknown;
use super::time::{MILLIS, Monotonic};
use super::{Assignment, Engine};
use corelog_protocol::ErrorCode;
use corelog_protocol::ids::{BrokerId, Offset, ShardId};

/// For so long the leader is asked, once a follower was left, ns. A jitter of up to a quarter is taken off.
const FAR_NANOS: u64 = 5_000 * MILLIS;

/// A follower may be behind what was told of a partition for so long, ns.
const LAG_NANOS: u64 = 1_000 * MILLIS;

/// How an assignment stands to the followers in its consumer's rack.
#[derive(Debug, Default)]
pub(super) struct Near {
    /// It is, or was last, asked of a follower.
    pub is_used: bool,
    /// The leader is asked until then.
    not_before: Monotonic,
    /// Where the partition ends, as its leader told it last, or a follower that knew of more.
    end_told: Offset,
    /// When a follower was last asked for the first time, gave something, or had all that was told.
    kept_up_at: Monotonic,
}

impl Near {
    /// Whom it is asked of from here on.
    fn turn(&mut self, is_follower: bool, now: Monotonic) {
        if is_follower && !self.is_used {
            self.kept_up_at = now;
        }
        self.is_used = is_follower;
    }

    /// The partition ends there, its leader says.
    pub(super) fn on_leader_told(&mut self, end: Offset) {
        self.end_told = end;
    }
}

impl<T> Engine<T> {
    /// The door through which an assignment is fetched from now on: to a replica in its consumer's rack, else to the
    /// leader. None while nobody leads.
    pub(super) fn turn_to_source(&mut self, id: AssignmentId) -> Option<usize> {
        let leader = self.assignments.get(&id).and_then(|at| self.door_of(at));
        let follower = leader.and_then(|_| self.follower_near(self.assignments.get(&id)?));
        let source = match follower {
            Some((broker, shard)) => Some(self.door_to(broker, shard)),
            None => leader,
        };
        let now = self.clock;
        if let Some(at) = self.assignments.get_mut(&id) {
            at.door = source;
            at.near.turn(follower.is_some(), now);
        }
        source
    }

    /// Where an assignment would be fetched from now.
    pub(super) fn source_of(&mut self, id: AssignmentId) -> Option<usize> {
        let at = self.assignments.get(&id)?;
        let leader = self.door_of(at)?;
        match self.follower_near(at) {
            Some((broker, shard)) => Some(self.door_to(broker, shard)),
            None => Some(leader),
        }
    }

    /// A follower in the consumer's rack. None if there is none, if the leader is in it, or for a while after one was
    /// left.
    fn follower_near(&self, at: &Assignment) -> Option<(BrokerId, ShardId)> {
        let rack = self.consumers[at.consumer.0 as usize].config.rack.as_deref()?;
        if rack.is_empty() || self.clock < at.near.not_before {
            return None;
        }
        let topic = &self.topics[at.topic];
        let queue = &self.producer.queues[*topic.queues.get(at.partition as usize)?];
        let leader = self.doors[queue.target()].broker;
        let is_near = |id: BrokerId| self.cluster.get(id).is_some_and(|place| place.rack == rack);
        if is_near(leader) {
            return None;
        }
        let place = |id: BrokerId| Some((id, queue.lane.shard(self.cluster.get(id)?.shards)));
        let copies = topic.copies.get(&queue.lane)?.iter().copied();
        let near = copies.filter(|&id| id != leader && is_near(id)).filter_map(place);
        let near: Vec<_> = near.filter(|&(id, shard)| self.may_be_reached(id, shard)).collect();
        // Where there are several, each has its share of the partitions.
        let turn = (queue.id.0 as usize).checked_rem(near.len())?;
        near.get(turn).copied()
    }

    /// Nothing speaks against asking this broker now: it is not silent, and not about to be tried again later.
    fn may_be_reached(&self, broker: BrokerId, shard: ShardId) -> bool {
        let shard = self.config.insist_on_shard.unwrap_or(shard);
        let door = self.doors.iter().find(|door| door.broker == broker && door.shard == shard);
        door.is_none_or(|door| match &door.link {
            Some(link) => !link.is_doubted(),
            None => door.not_before <= self.clock,
        })
    }

    /// A follower has answered: `got` bytes, of a partition that ends at `end` as far as it knows.
    pub(super) fn judge_follower(&mut self, id: AssignmentId, end: Offset, got: usize) {
        let now = self.clock;
        let Some(at) = self.assignments.get_mut(&id) else { return };
        at.near.end_told = at.near.end_told.max(end);
        // An offset that nobody has had yet may have been made up: its leader can tell.
        let is_doubtful = !at.is_reached && end < at.next;
        let keeps_up = got > 0 || end >= at.next && end >= at.near.end_told;
        if keeps_up {
            at.near.kept_up_at = now;
        } else if is_doubtful || at.near.kept_up_at.after(LAG_NANOS) <= now {
            self.leave_follower(id, "it does not keep up");
        }
    }

    /// A follower does not serve this partition now. If others may lead, it is asked who does.
    pub(super) fn on_follower_refused(&mut self, id: AssignmentId, code: ErrorCode) {
        self.leave_follower(id, "it refuses");
        if let Some(topic) = self.assignments.get(&id).map(|at| at.topic)
            && is_place_unknown(code, self.cluster.is_known())
        {
            self.describe_topic(topic);
        }
    }

    /// The leader is asked from here on, for a while.
    fn leave_follower(&mut self, id: AssignmentId, why: &'static str) {
        let wait = FAR_NANOS - self.random.below(FAR_NANOS / 4);
        let not_before = self.clock.after(wait);
        if let Some(at) = self.assignments.get_mut(&id) {
            tracing::debug!(topic = %at.name, partition = at.partition, why, "a follower is left");
            at.near.is_used = false;
            at.near.not_before = not_before;
            self.counters.followers_left += 1;
        }
    }

    /// The broker behind this door is gone, or silent: what is read from it as from a follower is asked of the leaders.
    pub(super) fn leave_followers_behind(&mut self, door: usize) {
        let is_there = |at: &Assignment| at.near.is_used && at.door == Some(door);
        let left = self.assignments.iter().filter(|(_, at)| is_there(at)).map(|(&id, _)| id);
        let left: Vec<AssignmentId> = left.collect();
        for &id in &left {
            self.leave_follower(id, "it is silent");
            let Some(at) = self.assignments.get_mut(&id) else { continue };
            // What is under way is not wanted any more.
            at.generation += 1;
            at.is_fetching = false;
            let fetchable = &mut self.doors[door].fetchable;
            let length = fetchable.len();
            fetchable.retain(|&other| other != id);
            at.is_listed &= fetchable.len() == length;
            self.want_fetch(id);
        }
        if !left.is_empty() {
            self.forget_fetches(door);
        }
    }
}
