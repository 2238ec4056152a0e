//! Hello, frames, and what bad input gets.

use corelog_protocol::ErrorCode;
use corelog_protocol::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use corelog_protocol::ids::{ClusterId, PartitionId};
use corelog_protocol::message::{Hello, HelloReply, Status, TopicDescribe, TopicList};

use super::world::{CLUSTER, INCARNATION, World, batch, codes, produce};
use crate::limits::{FRAME_BYTES_HARD, TICK_MS};
use crate::memory::Memory;
use crate::random::Random;
use crate::time::Nanos;

fn frame(kind: FrameKind, correlation: u64, control: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader::new(kind, correlation, control, payload.len());
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(control);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend_from_slice(payload);
    bytes
}

/// Makes a header say what it should not, with a right checksum.
fn forged(mut bytes: Vec<u8>, change: impl Fn(&mut [u8])) -> Vec<u8> {
    change(&mut bytes);
    let crc = corelog_protocol::checksum::crc32c(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn hello_is_answered_with_who_we_are() {
    let mut world = World::unstarted(1, |_| {});
    let client = world.connect(0);
    world.ask(client, 9, &Hello::new("me"));
    let reply = world.take_one(client);
    assert_eq!((reply.kind, reply.correlation), (FrameKind::HelloReply, 9));
    let reply = HelloReply::decode(&reply.control).unwrap();
    assert_eq!((reply.version, reply.cluster, reply.incarnation), (1, CLUSTER, INCARNATION));
    assert_eq!((reply.shard.0, reply.shards, reply.frame_bytes_max), (0, 1, 256 << 10));
}

#[test]
fn a_stranger_is_told_so_and_sent_away() {
    let mut world = World::unstarted(1, |_| {});
    let mut other_cluster = Hello::new("me");
    other_cluster.cluster = Some(ClusterId(1));
    let mut newer = Hello::new("me");
    (newer.version_min, newer.version_max) = (900, 901);
    for (hello, code) in [(other_cluster, ErrorCode::WrongCluster), (newer, ErrorCode::Unsupported)]
    {
        let client = world.connect(0);
        world.ask(client, 1, &hello);
        let frames = world.take(client);
        assert_eq!(codes(&frames), [(1, code)]);
        assert!(world.is_closed(client));
    }
}

#[test]
fn what_bad_input_gets_before_hello() {
    let hello = frame(FrameKind::Hello, 5, &[0; 64], &[]);
    let long = frame(FrameKind::Hello, 5, &[0; 4096], &[1]);
    let huge = |control: u32, payload: u32| {
        forged(hello.clone(), |bytes| {
            bytes[8..12].copy_from_slice(&control.to_le_bytes());
            bytes[12..16].copy_from_slice(&payload.to_le_bytes());
        })
    };
    let mut flipped = hello.clone();
    flipped[20] ^= 1;
    let mut body_flipped = hello.clone();
    body_flipped[40] ^= 1;
    // Input, the codes that are answered; in each case the connection is closed.
    let table: &[(&str, Vec<u8>, &[ErrorCode])] = &[
        ("an HTTP request", b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".to_vec(), &[]),
        ("a TLS hello", [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 60]].concat(), &[]),
        ("zeros", vec![0; 64], &[]),
        ("a header with a flipped bit", flipped, &[]),
        ("a control part with a flipped bit", body_flipped, &[ErrorCode::Malformed]),
        ("an intact header of something else", forged(hello.clone(), |b| b[0] ^= 1), &[]),
        ("one byte above the cap", long, &[ErrorCode::FrameTooLarge]),
        ("2^31 - 1 bytes", huge(0, i32::MAX as u32), &[ErrorCode::FrameTooLarge]),
        ("2^32 - 1 bytes, twice", huge(u32::MAX, u32::MAX), &[ErrorCode::FrameTooLarge]),
        ("a hello of zeros", hello.clone(), &[ErrorCode::Malformed]),
        (
            "another request first",
            frame(FrameKind::Status, 5, &[0; 8], &[]),
            &[ErrorCode::HelloRequired],
        ),
    ];
    for (what, input, expected) in table {
        let mut world = World::unstarted(1, |_| {});
        let used = world.nodes[0].memory.used_bytes();
        let client = world.connect(0);
        world.send(client, input);
        let frames = world.take(client);
        let found: Vec<ErrorCode> = codes(&frames).into_iter().map(|(_, code)| code).collect();
        assert_eq!(&found, expected, "{what}");
        assert!(world.is_closed(client), "{what}");
        assert_eq!(world.nodes[0].memory.used_bytes(), used, "{what} left memory behind");
    }
}

#[test]
fn unknown_kinds_are_answered_and_skipped_and_close_only_before_hello() {
    let mut world = World::unstarted(1, |_| {});
    let unknown = forged(frame(FrameKind::Status, 8, &[0; 24], &[1; 100]), |bytes| bytes[5] = 200);
    let client = world.client(0);
    for _ in 0..20 {
        world.send(client, &unknown);
    }
    world.ask(client, 9, &TopicList::default());
    let frames = world.take(client);
    assert_eq!(frames.len(), 21);
    assert_eq!(codes(&frames[..20]), vec![(8, ErrorCode::Unsupported); 20]);
    assert_eq!(frames[20].kind, FrameKind::TopicListReply);

    let stranger = world.connect(0);
    for sent in 1..=3 {
        assert!(!world.is_closed(stranger), "after {} frames", sent - 1);
        world.send(stranger, &unknown);
    }
    assert!(world.is_closed(stranger));
    assert_eq!(world.take(stranger).len(), 3);
}

#[test]
fn ten_broken_requests_are_one_too_many() {
    let mut world = World::unstarted(1, |_| {});
    let client = world.client(0);
    let broken = frame(FrameKind::Fetch, 3, &[0xff; 40], &[]);
    for sent in 0..10 {
        assert!(!world.is_closed(client), "after {sent}");
        world.send(client, &broken);
    }
    assert!(world.is_closed(client));
    assert_eq!(codes(&world.take(client)), vec![(3, ErrorCode::Malformed); 10]);
    assert_eq!(world.counter(0, "frames_malformed"), 10);
}

#[test]
fn an_answer_or_a_second_hello_is_no_request() {
    let mut world = World::unstarted(1, |_| {});
    let client = world.client(0);
    world.ask(client, 4, &Hello::new("again"));
    let ack = corelog_protocol::produce::ProduceAck {
        base_offset: Default::default(),
        epoch: Default::default(),
        append_time: 0,
        partition: PartitionId(1),
        record_count: 1,
        level: corelog_protocol::Durability::None,
        stages: None,
    };
    world.send(client, &ack.encode_frame(5));
    let mut list = frame(FrameKind::TopicList, 6, &[0; 8], b"payload");
    list.truncate(FRAME_HEADER_BYTES + 8 + 7);
    world.send(client, &list);
    let malformed = ErrorCode::Malformed;
    assert_eq!(codes(&world.take(client)), [(4, malformed), (5, malformed), (6, malformed)]);
}

#[test]
fn a_frame_may_come_byte_by_byte_and_leaves_no_slot_behind() {
    let mut world = World::unstarted(1, |_| {});
    let client = world.client(0);
    let used = world.nodes[0].memory.used_bytes();
    let describe = TopicDescribe { name: "nothing".into() };
    let mut bytes = Vec::new();
    for correlation in 1..4 {
        describe.encode(correlation, &mut bytes);
    }
    for byte in bytes {
        world.send(client, &[byte]);
    }
    let frames = world.take(client);
    let recovering = ErrorCode::Recovering;
    assert_eq!(codes(&frames), [(1, recovering), (2, recovering), (3, recovering)]);
    assert_eq!(world.nodes[0].memory.used_bytes(), used);
}

#[test]
fn a_stream_of_small_frames_is_read_in_large_pieces() {
    let mut world = World::unstarted(1, |_| {});
    let client = world.client(0);
    let used = world.nodes[0].memory.used_bytes();
    let mut bytes = Vec::new();
    for correlation in 0..10_000 {
        TopicDescribe { name: "nothing".into() }.encode(correlation, &mut bytes);
    }
    let reads = world.counter(0, "steps");
    world.send(client, &bytes);
    let reads = world.counter(0, "steps") - reads;
    let order: Vec<u64> = world.take(client).iter().map(|frame| frame.correlation).collect();
    assert_eq!(order, (0..10_000).collect::<Vec<_>>());
    // Each read is followed by the completion of a send.
    let least = 2 * bytes.len().div_ceil(64 << 10) as u64;
    assert!((least..3 * least).contains(&reads), "{reads} steps for {} bytes", bytes.len());
    assert_eq!(world.nodes[0].memory.used_bytes(), used);
}

#[test]
fn who_never_says_hello_is_closed_after_its_deadline_and_an_idle_client_is_not() {
    let mut world = World::unstarted(1, |_| {});
    let silent = world.connect(0);
    let idle = world.client(0);
    world.pass(Nanos::from_millis(4 * TICK_MS));
    assert!(!world.is_closed(silent));
    world.pass(Nanos::from_millis(3 * TICK_MS));
    assert!(world.is_closed(silent));
    world.pass(Nanos::from_secs(3_600));
    assert!(!world.is_closed(idle));
    assert_eq!(world.counter(0, "connections_timed_out"), 1);
}

#[test]
fn an_idle_connection_wakes_nobody() {
    let mut world = World::unstarted(1, |_| {});
    let _idle = world.client(0);
    world.pass(Nanos::from_secs(10));
    let steps = world.counter(0, "steps");
    world.pass(Nanos::from_secs(1_000));
    assert_eq!(world.counter(0, "steps"), steps);
}

#[test]
fn a_frame_that_trickles_is_cut_off_but_a_slow_large_one_is_not() {
    let mut world = World::unstarted(1, |config| config.frame_bytes_max = FRAME_BYTES_HARD);
    let trickle = world.client(0);
    let large = world.client(0);
    let bytes = produce(PartitionId(1), Default::default(), 1, &vec![1; 8 << 20]);
    let mut sent = bytes.chunks(100 << 10);
    for second in 0..60 {
        if !world.is_closed(trickle) {
            world.send(trickle, &bytes[second..second + 1]);
        }
        world.send(large, sent.next().unwrap());
        world.pass(Nanos::from_secs(1));
    }
    assert!(world.is_closed(trickle));
    assert!(!world.is_closed(large));
    assert_eq!(world.counter(0, "connections_timed_out"), 1);
}

#[test]
fn connections_are_limited_in_all_and_by_address() {
    let mut world = World::unstarted(1, |config| config.connections_per_address_max = 2);
    let first = world.client(0);
    world.client(0);
    let third = world.connect(0);
    assert!(world.is_closed(third));
    world.hang_up(first);
    let fourth = world.connect(0);
    assert!(!world.is_closed(fourth));
    assert_eq!(world.counter(0, "connections_refused"), 1);
}

#[test]
fn status_names_the_counters_of_every_shard() {
    let mut world = World::unstarted(3, |_| {});
    let client = world.client(1);
    world.ask(client, 3, &Status { prefix: "connections".into() });
    let reply = world.take_one(client);
    let status = corelog_protocol::message::StatusReply::decode(&reply.control).unwrap();
    let shards: Vec<u16> = status.shards.iter().map(|shard| shard.shard.0).collect();
    assert_eq!(shards, [0, 1, 2]);
    assert_eq!(status.total("connections"), Some(1));
    assert_eq!(status.total("connections_opened"), Some(1));
    assert!(status.names.iter().all(|name| name.starts_with("connections")));
}

/// Random bytes, frames with random parts, and valid frames with random damage.
#[test]
fn random_bytes_never_panic_and_give_all_memory_back() {
    let seed = 0x5eed_0004;
    println!("seed {seed:#x}");
    let mut random = Random::new(seed);
    let mut world = World::unstarted(2, |_| {});
    let used: Vec<usize> = world.nodes.iter().map(|node| node.memory.used_bytes()).collect();
    let mut closed = 0;
    let mut answered = 0;
    for round in 0..3_000 {
        let shard = random.below(2) as usize;
        let client = if random.chance(1, 4) { world.connect(shard) } else { world.client(shard) };
        for _ in 0..random.below(4) {
            let bytes = random_input(&mut random);
            for chunk in bytes.chunks(1 + random.below(300) as usize) {
                world.send(client, chunk);
            }
            if random.chance(1, 5) {
                world.pass(Nanos::from_millis(random.below(3_000)));
            }
        }
        closed += u32::from(world.is_closed(client));
        answered += u32::from(!world.take(client).is_empty());
        if !world.is_closed(client) {
            world.hang_up(client);
        }
        let now: Vec<usize> = world.nodes.iter().map(|node| node.memory.used_bytes()).collect();
        assert_eq!(now, used, "round {round} left memory behind");
    }
    assert!(closed > 500 && answered > 500, "{closed} closed, {answered} answered");
}

fn random_input(random: &mut Random) -> Vec<u8> {
    let mut noise = |most: u64| -> Vec<u8> {
        (0..random.below(most)).map(|_| random.next_u64() as u8).collect()
    };
    let (control, payload) = (noise(200), noise(2_000));
    let kinds = FrameKind::ALL;
    let kind = kinds[random.below(kinds.len() as u64) as usize];
    let whole = produce(PartitionId(random.below(4) as u32), Default::default(), 7, &batch("x", 3));
    match random.below(5) {
        0 => payload,
        1 => frame(kind, random.next_u64(), &control, &payload),
        2 => frame(kind, random.next_u64(), &control, &[]),
        3 => whole,
        _ => {
            let mut bytes = whole;
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
            bytes
        }
    }
}
