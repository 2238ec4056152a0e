//! Declared lengths are only ever compared, never allocated: 0, 1, cap + 1, 2^31 - 1, 2^32 - 1 and
//! their like give typed errors, and the allocator is not called.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use corelog_protocol::batch::{
    BATCH_HEADER_BYTES, BatchBuilder, BatchError, BatchView, NewRecord, RECORDS_PER_BATCH_MAX,
    RecordFault,
};
use corelog_protocol::checksum::crc32c;
use corelog_protocol::entry::{ENTRY_BODY_BYTES_MIN, EntryError, EntryHeader};
use corelog_protocol::frame::{FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameKind};
use corelog_protocol::message::*;
use corelog_protocol::produce::{Produce, ProduceAck};
use support::seeded;

const LENGTHS: [u32; 9] =
    [0, 1, CAP - 1, CAP, CAP + 1, i32::MAX as u32 - 1, i32::MAX as u32, u32::MAX - 1, u32::MAX];
const CAP: u32 = 1 << 20;

thread_local! {
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
}

/// Counts the bytes that this thread asks for.
struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + layout.size() as u64);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocated_by<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let before = ALLOCATED.get();
    let result = work();
    (ALLOCATED.get() - before, result)
}

/// The result of something that must not allocate.
fn frugal<T>(work: impl FnOnce() -> T) -> T {
    let (bytes, result) = allocated_by(work);
    assert_eq!(bytes, 0, "allocated");
    result
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocated_by(|| vec![0u8; 1000]).0, 1000);
}

#[test]
fn frame_lengths_above_the_cap_are_too_large_and_nothing_is_allocated() {
    for control_len in LENGTHS {
        for payload_len in LENGTHS {
            let header = FrameHeader {
                kind: FrameKind::Produce,
                control_len,
                payload_len,
                correlation: 9,
                control_crc: 0,
            };
            let bytes = header.encode();
            let sum = u64::from(control_len) + u64::from(payload_len);
            let decoded = frugal(|| FrameHeader::decode(&bytes, CAP));
            if sum <= u64::from(CAP) {
                assert_eq!(decoded, Ok(header));
                // Neither part has arrived.
                if control_len > 0 {
                    let control = frugal(|| header.control(&bytes));
                    assert!(matches!(control, Err(FrameError::Incomplete { have: 32, .. })));
                }
                if payload_len > 0 {
                    let payload = frugal(|| header.payload(&bytes));
                    assert!(matches!(payload, Err(FrameError::Incomplete { have: 32, .. })));
                }
            } else {
                let bytes = sum;
                assert_eq!(
                    decoded,
                    Err(FrameError::TooLarge { kind: 16, correlation: 9, bytes, cap: CAP })
                );
            }
        }
    }
}

#[test]
fn short_frames_ask_for_more_and_foreign_ones_are_told_apart() {
    let frame = support::produce_ack().encode_frame(1);
    for have in 0..FRAME_HEADER_BYTES {
        let decoded = frugal(|| FrameHeader::decode(&frame[..have], CAP));
        assert_eq!(decoded, Err(FrameError::Incomplete { have, need: 32 }));
    }
    let get = b"GET / HTTP/1.1\r\nHost: localhost:9092\r\n\r\n";
    assert_eq!(frugal(|| FrameHeader::decode(get, CAP)), Err(FrameError::HeaderCrc));

    let resealed = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = frame;
        change(&mut bytes);
        let crc = crc32c(&bytes[..28]);
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        FrameHeader::decode(&bytes, CAP)
    };
    assert_eq!(resealed(&|bytes| bytes[0] = b'X'), Err(FrameError::Magic));
    // A newer version, an unknown kind, an unknown flag: to be skipped, all 72 bytes.
    for (at, value) in [(4, 2), (4, 0), (5, 0), (5, 200), (6, 1), (7, 0x80)] {
        let Err(FrameError::Unsupported(frame)) = resealed(&|bytes| bytes[at] = value) else {
            panic!("byte {at} = {value} was accepted");
        };
        assert_eq!((frame.skip_bytes, frame.correlation), (72, 1));
    }
    // Too large to be skipped.
    let huge = resealed(&|bytes| {
        bytes[5] = 200;
        bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    });
    assert!(matches!(huge, Err(FrameError::TooLarge { kind: 200, .. })));
}

#[test]
fn padding_of_a_control_must_be_zero() {
    let mut frame = Vec::new();
    support::topic_delete_reply().encode(3, &mut frame);
    let mut header = FrameHeader::decode(&frame, CAP).unwrap();
    // Claim one byte less: the last one becomes padding.
    let control = header.control(&frame).unwrap().to_vec();
    let shorter = &control[..control.len() - 1];
    header.control_len -= 1;
    header.control_crc = crc32c(shorter);
    let last = frame.len() - 1;
    frame[last] = 0;
    assert_eq!(header.control(&frame), Ok(shorter));
    frame[last] = 1;
    assert_eq!(header.control(&frame), Err(FrameError::ControlCrc { correlation: 3 }));
}

#[test]
fn batch_lengths_and_counts_are_held_against_the_bytes() {
    let batch = support::batch();
    let records_len = (batch.len() - BATCH_HEADER_BYTES) as u32;
    for length in LENGTHS {
        let mut bytes = batch.clone();
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        let checked = frugal(|| BatchView::check_header(&bytes).map(|_| ()));
        let declared = u64::from(length) + BATCH_HEADER_BYTES as u64;
        assert_eq!(checked, Err(BatchError::Length { declared, actual: batch.len() as u64 }));
    }
    for count in LENGTHS.into_iter().chain([records_len / 5, records_len / 5 + 1]) {
        let mut bytes = batch.clone();
        bytes[12..16].copy_from_slice(&count.to_le_bytes());
        let parsed =
            frugal(|| BatchView::check_header(&bytes).and_then(|view| view.check_records()));
        if count == 0 || count > records_len / 5 {
            assert_eq!(parsed, Err(BatchError::RecordCount { count, records_len }));
        } else if count < 3 {
            assert!(matches!(parsed, Err(BatchError::TrailingBytes { .. })));
        } else {
            let fault = RecordFault::Truncated;
            assert_eq!(parsed, Err(BatchError::Record { index: 3, fault }));
        }
    }
    for have in 0..BATCH_HEADER_BYTES {
        let checked = frugal(|| BatchView::check_header(&batch[..have]).map(|_| ()));
        assert_eq!(checked, Err(BatchError::TooShort { have }));
    }
    // A compressed batch is bound as well.
    for (count, sound) in [(1, true), (RECORDS_PER_BATCH_MAX, true), (u32::MAX, false)] {
        let mut bytes = batch.clone();
        bytes[5] = 2;
        bytes[12..16].copy_from_slice(&count.to_le_bytes());
        assert_eq!(frugal(|| BatchView::check_header(&bytes).is_ok()), sound);
    }
}

#[test]
fn record_lengths_inside_a_batch_are_held_against_the_bytes() {
    // One record of one value byte: length 7 (of 6 bytes), delta, key, value length + 1, …
    let mut builder = BatchBuilder::new(1000, 1);
    builder.push(&NewRecord { value: Some(b"xy"), ..NewRecord::default() }).unwrap();
    let batch = builder.finish().to_vec();
    let records = BATCH_HEADER_BYTES;
    assert_eq!(batch[records..], [6, 0, 0, 3, b'x', b'y', 0]);
    let fault_of = |at: usize, value: u8| {
        let mut bytes = batch.clone();
        bytes[records + at] = value;
        let checked = frugal(|| BatchView::check_header(&bytes).unwrap().check_records());
        match checked {
            Err(BatchError::Record { index: 0, fault }) => fault,
            other => panic!("byte {at} = {value}: {other:?}"),
        }
    };
    assert_eq!(fault_of(0, 0), RecordFault::Length);
    assert_eq!(fault_of(0, 5), RecordFault::Length);
    assert_eq!(fault_of(0, 7), RecordFault::Truncated);
    assert_eq!(fault_of(1, 2), RecordFault::Timestamp);
    assert_eq!(fault_of(2, 5), RecordFault::Length);
    assert_eq!(fault_of(3, 0x7f), RecordFault::Length);
    assert_eq!(fault_of(6, 1), RecordFault::Length);
    assert_eq!(fault_of(6, 0x7f), RecordFault::Length);
    // 0x83 begins a longer number that runs into the value: 3 + 0x78 << 7.
    assert_eq!(fault_of(3, 0x83), RecordFault::Length);
}

#[test]
fn entry_lengths_are_held_against_the_bytes() {
    for body_len in LENGTHS {
        let mut header = support::entry_header();
        header.body_len = body_len;
        let bytes = header.encode();
        let decoded = frugal(|| EntryHeader::decode(&bytes));
        if (body_len as usize) < ENTRY_BODY_BYTES_MIN {
            assert_eq!(decoded, Err(EntryError::Counts));
        } else {
            assert_eq!(decoded, Ok(header));
            let checked = frugal(|| header.check_body(&[0; 100]));
            let need = body_len as usize;
            assert_eq!(checked, Err(EntryError::Incomplete { have: 100, need }));
        }
    }
}

#[test]
fn fixed_controls_of_another_length_are_malformed() {
    let bytes = [0; 100];
    for len in 0..100 {
        assert_eq!(frugal(|| Produce::decode(&bytes[..len]).is_ok()), len == 16);
        assert_eq!(frugal(|| ProduceAck::decode(&bytes[..len]).is_ok()), len == 72);
    }
}

#[test]
fn what_a_table_makes_us_allocate_is_bound_by_its_length() {
    let mut random = seeded("allocation_bound");
    let mut samples: Vec<Vec<u8>> = Vec::new();
    macro_rules! add {
        ($name:literal, $message:ident, $sample:expr) => {
            let mut frame = Vec::new();
            $sample.encode(1, &mut frame);
            let header = FrameHeader::decode(&frame, u32::MAX).unwrap();
            samples.push(header.control(&frame).unwrap().to_vec());
        };
    }
    for_each_table!(add);
    let mut decoded = 0;
    for sample in &samples {
        for _ in 0..1_000 {
            let mut bytes = sample.clone();
            let at = random.below(bytes.len() / 4) * 4;
            let length = LENGTHS[random.below(LENGTHS.len())];
            let width = 1 + random.below(4);
            bytes[at..at + width].copy_from_slice(&length.to_le_bytes()[..width]);
            // Vectors of strings grow by doubling: 24 bytes each, twice, for 12 on the wire.
            let bound = 1024 + 8 * bytes.len() as u64;
            macro_rules! decode {
                ($name:literal, $message:ident, $sample:expr) => {
                    let (allocated, result) = allocated_by(|| $message::decode(&bytes));
                    assert!(allocated <= bound, "{}: {allocated} for {}", $name, bytes.len());
                    decoded += u32::from(result.is_ok());
                };
            }
            for_each_table!(decode);
        }
    }
    assert!(decoded > 1_000, "{decoded}");
}
