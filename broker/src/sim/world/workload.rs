//! What producers and administrators do, and how they take the answers.

use corelog::engine::{AdminReply, AdminRequest, Monotonic, RequestId};
use corelog::{Durability, Error, Record};
use corelog_protocol::ErrorCode;
use corelog_protocol::message::TopicSettings;

use super::World;
use super::clients::{Role, topic_name};
use crate::sim::check::record::{VALUE_BYTES_MIN, key_of, write_value};
use crate::sim::plan::ProducerPlan;

impl World {
    pub(super) fn ask(&mut self, client: usize, request: AdminRequest) -> RequestId {
        let deadline = Monotonic(self.now + 3_000_000_000);
        self.with_client(client, |engine, now, effects| {
            engine.request(now, request, deadline, effects)
        })
    }

    pub(super) fn settings(&self, topic: usize) -> TopicSettings {
        let kept = self.plan.topics.get(topic).map(|plan| plan.kept).unwrap_or_default();
        TopicSettings {
            partitions: self.topics[topic],
            replicas: 0,
            retention_ms: kept.age_ms,
            retention_bytes: kept.bytes,
        }
    }

    pub(super) fn admin_work(&mut self, client: usize) {
        let Role::Admin { created, request: None } = self.clients[client].role else { return };
        if created == self.plan.topics.len() {
            for other in 1..self.clients.len() {
                let delay = 1 + self.random.below(5_000_000);
                self.plan_work(other, delay);
            }
            return;
        }
        let settings = self.settings(created);
        let id =
            self.ask(client, AdminRequest::CreateTopic { name: topic_name(created), settings });
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
        let now = self.now;
        self.trace.line(now, || format!("client {client}: {id:?} is answered {answer:?}"));
        let exists = matches!(&answer, Err(Error::Refused(refusal)) if refusal.code == ErrorCode::TopicExists);
        match &mut self.clients[client].role {
            Role::Admin { created, request } => {
                if *request != Some(id) {
                    self.on_bounds(client, id, answer);
                    return;
                }
                *request = None;
                // A first answer that was lost may have made it.
                if answer.is_ok() || exists {
                    *created += 1;
                    self.tally.one("topics created");
                }
                self.plan_work(client, 10_000_000);
            }
            Role::Churn { request, step, topic, left, .. } => {
                if *request != Some(id) {
                    return;
                }
                *request = None;
                let unknown = matches!(&answer, Err(Error::UnknownTopic(_)))
                    || matches!(&answer, Err(Error::Refused(refusal)) if refusal.code == ErrorCode::UnknownTopic);
                match *step {
                    0 if answer.is_ok() || exists => {
                        *step = 1;
                        self.tally.one("topics created");
                    }
                    2 if answer.is_ok() || unknown => {
                        (*step, *topic) = (0, None);
                        *left -= 1;
                        self.tally.one("topics deleted");
                    }
                    _ => {}
                }
                self.plan_work(client, 20_000_000);
            }
            _ => {}
        }
    }

    pub(super) fn churn_work(&mut self, client: usize) {
        let Role::Churn { left, number, topic, request: None, step } = self.clients[client].role
        else {
            return;
        };
        if left == 0 || self.ending.has_begun() {
            return;
        }
        let topic = topic.unwrap_or_else(|| self.add_topic(Default::default(), 2));
        let mut next_step = step;
        let mut asked = None;
        match step {
            0 => {
                let settings = self.settings(topic);
                asked =
                    Some(self.ask(
                        client,
                        AdminRequest::CreateTopic { name: topic_name(topic), settings },
                    ));
            }
            1 => {
                for _ in 0..20 {
                    self.produce(
                        client,
                        number,
                        topic,
                        None,
                        100,
                        Durability::LeaderDurable,
                        false,
                    );
                }
                next_step = 2;
                self.plan_work(client, 40_000_000);
            }
            _ => {
                self.checks.history.on_deleting(topic);
                asked =
                    Some(self.ask(client, AdminRequest::DeleteTopic { name: topic_name(topic) }));
            }
        }
        if let Role::Churn { topic: at, request, step, .. } = &mut self.clients[client].role {
            (*at, *request, *step) = (Some(topic), asked, next_step);
        }
    }

    pub(super) fn producer_work(&mut self, client: usize) {
        let Role::Producer { plan, number, left, .. } = self.clients[client].role else { return };
        if left == 0 || self.ending.has_begun() {
            return;
        }
        let burst = (1 + self.random.below(plan.burst)).min(u64::from(left));
        for _ in 0..burst {
            let topic = self.random.below(self.plan.topics.len() as u64) as usize;
            let partition = (!plan.keyed && self.random.chance(1, 2))
                .then(|| self.random.below(u64::from(self.topics[topic])) as u32);
            let most = (plan.value_bytes_max - VALUE_BYTES_MIN) as u64;
            let bytes = VALUE_BYTES_MIN + self.random.below(most) as usize;
            let level = self.draw_level(&plan);
            self.produce(client, number, topic, partition, bytes, level, plan.keyed);
        }
        if let Role::Producer { left, started, .. } = &mut self.clients[client].role {
            *left -= burst as u32;
            *started = true;
        }
        let pause = 1 + self.random.below(plan.pause.max(1));
        self.plan_work(client, pause);
    }

    pub(super) fn draw_level(&mut self, plan: &ProducerPlan) -> Durability {
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

    #[expect(clippy::too_many_arguments, reason = "what makes a record")]
    pub(super) fn produce(
        &mut self,
        client: usize,
        producer: u32,
        topic: usize,
        partition: Option<u32>,
        bytes: usize,
        level: Durability,
        keyed: bool,
    ) {
        let wall_ms = self.wall_ms();
        let id = self.checks.history.on_send(producer, topic, bytes, wall_ms);
        let (mut value, name, key) = (Vec::new(), topic_name(topic), key_of(id));
        write_value(id, bytes, &mut value);
        let mut record = Record::to(&name).value(&value).level(level);
        record.partition = partition;
        record.key = keyed.then_some(&key);
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
