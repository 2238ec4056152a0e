//! The end of a run. First the faults stop and everything heals but a minority of brokers, and progress is demanded;
//! then all brokers are there, and all is read back; after a power cut of all, again; then the disks are compared.

use std::collections::BTreeMap;

use corelog::Durability;
use corelog::Error;
use corelog::engine::{
    AdminReply, AdminRequest, AssignmentId, ConsumerConfig, Fetched, Position, RequestId,
};
use corelog_protocol::ids::Offset;

use super::clients::{Role, topic_name};
use super::machine::Machine;
use super::plan::{CutStyle, CutWay, Left, RACKS, rack_name};
use super::{Action, BrokerAction, World, check};
use crate::sim::check::history::{PartitionRef, ReadBack};
use crate::sim::trace::Violation;

const TICK: u64 = 20_000_000;
/// I14: with a majority there and nothing in the way, every lane takes writes within this.
const PROGRESS: u64 = 5_000_000_000;
/// If disks stand still: that is noticed after 2 s, after another one for the metadata, and after three for who was named a
/// leader in the last moment.
const PROGRESS_HUNG: u64 = 10_000_000_000;
/// In which what has rotted unread is found, and replaced: the scrub rests for a minute between two walks.
const SCRUBBED: u64 = 75_000_000_000;
/// How often that is looked for.
const LOOK: u64 = 5_000_000_000;
/// How long the rest may take in all.
const PATIENCE: u64 = 120_000_000_000;
/// In which replicas catch up.
const CATCH_UP: u64 = 20_000_000_000;
/// In which a broker stops in good order.
const STOP: u64 = 10_000_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Phase {
    #[default]
    Running,
    /// A majority is there: each partition must take a write.
    Progress,
    /// All are there, until every fate is known.
    Settling,
    /// Until the bounds of each partition are known.
    Bounds,
    Reading,
    /// Until each replica has everything.
    CatchingUp,
    Stopping,
    Over,
}

#[derive(Debug, Default)]
pub struct Ending {
    phase: Phase,
    /// When the phase began, and the whole end.
    since: u64,
    began: u64,
    rounds: u32,
    /// Partitions that have taken a write.
    probed: BTreeMap<PartitionRef, bool>,
    probe: Option<usize>,
    /// What was asked, and the end that it must find at least.
    asked: BTreeMap<RequestId, (PartitionRef, u64)>,
    bounds: BTreeMap<PartitionRef, (u64, u64)>,
    stopped: usize,
    /// When to look for rot again.
    looks_at: u64,
    /// By lane, how much was committed when the brokers began to stop: they hand their lanes over, which commits more.
    settled: BTreeMap<u32, usize>,
}

impl Ending {
    pub fn has_begun(&self) -> bool {
        self.phase != Phase::Running
    }

    pub fn is_stopping(&self) -> bool {
        self.phase == Phase::Stopping
    }

    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    pub fn on_stopped(&mut self, _broker: usize) {
        self.stopped += 1;
    }
}

impl World {
    fn enter(&mut self, phase: Phase) {
        self.line(|| format!("the end: {phase:?}"));
        self.ending.phase = phase;
        self.ending.since = self.now;
    }

    pub(super) fn end(&mut self) {
        self.ending.began = self.now;
        self.heal();
        self.leave_broken();
        self.enter(Phase::Progress);
        let number = self.checks.history.add_producer();
        let client = self.add_client(Role::Probe { number }, |config| {
            config.producer.delivery_nanos_max = 30_000_000_000;
        });
        self.ending.probe = Some(client);
        self.ending.probed = self.places().into_iter().map(|place| (place, false)).collect();
        if self.are_topics_made() {
            self.plan_work(client, 1);
        }
        self.after(TICK, Action::Ending);
    }

    /// Everything that is broken heals, and every broker is started.
    fn heal(&mut self) {
        self.plan.net_latency = self.plan.net_latency.min(500_000);
        self.plan.disk_latency = self.plan.disk_latency.min(1_000_000);
        self.plan.chunk_bytes = self.plan.chunk_bytes.max(4096);
        for broker in 0..self.plan.brokers {
            let machine = &mut self.machines[broker];
            machine.stalled_until = 0;
            machine.slow = (1, 0);
            machine.due_cut = None;
            machine.stays_down = false;
            for (shard, op) in machine.hung.take().unwrap_or_default() {
                self.for_broker(self.now, broker, shard, BrokerAction::DiskDone { op });
            }
            let machine = &self.machines[broker];
            if let Some(until) = machine.paused_until {
                self.resume(broker, until);
            }
            // One that is stopping starts when it has stopped.
            self.start_broker(broker);
        }
        self.mend_everything();
    }

    fn leave_broken(&mut self) {
        // A replica with a torn tail cannot tell what it may have acknowledged: its lane may have to wait for all.
        if self.machines.iter().any(Machine::may_be_torn) {
            self.tally.one("minorities left whole, for a torn tail");
            return;
        }
        // Nor can one with rot in it: it is that one which may be left.
        let rotten = self.machines.iter().position(|machine| machine.has_rotted);
        let first = self.random.below(self.plan.brokers as u64) as usize;
        let first = rotten.unwrap_or(first);
        let chosen = |count: usize| (0..count).map(|step| (first + step) % self.plan.brokers);
        match self.plan.left {
            Left::Nothing => {}
            Left::Down(count) => {
                for broker in chosen(count).collect::<Vec<_>>() {
                    self.line(|| format!("broker {broker} stays down"));
                    self.machines[broker].stays_down = true;
                    self.kill(broker);
                }
            }
            Left::CutOff(count) => {
                for broker in chosen(count).collect::<Vec<_>>() {
                    self.line(|| format!("broker {broker} stays cut off"));
                    let hosts = 0..self.plan.brokers + self.clients.len() + 1;
                    let ways = Self::ways_between(broker, hosts, CutWay::Both, false);
                    self.cut(ways, PATIENCE);
                }
            }
            Left::Paused(count) => {
                for broker in chosen(count).collect::<Vec<_>>() {
                    self.line(|| format!("broker {broker} stays paused"));
                    self.pause(broker, PATIENCE);
                }
            }
            Left::Hung(count) => {
                for broker in chosen(count).collect::<Vec<_>>() {
                    self.line(|| format!("the disk of broker {broker} completes nothing"));
                    self.tally.one("disks that stand still at the end");
                    self.machines[broker].hung = Some(Vec::new());
                }
            }
        }
    }

    pub(super) fn go_on_ending(&mut self) {
        let waited = self.now - self.ending.since;
        if self.now - self.ending.began > PATIENCE {
            let text = format!(
                "{:?} has not come to an end; {} records have no fate; {}",
                self.ending.phase,
                self.checks.history.open(),
                self.describe_brokers()
            );
            self.violated(Violation::new("liveness", text));
        }
        match self.ending.phase {
            Phase::Progress => self.watch_progress(waited),
            Phase::Settling if self.is_settled() => self.ask_bounds(),
            Phase::Bounds if self.ending.bounds.len() == self.ending.asked.len() => self.read_all(),
            Phase::CatchingUp => self.watch_catching_up(waited),
            Phase::Stopping => self.watch_stopping(waited),
            _ => {}
        }
        self.after(TICK, Action::Ending);
    }

    fn watch_progress(&mut self, waited: u64) {
        let late: Vec<_> = self.ending.probed.iter().filter(|(_, done)| !**done).collect();
        if late.is_empty() && self.are_topics_made() {
            self.tally.one("checked I14 progress");
            self.tally.add("I14 progress, ms", waited / 1_000_000);
            self.heal();
            self.enter(Phase::Settling);
        } else if waited
            > if matches!(self.plan.left, Left::Hung(_)) { PROGRESS_HUNG } else { PROGRESS }
        {
            let text = format!(
                "{:?} is left broken: after {} ms there is no write to {late:?}, topics made: {}; {}",
                self.plan.left,
                waited / 1_000_000,
                self.are_topics_made(),
                self.describe_brokers()
            );
            self.violated(Violation::new("I14", text));
        }
    }

    /// What each broker believes, for the text of a violation.
    fn describe_brokers(&self) -> String {
        let describe = |broker: usize| {
            let machine = &self.machines[broker];
            let Some(process) = &machine.process else { return format!("broker {broker} is down") };
            let view = process.shards[0].shard.view();
            let lanes = view.state().lanes().iter();
            let lanes: Vec<_> = lanes
                .map(|lane| format!("{}: {} {:?}", lane.id, lane.epoch, lane.leader_id()))
                .collect();
            let (version, is_ready) = (view.version(), machine.is_ready());
            format!("broker {broker}: ready {is_ready}, version {version}, {}", lanes.join(", "))
        };
        (0..self.plan.brokers).map(describe).collect::<Vec<_>>().join("; ")
    }

    pub(super) fn probe_work(&mut self, client: usize) {
        let Role::Probe { number } = self.clients[client].role else { return };
        if self.ending.phase != Phase::Progress || Some(client) != self.ending.probe {
            return;
        }
        let late = self.ending.probed.iter().filter(|(_, done)| !**done);
        for place in late.map(|(place, _)| *place).collect::<Vec<_>>() {
            let (topic, partition) = (place.topic, Some(place.partition));
            self.produce(client, number, topic, partition, 64, Durability::QuorumDurable);
        }
    }

    pub(super) fn on_probe_delivered(&mut self, client: usize, place: PartitionRef) {
        if Some(client) == self.ending.probe
            && let Some(done) = self.ending.probed.get_mut(&place)
        {
            *done = true;
        }
    }

    /// Nobody knows whether it was written: another one is.
    pub(super) fn on_probe_failed(&mut self, client: usize) {
        if Some(client) == self.ending.probe {
            self.plan_work(client, 10_000_000);
        }
    }

    fn is_settled(&self) -> bool {
        self.machines.iter().all(|machine| machine.is_ready())
            && self.are_topics_made()
            && self.checks.history.open() == 0
    }

    fn ask_bounds(&mut self) {
        self.enter(Phase::Bounds);
        self.ending.bounds.clear();
        self.ending.asked.clear();
        for place in self.checks.history.promised() {
            self.ask_bound(place);
        }
    }

    fn ask_bound(&mut self, place: PartitionRef) {
        let floor = self.checks.history.end_at_least(place);
        let (topic, partition) = (topic_name(place.topic), place.partition);
        let id = self.ask(0, AdminRequest::Offsets { topic, partition, at: Position::End });
        self.ending.asked.insert(id, (place, floor));
    }

    pub(super) fn on_bounds(&mut self, id: RequestId, answer: Result<AdminReply, Error>) {
        let Some((place, floor)) = self.ending.asked.get(&id).copied() else { return };
        match answer {
            Ok(AdminReply::Offsets(offsets)) => {
                let bounds = (offsets.log_start.0, offsets.committed_end.0);
                // A leader of yesterday does not know yet that it is none, and knows no better.
                let is_early = self.now - self.ending.since < PROGRESS;
                if bounds.1 < floor && is_early {
                    self.ending.asked.remove(&id);
                    return self.ask_bound(place);
                }
                if bounds.1 < floor {
                    let text = format!(
                        "{place:?} ends at {}, and {floor} offsets were acknowledged or seen",
                        bounds.1
                    );
                    self.violated(Violation::new("I1", text));
                }
                self.ending.bounds.insert(place, bounds);
            }
            _ => {
                self.ending.asked.remove(&id);
                self.ask_bound(place);
            }
        }
    }

    fn read_all(&mut self) {
        self.enter(Phase::Reading);
        let client = self.add_client(Role::Admin { created: 0, request: None }, |_| {});
        // Whatever is read, from leaders or from followers, is the same.
        let rack = self.random.chance(1, 2).then(|| rack_name(self.random.below(RACKS)));
        let config = ConsumerConfig { wait_ms_max: 10, rack, ..ConsumerConfig::default() };
        let consumer = self.with_client(client, |engine, _, _| engine.consumer(config));
        let mut reads = BTreeMap::new();
        for (place, (log_start, committed_end)) in self.ending.bounds.clone() {
            let position = Position::Offset(Offset(log_start));
            let assignment = self.assign(client, consumer, place, position);
            let read = ReadBack { log_start, committed_end, ..ReadBack::default() };
            reads.insert(assignment, (place, read));
        }
        self.clients[client].role = Role::Verifier { consumer, reads };
        self.plan_work(client, 1);
    }

    pub(super) fn verifier_work(&mut self, client: usize) {
        let Role::Verifier { consumer, .. } = self.clients[client].role else { return };
        while let Some(fetched) =
            self.with_client(client, |engine, now, effects| engine.take(now, consumer, effects))
        {
            match fetched {
                Fetched::Batch(batch) => {
                    let Some((place, _)) = self.verified(client, batch.assignment) else {
                        continue;
                    };
                    let place = *place;
                    let seen = self.read_batch(place, &batch);
                    if let Some((_, read)) = self.verified(client, batch.assignment) {
                        read.records.extend(seen);
                    }
                }
                Fetched::Error { assignment, error, .. } => {
                    self.on_verifier_error(client, assignment, &error)
                }
            }
        }
        let Role::Verifier { reads, .. } = &self.clients[client].role else { return };
        let is_complete = reads.values().all(|(_, read)| read.is_complete());
        if is_complete && self.ending.phase == Phase::Reading {
            self.judge(client);
        } else {
            self.plan_work(client, 1_000_000);
        }
    }

    fn verified(
        &mut self,
        client: usize,
        assignment: AssignmentId,
    ) -> Option<&mut (PartitionRef, ReadBack)> {
        match &mut self.clients[client].role {
            Role::Verifier { reads, .. } => reads.get_mut(&assignment),
            _ => None,
        }
    }

    fn on_verifier_error(&mut self, client: usize, assignment: AssignmentId, error: &Error) {
        let Some((place, read)) = self.verified(client, assignment) else { return };
        let place = *place;
        let next = read.records.last_key_value().map_or(read.log_start, |(offset, _)| offset + 1);
        match error {
            Error::Refused(_) => {
                self.seek(client, assignment, Position::Offset(Offset(next)));
            }
            _ => {
                let text = format!("{place:?} cannot be read back at {next}: {error}");
                self.violated(Violation::new("I1", text));
            }
        }
    }

    fn judge(&mut self, client: usize) {
        let idle = Role::Admin { created: 0, request: None };
        let role = std::mem::replace(&mut self.clients[client].role, idle);
        let Role::Verifier { reads, .. } = role else { return };
        for (place, read) in reads.values() {
            let checked = self.checks.history.check_read_back(*place, read, 0, false);
            self.check(checked);
            let records = read.records.iter().map(|(offset, id)| (*offset, *id));
            let checked = self.checks.order.check(records, place);
            self.check(checked);
        }
        self.ending.rounds += 1;
        self.tally.one("full reads");
        if self.ending.rounds == 1 {
            self.last_cut();
            self.enter(Phase::Settling);
        } else {
            self.enter(Phase::CatchingUp);
        }
    }

    /// A last power cut of all, once everything is quiet: nothing may depend on luck.
    fn last_cut(&mut self) {
        let style = if self.random.chance(1, 2) { CutStyle::Bare } else { CutStyle::Torn(50) };
        self.tally.one("power losses of all");
        for broker in 0..self.plan.brokers {
            self.power_cut(broker, style);
            let delay = 1 + self.random.below(300_000_000);
            self.after(delay, Action::Start { broker });
        }
    }

    fn watch_catching_up(&mut self, waited: u64) {
        if self.now < self.ending.looks_at {
            return;
        }
        let lacks = |broker: &usize| {
            self.checks.commits.first_missing(*broker, &self.checks.disks).is_some()
        };
        // Brokers beyond a lane's replicas never have it.
        let is_everywhere = self.plan.replicas == self.plan.brokers;
        let lacking = (0..self.plan.brokers).find(lacks).filter(|_| is_everywhere);
        match lacking {
            Some(broker) if waited > CATCH_UP => {
                let missing = self.checks.commits.first_missing(broker, &self.checks.disks);
                let text = format!("broker {broker} does not catch up: it lacks {missing:?}");
                self.violated(Violation::new("I14", text));
            }
            Some(_) => {}
            None if !is_everywhere && waited < CATCH_UP / 4 => {}
            None if waited < SCRUBBED && self.is_rotten() => self.ending.looks_at = self.now + LOOK,
            None => {
                self.enter(Phase::Stopping);
                self.ending.stopped = 0;
                let lanes = self.checks.commits.lanes();
                self.ending.settled = lanes.map(|(lane, log)| (lane, log.count())).collect();
                for broker in 0..self.plan.brokers {
                    self.stop_broker(broker);
                }
            }
        }
    }

    /// Something has rotted, and not every replica has everything again.
    fn is_rotten(&self) -> bool {
        if !self.machines.iter().any(|machine| machine.has_rotted) {
            return false;
        }
        let lanes = self.checks.commits.lanes();
        let all = lanes.map(|(lane, log)| (lane, log.count())).collect();
        self.compare_disks(&all).is_err()
    }

    fn compare_disks(&self, settled: &BTreeMap<u32, usize>) -> Result<u64, Violation> {
        // As a power cut would leave them: a stop in good order owes nothing to luck.
        let images: Vec<_> =
            self.machines.iter().map(|machine| machine.disk.crash(|_| false)).collect();
        check::logs::compare(&images, &self.checks.commits, settled, self.plan.replicas)
    }

    fn watch_stopping(&mut self, waited: u64) {
        if self.ending.stopped < self.plan.brokers {
            if waited > STOP {
                let text = format!(
                    "{} of {} brokers have stopped after {} ms",
                    self.ending.stopped,
                    self.plan.brokers,
                    waited / 1_000_000
                );
                self.violated(Violation::new("liveness", text));
            }
            return;
        }
        match self.compare_disks(&self.ending.settled) {
            Ok(compared) => self.tally.add("checked I7 entries on disks at the end", compared),
            Err(violation) => self.violated(violation),
        }
        self.enter(Phase::Over);
    }
}
