//! The read-only picture of the metadata that every shard holds. Shard 0 makes a new one after
//! each change and sends it to all; the others never change it.

use std::sync::Arc;

use corelog_protocol::ids::{LaneId, PartitionId, ShardId, TopicId};

use super::state::State;
use super::topic::{LaneRecord, Link, Topic};

/// Versions only grow; two views of one version are equal.
#[derive(Debug, Default)]
pub struct View {
    state: State,
    /// The version of the view before, and the topics that came, went or changed since.
    since: u64,
    changed: Vec<TopicId>,
    /// The metadata could not be read: what is listed may not be all there is.
    is_lost: bool,
}

/// Where a partition is now, and who serves it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Home {
    pub shard: ShardId,
    pub link: Link,
}

impl View {
    /// `changed`: the topics that are not as they were at version `since`, in any order.
    pub fn new(state: State, since: u64, changed: Vec<TopicId>) -> Self {
        Self { state, since, changed, is_lost: false }
    }

    /// The view of a broker whose metadata cannot be read (whole).
    pub fn lost(state: State) -> Self {
        Self { state, is_lost: true, ..Self::default() }
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

    /// Who serves a partition, if it lives, on a broker with this many shards.
    pub fn home(&self, partition: PartitionId, shards: u16) -> Option<Home> {
        let link = self.state.topic_of(partition)?.link(partition)?;
        Some(Home { shard: lane_shard(link.lane, shards), link })
    }

    /// The lanes that a shard leads, in the order of their ids.
    pub fn lanes_of(&self, shard: ShardId, shards: u16) -> impl Iterator<Item = LaneRecord> + '_ {
        self.state.lanes().iter().copied().filter(move |lane| lane_shard(lane.id, shards) == shard)
    }
}

/// Which shard leads a lane. Computed anew at each boot, so that the number of shards may change.
pub fn lane_shard(lane: LaneId, shards: u16) -> ShardId {
    assert!(shards > 0);
    if lane == LaneId::METADATA {
        return ShardId(0);
    }
    ShardId(((lane.0 - 1) % u32::from(shards)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DirectoryId;
    use crate::metadata::command::Command;
    use crate::metadata::topic::TopicSettings;

    #[test]
    fn lanes_are_dealt_round_robin_and_the_metadata_stays_on_shard_0() {
        let dealt: Vec<u16> = (0..6).map(|lane| lane_shard(LaneId(lane), 2).0).collect();
        assert_eq!(dealt, [0, 0, 1, 0, 1, 0]);
        assert_eq!(lane_shard(LaneId(6), 1), ShardId(0));
    }

    fn state_with(topics: &[&str]) -> State {
        let mut state = State::default();
        let lane = LaneRecord { id: LaneId(1), directory: DirectoryId(0) };
        state.apply(&Command::Boot { lanes: vec![lane] });
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
        let first = View::new(state_with(&["a", "b"]), 0, vec![]);
        let mut state = first.state().clone();
        let b = state.topic("b").unwrap().id;
        state.apply(&Command::TopicDelete { name: "b".into() });
        let next = View::new(state.clone(), first.version(), vec![b]);
        assert_eq!(next.changed_since(&first), [b]);
        state.apply(&Command::TopicDelete { name: "a".into() });
        let a = first.topic("a").unwrap().id;
        let last = View::new(state, next.version(), vec![a]);
        assert_eq!(last.changed_since(&next), [a]);
        let mut all = last.changed_since(&first);
        all.sort();
        assert_eq!(all, [a, b], "a view in between is missing");
        assert_eq!(first.changed_since(&View::default()).len(), 2);
        let lost = View::lost(next.state().clone());
        assert_eq!(lost.changed_since(&next).len(), 1);
    }
}
