//! Whole conversations with a broker of one or two shards, through `Shard::step`: strangers that say
//! anything, at any moment, while disks stand still, fill up or fail, and the broker restarts.
//!
//! Whatever they do: it comes to rest, keeps its budget, every answer is a sound frame; and when they are gone, a
//! newcomer is served, a stop ends, and no slot is left behind.

use corelog_broker::limits::{SEGMENT_BYTES_MIN, SHARD_MEMORY_BYTES_MIN};
use corelog_broker::shard::event::Event;
use corelog_broker::sim::scene::{Client, World};
use corelog_broker::time::Nanos;
use corelog_protocol::Durability;
use corelog_protocol::batch::{BatchBuilder, NewRecord};
use corelog_protocol::frame::{FrameHeader, FrameKind};
use corelog_protocol::ids::{BrokerId, LaneId, Offset, PartitionId};
use corelog_protocol::message::{
    ClusterStatus, Encoder, Fetch, FetchPartition, Hello, Message, Offsets, OffsetsQuery, Operate,
    Operation, Status, TopicCreate, TopicDelete, TopicDescribe, TopicList, TopicSettings,
};
use corelog_protocol::produce::Produce;

use crate::tape::{Script, Tape, mend_body, mend_frame};

const ACTIONS_MAX: usize = 64;
const FRAME_BYTES_MAX: usize = 16 << 10;
const TOPICS: [&str; 3] = ["a", "b", "not/a name"];

/// See the module.
pub fn run(input: &[u8]) {
    let mut tape = Tape::new(input);
    let mut play = Play::new(1 + u16::from(tape.u8() & 1));
    for _ in 0..ACTIONS_MAX {
        if tape.is_over() {
            break;
        }
        play.act(&mut tape);
        play.check();
    }
    play.end();
}

struct Play {
    world: World,
    clients: Vec<Client>,
    partitions: Vec<PartitionId>,
    /// Sends are cut into pieces of so many bytes, if this is not 0.
    cut: usize,
    has_failed: bool,
}

impl Play {
    fn new(shards: u16) -> Self {
        let mut world = World::with(shards, |config| {
            config.memory_bytes = SHARD_MEMORY_BYTES_MIN;
            config.segment_bytes = SEGMENT_BYTES_MIN as u64;
            config.frame_bytes_max = FRAME_BYTES_MAX;
            config.lanes_per_shard = 1;
            config.connections_per_address_max = 8;
        });
        let owner = world.client(0);
        let topic = world.create_topic(owner, TOPICS[0], 2);
        let partitions = topic.places.iter().map(|place| place.partition).collect();
        Self { world, clients: vec![owner], partitions, cut: 0, has_failed: false }
    }

    fn act(&mut self, tape: &mut Tape<'_>) {
        match tape.u8() % 19 {
            0 => self.connect(tape, false),
            1 => self.connect(tape, true),
            2 => {
                let client = self.client(tape);
                self.send(client, tape.bytes());
            }
            3 => self.any_frame(tape),
            4 => self.produce(tape),
            5 => self.fetch(tape),
            6 => {
                let partition = self.partition(tape);
                let timestamp = Some(tape.u64().cast_signed()).filter(|time| *time != 0);
                let query = OffsetsQuery { partition, timestamp };
                self.ask(tape, &Offsets { partitions: vec![query] });
            }
            7 => {
                let settings = TopicSettings {
                    partitions: u32::from(tape.u16()),
                    replicas: tape.u8() % 4,
                    retention_ms: Some(tape.u64()).filter(|ms| *ms != 0),
                    retention_bytes: None,
                };
                let (name, timeout_ms) = (TOPICS[tape.below(3)].into(), u32::from(tape.u16()));
                self.ask(tape, &TopicCreate { name, settings, timeout_ms });
            }
            8 => {
                let (name, timeout_ms) = (TOPICS[tape.below(3)].into(), 0);
                self.ask(tape, &TopicDelete { name, timeout_ms });
            }
            9 => {
                let name = String::from_utf8_lossy(tape.bytes()).into_owned();
                self.ask(tape, &TopicDescribe { name });
            }
            10 => {
                let (after, count_max) = (TOPICS[tape.below(3)].into(), tape.u32());
                self.ask(tape, &TopicList { after, count_max });
            }
            11 => {
                let prefix = ["", "log", "connections"][tape.below(3)].into();
                self.ask(tape, &Status { prefix });
            }
            18 => match tape.u8() % 3 {
                0 => self.ask(tape, &ClusterStatus),
                1 => {
                    let (lane, to) = (LaneId(tape.u32()), BrokerId(tape.u32()));
                    let operation = Operation::Transfer { lane, to };
                    self.ask(tape, &Operate { operation, check_only: false, timeout_ms: 0 });
                }
                _ => {
                    let (broker, check_only) = (BrokerId(tape.u32()), tape.u8() & 1 == 1);
                    let operation = Operation::Drain { broker };
                    self.ask(tape, &Operate { operation, check_only, timeout_ms: 0 });
                }
            },
            12 => {
                let client = self.client(tape);
                if !self.world.is_closed(client) {
                    self.world.hang_up(client);
                }
            }
            13 => {
                let client = self.client(tape);
                let link = self.world.link(client);
                let goes_on = link.is_stalled && !link.is_closed;
                link.is_stalled = true;
                if goes_on {
                    self.world.unstall(client);
                }
            }
            14 => self.world.pass(Nanos::from_millis(u64::from(tape.u16()))),
            15 => self.cut = usize::from(tape.u8()),
            16 => match tape.u8() % 4 {
                0 => self.world.is_disk_held = true,
                1 => self.world.release_disk(),
                2 => self.world.is_disk_full = !self.world.is_disk_full,
                _ => {
                    self.world.fail_writes = true;
                    self.has_failed = true;
                }
            },
            _ => self.restart(tape),
        }
    }

    fn connect(&mut self, tape: &mut Tape<'_>, says_hello: bool) {
        let shard = tape.below(self.world.nodes.len());
        let client = self.world.connect(shard);
        if says_hello {
            self.world.ask(client, 1, &Hello::new("fuzz"));
        }
        self.clients.push(client);
    }

    fn client(&mut self, tape: &mut Tape<'_>) -> Client {
        self.clients[tape.below(self.clients.len())]
    }

    fn partition(&mut self, tape: &mut Tape<'_>) -> PartitionId {
        match tape.u8() % 8 {
            0 => PartitionId(tape.u32()),
            pick => self.partitions[usize::from(pick) % self.partitions.len()],
        }
    }

    fn send(&mut self, client: Client, bytes: &[u8]) {
        let cut = if self.cut == 0 { bytes.len().max(1) } else { self.cut };
        for piece in bytes.chunks(cut) {
            self.world.send(client, piece);
        }
    }

    /// A request, perhaps with changed bytes under a header that is right.
    fn ask(&mut self, tape: &mut Tape<'_>, message: &impl Message) {
        let client = self.client(tape);
        let mut frame = Encoder::new().encode(message, u64::from(tape.u8())).to_vec();
        tape.spoil(&mut frame);
        mend_frame(&mut frame);
        self.send(client, &frame);
    }

    fn any_frame(&mut self, tape: &mut Tape<'_>) {
        let client = self.client(tape);
        let (kind, version, flags) = (tape.u8(), tape.u8(), tape.u16());
        let (control, payload) = (tape.bytes(), tape.bytes());
        let header = FrameHeader::new(FrameKind::Status, tape.u64(), control, payload.len());
        let mut frame = header.encode().to_vec();
        frame[4] ^= version;
        frame[5] = kind;
        frame[6..8].copy_from_slice(&flags.to_le_bytes());
        frame.extend_from_slice(control);
        frame.resize(frame.len().next_multiple_of(8), 0);
        frame.extend_from_slice(payload);
        mend_frame(&mut frame);
        self.send(client, &frame);
    }

    fn produce(&mut self, tape: &mut Tape<'_>) {
        let client = self.client(tape);
        let mut produce = Produce {
            partition: self.partition(tape),
            timeout_ms: u32::from(tape.u16()),
            durability: Durability::ALL[tape.below(Durability::ALL.len())],
            want_stages: false,
            sent_before: false,
            former: None,
        };
        let flags = tape.u8();
        (produce.want_stages, produce.sent_before) = (flags & 1 != 0, flags & 2 != 0);
        let mut builder = BatchBuilder::new(1 << 20, 1 << 10);
        let value = vec![7; usize::from(tape.u16()) % (12 << 10)];
        for _ in 0..=tape.u8() % 4 {
            let timestamp = tape.u64().cast_signed();
            let record = NewRecord { timestamp, value: Some(&value), ..NewRecord::default() };
            // What the builder refuses (times too far apart) a client could not have sent.
            let _ = builder.push(&record);
        }
        if builder.record_count() == 0 {
            return;
        }
        let mut batch = builder.finish().to_vec();
        tape.spoil(&mut batch);
        if tape.u8() & 1 == 1 {
            mend_body(&mut batch);
        }
        let mut frame = produce.encode_head(u64::from(tape.u8()), batch.len()).to_vec();
        tape.spoil(&mut frame);
        frame.extend_from_slice(&batch);
        mend_frame(&mut frame);
        self.send(client, &frame);
    }

    fn fetch(&mut self, tape: &mut Tape<'_>) {
        let wanted = |play: &mut Self, tape: &mut Tape<'_>| FetchPartition {
            partition: play.partition(tape),
            offset: Offset(tape.u64()),
            bytes_max: tape.u32(),
        };
        let partitions = (0..=tape.u8() % 3).map(|_| wanted(self, tape)).collect();
        let wait_max_ms = tape.u32();
        let fetch = Fetch {
            wait_max_ms,
            bytes_min: tape.u32(),
            bytes_max: tape.u32(),
            partitions,
            any_replica: wait_max_ms % 2 == 1,
        };
        self.ask(tape, &fetch);
    }

    fn restart(&mut self, tape: &mut Tape<'_>) {
        let world = &mut self.world;
        (world.fail_writes, world.is_disk_held, world.is_disk_full) = (false, false, false);
        world.crash_and_restart(1 + u16::from(tape.u8() & 1));
        self.has_failed = false;
        self.clients = vec![world.connect(0)];
        world.ask(self.clients[0], 1, &Hello::new("fuzz"));
    }

    /// What must hold after each action.
    fn check(&mut self) {
        for node in &self.world.nodes {
            let used = node.memory.used_bytes_max();
            assert!(used <= SHARD_MEMORY_BYTES_MIN, "I12: {used} bytes of a smaller budget");
        }
        for &client in &self.clients {
            // Asserts that what came are whole, sound frames.
            drop(self.world.take(client));
        }
    }

    /// Everybody leaves; the broker must be as good as before.
    fn end(mut self) {
        let world = &mut self.world;
        world.is_disk_full = false;
        world.release_disk();
        for client in self.clients {
            if !world.is_closed(client) {
                world.hang_up(client);
            }
        }
        world.pass(Nanos::from_secs(70));
        for node in &world.nodes {
            assert!(
                node.shard.is_idle(),
                "work is left of clients that are gone: {:?}",
                node.shard
            );
        }
        if !self.has_failed {
            let newcomer = world.client(0);
            world.ask(newcomer, 2, &TopicList::default());
            assert!(world.take_one(newcomer).kind == FrameKind::TopicListReply);
        }
        for shard in 0..world.nodes.len() {
            world.tell(shard, Event::Stop);
        }
        world.pass(Nanos::from_secs(10));
        for node in &world.nodes {
            assert!(node.is_stopped, "a stop does not end");
            // The receive buffer is the driver's.
            let leaks = node.memory.leaks();
            assert!(leaks.len() == 1, "slots are left: {leaks:?}");
        }
    }
}

/// Conversations that reach every kind of request.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let start = |shards| Script::default().numbers(&[shards]);
    let produce = |script: Script, level: u8, bytes: u16| {
        // Client 0, partition 1, no time limit, without stages, one record without changes.
        script
            .numbers(&[4, 0, 1])
            .u16(0)
            .numbers(&[level, 0])
            .u16(bytes)
            .numbers(&[0])
            .u64(5)
            .numbers(&[0, 0, 1, 0])
    };
    let fetch = |script: Script, wait: u32| {
        script
            .numbers(&[5, 0, 1])
            .u64(0)
            .u32(1 << 20)
            .u32(wait)
            .u32(1)
            .u32(1 << 20)
            .numbers(&[0, 3, 0])
    };
    let mut seeds = Vec::new();
    for shards in 0..2 {
        let mut script = start(shards);
        for level in 0..5 {
            script = produce(script, level, 100);
        }
        seeds.push(fetch(script.clone(), 0).0);
        // A long poll that a later batch wakes, from a client that does not read.
        seeds.push(produce(fetch(start(shards), 5_000).numbers(&[13, 0]), 4, 5_000).0);
        // Half a frame, then silence.
        let silent = start(shards).numbers(&[1, 0, 2, 1]).bytes(b"CLF1").numbers(&[14]).u16(40_000);
        seeds.push(silent.0);
        // A disk that stands still, fills up, fails; a restart.
        let held = produce(start(shards).numbers(&[16, 0]), 4, 9_000).numbers(&[16, 1]);
        seeds.push(produce(held.numbers(&[16, 2]), 4, 9_000).numbers(&[17, 1]).0);
        seeds.push(produce(start(shards).numbers(&[16, 3]), 2, 10).0);
        // Topics made, described, listed, deleted; offsets; status.
        let topic = start(shards)
            .numbers(&[7])
            .u16(3)
            .numbers(&[0])
            .u64(0)
            .numbers(&[1])
            .u16(0)
            .numbers(&[0, 9, 0]);
        let topic =
            topic.numbers(&[9]).bytes(b"b").numbers(&[0, 1, 0, 10, 0]).u32(9).numbers(&[0, 2, 0]);
        let topic =
            topic.numbers(&[6, 1]).u64(5).numbers(&[0, 3, 0, 11, 0, 0, 4, 0, 8, 1, 0, 5, 0]);
        seeds.push(topic.0);
        // A frame of a kind that does not exist, byte by byte.
        let unknown = start(shards).numbers(&[15, 1, 3, 0, 200, 0]).u16(0).bytes(b"control");
        seeds.push(unknown.bytes(b"payload").u64(9).0);
    }
    seeds
}
