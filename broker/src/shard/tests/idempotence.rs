//! I6: a batch of a producer that comes again is not appended again.

use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{Offset, PartitionId};
use corelog_protocol::message::FetchReply;
use corelog_protocol::{Durability, ErrorCode};

use super::data::fetch_of;
use super::world::{Client, World, batch_of, produce};
use crate::limits::PATIENT_WAIT_NS;
use crate::time::Nanos;

const DURABLE: Durability = Durability::QuorumDurable;

fn world() -> (World, Client, PartitionId) {
    let mut world = World::with(1, |config| config.segment_bytes = 64 << 10);
    let client = world.client(0);
    let topic = world.create_topic(client, "orders", 1);
    (world, client, topic.places[0].partition)
}

/// Sends a batch, and gives the offset that its ack names.
fn offset(
    world: &mut World,
    client: Client,
    partition: PartitionId,
    producer: (u64, u16, u32),
    text: &str,
) -> Result<Offset, ErrorCode> {
    world.send(client, &produce(partition, DURABLE, 9, &batch_of(producer, text, 2)));
    let frame = world.take_one(client);
    match frame.kind {
        FrameKind::Error => Err(frame.error().code),
        _ => Ok(frame.ack().base_offset),
    }
}

#[test]
fn a_retry_is_told_the_first_offset_and_appended_once() {
    let (mut world, client, partition) = world();
    let mut send = |producer, text: &str| offset(&mut world, client, partition, producer, text);
    assert_eq!(send((1, 0, 0), "a"), Ok(Offset(0)));
    assert_eq!(send((1, 0, 2), "b"), Ok(Offset(2)));
    assert_eq!(send((1, 0, 0), "a"), Ok(Offset(0)));
    assert_eq!(send((1, 0, 2), "b"), Ok(Offset(2)));
    assert_eq!(send((1, 0, 2), "other"), Err(ErrorCode::DuplicateMismatch));
    assert_eq!(send((1, 0, 6), "d"), Err(ErrorCode::OutOfOrder));
    assert_eq!(send((2, 0, 4), "x"), Err(ErrorCode::UnknownProducer));
    assert_eq!(send((1, 0, 4), "c"), Ok(Offset(4)));
    assert_eq!(send((1, 1, 0), "e"), Ok(Offset(6)));
    assert_eq!(send((1, 0, 6), "d"), Err(ErrorCode::ProducerFenced));
    for number in 0..5 {
        assert_eq!(send((1, 1, 2 + 2 * number), "f"), Ok(Offset(8 + 2 * u64::from(number))));
    }
    assert_eq!(send((1, 1, 0), "e"), Err(ErrorCode::DuplicateForgotten));
    assert_eq!(world.counter(0, "batches_duplicate"), 2);
    assert_eq!(world.counter(0, "batches_in"), 9);
}

#[test]
fn a_retry_is_not_acknowledged_as_durable_before_its_first_copy_is() {
    let (mut world, client, partition) = world();
    world.is_disk_held = true;
    let batch = batch_of((1, 0, 0), "a", 1);
    world.send(client, &produce(partition, DURABLE, 1, &batch));
    world.send(client, &produce(partition, DURABLE, 2, &batch));
    assert!(world.take(client).is_empty());
    world.send(client, &produce(partition, Durability::LeaderMemory, 3, &batch));
    assert_eq!(world.take_one(client).ack().level, Durability::QuorumMemory);
    world.release_disk();
    let acks = world.take(client);
    assert_eq!(acks.len(), 2);
    for frame in acks {
        assert_eq!((frame.ack().base_offset, frame.ack().level), (Offset(0), DURABLE));
    }
}

#[test]
fn a_durable_retry_of_a_batch_in_memory_hurries_the_commit() {
    let (mut world, client, partition) = world();
    let batch = batch_of((1, 0, 0), "a", 1);
    world.send(client, &produce(partition, Durability::LeaderMemory, 1, &batch));
    world.take(client);
    world.send(client, &produce(partition, DURABLE, 2, &batch));
    assert_eq!(world.take_one(client).ack().level, DURABLE);
}

#[test]
fn producers_are_remembered_after_a_crash_and_after_their_segments_are_gone() {
    let (mut world, client, partition) = world();
    assert_eq!(offset(&mut world, client, partition, (1, 0, 0), "a"), Ok(Offset(0)));
    assert_eq!(offset(&mut world, client, partition, (1, 0, 2), "b"), Ok(Offset(2)));
    world.crash_and_restart(1);
    let client = world.client(0);
    assert_eq!(offset(&mut world, client, partition, (1, 0, 2), "b"), Ok(Offset(2)));
    let large = "x".repeat(10_000);
    for _ in 0..20 {
        // Of no producer: they fill segments.
        world.send(client, &produce(partition, DURABLE, 5, &super::world::batch(&large, 1)));
        assert_eq!(world.take_one(client).kind, FrameKind::ProduceAck);
        world.pass(Nanos(PATIENT_WAIT_NS));
    }
    assert_eq!(offset(&mut world, client, partition, (1, 0, 2), "b"), Ok(Offset(2)));
    world.crash_and_restart(1);
    let client = world.client(0);
    assert_eq!(offset(&mut world, client, partition, (1, 0, 0), "a"), Ok(Offset(0)));
    assert_eq!(offset(&mut world, client, partition, (1, 0, 6), "d"), Err(ErrorCode::OutOfOrder));
    assert_eq!(offset(&mut world, client, partition, (1, 0, 4), "c"), Ok(Offset(24)));
}

#[test]
fn a_forwarded_retry_is_told_the_first_offset_too() {
    let mut world = World::new(2);
    let client = world.client(0);
    let topic = world.create_topic(client, "spread", 4);
    let place = topic.places.iter().find(|place| place.shard.0 == 1).expect("one on shard 1");
    for correlation in 1..=3 {
        let batch = batch_of((7, 0, 0), "far", 1);
        world.send(client, &produce(place.partition, DURABLE, correlation, &batch));
        assert_eq!(world.take_one(client).ack().base_offset, Offset(0));
    }
    world.ask(client, 9, &fetch_of(&[(place.partition, 0)], 0, 1));
    let frame = world.take_one(client);
    let reply = FetchReply::decode(&frame.control).expect("a reply");
    assert_eq!(reply.partitions[0].committed_end, Offset(1));
}
