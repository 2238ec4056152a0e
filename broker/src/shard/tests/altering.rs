//! Topics that change while the broker runs.

use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::PartitionId;
use corelog_protocol::message::{
    Offsets, OffsetsQuery, OffsetsReply, TopicAlter, TopicAlterReply, TopicChanges, TopicDescribe,
    TopicDescribeReply, TopicInfo,
};
use corelog_protocol::{Durability, ErrorCode};

use super::data::{fetch_of, records};
use super::world::{Client, World, batch, codes, produce};
use crate::time::Nanos;

fn alter(world: &mut World, client: Client, changes: TopicChanges) -> TopicInfo {
    world.ask(client, 9, &TopicAlter { name: "orders".into(), changes, timeout_ms: 0 });
    let frame = world.take_one(client);
    assert_eq!(frame.kind, FrameKind::TopicAlterReply, "{:?}", frame.error());
    TopicAlterReply::decode(&frame.control).unwrap().topic
}

fn log_start(world: &mut World, client: Client, partition: PartitionId) -> u64 {
    let partitions = vec![OffsetsQuery { partition, timestamp: None }];
    world.ask(client, 8, &Offsets { partitions });
    OffsetsReply::decode(&world.take_one(client).control).unwrap().partitions[0].log_start.0
}

#[test]
fn a_retention_that_is_altered_takes_effect_on_data_that_is_there_on_every_shard() {
    let mut world = World::with(2, |config| {
        config.segment_bytes = 64 << 10;
        config.frame_bytes_max = 16 << 10;
    });
    let client = world.client(1);
    let topic = world.create_topic(client, "orders", 2);
    let text = "x".repeat(8_000);
    for place in &topic.places {
        for _ in 0..40 {
            world.send(
                client,
                &produce(place.partition, Durability::QuorumDurable, 1, &batch(&text, 1)),
            );
            world.take_one(client).ack();
        }
    }
    world.pass(Nanos::from_secs(10));
    for place in &topic.places {
        assert_eq!(log_start(&mut world, client, place.partition), 0, "kept for ever so far");
    }
    let changes = TopicChanges { retention_bytes: Some(100_000), ..TopicChanges::default() };
    let altered = alter(&mut world, client, changes);
    assert_eq!(altered.settings.retention_bytes, Some(100_000));
    assert_eq!(altered.settings.retention_ms, None);
    world.pass(Nanos::from_secs(10));
    let mut starts = Vec::new();
    for place in &topic.places {
        let start = log_start(&mut world, client, place.partition);
        assert!((1..=28).contains(&start), "100,000 bytes stay, and are 12 records: {start}");
        starts.push(start);
    }
    let changes = TopicChanges { retention_bytes: Some(0), ..TopicChanges::default() };
    assert_eq!(alter(&mut world, client, changes).settings.retention_bytes, None);
    world.crash_and_restart(2);
    let client = world.client(0);
    world.ask(client, 1, &TopicDescribe { name: "orders".into() });
    let told = TopicDescribeReply::decode(&world.take_one(client).control).unwrap().topic;
    assert_eq!(told.settings.retention_bytes, None);
    for (place, start) in topic.places.iter().zip(starts) {
        assert_eq!(log_start(&mut world, client, place.partition), start);
    }
}

#[test]
fn added_partitions_take_records_and_the_old_keep_theirs_also_after_a_restart() {
    let mut world = World::new(2);
    let client = world.client(0);
    let before = world.create_topic(client, "orders", 2);
    world.create_topic(client, "between", 3);
    let old = before.places[1].partition;
    world.send(client, &produce(old, Durability::QuorumDurable, 1, &batch("old", 1)));
    world.take_one(client).ack();
    let changes = TopicChanges { partitions: Some(5), ..TopicChanges::default() };
    let after = alter(&mut world, client, changes);
    assert_eq!(after.settings.partitions, 5);
    assert_eq!(after.places[..2], before.places[..]);
    for (at, place) in after.places.iter().enumerate().skip(2) {
        let text = format!("new {at}");
        world.send(
            client,
            &produce(place.partition, Durability::QuorumDurable, 1, &batch(&text, 1)),
        );
        assert_eq!(world.take_one(client).ack().base_offset.0, 0);
    }
    world.crash_and_restart(1);
    let client = world.client(0);
    world.ask(client, 1, &TopicDescribe { name: "orders".into() });
    let told = TopicDescribeReply::decode(&world.take_one(client).control).unwrap().topic;
    let ids = |topic: &TopicInfo| -> Vec<u32> {
        topic.places.iter().map(|place| place.partition.0).collect()
    };
    assert_eq!(ids(&told), ids(&after));
    let value = |world: &mut World, partition| {
        world.ask(client, 2, &fetch_of(&[(partition, 0)], 0, 1));
        records(&world.take_one(client))[0].1.clone()
    };
    assert_eq!(value(&mut world, old), [(0, "old".to_owned())]);
    for (at, place) in after.places.iter().enumerate().skip(2) {
        assert_eq!(value(&mut world, place.partition), [(0, format!("new {at}"))]);
    }
}

#[test]
fn bad_alterations_are_refused_with_their_reason_and_change_nothing() {
    let mut world = World::new(2);
    let client = world.client(1);
    let before = world.create_topic(client, "orders", 2);
    let none = TopicChanges::default();
    let table = [
        ("other", none, ErrorCode::UnknownTopic),
        ("", none, ErrorCode::UnknownTopic),
        ("orders", TopicChanges { partitions: Some(1), ..none }, ErrorCode::InvalidConfig),
        ("orders", TopicChanges { partitions: Some(0), ..none }, ErrorCode::InvalidConfig),
        ("orders", TopicChanges { partitions: Some(10_001), ..none }, ErrorCode::InvalidConfig),
        ("orders", TopicChanges { retention_ms: Some(u64::MAX), ..none }, ErrorCode::InvalidConfig),
    ];
    for (name, changes, code) in table {
        world.ask(client, 1, &TopicAlter { name: name.into(), changes, timeout_ms: 0 });
        assert_eq!(codes(&world.take(client)), [(1, code)], "{name} {changes:?}");
    }
    assert_eq!(alter(&mut world, client, none), before);
}
