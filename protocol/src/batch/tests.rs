//! Batches as their users meet them.

use super::*;
use crate::ErrorCode;
use crate::checksum::Crc;
use crate::ids::ProducerId;

fn record(timestamp: i64, value: &[u8]) -> NewRecord<'_> {
    NewRecord { timestamp, value: Some(value), ..NewRecord::default() }
}

#[test]
fn a_record_costs_at_most_20_bytes_beside_its_contents() {
    let mut worst = 0;
    let key = vec![b'k'; 1 << 20];
    let value = vec![b'v'; 16 << 20];
    for key_len in [0, 1, 126, 127, 16_382, 16_383, 1 << 20] {
        for value_len in [0, 1, 100, 126, 127, 16_383, 1 << 20, 16 << 20] {
            // A batch that spans a day, and one that spans 30 years.
            for later_ms in [0, 1, 1_000, 86_400_000, 946_080_000_000, -946_080_000_000] {
                let mut builder = BatchBuilder::new(1 << 26, 10);
                builder.push(&record(1_800_000_000_000, b"")).unwrap();
                let before = builder.len_bytes();
                let record = NewRecord {
                    timestamp: 1_800_000_000_000 + later_ms,
                    key: Some(&key[..key_len]),
                    value: Some(&value[..value_len]),
                    headers: &[],
                };
                builder.push(&record).unwrap();
                let bytes = builder.len_bytes() - before;
                assert!(bytes <= record_bytes_max(&record));
                worst = worst.max(bytes - key_len - value_len);
            }
        }
    }
    println!("worst overhead: {worst} B per record");
    assert!(worst <= 20, "{worst}");
    // The usual: 100 bytes without a key, within 8 s of the first.
    let mut builder = BatchBuilder::new(1 << 20, 1000);
    for ms in 0..1000 {
        builder.push(&record(1_800_000_000_000 + 8 * ms, &[b'v'; 100])).unwrap();
    }
    let overhead = builder.len_bytes() - BATCH_HEADER_BYTES - 100_000;
    assert!(overhead <= 7 * 1000, "{overhead}");
}

#[test]
fn records_come_back_as_they_were_pushed_and_lie_inside_the_batch() {
    let headers = [Header { name: "a", value: Some(b"1") }, Header { name: "b", value: None }];
    let given = [
        NewRecord { timestamp: i64::MIN, key: None, value: None, headers: &[] },
        NewRecord { timestamp: -1, key: Some(b""), value: Some(b""), headers: &headers },
        NewRecord {
            timestamp: i64::MIN + 1,
            key: Some(b"k"),
            value: Some(&[7; 300]),
            headers: &[],
        },
    ];
    let mut builder = BatchBuilder::new(1 << 16, 10);
    for record in &given {
        builder.push(record).unwrap();
    }
    let bytes = builder.finish();
    let view = BatchView::parse(bytes).unwrap();
    assert_eq!(view.header().max_timestamp, -1);
    assert_eq!(view.header().base_timestamp, i64::MIN);
    let inside = bytes.as_ptr_range();
    for (given, read) in given.iter().zip(view.records()) {
        let read = read.unwrap();
        assert_eq!(
            (read.timestamp, read.key, read.value),
            (given.timestamp, given.key, given.value)
        );
        assert!(read.headers().eq(given.headers.iter().copied()));
        // Not copied. An empty value may lie at the very end.
        let value = read.value.unwrap_or_default();
        assert!(value.is_empty() || inside.contains(&value.as_ptr()));
    }
    assert_eq!(view.records().count(), given.len());
}

#[test]
fn a_refused_record_leaves_the_batch_as_it_was() {
    let mut builder = BatchBuilder::new(BATCH_HEADER_BYTES + 20, 2);
    builder.push(&record(0, &[1; 5])).unwrap();
    let before = builder.finish().to_vec();

    let refusals = [
        (record(0, &[1; 20]), PushError::TooLarge { bytes: 73, bytes_max: 68 }),
        (record(0, &[1; 6]), PushError::Full),
        (record(i64::MAX, b""), PushError::Full),
    ];
    for (record, error) in refusals {
        assert_eq!(builder.push(&record), Err(error));
        assert_eq!(builder.finish(), before);
    }
    let long_name = "x".repeat(HEADER_NAME_BYTES_MAX + 1);
    let headers = [Header { name: &long_name, value: None }];
    let refused = NewRecord { headers: &headers, ..NewRecord::default() };
    assert_eq!(builder.push(&refused), Err(PushError::Headers));
    let headers = [Header { name: "", value: None }; HEADERS_PER_RECORD_MAX + 1];
    let refused = NewRecord { headers: &headers, ..NewRecord::default() };
    assert_eq!(builder.push(&refused), Err(PushError::Headers));

    // Five bytes more just fit; then the count is full.
    builder.push(&record(0, &[1; 5])).unwrap();
    assert_eq!(builder.len_bytes(), BATCH_HEADER_BYTES + 20);
    assert_eq!(builder.push(&NewRecord::default()), Err(PushError::Full));
    assert_eq!(BatchView::parse(builder.finish()).unwrap().header().record_count, 2);

    let mut builder = BatchBuilder::new(1000, 3);
    builder.push(&record(i64::MIN, b"")).unwrap();
    assert_eq!(builder.push(&record(0, b"")), Err(PushError::TimestampSpread));
    assert_eq!(builder.record_count(), 1);
}

#[test]
fn a_builder_is_used_again_and_forgets_its_producer() {
    let mut builder = BatchBuilder::new(1000, 3);
    builder.set_producer(ProducerId(5), 6, 7);
    builder.push(&record(9, b"first")).unwrap();
    let first = builder.take(vec![0xee; 100]);
    let view = BatchView::parse(&first).unwrap();
    let header = view.header();
    assert_eq!(
        (header.producer_id, header.producer_epoch, header.base_sequence),
        (ProducerId(5), 6, 7)
    );
    assert!(builder.is_empty());

    builder.push(&record(3, b"second")).unwrap();
    let second = builder.finish();
    let view = BatchView::parse(second).unwrap();
    assert_eq!(view.header().producer_id, ProducerId(0));
    assert_eq!((view.header().base_timestamp, view.header().max_timestamp), (3, 3));
    assert_eq!(view.records().next().unwrap().unwrap().value, Some(&b"second"[..]));
}

#[test]
#[should_panic(expected = "an empty batch does not exist")]
fn an_empty_batch_is_not_finished() {
    BatchBuilder::new(1000, 1).finish();
}

#[test]
fn a_checksum_gathered_while_the_batch_arrives_is_as_good() {
    let mut builder = BatchBuilder::new(10_000, 100);
    builder.push(&record(0, &[3; 5000])).unwrap();
    let bytes = builder.finish();
    let mut crc = Crc::new();
    bytes[4..].chunks(777).for_each(|piece| crc.update(piece));
    let view = BatchView::check_header(bytes).unwrap();
    assert_eq!(crc.value(), view.stored_crc());
    assert_eq!(view.check_crc_against(crc.value()), Ok(()));
    let error = view.check_crc_against(1).unwrap_err();
    assert_eq!(error, BatchError::Crc { stored: crc.value(), computed: 1 });
    assert_eq!(error.code(), ErrorCode::CorruptBatch);
}

#[test]
fn a_header_may_be_checked_before_the_records_have_come() {
    let mut builder = BatchBuilder::new(10_000, 100);
    builder.push(&record(0, &[3; 5000])).unwrap();
    let bytes = builder.finish();
    let header = BatchHeader::check(&bytes[..BATCH_HEADER_BYTES], bytes.len()).unwrap();
    assert_eq!(header.batch_bytes(), bytes.len());
    assert!(BatchHeader::check(&bytes[..BATCH_HEADER_BYTES], bytes.len() + 1).is_err());
}

/// A sound batch of two records, with some header bytes replaced and the checksum made right.
fn doctored(at: usize, field: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(1000, 10);
    builder.push(&record(100, b"a")).unwrap();
    builder.push(&record(50, b"b")).unwrap();
    let mut bytes = builder.finish().to_vec();
    bytes[at..at + field.len()].copy_from_slice(field);
    let crc = crate::checksum::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn a_lying_header_is_invalid_even_with_a_matching_checksum() {
    let verdict = |at, field: &[u8]| BatchView::parse(&doctored(at, field)).map(|_| ());
    assert_eq!(verdict(4, &[1]), Ok(()));
    assert_eq!(verdict(4, &[2]), Err(BatchError::Format { format: 2 }));
    // Unknown codec, offset deltas, unknown bit.
    for attributes in [3, 0x80, 4] {
        assert_eq!(verdict(5, &[attributes]), Err(BatchError::Attributes { attributes }));
    }
    assert_eq!(verdict(6, &[1]), Err(BatchError::Reserved));
    assert_eq!(verdict(46, &[1]), Err(BatchError::Reserved));
    // A sequence or an epoch without a producer.
    assert_eq!(verdict(40, &[1]), Err(BatchError::Reserved));
    assert_eq!(verdict(44, &[1]), Err(BatchError::Reserved));
    assert_eq!(verdict(12, &[1]), Err(BatchError::TrailingBytes { bytes: 6 }));
    let records_len = 12;
    assert_eq!(verdict(12, &[3]), Err(BatchError::RecordCount { count: 3, records_len }));
    // A greatest timestamp that no record has: retention would wait for it.
    assert_eq!(verdict(24, &101i64.to_le_bytes()), Err(BatchError::Timestamps));
    assert_eq!(verdict(24, &i64::MAX.to_le_bytes()), Err(BatchError::Timestamps));
    assert_eq!(verdict(24, &99i64.to_le_bytes()), Err(BatchError::Timestamps));
    // A base from which a delta of -50 overflows.
    let fault = RecordFault::Timestamp;
    let overflow = verdict(16, &(i64::MIN + 49).to_le_bytes());
    assert_eq!(overflow, Err(BatchError::Record { index: 1, fault }));
    // A base that is not the first record's.
    let first_delta = verdict(BATCH_HEADER_BYTES + 1, &[1]);
    assert_eq!(first_delta, Err(BatchError::Timestamps));
    for error in [BatchError::Reserved, BatchError::Timestamps] {
        assert_eq!(error.code(), ErrorCode::InvalidBatch);
    }
}

#[test]
fn header_names_must_be_utf8_and_few() {
    let headers = [Header { name: "abc", value: None }];
    let mut builder = BatchBuilder::new(1000, 1);
    builder.push(&NewRecord { headers: &headers, ..NewRecord::default() }).unwrap();
    let mut bytes = builder.finish().to_vec();
    let at = bytes.windows(3).position(|window| window == b"abc").unwrap();
    bytes[at] = 0xff;
    let fault = RecordFault::HeaderName;
    let checked = BatchView::check_header(&bytes).unwrap().check_records();
    assert_eq!(checked, Err(BatchError::Record { index: 0, fault }));

    // 256 headers pass, and a 257th that is written by hand does not.
    let headers = [Header { name: "", value: None }; HEADERS_PER_RECORD_MAX];
    let mut builder = BatchBuilder::new(1000, 1);
    builder.push(&NewRecord { headers: &headers, ..NewRecord::default() }).unwrap();
    let mut bytes = builder.finish().to_vec();
    BatchView::parse(&bytes).unwrap();
    let count = bytes.windows(2).position(|window| window == [0x80, 2]).unwrap();
    bytes[count] = 0x81;
    let fault = RecordFault::HeaderCount;
    let checked = BatchView::check_header(&bytes).unwrap().check_records();
    assert_eq!(checked, Err(BatchError::Record { index: 0, fault }));
}

#[test]
fn a_compressed_batch_is_sound_but_not_readable() {
    let bytes = doctored(5, &[Compression::Zstd.to_wire()]);
    let view = BatchView::parse(&bytes).unwrap();
    let error = BatchError::Compressed { compression: Compression::Zstd };
    assert_eq!(view.check_records(), Err(error));
    let mut records = view.records();
    assert_eq!(records.next(), Some(Err(error)));
    assert_eq!(records.next(), None);
}

#[test]
fn compressions_have_names_and_numbers() {
    for (number, name) in [(0, "none"), (1, "lz4"), (2, "zstd")] {
        let compression: Compression = name.parse().unwrap();
        assert_eq!(compression.to_string(), name);
        assert_eq!(compression.to_wire(), number);
        assert_eq!(Compression::from_wire(number), Some(compression));
    }
    assert_eq!("gzip".parse::<Compression>(), Err(UnknownCompression));
}

#[test]
fn a_batch_is_sealed_again_around_another_encoding_of_its_records() {
    let mut builder = BatchBuilder::new(1000, 10);
    builder.push(&record(5, b"one")).unwrap();
    builder.push(&record(9, b"two")).unwrap();
    builder.set_producer(ProducerId(7), 3, 40);
    let plain = builder.finish().to_vec();
    let header = *BatchView::parse(&plain).unwrap().header();
    let mut packed = vec![0; BATCH_HEADER_BYTES];
    packed.extend_from_slice(b"short");
    header.seal(Compression::Lz4, &mut packed);
    let view = BatchView::parse(&packed).unwrap();
    assert_eq!(view.record_bytes(), b"short");
    let expected = BatchHeader { compression: Compression::Lz4, records_len: 5, ..header };
    assert_eq!(*view.header(), expected);
    // And back.
    let mut again = plain.clone();
    again[..BATCH_HEADER_BYTES].fill(0);
    view.header().seal(Compression::None, &mut again);
    assert_eq!(again, plain);
}

#[test]
fn a_cursor_walks_the_same_records_and_believes_no_other_batch() {
    let mut builder = BatchBuilder::new(1 << 16, 10);
    for number in 0..5 {
        builder.push(&record(number, &[7; 20])).unwrap();
    }
    let bytes = builder.finish().to_vec();
    let view = BatchView::parse(&bytes).unwrap();
    let mut cursor = RecordCursor::default();
    let mut kept = Vec::new();
    for expected in view.records() {
        kept.push(cursor);
        assert_eq!(view.next_record(&mut cursor), Ok(Some(expected.unwrap())));
    }
    assert_eq!(view.next_record(&mut cursor), Ok(None));
    // A kept place gives its record again.
    assert_eq!(view.next_record(&mut kept[3]).unwrap().unwrap().timestamp, 3);
    let mut other = BatchBuilder::new(1 << 16, 10);
    for number in 0..9 {
        other.push(&record(number, b"")).unwrap();
    }
    let bytes = other.finish().to_vec();
    let fault = RecordFault::Truncated;
    let error = BatchError::Record { index: 5, fault };
    assert_eq!(BatchView::parse(&bytes).unwrap().next_record(&mut cursor), Err(error));
}

#[test]
fn the_walk_goes_in_steps_and_comes_to_the_same_end() {
    let mut builder = BatchBuilder::new(100_000, 1000);
    for index in 0..1000 {
        builder.push(&record(index, &[7; 50])).unwrap();
    }
    let bytes = builder.finish();
    let view = BatchView::check_header(bytes).unwrap();
    let mut check = RecordCheck::new(&view).unwrap();
    let mut steps = 1;
    while !check.advance(&view, 1000).unwrap() {
        steps += 1;
    }
    // 57 to 58 bytes each: at least 18 a step, and never more than 1000 bytes and one record.
    assert!((56..=58).contains(&steps), "{steps}");
}
