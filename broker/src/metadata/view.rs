//! The read-only picture of the metadata that every shard holds. Shard 0 makes a new one after
//! each change and sends it to all; the others never change it.

use std::sync::Arc;

use corelog_protocol::ids::{LaneId, PartitionId, ShardId};

use super::state::State;
use super::topic::{LaneRecord, Link, Topic};

/// Versions only grow; two views of one version are equal.
#[derive(Debug, Default)]
pub struct View {
    state: State,
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
    pub fn new(state: State) -> Self {
        Self { state, is_lost: false }
    }

    /// The view of a broker whose metadata cannot be read (whole).
    pub fn lost(state: State) -> Self {
        Self { state, is_lost: true }
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

    #[test]
    fn lanes_are_dealt_round_robin_and_the_metadata_stays_on_shard_0() {
        let dealt: Vec<u16> = (0..6).map(|lane| lane_shard(LaneId(lane), 2).0).collect();
        assert_eq!(dealt, [0, 0, 1, 0, 1, 0]);
        assert_eq!(lane_shard(LaneId(6), 1), ShardId(0));
    }
}
