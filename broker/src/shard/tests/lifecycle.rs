//! First boot, restart, failure, stop.

use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::Offset;
use corelog_protocol::message::{TopicCreate, TopicDescribe, TopicDescribeReply, TopicSettings};
use corelog_protocol::{Durability, ErrorCode};

use super::data::{fetch_of, records};
use super::world::{World, batch, codes, produce};
use crate::shard::event::Event;
use crate::time::Nanos;

fn places(world: &mut World, shard: usize) -> Vec<(u32, u32, u16)> {
    let client = world.client(shard);
    world.ask(client, 1, &TopicDescribe { name: "orders".into() });
    let reply = TopicDescribeReply::decode(&world.take_one(client).control).unwrap();
    let places = reply.topic.places.iter();
    places.map(|place| (place.partition.0, place.lane.0, place.shard.0)).collect()
}

#[test]
fn the_first_boot_records_two_lanes_for_each_shard() {
    let world = World::new(3);
    let lanes: Vec<u32> =
        world.nodes[1].shard.view().state().lanes().iter().map(|lane| lane.id.0).collect();
    assert_eq!(lanes, [1, 2, 3, 4, 5, 6]);
    let led: Vec<u32> = world.nodes[2].shard.lane_counters().map(|(lane, _)| lane.0).collect();
    assert_eq!(led, [3, 6]);
}

#[test]
fn the_election_of_a_group_of_one_costs_no_commit_of_its_own() {
    let mut world = World::new(1);
    let commits = |world: &World| {
        let mut lanes = world.nodes[0].shard.lane_counters();
        lanes.next().map(|(_, counters)| counters.commits).unwrap()
    };
    // The log's own first; then snapshot, election and lanes together; then a checkpoint.
    assert_eq!(commits(&world), 3);
    world.crash_and_restart(1);
    assert_eq!(commits(&world), 2, "the election shares one with the checkpoint");
    let client = world.client(0);
    world.create_topic(client, "orders", 1);
    assert_eq!(commits(&world), 3);
}

#[test]
fn lanes_spread_over_the_data_directories() {
    let world = World::with(2, |config| config.directories = 2);
    let state = world.nodes[0].shard.view().state().clone();
    for shard in 0..2u32 {
        let own = state.lanes().iter().filter(|lane| (lane.id.0 - 1) % 2 == shard);
        let mut directories: Vec<u16> = own.map(|lane| lane.replicas[0].directory.0).collect();
        directories.sort_unstable();
        assert_eq!(directories, [0, 1], "shard {shard}");
    }
}

#[test]
fn a_restart_with_another_number_of_shards_serves_the_same_data() {
    let mut world = World::new(3);
    let client = world.client(0);
    let topic = world.create_topic(client, "orders", 6);
    for (n, place) in topic.places.iter().enumerate() {
        let bytes = batch(&format!("of {n}"), 1);
        world.send(client, &produce(place.partition, Durability::QuorumDurable, 1, &bytes));
        world.take_one(client).ack();
    }
    let lanes: Vec<u32> = places(&mut world, 0).iter().map(|place| place.1).collect();
    for shards in [1, 2, 5] {
        world.crash_and_restart(shards);
        assert!(world.nodes.iter().all(|node| node.is_ready), "{shards} shards");
        let now = places(&mut world, usize::from(shards) - 1);
        assert_eq!(now.iter().map(|place| place.1).collect::<Vec<_>>(), lanes);
        assert!(now.iter().all(|place| u32::from(place.2) == (place.1 - 1) % u32::from(shards)));
        let client = world.client(0);
        for (n, place) in topic.places.iter().enumerate() {
            world.ask(client, 2, &fetch_of(&[(place.partition, 0)], 0, 1));
            let found = records(&world.take_one(client));
            assert_eq!(found[0].1, [(0, format!("of {n}"))], "{shards} shards");
        }
    }
}

#[test]
fn deleted_topics_stay_deleted_and_their_ids_unused_after_a_restart() {
    let mut world = World::new(1);
    let client = world.client(0);
    let first = world.create_topic(client, "orders", 2);
    let delete = corelog_protocol::message::TopicDelete { name: "orders".into(), timeout_ms: 0 };
    world.ask(client, 1, &delete);
    world.take(client);
    world.crash_and_restart(1);
    let client = world.client(0);
    world.ask(client, 2, &TopicDescribe { name: "orders".into() });
    assert_eq!(codes(&world.take(client)), [(2, ErrorCode::UnknownTopic)]);
    let second = world.create_topic(client, "orders", 2);
    assert!(second.places[0].partition > first.places[1].partition);
}

#[test]
fn many_topics_outlive_the_segments_of_the_metadata_lane() {
    let mut world = World::with(1, |config| {
        config.segment_bytes = 64 << 10;
        config.frame_bytes_max = 16 << 10;
    });
    let client = world.client(0);
    for n in 0..120 {
        world.create_topic(client, &format!("topic-{n}"), 1 + n % 3);
    }
    let before = world.nodes[0].shard.view().state().clone();
    world.crash_and_restart(1);
    assert_eq!(world.nodes[0].shard.view().state(), &before);
}

#[test]
fn a_failed_directory_refuses_writes_and_serves_reads() {
    let mut world = World::new(2);
    let client = world.client(0);
    let topic = world.create_topic(client, "orders", 4);
    let here = topic.places.iter().find(|place| place.shard.0 == 0).unwrap().partition;
    let there = topic.places.iter().find(|place| place.shard.0 == 1).unwrap().partition;
    for partition in [here, there] {
        world.send(client, &produce(partition, Durability::QuorumDurable, 1, &batch("kept", 1)));
    }
    assert_eq!(world.take(client).len(), 2);
    world.fail_writes = true;
    world.send(client, &produce(here, Durability::QuorumDurable, 2, &batch("lost", 1)));
    let code = world.take_one(client).error().code;
    assert_eq!(code, ErrorCode::StorageFailed);
    assert!(!code.is_definite(), "it may have reached the disk");
    // The other shard uses the same directory.
    for partition in [here, there] {
        world.send(client, &produce(partition, Durability::LeaderMemory, 3, &batch("late", 1)));
        assert_eq!(world.take_one(client).error().code, ErrorCode::StorageUnavailable);
        world.ask(client, 4, &fetch_of(&[(partition, 0)], 0, 1));
        assert_eq!(records(&world.take_one(client))[0].1, [(0, "kept".to_string())]);
    }
}

#[test]
fn stop_answers_what_is_under_way_and_loses_nothing() {
    let mut world = World::new(2);
    let client = world.client(0);
    let topic = world.create_topic(client, "orders", 1);
    let partition = topic.places[0].partition;
    let reader = world.client(0);
    world.ask(reader, 1, &fetch_of(&[(partition, 0)], 30_000, 1));
    world.is_disk_held = true;
    world.send(client, &produce(partition, Durability::QuorumDurable, 2, &batch("last", 1)));
    for shard in 0..2 {
        world.tell(shard, Event::Stop);
    }
    world.send(client, &produce(partition, Durability::QuorumDurable, 3, &batch("late", 1)));
    world.release_disk();
    world.pass(Nanos::from_secs(10));
    let frames = world.take(client);
    let (late, last) = (frames.iter().find(|f| f.correlation == 3).unwrap(), &frames);
    assert_eq!(late.error().code, ErrorCode::Stopping);
    let ack = last.iter().find(|frame| frame.correlation == 2).unwrap().ack();
    assert_eq!((frames.len(), ack.base_offset), (2, Offset(0)));
    assert!(records(&world.take_one(reader))[0].1.is_empty());
    assert!(world.is_closed(client) && world.is_closed(reader));
    assert!(world.nodes.iter().all(|node| node.is_stopped));

    world.crash_and_restart(2);
    let client = world.client(0);
    world.ask(client, 1, &fetch_of(&[(partition, 0)], 0, 1));
    assert_eq!(records(&world.take_one(client))[0].1, [(0, "last".to_string())]);
}

#[test]
fn a_connection_that_comes_before_the_lanes_are_recovered_is_told_to_wait() {
    let mut world = World::new(1);
    let client = world.client(0);
    let topic = world.create_topic(client, "orders", 1);
    let partition = topic.places[0].partition;
    world.is_disk_held = true;
    world.crash_and_restart(1);
    let client = world.client(0);
    world.send(client, &produce(partition, Durability::QuorumDurable, 1, &batch("x", 1)));
    assert_eq!(codes(&world.take(client)), [(1, ErrorCode::Recovering)]);
    world.release_disk();
    assert!(world.nodes[0].is_ready);
    world.send(client, &produce(partition, Durability::QuorumDurable, 2, &batch("x", 1)));
    assert_eq!(world.take_one(client).ack().base_offset, Offset(0));
}

#[test]
fn a_stop_does_not_wait_for_a_shard_that_has_stopped_to_learn_of_a_change() {
    let mut world = World::new(2);
    let client = world.client(0);
    world.tell(1, Event::Stop);
    world.run();
    assert!(world.nodes[1].is_stopped);
    let settings =
        TopicSettings { partitions: 1, replicas: 0, retention_ms: None, retention_bytes: None };
    let create = TopicCreate { name: "late".into(), settings, timeout_ms: 0 };
    world.ask(client, 7, &create);
    world.run();
    assert!(world.take(client).is_empty(), "nobody says that it is in force on the other shard");
    world.tell(0, Event::Stop);
    world.pass(Nanos::from_millis(100));
    assert!(world.nodes[0].is_stopped);
    let frame = world.take_one(client);
    assert_eq!((frame.kind, frame.correlation), (FrameKind::TopicCreateReply, 7));
}
