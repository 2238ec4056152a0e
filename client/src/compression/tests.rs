//! Packed batches as consumers meet them: sound ones, damaged ones, and bombs.

use super::*;
use crate::engine::random::Random;
use corelog_protocol::batch::{BatchBuilder, BatchHeader, NewRecord};
use corelog_protocol::ids::ProducerId;

const BOTH: [Compression; 2] = [Compression::Lz4, Compression::Zstd];

/// A batch of values of these lengths: text that repeats, or bytes that nothing shortens.
fn batch(lengths: &[usize], is_text: bool) -> Vec<u8> {
    let mut random = Random::new(7);
    let mut builder = BatchBuilder::new(1 << 26, 1 << 16);
    builder.set_producer(ProducerId(9), 2, 77);
    for (number, &length) in lengths.iter().enumerate() {
        let value: Vec<u8> = match is_text {
            true => b"order 17, 3 apples; ".iter().copied().cycle().take(length).collect(),
            false => (0..length).map(|_| random.next_u64() as u8).collect(),
        };
        let key = number.to_le_bytes();
        let record = NewRecord {
            timestamp: 1_700_000_000_000 + number as i64,
            key: Some(&key),
            value: Some(&value),
            headers: &[],
        };
        builder.push(&record).unwrap();
    }
    builder.finish().to_vec()
}

/// These bytes as the packed records of a batch of `record_count`, with a right checksum.
fn forged(compression: Compression, record_count: u32, records: &[u8]) -> Vec<u8> {
    let header = BatchHeader {
        compression,
        records_len: 0,
        record_count,
        base_timestamp: 0,
        max_timestamp: 0,
        producer_id: ProducerId(0),
        base_sequence: 0,
        producer_epoch: 0,
    };
    let mut bytes = vec![0; BATCH_HEADER_BYTES];
    bytes.extend_from_slice(records);
    header.seal(compression, &mut bytes);
    BatchView::parse(&bytes).unwrap();
    bytes
}

#[test]
fn batches_of_every_size_come_back_byte_by_byte() {
    let mut codec = Codec::default();
    for compression in BOTH {
        for lengths in [&[100; 5][..], &[1000; 300], &[7, 70_000, 7], &[300_000], &[5 << 20, 1]] {
            let plain = batch(lengths, true);
            let mut packed = plain.clone();
            let saved = codec.pack(compression, &mut packed);
            assert_eq!(packed.len() + saved, plain.len());
            assert!(saved > plain.len() / 4, "{compression:?} {lengths:?}: {saved}");
            let view = BatchView::parse(&packed).unwrap();
            assert_eq!(view.header().compression, compression);
            assert_eq!(view.header().producer_id, ProducerId(9));
            assert!(codec.unpack(&packed).unwrap() == plain, "{compression:?} {lengths:?}");
        }
    }
}

#[test]
fn a_batch_that_does_not_shrink_stays_plain() {
    let mut codec = Codec::default();
    for compression in BOTH {
        for lengths in [&[1][..], &[20], &[5000; 10], &[300_000]] {
            let plain = batch(lengths, false);
            let mut packed = plain.clone();
            let saved = codec.pack(compression, &mut packed);
            // Keys and lengths may give a little; what grows is never sent.
            assert_eq!(packed.len() + saved, plain.len());
            assert!(saved > 0 || packed == plain);
            assert!(saved < 20 * lengths.len());
        }
        let plain = batch(&[300_000], false);
        let mut packed = plain.clone();
        assert_eq!(codec.pack(compression, &mut packed), 0);
        assert!(packed == plain);
    }
    let mut plain = batch(&[1000], true);
    assert_eq!(codec.pack(Compression::None, &mut plain), 0);
}

#[test]
fn a_bomb_is_refused_at_the_cap_and_the_next_batch_is_read() {
    let mut codec = Codec::default();
    for compression in BOTH {
        for beyond in [0, 1] {
            // One record that fills what is allowed, and one with a byte more. Lengths take 4 bytes.
            let mut zeros = vec![0; UNPACKED_BYTES_MAX + beyond];
            let value = zeros.len() - 4 - 2 - 4 - 1;
            let head = [varint(value + 2 + 4 + 1), vec![0, 0], varint(value + 1)].concat();
            zeros[..head.len()].copy_from_slice(&head);
            let mut packed = vec![];
            match compression {
                Compression::Lz4 => assert!(lz4::pack(&zeros, &mut packed)),
                _ => assert!(codec.zstd.pack(&zeros, &mut packed)),
            }
            assert!(packed.len() < 100 << 10, "{}", packed.len());
            let outcome = codec.unpack(&forged(compression, 1, &packed));
            match beyond {
                0 => assert_eq!(outcome.map(|plain| plain.len()), Ok(48 + UNPACKED_BYTES_MAX)),
                _ => assert_eq!(outcome, Err(PackFault::TooLarge), "{compression:?}"),
            }
        }
        let plain = batch(&[1000], true);
        let mut packed = plain.clone();
        codec.pack(compression, &mut packed);
        assert!(codec.unpack(&packed).unwrap() == plain);
    }
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[test]
fn a_size_that_a_zstd_frame_declares_is_not_taken_for_true() {
    let mut codec = Codec::default();
    let mut packed = Vec::new();
    assert!(codec.zstd.pack(&[7; 100_000], &mut packed));
    // Single segment with a content size of 4 bytes, little-endian, after magic and descriptor.
    assert_eq!(packed[4] & 0xe0, 0xa0);
    for (size, fault) in [(u32::MAX, PackFault::TooLarge), (99_999, PackFault::Garbage)] {
        packed[5..9].copy_from_slice(&size.to_le_bytes());
        let batch = forged(Compression::Zstd, 1, &packed);
        assert_eq!(codec.unpack(&batch), Err(fault));
    }
}

#[test]
fn data_that_is_cut_or_goes_on_or_is_none_is_garbage() {
    let mut codec = Codec::default();
    for compression in BOTH {
        let plain = batch(&[400; 20], true);
        let mut packed = plain.clone();
        codec.pack(compression, &mut packed);
        let view = BatchView::parse(&packed).unwrap();
        let (header, records) = (*view.header(), view.record_bytes().to_vec());
        let reseal = |records: &[u8]| {
            let mut bytes = vec![0; BATCH_HEADER_BYTES];
            bytes.extend_from_slice(records);
            header.seal(compression, &mut bytes);
            bytes
        };
        assert!(codec.unpack(&reseal(&records)).unwrap() == plain);
        for cut in 1..records.len() {
            let outcome = codec.unpack(&reseal(&records[..cut]));
            match compression {
                // The end mark holds nothing: without it everything is there.
                Compression::Lz4 if cut + 4 >= records.len() => {}
                _ => assert!(outcome.is_err(), "{compression:?}: cut at {cut}"),
            }
        }
        for more in [&[0][..], &[0; 4], &records[..]] {
            let outcome = codec.unpack(&reseal(&[&records[..], more].concat()));
            assert_eq!(outcome, Err(PackFault::Garbage), "{compression:?}");
        }
        let other = BOTH.into_iter().find(|&other| other != compression).unwrap();
        assert_eq!(codec.unpack(&forged(other, 20, &records)), Err(PackFault::Garbage));
        for count in [1, 19, 21, 1 << 20] {
            let outcome = codec.unpack(&forged(compression, count, &records));
            assert!(matches!(outcome, Err(PackFault::Records(_))), "{count}: {outcome:?}");
        }
    }
}

#[test]
fn random_damage_behind_a_right_checksum_never_panics_and_never_passes_as_the_records() {
    let mut codec = Codec::default();
    let seed = 20_110;
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let (mut refused, mut passed) = (0, 0);
    for compression in BOTH {
        let plain = batch(&[400; 20], true);
        let mut packed = plain.clone();
        codec.pack(compression, &mut packed);
        let view = BatchView::parse(&packed).unwrap();
        let (header, records) = (*view.header(), view.record_bytes().to_vec());
        for _ in 0..5000 {
            let mut bytes = vec![0; BATCH_HEADER_BYTES];
            bytes.extend_from_slice(&records);
            for _ in 0..=random.below(3) {
                let at = BATCH_HEADER_BYTES + random.below(records.len() as u64) as usize;
                bytes[at] = random.next_u64() as u8;
            }
            header.seal(compression, &mut bytes);
            match codec.unpack(&bytes) {
                // Values may differ, the structure is sound.
                Ok(plain) => {
                    BatchView::parse(&plain).unwrap();
                    passed += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 1000, "{refused} refused, {passed} passed");
    let plain = batch(&[1000], true);
    let mut packed = plain.clone();
    codec.pack(Compression::Zstd, &mut packed);
    assert!(codec.unpack(&packed).unwrap() == plain, "a context is as good as new");
}
