//! What the client crate offers, against a real broker: over real sockets, onto real files.
#![cfg(feature = "driver")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use corelog::{
    Builder, Client, Compression, Durability, Error, Header, Offset, PackFault, Position, Record,
    UNPACKED_BYTES_MAX, pack_batch,
};
use corelog_broker::config::Config;
use corelog_broker::driver::Broker;
use corelog_protocol::batch::{BATCH_HEADER_BYTES, BatchBuilder, BatchView, NewRecord};
use corelog_protocol::frame::{FrameHeader, FrameKind};
use corelog_protocol::ids::{PartitionId, ShardId};
use corelog_protocol::message::Hello;
use corelog_protocol::preamble::Preamble;
use corelog_protocol::produce::Produce;

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
