//! Produce, fetch, offsets: what goes in comes out, at the level that was asked for.

use corelog_protocol::batch::BatchView;
use corelog_protocol::entry::{ENTRY_HEADER_BYTES, EntryHeader};
use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{Offset, PartitionId};
use corelog_protocol::message::{
    Fetch, FetchPartition, FetchReply, FetchedPartition, Offsets, OffsetsQuery, OffsetsReply,
    TopicDelete, TopicDescribe, TopicList, TopicListReply,
};
use corelog_protocol::produce::Produce;
use corelog_protocol::{Durability, ErrorCode};

use super::world::{Client, Frame, World, batch, codes, produce, produce_with};
use crate::limits::{FETCH_WAIT_MS_MAX, PATIENT_WAIT_NS};
use crate::memory::Memory;
use crate::time::Nanos;

/// One topic on one shard, and a client of it.
fn world_with_topic(partitions: u32) -> (World, Client, Vec<PartitionId>) {
    let mut world = World::new(1);
    let client = world.client(0);
    let topic = world.create_topic(client, "orders", partitions);
    (world, client, topic.places.iter().map(|place| place.partition).collect())
}

pub fn fetch_of(wanted: &[(PartitionId, u64)], wait_max_ms: u32, bytes_min: u32) -> Fetch {
    let partitions = wanted
        .iter()
        .map(|&(partition, offset)| FetchPartition {
            partition,
            offset: Offset(offset),
            bytes_max: 1 << 20,
        })
        .collect();
    Fetch { wait_max_ms, bytes_min, bytes_max: 1 << 20, partitions, any_replica: false }
}

/// The partitions of a fetch reply, each with the base offsets and values of its records.
pub fn records(frame: &Frame) -> Vec<(FetchedPartition, Vec<(u64, String)>)> {
    assert_eq!(frame.kind, FrameKind::FetchReply, "{frame:?}");
    let reply = FetchReply::decode(&frame.control).unwrap();
    let parts = reply.split(&frame.payload).unwrap();
    parts
        .map(|(fetched, mut entries)| {
            let mut records = Vec::new();
            while !entries.is_empty() {
                let header = EntryHeader::decode(entries).unwrap();
                let body = &entries[ENTRY_HEADER_BYTES..][..header.body_len as usize];
                header.check_body(body).unwrap();
                for record in BatchView::parse(body).unwrap().records() {
                    let record = record.unwrap();
                    let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                    records.push((header.base_offset.0 + u64::from(record.index), value));
                }
                entries = &entries[header.entry_bytes()..];
            }
            (fetched.clone(), records)
        })
        .collect()
}

#[test]
fn each_level_is_acknowledged_when_it_is_reached_and_not_before() {
    let (mut world, client, partitions) = world_with_topic(1);
    world.is_disk_held = true;
    for (at, level) in Durability::ALL.into_iter().enumerate() {
        world.send(client, &produce(partitions[0], level, 10 + at as u64, &batch("x", 2)));
    }
    let early: Vec<_> = world.take(client).iter().map(|f| (f.correlation, f.ack())).collect();
    let told: Vec<_> = early.iter().map(|(c, ack)| (*c, ack.base_offset.0, ack.level)).collect();
    let memory = Durability::QuorumMemory;
    assert_eq!(told, [(11, 2, memory), (13, 6, memory)]);
    world.release_disk();
    let late: Vec<_> = world.take(client).iter().map(|f| (f.correlation, f.ack())).collect();
    let told: Vec<_> = late.iter().map(|(c, ack)| (*c, ack.base_offset.0, ack.level)).collect();
    let durable = Durability::QuorumDurable;
    assert_eq!(told, [(12, 4, durable), (14, 8, durable)], "the level `none` is not acknowledged");
    assert!(early.iter().chain(&late).all(|(_, ack)| ack.record_count == 2));
    assert!(late.iter().all(|(_, ack)| ack.stages.is_none() && ack.epoch.0 > 0));
}

#[test]
fn stage_times_are_told_when_they_are_asked_for() {
    let (mut world, client, partitions) = world_with_topic(1);
    let wish = Produce {
        partition: partitions[0],
        timeout_ms: 0,
        durability: Durability::LeaderDurable,
        want_stages: true,
        sent_before: false,
        former: None,
    };
    world.is_disk_held = true;
    world.send(client, &produce_with(wish, 1, &batch("x", 1)));
    world.pass(Nanos::from_millis(5));
    world.release_disk();
    let stages = world.take_one(client).ack().stages.expect("asked for");
    assert!(stages.write_ns + stages.flush_ns + stages.append_ns >= 5_000_000, "{stages:?}");
    assert_eq!((stages.replicate_ns, stages.quorum_ns), (0, 0));
}

#[test]
fn acks_of_one_commit_leave_in_one_send_per_connection() {
    let (mut world, client, partitions) = world_with_topic(2);
    world.is_disk_held = true;
    let mut bytes = Vec::new();
    for n in 0..20 {
        let partition = partitions[0];
        bytes.extend(produce(partition, Durability::QuorumDurable, n, &batch("x", 1)));
    }
    world.send(client, &bytes);
    let sends = world.counter(0, "sends");
    world.release_disk();
    let acks = world.take(client);
    let order: Vec<u64> = acks.iter().map(|frame| frame.correlation).collect();
    assert_eq!(order, (0..20).collect::<Vec<_>>());
    assert_eq!(world.counter(0, "sends"), sends + 1);
}

#[test]
fn what_was_produced_is_fetched_byte_for_byte_across_partitions() {
    let (mut world, client, partitions) = world_with_topic(2);
    for n in 0..10 {
        let partition = partitions[n % 2];
        let bytes = batch(&format!("record {n}"), 1);
        world.send(client, &produce(partition, Durability::QuorumDurable, n as u64, &bytes));
    }
    assert_eq!(world.take(client).len(), 10);
    world.ask(client, 50, &fetch_of(&[(partitions[0], 0), (partitions[1], 3)], 0, 1));
    let frame = world.take_one(client);
    let found = records(&frame);
    let evens = [0, 2, 4, 6, 8].map(|n| (n / 2, format!("record {n}")));
    assert_eq!(found[0].1, evens);
    assert_eq!(found[1].1, [(3, "record 7".to_string()), (4, "record 9".to_string())]);
    for (fetched, _) in found {
        assert_eq!((fetched.error, fetched.committed_end), (None, Offset(5)));
    }
}

#[test]
fn nothing_is_seen_before_it_is_committed() {
    let (mut world, client, partitions) = world_with_topic(1);
    world.is_disk_held = true;
    world.send(client, &produce(partitions[0], Durability::LeaderMemory, 1, &batch("early", 1)));
    assert_eq!(world.take_one(client).ack().base_offset, Offset(0));
    world.ask(client, 2, &fetch_of(&[(partitions[0], 0)], 0, 1));
    let found = records(&world.take_one(client));
    assert_eq!((found[0].0.committed_end, found[0].1.len()), (Offset(0), 0));
    world.release_disk();
    world.pass(Nanos(PATIENT_WAIT_NS));
    world.ask(client, 3, &fetch_of(&[(partitions[0], 0)], 0, 1));
    assert_eq!(records(&world.take_one(client))[0].1, [(0, "early".to_string())]);
}

#[test]
fn what_nobody_waits_for_is_committed_a_little_later_and_at_once_for_a_reader_that_waits() {
    let (mut world, client, partitions) = world_with_topic(1);
    let reader = world.client(0);
    // The lanes fall idle, and say so on the disk.
    world.pass(Nanos::from_secs(1));
    let commits = world.commits(0);
    let in_memory = |n| produce(partitions[0], Durability::LeaderMemory, n, &batch("soon", 1));
    world.send(client, &in_memory(1));
    assert_eq!(world.commits(0), commits, "it gathers");
    world.ask(reader, 1, &fetch_of(&[(partitions[0], 0)], 30_000, 1));
    assert_eq!(records(&world.take_one(reader))[0].1, [(0, "soon".to_string())]);
    world.ask(reader, 2, &fetch_of(&[(partitions[0], 1)], 30_000, 1));
    world.send(client, &in_memory(2));
    assert_eq!(records(&world.take_one(reader))[0].1, [(1, "soon".to_string())]);
    let commits = world.commits(0);
    world.send(client, &in_memory(3));
    world.pass(Nanos(PATIENT_WAIT_NS / 2));
    assert_eq!(world.commits(0), commits);
    world.pass(Nanos(PATIENT_WAIT_NS / 2));
    assert_eq!(world.commits(0), commits + 1);
    world.send(client, &in_memory(4));
    let durable = produce(partitions[0], Durability::QuorumDurable, 5, &batch("now", 1));
    world.take(client);
    world.send(client, &durable);
    assert_eq!(world.take(client).len(), 1, "a durable batch waits for nobody's patience");
    assert_eq!(world.commits(0), commits + 2);
}

#[test]
fn a_long_poll_is_woken_by_a_commit_and_costs_nothing_until_then() {
    let (mut world, client, partitions) = world_with_topic(3);
    let reader = world.client(0);
    let wanted: Vec<_> = partitions.iter().map(|&partition| (partition, 0)).collect();
    world.ask(reader, 1, &fetch_of(&wanted, 30_000, 1));
    world.pass(Nanos::from_secs(5));
    let steps = world.counter(0, "steps");
    world.pass(Nanos::from_secs(5));
    assert_eq!(world.counter(0, "steps"), steps, "a waiting reader takes no steps");
    assert!(world.take(reader).is_empty());
    world.send(client, &produce(partitions[1], Durability::QuorumDurable, 2, &batch("news", 1)));
    let found = records(&world.take_one(reader));
    assert_eq!(found[1].1, [(0, "news".to_string())]);
    assert!(found[0].1.is_empty() && found[2].1.is_empty());
}

#[test]
fn a_long_poll_waits_for_its_least_bytes_or_its_time() {
    let (mut world, client, partitions) = world_with_topic(1);
    let reader = world.client(0);
    world.ask(reader, 1, &fetch_of(&[(partitions[0], 0)], 10_000, 1_000));
    let ack = |world: &mut World, n| {
        let bytes =
            produce(partitions[0], Durability::QuorumDurable, n, &batch(&"x".repeat(300), 1));
        world.send(client, &bytes);
        assert_eq!(world.take(client).len(), 1);
    };
    ack(&mut world, 1);
    ack(&mut world, 2);
    assert!(world.take(reader).is_empty(), "about 850 bytes are not enough");
    ack(&mut world, 3);
    assert_eq!(records(&world.take_one(reader))[0].1.len(), 3);

    world.ask(reader, 2, &fetch_of(&[(partitions[0], 3)], 10_000, 1_000));
    ack(&mut world, 4);
    world.pass(Nanos::from_millis(9_900));
    assert!(world.take(reader).is_empty());
    world.pass(Nanos::from_millis(200));
    assert_eq!(records(&world.take_one(reader))[0].1.len(), 1, "what there is when time is up");
}

#[test]
fn an_hour_of_waiting_is_clamped_and_the_reader_that_hangs_up_is_forgotten() {
    let (mut world, _, partitions) = world_with_topic(1);
    let patient = world.client(0);
    let gone = world.client(0);
    world.ask(patient, 1, &fetch_of(&[(partitions[0], 0)], 3_600_000, 1));
    world.ask(gone, 1, &fetch_of(&[(partitions[0], 0)], 3_600_000, 1));
    world.hang_up(gone);
    world.pass(Nanos::from_millis(u64::from(FETCH_WAIT_MS_MAX) + 1));
    assert!(records(&world.take_one(patient))[0].1.is_empty());
    assert!(world.nodes[0].shard.is_idle());
}

#[test]
fn offsets_out_of_range_and_unknown_partitions_are_typed_errors() {
    let (mut world, client, partitions) = world_with_topic(1);
    world.send(client, &produce(partitions[0], Durability::QuorumDurable, 1, &batch("x", 4)));
    world.take(client);
    let unknown = PartitionId(999);
    for (partition, offset, code) in [
        (partitions[0], 5, ErrorCode::OffsetOutOfRange),
        (partitions[0], u64::MAX, ErrorCode::OffsetOutOfRange),
        (unknown, 0, ErrorCode::UnknownPartition),
        (PartitionId(u32::MAX), 0, ErrorCode::UnknownPartition),
    ] {
        world.ask(client, 2, &fetch_of(&[(partition, offset)], 30_000, 1));
        let found = records(&world.take_one(client));
        assert_eq!(found[0].0.error, Some(code), "{partition:?} {offset}");
    }
    world.send(client, &produce(unknown, Durability::None, 3, &batch("x", 1)));
    assert_eq!(codes(&world.take(client)), [(3, ErrorCode::UnknownPartition)]);
}

#[test]
fn a_batch_that_breaks_a_rule_is_refused_and_the_connection_stays() {
    let (mut world, client, partitions) = world_with_topic(1);
    let good = batch("hello", 3);
    let mut corrupt = good.clone();
    *corrupt.last_mut().unwrap() ^= 1;
    let mut miscounted = good.clone();
    miscounted[12] = 2;
    let crc = corelog_protocol::checksum::crc32c(&miscounted[4..]);
    miscounted[..4].copy_from_slice(&crc.to_le_bytes());
    let refused = [
        (&corrupt[..], ErrorCode::CorruptBatch),
        (&miscounted[..], ErrorCode::InvalidBatch),
        (&good[..good.len() - 1], ErrorCode::InvalidBatch),
        (&good[..20], ErrorCode::InvalidBatch),
        (&[], ErrorCode::InvalidBatch),
    ];
    for (bytes, code) in refused {
        world.send(client, &produce(partitions[0], Durability::None, 1, bytes));
        assert_eq!(codes(&world.take(client)), [(1, code)]);
    }
    assert_eq!(world.counter(0, "batches_invalid"), 5);
    world.send(client, &produce(partitions[0], Durability::QuorumDurable, 2, &good));
    assert_eq!(world.take_one(client).ack().base_offset, Offset(0), "nothing was appended before");
}

#[test]
fn a_batch_as_large_as_the_frame_cap_goes_in_and_comes_out() {
    let (mut world, client, partitions) = world_with_topic(1);
    let used = world.nodes[0].memory.used_bytes();
    let value = "y".repeat((256 << 10) - 200);
    world.send(client, &produce(partitions[0], Durability::QuorumDurable, 1, &batch(&value, 1)));
    assert_eq!(world.take_one(client).ack().base_offset, Offset(0));
    let mut fetch = fetch_of(&[(partitions[0], 0)], 0, 1);
    (fetch.bytes_max, fetch.partitions[0].bytes_max) = (100, 100);
    world.ask(client, 2, &fetch);
    assert_eq!(records(&world.take_one(client))[0].1, [(0, value)]);
    assert!(world.nodes[0].memory.used_bytes() <= used + (2 << 20), "slots were given back");
}

#[test]
fn offsets_are_found_by_time_and_by_ends() {
    let (mut world, client, partitions) = world_with_topic(1);
    let start = world.now.wall.0;
    for n in 0..3 {
        let bytes = produce(partitions[0], Durability::QuorumDurable, n, &batch("x", 2));
        world.send(client, &bytes);
        world.pass(Nanos::from_secs(10));
    }
    world.take(client);
    let queries = [None, Some(start + 5_000), Some(start + 10_000_000)];
    let partitions = queries
        .into_iter()
        .map(|timestamp| OffsetsQuery { partition: partitions[0], timestamp })
        .chain([OffsetsQuery { partition: PartitionId(77), timestamp: None }])
        .collect();
    world.ask(client, 9, &Offsets { partitions });
    let reply = OffsetsReply::decode(&world.take_one(client).control).unwrap();
    let found: Vec<_> = reply
        .partitions
        .iter()
        .map(|answer| (answer.error, answer.committed_end.0, answer.offset_at.map(|at| at.0)))
        .collect();
    let unknown = Some(ErrorCode::UnknownPartition);
    assert_eq!(found, [(None, 6, None), (None, 6, Some(2)), (None, 6, None), (unknown, 0, None)]);
}

#[test]
fn topics_are_created_listed_described_and_deleted() {
    let (mut world, client, partitions) = world_with_topic(2);
    world.create_topic(client, "audit", 1);
    world.ask(client, 3, &TopicList { after: String::new(), count_max: 1 });
    let list = TopicListReply::decode(&world.take_one(client).control).unwrap();
    assert_eq!((list.topics[0].name.as_str(), list.more), ("audit", true));
    world.ask(client, 3, &TopicList { after: "audit".into(), count_max: 0 });
    let list = TopicListReply::decode(&world.take_one(client).control).unwrap();
    assert_eq!((list.topics[0].name.as_str(), list.topics[0].partitions), ("orders", 2));
    assert!(!list.more);

    let reader = world.client(0);
    world.ask(reader, 1, &fetch_of(&[(partitions[0], 0)], 30_000, 1));
    world.ask(client, 4, &TopicDelete { name: "orders".into(), timeout_ms: 0 });
    assert_eq!(world.take_one(client).kind, FrameKind::TopicDeleteReply);
    let found = records(&world.take_one(reader));
    let unknown = Some(ErrorCode::UnknownPartition);
    assert_eq!(found[0].0.error, unknown, "who waits for a deleted topic is told");
    world.send(client, &produce(partitions[0], Durability::None, 5, &batch("x", 1)));
    world.ask(client, 6, &TopicDescribe { name: "orders".into() });
    world.ask(client, 7, &TopicDelete { name: "orders".into(), timeout_ms: 0 });
    let frames = world.take(client);
    assert_eq!(
        codes(&frames),
        [
            (5, ErrorCode::UnknownPartition),
            (6, ErrorCode::UnknownTopic),
            (7, ErrorCode::UnknownTopic),
        ]
    );
    let again = world.create_topic(client, "orders", 2);
    assert!(again.places.iter().all(|place| !partitions.contains(&place.partition)));
}

#[test]
fn bad_topics_are_refused_with_their_reason() {
    use corelog_protocol::message::{TopicCreate, TopicSettings};
    let (mut world, client, _) = world_with_topic(1);
    let good = TopicSettings {
        partitions: 1,
        replicas: 1,
        retention_ms: Some(1_000),
        retention_bytes: None,
    };
    let table = [
        ("", good, ErrorCode::InvalidTopic),
        ("..", good, ErrorCode::InvalidTopic),
        ("a/b", good, ErrorCode::InvalidTopic),
        ("orders", good, ErrorCode::TopicExists),
        ("x", TopicSettings { partitions: 0, ..good }, ErrorCode::InvalidConfig),
        ("x", TopicSettings { partitions: 10_001, ..good }, ErrorCode::InvalidConfig),
        ("x", TopicSettings { replicas: 3, ..good }, ErrorCode::InvalidConfig),
        ("x", TopicSettings { retention_ms: Some(0), ..good }, ErrorCode::InvalidConfig),
    ];
    for (name, settings, code) in table {
        world.ask(client, 1, &TopicCreate { name: name.into(), settings, timeout_ms: 0 });
        assert_eq!(codes(&world.take(client)), [(1, code)], "{name} {settings:?}");
    }
}

#[test]
fn a_deadline_that_passes_before_the_flush_leaves_the_outcome_open() {
    let (mut world, client, partitions) = world_with_topic(1);
    let wish = |timeout_ms| Produce {
        partition: partitions[0],
        timeout_ms,
        durability: Durability::QuorumDurable,
        want_stages: false,
        sent_before: false,
        former: None,
    };
    world.is_disk_held = true;
    world.send(client, &produce_with(wish(500), 1, &batch("x", 1)));
    world.send(client, &produce_with(wish(5_000), 2, &batch("y", 1)));
    world.pass(Nanos::from_millis(600));
    assert_eq!(codes(&world.take(client)), [(1, ErrorCode::DeadlineExceeded)]);
    world.release_disk();
    let ack = world.take_one(client);
    assert_eq!((ack.correlation, ack.ack().base_offset), (2, Offset(1)), "answered once each");
}
