//! A broker of a few shards on one thread, with a disk that works at once unless it is held, and
//! clients that are lists of bytes. No chance in it: for that there is the simulator.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use corelog_protocol::batch::{BatchBuilder, NewRecord};
use corelog_protocol::frame::{FrameHeader, FrameKind};
use corelog_protocol::ids::{ClusterId, Incarnation, LaneId, PartitionId, ProducerId, ShardId};
use corelog_protocol::message::{
    Encoder, ErrorReply, Hello, Message, Offsets, OffsetsQuery, OffsetsReply, TopicCreate,
    TopicCreateReply, TopicDescribe, TopicDescribeReply, TopicInfo, TopicSettings,
};
use corelog_protocol::produce::{Produce, ProduceAck};
use corelog_protocol::{Durability, ErrorCode};

use crate::disk::{DirectoryId, DiskDone, DiskError, DiskOrder, FileId, ListedFile, OpId, Place};
use crate::limits::RECEIVE_BYTES;
use crate::memory::{Memory, Piece, Slot};
use crate::random::Random;
use crate::shard::effect::{Effect, Effects};
use crate::shard::event::{Conn, DialId, Event, Peer};
use crate::shard::{Shard, ShardConfig};
use crate::sim::memory::SimMemory;
use crate::time::{Monotonic, Nanos, Now, Wall};

pub const CLUSTER: ClusterId = ClusterId(0xc0de);
pub const INCARNATION: Incarnation = Incarnation(7);
const FRAME_BYTES_CLIENT_MAX: u32 = 32 << 20;

/// A client's end of a connection.
#[derive(Debug, Default)]
pub struct Link {
    /// Sent and not read by the shard yet.
    outbox: VecDeque<u8>,
    /// Received and not taken yet.
    inbox: Vec<u8>,
    target: Option<Piece>,
    is_shared: bool,
    pub is_closed: bool,
    /// The client does not read: sends stay with the driver.
    pub is_stalled: bool,
    stalled: VecDeque<Vec<Piece>>,
    pub generation: u32,
}

pub struct Node {
    pub shard: Shard,
    pub memory: SimMemory,
    effects: Effects,
    receive: Slot,
    pub links: Vec<Link>,
    files: BTreeMap<FileId, (DirectoryId, Box<str>)>,
    turn: bool,
    pub wake: Option<Monotonic>,
    pub is_ready: bool,
    pub is_stopped: bool,
}

pub struct World {
    pub now: Now,
    pub nodes: Vec<Node>,
    disk: BTreeMap<(DirectoryId, Box<str>), Vec<u8>>,
    events: VecDeque<(usize, Event)>,
    /// Completions wait here while the disk is held.
    pub is_disk_held: bool,
    /// Of what waits while the disk is held, only what is for the files of this lane.
    pub held_lane: Option<LaneId>,
    held: VecDeque<(usize, OpId, DiskOrder)>,
    pub fail_writes: bool,
    pub is_disk_full: bool,
    config: Box<dyn Fn(&mut ShardConfig)>,
    /// Whoever owns this world answers its dials.
    pub is_networked: bool,
    dials: Vec<Dial>,
}

/// A connection that a shard wants, and that is not answered yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dial {
    pub shard: usize,
    pub dial: DialId,
    pub address: SocketAddr,
    pub wanted: ShardId,
}

/// A client: its shard and its place there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Client {
    pub shard: usize,
    pub link: usize,
}

/// A frame from the broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    pub kind: FrameKind,
    pub correlation: u64,
    pub control: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn error(&self) -> ErrorReply {
        assert_eq!(self.kind, FrameKind::Error, "{self:?}");
        ErrorReply::decode(&self.control).unwrap()
    }
    pub fn ack(&self) -> ProduceAck {
        if self.kind == FrameKind::Error {
            panic!("{:?}", self.error());
        }
        assert_eq!(self.kind, FrameKind::ProduceAck);
        ProduceAck::decode(&self.control).unwrap()
    }
}

impl World {
    /// A broker that has started for the first time and is ready.
    pub fn new(shards: u16) -> Self {
        Self::with(shards, |_| {})
    }

    pub fn with(shards: u16, config: impl Fn(&mut ShardConfig) + 'static) -> Self {
        let mut world = Self::unstarted(shards, config);
        world.start();
        assert!(world.nodes.iter().all(|node| node.is_ready));
        world
    }

    pub fn unstarted(shards: u16, config: impl Fn(&mut ShardConfig) + 'static) -> Self {
        let now = Now { monotonic: Monotonic(1_000_000_000), wall: Wall(1_700_000_000_000) };
        let mut world = Self {
            now,
            nodes: Vec::new(),
            disk: BTreeMap::new(),
            events: VecDeque::new(),
            is_disk_held: false,
            held_lane: None,
            held: VecDeque::new(),
            fail_writes: false,
            is_disk_full: false,
            config: Box::new(config),
            is_networked: false,
            dials: Vec::new(),
        };
        world.make_nodes(shards);
        world
    }

    fn make_nodes(&mut self, shards: u16) {
        for shard in 0..shards {
            let mut config = ShardConfig::new(ShardId(shard), shards, CLUSTER, INCARNATION);
            config.segment_bytes = 1 << 20;
            config.frame_bytes_max = 256 << 10;
            (self.config)(&mut config);
            let seed = 100 + u64::from(shard) + 1_000 * u64::from(config.broker.0 - 1);
            let mut memory = SimMemory::new(u64::from(shard));
            let receive = memory.allocate(RECEIVE_BYTES);
            self.nodes.push(Node {
                shard: Shard::new(config, Random::new(seed)),
                memory,
                effects: Effects::default(),
                receive,
                links: Vec::new(),
                files: BTreeMap::new(),
                turn: false,
                wake: None,
                is_ready: false,
                is_stopped: false,
            });
        }
    }

    pub fn start(&mut self) {
        for shard in 0..self.nodes.len() {
            self.events.push_back((shard, Event::Start));
        }
        self.run();
    }

    /// The process ends without a word, and another starts with this many shards.
    pub fn crash_and_restart(&mut self, shards: u16) {
        self.crash();
        self.make_nodes(shards);
        self.start();
    }

    /// One byte behind these, wherever files of the disk have them, is not what it was. Returns in how many places.
    pub fn rot(&mut self, needle: &[u8]) -> usize {
        let mut count = 0;
        for bytes in self.disk.values_mut() {
            let places = bytes.windows(needle.len()).enumerate();
            let places: Vec<usize> =
                places.filter(|(_, found)| *found == needle).map(|(at, _)| at).collect();
            for at in places {
                if let Some(byte) = bytes.get_mut(at + needle.len()) {
                    *byte ^= 0x55;
                    count += 1;
                }
            }
        }
        count
    }

    /// The process ends without a word. What the disk has done stays.
    pub fn crash(&mut self) {
        self.nodes.clear();
        self.events.clear();
        self.held.clear();
        self.dials.clear();
    }

    /// The disk is empty from now on. Of a broker that does not run.
    pub fn wipe(&mut self) {
        assert!(self.nodes.is_empty());
        self.disk.clear();
    }

    pub fn tell(&mut self, shard: usize, event: Event) {
        self.events.push_back((shard, event));
        self.run();
    }

    /// Delivers everything that can happen without time passing.
    pub fn run(&mut self) {
        for _ in 0..1_000_000 {
            if let Some((shard, event)) = self.events.pop_front() {
                self.step(shard, event);
            } else if !self.deliver_bytes() && !self.deliver_turn() {
                return;
            }
        }
        panic!("the shards never come to rest");
    }

    /// Lets time pass, waking the shards when they asked to be.
    pub fn pass(&mut self, length: Nanos) {
        let end = self.now.monotonic + length;
        self.run();
        while let Some(at) = self.next_wake().filter(|at| *at <= end) {
            self.advance(at - self.now.monotonic);
            self.wake();
        }
        self.advance(end - self.now.monotonic);
    }

    /// When the first of the shards asked to be woken.
    pub fn next_wake(&self) -> Option<Monotonic> {
        self.nodes.iter().filter_map(|node| node.wake).min()
    }

    /// Wakes the one that asked for the earliest time, if any did.
    pub fn wake(&mut self) {
        let wakes = self.nodes.iter().enumerate().filter_map(|(at, node)| Some((node.wake?, at)));
        let Some((_, shard)) = wakes.min() else { return };
        self.nodes[shard].wake = None;
        self.tell(shard, Event::Woken);
    }

    pub fn advance(&mut self, length: Nanos) {
        self.now.monotonic = self.now.monotonic + length;
        self.now.wall.0 += length.as_millis() as i64;
    }

    fn deliver_turn(&mut self) -> bool {
        let Some(shard) = self.nodes.iter().position(|node| node.turn) else { return false };
        self.nodes[shard].turn = false;
        self.step(shard, Event::Turn);
        true
    }

    fn deliver_bytes(&mut self) -> bool {
        for shard in 0..self.nodes.len() {
            let node = &mut self.nodes[shard];
            for at in 0..node.links.len() {
                let link = &mut node.links[at];
                let wanted = match link.target {
                    Some(target) => target,
                    None if link.is_shared => Piece::new(node.receive, 0, RECEIVE_BYTES),
                    None => continue,
                };
                if link.outbox.is_empty() || link.is_closed {
                    continue;
                }
                let len = link.outbox.len().min(wanted.len as usize);
                let bytes: Vec<u8> = link.outbox.drain(..len).collect();
                let piece = Piece::new(wanted.slot, wanted.start as usize, len);
                node.memory.bytes_mut(wanted.slot)[piece.range()].copy_from_slice(&bytes);
                link.target = None;
                let conn = Conn { index: at as u32, generation: link.generation };
                self.step(shard, Event::Received { conn, piece });
                return true;
            }
        }
        false
    }

    fn step(&mut self, shard: usize, event: Event) {
        self.now.monotonic.0 += 1_000;
        let node = &mut self.nodes[shard];
        if node.is_stopped {
            return;
        }
        let mut effects = std::mem::take(&mut node.effects);
        node.shard.step(self.now, event, &mut node.memory, &mut effects);
        self.carry_out_all(shard, effects);
    }

    fn carry_out_all(&mut self, shard: usize, mut effects: Effects) {
        let list: Vec<Effect> = effects.list.drain(..).collect();
        let pieces: Vec<Piece> = effects.pieces.clone();
        effects.clear();
        self.nodes[shard].effects = effects;
        for effect in list {
            self.carry_out(shard, effect, &pieces);
        }
    }

    fn carry_out(&mut self, shard: usize, effect: Effect, pieces: &[Piece]) {
        let node = &mut self.nodes[shard];
        match effect {
            Effect::Receive { conn, target } => {
                let link = &mut node.links[conn.index as usize];
                link.is_shared = target.is_none();
                link.target = target;
            }
            Effect::Pause { conn } => {
                let link = &mut node.links[conn.index as usize];
                link.is_shared = false;
                link.target = None;
            }
            Effect::Send { conn, pieces: range } => {
                let pieces = pieces[range.start as usize..range.end as usize].to_vec();
                let link = &mut node.links[conn.index as usize];
                if link.is_stalled {
                    pieces.iter().for_each(|piece| node.memory.pin(piece.slot));
                    link.stalled.push_back(pieces);
                } else {
                    for piece in pieces {
                        link.inbox.extend_from_slice(node.memory.piece(piece));
                        node.memory.release(piece.slot);
                    }
                    self.events.push_back((shard, Event::Sent { conn }));
                }
            }
            Effect::Close { conn, after_sends } => {
                let link = &mut node.links[conn.index as usize];
                if !link.is_closed && (link.stalled.is_empty() || !after_sends) {
                    self.hang_up_at(shard, conn.index as usize);
                }
            }
            Effect::Dial { dial, address, shard: wanted } => match self.is_networked {
                true => self.dials.push(Dial { shard, dial, address, wanted }),
                // There is nobody else in this world.
                false => self.events.push_back((shard, Event::Dialed { dial, conn: None })),
            },
            Effect::Disk { op, order } => {
                if self.is_disk_held && self.is_held(shard, &order) {
                    self.held.push_back((shard, op, order));
                } else {
                    self.complete(shard, op, order);
                }
            }
            Effect::Tell { to, message } => {
                let from = ShardId(shard as u16);
                self.events.push_back((usize::from(to.0), Event::Told { from, message }));
            }
            Effect::Turn => node.turn = true,
            Effect::Wake { at } => node.wake = Some(at),
            Effect::Ready => node.is_ready = true,
            Effect::Stopped => node.is_stopped = true,
        }
    }

    fn is_held(&self, shard: usize, order: &DiskOrder) -> bool {
        let Some(lane) = self.held_lane else { return true };
        let file = match order {
            DiskOrder::Write { file, .. } | DiskOrder::Zero { file, .. } => *file,
            DiskOrder::Flush { file } | DiskOrder::Read { file, .. } => *file,
            _ => return false,
        };
        let folder = format!("lanes/{lane}/");
        let file = self.nodes[shard].files.get(&file);
        file.is_some_and(|(_, path)| path.starts_with(&folder))
    }

    /// Lets the disk complete what it has.
    pub fn release_disk(&mut self) {
        self.is_disk_held = false;
        while let Some((shard, op, order)) = self.held.pop_front() {
            self.complete(shard, op, order);
        }
        self.run();
    }

    fn complete(&mut self, shard: usize, op: OpId, order: DiskOrder) {
        let done = self.carry_out_order(shard, order).unwrap_or_else(DiskDone::Failed);
        self.events.push_back((shard, Event::Disk { op, done }));
    }

    fn carry_out_order(&mut self, shard: usize, order: DiskOrder) -> Result<DiskDone, DiskError> {
        let node = &mut self.nodes[shard];
        let key = |place: &Place| (place.directory, place.path.clone());
        match order {
            DiskOrder::MakeFolder { .. }
            | DiskOrder::Flush { .. }
            | DiskOrder::SyncFolder { .. } => {}
            DiskOrder::List { place } => {
                let folder = format!("{}/", place.path);
                let inside = self.disk.iter().filter(|((directory, path), _)| {
                    *directory == place.directory && path.starts_with(&folder)
                });
                let files = inside
                    .map(|((_, path), bytes)| ListedFile {
                        name: path[folder.len()..].into(),
                        bytes: bytes.len() as u64,
                    })
                    .collect();
                return Ok(DiskDone::Listed { files });
            }
            DiskOrder::Open { file, place } => {
                let bytes = self.disk.get(&key(&place)).ok_or(DiskError::Missing)?.len() as u64;
                node.files.insert(file, key(&place));
                return Ok(DiskDone::Opened { bytes });
            }
            DiskOrder::Create { file, place, bytes } => {
                if self.is_disk_full {
                    return Err(DiskError::Full);
                }
                if self.disk.contains_key(&key(&place)) {
                    return Err(DiskError::Exists);
                }
                self.disk.insert(key(&place), vec![0; bytes as usize]);
                node.files.insert(file, key(&place));
            }
            DiskOrder::Read { file, position, slot, len } => {
                let bytes = &self.disk[&node.files[&file]];
                let range = position as usize..position as usize + len as usize;
                let bytes = bytes.get(range).ok_or(DiskError::Io)?;
                node.memory.bytes_mut(slot)[..len as usize].copy_from_slice(bytes);
            }
            DiskOrder::Write { file, position, slot, len } => {
                let key = &node.files[&file];
                if self.fail_writes {
                    node.memory.release(slot);
                    return Err(DiskError::Io);
                }
                let bytes = self.disk.get_mut(key).ok_or(DiskError::Io)?;
                let range = position as usize..position as usize + len as usize;
                bytes[range].copy_from_slice(&node.memory.bytes(slot)[..len as usize]);
                node.memory.release(slot);
            }
            DiskOrder::Zero { file, position, len } => {
                let bytes = self.disk.get_mut(&node.files[&file]).ok_or(DiskError::Io)?;
                bytes[position as usize..position as usize + len as usize].fill(0);
            }
            DiskOrder::Rename { file, to } => {
                let from = node.files[&file].clone();
                let bytes = self.disk.remove(&from).ok_or(DiskError::Missing)?;
                self.disk.insert(key(&to), bytes);
                node.files.insert(file, key(&to));
            }
            DiskOrder::Close { file } => _ = node.files.remove(&file),
            DiskOrder::Remove { place } => _ = self.disk.remove(&key(&place)),
            DiskOrder::Space { .. } => {
                let free_bytes = if self.is_disk_full { 0 } else { 1 << 40 };
                return Ok(DiskDone::Space { free_bytes });
            }
        }
        Ok(DiskDone::Done)
    }

    /// A connection of which nothing has been said yet.
    pub fn connect(&mut self, shard: usize) -> Client {
        let (client, conn) = self.new_link(shard);
        let peer = Peer { address: [1; 16], port: 1000 + client.link as u16 };
        self.tell(shard, Event::Opened { conn, peer });
        client
    }

    /// What the shards have dialed since the last call.
    pub fn take_dials(&mut self) -> Vec<Dial> {
        std::mem::take(&mut self.dials)
    }

    /// A dial has led to somebody: the other end of the connection.
    pub fn answer_dial(&mut self, dial: Dial) -> Client {
        let (client, conn) = self.new_link(dial.shard);
        self.tell(dial.shard, Event::Dialed { dial: dial.dial, conn: Some(conn) });
        client
    }

    /// Nobody is there.
    pub fn refuse_dial(&mut self, dial: Dial) {
        self.tell(dial.shard, Event::Dialed { dial: dial.dial, conn: None });
    }

    /// Lets a shard do something that no event asks for, and carries out what follows.
    #[cfg(test)]
    pub(crate) fn act<R>(
        &mut self,
        shard: usize,
        act: impl FnOnce(&mut Shard, &mut crate::shard::Cx<'_, SimMemory>) -> R,
    ) -> R {
        let node = &mut self.nodes[shard];
        let mut effects = std::mem::take(&mut node.effects);
        let result = node.shard.act(self.now, &mut node.memory, &mut effects, act);
        self.carry_out_all(shard, effects);
        self.run();
        result
    }

    fn new_link(&mut self, shard: usize) -> (Client, Conn) {
        let links = &mut self.nodes[shard].links;
        // Places are used again, as a driver does; the shard has heard of the end of the one before.
        let at = links.iter().position(|link| link.is_closed).unwrap_or(links.len());
        let generation = links.get(at).map_or(1, |link| link.generation + 1);
        let link = Link { generation, ..Link::default() };
        match links.get_mut(at) {
            Some(place) => *place = link,
            None => links.push(link),
        }
        (Client { shard, link: at }, Conn { index: at as u32, generation })
    }

    /// A connection that has said hello.
    pub fn client(&mut self, shard: usize) -> Client {
        let client = self.connect(shard);
        self.ask(client, 1, &Hello::new("test"));
        let reply = self.take(client);
        assert_eq!(reply.len(), 1);
        assert_eq!(reply[0].kind, FrameKind::HelloReply);
        client
    }

    pub fn link(&mut self, client: Client) -> &mut Link {
        &mut self.nodes[client.shard].links[client.link]
    }

    pub fn is_closed(&mut self, client: Client) -> bool {
        self.link(client).is_closed
    }

    pub fn send(&mut self, client: Client, bytes: &[u8]) {
        self.link(client).outbox.extend(bytes);
        self.run();
    }

    /// Bytes on their way, to be read at the next [`run`](Self::run).
    pub fn queue(&mut self, client: Client, bytes: &[u8]) {
        self.link(client).outbox.extend(bytes);
    }

    /// What has come, as it came.
    pub fn take_bytes(&mut self, client: Client) -> Vec<u8> {
        std::mem::take(&mut self.link(client).inbox)
    }

    pub fn describe(&mut self, client: Client, name: &str) -> TopicInfo {
        self.ask(client, 3, &TopicDescribe { name: name.into() });
        TopicDescribeReply::decode(&self.take_one(client).control).expect("it exists").topic
    }

    /// Where a partition of this client's shard ends.
    pub fn committed_end(&mut self, client: Client, partition: PartitionId) -> u64 {
        let query = OffsetsQuery { partition, timestamp: None };
        self.ask(client, 4, &Offsets { partitions: vec![query] });
        let reply = OffsetsReply::decode(&self.take_one(client).control).expect("a reply");
        reply.partitions[0].committed_end.0
    }

    pub fn ask(&mut self, client: Client, correlation: u64, message: &impl Message) {
        let bytes = Encoder::new().encode(message, correlation).to_vec();
        self.send(client, &bytes);
    }

    /// The client hangs up.
    pub fn hang_up(&mut self, client: Client) {
        self.hang_up_at(client.shard, client.link);
        self.run();
    }

    fn hang_up_at(&mut self, shard: usize, at: usize) {
        let node = &mut self.nodes[shard];
        let link = &mut node.links[at];
        link.is_closed = true;
        for piece in link.stalled.drain(..).flatten() {
            node.memory.unpin(piece.slot);
            node.memory.release(piece.slot);
        }
        let conn = Conn { index: at as u32, generation: link.generation };
        self.events.push_back((shard, Event::Closed { conn }));
    }

    /// The client reads again.
    pub fn unstall(&mut self, client: Client) {
        let node = &mut self.nodes[client.shard];
        let link = &mut node.links[client.link];
        link.is_stalled = false;
        let conn = Conn { index: client.link as u32, generation: link.generation };
        for pieces in link.stalled.drain(..) {
            for piece in pieces {
                link.inbox.extend_from_slice(node.memory.piece(piece));
                node.memory.unpin(piece.slot);
                node.memory.release(piece.slot);
            }
            self.events.push_back((client.shard, Event::Sent { conn }));
        }
        self.run();
    }

    /// All whole frames that have come.
    pub fn take(&mut self, client: Client) -> Vec<Frame> {
        let inbox = std::mem::take(&mut self.link(client).inbox);
        let mut frames = Vec::new();
        let mut rest = &inbox[..];
        while !rest.is_empty() {
            let header = FrameHeader::decode(rest, FRAME_BYTES_CLIENT_MAX).expect("a frame");
            frames.push(Frame {
                kind: header.kind,
                correlation: header.correlation,
                control: header.control(rest).expect("intact").to_vec(),
                payload: header.payload(rest).expect("whole").to_vec(),
            });
            rest = &rest[header.frame_bytes()..];
        }
        frames
    }

    /// The only frame that has come.
    pub fn take_one(&mut self, client: Client) -> Frame {
        let mut frames = self.take(client);
        assert_eq!(frames.len(), 1, "{frames:?}");
        frames.remove(0)
    }

    pub fn create_topic(&mut self, client: Client, name: &str, partitions: u32) -> TopicInfo {
        let settings =
            TopicSettings { partitions, replicas: 0, retention_ms: None, retention_bytes: None };
        self.create_topic_with(client, name, settings)
    }

    pub fn create_topic_with(
        &mut self,
        client: Client,
        name: &str,
        settings: TopicSettings,
    ) -> TopicInfo {
        self.ask(client, 2, &TopicCreate { name: name.into(), settings, timeout_ms: 0 });
        let frame = self.take_one(client);
        if frame.kind == FrameKind::Error {
            panic!("{:?}", frame.error());
        }
        TopicCreateReply::decode(&frame.control).unwrap().topic
    }

    pub fn counter(&self, shard: usize, name: &str) -> u64 {
        let mut found = None;
        self.nodes[shard].shard.counters().each(|known, value| {
            if known == name {
                found = Some(value);
            }
        });
        found.expect("a counter of this name")
    }

    /// Commits of all the shard's lanes.
    pub fn commits(&self, shard: usize) -> u64 {
        let lanes = self.nodes[shard].shard.lane_counters();
        lanes.map(|(_, counters)| counters.commits).sum()
    }
}

/// One batch of `count` records that say `text`.
pub fn batch(text: &str, count: u32) -> Vec<u8> {
    let mut builder = BatchBuilder::new(8 << 20, 10_000);
    for _ in 0..count {
        let record = NewRecord {
            timestamp: 1_700_000_000_000,
            key: None,
            value: Some(text.as_bytes()),
            headers: &[],
        };
        builder.push(&record).expect("fits");
    }
    builder.finish().to_vec()
}

/// The same, of a producer.
pub fn batch_of(producer: (u64, u16, u32), text: &str, count: u32) -> Vec<u8> {
    let (id, epoch, sequence) = producer;
    let mut builder = BatchBuilder::new(8 << 20, 10_000);
    builder.set_producer(ProducerId(id), epoch, sequence);
    for _ in 0..count {
        let record = NewRecord { value: Some(text.as_bytes()), ..NewRecord::default() };
        builder.push(&record).expect("fits");
    }
    builder.finish().to_vec()
}

/// A produce frame.
pub fn produce(
    partition: PartitionId,
    durability: Durability,
    correlation: u64,
    batch: &[u8],
) -> Vec<u8> {
    let produce = Produce {
        partition,
        timeout_ms: 0,
        durability,
        want_stages: false,
        sent_before: false,
        former: None,
    };
    produce_with(produce, correlation, batch)
}

pub fn produce_with(produce: Produce, correlation: u64, batch: &[u8]) -> Vec<u8> {
    let mut frame = produce.encode_head(correlation, batch.len()).to_vec();
    frame.extend_from_slice(batch);
    frame
}

pub fn codes(frames: &[Frame]) -> Vec<(u64, ErrorCode)> {
    frames.iter().map(|frame| (frame.correlation, frame.error().code)).collect()
}
