//! What producers and administrators do, and how they take the answers.

use corelog::engine::{AdminReply, AdminRequest, Monotonic, RequestId};
use corelog::{Durability, Error, Record};
use corelog_protocol::ErrorCode;
use corelog_protocol::message::TopicSettings;

use super::World;
use super::clients::{Role, topic_name};
use super::plan::ProducerPlan;
use crate::sim::check::record::{VALUE_BYTES_MIN, write_value};

impl World {
    pub(super) fn ask(&mut self, client: usize, request: AdminRequest) -> RequestId {
        let deadline = Monotonic(self.now + 3_000_000_000);
        self.with_client(client, |engine, now, effects| {
            engine.request(now, request, deadline, effects)
        })
    }

    pub(super) fn admin_work(&mut self, client: usize) {
        let Role::Admin { created, request: None } = self.clients[client].role else { return };
        if client != 0 || created == self.plan.topics.len() {
            return;
        }
        let settings = TopicSettings {
            partitions: self.plan.topics[created],
            replicas: 0,
            retention_ms: None,
            retention_bytes: None,
        };
        let name = topic_name(created);
        let id = self.ask(client, AdminRequest::CreateTopic { name, settings });
        if let Role::Admin { request, .. } = &mut self.clients[client].role {
            *request = Some(id);
        }
    }

    pub(super) fn on_answered(
        &mut self,
        client: usize,
        id: RequestId,
        answer: Result<AdminReply, Error>,
    ) {
        self.line(|| format!("client {client}: {id:?} is answered {answer:?}"));
        if self.is_of_operator(client, id) {
            return self.on_operated(client, answer);
        }
        let exists = matches!(&answer, Err(Error::Refused(refusal)) if refusal.code == ErrorCode::TopicExists);
        let Role::Admin { created, request } = &mut self.clients[client].role else { return };
        if *request != Some(id) {
            return self.on_bounds(id, answer);
        }
        *request = None;
        // A first answer that was lost may have made it.
        if answer.is_ok() || exists {
            *created += 1;
            self.tally.one("topics created");
        }
        if self.are_topics_made() {
            for other in 1..self.clients.len() {
                let delay = 1 + self.random.below(5_000_000);
                self.plan_work(other, delay);
            }
        }
        self.plan_work(client, 10_000_000);
    }

    pub(super) fn are_topics_made(&self) -> bool {
        let Some(admin) = self.clients.first() else { return false };
        matches!(admin.role, Role::Admin { created, .. } if created == self.plan.topics.len())
    }

    pub(super) fn producer_work(&mut self, client: usize) {
        let Role::Producer { plan, number, left } = self.clients[client].role else { return };
        if left == 0 || self.ending.has_begun() {
            return;
        }
        let burst = (1 + self.random.below(plan.burst)).min(u64::from(left));
        for _ in 0..burst {
            let topic = self.random.below(self.plan.topics.len() as u64) as usize;
            let partition = self.random.below(u64::from(self.plan.topics[topic])) as u32;
            let partition = self.random.chance(3, 4).then_some(partition);
            let most = (plan.value_bytes_max - VALUE_BYTES_MIN) as u64;
            let bytes = VALUE_BYTES_MIN + self.random.below(most) as usize;
            let level = self.draw_level(&plan);
            self.produce(client, number, topic, partition, bytes, level);
        }
        if let Role::Producer { left, .. } = &mut self.clients[client].role {
            *left -= burst as u32;
        }
        let pause = 1 + self.random.below(plan.pause.max(1));
        self.plan_work(client, pause);
    }

    fn draw_level(&mut self, plan: &ProducerPlan) -> Durability {
        const LEVELS: [Durability; 4] = [
            Durability::None,
            Durability::LeaderMemory,
            Durability::LeaderDurable,
            Durability::QuorumMemory,
        ];
        let mut drawn = self.random.below(100);
        for (share, level) in plan.levels.iter().zip(LEVELS) {
            if drawn < *share {
                return level;
            }
            drawn -= share;
        }
        Durability::QuorumDurable
    }

    pub(super) fn produce(
        &mut self,
        client: usize,
        producer: u32,
        topic: usize,
        partition: Option<u32>,
        bytes: usize,
        level: Durability,
    ) {
        let wall_ms = self.client_now().wall_ms;
        let id = self.checks.history.on_send(producer, topic, bytes, wall_ms);
        let (mut value, name) = (Vec::new(), topic_name(topic));
        write_value(id, bytes, &mut value);
        let mut record = Record::to(&name).value(&value).level(level);
        record.partition = partition;
        self.tally.one("records sent");
        let refused = self.with_client(client, |engine, now, effects| {
            engine.produce(now, &record, id, effects).err()
        });
        if let Some((error, id)) = refused {
            self.tally.one("records refused by the client");
            let definite = error.is_definite();
            let checked = self.checks.history.on_failed(id, definite);
            self.check(checked);
        }
    }
}
