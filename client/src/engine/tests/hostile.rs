//! A broker that sends what it must not: nothing panics, nothing is believed that is not checked,
//! and every record is told of exactly once all the same.

use super::peer::*;
use crate::Durability::{self, LeaderDurable};
use crate::Error;
use crate::engine::random::Random;
use crate::engine::*;
use corelog_protocol::ErrorCode;
use corelog_protocol::checksum::crc32c;
use corelog_protocol::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use corelog_protocol::ids::{Offset, PartitionId};
use corelog_protocol::message::*;

#[test]
fn an_answer_to_nothing_closes_the_connection() {
    let mut scene = Scene::with_topic(config(), &[0]);
    scene.produce("r1", 1);
    let asked = scene.asked();
    let mut other = asked[0].clone();
    other.header.correlation += 1;
    scene.ack(&other, 5);
    assert!(scene.links[&asked[0].link].closed);
    assert_eq!(scene.engine.counters().protocol_errors, 1);
    assert_eq!(scene.told(), [Told::Failed { error: Error::ConnectionLost, tokens: vec![1] }]);
}

#[test]
fn an_answer_twice_closes_the_connection() {
    let mut scene = Scene::with_topic(config(), &[0]);
    scene.produce("r1", 1);
    let asked = scene.asked();
    scene.ack(&asked[0], 1);
    scene.ack(&asked[0], 1);
    assert!(scene.links[&asked[0].link].closed);
}

#[test]
fn an_ack_that_does_not_fit_its_batch_is_not_believed() {
    for spoil in 0..3 {
        let mut scene = Scene::with_topic(config(), &[0]);
        scene.produce("r1", 1);
        let asked = scene.asked();
        let mut ack = ack_of(&asked[0], 1);
        match spoil {
            0 => ack.record_count += 1,
            1 => ack.level = Durability::LeaderMemory,
            _ => ack.partition = PartitionId(999),
        }
        scene.bytes(asked[0].link, &ack.encode_frame(asked[0].header.correlation));
        assert!(scene.links[&asked[0].link].closed);
        assert_eq!(scene.told(), [Told::Failed { error: Error::ConnectionLost, tokens: vec![1] }]);
    }
}

#[test]
fn an_announced_length_beyond_the_cap_closes_at_the_header() {
    let mut scene = Scene::with_topic(config(), &[0]);
    let [link] = scene.open_links()[..] else { panic!() };
    for bytes in [17 << 20, 1 << 31, u32::MAX as usize] {
        let mut scene = Scene::with_topic(config(), &[0]);
        let header = FrameHeader::new(FrameKind::FetchReply, 0, &[], bytes);
        scene.bytes(link, &header.encode());
        assert!(scene.links[&link].closed, "{bytes}");
    }
    // Within the cap it waits for the bytes, and holds no more than came.
    let header = FrameHeader::new(FrameKind::FetchReply, 0, &[], 15 << 20);
    scene.bytes(link, &header.encode());
    assert!(!scene.links[&link].closed);
}

#[test]
fn before_the_hello_a_frame_has_4_kib_at_most() {
    let mut scene = Scene::new(config());
    scene.produce("r", 1);
    let [link] = scene.open_links()[..] else { panic!() };
    scene.event(Event::Connected { link });
    let header = FrameHeader::new(FrameKind::HelloReply, 0, &[], 4097);
    scene.bytes(link, &header.encode());
    assert!(scene.links[&link].closed);
}

/// Answers as an honest broker would, as bytes.
fn honest(asked: &Asked, random: &mut Random) -> Vec<u8> {
    let correlation = asked.header.correlation;
    let mut encoder = Encoder::new();
    match asked.header.kind {
        FrameKind::Produce if random.below(4) > 0 => {
            ack_of(asked, random.below(1000)).encode_frame(correlation).to_vec()
        }
        FrameKind::Produce => {
            let code = ErrorCode::ALL[random.below(ErrorCode::ALL.len() as u64 - 1) as usize];
            let error = ErrorReply::new(code, asked.header.kind.to_wire(), "no");
            encoder.encode(&error, correlation).to_vec()
        }
        FrameKind::TopicDescribe => {
            let reply = TopicDescribeReply { topic: topic("t", &[0, 1]) };
            encoder.encode(&reply, correlation).to_vec()
        }
        FrameKind::Fetch => {
            let fetch = asked.fetch();
            let entries: Vec<_> = fetch
                .partitions
                .iter()
                .map(|one| (one.partition.0, entry(one.partition.0, one.offset.0, &["a", "b"])))
                .collect();
            let end = fetch.partitions.iter().map(|one| one.offset.0).max().unwrap() + 2;
            fetch_reply(asked, end, &entries)
        }
        FrameKind::Offsets => {
            let answers = Offsets::decode(&asked.control).unwrap().partitions.into_iter();
            let partitions = answers
                .map(|one| OffsetsAnswer {
                    partition: one.partition,
                    error: None,
                    log_start: Offset(0),
                    committed_end: Offset(9),
                    offset_at: one.timestamp.map(|_| Offset(4)),
                })
                .collect();
            encoder.encode(&OffsetsReply { partitions }, correlation).to_vec()
        }
        kind => panic!("{kind}"),
    }
}

/// Spoils some bytes. With `mend` the checksums of the frame are made right again, so that what is
/// behind them is reached too.
fn spoil(bytes: &mut Vec<u8>, mend: bool, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] = match random.below(3) {
            0 => bytes[at] ^ 1 << random.below(8),
            1 => 0xff,
            _ => random.next_u64() as u8,
        };
    }
    if random.below(8) == 0 {
        let keep = random.below(bytes.len() as u64) as usize;
        bytes.truncate(keep);
    }
    if mend && bytes.len() >= FRAME_HEADER_BYTES {
        let control_len = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
        let control = FRAME_HEADER_BYTES..FRAME_HEADER_BYTES.saturating_add(control_len);
        if let Some(control) = bytes.get(control) {
            let crc = crc32c(control).to_le_bytes();
            bytes[24..28].copy_from_slice(&crc);
        }
        let crc = crc32c(&bytes[..28]).to_le_bytes();
        bytes[28..32].copy_from_slice(&crc);
    }
}

#[test]
fn spoiled_bytes_never_panic_and_every_record_is_told_of_once() {
    let (mut closed, mut survived) = (0, 0);
    for seed in 0..3000 {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let mut scene = Scene::with_topic(config(), &[0, 1]);
        let consumer = scene.engine.consumer(ConsumerConfig::default());
        for (partition, at) in [(0, Position::Offset(Offset(3))), (1, Position::Time(5))] {
            scene.engine.assign(scene.now, consumer, "t", partition, at, &mut scene.effects);
        }
        scene.carry_out();
        let mut token = 0;
        for _ in 0..12 {
            for partition in 0..2 {
                token += 1;
                scene.send("t", Some(partition), "r", LeaderDurable, token).unwrap();
            }
            for asked in scene.greet() {
                if scene.links[&asked.link].closed {
                    continue;
                }
                let mut bytes = honest(&asked, &mut random);
                if random.below(3) == 0 {
                    let mend = random.below(2) == 0;
                    spoil(&mut bytes, mend, &mut random);
                }
                let cut = random.below(bytes.len() as u64 + 1) as usize;
                scene.bytes(asked.link, &bytes[..cut]);
                scene.bytes(asked.link, &bytes[cut..]);
            }
            while scene.engine.take(scene.now, consumer, &mut scene.effects).is_some() {}
            scene.carry_out();
            scene.sleep(50);
        }
        closed += scene.engine.counters().protocol_errors;
        survived += u64::from(scene.engine.counters().records_delivered > 0);
        scene.engine.close(scene.now, &mut scene.effects);
        scene.carry_out();
        let mut told: Vec<u64> = scene
            .told()
            .into_iter()
            .flat_map(|told| match told {
                Told::Delivered { tokens, .. } | Told::Failed { tokens, .. } => tokens,
                Told::Flushed(_) | Told::Answered(_) => Vec::new(),
            })
            .collect();
        told.sort_unstable();
        assert_eq!(told, (1..=token).collect::<Vec<_>>());
        assert_eq!(scene.engine.memory_used(), 0);
    }
    // It looked at something.
    assert!(closed > 1000, "{closed}");
    assert!(survived > 1000, "{survived}");
}
