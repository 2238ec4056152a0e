//! Batches that are packed by one engine and unpacked by another.

use super::consuming::{error, reading, take, values};
use super::peer::*;
use crate::engine::*;
use crate::{Compression, Error, PackFault, pack_batch};
use corelog_protocol::batch::{BATCH_HEADER_BYTES, BatchView};
use corelog_protocol::ids::Offset;

#[test]
fn a_batch_leaves_packed_and_its_deliveries_are_as_ever() {
    for compression in [Compression::Lz4, Compression::Zstd] {
        let mut config = config();
        config.producer.compression = compression;
        let mut scene = Scene::with_topic(config, &[0]);
        let value = "apples and pears; ".repeat(50);
        for token in 1..=4 {
            scene.produce(&value, token);
        }
        let asked = scene.asked();
        scene.ack(&asked[0], 1);
        let gathered = scene.asked();
        let header = *BatchView::parse(&gathered[0].payload).unwrap().header();
        assert_eq!((header.compression, header.record_count), (compression, 2));
        assert!(gathered[0].payload.len() < 300);
        assert_eq!(gathered[0].values(), [&*value, &*value]);
        assert!(scene.engine.counters().bytes_saved > 3 * 700);
        // Refused and sent again, it is the same.
        scene.ack(&asked[1], 2);
        scene.refuse(&gathered[0], corelog_protocol::ErrorCode::Overloaded, 10);
        scene.sleep(11);
        let again = scene.asked();
        assert!(again[0].payload == gathered[0].payload);
        scene.ack(&again[0], 3);
        assert_eq!(scene.told().len(), 3);
        assert_eq!(scene.engine.memory_used(), 0);
    }
}

#[test]
fn a_value_that_does_not_shrink_leaves_plain() {
    let mut config = config();
    config.producer.compression = Compression::Zstd;
    let mut scene = Scene::with_topic(config, &[0]);
    scene.produce("short", 1);
    let asked = scene.asked();
    let view = BatchView::parse(&asked[0].payload).unwrap();
    assert_eq!(view.header().compression, Compression::None);
    assert_eq!(scene.engine.counters().bytes_saved, 0);
}

#[test]
fn a_packed_batch_is_read_as_a_plain_one_from_any_offset_in_it() {
    let long = "apples and pears; ".repeat(50);
    for compression in [Compression::Lz4, Compression::Zstd] {
        let mut scene = Scene::with_topic(config(), &[0]);
        let (consumer, _, asked) = reading(&mut scene, Position::Offset(Offset(4)));
        let packed = packed_entry(100, 3, &["c", &long, &long], |batch| {
            let packed = pack_batch(compression, batch.clone());
            assert!(packed.len() < batch.len());
            packed
        });
        let both = [packed, entry(100, 6, &["f"])].concat();
        scene.bytes(asked[0].link, &fetch_reply(&asked[0], 7, &[(100, both)]));
        let fetched = take(&mut scene, consumer);
        let Some(Fetched::Batch(batch)) = &fetched else { panic!("{fetched:?}") };
        assert_eq!(batch.compression, compression);
        BatchView::parse(batch.as_bytes()).unwrap();
        assert_eq!(values(fetched), [(4, long.clone()), (5, long.clone())]);
        assert_eq!(values(take(&mut scene, consumer)), [(6, "f".into())]);
    }
}

#[test]
fn a_batch_that_does_not_unpack_is_a_typed_error_and_reading_goes_on_after_it() {
    let cut = |batch: Vec<u8>| {
        let packed = pack_batch(Compression::Zstd, batch);
        let header = *BatchView::parse(&packed).unwrap().header();
        let mut cut = packed[..packed.len() - 5].to_vec();
        header.seal(Compression::Zstd, &mut cut);
        cut
    };
    let bomb = |batch: Vec<u8>| {
        let header = *BatchView::parse(&batch).unwrap().header();
        let zeros = vec![0; crate::UNPACKED_BYTES_MAX + 1];
        let mut bomb = vec![0; BATCH_HEADER_BYTES];
        bomb.extend(zstd::bulk::compress(&zeros, 3).unwrap());
        assert!(bomb.len() < 4096);
        header.seal(Compression::Zstd, &mut bomb);
        bomb
    };
    let long = "apples and pears; ".repeat(50);
    for (is_bomb, fault) in [(false, PackFault::Garbage), (true, PackFault::TooLarge)] {
        let mut scene = Scene::with_topic(config(), &[0]);
        let (consumer, assignment, asked) = reading(&mut scene, Position::Offset(Offset(0)));
        let bad = packed_entry(100, 1, &[&long, &long], |batch| match is_bomb {
            true => bomb(batch),
            false => cut(batch),
        });
        let all = [entry(100, 0, &["a"]), bad, entry(100, 3, &["d"])].concat();
        scene.bytes(asked[0].link, &fetch_reply(&asked[0], 4, &[(100, all)]));
        assert_eq!(values(take(&mut scene, consumer)), [(0, "a".into())]);
        let found = error(take(&mut scene, consumer));
        assert_eq!(found, Error::Unpack { first: Offset(1), end: Offset(3), fault });
        assert!(found.is_definite() && !found.may_retry());
        // It stands still, and is not handed what lies behind.
        assert!(take(&mut scene, consumer).is_none());
        let ahead = scene.asked();
        scene.bytes(ahead[0].link, &fetch_reply(&ahead[0], 4, &[(100, Vec::new())]));
        let (after, now) = (Position::Offset(Offset(3)), scene.now);
        scene.engine.seek(now, assignment, after, &mut scene.effects);
        scene.carry_out();
        let asked = scene.asked();
        let asked = asked.last().expect("it fetches on");
        assert_eq!(asked.fetch().partitions[0].offset, Offset(3));
        let reply = fetch_reply(asked, 4, &[(100, entry(100, 3, &["d"]))]);
        scene.bytes(asked.link, &reply);
        assert_eq!(values(take(&mut scene, consumer)), [(3, "d".into())]);
    }
}
