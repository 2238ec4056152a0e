//! Long polls: what they leave behind, and what many of them may cost.

use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{Offset, PartitionId};
use corelog_protocol::message::{Offsets, OffsetsQuery, OffsetsReply, TopicDescribe};
use corelog_protocol::{Durability, ErrorCode};

use super::data::{fetch_of, records};
use super::world::{Client, World, batch, codes, produce};
use crate::time::Nanos;

fn world_with_topic(partitions: u32) -> (World, Client, Vec<PartitionId>) {
    let mut world = World::new(1);
    let client = world.client(0);
    let topic = world.create_topic(client, "orders", partitions);
    (world, client, topic.places.iter().map(|place| place.partition).collect())
}

#[test]
fn a_fetch_that_names_a_partition_twice_is_refused() {
    let (mut world, client, partitions) = world_with_topic(3);
    let [a, b, c] = partitions[..] else { panic!() };
    world.ask(client, 1, &fetch_of(&[(c, 0), (a, 0), (c, 0)], 30_000, 1));
    assert_eq!(codes(&world.take(client)), [(1, ErrorCode::Malformed)]);
    assert!(world.nodes[0].shard.is_idle());
    world.ask(client, 2, &fetch_of(&[(c, 0), (a, 0), (b, 0)], 0, 1));
    assert_eq!(records(&world.take_one(client)).len(), 3, "any order will do");
}

#[test]
fn polls_of_a_partition_that_never_grows_leave_no_list_that_does() {
    let (mut world, client, partitions) = world_with_topic(2);
    for n in 0..500 {
        world.ask(client, n, &fetch_of(&[(partitions[0], 0), (partitions[1], 0)], 1, 1));
        world.pass(Nanos::from_millis(2));
        assert_eq!(world.take(client).len(), 1);
    }
    let waiters = |world: &World, at: usize| {
        world.nodes[0].shard.partitions.get(partitions[at]).unwrap().waiters.len()
    };
    assert!(waiters(&world, 0) <= 16, "{}", waiters(&world, 0));
    // Those that wait are found among those that did.
    world.ask(client, 1_000, &fetch_of(&[(partitions[0], 0), (partitions[1], 0)], 30_000, 1));
    assert!(world.take(client).is_empty());
    world.send(client, &produce(partitions[1], Durability::None, 1, &batch("x", 1)));
    assert_eq!(records(&world.take_one(client))[1].1, [(0, "x".to_string())]);
    assert_eq!(waiters(&world, 1), 0, "who was woken is on the list no more");
    assert!(world.nodes[0].shard.is_idle());
}

#[test]
fn a_closed_connection_takes_all_its_long_polls_with_it() {
    let (mut world, client, partitions) = world_with_topic(100);
    let reader = world.client(0);
    let wanted: Vec<_> = partitions.iter().map(|&partition| (partition, 0)).collect();
    for n in 0..256 {
        world.ask(reader, n, &fetch_of(&wanted, 30_000, 1));
    }
    let other = world.client(0);
    world.ask(other, 7, &fetch_of(&wanted, 30_000, 1));
    world.hang_up(reader);
    world.send(client, &produce(partitions[9], Durability::None, 1, &batch("x", 1)));
    assert_eq!(records(&world.take_one(other))[9].1.len(), 1);
    assert!(world.nodes[0].shard.is_idle(), "nothing is held for it");
}

#[test]
fn a_lane_that_failed_before_it_was_recovered_says_so_and_is_never_empty() {
    let (mut world, client, partitions) = world_with_topic(1);
    world.send(client, &produce(partitions[0], Durability::QuorumDurable, 1, &batch("kept", 1)));
    world.take_one(client).ack();
    world.crash_and_restart(1);
    let client = world.client(0);
    let lane = world.nodes[0].shard.partitions.get(partitions[0]).unwrap().lane;
    let lane = &mut world.nodes[0].shard.lanes[usize::from(lane)];
    lane.is_recovered = false;
    lane.state = crate::shard::lane::LaneState::Failed;
    world.ask(client, 1, &fetch_of(&[(partitions[0], 0)], 30_000, 1));
    let found = records(&world.take_one(client));
    assert_eq!(found[0].0.error, Some(ErrorCode::StorageUnavailable));
    let query = OffsetsQuery { partition: partitions[0], timestamp: None };
    world.ask(client, 2, &Offsets { partitions: vec![query] });
    let reply = OffsetsReply::decode(&world.take_one(client).control).unwrap();
    assert_eq!(reply.partitions[0].error, Some(ErrorCode::StorageUnavailable));
}

/// A broker with 2 MiB in a partition, none of it in memory.
fn cold_world() -> (World, PartitionId) {
    let mut world = World::with(1, |config| config.memory_bytes = 8 << 20);
    let client = world.client(0);
    let partition = world.create_topic(client, "orders", 1).places[0].partition;
    let bytes = batch(&"z".repeat(200 << 10), 1);
    for n in 0..10 {
        world.send(client, &produce(partition, Durability::QuorumDurable, n, &bytes));
        world.take_one(client).ack();
    }
    world.crash_and_restart(1);
    (world, partition)
}

#[test]
fn what_a_read_from_the_disk_may_come_to_is_held_before_it_is_started() {
    let (mut world, partition) = cold_world();
    let clients: Vec<Client> = (0..60).map(|_| world.client(0)).collect();
    world.is_disk_held = true;
    for &client in &clients {
        world.link(client).is_stalled = true;
        world.ask(client, 1, &fetch_of(&[(partition, 0)], 0, 1));
    }
    assert!(world.nodes[0].shard.held_bytes >= 256 << 10);
    world.release_disk();
    let used = world.nodes[0].memory.used_bytes_max();
    assert!(used <= 8 << 20, "{used} bytes");
    let mut sum = (0, 0);
    for &client in &clients {
        world.unstall(client);
        let found = records(&world.take_one(client));
        match found[0].0.error {
            None => sum.0 += found[0].1.len(),
            error => {
                assert_eq!(error, Some(ErrorCode::Overloaded));
                sum.1 += 1;
            }
        }
    }
    assert!(sum.0 > 0 && sum.1 > 0, "{sum:?}");
    assert!(world.nodes[0].shard.is_idle());
}

#[test]
fn a_gathered_fetch_ends_with_its_connection() {
    let mut world = World::new(2);
    let clients = [world.client(0), world.client(1)];
    let topic = world.create_topic(clients[0], "orders", 2);
    let wanted: Vec<_> = topic.places.iter().map(|place| (place.partition, 0)).collect();
    world.ask(clients[0], 5, &fetch_of(&wanted, 60_000, 1));
    assert!(world.nodes.iter().all(|node| !node.shard.is_idle()));
    world.hang_up(clients[0]);
    assert!(world.nodes.iter().all(|node| node.shard.is_idle()), "on both shards");
    // A payload from the other shard is counted there until it is here.
    let there = topic.places.iter().find(|place| place.shard.0 == 0).unwrap().partition;
    world.send(clients[1], &produce(there, Durability::QuorumDurable, 6, &batch("x", 1)));
    world.take_one(clients[1]).ack();
    world.ask(clients[1], 7, &fetch_of(&[(there, 0)], 0, 1));
    assert_eq!(records(&world.take_one(clients[1]))[0].1.len(), 1);
    assert!(world.nodes.iter().all(|node| node.shard.is_idle()));
}

#[test]
fn large_answers_are_not_made_for_who_does_not_read_when_memory_is_short() {
    let mut world = World::with(1, |config| config.memory_bytes = 8 << 20);
    let clients: Vec<Client> = (0..20).map(|_| world.client(0)).collect();
    world.create_topic(clients[0], "orders", 2_000);
    for &client in &clients {
        world.link(client).is_stalled = true;
        for n in 0..30 {
            world.ask(client, n, &TopicDescribe { name: "orders".into() });
        }
    }
    let used = world.nodes[0].memory.used_bytes_max();
    assert!(used <= 8 << 20, "{used} bytes");
    let mut refused = 0;
    for &client in &clients {
        world.unstall(client);
        let frames = world.take(client);
        assert_eq!(frames.len(), 30, "an answer for each");
        for frame in frames.iter().filter(|frame| frame.kind == FrameKind::Error) {
            assert_eq!(frame.error().code, ErrorCode::Overloaded);
            refused += 1;
        }
    }
    assert!(refused > 0);
}

#[test]
fn who_was_first_in_line_for_a_lane_stays_first_when_there_is_no_room_for_it() {
    let (mut world, first, partitions) = world_with_topic(1);
    let others: Vec<Client> = (0..5).map(|_| world.client(0)).collect();
    world.is_disk_held = true;
    let large = batch(&"z".repeat(200 << 10), 1);
    let mut sent = 0;
    while world.counter(0, "lane_busy") == 0 {
        world.send(first, &produce(partitions[0], Durability::QuorumDurable, sent, &large));
        sent += 1;
    }
    for &client in &others {
        world.send(client, &produce(partitions[0], Durability::QuorumDurable, 7, &large));
    }
    let lane = usize::from(world.nodes[0].shard.partitions.get(partitions[0]).unwrap().lane);
    let before = world.nodes[0].shard.lanes[lane].waiting.clone();
    assert_eq!(before.len(), 6);
    // As if the log had said that there is room, when there is not enough.
    world.nodes[0].shard.lanes[lane].is_busy = false;
    world.tell(0, crate::shard::event::Event::Turn);
    assert!(world.nodes[0].shard.lanes[lane].is_busy);
    assert_eq!(world.nodes[0].shard.lanes[lane].waiting, before);
    world.release_disk();
    assert_eq!(world.take(first).len() as u64, sent);
    assert_eq!(world.take_one(others[4]).ack().base_offset, Offset(sent + 4));
}
