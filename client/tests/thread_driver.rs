//! The driver with an IO thread, on real sockets, against a small broker in memory that does what
//! each test tells it to.
#![cfg(feature = "thread")]

use corelog::{Client, Durability, Error, Offset, Position, Record};
use corelog_protocol::batch::BatchView;
use corelog_protocol::entry::{EntryHeader, EntryKind};
use corelog_protocol::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use corelog_protocol::ids::*;
use corelog_protocol::message::*;
use corelog_protocol::preamble::Preamble;
use corelog_protocol::produce::{Produce, ProduceAck};
use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

const PARTITIONS: u32 = 2;
const PATIENCE: Duration = Duration::from_secs(20);

/// A broker in memory with one topic `t`. Partition n lives on shard n.
#[derive(Default)]
struct Peer {
    logs: Mutex<[(u64, Vec<u8>); PARTITIONS as usize]>,
    appended: Condvar,
    /// Produce requests that are read and then cut off without an answer.
    cuts: AtomicU64,
    shards_seen: Mutex<Vec<u16>>,
}

impl Peer {
    fn start() -> (Arc<Self>, SocketAddr) {
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
        broker: 0,
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
    }
}

/// Blocks on a future with nothing but the standard library.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn record(partition: u32, value: &str) -> Record<'_> {
    Record::to("t").partition(partition).value(value).level(Durability::LeaderDurable)
}

#[test]
fn records_go_to_their_shards_and_come_back_in_order() {
    let (peer, address) = Peer::start();
    let client = Client::builder().address(address).connect().unwrap();
    let producer = client.producer();
    let mut deliveries = Vec::new();
    for number in 0..2000u32 {
        let value = format!("value {number}");
        deliveries.push((number, producer.send(&record(number % 2, &value)).unwrap()));
    }
    for (number, delivery) in deliveries {
        let report = delivery.wait().unwrap();
        assert_eq!(report.partition, number % 2);
        assert_eq!(report.offset, Some(Offset(u64::from(number / 2))));
        assert_eq!(report.level, Durability::LeaderDurable);
    }
    let mut consumer = client.consumer();
    for partition in 0..2 {
        consumer.assign("t", partition, Position::Offset(Offset(0)));
    }
    let mut next = [0u32, 1];
    while next != [2000, 2001] {
        let batch = consumer.poll(PATIENCE).unwrap().expect("there is more");
        let at = &mut next[batch.partition as usize];
        for record in batch.records() {
            assert_eq!(record.value, Some(format!("value {at}").as_bytes()));
            assert_eq!(record.offset, Offset(u64::from(*at / 2)));
            *at += 2;
        }
    }
    let mut shards = peer.shards_seen.lock().unwrap().clone();
    shards.sort_unstable();
    assert_eq!(shards, [0, 1]);
    assert_eq!(client.counters().protocol_errors, 0);
}

#[test]
fn a_delivery_and_a_consumer_are_futures_of_any_runtime() {
    let (_peer, address) = Peer::start();
    let client = Client::builder().address(address).connect().unwrap();
    let producer = client.producer();
    let mut consumer = client.consumer();
    consumer.assign("t", 0, Position::Offset(Offset(0)));
    block_on(async {
        let report = producer.send(&record(0, "a")).unwrap().await.unwrap();
        assert_eq!(report.offset, Some(Offset(0)));
        let batch = consumer.next().await.unwrap();
        assert_eq!(batch.records().next().unwrap().value, Some(&b"a"[..]));
        // Waits in the broker before the record is there.
        let sending = producer.clone();
        let sender = std::thread::spawn(move || sending.send(&record(0, "b")).unwrap().wait());
        let batch = consumer.next().await.unwrap();
        assert_eq!(batch.first_offset, Offset(1));
        sender.join().unwrap().unwrap();
    });
}

#[test]
fn callbacks_come_in_order_and_flush_waits_for_all_of_them_to_be_done() {
    let (_peer, address) = Peer::start();
    let client =
        Client::builder().address(address).linger(Duration::from_millis(5)).connect().unwrap();
    let (told, tellings) = std::sync::mpsc::channel();
    let producer = client.producer().on_delivery(move |tag, outcome| {
        told.send((tag, outcome.map(|report| report.offset).map_err(Clone::clone))).unwrap();
    });
    for tag in 0..1000 {
        let level = if tag < 500 { Durability::LeaderMemory } else { Durability::None };
        producer.send(&record(0, "v").level(level), tag).unwrap();
    }
    producer.flush();
    for tag in 0..1000 {
        let offset = (tag < 500).then_some(Offset(tag));
        assert_eq!(tellings.recv_timeout(PATIENCE).unwrap(), (tag, Ok(offset)));
    }
}

#[test]
fn a_callback_may_send_the_next_record() {
    let (_peer, address) = Peer::start();
    let client = Client::builder().address(address).connect().unwrap();
    let (told, tellings) = std::sync::mpsc::channel();
    let next: Arc<Mutex<Option<corelog::CallbackProducer>>> = Arc::default();
    let sender = Arc::clone(&next);
    let producer = client.producer().on_delivery(move |tag, outcome| {
        outcome.unwrap();
        if tag < 200 {
            // Level none is done at once, and must not call back from inside the callback.
            let level = if tag % 2 == 0 { Durability::None } else { Durability::LeaderMemory };
            let guard = sender.lock().unwrap();
            guard.as_ref().unwrap().try_send(&record(0, "v").level(level), tag + 1).unwrap();
        } else {
            told.send(tag).unwrap();
        }
    });
    *next.lock().unwrap() = Some(producer.clone());
    producer.send(&record(0, "v"), 0).unwrap();
    assert_eq!(tellings.recv_timeout(PATIENCE), Ok(200));
    // The callback holds the client: let it go.
    next.lock().unwrap().take();
}

#[test]
fn a_connection_cut_after_the_send_is_indefinite_and_the_next_record_passes() {
    let (peer, address) = Peer::start();
    let client = Client::builder().address(address).connect().unwrap();
    let producer = client.producer();
    producer.send(&record(0, "a")).unwrap().wait().unwrap();
    peer.cuts.store(1, Ordering::Relaxed);
    let error = producer.send(&record(0, "b")).unwrap().wait().unwrap_err();
    assert_eq!(error, Error::ConnectionLost);
    let report = producer.send(&record(0, "c")).unwrap().wait().unwrap();
    assert_eq!(report.offset, Some(Offset(1)));
}

#[test]
fn a_full_budget_blocks_send_and_refuses_try_send() {
    let (_peer, address) = Peer::start();
    let client = Client::builder().address(address).memory_max(20_000).connect().unwrap();
    let producer = client.producer();
    let value = "v".repeat(5000);
    for _ in 0..200 {
        producer.send_and_forget(&record(0, &value)).unwrap();
    }
    let mut refused = 0;
    for _ in 0..2000 {
        match producer.try_send(&record(0, &value)) {
            Ok(delivery) => drop(delivery),
            Err(error) => {
                assert_eq!(error, Error::Full);
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    producer.flush();
    assert_eq!(client.counters().records_failed, 0);
}

#[test]
fn an_address_where_nobody_listens_fails_at_the_deadline_and_dropping_the_client_does_not_hang() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let timeout = Duration::from_millis(100);
    let client = Client::builder().address(address).delivery_timeout(timeout).connect().unwrap();
    let error = client.producer().send(&record(0, "a")).unwrap().wait().unwrap_err();
    assert_eq!(error, Error::Unreachable);
    let client = Client::builder().address(address).connect().unwrap();
    let delivery = client.producer().send(&record(0, "a")).unwrap();
    drop(client);
    assert_eq!(delivery.wait().unwrap_err(), Error::Closed);
}
