//! The clients: real engines, and the people who use them.

use std::collections::BTreeMap;

use corelog::Durability;
use corelog::engine::{
    AssignmentId, Config, ConsumerId, Effect, Effects, Engine, Event, LinkId, Monotonic, Now,
    RequestId,
};

use super::machine::address;
use super::operations::Operator;
use super::plan::{ConsumerPlan, ProducerPlan, Theme};
use super::streams::Owner;
use super::{Action, WALL_START_MS, World};
use crate::sim::check::history::{PartitionRef, ReadBack};
use crate::sim::check::record::RecordId;

/// What a client is for.
#[derive(Debug)]
pub enum Role {
    /// Makes the topics; at the end, asks for bounds.
    Admin {
        created: usize,
        request: Option<RequestId>,
    },
    Producer {
        plan: ProducerPlan,
        number: u32,
        left: u32,
    },
    Consumer {
        plan: ConsumerPlan,
        consumer: Option<ConsumerId>,
        reads: BTreeMap<AssignmentId, Reader>,
    },
    /// Has lanes and brokers moved about.
    Operator(Operator),
    /// Writes to each partition after the faults.
    Probe {
        number: u32,
    },
    /// Reads everything, at the end.
    Verifier {
        consumer: ConsumerId,
        reads: BTreeMap<AssignmentId, (PartitionRef, ReadBack)>,
    },
}

/// How far an assignment has come.
#[derive(Debug)]
pub struct Reader {
    pub place: PartitionRef,
    pub next: Option<u64>,
}

pub struct Client {
    engine: Engine<RecordId>,
    effects: Effects<RecordId>,
    links: BTreeMap<LinkId, usize>,
    wake_at: Option<u64>,
    pub role: Role,
    work_planned: bool,
}

pub fn topic_name(topic: usize) -> String {
    format!("topic-{topic}")
}

pub fn topic_number(name: &str) -> Option<usize> {
    name.strip_prefix("topic-")?.parse().ok()
}

impl World {
    pub(super) fn add_clients(&mut self) {
        self.add_client(Role::Admin { created: 0, request: None }, |_| {});
        for plan in self.plan.producers.clone() {
            let number = self.checks.history.add_producer();
            if plan.is_idempotent && plan.levels[0] == 0 {
                self.checks.order.demand_strictly(number);
            }
            self.add_client(Role::Producer { plan, number, left: plan.records }, |config| {
                config.producer.window_batches = plan.window;
                config.producer.linger_nanos = plan.linger;
                config.producer.delivery_nanos_max = plan.delivery;
                config.producer.batch_bytes_max = plan.batch_bytes;
                config.producer.is_idempotent = plan.is_idempotent;
            });
        }
        for plan in self.plan.consumers.clone() {
            let role = Role::Consumer { plan, consumer: None, reads: BTreeMap::new() };
            self.add_client(role, |_| {});
        }
        if self.random.chance(3, 4) {
            self.add_client(Role::Operator(Operator::default()), |_| {});
        }
        self.plan_work(0, 1);
    }

    pub(super) fn add_client(&mut self, role: Role, adjust: impl FnOnce(&mut Config)) -> usize {
        // Each knows them in another order, and some know one only, of those that are there from the beginning. Who comes when
        // the operator has removed some has to know all.
        let brokers = self.plan.brokers;
        let known = if self.random.chance(1, 4) && !self.ending.has_begun() { 1 } else { brokers };
        let first_of = if known == 1 { self.plan.first() } else { brokers };
        let first = self.random.below(first_of as u64) as usize;
        let addresses = (0..known).map(|step| address((first + step) % brokers)).collect();
        let mut config = Config::new(addresses);
        config.request_nanos_max = 5_000_000_000;
        config.reconnect_nanos_max = 500_000_000;
        config.producer.durability = Durability::QuorumDurable;
        adjust(&mut config);
        let seed = self.random.next_u64();
        self.clients.push(Client {
            engine: Engine::new(config, seed),
            effects: Vec::new(),
            links: BTreeMap::new(),
            wake_at: None,
            role,
            work_planned: false,
        });
        self.clients.len() - 1
    }

    pub(super) fn plan_work(&mut self, client: usize, delay: u64) {
        if !std::mem::replace(&mut self.clients[client].work_planned, true) {
            self.after(delay, Action::ClientWork { client });
        }
    }

    pub(super) fn client_now(&self) -> Now {
        let wall_ms = WALL_START_MS + (self.now / 1_000_000) as i64;
        Now { monotonic: Monotonic(self.now), wall_ms }
    }

    /// Calls the engine, then carries out what it orders.
    pub(super) fn with_client<R>(
        &mut self,
        client: usize,
        call: impl FnOnce(&mut Engine<RecordId>, Now, &mut Effects<RecordId>) -> R,
    ) -> R {
        let now = self.client_now();
        let state = &mut self.clients[client];
        let result = call(&mut state.engine, now, &mut state.effects);
        self.after_client(client);
        result
    }

    fn after_client(&mut self, client: usize) {
        let mut effects = std::mem::take(&mut self.clients[client].effects);
        for effect in effects.drain(..) {
            self.client_effect(client, effect);
        }
        let state = &mut self.clients[client];
        if state.effects.is_empty() {
            state.effects = effects;
        }
        let wake_at = state.engine.next_wake().map(|at| at.0.max(self.now));
        if let Some(at) = wake_at
            && state.wake_at.is_none_or(|planned| at < planned)
        {
            state.wake_at = Some(at);
            self.queue.at(at, Action::ClientTimer { client, at });
        }
    }

    fn client_event(&mut self, client: usize, event: Event<'_>) {
        self.with_client(client, |engine, now, effects| engine.on_event(now, event, effects));
    }

    pub(super) fn client_timer(&mut self, client: usize, at: u64) {
        if self.clients[client].wake_at == Some(at) {
            self.clients[client].wake_at = None;
            self.trace.mix(&[self.now, 40, client as u64]);
            self.client_event(client, Event::Timer);
        }
    }

    /// The client at the end of a stream that it dialed.
    fn client_of(&self, stream: usize) -> Option<(usize, LinkId)> {
        match self.streams[stream].ends[0].owner {
            Owner::Client { client, id } => Some((client, id)),
            _ => None,
        }
    }

    pub(super) fn client_connected(&mut self, stream: usize) {
        let Some((client, link)) = self.client_of(stream) else { return };
        self.client_event(client, Event::Connected { link });
    }

    pub(super) fn client_disconnected(&mut self, stream: usize) {
        let Some((client, link)) = self.client_of(stream) else { return };
        self.line(|| format!("client {client} loses {link:?}"));
        self.checks.order.on_given_up(stream as u64, self.now);
        self.clients[client].links.remove(&link);
        self.client_event(client, Event::Closed { link });
    }

    pub(super) fn client_sent(&mut self, stream: usize, bytes: u64) {
        let Some((client, link)) = self.client_of(stream) else { return };
        if !self.streams[stream].ends[0].is_over {
            self.client_event(client, Event::Sent { link, bytes });
        }
    }

    pub(super) fn client_received(&mut self, stream: usize, bytes: &[u8]) {
        let Some((client, link)) = self.client_of(stream) else { return };
        self.trace.mix(&[self.now, 41, client as u64, bytes.len() as u64]);
        self.client_event(client, Event::Received { link, bytes });
    }

    fn client_effect(&mut self, client: usize, effect: Effect<RecordId>) {
        match effect {
            Effect::Connect { link, address, .. } => {
                let host = self.host_of_client(client);
                let owner = Owner::Client { client, id: link };
                let stream = self.open_stream(host, owner, address, None);
                self.clients[client].links.insert(link, stream);
            }
            Effect::Send { link, bytes } => {
                if let Some(stream) = self.clients[client].links.get(&link).copied() {
                    self.client_sends(stream, bytes.pieces());
                }
            }
            Effect::Close { link } => {
                if let Some(stream) = self.clients[client].links.remove(&link) {
                    self.client_closes(stream);
                }
            }
            Effect::Delivered(delivered) => {
                let Some(topic) = topic_number(&delivered.topic) else { return };
                let place = PartitionRef { topic, partition: delivered.partition };
                let count = delivered.tokens.len() as u64;
                self.tally.add("records delivered", count);
                // Who only moves lanes about loses nothing, at any level.
                let is_calm = self.plan.theme == Theme::Calm;
                let durable = match delivered.level {
                    Durability::QuorumDurable => true,
                    Durability::None => false,
                    _ => is_calm,
                };
                if durable {
                    self.tally.add("acked records", count);
                }
                if durable && delivered.level != Durability::QuorumDurable {
                    self.tally.add("records of weaker levels that must stay", count);
                }
                for (index, id) in delivered.tokens.iter().enumerate() {
                    let offset = delivered.base_offset.map(|base| base.0 + index as u64);
                    let checked = self.checks.history.on_delivered(*id, place, offset, durable);
                    self.check(checked);
                }
                self.on_probe_delivered(client, place);
            }
            Effect::Failed(failed) => {
                let definite = failed.error.is_definite();
                self.line(|| {
                    let count = failed.tokens.len();
                    format!("client {client}: {count} records fail: {}", failed.error)
                });
                let name =
                    if definite { "records failed for certain" } else { "records of unknown fate" };
                self.tally.add(name, failed.tokens.len() as u64);
                for id in &failed.tokens {
                    let checked = self.checks.history.on_failed(*id, definite);
                    self.check(checked);
                }
                self.on_probe_failed(client);
            }
            Effect::Answered { request, answer } => self.on_answered(client, request, answer),
            Effect::Readable { .. } => self.on_readable(client),
            Effect::Flushed { .. } | Effect::Objective(_) => {}
        }
    }

    pub(super) fn client_work(&mut self, client: usize) {
        self.clients[client].work_planned = false;
        self.trace.mix(&[self.now, 42, client as u64]);
        match &self.clients[client].role {
            Role::Admin { .. } => self.admin_work(client),
            Role::Producer { .. } => self.producer_work(client),
            Role::Consumer { .. } => self.consumer_work(client),
            Role::Operator(_) => self.operator_work(client),
            Role::Probe { .. } => self.probe_work(client),
            Role::Verifier { .. } => self.verifier_work(client),
        }
    }
}
