//! The client's engine against a broker that answers as it likes: honest answers, honest ones with changes under right
//! checksums, frames of any kind, bytes. Every record is told of exactly once all the same, and nothing is left.

use std::collections::{BTreeMap, VecDeque};

use corelog::engine::{
    AdminRequest, Config, ConsumerConfig, ConsumerId, Effect, Effects, Engine, Event, LinkId,
    Monotonic, Now, Position,
};
use corelog::{Durability, Record};
use corelog_protocol::ErrorCode;
use corelog_protocol::batch::BatchView;
use corelog_protocol::frame::{FrameHeader, FrameKind};
use corelog_protocol::ids::{
    BrokerId, ClusterId, Epoch, Incarnation, LaneId, Offset, PartitionId, ShardId, TopicId,
};
use corelog_protocol::message::{
    Brokers, Encoder, ErrorReply, Fetch, FetchReply, FetchedPartition, HelloReply, Message,
    Offsets, OffsetsAnswer, OffsetsReply, PartitionPlace, TopicDescribeReply, TopicInfo,
    TopicListReply, TopicSettings,
};
use corelog_protocol::preamble::PREAMBLE_BYTES;
use corelog_protocol::produce::{Produce, ProduceAck};

use crate::protocol::sample_entry;
use crate::tape::{Script, Tape, mend_frame};

const ACTIONS_MAX: usize = 128;
const FRAME_BYTES_MAX: u32 = 1 << 24;

/// See the module.
pub fn run(input: &[u8]) {
    let mut tape = Tape::new(input);
    let mut play = Play::new();
    for _ in 0..ACTIONS_MAX {
        if tape.is_over() {
            break;
        }
        play.act(&mut tape);
    }
    play.end();
}

/// The broker's end of a connection.
#[derive(Default)]
struct Far {
    bytes: Vec<u8>,
    has_preamble: bool,
    is_connected: bool,
    asked: VecDeque<Asked>,
}

struct Asked {
    header: FrameHeader,
    control: Vec<u8>,
    payload: Vec<u8>,
}

struct Play {
    engine: Engine<u64>,
    effects: Effects<u64>,
    now: Now,
    consumer: ConsumerId,
    /// Those that the engine has not closed.
    links: BTreeMap<LinkId, Far>,
    token: u64,
    told: Vec<u64>,
    /// Sockets take nothing.
    is_clogged: bool,
}

impl Play {
    fn new() -> Self {
        let mut config = Config::new(vec![([127, 0, 0, 1], 7000).into()]);
        config.producer.window_batches = 2;
        let mut engine = Engine::new(config, 7);
        let consumer = engine.consumer(ConsumerConfig::default());
        let now = Now { monotonic: Monotonic(1_000_000_000), wall_ms: 1_700_000_000_000 };
        let mut play = Self {
            engine,
            effects: Vec::new(),
            now,
            consumer,
            links: BTreeMap::new(),
            token: 0,
            told: Vec::new(),
            is_clogged: false,
        };
        play.produce(0, 4, 1);
        play
    }

    fn act(&mut self, tape: &mut Tape<'_>) {
        match tape.u8() % 12 {
            0 => self.connect(tape),
            // What an honest broker does, for as long as it is asked something.
            1 => self.be_honest(),
            2 | 3 => self.answer_with_changes(tape),
            4 => {
                if let Some(link) = self.link(tape) {
                    self.received(link, tape.bytes());
                }
            }
            5 => self.any_frame(tape),
            6 => {
                if let Some(link) = self.link(tape) {
                    self.links.remove(&link);
                    self.event(Event::Closed { link });
                }
            }
            7 => self.sleep(u64::from(tape.u16())),
            8 => {
                let (partition, level) = (u32::from(tape.u8() % 3), tape.u8());
                self.produce(partition, level, usize::from(tape.u16()));
            }
            9 => {
                let position = match tape.u8() % 4 {
                    0 => Position::Offset(Offset(tape.u64())),
                    1 => Position::Time(tape.u64().cast_signed()),
                    2 => Position::Offset(Offset(0)),
                    _ => Position::Time(5),
                };
                let partition = u32::from(tape.u8() % 3);
                let Self { engine, effects, now, consumer, .. } = self;
                engine.assign(*now, *consumer, "t", partition, position, effects);
                self.carry_out();
            }
            10 => self.admin(tape),
            _ => {
                self.is_clogged = tape.u8() & 1 == 1;
                self.take();
            }
        }
    }

    fn link(&mut self, tape: &mut Tape<'_>) -> Option<LinkId> {
        let pick = usize::from(tape.u8());
        let count = self.links.len();
        self.links.keys().nth(pick % count.max(1)).copied()
    }

    fn connect(&mut self, tape: &mut Tape<'_>) {
        if let Some(link) = self.link(tape) {
            let far = self.links.get_mut(&link).expect("just found");
            if !std::mem::replace(&mut far.is_connected, true) {
                self.event(Event::Connected { link });
            }
        }
    }

    fn produce(&mut self, partition: u32, level: u8, bytes: usize) {
        let value = vec![b'v'; bytes];
        let level = Durability::ALL[usize::from(level) % Durability::ALL.len()];
        let record = Record::to("t").partition(partition).value(&value).level(level);
        self.token += 1;
        let produced = self.engine.produce(self.now, &record, self.token, &mut self.effects);
        if let Err((_, token)) = produced {
            assert!(token == self.token);
            self.told.push(token);
        }
        self.carry_out();
    }

    fn admin(&mut self, tape: &mut Tape<'_>) {
        let request = match tape.u8() % 3 {
            0 => AdminRequest::ListTopics,
            1 => AdminRequest::DescribeTopic { name: "t".into() },
            _ => AdminRequest::DeleteTopic { name: "t".into() },
        };
        let deadline = self.now.monotonic.after(5_000_000_000);
        self.engine.request(self.now, request, deadline, &mut self.effects);
        self.carry_out();
    }

    fn take(&mut self) {
        while let Some(fetched) = self.engine.take(self.now, self.consumer, &mut self.effects) {
            if let corelog::engine::Fetched::Batch(batch) = fetched {
                let first = batch.first_offset;
                let mut count = 0;
                for record in batch.records() {
                    assert!(record.offset == first.advance(count));
                    count += 1;
                }
                assert!(count == batch.record_count());
            }
        }
        self.carry_out();
    }

    fn event(&mut self, event: Event<'_>) {
        self.engine.on_event(self.now, event, &mut self.effects);
        self.carry_out();
    }

    fn received(&mut self, link: LinkId, bytes: &[u8]) {
        if self.links.contains_key(&link) {
            self.event(Event::Received { link, bytes });
        }
    }

    fn sleep(&mut self, ms: u64) {
        let end = self.now.monotonic.after(ms * 1_000_000);
        let mut timers = 0;
        while let Some(wake) = self.engine.next_wake().filter(|wake| *wake <= end) {
            self.now.monotonic = self.now.monotonic.max(wake);
            self.event(Event::Timer);
            timers += 1;
            assert!(timers < 100_000, "the engine asks for its timer again and again");
        }
        self.now.monotonic = end;
    }

    fn carry_out(&mut self) {
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::Connect { link, .. } => {
                        assert!(self.links.insert(link, Far::default()).is_none());
                    }
                    Effect::Send { link, bytes } => {
                        let far = self.links.get_mut(&link).expect("sends on open links only");
                        bytes.pieces().iter().for_each(|piece| far.bytes.extend_from_slice(piece));
                        far.read();
                        if !self.is_clogged {
                            let sent = Event::Sent { link, bytes: bytes.len() as u64 };
                            self.engine.on_event(self.now, sent, &mut self.effects);
                        }
                    }
                    Effect::Close { link } => drop(self.links.remove(&link)),
                    Effect::Delivered(delivered) => self.told.extend(delivered.tokens),
                    Effect::Failed(failed) => self.told.extend(failed.tokens),
                    Effect::Flushed { .. }
                    | Effect::Answered { .. }
                    | Effect::Objective(_)
                    | Effect::Readable { .. } => {}
                }
            }
        }
    }

    fn be_honest(&mut self) {
        for _ in 0..100 {
            let waiting: Vec<LinkId> =
                self.links.iter().filter(|(_, far)| !far.is_connected).map(|(id, _)| *id).collect();
            for link in waiting {
                if let Some(far) = self.links.get_mut(&link) {
                    far.is_connected = true;
                    self.event(Event::Connected { link });
                }
            }
            // A consumer asks again and again: its fetches wait, as at the end of a partition.
            let is_asked =
                |far: &Far| far.asked.iter().any(|one| one.header.kind != FrameKind::Fetch);
            let busy = self.links.iter().find(|(_, far)| is_asked(far));
            let Some(link) = busy.map(|(id, _)| *id) else { return };
            let Some(answer) = self.next_answer(link, 1, false) else { return };
            self.received(link, &answer);
        }
    }

    fn answer_with_changes(&mut self, tape: &mut Tape<'_>) {
        let Some(link) = self.link(tape) else { return };
        let Some(mut answer) = self.next_answer(link, tape.u8(), true) else { return };
        tape.spoil(&mut answer);
        if tape.u8() & 1 == 1 {
            mend_frame(&mut answer);
        }
        let cut = usize::from(tape.u16()).min(answer.len());
        self.received(link, &answer[..cut]);
        self.received(link, &answer[cut..]);
    }

    fn next_answer(&mut self, link: LinkId, mood: u8, to_fetches: bool) -> Option<Vec<u8>> {
        let asked = &mut self.links.get_mut(&link)?.asked;
        let is_wanted = |asked: &Asked| to_fetches || asked.header.kind != FrameKind::Fetch;
        let at = asked.iter().position(is_wanted)?;
        asked.remove(at).map(|asked| asked.answer(mood))
    }

    fn any_frame(&mut self, tape: &mut Tape<'_>) {
        let Some(link) = self.link(tape) else { return };
        let (kind, correlation) = (tape.u8(), tape.u64());
        let (control, payload) = (tape.bytes(), tape.bytes());
        let header = FrameHeader::new(FrameKind::Error, correlation, control, payload.len());
        let mut frame = header.encode().to_vec();
        frame[5] = kind;
        frame.extend_from_slice(control);
        frame.resize(frame.len().next_multiple_of(8), 0);
        frame.extend_from_slice(payload);
        mend_frame(&mut frame);
        self.received(link, &frame);
    }

    fn end(mut self) {
        self.take();
        self.sleep(60_000);
        self.engine.close(self.now, &mut self.effects);
        self.carry_out();
        self.told.sort_unstable();
        let all: Vec<u64> = (1..=self.token).collect();
        assert!(self.told == all, "told of {:?}, of {} sent", self.told, self.token);
        assert!(self.engine.memory_used() == 0);
    }
}

impl Far {
    /// Takes whole requests off; what a client sends is sound.
    fn read(&mut self) {
        if !self.has_preamble && self.bytes.len() >= PREAMBLE_BYTES {
            self.has_preamble = true;
            self.bytes.drain(..PREAMBLE_BYTES);
        }
        while self.has_preamble
            && let Ok(header) = FrameHeader::decode(&self.bytes, FRAME_BYTES_MAX)
            && header.frame_bytes() <= self.bytes.len()
        {
            let frame: Vec<u8> = self.bytes.drain(..header.frame_bytes()).collect();
            let control = header.control(&frame).expect("an honest client").to_vec();
            let payload = header.payload(&frame).expect("whole").to_vec();
            self.asked.push_back(Asked { header, control, payload });
        }
    }
}

impl Asked {
    /// An answer that fits, by mood a good one or a refusal.
    fn answer(&self, mood: u8) -> Vec<u8> {
        let correlation = self.header.correlation;
        if mood.is_multiple_of(8) {
            let codes = ErrorCode::ALL;
            let code = codes[usize::from(mood / 8) % (codes.len() - 1)];
            let mut error = ErrorReply::new(code, self.header.kind.to_wire(), "no");
            error.retry_after_ms = u32::from(mood);
            return frame_of(&error, correlation);
        }
        match self.header.kind {
            FrameKind::Hello => frame_of(&hello(mood), correlation),
            FrameKind::Produce => self.ack(mood),
            FrameKind::TopicDescribe => {
                frame_of(&TopicDescribeReply { topic: topic() }, correlation)
            }
            FrameKind::TopicList => {
                let reply = TopicListReply { topics: Vec::new(), more: mood & 1 == 0 };
                frame_of(&reply, correlation)
            }
            FrameKind::Fetch => self.entries(),
            FrameKind::Offsets => {
                let asked = Offsets::decode(&self.control).expect("an honest client");
                let answer = |query: &corelog_protocol::message::OffsetsQuery| OffsetsAnswer {
                    partition: query.partition,
                    error: None,
                    log_start: Offset(0),
                    committed_end: Offset(9),
                    offset_at: query.timestamp.map(|_| Offset(4)),
                };
                let partitions = asked.partitions.iter().map(answer).collect();
                frame_of(&OffsetsReply { partitions }, correlation)
            }
            _ => frame_of(&ErrorReply::new(ErrorCode::Unsupported, 0, "no"), correlation),
        }
    }

    fn ack(&self, mood: u8) -> Vec<u8> {
        let produce = Produce::decode(&self.control).expect("an honest client");
        let batch = BatchView::check_header(&self.payload).expect("an honest client");
        let ack = ProduceAck {
            base_offset: Offset(u64::from(mood)),
            epoch: Epoch(1),
            append_time: 1_700_000_000_123,
            partition: produce.partition,
            record_count: batch.header().record_count,
            level: produce.durability,
            stages: None,
        };
        ack.encode_frame(self.header.correlation).to_vec()
    }

    fn entries(&self) -> Vec<u8> {
        let fetch = Fetch::decode(&self.control).expect("an honest client");
        let mut payload = Vec::new();
        let mut partitions = Vec::new();
        for wanted in &fetch.partitions {
            // An offset that an honest broker would call out of range.
            let base = wanted.offset.0.min(1 << 40);
            let entry = sample_entry(wanted.partition.0, base, &["a", "b"]);
            partitions.push(FetchedPartition {
                partition: wanted.partition,
                error: None,
                log_start: Offset(0),
                committed_end: Offset(base + 2),
                bytes: entry.len() as u32,
                corrupt: None,
            });
            payload.extend_from_slice(&entry);
        }
        let mut frame = frame_of(&FetchReply { partitions }, self.header.correlation);
        frame.extend_from_slice(&payload);
        frame
    }
}

fn frame_of(message: &impl Message, correlation: u64) -> Vec<u8> {
    Encoder::new().encode(message, correlation).to_vec()
}

fn hello(mood: u8) -> HelloReply {
    HelloReply {
        version: 1,
        cluster: ClusterId(5),
        incarnation: Incarnation(6),
        shard: ShardId(u16::from(mood)),
        shards: 4,
        frame_bytes_max: if mood == 255 { 1 } else { 1 << 20 },
        software: "hostile".into(),
    }
}

fn topic() -> TopicInfo {
    let place = |number: u32| PartitionPlace {
        partition: PartitionId(100 + number),
        lane: LaneId(1 + number),
        broker: BrokerId(0),
        shard: ShardId(number as u16),
        epoch: Epoch(1),
    };
    TopicInfo {
        id: TopicId(1),
        name: "t".into(),
        settings: TopicSettings {
            partitions: 2,
            replicas: 1,
            retention_ms: None,
            retention_bytes: None,
        },
        places: vec![place(0), place(1)],
        brokers: Brokers::default(),
        replica_places: Vec::new(),
    }
}

/// Conversations that an honest broker could have, and their first deviations.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let start = || Script::default().numbers(&[1]);
    let assigned = start().numbers(&[9, 2, 0, 1, 9, 3, 1, 1]);
    let fetched = |mood| assigned.clone().numbers(&[2, 0, mood, 0, 0]).u16(20).numbers(&[11, 0]);
    let produced = start().numbers(&[8, 0, 4]).u16(100).numbers(&[8, 1, 0]).u16(9);
    let changed =
        |at: u16| produced.clone().numbers(&[2, 0, 1, 1]).u16(at).numbers(&[0xff, 1]).u16(7);
    let mut seeds = vec![
        start().0,
        fetched(1).0,
        fetched(8 * 12).0,
        produced.clone().numbers(&[1, 10, 0, 10, 1, 10, 2, 1]).0,
        produced.clone().numbers(&[6, 0, 7]).u16(40_000).numbers(&[1]).0,
        produced.clone().numbers(&[11, 1, 8, 0, 4]).u16(9).numbers(&[6, 0, 11, 0, 1]).0,
        produced.clone().numbers(&[5, 0, 3]).u64(1).bytes(b"control").bytes(b"payload").0,
        start().numbers(&[4, 0]).bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n").0,
    ];
    seeds.extend([5, 12, 32, 40, 60, 96].map(|at| changed(at).0));
    seeds
}
