//! A small broker in memory, on real sockets: one topic `t`, partition n on shard n.

use corelog::Durability;
use corelog_protocol::batch::BatchView;
use corelog_protocol::entry::{EntryHeader, EntryKind};
use corelog_protocol::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use corelog_protocol::ids::*;
use corelog_protocol::message::*;
use corelog_protocol::preamble::Preamble;
use corelog_protocol::produce::{Produce, ProduceAck};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const PARTITIONS: u32 = 2;

/// A broker in memory with one topic `t`. Partition n lives on shard n.
#[derive(Default)]
pub struct Peer {
    logs: Mutex<[(u64, Vec<u8>); PARTITIONS as usize]>,
    appended: Condvar,
    /// Produce requests that are read and then cut off without an answer.
    pub cuts: AtomicU64,
    pub shards_seen: Mutex<Vec<u16>>,
}

impl Peer {
    pub fn start() -> (Arc<Self>, SocketAddr) {
        let peer = Arc::new(Self::default());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = Arc::clone(&peer);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let peer = Arc::clone(&accepting);
                std::thread::spawn(move || peer.serve(stream));
            }
        });
        (peer, address)
    }

    /// None: the client has gone.
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut preamble = [0; 16];
        stream.read_exact(&mut preamble).ok()?;
        let shard = Preamble::decode(&preamble).unwrap().shard;
        self.shards_seen.lock().unwrap().push(shard.0);
        loop {
            let mut frame = vec![0; FRAME_HEADER_BYTES];
            stream.read_exact(&mut frame).ok()?;
            let header = FrameHeader::decode(&frame, 1 << 20).unwrap();
            frame.resize(header.frame_bytes(), 0);
            stream.read_exact(&mut frame[FRAME_HEADER_BYTES..]).ok()?;
            let control = header.control(&frame).unwrap();
            let payload = header.payload(&frame).unwrap();
            let reply = self.reply(shard, &header, control, payload)?;
            stream.write_all(&reply).ok()?;
        }
    }

    fn reply(
        &self,
        shard: ShardId,
        header: &FrameHeader,
        control: &[u8],
        payload: &[u8],
    ) -> Option<Vec<u8>> {
        let mut encoder = Encoder::new();
        let correlation = header.correlation;
        Some(match header.kind {
            FrameKind::Hello => {
                let hello = HelloReply {
                    version: 1,
                    cluster: ClusterId(1),
                    incarnation: Incarnation(1),
                    shard,
                    shards: PARTITIONS as u16,
                    frame_bytes_max: 1 << 20,
                    software: "peer".into(),
                };
                encoder.encode(&hello, correlation).to_vec()
            }
            FrameKind::TopicDescribe => {
                encoder.encode(&TopicDescribeReply { topic: topic() }, correlation).to_vec()
            }
            FrameKind::Produce => {
                let produce = Produce::decode(control).unwrap();
                let batch = BatchView::parse(payload).unwrap();
                let cut = |left: u64| left.checked_sub(1);
                if self.cuts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, cut).is_ok() {
                    return None;
                }
                let mut logs = self.logs.lock().unwrap();
                let (end, log) = &mut logs[produce.partition.0 as usize];
                let base = *end;
                *end += u64::from(batch.header().record_count);
                let entry = EntryHeader {
                    kind: EntryKind::Batch,
                    body_len: payload.len() as u32,
                    record_count: batch.header().record_count,
                    partition: produce.partition,
                    body_crc: batch.stored_crc(),
                    lsn: Lsn(base),
                    epoch: Epoch(1),
                    base_offset: Offset(base),
                    append_time: 7,
                    lane: LaneId(1),
                };
                log.extend_from_slice(&entry.encode());
                log.extend_from_slice(payload);
                log.resize(log.len().next_multiple_of(8), 0);
                self.appended.notify_all();
                if produce.durability == Durability::None {
                    return Some(Vec::new());
                }
                let ack = ProduceAck {
                    base_offset: Offset(base),
                    epoch: Epoch(1),
                    append_time: 7,
                    partition: produce.partition,
                    record_count: batch.header().record_count,
                    level: produce.durability,
                    stages: None,
                };
                ack.encode_frame(correlation).to_vec()
            }
            FrameKind::Fetch => {
                let fetch = Fetch::decode(control).unwrap();
                let mut logs = self.logs.lock().unwrap();
                let nothing_new = |logs: &[(u64, Vec<u8>); PARTITIONS as usize]| {
                    fetch
                        .partitions
                        .iter()
                        .all(|one| logs[one.partition.0 as usize].0 <= one.offset.0)
                };
                if nothing_new(&logs) {
                    let wait = Duration::from_millis(u64::from(fetch.wait_max_ms));
                    logs = self.appended.wait_timeout(logs, wait).unwrap().0;
                }
                let mut reply = FetchReply { partitions: Vec::new() };
                let mut payload = Vec::new();
                for one in &fetch.partitions {
                    let (end, log) = &logs[one.partition.0 as usize];
                    let entries = entries_from(log, one.offset);
                    payload.extend_from_slice(entries);
                    reply.partitions.push(FetchedPartition {
                        partition: one.partition,
                        error: None,
                        log_start: Offset(0),
                        committed_end: Offset(*end),
                        bytes: entries.len() as u32,
                        corrupt: None,
                    });
                }
                let mut bytes = encoder.encode(&reply, correlation).to_vec();
                bytes.extend_from_slice(&payload);
                bytes
            }
            kind => panic!("{kind} was not expected"),
        })
    }
}

/// Up to 64 KiB of whole entries from the one that holds `offset` on.
fn entries_from(log: &[u8], offset: Offset) -> &[u8] {
    let (mut start, mut at) = (log.len(), 0);
    while at < log.len() {
        let header = EntryHeader::decode(&log[at..]).unwrap();
        if header.base_offset.advance(u64::from(header.record_count)) > offset {
            start = start.min(at);
            if at - start > 64 << 10 {
                break;
            }
        }
        at += corelog_protocol::entry::entry_bytes(header.body_len as usize);
    }
    &log[start.min(at)..at]
}

fn topic() -> TopicInfo {
    let place = |number| PartitionPlace {
        partition: PartitionId(number),
        lane: LaneId(number + 1),
        broker: BrokerId(0),
        shard: ShardId(number as u16),
        epoch: Epoch(1),
    };
    TopicInfo {
        id: TopicId(1),
        name: "t".into(),
        settings: TopicSettings {
            partitions: PARTITIONS,
            replicas: 1,
            retention_ms: None,
            retention_bytes: None,
        },
        places: (0..PARTITIONS).map(place).collect(),
        brokers: Brokers::default(),
        replica_places: Vec::new(),
    }
}
