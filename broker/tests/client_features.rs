//! What the client crate offers, against a real broker: over real sockets, onto real files.
#![cfg(feature = "driver")]

use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use corelog::{
    Builder, Client, Compression, ConsumedRecord, Consumer, ConsumerConfig, Durability, Error,
    Header, ObjectiveState, Offset, OutOfRange, PackFault, Position, Record, UNPACKED_BYTES_MAX,
    pack_batch, partition_of_key,
};
use corelog_broker::config::Config;
use corelog_broker::driver::Broker;
use corelog_protocol::batch::{BATCH_HEADER_BYTES, BatchBuilder, BatchView, NewRecord};
use corelog_protocol::frame::{FrameHeader, FrameKind};
use corelog_protocol::ids::{PartitionId, ShardId};
use corelog_protocol::message::Hello;
use corelog_protocol::preamble::Preamble;
use corelog_protocol::produce::Produce;
use futures_core::Stream;

const PATIENCE: Duration = Duration::from_secs(60);

/// A broker with a topic `t` of these many partitions.
struct Host {
    broker: Option<Broker>,
    _directory: tempfile::TempDir,
}

impl Host {
    /// `None`, with a line that says why, where there is no direct I/O.
    fn start(partitions: u32) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let facts = corelog_tuning::DirectoryFacts::gather(directory.path());
        if let Some(reason) = facts.direct_io_error {
            println!("skipped: {} has no direct I/O ({reason})", directory.path().display());
            return None;
        }
        let broker = Some(Broker::start(config(directory.path())).expect("it starts"));
        let host = Self { broker, _directory: directory };
        host.client().admin().create_topic("t", partitions).expect("created");
        Some(host)
    }

    fn broker(&self) -> &Broker {
        self.broker.as_ref().expect("it runs")
    }

    fn builder(&self) -> Builder {
        Client::builder().address(self.broker().address())
    }

    fn client(&self) -> Client {
        self.builder().connect().expect("a client")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.take() {
            broker.stop();
        }
    }
}

fn config(directory: &Path) -> Config {
    let mut config = Config::embedded(directory);
    config.shards = corelog_tuning::allowed_cores().len().min(2);
    config.free_bytes_min = 0;
    config.memory.io_bytes = 1 << 20;
    config.log.segment_bytes = 4 << 20;
    config
}

/// Values of partition 0 from `offset` to `end`, in order.
fn read(client: &Client, offset: u64, end: u64) -> Vec<Vec<u8>> {
    let mut consumer = client.consumer();
    consumer.assign("t", 0, Position::Offset(Offset(offset)));
    let mut values = Vec::new();
    while offset + (values.len() as u64) < end {
        let batch = consumer.poll(PATIENCE).expect("sound data").expect("there is more");
        for record in batch.records() {
            assert_eq!(record.offset, Offset(offset + values.len() as u64));
            values.push(record.value.expect("a value").to_vec());
        }
    }
    values
}

#[test]
fn compressed_batches_are_stored_as_sent_and_read_back_plain() {
    let Some(host) = Host::start(1) else { return };
    let mut sent: Vec<Vec<u8>> = Vec::new();
    let mut saved = Vec::new();
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let linger = Duration::from_millis(200);
        let client = host.builder().compression(compression).linger(linger).connect();
        let client = client.expect("a client");
        let producer = client.producer();
        for number in 0..2000 {
            let value = format!("{compression}: order {number}, 3 apples, paid").into_bytes();
            let key = format!("customer {}", number % 10);
            let headers = [Header { name: "unit", value: Some(b"apple") }];
            let record = Record::to("t").key(&key).value(&value).headers(&headers);
            producer.send_and_forget(&record).expect("accepted");
            sent.push(value);
        }
        producer.flush();
        let counters = client.counters();
        assert_eq!((counters.records_failed, counters.records_delivered), (0, 2000));
        saved.push(counters.bytes_saved * 100 / (counters.bytes_saved + counters.bytes_sent));
    }
    println!("saved, in percent: {saved:?}");
    assert!(saved[0] == 0 && saved[1] > 50 && saved[2] > 60, "{saved:?}");
    let client = host.client();
    assert!(read(&client, 0, 6000) == sent);
    // From the middle of a batch.
    assert!(read(&client, 4321, 6000) == sent[4321..]);
    let mut consumer = client.consumer();
    consumer.assign("t", 0, Position::Offset(Offset(5000)));
    let batch = consumer.poll(PATIENCE).expect("sound data").expect("there is more");
    assert_eq!(batch.compression, Compression::Zstd);
    let record = batch.records().next().expect("a record");
    assert_eq!(record.key, Some(&b"customer 0"[..]));
    let headers: Vec<Header<'_>> = record.headers.collect();
    assert_eq!(headers, [Header { name: "unit", value: Some(b"apple") }]);
}

/// One frame with this kind of answer.
fn await_frame(stream: &mut TcpStream, kind: FrameKind) {
    let mut bytes = vec![0; 32];
    stream.read_exact(&mut bytes).expect("an answer");
    let header = FrameHeader::decode(&bytes, 1 << 20).expect("a sound frame");
    bytes.resize(header.frame_bytes(), 0);
    stream.read_exact(&mut bytes[32..]).expect("whole");
    assert_eq!(header.kind, kind);
}

/// Sends a batch as it is, as no bundled client would, and waits for the ack.
fn send_raw(host: &Host, partition: PartitionId, batch: &[u8]) {
    let mut stream = TcpStream::connect(host.broker().address()).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut bytes = Preamble { shard: ShardId::ANY }.encode().to_vec();
    Hello::new("stranger").encode(1, &mut bytes);
    stream.write_all(&bytes).expect("sent");
    await_frame(&mut stream, FrameKind::HelloReply);
    let produce = Produce {
        partition,
        timeout_ms: 30_000,
        durability: Durability::LeaderDurable,
        want_stages: false,
        sent_before: false,
        former: None,
    };
    stream.write_all(&produce.encode_head(2, batch.len())).expect("sent");
    stream.write_all(batch).expect("sent");
    await_frame(&mut stream, FrameKind::ProduceAck);
}

#[test]
fn a_bomb_and_garbage_that_a_stranger_stores_are_typed_errors_and_reading_goes_on() {
    let Some(host) = Host::start(1) else { return };
    let client = host.client();
    let partition = client.admin().describe_topic("t").expect("it is there").places[0].partition;
    let mut builder = BatchBuilder::new(1 << 16, 10);
    for _ in 0..3 {
        let value = Some(&[b'v'; 200][..]);
        builder.push(&NewRecord { timestamp: 7, value, ..NewRecord::default() }).expect("small");
    }
    let plain = builder.finish().to_vec();
    let header = *BatchView::parse(&plain).expect("sound").header();
    let forge = |records: &[u8]| {
        let mut batch = vec![0; BATCH_HEADER_BYTES];
        batch.extend_from_slice(records);
        header.seal(Compression::Zstd, &mut batch);
        batch
    };
    // A frame that repeats one block of 128 KiB of zeros for ever: magic, a window of 1 MiB, then blocks of 4 bytes.
    let blocks = UNPACKED_BYTES_MAX / (128 << 10) + 1;
    let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x50];
    for block in 0..blocks {
        let word = u32::from(block + 1 == blocks) | 1 << 1 | (128 << 10) << 3;
        bomb.extend_from_slice(&word.to_le_bytes()[..3]);
        bomb.push(0);
    }
    send_raw(&host, partition, &plain);
    send_raw(&host, partition, &forge(&bomb));
    send_raw(&host, partition, &forge(b"no frame of any codec"));
    send_raw(&host, partition, &pack_batch(Compression::Lz4, plain));

    let mut consumer = client.consumer();
    consumer.assign("t", 0, Position::Beginning);
    let mut seen = Vec::new();
    let mut faults = Vec::new();
    while seen.len() < 6 {
        match consumer.poll(PATIENCE) {
            Ok(batch) => {
                seen.extend(batch.expect("there is more").records().map(|record| record.offset.0));
            }
            Err(failed) => {
                let Error::Unpack { first, end, fault } = failed.error else { panic!("{failed}") };
                faults.push((first.0, end.0, fault));
                consumer.seek("t", 0, Position::Offset(end));
            }
        }
    }
    assert_eq!(seen, [0, 1, 2, 9, 10, 11]);
    assert_eq!(faults, [(3, 6, PackFault::TooLarge), (6, 9, PackFault::Garbage)]);
    assert_eq!(client.counters().protocol_errors, 0);
}

/// Sends `v0`, `v1` … to partition `number % partitions`, and waits until all are durable: from
/// then on consumers see them.
fn send_numbered(client: &Client, numbers: std::ops::Range<u64>, partitions: u64) {
    let producer = client.producer();
    for number in numbers {
        let value = format!("v{number}");
        let partition = (number % partitions) as u32;
        let record = Record::to("t").partition(partition).value(&value).timestamp_ms(number as i64);
        producer.send_and_forget(&record).expect("accepted");
    }
    producer.flush();
}

/// Blocks on a future with nothing but the standard library: no runtime is needed.
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

#[test]
fn records_come_by_iterator_stream_and_batch_in_any_mixture_each_once() {
    let Some(host) = Host::start(1) else { return };
    let client = host.client();
    // At least ten batches.
    for part in 0..10 {
        send_numbered(&client, part * 300..part * 300 + 300, 1);
    }
    let mut consumer = client.consumer();
    consumer.assign("t", 0, Position::Beginning);
    let mut next = 0;
    let mut expect = |record: &ConsumedRecord| {
        assert_eq!(record.offset(), Offset(next));
        assert_eq!(record.value(), Some(format!("v{next}").as_bytes()));
        assert_eq!((record.topic(), record.partition()), ("t", 0));
        assert_eq!(record.timestamp_ms(), next as i64);
        assert!(record.append_time_ms() > 1_700_000_000_000);
        next += 1;
    };
    for record in consumer.records().take(7) {
        expect(&record.expect("sound data"));
    }
    assert_eq!(consumer.position("t", 0), Some(Offset(7)));
    for _ in 0..5 {
        let record = consumer.next_record(PATIENCE).expect("sound data").expect("there is more");
        expect(&record);
    }
    // A stream of records, and one of batches, without a runtime.
    for _ in 0..20 {
        let record = block_on(poll_fn(|cx| Pin::new(&mut consumer).poll_next(cx)));
        expect(&record.expect("it does not end").expect("sound data"));
    }
    let mut batches = consumer.batches();
    let batch = block_on(poll_fn(|cx| Pin::new(&mut batches).poll_next(cx)));
    for record in batch.expect("it does not end").expect("sound data") {
        expect(&record);
    }
    let record = consumer.next_record(PATIENCE).expect("sound data").expect("there is more");
    expect(&record);
    let batch = block_on(consumer.next_batch()).expect("sound data");
    batch.into_iter().for_each(|record| expect(&record));
    // What is left, until nothing comes.
    for record in consumer.into_iter().until_idle(Duration::from_millis(700)) {
        expect(&record.expect("sound data"));
    }
    assert_eq!(next, 3000);
}

#[test]
fn a_loop_over_a_consumer_waits_for_what_is_sent_later() {
    let Some(host) = Host::start(1) else { return };
    let client = host.client();
    let mut consumer = client.consumer();
    consumer.assign("t", 0, Position::End);
    let (told, tellings) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for record in consumer {
            let record = record.expect("sound data");
            // It may leave its thread.
            told.send(record.clone()).expect("heard");
            if record.value() == Some(b"last") {
                break;
            }
        }
    });
    let producer = client.producer();
    let mut sent = 0;
    // The end is asked for when it is: until something comes, it may lie behind what was sent.
    while tellings.recv_timeout(Duration::from_millis(20)).is_err() {
        producer.send(&Record::to("t").value("first")).expect("accepted").wait().expect("stored");
        sent += 1;
    }
    producer.send(&Record::to("t").value("last")).expect("accepted").wait().expect("stored");
    let last = tellings.iter().last().expect("the last one");
    assert_eq!((last.value(), last.offset()), (Some(&b"last"[..]), Offset(sent)));
    reader.join().expect("it ends");
}

#[test]
fn pause_seek_and_resume_work_in_the_middle_of_a_batch() {
    let Some(host) = Host::start(2) else { return };
    let client = host.client();
    send_numbered(&client, 0..2000, 2);
    let mut consumer = client.consumer();
    for partition in 0..2 {
        consumer.assign("t", partition, Position::Beginning);
    }
    let mut next = [0u64; 2];
    let mut take = |consumer: &mut Consumer, patience| {
        let record = consumer.next_record(patience).expect("sound data")?;
        let at = &mut next[record.partition() as usize];
        assert_eq!(record.offset(), Offset(*at));
        let number = *at * 2 + u64::from(record.partition());
        assert_eq!(record.value(), Some(format!("v{number}").as_bytes()));
        *at += 1;
        Some(record.partition())
    };
    let first = take(&mut consumer, PATIENCE).expect("there is more");
    // The rest of its batch waits as well; the other partition comes whole.
    consumer.pause("t", first);
    let mut others = 0;
    while let Some(partition) = take(&mut consumer, Duration::from_millis(700)) {
        assert_eq!(partition, 1 - first);
        others += 1;
    }
    assert_eq!(others, 1000);
    assert_eq!(consumer.position("t", first), Some(Offset(1)));
    consumer.resume("t", first);
    for _ in 0..999 {
        assert_eq!(take(&mut consumer, PATIENCE), Some(first));
    }
    // Sought back, by each kind of position: time is that of the producer's stamps.
    for (position, expected) in [
        (Position::Beginning, 0),
        (Position::Offset(Offset(17)), 17),
        (Position::Offset(Offset(999)), 999),
    ] {
        consumer.seek("t", 1, position);
        let record = consumer.next_record(PATIENCE).expect("sound data").expect("it is there");
        assert_eq!((record.partition(), record.offset()), (1, Offset(expected)));
    }
    consumer.seek("t", 1, Position::End);
    assert!(consumer.next_record(Duration::from_millis(100)).expect("sound data").is_none());
    send_numbered(&client, 2001..2002, 2);
    let record = consumer.next_record(PATIENCE).expect("sound data").expect("it is there");
    assert_eq!(record.value(), Some(&b"v2001"[..]));
}

#[test]
fn a_seek_by_time_finds_the_first_record_of_that_time_or_later() {
    let Some(host) = Host::start(1) else { return };
    let client = host.client();
    let producer = client.producer();
    let mut reports = Vec::new();
    for number in 0..3 {
        let value = format!("v{number}");
        let sent = producer.send(&Record::to("t").value(&value)).expect("accepted");
        reports.push(sent.wait().expect("stored"));
        // Two appends never share a millisecond.
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut consumer = client.consumer();
    consumer.assign("t", 0, Position::Beginning);
    for (number, report) in (0..).zip(&reports) {
        consumer.seek("t", 0, Position::Time(report.append_time_ms));
        let record = consumer.next_record(PATIENCE).expect("sound data").expect("it is there");
        assert_eq!(record.offset(), Offset(number));
    }
    // After all of them is the end.
    consumer.seek("t", 0, Position::Time(reports[2].append_time_ms + 3_600_000));
    assert!(consumer.next_record(Duration::from_millis(100)).expect("sound data").is_none());
    assert_eq!(consumer.position("t", 0), Some(Offset(3)));
}

#[test]
fn an_offset_out_of_range_is_told_or_moved_as_the_consumer_says() {
    let Some(host) = Host::start(1) else { return };
    let client = host.client();
    send_numbered(&client, 0..10, 1);
    let at = |out_of_range| {
        let config = ConsumerConfig { out_of_range, ..ConsumerConfig::default() };
        let mut consumer = client.consumer_with(config);
        consumer.assign("t", 0, Position::Offset(Offset(50)));
        consumer
    };
    let mut telling = at(OutOfRange::Error);
    let error = telling.next_record(PATIENCE).expect_err("it tells");
    let (asked, log_start, committed_end) = (Offset(50), Offset(0), Offset(10));
    assert_eq!(error.error, Error::OffsetOutOfRange { asked, log_start, committed_end });
    telling.seek("t", 0, Position::Offset(Offset(9)));
    let record = telling.next_record(PATIENCE).expect("sound data").expect("it is there");
    assert_eq!(record.offset(), Offset(9));

    let mut earliest = at(OutOfRange::Earliest);
    let record = earliest.next_record(PATIENCE).expect("sound data").expect("it is there");
    assert_eq!(record.offset(), Offset(0));

    let mut latest = at(OutOfRange::Latest);
    assert!(latest.next_record(Duration::from_millis(300)).expect("sound data").is_none());
    send_numbered(&client, 10..11, 1);
    let record = latest.next_record(PATIENCE).expect("sound data").expect("it is there");
    assert_eq!(record.offset(), Offset(10));
    assert_eq!(client.counters().positions_moved, 2);
}

#[test]
fn what_is_fetched_ahead_stays_within_its_budget() {
    let Some(host) = Host::start(1) else { return };
    let client = host.client();
    let producer = client.producer();
    let value = vec![b'v'; 100_000];
    for _ in 0..100 {
        producer.send_and_forget(&Record::to("t").value(&value)).expect("accepted");
    }
    producer.flush();
    let config = ConsumerConfig {
        ahead_bytes_max: 1 << 20,
        partition_bytes_max: 300_000,
        ..ConsumerConfig::default()
    };
    let mut consumer = client.consumer_with(config);
    consumer.assign("t", 0, Position::Beginning);
    let first = consumer.next_record(PATIENCE).expect("sound data").expect("it is there");
    assert_eq!(first.offset(), Offset(0));
    // It fetches on while nobody takes, and stops.
    let mut before = 0;
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let fetched = client.counters().records_fetched;
        if fetched == before {
            break;
        }
        before = fetched;
    }
    // 10 records of 100,000 bytes are its budget, one batch may exceed it, and one fetch was under way.
    assert!((2..=16).contains(&before), "{before} records ahead");
    let rest = consumer.records().until_idle(Duration::from_millis(700));
    let rest: Result<Vec<_>, _> = rest.collect();
    assert_eq!(rest.expect("sound data").len(), 99);
}

#[test]
fn an_objective_within_reach_is_met_and_one_out_of_reach_is_told() {
    let Some(host) = Host::start(1) else { return };
    let (told, tellings) = std::sync::mpsc::channel();
    let send = |client: &Client| {
        let producer = client.producer();
        producer.send(&Record::to("t").value("v")).expect("accepted").wait().expect("stored");
    };
    // 5 s for a flush of a disk: any machine does it.
    let client = host.builder().objective(Duration::from_secs(5)).connect().expect("a client");
    assert_eq!(client.objective().map(|report| report.state), Some(ObjectiveState::Measuring));
    while client.objective().is_some_and(|report| report.state == ObjectiveState::Measuring) {
        send(&client);
    }
    let report = client.objective().expect("it has one");
    assert_eq!(report.state, ObjectiveState::Met);
    assert!(report.p99 <= report.goal && report.records_per_second > 0, "{report:?}");

    // A microsecond: no network does it.
    let goal = Duration::from_micros(1);
    let builder = host.builder().objective(goal).on_objective(move |report| {
        told.send(*report).expect("heard");
    });
    let client = builder.connect().expect("a client");
    let report = loop {
        send(&client);
        if let Ok(report) = tellings.try_recv() {
            break report;
        }
    };
    assert_eq!((report.state, report.goal), (ObjectiveState::Infeasible, goal));
    assert!(report.p99 > goal);
    assert!(host.client().objective().is_none(), "who states none has none");
}

#[test]
fn delivery_reports_errors_and_levels_are_those_of_each_message() {
    let Some(host) = Host::start(1) else { return };
    let client = host.builder().durability(Durability::LeaderMemory).connect().expect("a client");
    let producer = client.producer();
    // The default level, and one for this message.
    let record = Record::to("t").value("v");
    let report = producer.send(&record).expect("accepted").wait().expect("stored");
    assert!(report.append_time_ms > 1_700_000_000_000);
    let durable = record.level(Durability::QuorumDurable);
    let report = block_on(producer.send(&durable).expect("accepted")).expect("stored");
    assert_eq!((report.level, report.offset), (Durability::QuorumDurable, Some(Offset(1))));
    // By callback, with the tag that it was sent with.
    let (told, tellings) = std::sync::mpsc::channel();
    let calling = producer.on_delivery(move |tag, outcome| {
        told.send((tag, outcome.map(|report| report.offset).map_err(Clone::clone))).expect("heard");
    });
    calling.send(&durable, 77).expect("accepted");
    assert_eq!(tellings.recv_timeout(PATIENCE), Ok((77, Ok(Some(Offset(2))))));
    calling.flush();
    // What can never be stored says so: definite, and no retry helps.
    let error = producer.send(&record.partition(9)).expect_err("there is no partition 9");
    let topic: Arc<str> = "t".into();
    assert_eq!(error, Error::UnknownPartition { topic, partition: 9 });
    assert!(error.is_definite() && !error.may_retry());
    let missing = producer.send(&Record::to("missing").value("v")).expect("accepted");
    let error = missing.wait().expect_err("there is no such topic");
    assert_eq!(error, Error::UnknownTopic("missing".into()));
    assert!(error.is_definite() && !error.may_retry());
    let huge = vec![0; 17 << 20];
    let error = producer.send(&Record::to("t").value(&huge)).expect_err("no frame holds it");
    assert!(matches!(error, Error::InvalidRecord(_)) && error.is_definite() && !error.may_retry());
    // A budget that is used up passes by: definite, and a retry helps.
    assert!(Error::Full.is_definite() && Error::Full.may_retry());
}

#[test]
fn a_flush_waits_for_all_that_was_sent_and_keys_keep_their_partition() {
    let Some(host) = Host::start(8) else { return };
    let client = host.builder().linger(Duration::from_secs(600)).connect().expect("a client");
    let producer = client.producer();
    let mut sent = Vec::new();
    for number in 0..400u32 {
        let key = format!("customer {number}");
        let record = Record::to("t").key(&key).value("v");
        sent.push((key.clone(), producer.send(&record).expect("accepted")));
    }
    // Without it they would linger for ten minutes.
    producer.flush();
    for (key, delivery) in sent {
        assert!(delivery.is_done());
        let report = delivery.wait().expect("stored");
        assert_eq!(report.partition, partition_of_key(key.as_bytes(), 8));
    }
    // Callbacks were called too, however long they took, and one may flush without waiting.
    let called = Arc::new(AtomicUsize::new(0));
    let (counter, inside) = (Arc::clone(&called), producer.clone());
    let calling = producer.on_delivery(move |_, outcome| {
        outcome.expect("stored");
        std::thread::sleep(Duration::from_millis(10));
        inside.flush();
        counter.fetch_add(1, Ordering::Relaxed);
    });
    (0..8).for_each(|tag| calling.send(&Record::to("t").value("v"), tag).expect("accepted"));
    calling.flush();
    assert_eq!(called.load(Ordering::Relaxed), 8);
}
