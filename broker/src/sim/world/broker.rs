//! The broker's side: shards, their memory, and the effects that they order.

use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{ClusterId, Incarnation, ShardId};
use corelog_protocol::produce::ProduceAck;

use super::net::Reading;
use super::{Action, BrokerAction, World};
use crate::disk::{DiskDone, DiskError, DiskOrder, OpId};
use crate::limits::RECEIVE_BYTES;
use crate::memory::{Memory, Piece, Slot};
use crate::random::Random;
use crate::shard::effect::{Effect, Effects};
use crate::shard::event::{Conn, Event};
use crate::shard::{Shard, ShardConfig};
use crate::sim::check::answers::Request;
use crate::sim::disk::{Content, Fault, SimDisk};
use crate::sim::memory::SimMemory;
use crate::sim::steps::{brief, effect_number, event_number};
use crate::sim::trace::Violation;
use crate::time::Monotonic;

pub struct ShardSim {
    shard: Shard,
    pub memory: SimMemory,
    receive: Slot,
    effects: Effects,
    wake_at: Option<Monotonic>,
    /// The link of each connection, by its index; `None` is free.
    conns: Vec<Option<usize>>,
    generations: Vec<u32>,
    ready: bool,
    pub stopped: bool,
}

pub struct Broker {
    pub shards: Vec<ShardSim>,
    /// When the last message from one shard to another arrives: they stay in order.
    told_at: Vec<u64>,
    pub stopping: bool,
}

impl Broker {
    pub fn is_ready(&self) -> bool {
        !self.stopping && self.shards.iter().all(|shard| shard.ready)
    }

    pub fn is_stopped(&self) -> bool {
        self.shards.iter().all(|shard| shard.stopped)
    }
}

impl World {
    pub(super) fn start_broker(&mut self, shards: u16) {
        if self.broker.is_some() {
            return;
        }
        self.lives += 1;
        self.tally.one("broker starts");
        let now = self.now;
        self.trace.line(now, || format!("broker starts with {shards} shards"));
        self.disk = SimDisk::load(&std::mem::take(&mut self.image));
        self.apply_capacity();
        let seed = self.random.next_u64();
        let make = |number: u16| {
            let mut config =
                ShardConfig::new(ShardId(number), shards, ClusterId(77), Incarnation(5));
            config.directories = self.plan.directories;
            config.lanes_per_shard = self.plan.lanes_per_shard;
            config.segment_bytes = self.plan.segment_bytes;
            config.gather_bytes = self.plan.gather_bytes;
            config.memory_bytes = self.plan.memory_bytes;
            config.frame_bytes_max = self.plan.frame_bytes;
            let seed = seed.wrapping_add(u64::from(number));
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
                ready: false,
                stopped: false,
            }
        };
        let shards: Vec<ShardSim> = (0..shards).map(make).collect();
        let count = shards.len();
        self.broker = Some(Broker { told_at: vec![0; count * count], shards, stopping: false });
        self.checks.recovery.on_start(now);
        for shard in 0..count {
            self.step(shard, Event::Start);
        }
    }

    pub(super) fn broker_action(&mut self, shard: usize, what: BrokerAction) {
        match what {
            BrokerAction::DiskDone { op, fault } => self.disk_done(shard, op, fault),
            BrokerAction::Turn => self.step(shard, Event::Turn),
            BrokerAction::Dialed { dial } => self.step(shard, Event::Dialed { dial, conn: None }),
            BrokerAction::Wake { at } => {
                let Some(broker) = &mut self.broker else { return };
                if broker.shards[shard].wake_at == Some(at) {
                    broker.shards[shard].wake_at = None;
                    self.step(shard, Event::Woken);
                }
            }
            BrokerAction::Told { from, message } => {
                self.step(shard, Event::Told { from: ShardId(from), message })
            }
        }
    }

    /// One event into a shard, and its effects into the world.
    pub(super) fn step(&mut self, shard: usize, event: Event) {
        let now = self.broker_now();
        let Some(broker) = &mut self.broker else { return };
        let sim = &mut broker.shards[shard];
        if sim.stopped {
            return;
        }
        self.trace.mix(&[self.now, shard as u64, event_number(&event)]);
        self.trace.line(self.now, || format!("shard {shard} <- {}", brief(&event)));
        sim.shard.step(now, event, &mut sim.memory, &mut sim.effects);
        let checked = self.checks.memory.on_step(&sim.memory, self.plan.memory_bytes);
        let mut effects = std::mem::take(&mut sim.effects);
        self.check(checked);
        let list = std::mem::take(&mut effects.list);
        for effect in list {
            self.trace.mix(&[effect_number(&effect)]);
            self.trace.line(self.now, || format!("shard {shard} -> {effect:?}"));
            self.carry_out(shard, effect, &effects.pieces);
        }
        effects.clear();
        if let Some(broker) = &mut self.broker {
            broker.shards[shard].effects = effects;
        }
    }

    fn carry_out(&mut self, shard: usize, effect: Effect, pieces: &[Piece]) {
        let life = self.lives;
        let Some(broker) = &mut self.broker else { return };
        let sim = &mut broker.shards[shard];
        match effect {
            Effect::Receive { conn, target } => {
                let reading = target.map_or(Reading::Shared, Reading::Target);
                self.set_reading(shard, conn, reading);
            }
            Effect::Pause { conn } => self.set_reading(shard, conn, Reading::Off),
            Effect::Send { conn, pieces: range } => {
                let pieces = &pieces[range.start as usize..range.end as usize];
                self.send(shard, conn, pieces);
            }
            Effect::Close { conn, after_sends } => self.broker_closes(shard, conn, after_sends),
            Effect::Dial { dial, .. } => self.dial(shard, dial),
            Effect::Disk { op, order } => self.disk_order(shard, op, order),
            Effect::Tell { to, message } => {
                let to = usize::from(to.0);
                let count = broker.shards.len();
                let delay = self.draw_delay(50_000);
                let Some(broker) = &mut self.broker else { return };
                let told_at = &mut broker.told_at[shard * count + to];
                *told_at = (*told_at).max(self.now + delay);
                let at = *told_at;
                let what = BrokerAction::Told { from: shard as u16, message };
                self.queue.at(at, Action::Broker { life, shard: to, what });
            }
            Effect::Turn => {
                let delay = self.random.below(3_000);
                self.after(delay, Action::Broker { life, shard, what: BrokerAction::Turn });
            }
            Effect::Wake { at } => {
                sim.wake_at = Some(at);
                // A timer may be a little late, never early.
                let late = self.random.below(100_000);
                let when = at.0.max(self.now).saturating_add(late);
                self.queue
                    .at(when, Action::Broker { life, shard, what: BrokerAction::Wake { at } });
            }
            Effect::Ready => {
                sim.ready = true;
                if broker.is_ready() {
                    self.checks.recovery.on_ready();
                    self.tally.one("broker recoveries");
                }
            }
            Effect::Stopped => {
                sim.stopped = true;
                // A peer that reads nothing is not waited for; its connection ends with the shard.
                let has_conns = sim.conns.iter().any(Option::is_some);
                let checked =
                    if has_conns { Ok(()) } else { self.checks.memory.on_stopped(&sim.memory) };
                let all = broker.is_stopped();
                self.check(checked);
                if all {
                    self.after(1, Action::Kill);
                }
            }
        }
    }

    fn disk_order(&mut self, shard: usize, op: OpId, order: DiskOrder) {
        let fault = self.draw_fault(shard, &order);
        let delay = self.disk_delay(&order);
        let Some(broker) = &mut self.broker else { return };
        self.disk.start(shard as u16, op, order, &mut broker.shards[shard].memory);
        let life = self.lives;
        self.after(
            delay,
            Action::Broker { life, shard, what: BrokerAction::DiskDone { op, fault } },
        );
    }

    fn disk_done(&mut self, shard: usize, op: OpId, fault: Option<Fault>) {
        if self.count_down_to_power_cut() {
            return;
        }
        let mut checked = Ok(());
        let Some(broker) = &self.broker else { return };
        if let Some(Fault::Lose | Fault::Misdirect { .. }) = fault
            && let Some(DiskOrder::Write { slot, len, .. }) = self.disk.order(shard as u16, op)
        {
            // The broker cannot know better than that the flush to come covers it.
            let bytes = &broker.shards[shard].memory.bytes(*slot)[..*len as usize];
            checked = self.checks.durable.on_durable_write(bytes);
        }
        if fault.is_none() {
            for (_, _, content) in self.disk.covered_by(shard as u16, op) {
                if let Content::Bytes(bytes) = content {
                    checked = checked.and(self.checks.durable.on_durable_write(bytes));
                }
            }
        }
        self.check(checked);
        let Some(broker) = &mut self.broker else { return };
        let done = self.disk.finish(shard as u16, op, fault, &mut broker.shards[shard].memory);
        if done == DiskDone::Failed(DiskError::Full) {
            self.tally.one("disk orders refused, full");
        }
        self.step(shard, Event::Disk { op, done });
    }

    /// Accepts a connection whose preamble named `wanted`.
    pub(super) fn accept(&mut self, link: usize, wanted: ShardId) -> Option<(usize, Conn)> {
        let count = self.broker.as_ref()?.shards.len();
        let shard = match usize::from(wanted.0) {
            shard if shard < count => shard,
            _ => self.random.below(count as u64) as usize,
        };
        let sim = &mut self.broker.as_mut()?.shards[shard];
        let index = sim.conns.iter().position(Option::is_none).unwrap_or_else(|| {
            sim.conns.push(None);
            sim.generations.push(0);
            sim.conns.len() - 1
        });
        sim.conns[index] = Some(link);
        sim.generations[index] += 1;
        Some((shard, Conn { index: index as u32, generation: sim.generations[index] }))
    }

    /// The link of a connection, unless it has ended.
    pub(super) fn link_of(&self, shard: usize, conn: Conn) -> Option<usize> {
        let sim = &self.broker.as_ref()?.shards[shard];
        let index = conn.index as usize;
        if sim.generations.get(index) != Some(&conn.generation) {
            return None;
        }
        sim.conns[index]
    }

    /// Tells the shard that a connection is over, and frees its number.
    pub(super) fn conn_closed(&mut self, shard: usize, conn: Conn) {
        let Some(link) = self.link_of(shard, conn) else { return };
        let Some(broker) = &mut self.broker else { return };
        let sim = &mut broker.shards[shard];
        sim.conns[conn.index as usize] = None;
        for piece in self.links[link].take_sends() {
            sim.memory.unpin(piece.slot);
            sim.memory.release(piece.slot);
        }
        self.links[link].served = None;
        self.checks.answers.on_closed(link as u64);
        self.step(shard, Event::Closed { conn });
    }

    /// Hands bytes to a shard: into the shared buffer, or into the target that it named.
    pub(super) fn deliver(
        &mut self,
        shard: usize,
        conn: Conn,
        bytes: &[u8],
        target: Option<Piece>,
    ) {
        let Some(broker) = &mut self.broker else { return };
        let sim = &mut broker.shards[shard];
        let (slot, start) =
            target.map_or((sim.receive, 0), |piece| (piece.slot, piece.start as usize));
        sim.memory.deliver(slot, start, bytes);
        let piece = Piece::new(slot, start, bytes.len());
        self.step(shard, Event::Received { conn, piece });
        let Some(broker) = &mut self.broker else { return };
        let sim = &mut broker.shards[shard];
        if target.is_none() {
            // Whoever kept a piece of the shared buffer finds garbage.
            sim.memory.bytes_mut(sim.receive)[..bytes.len()].fill(0xdb);
        }
    }

    /// Listens to what a shard says, in the moment in which it says it.
    pub(super) fn overhear(&mut self, link: usize, bytes: &[u8]) {
        if self.links[link].is_hostile {
            return;
        }
        let mut tap = std::mem::take(&mut self.links[link].tap_down);
        tap.feed(bytes);
        while let Some((header, frame)) = tap.frame() {
            self.tally.one("frames answered");
            let partial = self.links[link].tap_up.partial();
            let early = self.checks.answers.on_early_answer(link as u64, &header, partial);
            let answered = match early {
                Some(request) => Ok(request),
                None => self.checks.answers.on_answer(link as u64, &header),
            };
            let request = match answered {
                Ok(request) => request,
                Err(violation) => {
                    self.violated(violation);
                    continue;
                }
            };
            let payload = header.payload(frame).unwrap_or_default();
            let control = header.control(frame).unwrap_or_default();
            match header.kind {
                FrameKind::ProduceAck => match ProduceAck::decode(control) {
                    Ok(ack) => {
                        let checked = self.checks.acks.on_ack(
                            &request,
                            &ack,
                            &self.checks.durable,
                            &mut self.tally,
                        );
                        self.check(checked);
                    }
                    Err(error) => self.violated(Violation::new("I12", error.to_string())),
                },
                FrameKind::FetchReply => {
                    match self.checks.served.on_reply(payload, &self.checks.durable) {
                        Ok(0) => self.tally.one("fetches answered empty"),
                        Ok(_) => {
                            self.tally.one("fetches answered with data");
                            self.checks.space.on_served();
                        }
                        Err(violation) => self.violated(violation),
                    }
                }
                FrameKind::Error => self.on_refusal(&request, control),
                _ => {}
            }
        }
        if tap.is_lost() {
            self.violated(Violation::new("I12", "a shard sent bytes that are no frames"));
        }
        self.links[link].tap_down = tap;
    }

    fn on_refusal(&mut self, request: &Request, control: &[u8]) {
        let code = super::clients::refusal_code(control);
        self.tally.one("refusals");
        self.tally.one(super::clients::refusal_name(code));
        if matches!(request, Request::Produce { .. })
            && code == Some(corelog_protocol::ErrorCode::StorageFull)
        {
            self.checks.space.on_refused();
        }
        let now = self.now;
        self.trace.line(now, || format!("refused with {code:?}: {request:?}"));
    }

    /// Adds the counters of the life that ends to the tally.
    pub(super) fn count_broker(&mut self) {
        let Some(broker) = &self.broker else { return };
        for sim in &broker.shards {
            sim.shard.counters().each(|name, count| self.tally.add(name, count));
            for (_, log) in sim.shard.lane_counters() {
                log.list().into_iter().for_each(|(name, count)| self.tally.add(name, count));
            }
        }
    }
}
