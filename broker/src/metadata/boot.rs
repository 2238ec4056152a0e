//! The first command about lanes: how many there are, who has replicas of each, and who shall lead it.
//!
//! ```text
//! brokers 1, 2, 3 with 2 shards each, 2 lanes led per shard: each lane's replicas, the preferred leader first
//! lane   1   2   3   4 │  5   6   7   8 │  9  10  11  12
//!       123 123 132 132│ 231 231 213 213│ 312 312 321 321
//! shard  0   1   0   1 │  0   1   0   1 │  0   1   0   1     `lane_shard` on each of them
//! ```
//! A broker's lanes are one block of consecutive ids, a multiple of its shards long, so that all its shards lead
//! the same number. Who is next in line changes from row to row: what a dead broker led is led by all others.

use std::sync::Arc;

use super::broker::BrokerRecord;
use super::command::Command;
use super::lane::{LaneReplica, REPLICAS_MAX};
use crate::disk::DirectoryId;

/// The command for these brokers, in the order of their ids. Each leads `lanes_per_shard` lanes for each of
/// its shards; a lane gets `replicas` replicas, or as many as there are brokers, and always an odd number.
pub fn boot(brokers: &[&BrokerRecord], lanes_per_shard: u16, replicas: usize) -> Command {
    let count = replicas.clamp(1, REPLICAS_MAX).min(brokers.len().max(1));
    let count = count - usize::from(count.is_multiple_of(2));
    let mut lanes: Vec<Arc<[LaneReplica]>> = Vec::new();
    for (at, leader) in brokers.iter().enumerate() {
        let others: Vec<&BrokerRecord> =
            brokers[at + 1..].iter().chain(&brokers[..at]).copied().collect();
        for row in 0..usize::from(lanes_per_shard) {
            let set = choose(leader, &others, row, count);
            for _ in 0..leader.shards {
                let lane = lanes.len() as u32;
                let replica = |broker: &&BrokerRecord| LaneReplica {
                    broker: broker.id,
                    directory: directory(broker, lane),
                };
                lanes.push(set.iter().map(replica).collect());
            }
        }
    }
    Command::Boot { lanes }
}

/// The leader, then others: from another one in each row, and first those in racks without a replica.
fn choose<'a>(
    leader: &'a BrokerRecord,
    others: &[&'a BrokerRecord],
    row: usize,
    count: usize,
) -> Vec<&'a BrokerRecord> {
    let mut set = vec![leader];
    let mut left: Vec<&BrokerRecord> = others.to_vec();
    left.rotate_left(row % others.len().max(1));
    while set.len() < count && !left.is_empty() {
        let is_apart = |broker: &&BrokerRecord| set.iter().all(|member| member.rack != broker.rack);
        let next = left.iter().position(is_apart).unwrap_or(0);
        set.push(left.remove(next));
    }
    set
}

/// The replicas of one shard are `shards` apart: dealt so, they lie on different disks.
pub(super) fn directory(broker: &BrokerRecord, lane: u32) -> DirectoryId {
    let directory = (lane / u32::from(broker.shards) + lane) % u32::from(broker.directories);
    DirectoryId(directory as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::view::lane_shard;
    use corelog_protocol::ids::{BrokerId, Incarnation, LaneId};
    use std::collections::BTreeMap;

    fn broker(id: u32, shards: u16, directories: u16, rack: &str) -> BrokerRecord {
        BrokerRecord {
            id: BrokerId(id),
            incarnation: Incarnation(1),
            life: 1,
            address: ([127, 0, 0, 1], 7421).into(),
            rack: rack.into(),
            shards,
            directories,
        }
    }

    fn lanes(brokers: &[BrokerRecord], per_shard: u16, replicas: usize) -> Vec<Arc<[LaneReplica]>> {
        match boot(&brokers.iter().collect::<Vec<_>>(), per_shard, replicas) {
            Command::Boot { lanes } => lanes,
            other => panic!("{other:?}"),
        }
    }

    fn as_text(lanes: &[Arc<[LaneReplica]>]) -> String {
        let set = |set: &Arc<[LaneReplica]>| set.iter().map(|one| one.broker.to_string()).collect();
        lanes.iter().map(set).collect::<Vec<String>>().join(" ")
    }

    #[test]
    fn lanes_are_blocks_and_who_is_next_in_line_changes() {
        let brokers = [1, 2, 3].map(|id| broker(id, 2, 1, ""));
        assert_eq!(
            as_text(&lanes(&brokers, 2, 3)),
            "123 123 132 132 231 231 213 213 312 312 321 321"
        );
        assert_eq!(as_text(&lanes(&brokers[..2], 1, 3)), "1 1 2 2", "two replicas are no gain");
        assert_eq!(as_text(&lanes(&brokers, 1, 2)), "1 1 2 2 3 3");
    }

    #[test]
    fn a_broker_alone_deals_its_lanes_over_its_disks() {
        let lanes = lanes(&[broker(1, 2, 2, "")], 2, 3);
        let directories: Vec<u16> = lanes.iter().map(|set| set[0].directory.0).collect();
        assert_eq!(directories, [0, 1, 1, 0]);
        assert!(lanes.iter().all(|set| set.len() == 1));
    }

    #[test]
    fn racks_come_before_order() {
        let racks = ["a", "a", "b", "b", "c"];
        let brokers: Vec<_> = (1..).zip(racks).map(|(id, rack)| broker(id, 1, 1, rack)).collect();
        assert_eq!(as_text(&lanes(&brokers, 1, 3)), "135 235 351 451 513");
    }

    #[test]
    fn every_shard_of_brokers_of_any_size_leads_the_same_number() {
        for shards in [[1, 1, 1], [3, 2, 5], [4, 1, 2]] {
            let brokers: Vec<_> =
                (1..).zip(shards).map(|(id, shards)| broker(id, shards, 2, "")).collect();
            let lanes = lanes(&brokers, 3, 3);
            let mut led: BTreeMap<(u32, u16), u32> = BTreeMap::new();
            for (set, id) in lanes.iter().zip(1..) {
                let broker = set[0].broker.0;
                let shard = lane_shard(LaneId(id), shards[broker as usize - 1]);
                *led.entry((broker, shard.0)).or_default() += 1;
            }
            assert_eq!(led.len(), shards.iter().map(|&count| usize::from(count)).sum::<usize>());
            assert!(led.values().all(|&count| count == 3), "{led:?}");
        }
    }
}
