//! Bytes that must never change: encoding gives them, and decoding takes them, for every message
//! of every version. `tests/golden/<version>/<name>.hex` is read by people too: place, bytes, text.
//!
//! A new version adds a folder. To write files that do not exist yet: `CORELOG_GOLDEN=write`;
//! existing files are never written.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use corelog_protocol::batch::BatchView;
use corelog_protocol::entry::EntryHeader;
use corelog_protocol::frame::{FrameHeader, FrameKind};
use corelog_protocol::message::*;
use corelog_protocol::peer::{PeerHello, PeerHelloReply};
use corelog_protocol::preamble::Preamble;
use corelog_protocol::produce::{Produce, ProduceAck};

const CAP: u32 = 1 << 20;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn from_hex(text: &str) -> Vec<u8> {
    let bytes_of = |line: &str| {
        let digits: Vec<_> = line[6..56].split_whitespace().map(str::to_owned).collect();
        digits.into_iter().map(|byte| u8::from_str_radix(&byte, 16).unwrap())
    };
    text.lines().flat_map(|line| bytes_of(line).collect::<Vec<_>>()).collect()
}

/// The golden bytes, which `encoded` must equal.
fn golden(name: &str, encoded: &[u8]) -> Vec<u8> {
    let path = folder().join(format!("{name}.hex"));
    if !path.exists() && std::env::var("CORELOG_GOLDEN").is_ok_and(|value| value == "write") {
        fs::create_dir_all(folder()).unwrap();
        fs::write(&path, support::to_hex(encoded)).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    assert_eq!(support::to_hex(encoded), text, "{name}: encoding has changed");
    let bytes = from_hex(&text);
    assert_eq!(bytes, encoded);
    bytes
}

#[test]
fn every_table_encodes_to_its_golden_bytes_and_decodes_from_them() {
    let mut encoder = Encoder::new();
    let mut kinds = BTreeSet::new();
    macro_rules! check {
        ($name:literal, $message:ident, $sample:expr) => {
            let sample = $sample;
            let mut encoded = b"before".to_vec();
            sample.encode(0x0102_0304_0506_0708, &mut encoded);
            assert_eq!(&encoded[..6], b"before");
            assert_eq!(encoder.encode(&sample, 0x0102_0304_0506_0708), &encoded[6..]);

            let frame = golden($name, &encoded[6..]);
            let header = FrameHeader::decode(&frame, CAP).unwrap();
            assert_eq!(header.kind, <$message as Message>::KIND);
            assert_eq!(header.correlation, 0x0102_0304_0506_0708);
            assert_eq!(header.payload_len as usize, sample.payload_bytes());
            assert_eq!(header.payload_range().start, frame.len());
            let control = header.control(&frame).unwrap();
            assert_eq!($message::decode(control).unwrap(), sample);
            kinds.insert(header.kind);
        };
    }
    for_each_table!(check);

    // Nothing was forgotten: all kinds but the two with fixed controls, and those of brokers among themselves.
    let fixed = [FrameKind::Produce, FrameKind::ProduceAck];
    let tables =
        FrameKind::ALL.iter().filter(|kind| !fixed.contains(kind) && !kind.is_of_peers()).count();
    assert_eq!(kinds.len(), tables);
}

#[test]
fn brokers_greet_each_other_with_their_golden_bytes() {
    let hello = support::peer_hello();
    let frame = golden("peer_hello", &hello.encode_frame());
    let header = FrameHeader::decode(&frame, CAP).unwrap();
    assert_eq!((header.kind, header.correlation), (FrameKind::PeerHello, 0));
    assert_eq!(PeerHello::decode(header.control(&frame).unwrap()).unwrap(), hello);
    let reply = PeerHelloReply { version: hello.version, from: hello.from };
    let frame = golden("peer_hello_reply", &reply.encode_frame());
    let header = FrameHeader::decode(&frame, CAP).unwrap();
    assert_eq!((header.kind, header.correlation), (FrameKind::PeerHelloReply, 0));
    assert_eq!(PeerHelloReply::decode(header.control(&frame).unwrap()).unwrap(), reply);
}

#[test]
fn the_hot_frames_encode_to_their_golden_bytes_and_decode_from_them() {
    let batch = support::batch();
    let mut encoded = support::produce().encode_head(99, batch.len()).to_vec();
    encoded.extend_from_slice(&batch);
    let frame = golden("produce", &encoded);
    let header = FrameHeader::decode(&frame, CAP).unwrap();
    assert_eq!((header.kind, header.correlation), (FrameKind::Produce, 99));
    assert_eq!(header.frame_bytes(), frame.len());
    let control = header.control(&frame).unwrap();
    assert_eq!(Produce::decode(control).unwrap(), support::produce());
    assert_eq!(header.payload(&frame).unwrap(), batch);

    let frame = golden("produce_ack", &support::produce_ack().encode_frame(99));
    let header = FrameHeader::decode(&frame, CAP).unwrap();
    assert_eq!((header.kind, header.correlation), (FrameKind::ProduceAck, 99));
    let control = header.control(&frame).unwrap();
    assert_eq!(ProduceAck::decode(control).unwrap(), support::produce_ack());

    let mut bare = support::produce_ack();
    bare.stages = None;
    let frame = golden("produce_ack_bare", &bare.encode_frame(100));
    let control = FrameHeader::decode(&frame, CAP).unwrap().control(&frame).unwrap().to_vec();
    assert_eq!(ProduceAck::decode(&control).unwrap(), bare);
}

#[test]
fn preamble_batch_and_entry_header_keep_their_golden_bytes() {
    let bytes = golden("preamble", &support::preamble().encode());
    assert_eq!(Preamble::decode(&bytes).unwrap(), support::preamble());

    let bytes = golden("entry_header", &support::entry_header().encode());
    assert_eq!(EntryHeader::decode(&bytes).unwrap(), support::entry_header());

    let bytes = golden("batch", &support::batch());
    let view = BatchView::parse(&bytes).unwrap();
    let records: Vec<_> = view.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), 3);
    assert_eq!((records[0].key, records[0].value), (None, None));
    assert_eq!((records[1].key, records[1].value), (Some(&b"key"[..]), Some(&b"value"[..])));
    assert_eq!(records[1].timestamp, 1_799_999_999_995);
    assert_eq!(records[2].key, Some(&b""[..]));
    let names: Vec<_> = records[2].headers().map(|header| header.name).collect();
    assert_eq!(names, ["trace", "größe", ""]);
    let values: Vec<_> = records[2].headers().map(|header| header.value).collect();
    assert_eq!(values, [Some(&b"abc"[..]), None, Some(b"")]);
}

#[test]
fn controls_decode_at_every_alignment() {
    macro_rules! check {
        ($name:literal, $message:ident, $sample:expr) => {
            let sample = $sample;
            let mut frame = Vec::new();
            sample.encode(1, &mut frame);
            let header = FrameHeader::decode(&frame, CAP).unwrap();
            let control = header.control(&frame).unwrap();
            let mut room = vec![0; control.len() + 16];
            for shift in 0..16 {
                room[shift..shift + control.len()].copy_from_slice(control);
                let shifted = &room[shift..shift + control.len()];
                assert_eq!($message::decode(shifted).unwrap(), sample, "{} at {shift}", $name);
            }
        };
    }
    for_each_table!(check);
}

#[test]
fn every_golden_file_belongs_to_a_test() {
    let mut expected: BTreeSet<_> =
        ["preamble", "entry_header", "batch", "produce", "produce_ack", "produce_ack_bare"].into();
    expected.extend(["peer_hello", "peer_hello_reply"]);
    macro_rules! add {
        ($name:literal, $message:ident, $sample:expr) => {
            expected.insert($name);
        };
    }
    for_each_table!(add);
    let found: BTreeSet<_> = fs::read_dir(folder())
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(found, expected.into_iter().map(str::to_owned).collect());
}
