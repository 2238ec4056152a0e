//! Where the partitions of a topic are, as a view tells it to a client: who leads, who has copies, and
//! where all brokers are. A broker that is alone tells of nobody else.

use std::collections::BTreeSet;

use corelog_protocol::ids::{BrokerId, Epoch, LaneId, PartitionId, ShardId};
use corelog_protocol::message::{
    BROKERS_MAX, BrokerPlace, Brokers, PartitionPlace, RACK_BYTES_MAX, REPLICA_PLACES_MAX,
    ReplicaPlace, TopicInfo, TopicSettings as WireSettings,
};

use crate::metadata::view::{View, lane_shard};
use crate::metadata::{Link, Topic};

/// What a topic takes in a reply at most, without its partitions, bytes.
pub(super) const TOPIC_BYTES: usize = 320;

/// The same for a partition, a broker, and a copy of a lane.
const PLACE_BYTES: usize = 64;
const BROKER_BYTES: usize = 160 + RACK_BYTES_MAX + 8;
const REPLICA_BYTES: usize = 8;

/// There is somebody else to ask: clients are told where.
fn has_peers(view: &View) -> bool {
    view.state().brokers().nth(1).is_some()
}

/// How many copies a partition of a topic has.
pub(super) fn replicas_of(view: &View, topic: &Topic) -> u8 {
    let lane = topic.partitions().next().and_then(|(_, link)| view.lane(link.lane));
    lane.map_or(1, |lane| u8::try_from(lane.replicas.len()).unwrap_or(u8::MAX)).max(1)
}

/// How many copies a new topic gets: as many as the lanes have, since that is where it goes.
pub(super) fn replicas_of_new(view: &View) -> u8 {
    let most = view.state().lanes().iter().map(|lane| lane.replicas.len()).max();
    u8::try_from(most.unwrap_or(1)).unwrap_or(u8::MAX).max(1)
}

/// What [`topic_info`] takes in a reply at most, bytes.
pub(super) fn reply_bytes(view: &View, topic: &Topic) -> usize {
    let partitions = topic.settings.partitions as usize;
    let copies = partitions * usize::from(replicas_of_new(view));
    TOPIC_BYTES
        + partitions * PLACE_BYTES
        + if has_peers(view) { BROKERS_MAX * BROKER_BYTES + copies * REPLICA_BYTES } else { 0 }
}

/// The answer to "where is it?". `shards` are those of this broker, `epoch_here` says the epoch of a lane
/// that is led here by a broker alone.
pub(super) fn topic_info(
    view: &View,
    topic: &Topic,
    shards: u16,
    epoch_here: impl Fn(LaneId) -> Option<Epoch>,
) -> TopicInfo {
    let has_peers = has_peers(view);
    let alone = |(partition, link): (PartitionId, Link)| PartitionPlace {
        partition,
        lane: link.lane,
        broker: BrokerId(0),
        shard: lane_shard(link.lane, shards),
        epoch: epoch_here(link.lane).unwrap_or_default(),
    };
    let led = |(partition, link): (PartitionId, Link)| {
        let lane = view.lane(link.lane);
        let leader = lane.and_then(|lane| view.broker(lane.leader_id()?));
        PartitionPlace {
            partition,
            lane: link.lane,
            broker: leader.map_or(BrokerId(0), |leader| leader.id),
            shard: leader.map_or(ShardId(0), |leader| lane_shard(link.lane, leader.shards)),
            epoch: lane.map_or(Epoch(0), |lane| lane.epoch),
        }
    };
    let places = match has_peers {
        true => topic.partitions().map(led).collect(),
        false => topic.partitions().map(alone).collect(),
    };
    TopicInfo {
        id: topic.id,
        name: topic.name.to_string(),
        settings: WireSettings {
            partitions: topic.settings.partitions,
            replicas: replicas_of(view, topic),
            retention_ms: topic.settings.retention_ms,
            retention_bytes: topic.settings.retention_bytes,
        },
        places,
        brokers: if has_peers { brokers(view) } else { Brokers::default() },
        replica_places: if has_peers { replica_places(view, topic) } else { Vec::new() },
    }
}

fn brokers(view: &View) -> Brokers {
    let place = |broker: &crate::metadata::BrokerRecord| BrokerPlace {
        id: broker.id,
        address: broker.address,
        shards: broker.shards,
        incarnation: broker.incarnation,
        rack: broker.rack.to_string(),
    };
    Brokers { me: view.me(), places: view.state().brokers().take(BROKERS_MAX).map(place).collect() }
}

fn replica_places(view: &View, topic: &Topic) -> Vec<ReplicaPlace> {
    let lanes: BTreeSet<LaneId> = topic.partitions().map(|(_, link)| link.lane).collect();
    let lanes = lanes.into_iter().filter_map(|lane| view.lane(lane));
    let replicas = lanes.flat_map(|lane| {
        let place =
            |at: &crate::metadata::LaneReplica| ReplicaPlace { lane: lane.id, broker: at.broker };
        lane.replicas.iter().map(place)
    });
    replicas.take(REPLICA_PLACES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DirectoryId;
    use crate::metadata::boot::boot;
    use crate::metadata::{BrokerRecord, Command, LaneReplica, State, TopicSettings};
    use crate::replica::Position;
    use corelog_protocol::ids::Incarnation;

    fn topic_of(state: &mut State, partitions: u32) {
        let settings = TopicSettings { partitions, retention_ms: Some(5), retention_bytes: None };
        let command = state.topic_create("a", settings).expect("a new name");
        state.apply(&command);
    }

    fn told(state: &State, me: u32) -> TopicInfo {
        let view = View::new(BrokerId(me), state.clone(), 0, vec![]);
        let topic = view.topic("a").unwrap();
        let told = topic_info(&view, topic, 2, |lane| (lane == LaneId(1)).then_some(Epoch(9)));
        assert!(reply_bytes(&view, topic) > 320);
        told
    }

    #[test]
    fn a_broker_alone_tells_of_itself_only_and_of_its_shards() {
        let mut state = State::default();
        let replica = LaneReplica { broker: BrokerId(1), directory: DirectoryId(0) };
        state.apply(&Command::Boot { lanes: vec![[replica].into(); 4] });
        topic_of(&mut state, 4);
        let told = told(&state, 1);
        assert_eq!((told.brokers.clone(), told.replica_places.len()), (Brokers::default(), 0));
        assert_eq!(told.settings.replicas, 1);
        let mut places: Vec<_> = told
            .places
            .iter()
            .map(|place| (place.lane.0, place.broker.0, place.shard.0, place.epoch.0))
            .collect();
        places.sort_unstable();
        assert_eq!(places, [(1, 0, 0, 9), (2, 0, 1, 0), (3, 0, 0, 0), (4, 0, 1, 0)]);
    }

    #[test]
    fn a_broker_of_three_tells_who_leads_where_by_the_shards_of_the_leader() {
        let mut state = State::default();
        for id in 1..=3 {
            let record = BrokerRecord {
                id: BrokerId(id),
                incarnation: Incarnation(10 + u64::from(id)),
                life: 1,
                address: ([127, 0, 0, id as u8], 7421).into(),
                rack: "".into(),
                shards: id as u16,
                directories: 1,
            };
            state.apply(&Command::BrokerRegister { record });
        }
        let boot = boot(&state.brokers().collect::<Vec<_>>(), 1, 3);
        state.apply(&boot);
        topic_of(&mut state, 6);
        let before = told(&state, 2);
        assert_eq!(before.brokers.me, BrokerId(2));
        let addresses: Vec<String> =
            before.brokers.places.iter().map(|at| at.address.to_string()).collect();
        assert_eq!(addresses, ["127.0.0.1:7421", "127.0.0.2:7421", "127.0.0.3:7421"]);
        assert!(before.places.iter().all(|place| place.broker == BrokerId(0)), "nobody leads yet");
        assert!(before.places.iter().all(|place| place.epoch == Epoch(1)));
        assert_eq!((before.settings.replicas, before.replica_places.len()), (3, 18));
        let mut first = before.replicas_of(LaneId(6));
        assert_eq!(first.next(), Some(BrokerId(3)), "the preferred leader");

        let (lane, epoch, position) = (LaneId(6), Epoch(2), Position::default());
        state.apply(&Command::LaneEnter { lane, epoch });
        state.apply(&Command::LaneLeader { lane, epoch, broker: BrokerId(2), position });
        let after = told(&state, 3);
        let place = after.places.iter().find(|place| place.lane == lane).unwrap();
        // Lane 6 of two shards is on the second.
        assert_eq!((place.broker, place.shard, place.epoch), (BrokerId(2), ShardId(1), epoch));
    }
}
