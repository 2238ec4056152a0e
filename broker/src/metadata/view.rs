//! The read-only picture of the metadata that every shard holds. Shard 0 makes a new one after
//! each change and sends it to all; the others never change it.

use std::sync::Arc;

use corelog_protocol::ids::{BrokerId, LaneId, PartitionId, ShardId, TopicId};

use super::broker::BrokerRecord;
use super::lane::LaneRecord;
use super::state::State;
use super::topic::{Link, Topic};

/// Versions only grow; two views of one version are equal.
#[derive(Debug, Default)]
pub struct View {
    me: BrokerId,
    state: State,
    /// The version of the view before, and the topics that came, went or changed since.
    since: u64,
    changed: Vec<TopicId>,
    /// The metadata could not be read: what is listed may not be all there is.
    is_lost: bool,
    /// Others have said that this broker was removed, which may not be in its own state.
    is_told_out: bool,
}

/// Where a partition is now, and who serves it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Home {
    /// The broker that leads its lane. None while nobody does.
    pub broker: Option<BrokerId>,
    /// On that broker, by its number of shards. On this one if nobody leads.
    pub shard: ShardId,
    pub link: Link,
}

impl View {
    /// Of the broker `me`. `changed`: the topics that are not as they were at version `since`, in any order.
    pub fn new(me: BrokerId, state: State, since: u64, changed: Vec<TopicId>) -> Self {
        Self { me, state, since, changed, ..Self::default() }
    }

    /// The view of a broker whose metadata cannot be read (whole).
    pub fn lost(me: BrokerId, state: State) -> Self {
        Self { me, state, is_lost: true, ..Self::default() }
    }

    /// The last view of a broker that was told that it was removed.
    pub fn told_out(me: BrokerId, state: State) -> Self {
        Self { me, state, is_told_out: true, ..Self::default() }
    }

    /// This broker was removed from the cluster: it serves nobody any more.
    pub fn is_out(&self) -> bool {
        self.is_told_out || self.state.is_removed(self.me)
    }

    /// Whose view it is. 0 in the empty view before the first.
    pub fn me(&self) -> BrokerId {
        self.me
    }

    /// The lanes that are not as they were in an earlier view, in the order of their ids. Costs nothing if
    /// only topics changed since.
    pub fn lanes_changed_since(&self, earlier: &Self) -> Vec<LaneId> {
        if self.state.has_lanes_of(&earlier.state) {
            return Vec::new();
        }
        let is_new = |lane: &&LaneRecord| earlier.state.lane(lane.id) != Some(*lane);
        self.state.lanes().iter().filter(is_new).map(|lane| lane.id).collect()
    }

    /// The topics that may differ from those of an earlier view. All of both, if this view does not
    /// follow that one.
    pub fn changed_since(&self, earlier: &Self) -> Vec<TopicId> {
        let is_next = self.since == earlier.version() && !self.is_lost && !earlier.is_lost;
        if is_next && earlier.version() > 0 {
            return self.changed.clone();
        }
        let (is, was) = (self.state.topics(), earlier.state.topics());
        let gone = was.keys().filter(|id| !is.contains_key(*id));
        gone.chain(is.keys()).copied().collect()
    }

    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn version(&self) -> u64 {
        self.state.version()
    }

    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.state.topic(name)
    }

    pub fn lane(&self, id: LaneId) -> Option<&LaneRecord> {
        self.state.lane(id)
    }

    pub fn broker(&self, id: BrokerId) -> Option<&BrokerRecord> {
        self.state.broker(id)
    }

    /// Who serves a partition, if it lives. `shards` are those of this broker.
    pub fn home(&self, partition: PartitionId, shards: u16) -> Option<Home> {
        let link = self.state.topic_of(partition)?.link(partition)?;
        let broker = self.lane(link.lane)?.leader_id();
        let elsewhere = broker.filter(|&id| id != self.me).and_then(|id| self.broker(id));
        let shards = elsewhere.map_or(shards, |leader| leader.shards);
        Some(Home { broker, shard: lane_shard(link.lane, shards), link })
    }

    /// Which shard of this broker has a copy of a partition, led or followed, if there is one.
    pub fn copy_here(&self, partition: PartitionId, shards: u16) -> Option<ShardId> {
        let link = self.state.topic_of(partition)?.link(partition)?;
        self.lane(link.lane)?.member(self.me)?;
        Some(lane_shard(link.lane, shards))
    }

    /// The lanes of a shard of this broker: led or followed there, or not any more but its word still counts. In the
    /// order of their ids.
    pub fn lanes_of(&self, shard: ShardId, shards: u16) -> impl Iterator<Item = &LaneRecord> + '_ {
        let is_here = move |lane: &&LaneRecord| {
            lane_shard(lane.id, shards) == shard && lane.member(self.me).is_some()
        };
        self.state.lanes().iter().filter(is_here)
    }
}

/// Which shard of a broker has a lane: as clients compute it. Anew at each boot, so that the number of shards may change.
pub fn lane_shard(lane: LaneId, shards: u16) -> ShardId {
    lane.shard(shards)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DirectoryId;
    use crate::metadata::boot::boot;
    use crate::metadata::command::Command;
    use crate::metadata::lane::LaneReplica;
    use crate::metadata::topic::TopicSettings;
    use corelog_protocol::ids::Epoch;

    const ME: BrokerId = BrokerId(1);

    fn state_with(topics: &[&str]) -> State {
        let mut state = State::default();
        let replica = LaneReplica { broker: ME, directory: DirectoryId(0) };
        state.apply(&Command::Boot { lanes: vec![[replica].into()] });
        for name in topics {
            let settings =
                TopicSettings { partitions: 1, retention_ms: None, retention_bytes: None };
            let command = state.topic_create(name, settings).expect("a new name");
            state.apply(&command);
        }
        state
    }

    #[test]
    fn the_next_view_names_what_changed_and_any_other_everything() {
        let first = View::new(ME, state_with(&["a", "b"]), 0, vec![]);
        let mut state = first.state().clone();
        let b = state.topic("b").unwrap().id;
        state.apply(&Command::TopicDelete { name: "b".into() });
        let next = View::new(ME, state.clone(), first.version(), vec![b]);
        assert_eq!(next.changed_since(&first), [b]);
        state.apply(&Command::TopicDelete { name: "a".into() });
        let a = first.topic("a").unwrap().id;
        let last = View::new(ME, state, next.version(), vec![a]);
        assert_eq!(last.changed_since(&next), [a]);
        let mut all = last.changed_since(&first);
        all.sort();
        assert_eq!(all, [a, b], "a view in between is missing");
        assert_eq!(first.changed_since(&View::default()).len(), 2);
        let lost = View::lost(ME, next.state().clone());
        assert_eq!(lost.changed_since(&next).len(), 1);
    }
    /// Three brokers with 1, 2 and 3 shards, one lane led per shard.
    fn state_of_three() -> State {
        let mut state = State::default();
        for id in 1..=3 {
            let record = BrokerRecord::of_a_test(BrokerId(id), id as u16);
            state.apply(&Command::BrokerRegister { record });
        }
        let boot = boot(&state.brokers().collect::<Vec<_>>(), 1, 3);
        state.apply(&boot);
        let settings = TopicSettings { partitions: 6, retention_ms: None, retention_bytes: None };
        let command = state.topic_create("a", settings).expect("a new name");
        state.apply(&command);
        state
    }

    #[test]
    fn a_partition_is_at_home_where_its_lane_is_led() {
        let mut state = state_of_three();
        let a = state.topic("a").unwrap();
        let (partition, link) = a.partitions().find(|(_, link)| link.lane == LaneId(6)).unwrap();
        let nobody = View::new(ME, state.clone(), 0, vec![]).home(partition, 1).unwrap();
        assert_eq!(nobody, Home { broker: None, shard: ShardId(0), link });
        let copy = |me, shards| {
            View::new(BrokerId(me), state.clone(), 0, vec![]).copy_here(partition, shards)
        };
        assert_eq!((copy(1, 1), copy(2, 2)), (Some(ShardId(0)), Some(ShardId(1))));
        assert_eq!(copy(4, 1), None, "a stranger has none");
        let lane = link.lane;
        let position = crate::replica::Position::default();
        for (epoch, broker, shard) in [(1, 3, 2), (2, 2, 1), (3, 1, 0)] {
            let (epoch, broker) = (Epoch(epoch), BrokerId(broker));
            state.apply(&Command::LaneEnter { lane, epoch });
            state.apply(&Command::LaneLeader { lane, epoch, broker, position });
            let home = View::new(ME, state.clone(), 0, vec![]).home(partition, 1).unwrap();
            assert_eq!(home, Home { broker: Some(broker), shard: ShardId(shard), link });
        }
    }

    #[test]
    fn a_view_lists_the_lanes_with_a_replica_here_and_those_that_changed() {
        let mut state = state_of_three();
        let first = View::new(BrokerId(2), state.clone(), 0, vec![]);
        let ids = |view: &View, shard| -> Vec<u32> {
            view.lanes_of(ShardId(shard), 2).map(|lane| lane.id.0).collect()
        };
        assert_eq!((ids(&first, 0), ids(&first, 1)), (vec![1, 3, 5], vec![2, 4, 6]));
        let stranger = View::new(BrokerId(4), state.clone(), 0, vec![]);
        assert!(ids(&stranger, 0).is_empty());

        state.apply(&Command::TopicDelete { name: "a".into() });
        let next = View::new(BrokerId(2), state.clone(), 0, vec![]);
        assert_eq!(next.lanes_changed_since(&first), []);
        state.apply(&Command::LaneEnter { lane: LaneId(4), epoch: Epoch(2) });
        let last = View::new(BrokerId(2), state, 0, vec![]);
        assert_eq!(last.lanes_changed_since(&first), [LaneId(4)]);
        assert_eq!(last.lanes_changed_since(&View::default()).len(), 6);
    }
}
