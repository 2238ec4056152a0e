//! One core's whole broker: everything composed behind one [`Shard::step`].
//!
//! `step` is the only door. It takes one event, lets the part concerned decide, then settles: what
//! the logs have to say is heard, replies are sent (one send per connection), the next deadline is
//! set. Each part is a file: `receive` (bytes to frames), `requests` (frames to requests), `produce`
//! (of what `batch` has checked), `acks`, `fetch`, `offsets`, `topics`, `status`, `cluster`; `route` and `gather`
//! for what belongs to other shards; `peers` and `replicas` for other brokers; `admission`, `timers`, `boot`, `stop`.
//!
//! Invariants: nothing here opens a file or socket or asks a clock; a step touches about 64 KiB
//! and asks for a turn to go on; no request is dropped without an answer while its connection lives.

mod acks;
pub mod admission;
mod adopt;
mod batch;
mod boot;
mod cluster;
pub mod config;
pub mod counters;
#[cfg(feature = "delays")]
pub mod delays;
pub mod effect;
pub mod event;
mod fetch;
mod gather;
mod hello;
pub mod jobs;
mod lane;
mod latency;
pub mod message;
mod metadata_keeper;
mod offsets;
mod partitions;
mod peers;
mod places;
mod produce;
mod receive;
mod replicas;
mod replies;
mod requests;
mod route;
mod settle;
mod status;
mod stop;
mod timers;
mod topics;

#[cfg(all(test, feature = "sim"))]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use corelog_protocol::ids::{LaneId, ShardId};
use corelog_protocol::message::Encoder;

pub use config::ShardConfig;
pub use counters::ShardCounters;

use crate::disk::{DiskDone, OpId};
use crate::log::{Io, OpIds};
use crate::memory::Memory;
use crate::metadata::view::View;
use crate::random::Random;
use crate::session::table::Sessions;
use crate::time::{Monotonic, Now};
use effect::Effects;
use event::{Conn, Event};
use fetch::FetchJob;
use gather::Gather;
use jobs::{JobId, Jobs};
use lane::Lane;
use latency::RecentLatency;
use metadata_keeper::MetadataKeeper;
use offsets::OffsetsJob;
use partitions::Partitions;
use peers::Peers;
use route::Forward;
use stop::{Leaving, Stopping};
use timers::Timers;

/// Everything that one core owns.
pub struct Shard {
    config: ShardConfig,
    random: Random,
    counters: ShardCounters,
    ops: OpIds,
    started_at: Monotonic,
    /// From the order to write a commit to its completion, and from there to that of its flush.
    commit_writes: RecentLatency,
    commit_flushes: RecentLatency,
    view: Arc<View>,
    has_view: bool,
    /// By the owner in their order numbers. On shard 0 the first is the metadata lane.
    lanes: Vec<Lane>,
    /// Indexes of `lanes`, by lane id.
    lane_indexes: Vec<Option<u16>>,
    partitions: Partitions,
    sessions: Sessions,
    /// The other brokers of the cluster.
    peers: Peers,
    /// On shard 0 only.
    keeper: Option<MetadataKeeper>,
    is_started: bool,
    are_lanes_made: bool,
    is_ready: bool,
    stopping: Option<Stopping>,
    /// It will stop when others lead what it leads.
    leaving: Option<Leaving>,
    /// This broker was removed: its clients are to go as soon as what they asked for is answered.
    is_turning_away: bool,
    fetches: Jobs<FetchJob>,
    offsets: Jobs<OffsetsJob>,
    gathers: Jobs<Gather>,
    forwards: Jobs<Forward>,
    /// Fetches to be run (again) in this step or the next.
    fetches_ready: VecDeque<JobId>,
    /// Fetches that other shards forwarded, by who asked.
    adopted_fetches: std::collections::BTreeMap<(u16, message::Token), JobId>,
    /// Connections that had more than their share, in the order in which they go on.
    sessions_ready: VecDeque<Conn>,
    /// Connections with something to send at the end of the step.
    dirty: Vec<Conn>,
    timers: Timers,
    turn_is_asked: bool,
    /// Heap bytes held for clients: fetches, batches on their way to another shard.
    held_bytes: usize,
    encoder: Encoder,
}

/// What a step lends to the parts of the shard.
pub(crate) struct Cx<'a, M: Memory> {
    pub now: Now,
    pub memory: &'a mut M,
    pub effects: &'a mut Effects,
}

impl<M: Memory> Cx<'_, M> {
    /// What it lends to a log.
    pub fn io<'b>(&'b mut self, ops: &'b mut OpIds) -> Io<'b, M> {
        Io { now: self.now, memory: &mut *self.memory, effects: &mut *self.effects, ops }
    }
}

impl Shard {
    /// # Panics
    /// If `config.check()` fails.
    pub fn new(config: ShardConfig, random: Random) -> Self {
        if let Err(reason) = config.check() {
            panic!("{reason}");
        }
        Self {
            config,
            random,
            counters: ShardCounters::default(),
            ops: OpIds::default(),
            started_at: Monotonic(0),
            commit_writes: RecentLatency::default(),
            commit_flushes: RecentLatency::default(),
            view: Arc::default(),
            has_view: false,
            lanes: Vec::new(),
            lane_indexes: Vec::new(),
            partitions: Partitions::default(),
            sessions: Sessions::default(),
            peers: Peers::default(),
            keeper: None,
            is_started: false,
            are_lanes_made: false,
            is_ready: false,
            stopping: None,
            leaving: None,
            is_turning_away: false,
            fetches: Jobs::default(),
            offsets: Jobs::default(),
            gathers: Jobs::default(),
            forwards: Jobs::default(),
            fetches_ready: VecDeque::new(),
            adopted_fetches: std::collections::BTreeMap::new(),
            sessions_ready: VecDeque::new(),
            dirty: Vec::new(),
            timers: Timers::default(),
            turn_is_asked: false,
            held_bytes: 0,
            encoder: Encoder::new(),
        }
    }

    pub fn config(&self) -> &ShardConfig {
        &self.config
    }

    pub fn counters(&self) -> &ShardCounters {
        &self.counters
    }

    /// The lanes led here, with their counters.
    pub fn lane_counters(&self) -> impl Iterator<Item = (LaneId, &crate::log::LogCounters)> {
        self.lanes.iter().map(|lane| (lane.id, lane.log.counters()))
    }

    /// Links to other brokers over which something can be sent.
    pub fn peer_links_up(&self) -> u64 {
        self.peers.links_up()
    }

    /// Whether this broker leads the metadata's group, as far as it knows. On shard 0 only.
    pub fn is_leading_metadata(&self) -> bool {
        self.keeper.as_ref().is_some_and(MetadataKeeper::is_leading)
    }

    /// Through where a lane is durable and whole here, if it has several replicas and one is here.
    pub fn lane_position(&self, lane: LaneId) -> Option<crate::replica::Position> {
        let lane = &self.lanes[usize::from(self.lane_index(lane)?)];
        lane.seat.is_some().then(|| lane.log.has())
    }

    /// Every lane here can tell all that it may have acknowledged: nothing of it is known to be torn or damaged.
    pub fn are_logs_whole(&self) -> bool {
        self.lanes.iter().all(|lane| lane.log.bad_end().is_none())
    }

    /// The metadata as this shard sees it.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Takes one event and adds what must be done to `effects`. Touches about 64 KiB, or asks for
    /// a turn to go on.
    pub fn step<M: Memory>(
        &mut self,
        now: Now,
        event: Event,
        memory: &mut M,
        effects: &mut Effects,
    ) {
        self.counters.steps += 1;
        let cx = &mut Cx { now, memory, effects };
        match event {
            Event::Start => self.on_start(cx),
            Event::Opened { conn, peer } => self.on_opened(cx, conn, peer),
            Event::Dialed { dial, conn } => self.on_dialed(cx, dial, conn),
            Event::Received { conn, piece } => self.on_received(cx, conn, piece),
            Event::Sent { conn } => self.on_sent(cx, conn),
            Event::Closed { conn } => self.on_closed(cx, conn),
            Event::Disk { op, done } => self.on_disk(cx, op, done),
            Event::Told { from, message } => self.on_told(cx, from, *message),
            Event::Located { brokers } => self.on_located(cx, &brokers),
            Event::Turn => self.on_turn(cx),
            Event::Woken => self.on_woken(cx),
            Event::Stop => self.on_stop(cx),
        }
        self.settle(cx);
    }

    /// For tests: does what no event asks for, and settles as after one.
    #[cfg(all(test, feature = "sim"))]
    pub(crate) fn act<M: Memory, R>(
        &mut self,
        now: Now,
        memory: &mut M,
        effects: &mut Effects,
        act: impl FnOnce(&mut Self, &mut Cx<'_, M>) -> R,
    ) -> R {
        let cx = &mut Cx { now, memory, effects };
        let result = act(self, cx);
        self.settle(cx);
        result
    }

    fn on_disk<M: Memory>(&mut self, cx: &mut Cx<'_, M>, op: OpId, done: DiskDone) {
        if let Some(lane) = Self::vote_of(OpIds::owner(op)) {
            return self.on_vote_disk(cx, lane, done);
        }
        let owner = usize::from(OpIds::owner(op));
        let lane = self.lanes.get_mut(owner).expect("only lanes give orders to disks");
        lane.log.on_disk(&mut cx.io(&mut self.ops), op, done);
    }

    /// What was ready has been delivered: commits are closed, and those who had to wait go on.
    fn on_turn<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        self.counters.turns += 1;
        self.turn_is_asked = false;
        self.resume_waiting(cx);
        for lane in &mut self.lanes {
            lane.on_turn(cx.now.monotonic);
            lane.log.on_turn(&mut cx.io(&mut self.ops));
        }
    }

    /// Whether no request is under way.
    pub fn is_idle(&self) -> bool {
        self.fetches.is_empty()
            && self.offsets.is_empty()
            && self.gathers.is_empty()
            && self.forwards.is_empty()
            && self.held_bytes == 0
            && self.lanes.iter().all(|lane| lane.pending.is_empty())
    }

    fn lane_index(&self, lane: LaneId) -> Option<u16> {
        self.lane_indexes.get(lane.0 as usize).copied().flatten()
    }
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard")
            .field("shard", &self.config.shard)
            .field("lanes", &self.lanes)
            .field("sessions", &self.sessions.count())
            .finish_non_exhaustive()
    }
}
