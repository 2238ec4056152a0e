//! More than fits: back-pressure first, then refusals; never silence, never more than the budget.

use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::PartitionId;
use corelog_protocol::produce::Produce;
use corelog_protocol::{Durability, ErrorCode};

use super::data::fetch_of;
use super::world::{Client, World, batch, produce, produce_with};
use crate::limits::SEND_TICKS_MAX;
use crate::memory::Memory;
use crate::time::Nanos;

fn world(memory_bytes: usize, clients: usize) -> (World, Vec<Client>, PartitionId) {
    let mut world = World::with(1, move |config| {
        config.memory_bytes = memory_bytes;
        config.segment_bytes = 8 << 20;
    });
    let clients: Vec<Client> = (0..clients).map(|_| world.client(0)).collect();
    let topic = world.create_topic(clients[0], "orders", 1);
    (world, clients, topic.places[0].partition)
}

/// How many acks and how many refusals have come, and the codes.
fn tally(world: &mut World, client: Client) -> (usize, usize) {
    let frames = world.take(client);
    let acks = frames.iter().filter(|frame| frame.kind == FrameKind::ProduceAck).count();
    for frame in frames.iter().filter(|frame| frame.kind == FrameKind::Error) {
        let error = frame.error();
        assert_eq!(error.code, ErrorCode::Overloaded);
        assert!(error.retry_after_ms > 0, "a refusal has a hint");
    }
    (acks, frames.len() - acks)
}

#[test]
fn every_request_is_answered_and_the_budget_is_kept_when_the_disk_stands_still() {
    let budget = 16 << 20;
    let (mut world, clients, partition) = world(budget, 150);
    world.is_disk_held = true;
    let bytes = batch(&"z".repeat(100 << 10), 1);
    for n in 0..6 {
        for &client in &clients {
            world.send(client, &produce(partition, Durability::QuorumDurable, n, &bytes));
        }
    }
    assert!(world.counter(0, "lane_busy") > 0, "connections had to wait");
    let used = world.nodes[0].memory.used_bytes_max();
    assert!(used <= budget, "{used} bytes of {budget}");
    world.release_disk();
    let mut sum = (0, 0);
    for &client in &clients {
        let (acks, refusals) = tally(&mut world, client);
        assert_eq!(acks + refusals, 6, "an answer for each");
        sum = (sum.0 + acks, sum.1 + refusals);
    }
    assert!(sum.0 > 0 && sum.1 > 0, "{sum:?}");
    assert_eq!(world.counter(0, "requests_overloaded"), sum.1 as u64);
    world.send(clients[0], &produce(partition, Durability::QuorumDurable, 99, &bytes));
    assert_eq!(tally(&mut world, clients[0]), (1, 0), "and then it goes on");
}

#[test]
fn waiting_connections_have_their_turn_first_come_first_served() {
    let (mut world, clients, partition) = world(256 << 20, 8);
    world.is_disk_held = true;
    let large = batch(&"z".repeat(200 << 10), 1);
    let mut sent = 0;
    while world.counter(0, "lane_busy") == 0 {
        world.send(clients[0], &produce(partition, Durability::QuorumDurable, sent, &large));
        sent += 1;
        assert!(sent < 1_000, "the pipeline has a bound");
    }
    for &client in &clients[1..] {
        world.send(client, &produce(partition, Durability::QuorumDurable, 7, &batch("small", 1)));
    }
    world.release_disk();
    let mut offsets = Vec::new();
    for &client in &clients[1..] {
        offsets.push(world.take_one(client).ack().base_offset.0);
    }
    let mut sorted = offsets.clone();
    sorted.sort_unstable();
    assert_eq!(offsets, sorted, "in the order in which they came");
    assert_eq!(tally(&mut world, clients[0]), (sent as usize, 0));
}

#[test]
fn who_waits_for_room_in_vain_is_told_when_the_deadline_has_passed() {
    let (mut world, clients, partition) = world(256 << 20, 3);
    world.is_disk_held = true;
    let large = batch(&"z".repeat(200 << 10), 1);
    let mut sent = 0;
    while world.counter(0, "lane_busy") == 0 {
        world.send(clients[0], &produce(partition, Durability::QuorumDurable, sent, &large));
        sent += 1;
    }
    let wish = |timeout_ms| Produce {
        partition,
        timeout_ms,
        durability: Durability::QuorumDurable,
        want_stages: false,
        sent_before: false,
        former: None,
    };
    world.send(clients[1], &produce_with(wish(3_000), 1, &batch("in vain", 1)));
    world.send(clients[2], &produce_with(wish(60_000), 2, &batch("patient", 1)));
    world.pass(Nanos::from_secs(2));
    assert!(world.take(clients[1]).is_empty());
    world.pass(Nanos::from_secs(3));
    let refusal = world.take_one(clients[1]).error();
    assert_eq!(refusal.code, ErrorCode::Expired);
    assert!(refusal.code.is_definite(), "nothing was appended");
    world.release_disk();
    assert_eq!(tally(&mut world, clients[2]), (1, 0));
}

#[test]
fn a_client_that_does_not_read_is_not_listened_to_and_then_closed() {
    let (mut world, clients, partition) = world(64 << 20, 2);
    let (deaf, other) = (clients[0], clients[1]);
    let bytes = batch(&"z".repeat(200 << 10), 1);
    world.send(other, &produce(partition, Durability::QuorumDurable, 1, &bytes));
    world.link(deaf).is_stalled = true;
    for n in 0..100 {
        world.ask(deaf, n, &fetch_of(&[(partition, 0)], 0, 1));
    }
    assert!(world.counter(0, "fetches") < 40, "{}", world.counter(0, "fetches"));
    assert!(world.nodes[0].memory.used_bytes() < 64 << 20);
    world.send(other, &produce(partition, Durability::QuorumDurable, 2, &bytes));
    assert_eq!(tally(&mut world, other), (2, 0), "others are served");
    world.pass(Nanos::from_secs(u64::from(SEND_TICKS_MAX) + 2));
    assert!(world.is_closed(deaf));
    assert_eq!(world.counter(0, "connections_stalled"), 1);
}

#[test]
fn a_client_that_reads_late_gets_everything() {
    let (mut world, clients, partition) = world(64 << 20, 1);
    let client = clients[0];
    let bytes = batch(&"z".repeat(200 << 10), 1);
    world.send(client, &produce(partition, Durability::QuorumDurable, 1, &bytes));
    assert_eq!(tally(&mut world, client), (1, 0));
    world.link(client).is_stalled = true;
    for n in 0..100 {
        world.ask(client, n, &fetch_of(&[(partition, 0)], 0, 1));
    }
    world.unstall(client);
    let frames = world.take(client);
    let order: Vec<u64> = frames.iter().map(|frame| frame.correlation).collect();
    assert_eq!(order, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_frame_too_large_for_the_budget_is_refused_and_skipped() {
    let (mut world, clients, partition) = world(8 << 20, 30);
    // Each holds part of a large frame; together they would exceed the budget.
    let bytes = produce(partition, Durability::QuorumDurable, 1, &batch(&"z".repeat(250 << 10), 1));
    for &client in &clients {
        world.send(client, &bytes[..200 << 10]);
    }
    assert!(world.nodes[0].memory.used_bytes_max() <= 8 << 20);
    for &client in &clients {
        world.send(client, &bytes[200 << 10..]);
    }
    let mut sum = (0, 0);
    for &client in &clients {
        let (acks, refusals) = tally(&mut world, client);
        assert_eq!(acks + refusals, 1);
        sum = (sum.0 + acks, sum.1 + refusals);
    }
    assert!(sum.0 > 0 && sum.1 > 0, "{sum:?}");
}

#[test]
fn a_full_disk_refuses_with_its_own_code_and_recovers_by_itself() {
    let (mut world, clients, partition) = world(64 << 20, 1);
    let client = clients[0];
    world.is_disk_full = true;
    let bytes = batch(&"z".repeat(250 << 10), 1);
    let mut full = false;
    for n in 0..200 {
        world.send(client, &produce(partition, Durability::QuorumDurable, n, &bytes));
        for frame in world.take(client) {
            if frame.kind == FrameKind::Error {
                assert_eq!(frame.error().code, ErrorCode::StorageFull);
                full = true;
            }
        }
    }
    assert!(full, "the segments that were there are used up");
    world.ask(client, 1, &fetch_of(&[(partition, 0)], 0, 1));
    assert_eq!(world.take_one(client).kind, FrameKind::FetchReply, "reads go on");
    world.is_disk_full = false;
    world.pass(Nanos::from_secs(60));
    world.send(client, &produce(partition, Durability::QuorumDurable, 1, &bytes));
    assert_eq!(tally(&mut world, client), (1, 0));
}
