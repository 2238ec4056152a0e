//! Requests that come to the wrong shard are served all the same, and counted.

use corelog_protocol::ids::{Offset, PartitionId};
use corelog_protocol::message::{Offsets, OffsetsQuery, OffsetsReply, TopicInfo};
use corelog_protocol::{Durability, ErrorCode};

use super::data::{fetch_of, records};
use super::world::{Client, World, batch, codes, produce};
use crate::time::Nanos;

/// Three shards, a topic with a partition on each of the 6 lanes, and a client of each shard.
fn world() -> (World, Vec<Client>, TopicInfo) {
    let mut world = World::new(3);
    let clients: Vec<Client> = (0..3).map(|shard| world.client(shard)).collect();
    let topic = world.create_topic(clients[1], "orders", 6);
    let shards: Vec<u16> = topic.places.iter().map(|place| place.shard.0).collect();
    assert_eq!(shards, [0, 1, 2, 0, 1, 2]);
    (world, clients, topic)
}

fn forwarded(world: &World) -> u64 {
    (0..3).map(|shard| world.counter(shard, "requests_forwarded")).sum()
}

#[test]
fn a_client_of_the_right_shard_is_never_forwarded() {
    let (mut world, clients, topic) = world();
    for place in &topic.places {
        let client = clients[usize::from(place.shard.0)];
        let bytes = produce(place.partition, Durability::QuorumDurable, 1, &batch("x", 1));
        world.send(client, &bytes);
        assert_eq!(world.take_one(client).ack().base_offset, Offset(0));
        world.ask(client, 2, &fetch_of(&[(place.partition, 0)], 0, 1));
        assert_eq!(records(&world.take_one(client))[0].1.len(), 1);
    }
    assert_eq!(forwarded(&world), 0);
}

#[test]
fn a_client_of_the_wrong_shard_is_served_in_order_at_every_level() {
    let (mut world, clients, topic) = world();
    let client = clients[0];
    let elsewhere = topic.places[1].partition;
    for (n, level) in Durability::ALL.into_iter().enumerate() {
        world.send(client, &produce(elsewhere, level, n as u64, &batch(&format!("r{n}"), 1)));
    }
    let mut acks: Vec<_> = world.take(client).iter().map(|f| (f.correlation, f.ack())).collect();
    acks.sort_by_key(|(correlation, _)| *correlation);
    let told: Vec<_> = acks.iter().map(|(c, ack)| (*c, ack.base_offset.0)).collect();
    assert_eq!(told, [(1, 1), (2, 2), (3, 3), (4, 4)]);
    world.ask(client, 9, &fetch_of(&[(elsewhere, 0)], 0, 1));
    let found = records(&world.take_one(client));
    let values: Vec<_> = found[0].1.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(values, ["r0", "r1", "r2", "r3", "r4"]);
    assert_eq!(world.counter(0, "requests_forwarded"), 6);
    assert_eq!(world.counter(1, "requests_adopted"), 6);
    assert!(world.nodes.iter().all(|node| node.shard.is_idle()));
}

#[test]
fn a_fetch_over_all_shards_gathers_what_each_has() {
    let (mut world, clients, topic) = world();
    for (n, place) in topic.places.iter().enumerate() {
        let bytes = batch(&format!("of {n}"), 1);
        world.send(clients[0], &produce(place.partition, Durability::QuorumDurable, 1, &bytes));
    }
    world.take(clients[0]);
    let wanted: Vec<_> = topic.places.iter().map(|place| (place.partition, 0)).collect();
    world.ask(clients[2], 5, &fetch_of(&wanted, 0, 1));
    let mut found = records(&world.take_one(clients[2]));
    found.sort_by_key(|(fetched, _)| fetched.partition);
    for (n, (fetched, records)) in found.iter().enumerate() {
        assert_eq!((fetched.partition, fetched.error), (topic.places[n].partition, None));
        assert_eq!(records, &[(0, format!("of {n}"))]);
    }
    assert_eq!(found.len(), 6);
}

#[test]
fn a_long_poll_over_all_shards_is_woken_by_any_and_leaves_nothing_behind() {
    let (mut world, clients, topic) = world();
    let wanted: Vec<_> = topic.places.iter().map(|place| (place.partition, 0)).collect();
    for woken_by in [2, 0, 1] {
        let reader = world.client(0);
        let offset = u64::from(woken_by != 2);
        let wanted: Vec<_> = match offset {
            0 => wanted.clone(),
            _ => vec![(topic.places[woken_by].partition, 0), (topic.places[2].partition, 1)],
        };
        world.ask(reader, 5, &fetch_of(&wanted, 30_000, 1));
        world.pass(Nanos::from_secs(1));
        assert!(world.take(reader).is_empty());
        let partition = topic.places[woken_by].partition;
        world.send(clients[1], &produce(partition, Durability::QuorumDurable, 1, &batch("n", 1)));
        let found = records(&world.take_one(reader));
        let count: usize = found.iter().map(|(_, records)| records.len()).sum();
        assert_eq!((found.len(), count), (wanted.len(), 1));
    }
    assert!(world.nodes.iter().all(|node| node.shard.is_idle()));
}

#[test]
fn refusals_and_unknown_partitions_come_back_typed() {
    let (mut world, clients, topic) = world();
    let mut corrupt = batch("x", 1);
    *corrupt.last_mut().unwrap() ^= 1;
    let elsewhere = topic.places[1].partition;
    world.send(clients[0], &produce(elsewhere, Durability::None, 1, &corrupt));
    assert_eq!(codes(&world.take(clients[0])), [(1, ErrorCode::CorruptBatch)]);
    let unknown = PartitionId(500);
    world.ask(clients[0], 2, &fetch_of(&[(elsewhere, 7), (unknown, 0)], 30_000, 1));
    let mut found = records(&world.take_one(clients[0]));
    found.sort_by_key(|(fetched, _)| fetched.partition);
    let errors: Vec<_> = found.iter().map(|(fetched, _)| fetched.error.unwrap()).collect();
    assert_eq!(errors, [ErrorCode::OffsetOutOfRange, ErrorCode::UnknownPartition]);
}

#[test]
fn offsets_of_all_shards_come_in_the_order_of_the_queries() {
    let (mut world, clients, topic) = world();
    for (n, place) in topic.places.iter().enumerate() {
        let bytes = batch("x", 1 + n as u32);
        world.send(clients[0], &produce(place.partition, Durability::QuorumDurable, 1, &bytes));
    }
    let order = [5, 0, 3, 1, 4, 2];
    let partitions = order
        .iter()
        .map(|&n| OffsetsQuery { partition: topic.places[n].partition, timestamp: None })
        .collect();
    world.ask(clients[2], 5, &Offsets { partitions });
    let reply = OffsetsReply::decode(&world.take_one(clients[2]).control).unwrap();
    let ends: Vec<u64> = reply.partitions.iter().map(|answer| answer.committed_end.0).collect();
    assert_eq!(ends, [6, 1, 4, 2, 5, 3]);
}
