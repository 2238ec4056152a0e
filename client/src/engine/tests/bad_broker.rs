//! What a client makes of a broker that does not keep the protocol, row by row: it closes the connection, says why
//! once, believes nothing, and its user hears of every record.

use super::peer::*;
use crate::Error;
use corelog_protocol::ErrorCode;
use corelog_protocol::checksum::crc32c;
use corelog_protocol::frame::{FrameHeader, FrameKind};
use corelog_protocol::ids::ShardId;
use corelog_protocol::message::*;

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
    let crc = crc32c(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn table_of(message: &impl Message, correlation: u64) -> Vec<u8> {
    Encoder::new().encode(message, correlation).to_vec()
}

#[test]
fn an_answer_to_hello_that_is_none_closes_the_connection_and_another_is_tried() {
    let other_version = HelloReply { version: 9, ..hello_reply(ShardId(0)) };
    let good = table_of(&hello_reply(ShardId(0)), 0);
    let mut flipped = good.clone();
    flipped[20] ^= 1;
    let mut body_flipped = good.clone();
    body_flipped[40] ^= 1;
    let table: [(&str, Vec<u8>); 12] = [
        ("HTTP", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec()),
        ("a TLS alert", [&[0x15, 3, 3, 0, 2, 2, 10][..], &[0; 40]].concat()),
        ("zeros", vec![0; 64]),
        ("a header with a flipped bit", flipped),
        ("a control part with a flipped bit", body_flipped),
        ("another magic", forged(good.clone(), |bytes| bytes[0] ^= 1)),
        ("a kind that does not exist", forged(good.clone(), |bytes| bytes[5] = 200)),
        ("a version that does not exist", forged(good.clone(), |bytes| bytes[4] = 9)),
        ("4 GiB", forged(good, |bytes| bytes[12..16].fill(0xff))),
        ("a version that was not offered", table_of(&other_version, 0)),
        ("a control part of zeros", frame(FrameKind::HelloReply, 0, &[0; 40], &[])),
        ("a request", table_of(&TopicList::default(), 0)),
    ];
    for (what, bytes) in table {
        let mut scene = Scene::new(config());
        scene.produce("r", 1);
        let [link] = scene.open_links()[..] else { panic!("{what}") };
        scene.event(super::super::Event::Connected { link });
        let asked = scene.asked();
        assert_eq!((asked.len(), asked[0].header.correlation), (1, 0), "{what}");
        scene.bytes(link, &bytes);
        assert!(scene.links[&link].closed, "{what}");
        assert_eq!(scene.engine.counters().protocol_errors, 1, "{what}");
        assert!(scene.told().is_empty(), "{what}: the record did not leave, and is tried again");
        scene.sleep(3_000);
        assert_eq!(scene.open_links().len(), 1, "{what}: another connection is tried");
    }
}

#[test]
fn an_answer_of_another_kind_or_of_no_sense_closes_and_the_record_is_in_doubt() {
    let answer = |what: usize, correlation: u64| match what {
        0 => table_of(&TopicDescribeReply { topic: topic("t", &[0]) }, correlation),
        1 => frame(FrameKind::ProduceAck, correlation, &[0xff; 72], &[]),
        2 => frame(FrameKind::ProduceAck, correlation, &[1; 8], &[]),
        3 => frame(FrameKind::Error, correlation, &[0xff; 32], &[]),
        4 => frame(FrameKind::Produce, correlation, &[0; 16], &[]),
        5 => table_of(&hello_reply(ShardId(0)), correlation),
        6 => table_of(&ErrorReply::new(ErrorCode::Overloaded, 16, "no"), correlation + 1),
        _ => forged(frame(FrameKind::ProduceAck, correlation, &[0; 72], &[]), |b| b[6] = 1),
    };
    for what in 0..8 {
        let mut scene = Scene::with_topic(config(), &[0]);
        scene.produce("r", 1);
        let asked = scene.asked();
        scene.bytes(asked[0].link, &answer(what, asked[0].header.correlation));
        assert!(scene.links[&asked[0].link].closed, "{what}");
        assert_eq!(scene.engine.counters().protocol_errors, 1, "{what}");
        let told = scene.told();
        assert_eq!(
            told,
            [Told::Failed { error: Error::ConnectionLost, tokens: vec![1] }],
            "{what}"
        );
        assert_eq!(scene.engine.memory_used(), 0, "{what}");
    }
}

#[test]
fn half_an_answer_and_then_silence_is_given_up_when_the_request_is_overdue() {
    let mut scene = Scene::with_topic(config(), &[0]);
    scene.produce("r", 1);
    let asked = scene.asked();
    let ack = ack_of(&asked[0], 1).encode_frame(asked[0].header.correlation);
    scene.bytes(asked[0].link, &ack[..40]);
    scene.sleep(31_000);
    assert!(scene.links[&asked[0].link].closed);
    let told = scene.told();
    let is_lost = |told: &Told| matches!(told, Told::Failed { tokens, .. } if tokens == &[1]);
    assert!(told.len() == 1 && is_lost(&told[0]), "{told:?}");
}

#[test]
fn a_hello_with_a_frame_cap_in_which_nothing_fits_panics_nowhere() {
    for frame_bytes_max in [0, 1, 16, 63, 64, u32::MAX] {
        let mut scene = Scene::new(config());
        scene.produce("r", 1);
        let [link] = scene.open_links()[..] else { panic!("no connection") };
        scene.event(super::super::Event::Connected { link });
        let hello = HelloReply { frame_bytes_max, ..hello_reply(ShardId(0)) };
        scene.bytes(link, &table_of(&hello, 0));
        for asked in scene.asked() {
            scene.answer(&asked, &TopicDescribeReply { topic: topic("t", &[0]) });
        }
        scene.sleep(60_000);
        let told = scene.told().len();
        scene.engine.close(scene.now, &mut scene.effects);
        scene.carry_out();
        assert_eq!(told + scene.told().len(), 1, "{frame_bytes_max}");
        assert_eq!(scene.engine.memory_used(), 0);
    }
}

#[test]
fn a_broker_that_accepts_and_says_nothing_costs_no_busy_timer() {
    let mut scene = Scene::new(config());
    scene.produce("r", 1);
    scene.later(1_000);
    let [link] = scene.open_links()[..] else { panic!("one connection is tried") };
    scene.event(super::super::Event::Connected { link });
    // The hello left a second after the handshake began: its answer may come later than the handshake may last.
    let mut wakes = 0;
    while scene.open_links().contains(&link) {
        let wake = scene.engine.next_wake().expect("the handshake has a deadline");
        scene.now.monotonic = scene.now.monotonic.max(wake);
        scene.event(super::super::Event::Timer);
        wakes += 1;
        assert!(wakes < 100, "woken at {wake:?} again and again, and nothing is done");
    }
    assert!(scene.engine.next_wake().is_some_and(|wake| wake > scene.now.monotonic));
}
