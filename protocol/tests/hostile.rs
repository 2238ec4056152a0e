//! No byte sequence panics, hangs or exhausts the process (I15): random bytes, and every sample
//! with random damage, through every decoder. What still decodes must survive another trip.

mod support;

use corelog_protocol::batch::{BatchError, BatchView, RecordCheck};
use corelog_protocol::checksum::{Crc, crc32c};
use corelog_protocol::entry::{ENTRY_HEADER_BYTES, Entries, EntryHeader};
use corelog_protocol::frame::{FRAME_HEADER_BYTES, FrameHeader};
use corelog_protocol::message::*;
use corelog_protocol::peer::PeerHello;
use corelog_protocol::preamble::{PREAMBLE_BYTES, Preamble};
use corelog_protocol::produce::{Produce, ProduceAck};
use support::{Random, seeded};

/// How often each decoder said yes and no: a test that never gets past the door proves nothing.
#[derive(Default, Debug)]
struct Seen {
    accepted: u64,
    rejected: u64,
}

impl Seen {
    fn count<T, E>(&mut self, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => {
                self.accepted += 1;
                Some(value)
            }
            Err(_) => {
                self.rejected += 1;
                None
            }
        }
    }
}

/// Through all decoders of control parts.
fn decode_controls(bytes: &[u8], seen: &mut Seen) {
    if let Some(value) = seen.count(Produce::decode(bytes)) {
        assert_eq!(value.encode(), bytes);
    }
    if let Some(value) = seen.count(ProduceAck::decode(bytes)) {
        assert_eq!(value.encode(), bytes);
    }
    if let Some(value) = seen.count(PeerHello::decode(bytes)) {
        assert_eq!(value.encode(), bytes);
    }
    macro_rules! decode {
        ($message:ident) => {
            if let Some(value) = seen.count($message::decode(bytes)) {
                let mut frame = Vec::new();
                value.encode(1, &mut frame);
                // All but its payload: what that has been announced to be may be above any cap.
                let header = FrameHeader::decode(&frame, u32::MAX);
                let Ok(header) = header else { return };
                let control = header.control(&frame).unwrap().to_vec();
                assert_eq!($message::decode(&control).as_ref(), Ok(&value));
            }
        };
    }
    decode!(Hello);
    decode!(HelloReply);
    decode!(ErrorReply);
    decode!(Fetch);
    decode!(Offsets);
    decode!(OffsetsReply);
    decode!(TopicCreate);
    decode!(TopicCreateReply);
    decode!(TopicList);
    decode!(TopicListReply);
    decode!(TopicDescribe);
    decode!(TopicDescribeReply);
    decode!(TopicDelete);
    decode!(TopicDeleteReply);
    decode!(TopicAlter);
    decode!(TopicAlterReply);
    decode!(Status);
    decode!(StatusReply);
    decode!(ClusterStatus);
    decode!(ClusterStatusReply);
    decode!(Operate);
    decode!(OperateReply);
    decode!(FetchReply);
    if let Ok(reply) = FetchReply::decode(bytes)
        && let Some(pieces) = seen.count(reply.split(bytes))
    {
        assert_eq!(pieces.map(|(_, piece)| piece.len()).sum::<usize>(), bytes.len());
    }
}

/// A batch whose checksum is not looked at, so that the walk meets the damage.
fn walk_batch(bytes: &[u8], step_bytes: usize, seen: &mut Seen) {
    seen.count(BatchView::parse(bytes));
    let Some(view) = seen.count(BatchView::check_header(bytes)) else { return };
    let checked = view.check_records();
    seen.count(checked);

    // In steps it comes to the same end.
    let stepped = RecordCheck::new(&view).and_then(|mut check| {
        while !check.advance(&view, step_bytes)? {}
        Ok(())
    });
    assert_eq!(stepped, checked);

    // The iterator accepts at least what the check accepts, and ends after an error.
    let mut records = view.records();
    let mut count = 0;
    let mut error = None;
    for record in &mut records {
        match record {
            Ok(record) => {
                assert_eq!(record.index, count);
                assert_eq!(record.headers().len(), record.headers().count());
                count += 1;
            }
            Err(fault) => error = Some(fault),
        }
    }
    assert!(records.next().is_none());
    match error {
        None => assert_eq!(count, view.header().record_count),
        Some(error) => {
            assert!(checked.is_err());
            if checked != Err(BatchError::Timestamps) {
                assert_eq!(checked, Err(error));
            }
        }
    }
}

fn walk_entries(bytes: &[u8], seen: &mut Seen) {
    let mut entries = Entries::new(bytes);
    let mut length = 0;
    for entry in &mut entries {
        if let Some((header, body)) = seen.count(entry) {
            assert_eq!(header.body_len as usize, body.len());
            length += header.entry_bytes();
        }
    }
    assert!(length <= bytes.len());
    assert!(entries.next().is_none());
}

/// A frame that a reader found in its buffer.
fn read_frame(bytes: &[u8], cap: u32, seen: &mut Seen) {
    if let Some(header) = seen.count(FrameHeader::decode(bytes, cap)) {
        assert!(u64::from(header.control_len) + u64::from(header.payload_len) <= u64::from(cap));
        assert_eq!(header.encode(), bytes[..FRAME_HEADER_BYTES]);
        seen.count(header.control(bytes));
        seen.count(header.payload(bytes));
    }
}

/// Flips, overwrites, cuts, grows, moves.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    const TELLING: [u32; 12] = [
        0,
        1,
        2,
        7,
        0x7f,
        0x80,
        0xffff,
        0x1_0000,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_fff0,
        0xffff_ffff,
    ];
    for _ in 0..=random.below(3) {
        let len = bytes.len();
        if len == 0 {
            *bytes = random.bytes(1);
            continue;
        }
        let at = random.below(len);
        match random.below(8) {
            0..=2 => bytes[at] ^= 1 << random.below(8),
            3 => bytes[at] = random.next() as u8,
            4 => {
                let value = TELLING[random.below(TELLING.len())].to_le_bytes();
                let width = [1, 2, 4][random.below(3)].min(len - at);
                bytes[at..at + width].copy_from_slice(&value[..width]);
            }
            5 => bytes.truncate(at),
            6 => {
                let more = 1 + random.below(16);
                bytes.extend(random.bytes(more));
            }
            _ => {
                let from = random.below(len);
                let width = (1 + random.below(8)).min(len - at).min(len - from);
                let piece = bytes[from..from + width].to_vec();
                bytes[at..at + width].copy_from_slice(&piece);
            }
        }
    }
}

#[test]
fn random_bytes_never_panic_in_any_decoder() {
    let mut random = seeded("random_bytes");
    let mut seen = Seen::default();
    for _ in 0..30_000 {
        let len = random.below(300);
        let bytes = random.bytes(len);
        decode_controls(&bytes, &mut seen);
        walk_batch(&bytes, 1 + random.below(100), &mut seen);
        walk_entries(&bytes, &mut seen);
        read_frame(&bytes, u32::MAX, &mut seen);
        seen.count(Preamble::decode(&bytes));
    }
    assert!(seen.rejected > 100_000, "{seen:?}");
}

#[test]
fn damaged_controls_never_panic_and_what_decodes_survives_another_trip() {
    let mut random = seeded("damaged_controls");
    let mut samples: Vec<Vec<u8>> =
        vec![support::produce().encode().to_vec(), support::produce_ack().encode().to_vec()];
    macro_rules! add {
        ($name:literal, $message:ident, $sample:expr) => {
            let mut frame = Vec::new();
            $sample.encode(1, &mut frame);
            let header = FrameHeader::decode(&frame, u32::MAX).unwrap();
            samples.push(header.control(&frame).unwrap().to_vec());
        };
    }
    for_each_table!(add);
    for sample in &samples {
        let mut seen = Seen::default();
        for _ in 0..2_000 {
            let mut bytes = sample.clone();
            damage(&mut bytes, &mut random);
            decode_controls(&bytes, &mut seen);
        }
        assert!(seen.accepted > 100 && seen.rejected > 100, "{seen:?}");
    }
}

#[test]
fn damaged_batches_never_panic_and_never_pass_their_checksum() {
    let mut random = seeded("damaged_batches");
    let sample = support::batch();
    let mut seen = Seen::default();
    for _ in 0..50_000 {
        let mut bytes = sample.clone();
        damage(&mut bytes, &mut random);
        if bytes == sample {
            continue;
        }
        assert!(BatchView::parse(&bytes).is_err());
        walk_batch(&bytes, 1 + random.below(100), &mut seen);
    }
    assert!(seen.accepted > 1_000 && seen.rejected > 1_000, "{seen:?}");
}

#[test]
fn damaged_headers_never_panic_not_even_with_a_matching_checksum() {
    let mut random = seeded("damaged_headers");
    let mut seen = Seen::default();

    let body = support::batch();
    let mut header = support::entry_header();
    header.body_len = body.len() as u32;
    header.body_crc = u32::from_le_bytes(*body.first_chunk().unwrap());
    let mut entry = header.encode().to_vec();
    entry.extend_from_slice(&body);
    entry.resize(header.entry_bytes(), 0);
    let entries = [entry.clone(), entry].concat();
    assert_eq!(Entries::new(&entries).filter(Result::is_ok).count(), 2);

    let mut frame = support::produce().encode_head(1, body.len()).to_vec();
    frame.extend_from_slice(&body);

    for round in 0..40_000 {
        let honest = round % 2 == 0;
        let mut bytes = entries.clone();
        damage(&mut bytes, &mut random);
        if honest && bytes.len() >= ENTRY_HEADER_BYTES {
            let mut crc = Crc::new();
            crc.update(&bytes[..4]);
            crc.update(&bytes[8..ENTRY_HEADER_BYTES]);
            bytes[4..8].copy_from_slice(&crc.value().to_le_bytes());
            if let Some(header) = seen.count(EntryHeader::decode(&bytes)) {
                assert_eq!(header.encode(), bytes[..ENTRY_HEADER_BYTES]);
            }
        }
        walk_entries(&bytes, &mut seen);

        let mut bytes = frame.clone();
        damage(&mut bytes, &mut random);
        if honest && bytes.len() >= FRAME_HEADER_BYTES {
            let crc = crc32c(&bytes[..28]);
            bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        }
        let cap = [100, 1 << 20, u32::MAX][random.below(3)];
        read_frame(&bytes, cap, &mut seen);

        let mut bytes = support::preamble().encode().to_vec();
        damage(&mut bytes, &mut random);
        if honest && bytes.len() >= PREAMBLE_BYTES {
            let crc = crc32c(&bytes[..12]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        }
        if let Some(preamble) = seen.count(Preamble::decode(&bytes)) {
            assert_eq!(preamble.encode(), bytes[..PREAMBLE_BYTES]);
        }
    }
    assert!(seen.accepted > 10_000 && seen.rejected > 10_000, "{seen:?}");
}

#[test]
fn every_flipped_bit_of_a_frame_an_entry_and_a_batch_is_noticed() {
    let batch = support::batch();
    let mut header = support::entry_header();
    header.body_len = batch.len() as u32;
    header.body_crc = u32::from_le_bytes(*batch.first_chunk().unwrap());
    let mut entry = header.encode().to_vec();
    entry.extend_from_slice(&batch);
    entry.resize(header.entry_bytes(), 0);

    let mut frame = support::produce().encode_head(1, batch.len()).to_vec();
    frame.extend_from_slice(&batch);
    let whole = |frame: &[u8]| {
        let header = FrameHeader::decode(frame, 1 << 20).ok()?;
        Produce::decode(header.control(frame).ok()?).ok()?;
        BatchView::parse(header.payload(frame).ok()?).ok().map(|_| ())
    };
    assert!(whole(&frame).is_some());

    let flip = |bytes: &[u8], bit: usize| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    };
    for bit in 0..batch.len() * 8 {
        assert!(BatchView::parse(&flip(&batch, bit)).is_err(), "batch bit {bit}");
    }
    for bit in 0..entry.len() * 8 {
        let damaged = flip(&entry, bit);
        assert!(Entries::new(&damaged).any(|entry| entry.is_err()), "entry bit {bit}");
    }
    for bit in 0..frame.len() * 8 {
        assert!(whole(&flip(&frame, bit)).is_none(), "frame bit {bit}");
    }
    let preamble = support::preamble().encode();
    for bit in 0..preamble.len() * 8 {
        assert!(Preamble::decode(&flip(&preamble, bit)).is_err(), "preamble bit {bit}");
    }
}
