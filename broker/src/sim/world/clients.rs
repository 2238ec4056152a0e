//! The clients: real engines, and the people who use them.

use std::collections::BTreeMap;

use corelog::Durability;
use corelog::engine::{
    AssignmentId, Config, ConsumerId, Effect, Effects, Engine, Event, LinkId, Monotonic, Now,
    RequestId,
};
use corelog_protocol::ErrorCode;
use corelog_protocol::ids::ShardId;
use corelog_protocol::message::ErrorReply;

use super::{Action, World};
use crate::sim::check::history::{PartitionRef, ReadBack};
use crate::sim::check::record::RecordId;
use crate::sim::plan::{ConsumerPlan, ProducerPlan};

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
        started: bool,
    },
    Consumer {
        plan: ConsumerPlan,
        consumer: Option<ConsumerId>,
        reads: BTreeMap<AssignmentId, Reader>,
    },
    /// Makes and deletes a topic, again and again.
    Churn {
        left: u32,
        number: u32,
        topic: Option<usize>,
        request: Option<RequestId>,
        step: u32,
    },
    /// Breaks every rule.
    Hostile {
        left: u32,
        number: u64,
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

/// The code of an error frame, if it is one.
pub fn refusal_code(control: &[u8]) -> Option<ErrorCode> {
    ErrorReply::decode(control).ok().map(|reply| reply.code)
}

pub fn refusal_name(code: Option<ErrorCode>) -> &'static str {
    match code {
        Some(ErrorCode::Overloaded) => "refusals Overloaded",
        Some(ErrorCode::StorageFull) => "refusals StorageFull",
        Some(ErrorCode::StorageFailed) => "refusals StorageFailed",
        Some(ErrorCode::CorruptBatch) => "refusals CorruptBatch",
        Some(ErrorCode::Stopping) => "refusals Stopping",
        Some(ErrorCode::UnknownPartition) => "refusals UnknownPartition",
        Some(_) => ".refusals others",
        None => ".refusals that cannot be read",
    }
}

pub fn topic_name(topic: usize) -> String {
    format!("topic-{topic}")
}

fn topic_number(name: &str) -> Option<usize> {
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
            let role = Role::Producer { plan, number, left: plan.records, started: false };
            let shard = self.random.below(2) as u16;
            self.add_client(role, |config| {
                config.producer.window_batches = plan.window;
                config.producer.linger_nanos = plan.linger;
                config.producer.delivery_nanos_max = plan.delivery;
                config.producer.batch_bytes_max = plan.batch_bytes;
                config.insist_on_shard = plan.insists_on_shard.then_some(ShardId(shard));
                config.producer.is_idempotent = plan.is_idempotent;
            });
        }
        for plan in self.plan.consumers.clone() {
            self.add_client(
                Role::Consumer { plan, consumer: None, reads: BTreeMap::new() },
                |_| {},
            );
        }
        if self.plan.churn > 0 {
            let number = self.checks.history.add_producer();
            let role =
                Role::Churn { left: self.plan.churn, number, topic: None, request: None, step: 0 };
            self.add_client(role, |_| {});
        }
        if self.plan.hostile > 0 {
            self.add_client(Role::Hostile { left: self.plan.hostile, number: 0 }, |_| {});
        }
        self.plan_work(0, 1);
    }

    pub(super) fn add_client(&mut self, role: Role, adjust: impl FnOnce(&mut Config)) -> usize {
        let mut config = Config::new(vec![std::net::SocketAddr::from(([127, 0, 0, 1], 7420))]);
        config.request_nanos_max = 5_000_000_000;
        config.reconnect_nanos_max = 200_000_000;
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
        Now { monotonic: Monotonic(self.now), wall_ms: self.wall_ms() }
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

    pub(super) fn after_client(&mut self, client: usize) {
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

    pub(super) fn client_timer(&mut self, client: usize, at: u64) {
        if self.clients[client].wake_at == Some(at) {
            self.clients[client].wake_at = None;
            self.trace.mix(&[self.now, 40, client as u64]);
            self.with_client(client, |engine, now, effects| {
                engine.on_event(now, Event::Timer, effects)
            });
        }
    }

    pub(super) fn client_connected(&mut self, link: usize) {
        if self.links[link].is_hostile {
            self.hostile_connected(link);
            return;
        }
        let (client, id) = (self.links[link].client, self.links[link].id);
        self.with_client(client, |engine, now, effects| {
            engine.on_event(now, Event::Connected { link: id }, effects);
        });
    }

    pub(super) fn client_disconnected(&mut self, link: usize) {
        let (client, id) = (self.links[link].client, self.links[link].id);
        self.trace.line(self.now, || format!("client {client} loses {id:?}"));
        if self.links[link].is_hostile {
            return;
        }
        self.clients[client].links.remove(&id);
        self.with_client(client, |engine, now, effects| {
            engine.on_event(now, Event::Closed { link: id }, effects)
        });
    }

    pub(super) fn client_sent(&mut self, link: usize, bytes: u64) {
        let (client, id) = (self.links[link].client, self.links[link].id);
        if !self.links[link].client_gone && !self.links[link].is_hostile {
            let event = Event::Sent { link: id, bytes };
            self.with_client(client, |engine, now, effects| engine.on_event(now, event, effects));
        }
    }

    pub(super) fn client_received(&mut self, link: usize, bytes: &[u8]) {
        let (client, id) = (self.links[link].client, self.links[link].id);
        if self.links[link].is_hostile {
            return;
        }
        self.trace.mix(&[self.now, 41, client as u64, bytes.len() as u64]);
        let event = Event::Received { link: id, bytes };
        self.with_client(client, |engine, now, effects| engine.on_event(now, event, effects));
    }

    pub(super) fn client_effect(&mut self, client: usize, effect: Effect<RecordId>) {
        match effect {
            Effect::Connect { link: id, .. } => {
                let link = self.open_link(client, id);
                self.clients[client].links.insert(id, link);
            }
            Effect::Send { link: id, bytes } => {
                if let Some(link) = self.clients[client].links.get(&id).copied() {
                    self.client_sends(link, bytes.pieces());
                }
            }
            Effect::Close { link: id } => {
                if let Some(link) = self.clients[client].links.remove(&id) {
                    self.client_closes(link);
                }
            }
            Effect::Delivered(delivered) => {
                let Some(topic) = topic_number(&delivered.topic) else { return };
                let place = PartitionRef { topic, partition: delivered.partition };
                self.tally.add("records delivered", delivered.tokens.len() as u64);
                for (index, id) in delivered.tokens.iter().enumerate() {
                    let offset = delivered.base_offset.map(|base| base.0 + index as u64);
                    let durable = matches!(
                        delivered.level,
                        Durability::LeaderDurable | Durability::QuorumDurable
                    );
                    let checked = self.checks.history.on_delivered(*id, place, offset, durable);
                    self.check(checked);
                }
            }
            Effect::Failed(failed) => {
                let definite = failed.error.is_definite();
                let now = self.now;
                self.trace.line(now, || {
                    format!(
                        "client {client}: {} records fail: {}",
                        failed.tokens.len(),
                        failed.error
                    )
                });
                self.tally.add(
                    if definite { "records failed for certain" } else { "records of unknown fate" },
                    failed.tokens.len() as u64,
                );
                for id in &failed.tokens {
                    let checked = self.checks.history.on_failed(*id, definite);
                    self.check(checked);
                }
            }
            Effect::Flushed { .. } => {}
            Effect::Answered { request, answer } => self.on_answered(client, request, answer),
            Effect::Readable { .. } => self.on_readable(client),
            Effect::Objective(_) => {}
        }
    }

    pub(super) fn client_work(&mut self, client: usize) {
        self.clients[client].work_planned = false;
        self.trace.mix(&[self.now, 42, client as u64]);
        match &self.clients[client].role {
            Role::Admin { .. } => self.admin_work(client),
            Role::Producer { .. } => self.producer_work(client),
            Role::Consumer { .. } => self.consumer_work(client),
            Role::Churn { .. } => self.churn_work(client),
            Role::Hostile { .. } => self.hostile_work(client),
            Role::Verifier { .. } => self.verifier_work(client),
        }
    }
}
