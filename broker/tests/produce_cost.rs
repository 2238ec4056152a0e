//! What a small batch costs in `Shard::step`, without sockets and disks: heap allocations (none, in
//! steady state: asserted) and time (printed, never asserted). For figures that mean something:
//! `cargo test --release --no-default-features -p corelog-broker --test produce_cost -- --nocapture`

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use corelog_broker::disk::{DiskDone, DiskOrder};
use corelog_broker::memory::{Memory, Piece, Slot, slot_bytes};
use corelog_broker::random::Random;
use corelog_broker::shard::effect::{Effect, Effects};
use corelog_broker::shard::event::{Conn, Event, Peer};
use corelog_broker::shard::{Shard, ShardConfig};
use corelog_broker::time::{Monotonic, Now, Wall};
use corelog_protocol::Durability;
use corelog_protocol::batch::{BatchBuilder, NewRecord};
use corelog_protocol::ids::{ClusterId, Incarnation, PartitionId, ShardId};
use corelog_protocol::message::{Encoder, Hello, TopicCreate, TopicSettings};
use corelog_protocol::produce::Produce;

/// Counts the allocations of the thread that asks.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator; counting touches no heap.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps `alloc`'s contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract, which is the same.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

/// Slots of plain memory, with free lists by size.
#[derive(Default)]
struct Pool {
    slots: Vec<(Box<[u8]>, u32)>,
    free: [Vec<u32>; 32],
    used: usize,
}

impl Memory for Pool {
    fn allocate(&mut self, bytes: usize) -> Slot {
        let bytes = slot_bytes(bytes);
        self.used += bytes;
        let class = bytes.trailing_zeros() as usize;
        let index = self.free[class].pop().unwrap_or_else(|| {
            self.slots.push((vec![0; bytes].into_boxed_slice(), 0));
            self.slots.len() as u32 - 1
        });
        self.slots[index as usize].1 = 1;
        Slot { index, generation: 0 }
    }
    fn capacity(&self, slot: Slot) -> usize {
        self.bytes(slot).len()
    }
    fn bytes(&self, slot: Slot) -> &[u8] {
        &self.slots[slot.index as usize].0
    }
    fn bytes_mut(&mut self, slot: Slot) -> &mut [u8] {
        &mut self.slots[slot.index as usize].0
    }
    fn pair(&mut self, source: Slot, target: Slot) -> (&[u8], &mut [u8]) {
        let indexes = [source.index as usize, target.index as usize];
        let [source, target] = self.slots.get_disjoint_mut(indexes).expect("two slots");
        (&source.0, &mut target.0)
    }
    fn retain(&mut self, slot: Slot) {
        self.slots[slot.index as usize].1 += 1;
    }
    fn release(&mut self, slot: Slot) {
        let (bytes, references) = &mut self.slots[slot.index as usize];
        *references -= 1;
        if *references == 0 {
            self.used -= bytes.len();
            self.free[bytes.len().trailing_zeros() as usize].push(slot.index);
        }
    }
    fn used_bytes(&self) -> usize {
        self.used
    }
}

/// A shard whose disk is fast and whose clients are many.
struct Rig {
    shard: Shard,
    pool: Pool,
    effects: Effects,
    receive: Slot,
    now: Now,
    events: VecDeque<Event>,
    wants_turn: bool,
    is_ready: bool,
    in_step: Duration,
    allocated_in_step: u64,
    sends: u64,
    sent_bytes: u64,
    writes: u64,
}

impl Rig {
    fn new() -> Self {
        let mut config = ShardConfig::new(ShardId(0), 1, ClusterId(1), Incarnation(1));
        config.segment_bytes = 64 << 20;
        // A small tail cache is soon full, and from then on its buffers go round.
        config.memory_bytes = 16 << 20;
        let mut pool = Pool::default();
        let receive = pool.allocate(64 << 10);
        let mut rig = Self {
            shard: Shard::new(config, Random::new(1)),
            pool,
            effects: Effects::default(),
            receive,
            now: Now { monotonic: Monotonic(1), wall: Wall(1_700_000_000_000) },
            events: VecDeque::from([Event::Start]),
            wants_turn: false,
            is_ready: false,
            in_step: Duration::ZERO,
            allocated_in_step: 0,
            sends: 0,
            sent_bytes: 0,
            writes: 0,
        };
        rig.run();
        assert!(rig.is_ready);
        rig
    }

    fn run(&mut self) {
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None if std::mem::take(&mut self.wants_turn) => Event::Turn,
                None => return,
            };
            self.step(event);
        }
    }

    fn step(&mut self, event: Event) {
        self.now.monotonic.0 += 1_000;
        let before = allocations();
        let start = Instant::now();
        self.shard.step(self.now, event, &mut self.pool, &mut self.effects);
        self.in_step += start.elapsed();
        self.allocated_in_step += allocations() - before;
        for effect in self.effects.list.drain(..) {
            match effect {
                Effect::Send { conn, pieces } => {
                    self.sends += 1;
                    for piece in &self.effects.pieces[pieces.start as usize..pieces.end as usize] {
                        self.sent_bytes += u64::from(piece.len);
                        self.pool.release(piece.slot);
                    }
                    self.events.push_back(Event::Sent { conn });
                }
                Effect::Disk { op, order } => {
                    let done = match order {
                        DiskOrder::Write { slot, .. } => {
                            self.writes += 1;
                            self.pool.release(slot);
                            DiskDone::Done
                        }
                        DiskOrder::List { .. } => DiskDone::Listed { files: Vec::new() },
                        DiskOrder::Space { .. } => DiskDone::Space { free_bytes: 1 << 40 },
                        _ => DiskDone::Done,
                    };
                    self.events.push_back(Event::Disk { op, done });
                }
                Effect::Turn => self.wants_turn = true,
                Effect::Ready => self.is_ready = true,
                _ => {}
            }
        }
        self.effects.clear();
    }

    fn receive(&mut self, conn: Conn, bytes: &[u8]) {
        self.pool.bytes_mut(self.receive)[..bytes.len()].copy_from_slice(bytes);
        let piece = Piece::new(self.receive, 0, bytes.len());
        self.step(Event::Received { conn, piece });
    }

    fn connect(&mut self, index: u32) -> Conn {
        let conn = Conn { index, generation: 1 };
        self.step(Event::Opened { conn, peer: Peer { address: [0; 16], port: 1 } });
        let hello = Encoder::new().encode(&Hello::new("cost"), 1).to_vec();
        self.receive(conn, &hello);
        self.run();
        conn
    }
}

fn measure(level: Durability, connections: u32, in_flight: usize, warm: u64, rounds: u64) {
    let mut rig = Rig::new();
    let conns: Vec<Conn> = (0..connections).map(|index| rig.connect(index)).collect();
    let settings =
        TopicSettings { partitions: 2, replicas: 1, retention_ms: None, retention_bytes: None };
    let create = TopicCreate { name: "cost".into(), settings, timeout_ms: 0 };
    let create = Encoder::new().encode(&create, 2).to_vec();
    rig.receive(conns[0], &create);
    rig.run();
    let mut builder = BatchBuilder::new(4 << 10, 10);
    let value = [7u8; 100];
    let record = NewRecord { timestamp: 1, key: None, value: Some(&value), headers: &[] };
    builder.push(&record).expect("fits");
    let batch = builder.finish().to_vec();
    let frames = |conn: &Conn| -> Vec<u8> {
        let partition = PartitionId(1 + conn.index % 2);
        let produce = Produce {
            partition,
            timeout_ms: 1_000,
            durability: level,
            want_stages: false,
            sent_before: false,
            former: None,
        };
        let mut bytes = Vec::new();
        for correlation in 0..in_flight as u64 {
            bytes.extend(produce.encode_head(correlation, batch.len()));
            bytes.extend(&batch);
        }
        bytes
    };
    let inputs: Vec<Vec<u8>> = conns.iter().map(frames).collect();
    let round = |rig: &mut Rig| {
        for (conn, input) in conns.iter().zip(&inputs) {
            rig.receive(*conn, input);
        }
        rig.run();
    };
    // Queues and pools reach their size, the tail cache is full, segments are prepared ahead.
    for _ in 0..warm {
        round(&mut rig);
    }
    let before = rig.shard.counters().clone();
    let (sends, writes) = (rig.sends, rig.writes);
    rig.in_step = Duration::ZERO;
    rig.allocated_in_step = 0;
    for _ in 0..rounds {
        round(&mut rig);
    }
    let after = rig.shard.counters();
    let messages = after.batches_in - before.batches_in;
    assert_eq!(messages, rounds * u64::from(connections) * in_flight as u64);
    let acked = if level.is_acknowledged() { messages } else { 0 };
    assert_eq!(after.acks_out - before.acks_out, acked);
    println!(
        "{level:>14}, {connections:>3} connections x {in_flight:>2}: {:>6.1} ns per message in step, \
         {:.4} allocations, {:.3} sends, {:.4} writes",
        rig.in_step.as_nanos() as f64 / messages as f64,
        rig.allocated_in_step as f64 / messages as f64,
        (rig.sends - sends) as f64 / messages as f64,
        (rig.writes - writes) as f64 / messages as f64,
    );
    // A new segment now and then costs some; a batch costs none.
    assert!(
        rig.allocated_in_step * 100 < messages,
        "{} allocations for {messages} messages",
        rig.allocated_in_step
    );
}

#[test]
fn a_batch_costs_no_allocation_in_steady_state() {
    for level in [Durability::QuorumDurable, Durability::LeaderMemory, Durability::None] {
        measure(level, 1, 1, 3_000, 4_000);
        measure(level, 16, 16, 200, 200);
        measure(level, 200, 4, 60, 60);
    }
}
