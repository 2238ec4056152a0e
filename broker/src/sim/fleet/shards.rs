//! Steps of the shards, and the effects that they order.

use corelog_protocol::ids::ShardId;

use super::machine::Process;
use super::streams::{Owner, Reading};
use super::{Action, BrokerAction, World};
use crate::disk::{DiskOrder, OpId};
use crate::memory::{Memory, Piece};
use crate::shard::effect::Effect;
use crate::shard::event::{Conn, Event};
use crate::sim::disk::Content;
use crate::sim::steps::{brief, effect_number, event_number};

impl World {
    pub(super) fn broker_action(&mut self, broker: usize, shard: usize, what: BrokerAction) {
        match what {
            BrokerAction::DiskDone { op } => self.disk_done(broker, shard, op),
            BrokerAction::Turn => self.step(broker, shard, Event::Turn),
            BrokerAction::DialFailed { dial } => {
                self.step(broker, shard, Event::Dialed { dial, conn: None })
            }
            BrokerAction::Wake { at } => {
                let Some(sim) = self.machines[broker].shard(shard) else { return };
                if sim.wake_at == Some(at) {
                    sim.wake_at = None;
                    self.step(broker, shard, Event::Woken);
                }
            }
            BrokerAction::Told { from, message } => {
                self.step(broker, shard, Event::Told { from, message })
            }
            BrokerAction::Closed { conn } => self.conn_closed(broker, shard, conn),
        }
    }

    pub(super) fn for_broker(&mut self, at: u64, broker: usize, shard: usize, what: BrokerAction) {
        if let Some(life) = self.machines[broker].life() {
            self.queue.at(at, Action::Broker { broker, life, shard, what });
        }
    }

    /// One event into a shard, and its effects into the world.
    pub(super) fn step(&mut self, broker: usize, shard: usize, event: Event) {
        let now = self.broker_now(broker);
        let budget = self.plan.memory_bytes;
        let Some(sim) = self.machines[broker].shard(shard) else { return };
        if sim.is_stopped {
            return;
        }
        self.trace.mix(&[self.now, broker as u64, shard as u64, event_number(&event)]);
        self.trace.line(self.now, || format!("{broker}.{shard} <- {}", brief(&event)));
        sim.shard.step(now, event, &mut sim.memory, &mut sim.effects);
        let checked = self.checks.memory.on_step(&sim.memory, budget);
        let mut effects = std::mem::take(&mut sim.effects);
        self.check(checked);
        let list = std::mem::take(&mut effects.list);
        for effect in list {
            self.trace.mix(&[effect_number(&effect)]);
            self.trace.line(self.now, || format!("{broker}.{shard} -> {effect:?}"));
            self.carry_out(broker, shard, effect, &effects.pieces);
        }
        effects.clear();
        let Some(sim) = self.machines[broker].shard(shard) else { return };
        sim.effects = effects;
        let view = sim.shard.view();
        if view.version() != sim.version_seen {
            sim.version_seen = view.version();
            let checked = self.checks.metadata.on_view(broker, view.state());
            self.check(checked);
        }
    }

    fn carry_out(&mut self, broker: usize, shard: usize, effect: Effect, pieces: &[Piece]) {
        match effect {
            Effect::Receive { conn, target } => {
                let reading = target.map_or(Reading::Shared, Reading::Target);
                self.set_reading(broker, shard, conn, reading);
            }
            Effect::Pause { conn } => self.set_reading(broker, shard, conn, Reading::Off),
            Effect::Send { conn, pieces: range } => {
                let pieces = &pieces[range.start as usize..range.end as usize];
                self.shard_sends(broker, shard, conn, pieces);
            }
            Effect::Close { conn, after_sends } => {
                self.shard_closes(broker, shard, conn, after_sends)
            }
            Effect::Dial { dial, address, shard: wanted } => {
                let Some(life) = self.machines[broker].life() else { return };
                let owner = Owner::Dialer { broker, life, shard, dial };
                self.open_stream(broker, owner, address, Some(wanted));
            }
            Effect::Disk { op, order } => self.disk_order(broker, shard, op, order),
            Effect::Tell { to, message } => {
                let delay = self.draw_delay(50_000);
                let now = self.now;
                let Some(process) = &mut self.machines[broker].process else { return };
                let to = usize::from(to.0);
                let told_at = &mut process.told_at[shard * process.shards.len() + to];
                *told_at = (*told_at).max(now + delay);
                let at = *told_at;
                let what = BrokerAction::Told { from: ShardId(shard as u16), message };
                self.for_broker(at, broker, to, what);
            }
            Effect::Turn => {
                let at = self.now + self.random.below(3_000);
                self.for_broker(at, broker, shard, BrokerAction::Turn);
            }
            Effect::Wake { at } => {
                // A timer may be a little late, never early.
                let when = at.0.max(self.now).saturating_add(self.random.below(100_000));
                if let Some(sim) = self.machines[broker].shard(shard) {
                    sim.wake_at = Some(at);
                }
                self.for_broker(when, broker, shard, BrokerAction::Wake { at });
            }
            Effect::Ready => {
                let Some(sim) = self.machines[broker].shard(shard) else { return };
                sim.is_ready = true;
                if self.machines[broker].is_ready() {
                    self.tally.one("broker recoveries");
                }
            }
            Effect::Stopped => self.on_stopped(broker, shard),
        }
    }

    fn on_stopped(&mut self, broker: usize, shard: usize) {
        let Some(sim) = self.machines[broker].shard(shard) else { return };
        sim.is_stopped = true;
        // A peer that reads nothing is not waited for; its connection ends with the shard.
        let has_conns = sim.conns.iter().any(Option::is_some);
        let checked = if has_conns { Ok(()) } else { self.checks.memory.on_stopped(&sim.memory) };
        self.check(checked);
        if self.machines[broker].process.as_ref().is_some_and(Process::is_stopped) {
            self.process_stopped(broker);
        }
    }

    fn disk_order(&mut self, broker: usize, shard: usize, op: OpId, order: DiskOrder) {
        let at = self.now + self.disk_delay(broker, &order);
        let machine = &mut self.machines[broker];
        let Some(process) = &mut machine.process else { return };
        machine.disk.start(shard as u16, op, order, &mut process.shards[shard].memory);
        if let Some(hung) = &mut machine.hung {
            return hung.push((shard, op));
        }
        self.for_broker(at, broker, shard, BrokerAction::DiskDone { op });
    }

    fn disk_delay(&mut self, broker: usize, order: &DiskOrder) -> u64 {
        let most = match order {
            DiskOrder::Read { .. } | DiskOrder::Write { .. } | DiskOrder::Zero { .. } => {
                self.plan.disk_latency / 2
            }
            DiskOrder::Flush { .. } | DiskOrder::SyncFolder { .. } => self.plan.disk_latency,
            _ => self.plan.disk_latency / 4,
        };
        let machine = &self.machines[broker];
        let times = if self.now < machine.slow.1 { machine.slow.0 } else { 1 };
        let stalled = machine.stalled_until.saturating_sub(self.now);
        self.draw_delay(most * times).max(stalled)
    }

    fn disk_done(&mut self, broker: usize, shard: usize, op: OpId) {
        if self.count_down_to_power_cut(broker) {
            return;
        }
        self.note_flushed(broker, shard as u16, op);
        let machine = &mut self.machines[broker];
        let Some(process) = &mut machine.process else { return };
        let done = machine.disk.finish(shard as u16, op, None, &mut process.shards[shard].memory);
        self.step(broker, shard, Event::Disk { op, done });
    }

    /// If this order is a flush: what it covers is durable now.
    pub(super) fn note_flushed(&mut self, broker: usize, shard: u16, op: OpId) {
        let mut checked = Ok(());
        for (_, _, content) in self.machines[broker].disk.covered_by(shard, op) {
            if let Content::Bytes(bytes) = content {
                checked = checked.and_then(|()| self.checks.on_durable_write(broker, bytes));
            }
        }
        self.check(checked);
    }

    /// Hands bytes to a shard: into the shared buffer, or into the target that it named.
    pub(super) fn deliver(
        &mut self,
        broker: usize,
        shard: usize,
        conn: Conn,
        bytes: &[u8],
        target: Option<Piece>,
    ) {
        let Some(sim) = self.machines[broker].shard(shard) else { return };
        let (slot, start) =
            target.map_or((sim.receive, 0), |piece| (piece.slot, piece.start as usize));
        sim.memory.deliver(slot, start, bytes);
        let piece = Piece::new(slot, start, bytes.len());
        self.step(broker, shard, Event::Received { conn, piece });
        let Some(sim) = self.machines[broker].shard(shard) else { return };
        if target.is_none() {
            // Whoever kept a piece of the shared buffer finds garbage.
            sim.memory.bytes_mut(sim.receive)[..bytes.len()].fill(0xdb);
        }
    }

    /// The broker that listens at an address.
    pub(super) fn broker_at(&self, address: std::net::SocketAddr) -> Option<usize> {
        (0..self.plan.brokers).find(|broker| super::machine::address(*broker) == address)
    }
}
