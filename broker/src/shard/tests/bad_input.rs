//! What bad input gets after hello: a test for each row of the table at the end of `WIRE.md`, beside
//! those in `conversation`, which has the rows before hello.

use corelog_protocol::checksum::crc32c;
use corelog_protocol::frame::{FrameHeader, FrameKind};
use corelog_protocol::ids::PartitionId;
use corelog_protocol::message::{
    FETCH_PARTITIONS_MAX, Fetch, FetchPartition, Hello, Offsets, OffsetsQuery, TopicDescribe,
    TopicList, TopicListReply,
};
use corelog_protocol::produce::Produce;
use corelog_protocol::{Durability, ErrorCode};

use super::data::{fetch_of, records};
use super::world::{Client, World, batch, codes, produce};
use crate::limits::{FETCH_BYTES_MAX, FRAME_TICKS_MAX, HELLO_TICKS_MAX, TICK_MS};
use crate::memory::Memory;
use crate::time::Nanos;

fn frame(kind: FrameKind, control: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = FrameHeader::new(kind, 5, control, payload.len()).encode().to_vec();
    bytes.extend_from_slice(control);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend_from_slice(payload);
    bytes
}

/// Makes a header say what it should not, with a right checksum.
fn forged(mut bytes: Vec<u8>, change: impl Fn(&mut [u8])) -> Vec<u8> {
    change(&mut bytes);
    let crc = crc32c(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The same for a batch.
fn forged_batch(mut bytes: Vec<u8>, change: impl Fn(&mut [u8])) -> Vec<u8> {
    change(&mut bytes);
    let crc = crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn world_with_topic() -> (World, Client, PartitionId) {
    let mut world = World::new(1);
    let client = world.client(0);
    let topic = world.create_topic(client, "orders", 1);
    (world, client, topic.places[0].partition)
}

fn is_served(world: &mut World, client: Client) -> bool {
    world.ask(client, 99, &TopicList::default());
    let frames = world.take(client);
    frames.iter().any(|frame| (frame.kind, frame.correlation) == (FrameKind::TopicListReply, 99))
}

#[test]
fn a_stream_that_lost_its_place_is_closed_without_a_word() {
    let good = frame(FrameKind::Status, &[0; 24], &[]);
    let mut flipped = good.clone();
    flipped[20] ^= 1;
    let table: [(&str, Vec<u8>); 5] = [
        ("a header with a flipped bit", flipped),
        ("an intact header of something else", forged(good, |bytes| bytes[0] ^= 1)),
        ("an HTTP request", b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".to_vec()),
        ("a TLS hello", [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 60]].concat()),
        ("zeros", vec![0; 64]),
    ];
    let mut world = World::unstarted(1, |_| {});
    for (number, (what, bytes)) in (1..).zip(table) {
        let client = world.client(0);
        let (used, allocated) =
            (world.nodes[0].memory.used_bytes(), world.nodes[0].memory.allocations());
        world.send(client, &bytes);
        assert!(world.take(client).is_empty(), "{what}");
        assert!(world.is_closed(client), "{what}");
        assert_eq!(world.nodes[0].memory.used_bytes(), used, "{what}");
        assert_eq!(world.nodes[0].memory.allocations(), allocated, "{what}");
        assert_eq!(world.counter(0, "frames_garbled"), number, "{what}");
    }
}

#[test]
fn lengths_beyond_the_cap_are_told_so_and_nothing_is_allocated_for_them() {
    // The cap after hello is 256 KiB in these tests.
    let cap = 256 << 10;
    let i32_max = i32::MAX as u32;
    for (control, payload) in
        [(0, cap + 1), (cap + 1, 0), (cap, 1), (0, i32_max), (i32_max, 0), (u32::MAX, u32::MAX)]
    {
        let mut world = World::unstarted(1, |_| {});
        let client = world.client(0);
        let used = world.nodes[0].memory.used_bytes_max();
        let bytes = forged(frame(FrameKind::Status, &[], &[]), |bytes| {
            bytes[8..12].copy_from_slice(&u32::to_le_bytes(control));
            bytes[12..16].copy_from_slice(&u32::to_le_bytes(payload));
        });
        world.send(client, &bytes);
        assert_eq!(codes(&world.take(client)), [(5, ErrorCode::FrameTooLarge)]);
        assert!(world.is_closed(client), "{control} and {payload}");
        let grown = world.nodes[0].memory.used_bytes_max() - used;
        assert!(grown <= 4096, "{grown} bytes for {control} and {payload}: more than the answer's");
    }
}

#[test]
fn controls_of_no_byte_and_of_one_are_malformed_whatever_their_kind() {
    for &kind in FrameKind::ALL {
        for control in [&[][..], &[1]] {
            let mut world = World::unstarted(1, |_| {});
            let client = world.client(0);
            world.send(client, &frame(kind, control, &[]));
            let expected = match kind.is_of_peers() {
                true => ErrorCode::Unsupported,
                false => ErrorCode::Malformed,
            };
            assert_eq!(codes(&world.take(client)), [(5, expected)], "{kind}");
            assert!(is_served(&mut world, client), "{kind}");
        }
    }
}

#[test]
fn half_a_frame_and_then_silence_is_closed_at_its_deadline_and_its_buffer_given_back() {
    let mut world = World::unstarted(1, |_| {});
    let used = world.nodes[0].memory.used_bytes();
    let client = world.client(0);
    let whole = produce(PartitionId(1), Durability::None, 1, &batch(&"z".repeat(9_000), 1));
    for part in [3, 31, 40, 8_000] {
        let silent = world.client(0);
        world.send(silent, &whole[..part]);
        world.pass(Nanos::from_millis(u64::from(FRAME_TICKS_MAX) * TICK_MS));
        assert!(!world.is_closed(silent), "{part} bytes: it has its 30 s");
        world.pass(Nanos::from_millis(2 * TICK_MS));
        assert!(world.is_closed(silent), "{part} bytes");
        assert_eq!(world.nodes[0].memory.used_bytes(), used, "{part} bytes");
    }
    assert_eq!(world.counter(0, "connections_timed_out"), 4);
    assert!(is_served(&mut world, client));
}

#[test]
fn before_hello_neither_silence_nor_a_byte_a_second_lasts_longer_than_its_deadline() {
    let mut world = World::unstarted(1, |_| {});
    let used = world.nodes[0].memory.used_bytes();
    let (half, slow) = (world.connect(0), world.connect(0));
    let mut hello = Vec::new();
    Hello::new("slow").encode(1, &mut hello);
    world.send(half, &hello[..20]);
    for second in 0..=u64::from(HELLO_TICKS_MAX) {
        assert!(!world.is_closed(half) && !world.is_closed(slow), "second {second}");
        world.send(slow, &hello[second as usize..][..1]);
        world.pass(Nanos::from_millis(TICK_MS));
    }
    world.pass(Nanos::from_millis(TICK_MS));
    assert!(world.is_closed(half) && world.is_closed(slow));
    assert_eq!(world.counter(0, "connections_timed_out"), 2);
    assert_eq!(world.nodes[0].memory.used_bytes(), used);
}

#[test]
fn a_frame_below_the_least_rate_is_cut_off_also_while_it_is_only_skipped() {
    let mut world = World::unstarted(1, |_| {});
    let client = world.client(0);
    let unknown = forged(frame(FrameKind::Status, &[0; 24], &[1; 4_000]), |bytes| bytes[5] = 200);
    let mut sent = 100;
    world.send(client, &unknown[..sent]);
    assert_eq!(codes(&world.take(client)), [(5, ErrorCode::Unsupported)]);
    for _ in 0..FRAME_TICKS_MAX + 2 {
        if !world.is_closed(client) {
            world.send(client, &unknown[sent..sent + 1]);
            sent += 1;
        }
        world.pass(Nanos::from_millis(TICK_MS));
    }
    assert!(world.is_closed(client));
    assert_eq!(world.counter(0, "connections_timed_out"), 1);
}

#[test]
fn versions_and_flags_that_are_not_known_are_answered_with_those_that_are_and_skipped() {
    let good = || frame(FrameKind::Status, &[0; 24], &[1; 100]);
    let changes: [fn(&mut [u8]); 3] =
        [|bytes| bytes[4] = 9, |bytes| bytes[6] = 1, |bytes| bytes[7] = 0x80];
    let mut world = World::unstarted(1, |_| {});
    let client = world.client(0);
    for change in changes {
        world.send(client, &forged(good(), change));
        let error = world.take_one(client).error();
        assert_eq!(error.code, ErrorCode::Unsupported);
        assert_eq!(error.versions, (1, 1), "{error:?}");
        assert!(is_served(&mut world, client));
    }
    assert_eq!(world.counter(0, "frames_unsupported"), 3);
}

#[test]
fn before_hello_a_control_that_fails_its_verifier_is_told_so_and_closed() {
    let mut world = World::unstarted(1, |_| {});
    for control in [&[0xff; 40][..], &[0; 64], &[8, 0, 0, 0, 4]] {
        let stranger = world.connect(0);
        world.send(stranger, &frame(FrameKind::Hello, control, &[]));
        assert_eq!(codes(&world.take(stranger)), [(5, ErrorCode::Malformed)]);
        assert!(world.is_closed(stranger));
    }
}

#[test]
fn a_batch_damaged_on_its_way_is_told_apart_from_one_that_was_built_wrong() {
    let (mut world, client, partition) = world_with_topic();
    let good = || batch("hello", 3);
    let header = |at: usize, bytes: &[u8]| {
        forged_batch(good(), |batch| batch[at..at + bytes.len()].copy_from_slice(bytes))
    };
    let mut damaged = good();
    damaged[60] ^= 4;
    let (invalid, unsupported) = (ErrorCode::InvalidBatch, ErrorCode::Unsupported);
    let long_record = forged_batch(good(), |batch| batch[48] = 0x7f);
    let table = [
        ("a flipped bit", damaged, ErrorCode::CorruptBatch),
        ("a record too few", header(12, &4u32.to_le_bytes()), invalid),
        ("no record", header(12, &0u32.to_le_bytes()), invalid),
        ("records beyond all measure", header(12, &u32::MAX.to_le_bytes()), invalid),
        ("more bytes than there are", header(8, &9_999u32.to_le_bytes()), invalid),
        ("a record longer than the batch", long_record, invalid),
        ("the last time before the first", header(24, &i64::MIN.to_le_bytes()), invalid),
        ("times that overflow", header(16, &i64::MAX.to_le_bytes()), invalid),
        ("a time that no record has", header(24, &i64::MAX.to_le_bytes()), invalid),
        ("a sequence without a producer", header(40, &1u32.to_le_bytes()), invalid),
        ("another format", header(4, &[2]), unsupported),
        ("a compression that does not exist", header(5, &[3]), unsupported),
        ("an attribute that does not exist", header(5, &[0x80]), unsupported),
    ];
    let count = table.len() as u64;
    for (what, bytes, code) in table {
        world.send(client, &produce(partition, Durability::QuorumDurable, 1, &bytes));
        assert_eq!(codes(&world.take(client)), [(1, code)], "{what}");
        assert!(!world.is_closed(client), "{what}");
    }
    assert_eq!(world.counter(0, "batches_invalid"), count);
    world.send(client, &produce(partition, Durability::QuorumDurable, 2, &good()));
    assert_eq!(world.take_one(client).ack().base_offset.0, 0, "nothing was appended before");
}

#[test]
fn a_produce_with_an_enum_out_of_its_range_is_malformed() {
    let (mut world, client, partition) = world_with_topic();
    let produce = Produce {
        partition,
        timeout_ms: 0,
        durability: Durability::QuorumDurable,
        want_stages: false,
        sent_before: false,
        former: None,
    };
    for (at, value) in [(8, 5), (8, 255), (9, 4), (15, 1)] {
        let mut control = produce.encode();
        control[at] = value;
        world.send(client, &frame(FrameKind::Produce, &control, &batch("x", 1)));
        assert_eq!(codes(&world.take(client)), [(5, ErrorCode::Malformed)], "{value} at {at}");
    }
    world.ask(client, 1, &fetch_of(&[(partition, 0)], 0, 0));
    assert!(records(&world.take_one(client))[0].1.is_empty(), "nothing was appended");
}

#[test]
fn a_topic_or_partition_that_does_not_exist_is_an_error_and_is_not_made() {
    let (mut world, client, _) = world_with_topic();
    world.ask(client, 1, &TopicDescribe { name: "nothing".into() });
    assert_eq!(codes(&world.take(client)), [(1, ErrorCode::UnknownTopic)]);
    for partition in [0, 77, u32::MAX].map(PartitionId) {
        for level in Durability::ALL {
            world.send(client, &produce(partition, level, 2, &batch("x", 1)));
            assert_eq!(codes(&world.take(client)), [(2, ErrorCode::UnknownPartition)]);
        }
        let query = OffsetsQuery { partition, timestamp: Some(i64::MIN) };
        world.ask(client, 3, &Offsets { partitions: vec![query] });
        let reply = world.take_one(client);
        let reply = corelog_protocol::message::OffsetsReply::decode(&reply.control).unwrap();
        assert_eq!(reply.partitions[0].error, Some(ErrorCode::UnknownPartition));
    }
    world.ask(client, 4, &TopicList::default());
    let list = TopicListReply::decode(&world.take_one(client).control).unwrap();
    assert_eq!(list.topics.len(), 1);
}

#[test]
fn a_fetch_of_4_gib_is_clamped_and_one_of_too_many_partitions_is_refused() {
    let mut world = World::with(1, |config| {
        config.segment_bytes = 8 << 20;
        config.frame_bytes_max = 1 << 20;
    });
    let client = world.client(0);
    let partition = world.create_topic(client, "orders", 1).places[0].partition;
    for _ in 0..8 {
        let bytes = batch(&"z".repeat(900 << 10), 1);
        world.send(client, &produce(partition, Durability::QuorumDurable, 1, &bytes));
        world.take_one(client).ack();
    }
    let greedy = |count: usize| {
        let wanted = |number: usize| FetchPartition {
            partition: PartitionId(partition.0 + number as u32),
            offset: Default::default(),
            bytes_max: u32::MAX,
        };
        let partitions = (0..count).map(wanted).collect();
        Fetch {
            wait_max_ms: u32::MAX,
            bytes_min: u32::MAX,
            bytes_max: u32::MAX,
            partitions,
            any_replica: true,
        }
    };
    world.ask(client, 2, &greedy(1));
    world.pass(Nanos::from_secs(61));
    let reply = world.take_one(client);
    // 7 MiB are there; what is sent fits into a frame, too.
    let bytes = reply.payload.len();
    assert!((900 << 10..=FETCH_BYTES_MAX as usize).contains(&bytes), "{bytes} bytes");
    assert!(!records(&reply)[0].1.is_empty());

    world.ask(client, 3, &greedy(FETCH_PARTITIONS_MAX));
    world.pass(Nanos::from_secs(61));
    assert_eq!(records(&world.take_one(client)).len(), FETCH_PARTITIONS_MAX);
    world.ask(client, 4, &greedy(FETCH_PARTITIONS_MAX + 1));
    assert_eq!(codes(&world.take(client)), [(4, ErrorCode::Malformed)]);
    // A million of them are above the frame cap: refused from the header alone.
    world.ask(client, 5, &greedy(1_000_000));
    assert_eq!(codes(&world.take(client)), [(5, ErrorCode::FrameTooLarge)]);
    assert!(world.is_closed(client));
}
