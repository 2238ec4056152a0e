//! A world for one shard without an operating system: memory from a pool, a disk that says "done"
//! and keeps nothing, one connection. What is counted around a step here is the step's alone.

use std::collections::VecDeque;
use std::io;

use corelog_broker::disk::{DiskDone, DiskOrder, OpId};
use corelog_broker::memory::{Memory, Piece, Slot, slot_bytes};
use corelog_broker::random::Random;
use corelog_broker::shard::Shard;
use corelog_broker::shard::config::ShardConfig;
use corelog_broker::shard::effect::{Effect, Effects};
use corelog_broker::shard::event::{Conn, Event, Peer};
use corelog_broker::time::{Monotonic, Now, Wall};
use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{ClusterId, Incarnation, PartitionId, ShardId};
use corelog_protocol::message::{TopicCreate, TopicCreateReply, TopicSettings};

use super::counting::{self, Allocations};
use crate::load::wire::{self, Reply};

/// More powers of two than any slot has.
const SIZES: usize = 32;

/// Slots by size, used again: in steady state it allocates nothing itself.
#[derive(Default)]
struct Pool {
    slots: Vec<PoolSlot>,
    /// Free slots, by the power of two of their size.
    free: [Vec<u32>; SIZES],
    used: usize,
}

struct PoolSlot {
    bytes: Vec<u8>,
    generation: u32,
    references: u32,
}

impl Pool {
    fn slot(&self, slot: Slot) -> &PoolSlot {
        let found = &self.slots[slot.index as usize];
        assert!(found.generation == slot.generation && found.references > 0, "a stale slot");
        found
    }
}

impl Memory for Pool {
    fn allocate(&mut self, bytes: usize) -> Slot {
        let size = slot_bytes(bytes);
        self.used += size;
        if let Some(index) = self.free[size.ilog2() as usize].pop() {
            let slot = &mut self.slots[index as usize];
            slot.generation += 1;
            slot.references = 1;
            return Slot { index, generation: slot.generation };
        }
        self.slots.push(PoolSlot { bytes: vec![0; size], generation: 0, references: 1 });
        Slot { index: self.slots.len() as u32 - 1, generation: 0 }
    }

    fn capacity(&self, slot: Slot) -> usize {
        self.slot(slot).bytes.len()
    }

    fn bytes(&self, slot: Slot) -> &[u8] {
        &self.slot(slot).bytes
    }

    fn bytes_mut(&mut self, slot: Slot) -> &mut [u8] {
        self.slot(slot);
        &mut self.slots[slot.index as usize].bytes
    }

    fn pair(&mut self, source: Slot, target: Slot) -> (&[u8], &mut [u8]) {
        self.slot(source);
        self.slot(target);
        let indices = [source.index as usize, target.index as usize];
        match self.slots.get_disjoint_mut(indices) {
            Ok([source, target]) => (&source.bytes, &mut target.bytes),
            Err(_) => panic!("a pair of one slot"),
        }
    }

    fn retain(&mut self, slot: Slot) {
        self.slot(slot);
        self.slots[slot.index as usize].references += 1;
    }

    fn release(&mut self, slot: Slot) {
        self.slot(slot);
        let found = &mut self.slots[slot.index as usize];
        found.references -= 1;
        if found.references == 0 {
            let size = found.bytes.len();
            self.used -= size;
            self.free[size.ilog2() as usize].push(slot.index);
        }
    }

    fn used_bytes(&self) -> usize {
        self.used
    }
}

const CONN: Conn = Conn { index: 0, generation: 0 };

/// One shard and its world.
pub struct World {
    shard: Shard,
    pool: Pool,
    effects: Effects,
    /// The buffer that the shard's bytes arrive in.
    shared: Slot,
    target: Option<Piece>,
    paused: bool,
    events: VecDeque<Event>,
    turn: bool,
    wake: Option<Monotonic>,
    clock: u64,
    ready: bool,
    /// What the connection was sent and nobody has taken yet.
    pub sent: Vec<u8>,
    /// Of all steps so far.
    pub allocated: Allocations,
    pub steps: u64,
    pub writes: u64,
    /// Files made.
    pub segments: u64,
}

impl World {
    /// A shard that has recovered from an empty disk, and a connection that has said hello.
    pub fn start() -> io::Result<Self> {
        let mut config = ShardConfig::new(ShardId(0), 1, ClusterId(1), Incarnation(1));
        config.lanes_per_shard = 1;
        let mut pool = Pool::default();
        let shared = pool.allocate(corelog_broker::limits::RECEIVE_BYTES);
        let mut world = Self {
            shard: Shard::new(config, Random::new(1)),
            pool,
            effects: Effects::default(),
            shared,
            target: None,
            paused: true,
            events: VecDeque::new(),
            turn: false,
            wake: None,
            clock: 1,
            ready: false,
            sent: Vec::new(),
            allocated: Allocations::default(),
            steps: 0,
            writes: 0,
            segments: 0,
        };
        world.events.push_back(Event::Start);
        world.settle();
        if !world.ready {
            return Err(io::Error::other("the shard did not recover from an empty disk"));
        }
        let peer = Peer { address: [0; 16], port: 1 };
        world.events.push_back(Event::Opened { conn: CONN, peer });
        world.settle();
        world.deliver(&wire::opening(ShardId(0))[wire::PREAMBLE_BYTES..])?;
        Ok(world)
    }

    /// A topic of one partition.
    pub fn create_topic(&mut self) -> io::Result<PartitionId> {
        self.sent.clear();
        let settings =
            TopicSettings { partitions: 1, replicas: 0, retention_ms: None, retention_bytes: None };
        let request = TopicCreate { name: "cost".to_owned(), settings, timeout_ms: 0 };
        let mut bytes = Vec::new();
        request.encode(1, &mut bytes);
        self.deliver(&bytes)?;
        let frame = wire::frame(&self.sent).map_err(io::Error::other)?;
        let frame = frame.ok_or_else(|| io::Error::other("no answer to a topic's creation"))?;
        if frame.kind != FrameKind::TopicCreateReply {
            return Err(io::Error::other(wire::error_text(frame.control)));
        }
        let reply = TopicCreateReply::decode(frame.control).map_err(io::Error::other)?;
        let place = reply.topic.places.first();
        place.map(|place| place.partition).ok_or_else(|| io::Error::other("no partition"))
    }

    /// Delivers one produce frame and takes its ack.
    pub fn produce(&mut self, frame: &mut [u8], correlation: u64) -> io::Result<()> {
        self.sent.clear();
        wire::set_correlation(frame, correlation);
        self.deliver(frame)?;
        match wire::reply(&self.sent).map_err(io::Error::other)? {
            Some((Reply::Ack { correlation: told, .. }, _)) if told == correlation => Ok(()),
            other => Err(io::Error::other(format!("ack expected, got {other:?}"))),
        }
    }

    /// Gives bytes to the connection, as much at a time as the shard asks for, and lets the shard
    /// do all that follows.
    pub fn deliver(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.paused {
                return Err(io::Error::other("the shard reads no more"));
            }
            let room = match self.target {
                Some(target) => target,
                None => Piece::new(self.shared, 0, self.pool.capacity(self.shared)),
            };
            let count = bytes.len().min(room.len as usize);
            let piece = Piece { len: count as u32, ..room };
            self.pool.bytes_mut(piece.slot)[piece.range()].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            self.target = None;
            self.events.push_back(Event::Received { conn: CONN, piece });
            self.settle();
        }
        Ok(())
    }

    /// Steps until nothing is left to do, deadlines of more than a second aside.
    fn settle(&mut self) {
        for _ in 0..1_000_000 {
            if let Some(event) = self.events.pop_front() {
                self.step(event);
            } else if std::mem::take(&mut self.turn) {
                self.step(Event::Turn);
            } else if self.wake.is_some_and(|wake| wake.0 <= self.clock + 1_000_000_000)
                && !self.ready
            {
                self.clock = self.clock.max(self.wake.take().map_or(0, |wake| wake.0));
                self.step(Event::Woken);
            } else {
                return;
            }
        }
        panic!("the shard never comes to rest");
    }

    fn step(&mut self, event: Event) {
        self.clock += 1000;
        let now = Now { monotonic: Monotonic(self.clock), wall: Wall(1_700_000_000_000) };
        let before = counting::of_this_thread();
        self.shard.step(now, event, &mut self.pool, &mut self.effects);
        let cost = counting::of_this_thread().since(before);
        self.allocated.count += cost.count;
        self.allocated.bytes += cost.bytes;
        self.steps += 1;
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.list.drain(..) {
            self.carry_out(effect, &effects.pieces);
        }
        effects.clear();
        self.effects = effects;
    }

    fn carry_out(&mut self, effect: Effect, pieces: &[Piece]) {
        match effect {
            Effect::Receive { target, .. } => {
                self.target = target;
                self.paused = false;
            }
            Effect::Pause { .. } => self.paused = true,
            Effect::Send { conn, pieces: range } => {
                for piece in &pieces[range.start as usize..range.end as usize] {
                    self.sent.extend_from_slice(self.pool.piece(*piece));
                    self.pool.release(piece.slot);
                }
                self.events.push_back(Event::Sent { conn });
            }
            Effect::Disk { op, order } => self.disk(op, order),
            Effect::Turn => self.turn = true,
            Effect::Wake { at } => self.wake = Some(at),
            Effect::Ready => self.ready = true,
            Effect::Close { conn, .. } => self.events.push_back(Event::Closed { conn }),
            Effect::Stopped | Effect::Tell { .. } | Effect::Dial { .. } => {}
        }
    }

    fn disk(&mut self, op: OpId, order: DiskOrder) {
        let done = match order {
            DiskOrder::List { .. } => DiskDone::Listed { files: Vec::new() },
            DiskOrder::Open { .. } => DiskDone::Failed(corelog_broker::disk::DiskError::Missing),
            DiskOrder::Space { .. } => DiskDone::Space { free_bytes: 1 << 40 },
            DiskOrder::Create { .. } => {
                self.segments += 1;
                DiskDone::Done
            }
            DiskOrder::Read { slot, len, .. } => {
                self.pool.bytes_mut(slot)[..len as usize].fill(0);
                DiskDone::Done
            }
            DiskOrder::Write { slot, .. } => {
                self.writes += 1;
                self.pool.release(slot);
                DiskDone::Done
            }
            _ => DiskDone::Done,
        };
        self.events.push_back(Event::Disk { op, done });
    }
}
