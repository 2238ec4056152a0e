//! A machine: its disk, its clock, and the broker's process if there is one.

use corelog_protocol::ids::{BrokerId, ClusterId, Incarnation, ShardId};
use std::net::{Ipv4Addr, SocketAddr};

use super::{Action, World};
use crate::disk::OpId;
use crate::limits::RECEIVE_BYTES;
use crate::memory::{Memory, Slot};
use crate::metadata::balance::BalanceConfig;
use crate::random::Random;
use crate::shard::effect::Effects;
use crate::shard::event::{Conn, Event};
use crate::shard::{Shard, ShardConfig};
use crate::sim::disk::SimDisk;
use crate::sim::fleet::plan::{CutStyle, rack_name};
use crate::sim::memory::SimMemory;
use crate::time::{Monotonic, Nanos, Now, Wall};

/// So that what rots is found while a run lasts.
const SCRUB_BYTES_PER_SECOND: u64 = 4 << 20;

/// Often, and for little, so that lanes move in a run of some seconds.
const BALANCE: BalanceConfig = BalanceConfig { every: Nanos::from_millis(250), noise: 0 };

pub struct ShardSim {
    pub shard: Shard,
    pub memory: SimMemory,
    pub receive: Slot,
    pub effects: Effects,
    pub wake_at: Option<Monotonic>,
    /// The stream of each connection, and which end of it, by the connection's index; `None` is free.
    pub conns: Vec<Option<(usize, usize)>>,
    pub generations: Vec<u32>,
    pub is_ready: bool,
    pub is_stopped: bool,
    /// The version of the metadata that was compared last.
    pub version_seen: u64,
}

pub struct Process {
    pub life: u64,
    pub shards: Vec<ShardSim>,
    /// When the last message from one shard to another arrives: they stay in order.
    pub told_at: Vec<u64>,
    pub is_stopping: bool,
}

impl Process {
    pub fn is_ready(&self) -> bool {
        !self.is_stopping && self.shards.iter().all(|shard| shard.is_ready)
    }

    pub fn is_stopped(&self) -> bool {
        self.shards.iter().all(|shard| shard.is_stopped)
    }

    /// Takes connections. Also while it stops, up to its end: others come with what it waits for.
    pub fn is_open(&self) -> bool {
        self.shards.iter().all(|shard| shard.is_ready && !shard.is_stopped)
    }
}

/// A power cut that comes after so many more disk completions.
#[derive(Clone, Copy, Debug)]
pub struct DueCut {
    pub left: u32,
    pub style: CutStyle,
    pub down: u64,
}

pub struct Machine {
    pub disk: SimDisk,
    pub process: Option<Process>,
    pub is_on: bool,
    pub paused_until: Option<u64>,
    /// What happens once the process goes on.
    pub held: Vec<Action>,
    pub wall_offset_ms: i64,
    pub stalled_until: u64,
    /// Disk orders take so many times as long, until then.
    pub slow: (u64, u64),
    /// Nothing is completed: what was ordered waits here.
    pub hung: Option<Vec<(usize, OpId)>>,
    /// A power cut has left a part of what was not flushed.
    pub was_torn: bool,
    /// Bits on its disk have changed.
    pub has_rotted: bool,
    pub shards_next: u16,
    pub due_cut: Option<DueCut>,
    /// Left down on purpose.
    pub stays_down: bool,
    lives: u64,
}

impl Machine {
    pub fn new(wall_offset_ms: i64) -> Self {
        Self {
            disk: SimDisk::new(),
            process: None,
            is_on: true,
            paused_until: None,
            held: Vec::new(),
            wall_offset_ms,
            stalled_until: 0,
            slow: (1, 0),
            hung: None,
            was_torn: false,
            has_rotted: false,
            shards_next: 1,
            due_cut: None,
            stays_down: false,
            lives: 0,
        }
    }

    pub fn life(&self) -> Option<u64> {
        self.process.as_ref().map(|process| process.life)
    }

    pub fn shard(&mut self, shard: usize) -> Option<&mut ShardSim> {
        self.process.as_mut()?.shards.get_mut(shard)
    }

    pub fn is_ready(&self) -> bool {
        self.process.as_ref().is_some_and(Process::is_ready)
    }

    /// Whether one of its logs may have a tail of which it cannot tell what it has acknowledged.
    pub fn may_be_torn(&self) -> bool {
        let is_whole = |process: &Process| {
            process.is_ready() && process.shards.iter().all(|sim| sim.shard.are_logs_whole())
        };
        self.was_torn && !self.process.as_ref().is_some_and(is_whole)
    }
}

/// Where a broker listens.
pub fn address(broker: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 0, 0, broker as u8 + 1), 7420))
}

pub fn number(broker: usize) -> BrokerId {
    BrokerId(broker as u32 + 1)
}

impl World {
    pub(super) fn start_broker(&mut self, broker: usize) {
        let machine = &mut self.machines[broker];
        if machine.process.is_some() || machine.stays_down {
            return;
        }
        let was_off = !std::mem::replace(&mut machine.is_on, true);
        machine.lives += 1;
        let (life, count) = (machine.lives, machine.shards_next.max(1));
        self.tally.one("broker starts");
        self.line(|| format!("broker {broker} starts its life {life} with {count} shards"));
        let seed = self.random.next_u64();
        let shards = (0..count).map(|shard| self.make_shard(broker, shard, count, seed)).collect();
        let told_at = vec![0; usize::from(count) * usize::from(count)];
        self.machines[broker].process = Some(Process { life, shards, told_at, is_stopping: false });
        for shard in 0..usize::from(count) {
            self.step(broker, shard, Event::Start);
        }
        if was_off {
            self.pump_everything();
        }
    }

    fn make_shard(&self, broker: usize, shard: u16, shards: u16, seed: u64) -> ShardSim {
        let incarnation = Incarnation(100 + broker as u64);
        let mut config = ShardConfig::new(ShardId(shard), shards, ClusterId(77), incarnation);
        config.lanes_per_shard = self.plan.lanes_per_shard;
        config.segment_bytes = self.plan.segment_bytes;
        config.memory_bytes = self.plan.memory_bytes;
        config.scrub_bytes_per_second = SCRUB_BYTES_PER_SECOND;
        config.broker = number(broker);
        config.life = seed | 1;
        let first = 0..self.plan.first();
        config.join = !first.contains(&broker);
        let knows = first.chain(config.join.then_some(broker));
        config.cluster_brokers = knows.map(|other| (number(other), Some(address(other)))).collect();
        config.advertise = address(broker);
        config.rack = self.plan.racks[broker].map(rack_name).unwrap_or_default().into();
        config.replicas_default = self.plan.replicas as u8;
        config.balance = self.plan.balances.then_some(BALANCE);
        let seed = seed.wrapping_add(u64::from(shard));
        let mut memory = SimMemory::new(seed);
        let receive = memory.allocate(RECEIVE_BYTES);
        ShardSim {
            shard: Shard::new(config, Random::new(seed)),
            memory,
            receive,
            effects: Effects::default(),
            wake_at: None,
            conns: Vec::new(),
            generations: Vec::new(),
            is_ready: false,
            is_stopped: false,
            version_seen: 0,
        }
    }

    pub(super) fn wall_ms(&self, broker: usize) -> i64 {
        self.machines[broker].wall_offset_ms + (self.now / 1_000_000) as i64
    }

    pub(super) fn broker_now(&self, broker: usize) -> Now {
        Now { monotonic: Monotonic(self.now), wall: Wall(self.wall_ms(broker)) }
    }

    /// Gives an end of a stream a connection's number.
    pub(super) fn new_conn(
        &mut self,
        broker: usize,
        shard: usize,
        stream: (usize, usize),
    ) -> Option<Conn> {
        let sim = self.machines[broker].shard(shard)?;
        let index = sim.conns.iter().position(Option::is_none).unwrap_or_else(|| {
            sim.conns.push(None);
            sim.generations.push(0);
            sim.conns.len() - 1
        });
        sim.conns[index] = Some(stream);
        sim.generations[index] += 1;
        Some(Conn { index: index as u32, generation: sim.generations[index] })
    }

    /// The stream of a connection and which end of it, unless it has ended.
    pub(super) fn stream_of(
        &self,
        broker: usize,
        shard: usize,
        conn: Conn,
    ) -> Option<(usize, usize)> {
        let sim = self.machines[broker].process.as_ref()?.shards.get(shard)?;
        let index = conn.index as usize;
        if sim.generations.get(index) != Some(&conn.generation) {
            return None;
        }
        sim.conns[index]
    }

    /// Adds the counters of the life that ends to the tally.
    pub(super) fn count_broker(&mut self, broker: usize) {
        let Some(process) = &self.machines[broker].process else { return };
        for sim in &process.shards {
            sim.shard.counters().each(|name, count| self.tally.add(name, count));
            for (_, log) in sim.shard.lane_counters() {
                log.list().into_iter().for_each(|(name, count)| self.tally.add(name, count));
            }
        }
    }
}
