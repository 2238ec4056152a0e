//! The quiet end of a run: faults stop, everything heals, every request is answered, one more record
//! goes to each partition, and then all is read back; after another power cut, again; then a clean stop.

use std::collections::BTreeMap;

use corelog::Durability;
use corelog::Error;
use corelog::engine::{AdminReply, AdminRequest, ConsumerConfig, Fetched, Position, RequestId};
use corelog_protocol::ids::Offset;

use super::clients::{Role, topic_name};
use super::net::ANSWER;
use super::{Action, World};
use crate::sim::check::history::{PartitionRef, ReadBack};
use crate::sim::plan::CrashStyle;
use crate::sim::trace::Violation;

/// How long the end may take in all, and how often its progress is looked at.
const PATIENCE: u64 = 120_000_000_000;
const TICK: u64 = 20_000_000;
/// While a request waits for longer, the run does not end: it is answered, or that is found out.
const WAITING: u64 = 1_000_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Phase {
    #[default]
    Running,
    /// Until every fate is known and the topics exist.
    Settling,
    /// One more durable record per partition.
    Probing,
    /// Until the bounds of each partition are known.
    Bounds,
    Reading,
    /// The broker is down once more.
    Cutting,
    Stopping,
    Over,
}

#[derive(Debug, Default)]
pub struct Ending {
    phase: Phase,
    began: u64,
    rounds: u32,
    verifier: Option<usize>,
    /// What was asked, and the end that it must find at least.
    asked: BTreeMap<RequestId, (PartitionRef, u64)>,
    bounds: BTreeMap<PartitionRef, (u64, u64)>,
    probes_before: u64,
    probes: u64,
}

impl Ending {
    pub fn has_begun(&self) -> bool {
        self.phase != Phase::Running
    }

    /// The broker has stopped in good order.
    pub fn on_stopped(&mut self) {
        if self.phase == Phase::Stopping {
            self.phase = Phase::Over;
        }
    }

    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }
}

impl World {
    pub(super) fn end(&mut self) {
        let now = self.now;
        self.trace.line(now, || "the quiet end begins".to_owned());
        self.heal();
        self.ending.phase = Phase::Settling;
        self.ending.began = now;
        self.after(TICK, Action::Ending);
    }

    pub(super) fn go_on_ending(&mut self) {
        if self.broker.is_none() && !matches!(self.ending.phase, Phase::Stopping) {
            let shards = 1 + self.random.below(2) as u16;
            self.start_broker(shards);
        }
        let now = self.now;
        let healthy = now - self.ending.began;
        let checked = self.checks.recovery.check_patience(now, 60_000_000_000);
        self.check(checked);
        let checked = self.checks.answers.check_patience(now, ANSWER);
        self.check(checked);
        if healthy > PATIENCE {
            let text = format!(
                "{:?} has not come to an end; {} records have no fate",
                self.ending.phase,
                self.checks.history.open()
            );
            self.violated(Violation::new("liveness", text));
        }
        match self.ending.phase {
            Phase::Settling if self.is_settled() => self.probe(),
            Phase::Probing if self.checks.history.open() == 0 => self.probed(),
            Phase::Bounds if self.ending.bounds.len() == self.ending.asked.len() => self.read_all(),
            Phase::Cutting => self.ask_bounds(),
            _ => {}
        }
        self.after(TICK, Action::Ending);
    }

    fn is_settled(&self) -> bool {
        let topics_made = matches!(self.clients[0].role, Role::Admin { created, request: None } if created == self.plan.topics.len());
        let ready = self.broker.as_ref().is_some_and(|broker| broker.is_ready());
        let answered = !self.checks.answers.has_waiting(self.now, WAITING);
        let fates_known = self.checks.history.open() == 0;
        topics_made && ready && !self.faults.kill_planned && fates_known && answered
    }

    fn probe(&mut self) {
        self.ending.phase = Phase::Probing;
        self.ending.probes_before = self.tally.get("records delivered");
        self.ending.probes = 0;
        let number = self.checks.history.add_producer();
        let role = Role::Producer { plan: self.plan.producers[0], number, left: 0, started: true };
        let client = self.add_client(role, |_| {});
        for topic in 0..self.plan.topics.len() {
            for partition in 0..self.topics[topic] {
                self.ending.probes += 1;
                self.produce(
                    client,
                    number,
                    topic,
                    Some(partition),
                    64,
                    Durability::QuorumDurable,
                    false,
                );
            }
        }
    }

    fn probed(&mut self) {
        let delivered = self.tally.get("records delivered") - self.ending.probes_before;
        let all = delivered >= self.ending.probes;
        let checked = self.checks.space.check_recovered(all);
        self.check(checked);
        if !all {
            let text = format!(
                "{delivered} of {} probes were accepted by a healthy broker",
                self.ending.probes
            );
            self.violated(Violation::new("liveness", text));
        }
        self.ask_bounds();
    }

    fn ask_bounds(&mut self) {
        if !self.broker.as_ref().is_some_and(|broker| broker.is_ready()) {
            return;
        }
        self.ending.phase = Phase::Bounds;
        self.ending.bounds.clear();
        self.ending.asked.clear();
        for place in self.checks.history.promised() {
            self.ask_bound(place);
        }
    }

    fn ask_bound(&mut self, place: PartitionRef) {
        let request = AdminRequest::Offsets {
            topic: topic_name(place.topic),
            partition: place.partition,
            at: Position::End,
        };
        let floor = self.checks.history.end_at_least(place);
        let id = self.ask(0, request);
        self.ending.asked.insert(id, (place, floor));
    }

    pub(super) fn on_bounds(
        &mut self,
        _client: usize,
        id: RequestId,
        answer: Result<AdminReply, Error>,
    ) {
        let Some((place, floor)) = self.ending.asked.get(&id).copied() else { return };
        match answer {
            Ok(AdminReply::Offsets(offsets)) => {
                let bounds = (offsets.log_start.0, offsets.committed_end.0);
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
        self.ending.phase = Phase::Reading;
        let role = Role::Admin { created: 0, request: None };
        let client = self.add_client(role, |_| {});
        self.ending.verifier = Some(client);
        let config = ConsumerConfig { wait_ms_max: 10, ..ConsumerConfig::default() };
        let consumer = self.with_client(client, |engine, _, _| engine.consumer(config));
        let mut reads = BTreeMap::new();
        for (place, (log_start, committed_end)) in self.ending.bounds.clone() {
            let assignment =
                self.assign(client, consumer, place, Position::Offset(Offset(log_start)));
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
                    let Some(place) =
                        self.verified(client, batch.assignment).map(|(place, _)| *place)
                    else {
                        continue;
                    };
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
        if reads.values().all(|(_, read)| read.is_complete()) && self.ending.phase == Phase::Reading
        {
            self.judge(client);
        } else {
            self.plan_work(client, 1_000_000);
        }
    }

    fn verified(
        &mut self,
        client: usize,
        assignment: corelog::engine::AssignmentId,
    ) -> Option<&mut (PartitionRef, ReadBack)> {
        match &mut self.clients[client].role {
            Role::Verifier { reads, .. } => reads.get_mut(&assignment),
            _ => None,
        }
    }

    fn on_verifier_error(
        &mut self,
        client: usize,
        assignment: corelog::engine::AssignmentId,
        error: &Error,
    ) {
        let now = self.now;
        self.trace.line(now, || format!("verifier: {assignment:?} fails: {error}"));
        let Some((place, read)) = self.verified(client, assignment) else { return };
        let place = *place;
        let position = match error {
            Error::RangeCorrupt { first, end } => {
                read.corrupt.push((first.0, end.0));
                Position::Offset(*end)
            }
            Error::OffsetOutOfRange { log_start, .. } if log_start.0 > read.log_start => {
                // Retention went on while we read.
                let start = log_start.0;
                read.log_start = start;
                read.records = read.records.split_off(&start);
                Position::Offset(*log_start)
            }
            _ => {
                self.violated(Violation::new(
                    "I1",
                    format!("{place:?} cannot be read back: {error}"),
                ));
                return;
            }
        };
        if matches!(error, Error::RangeCorrupt { .. }) {
            self.tally.one("corrupt ranges found");
        }
        self.seek(client, assignment, position);
    }

    fn judge(&mut self, client: usize) {
        let role = std::mem::replace(
            &mut self.clients[client].role,
            Role::Admin { created: 0, request: None },
        );
        let Role::Verifier { reads, .. } = role else { return };
        // Retention may have acted on the latest time that was ever shown.
        let wall_ms = self.wall_ms().max(self.wall_max_ms);
        let damaged = self.faults.has_damaged;
        for (place, read) in reads.values() {
            if read.log_start > 0 {
                self.tally.one("partitions trimmed by retention");
            }
            let checked = self.checks.history.check_read_back(*place, read, wall_ms, damaged);
            self.check(checked);
            let records = read.records.iter().map(|(offset, id)| (*offset, *id));
            let checked = self.checks.order.check(records, place);
            self.check(checked);
        }
        self.ending.rounds += 1;
        self.tally.one("full reads");
        let shards = 1 + self.random.below(2) as u16;
        if self.ending.rounds == 1 {
            let style =
                if self.random.chance(1, 2) { CrashStyle::Bare } else { CrashStyle::Torn(50) };
            if self.random.chance(1, 3) {
                self.stop_broker(shards);
            } else {
                self.last_cut(style, shards);
            }
            self.ending.phase = Phase::Cutting;
        } else {
            self.ending.phase = Phase::Stopping;
            self.stop_broker(shards);
        }
    }
}
