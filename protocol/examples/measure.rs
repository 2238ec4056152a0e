//! What the protocol itself costs on the path of a produce, in ns: the median of 15 rounds.
//!
//! `cargo run --release --package corelog-protocol --example measure`

use std::hint::black_box;
use std::time::Instant;

use corelog_protocol::Durability;
use corelog_protocol::batch::{BatchBuilder, BatchView, NewRecord};
use corelog_protocol::checksum::crc32c;
use corelog_protocol::entry::{EntryHeader, EntryKind};
use corelog_protocol::frame::FrameHeader;
use corelog_protocol::ids::{Epoch, LaneId, Lsn, Offset, PartitionId};
use corelog_protocol::message::{Encoder, Fetch, FetchPartition, FetchReply, FetchedPartition};
use corelog_protocol::produce::{Produce, ProduceAck, StageTimes};

const ROUNDS: usize = 15;
const ROUND_NS: u128 = 20_000_000;

fn measure<T>(name: &str, mut work: impl FnMut() -> T) {
    // How many make a round of 20 ms.
    let mut count = 1u32;
    loop {
        let start = Instant::now();
        (0..count).for_each(|_| drop(black_box(work())));
        if start.elapsed().as_nanos() > ROUND_NS / 4 {
            count *= 4;
            break;
        }
        count *= 4;
    }
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..count).for_each(|_| drop(black_box(work())));
            start.elapsed().as_nanos() as f64 / f64::from(count)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{name:<44} {:>9.1}", rounds[ROUNDS / 2]);
}

fn batch_of(records: usize, value_len: usize) -> Vec<u8> {
    let value = vec![0x5a; value_len];
    let mut builder = BatchBuilder::new(1 << 24, 1 << 16);
    for index in 0..records {
        let timestamp = 1_800_000_000_000 + index as i64;
        let record = NewRecord { timestamp, value: Some(&value), ..NewRecord::default() };
        builder.push(&record).expect("fits");
    }
    builder.finish().to_vec()
}

fn main() {
    println!("{:<44} {:>9}", "", "ns");
    let produce = Produce {
        partition: PartitionId(7),
        timeout_ms: 1000,
        durability: Durability::QuorumDurable,
        want_stages: true,
        sent_before: false,
        former: None,
    };
    let ack = ProduceAck {
        base_offset: Offset(1),
        epoch: Epoch(1),
        append_time: 1_800_000_000_000,
        partition: PartitionId(7),
        record_count: 1,
        level: Durability::QuorumDurable,
        stages: Some(StageTimes::default()),
    };
    let entry = EntryHeader {
        kind: EntryKind::Batch,
        body_len: 155,
        record_count: 1,
        partition: PartitionId(7),
        body_crc: 1,
        lsn: Lsn(1),
        epoch: Epoch(1),
        base_offset: Offset(1),
        append_time: 1_800_000_000_000,
        lane: LaneId(1),
    };

    let small = batch_of(1, 100);
    let mut frame = produce.encode_head(1, small.len()).to_vec();
    frame.extend_from_slice(&small);
    measure("produce: frame and control, decoded", || {
        let header = FrameHeader::decode(black_box(&frame), 1 << 20).expect("sound");
        let control = header.control(&frame).expect("sound");
        Produce::decode(control).expect("sound")
    });
    measure("produce: frame and control, encoded", || black_box(&produce).encode_head(1, 155));
    measure("ack: whole frame, encoded", || black_box(&ack).encode_frame(1));
    let ack_frame = ack.encode_frame(1);
    measure("ack: whole frame, decoded", || {
        let header = FrameHeader::decode(black_box(&ack_frame), 1 << 20).expect("sound");
        ProduceAck::decode(header.control(&ack_frame).expect("sound")).expect("sound")
    });
    measure("entry header, encoded", || black_box(&entry).encode());
    let entry_bytes = entry.encode();
    measure("entry header, decoded", || EntryHeader::decode(black_box(&entry_bytes)));

    for (name, records, value_len) in
        [("1 x 100 B", 1, 100), ("64 x 1 KiB", 64, 1024), ("600 x 100 B", 600, 100)]
    {
        let batch = batch_of(records, value_len);
        measure(&format!("batch {name}: header"), || {
            BatchView::check_header(black_box(&batch)).is_ok()
        });
        let view = BatchView::check_header(&batch).expect("sound");
        measure(&format!("batch {name}: checksum"), || black_box(&view).check_crc());
        measure(&format!("batch {name}: records"), || black_box(&view).check_records());
        measure(&format!("batch {name}: all checks"), || {
            BatchView::parse(black_box(&batch)).is_ok()
        });
        let value = vec![0x5a; value_len];
        let mut builder = BatchBuilder::new(1 << 24, 1 << 16);
        measure(&format!("batch {name}: built"), || {
            builder.clear();
            for index in 0..records {
                let timestamp = 1_800_000_000_000 + index as i64;
                let record = NewRecord { timestamp, value: Some(&value), ..NewRecord::default() };
                builder.push(black_box(&record)).expect("fits");
            }
            builder.finish().len()
        });
    }
    let large = vec![0x5a; 64 << 10];
    measure("crc32c alone, 64 KiB", || crc32c(black_box(&large)));

    let fetch = Fetch {
        wait_max_ms: 500,
        bytes_min: 1,
        bytes_max: 1 << 20,
        partitions: vec![
            FetchPartition {
                partition: PartitionId(7),
                offset: Offset(1),
                bytes_max: 1 << 20
            };
            8
        ],
        any_replica: false,
    };
    let reply = FetchReply {
        partitions: vec![
            FetchedPartition {
                partition: PartitionId(7),
                error: None,
                log_start: Offset(0),
                committed_end: Offset(9),
                bytes: 4096,
                corrupt: None,
            };
            8
        ],
    };
    let mut encoder = Encoder::new();
    let fetch_frame = encoder.encode(&fetch, 1).to_vec();
    let header = FrameHeader::decode(&fetch_frame, 1 << 20).expect("sound");
    let control = header.control(&fetch_frame).expect("sound");
    let mut target = Fetch::default();
    measure("fetch of 8 partitions, decoded in place", || target.decode_from(black_box(control)));
    measure("fetch reply of 8 partitions, encoded", || encoder.encode(black_box(&reply), 1).len());
}
