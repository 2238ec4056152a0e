//! A scripted broker: reads what the engine sends, and answers what the test says.

use crate::engine::*;
use crate::{Durability, Error, Record};
use corelog_protocol::ErrorCode;
use corelog_protocol::batch::{BatchBuilder, BatchView, NewRecord};
use corelog_protocol::entry::{EntryHeader, EntryKind};
use corelog_protocol::frame::{FrameHeader, FrameKind};
use corelog_protocol::ids::*;
use corelog_protocol::message::*;
use corelog_protocol::preamble::{PREAMBLE_BYTES, Preamble};
use corelog_protocol::produce::{Produce, ProduceAck};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// An engine, its effects, and the far ends of its connections.
pub struct Scene {
    pub engine: Engine<u64>,
    pub effects: Effects<u64>,
    pub now: Now,
    pub links: BTreeMap<LinkId, Far>,
    /// What the engine told its users, in order.
    pub told: Vec<Told>,
    pub readable: u64,
    pub objectives: Vec<ObjectiveReport>,
    /// Sockets take nothing, and nothing is told as sent.
    pub clogged: bool,
}

/// The broker's end of a connection.
#[derive(Debug)]
pub struct Far {
    pub address: SocketAddr,
    pub shard: ShardId,
    pub preamble: Option<Preamble>,
    bytes: Vec<u8>,
    pub closed: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    Delivered { partition: u32, base: Option<u64>, tokens: Vec<u64> },
    Failed { error: Error, tokens: Vec<u64> },
    Flushed(FlushId),
    Answered(Result<AdminReply, Error>),
}

/// A request as the broker reads it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub link: LinkId,
    pub header: FrameHeader,
    pub control: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Asked {
    pub fn produce(&self) -> Produce {
        assert_eq!(self.header.kind, FrameKind::Produce);
        Produce::decode(&self.control).unwrap()
    }

    pub fn values(&self) -> Vec<String> {
        let plain = crate::unpack_batch(&self.payload).unwrap();
        let batch = BatchView::parse(&plain).unwrap();
        let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
        batch.records().map(|record| text(record.unwrap().value)).collect()
    }

    pub fn fetch(&self) -> Fetch {
        assert_eq!(self.header.kind, FrameKind::Fetch);
        Fetch::decode(&self.control).unwrap()
    }
}

pub fn config() -> Config {
    let mut config = Config::new(vec!["127.0.0.1:7000".parse().unwrap()]);
    config.producer.window_batches = 2;
    config.producer.is_idempotent = false;
    config
}

impl Scene {
    pub fn new(config: Config) -> Self {
        Self {
            engine: Engine::new(config, 7),
            effects: Vec::new(),
            now: Now { monotonic: Monotonic(1_000_000_000), wall_ms: 1_700_000_000_000 },
            links: BTreeMap::new(),
            told: Vec::new(),
            readable: 0,
            objectives: Vec::new(),
            clogged: false,
        }
    }

    /// Connected to shard 0, which says that topic `t` has these partitions on these shards.
    pub fn with_topic(config: Config, shards: &[u16]) -> Self {
        let linger_ms = config.producer.linger_nanos / 1_000_000;
        let mut scene = Self::new(config);
        scene.send("t", Some(0), "warm", Durability::LeaderDurable, 0).unwrap();
        let mut asked = scene.greet();
        assert_eq!(asked.len(), 1);
        let describe = asked.remove(0);
        assert_eq!(describe.header.kind, FrameKind::TopicDescribe);
        scene.answer(&describe, &TopicDescribeReply { topic: topic("t", shards) });
        scene.sleep(linger_ms);
        let asked = match scene.asked() {
            asked if asked.is_empty() => scene.greet(),
            asked => asked,
        };
        scene.ack(&asked[0], 0);
        assert_eq!(scene.told.len(), 1);
        scene.told.clear();
        scene
    }

    pub fn later(&mut self, ms: u64) {
        self.now.monotonic = self.now.monotonic.after(ms * 1_000_000);
        self.now.wall_ms += ms as i64;
    }

    pub fn event(&mut self, event: Event<'_>) {
        self.engine.on_event(self.now, event, &mut self.effects);
        self.carry_out();
    }

    pub fn tick(&mut self) {
        self.event(Event::Timer);
    }

    /// Lets time pass, with timers told when they are due.
    pub fn sleep(&mut self, ms: u64) {
        let end = self.now.monotonic.after(ms * 1_000_000);
        while let Some(wake) = self.engine.next_wake().filter(|&wake| wake <= end) {
            self.now.monotonic = self.now.monotonic.max(wake);
            let before = self.engine.next_wake();
            self.tick();
            assert!(self.engine.next_wake() != before, "a timer that does nothing");
        }
        self.now.monotonic = end;
    }

    pub fn record<'a>(topic: &'a str, partition: Option<u32>, value: &'a str) -> Record<'a> {
        let mut record = Record::to(topic).value(value);
        record.partition = partition;
        record
    }

    pub fn send(
        &mut self,
        topic: &str,
        partition: Option<u32>,
        value: &str,
        level: Durability,
        token: u64,
    ) -> Result<(), Error> {
        let record = Self::record(topic, partition, value).level(level);
        let sent = self.engine.produce(self.now, &record, token, &mut self.effects);
        self.carry_out();
        sent.map_err(|(error, _)| error)
    }

    pub fn produce(&mut self, value: &str, token: u64) {
        self.send("t", Some(0), value, Durability::LeaderDurable, token).unwrap();
    }

    pub fn carry_out(&mut self) {
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::Connect { link, address, shard } => {
                        let bytes = Vec::new();
                        let far = Far { address, shard, preamble: None, bytes, closed: false };
                        self.links.insert(link, far);
                    }
                    Effect::Send { link, bytes } => {
                        let far = self.links.get_mut(&link).unwrap();
                        assert!(!far.closed);
                        for piece in bytes.pieces() {
                            far.bytes.extend_from_slice(piece);
                        }
                        if !self.clogged {
                            let bytes = bytes.len() as u64;
                            let sent = Event::Sent { link, bytes };
                            self.engine.on_event(self.now, sent, &mut self.effects);
                        }
                    }
                    Effect::Close { link } => self.links.get_mut(&link).unwrap().closed = true,
                    Effect::Delivered(delivered) => self.told.push(Told::Delivered {
                        partition: delivered.partition,
                        base: delivered.base_offset.map(|offset| offset.0),
                        tokens: delivered.tokens,
                    }),
                    Effect::Failed(failed) => {
                        self.told.push(Told::Failed { error: failed.error, tokens: failed.tokens })
                    }
                    Effect::Flushed { flush } => self.told.push(Told::Flushed(flush)),
                    Effect::Answered { answer, .. } => self.told.push(Told::Answered(answer)),
                    Effect::Readable { .. } => self.readable += 1,
                    Effect::Objective(report) => self.objectives.push(report),
                }
            }
        }
    }

    /// Every whole request that has come and was not read yet.
    pub fn asked(&mut self) -> Vec<Asked> {
        let mut all = Vec::new();
        for (&link, far) in self.links.iter_mut().filter(|(_, far)| !far.closed) {
            if far.preamble.is_none() && far.bytes.len() >= PREAMBLE_BYTES {
                far.preamble = Some(Preamble::decode(&far.bytes).unwrap());
                far.bytes.drain(..PREAMBLE_BYTES);
            }
            while let Ok(header) = FrameHeader::decode(&far.bytes, 1 << 24) {
                if far.bytes.len() < header.frame_bytes() {
                    break;
                }
                let frame: Vec<u8> = far.bytes.drain(..header.frame_bytes()).collect();
                all.push(Asked {
                    link,
                    header,
                    control: header.control(&frame).unwrap().to_vec(),
                    payload: header.payload(&frame).unwrap().to_vec(),
                });
            }
        }
        all
    }

    pub fn open_links(&self) -> Vec<LinkId> {
        self.links.iter().filter(|(_, far)| !far.closed).map(|(&link, _)| link).collect()
    }

    /// Connects and answers the hello of every connection that waits for it; gives what is asked then.
    pub fn greet(&mut self) -> Vec<Asked> {
        for link in self.open_links() {
            if self.links[&link].preamble.is_none() {
                self.event(Event::Connected { link });
            }
        }
        let mut rest = Vec::new();
        for asked in self.asked() {
            if asked.header.kind == FrameKind::Hello {
                let shard = self.links[&asked.link].preamble.unwrap().shard;
                self.answer(&asked, &hello_reply(shard));
            } else {
                rest.push(asked);
            }
        }
        rest.extend(self.asked());
        rest
    }

    pub fn answer<M: Message>(&mut self, asked: &Asked, message: &M) {
        let bytes = Encoder::new().encode(message, asked.header.correlation).to_vec();
        self.bytes(asked.link, &bytes);
    }

    pub fn bytes(&mut self, link: LinkId, bytes: &[u8]) {
        self.event(Event::Received { link, bytes });
    }

    pub fn ack(&mut self, asked: &Asked, base: u64) {
        let bytes = ack_of(asked, base).encode_frame(asked.header.correlation);
        self.bytes(asked.link, &bytes);
    }

    pub fn refuse(&mut self, asked: &Asked, code: ErrorCode, retry_after_ms: u32) {
        let mut error = ErrorReply::new(code, asked.header.kind.to_wire(), "no");
        error.retry_after_ms = retry_after_ms;
        self.answer(asked, &error);
    }

    pub fn told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }
}

pub fn hello_reply(shard: ShardId) -> HelloReply {
    HelloReply {
        version: 1,
        cluster: ClusterId(5),
        incarnation: Incarnation(6),
        shard,
        shards: 4,
        frame_bytes_max: 1 << 20,
        software: "scripted".into(),
    }
}

pub fn ack_of(asked: &Asked, base: u64) -> ProduceAck {
    let produce = asked.produce();
    ProduceAck {
        base_offset: Offset(base),
        epoch: Epoch(1),
        append_time: 1_700_000_000_123,
        partition: produce.partition,
        record_count: BatchView::parse(&asked.payload).unwrap().header().record_count,
        level: produce.durability,
        stages: None,
    }
}

/// Partition n has id 100 + n.
pub fn topic(name: &str, shards: &[u16]) -> TopicInfo {
    let place = |(number, &shard): (usize, &u16)| PartitionPlace {
        partition: PartitionId(100 + number as u32),
        lane: LaneId(1 + u32::from(shard)),
        broker: BrokerId(0),
        shard: ShardId(shard),
        epoch: Epoch(1),
    };
    TopicInfo {
        id: TopicId(1),
        name: name.into(),
        settings: TopicSettings {
            partitions: shards.len() as u32,
            replicas: 1,
            retention_ms: None,
            retention_bytes: None,
        },
        places: shards.iter().enumerate().map(place).collect(),
        brokers: Brokers::default(),
        replica_places: Vec::new(),
    }
}

/// A stored entry with these values from `base` on.
pub fn entry(id: u32, base: u64, values: &[&str]) -> Vec<u8> {
    packed_entry(id, base, values, |batch| batch)
}

/// The same, with another encoding of its records.
pub fn packed_entry(
    id: u32,
    base: u64,
    values: &[&str],
    pack: impl FnOnce(Vec<u8>) -> Vec<u8>,
) -> Vec<u8> {
    let mut builder = BatchBuilder::new(1 << 20, 1000);
    for value in values {
        let value = Some(value.as_bytes());
        builder.push(&NewRecord { timestamp: 5, value, ..NewRecord::default() }).unwrap();
    }
    let batch = pack(builder.finish().to_vec());
    let header = EntryHeader {
        kind: EntryKind::Batch,
        body_len: batch.len() as u32,
        record_count: values.len() as u32,
        partition: PartitionId(id),
        body_crc: u32::from_le_bytes(batch[..4].try_into().unwrap()),
        lsn: Lsn(base + 10),
        epoch: Epoch(1),
        base_offset: Offset(base),
        append_time: 9,
        lane: LaneId(1),
    };
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(&batch);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// A fetch reply that names a reason why there is nothing of partition 100.
pub fn refused_fetch(asked: &Asked, end: u64, code: ErrorCode) -> Vec<u8> {
    let refused = FetchedPartition {
        partition: PartitionId(100),
        error: Some(code),
        log_start: Offset(0),
        committed_end: Offset(end),
        bytes: 0,
        corrupt: None,
    };
    let reply = FetchReply { partitions: vec![refused] };
    Encoder::new().encode(&reply, asked.header.correlation).to_vec()
}

/// A fetch reply with these entries for each partition, whole.
pub fn fetch_reply(asked: &Asked, end: u64, entries: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let partitions = entries
        .iter()
        .map(|(id, bytes)| FetchedPartition {
            partition: PartitionId(*id),
            error: None,
            log_start: Offset(0),
            committed_end: Offset(end),
            bytes: bytes.len() as u32,
            corrupt: None,
        })
        .collect();
    let reply = FetchReply { partitions };
    let mut bytes = Encoder::new().encode(&reply, asked.header.correlation).to_vec();
    for (_, entry) in entries {
        bytes.extend_from_slice(entry);
    }
    bytes
}
