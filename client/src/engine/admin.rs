//! Questions to the cluster rather than to a partition's data, and orders to it. Each has a
//! deadline. A question is asked again when its connection is lost; an order that had left is not.

use super::batches::is_place_unknown;
use super::door::Ask;
use super::links::Wrong;
use super::time::{MILLIS, Monotonic, Now};
use super::topics::DENIALS_MAX;
use super::{Effect, Effects, Engine, Position, RETRY_NANOS, RequestId, Retry};
use crate::{Error, Refusal};
use corelog_protocol::ErrorCode;
use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::Offset;
use corelog_protocol::message::{
    ClusterStatus, ClusterStatusReply, Obstacle, Offsets, OffsetsQuery, Operate, OperateReply,
    Operation, Status, StatusReply, TopicAlter, TopicAlterReply, TopicChanges, TopicCreate,
    TopicCreateReply, TopicDelete, TopicDeleteReply, TopicDescribe, TopicInfo, TopicList,
    TopicListReply, TopicSettings, TopicSummary,
};
use std::sync::Arc;

/// Something asked of the cluster rather than of a partition's data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdminRequest {
    CreateTopic {
        name: String,
        settings: TopicSettings,
    },
    ListTopics,
    DescribeTopic {
        name: String,
    },
    DeleteTopic {
        name: String,
    },
    /// Changes what `changes` gives and leaves the rest.
    AlterTopic {
        name: String,
        changes: TopicChanges,
    },
    /// The bounds of a partition, and where `at` lies in it.
    Offsets {
        topic: String,
        partition: u32,
        at: Position,
    },
    /// The broker's counters, or those whose names start so.
    Status {
        prefix: String,
    },
    /// Brokers and lanes of the cluster.
    Cluster,
    /// A planned change of the cluster, or the question whether it could be done.
    Operate {
        operation: Operation,
        check_only: bool,
    },
}

/// The answer to an [`AdminRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdminReply {
    Created(TopicInfo),
    Topics(Vec<TopicSummary>),
    Topic(TopicInfo),
    Deleted,
    /// The topic, as it is on every shard now.
    Altered(TopicInfo),
    Offsets(PartitionOffsets),
    Status(StatusReply),
    Cluster(ClusterStatusReply),
    /// It has begun in this version of the metadata. 0: it was only asked about, and could be done.
    Operated(u64),
}

/// The bounds of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionOffsets {
    pub log_start: Offset,
    /// After the last record that a consumer may see.
    pub committed_end: Offset,
    /// Of the position that was asked for.
    pub found: Offset,
}

/// More topics than this are not gathered into one list.
const TOPICS_LISTED_MAX: usize = 1_000_000;

#[derive(Debug)]
pub(super) struct Asked {
    request: AdminRequest,
    deadline: Monotonic,
    /// For `Offsets`: it waits for the places of this topic.
    waits_for: Option<usize>,
    /// What a list has gathered so far.
    listed: Vec<TopicSummary>,
    /// Refusals in a row that may be retried.
    redirects: u32,
    /// It stands in no door's list and no connection's: its retry is to come.
    refusal: Option<Refusal>,
}

impl AdminRequest {
    /// To carry it out twice does no harm.
    fn is_question(&self) -> bool {
        !matches!(
            self,
            Self::CreateTopic { .. }
                | Self::DeleteTopic { .. }
                | Self::AlterTopic { .. }
                | Self::Operate { check_only: false, .. }
        )
    }
}

impl Asked {
    /// Any broker can answer it, and it can be asked twice.
    pub(super) fn is_question_to_any(&self) -> bool {
        self.waits_for.is_none() && self.request.is_question()
    }
}

impl<T> Engine<T> {
    /// Asks the cluster something. [`Effect::Answered`] comes by `deadline`.
    pub fn request(
        &mut self,
        now: Now,
        request: AdminRequest,
        deadline: Monotonic,
        effects: &mut Effects<T>,
    ) -> RequestId {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        if self.is_closed {
            effects.push(Effect::Answered { request: id, answer: Err(Error::Closed) });
            return id;
        }
        let mut asked = Asked {
            request,
            deadline,
            waits_for: None,
            listed: Vec::new(),
            redirects: 0,
            refusal: None,
        };
        if let AdminRequest::Offsets { topic, .. } = &asked.request {
            match self.topic(topic) {
                Ok(topic) => asked.waits_for = Some(topic),
                Err(error) => {
                    effects.push(Effect::Answered { request: id, answer: Err(error) });
                    return id;
                }
            }
        }
        self.requests.insert(id, asked);
        self.ask(id, effects);
        self.pump_all(now, effects);
        id
    }

    /// Puts a request into the list of the door that it goes through.
    pub(super) fn ask(&mut self, id: RequestId, effects: &mut Effects<T>) {
        let Some(asked) = self.requests.get(&id) else { return };
        let Some(topic) = asked.waits_for else {
            let door = self.door_of_metadata();
            self.doors[door].asks.push_back(Ask::Admin(id));
            return;
        };
        if !self.topics[topic].is_known {
            self.describe_topic(topic);
            return;
        }
        let AdminRequest::Offsets { partition, .. } = asked.request else { return };
        let count = self.topics[topic].partition_count;
        match self.topics[topic].queues.get(partition as usize) {
            Some(&queue) if partition < count => {
                let queue = &self.producer.queues[queue];
                match queue.is_led {
                    true => self.doors[queue.target()].asks.push_back(Ask::Admin(id)),
                    false => self.describe_topic(topic),
                }
            }
            _ => {
                let topic = Arc::clone(&self.topics[topic].name);
                self.answer(id, Err(Error::UnknownPartition { topic, partition }), effects);
            }
        }
    }

    /// The places of a topic are known: what waited for them is asked.
    pub(super) fn place_requests(&mut self, topic: usize, effects: &mut Effects<T>) {
        for id in self.requests_waiting(topic) {
            self.ask(id, effects);
        }
    }

    pub(super) fn fail_requests(&mut self, topic: usize, error: &Error, effects: &mut Effects<T>) {
        for id in self.requests_waiting(topic) {
            self.answer(id, Err(error.clone()), effects);
        }
    }

    /// Questions about a topic's partitions, and which.
    pub(super) fn requests_about(&self, topic: usize) -> Vec<(RequestId, u32)> {
        let partition = |asked: &Asked| match asked.request {
            AdminRequest::Offsets { partition, .. } if asked.waits_for == Some(topic) => {
                Some(partition)
            }
            _ => None,
        };
        self.requests.iter().filter_map(|(&id, asked)| Some((id, partition(asked)?))).collect()
    }

    /// Whatever broker it reaches does what is asked.
    pub(super) fn is_for_any_broker(&self, id: RequestId) -> bool {
        self.requests.get(&id).is_some_and(|asked| asked.waits_for.is_none())
    }

    fn requests_waiting(&self, topic: usize) -> Vec<RequestId> {
        let listed = |id: RequestId| {
            self.doors.iter().any(|door| door.asks.contains(&Ask::Admin(id)) || door.asks_for(id))
        };
        self.requests
            .iter()
            .filter(|(_, asked)| asked.waits_for == Some(topic) && asked.refusal.is_none())
            .map(|(&id, _)| id)
            .filter(|&id| !listed(id))
            .collect()
    }

    pub(super) fn encode_admin(
        &self,
        now: Now,
        correlation: u64,
        id: RequestId,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(asked) = self.requests.get(&id) else { return false };
        let remaining_ms = asked.deadline.since(now.monotonic) / MILLIS;
        let timeout_ms = remaining_ms.clamp(1, u64::from(u32::MAX)) as u32;
        match &asked.request {
            AdminRequest::CreateTopic { name, settings } => {
                TopicCreate { name: name.clone(), settings: *settings, timeout_ms }
                    .encode(correlation, out);
            }
            AdminRequest::ListTopics => {
                let after = asked.listed.last().map_or(String::new(), |last| last.name.clone());
                TopicList { after, count_max: 0 }.encode(correlation, out);
            }
            AdminRequest::DescribeTopic { name } => {
                TopicDescribe { name: name.clone() }.encode(correlation, out);
            }
            AdminRequest::DeleteTopic { name } => {
                TopicDelete { name: name.clone(), timeout_ms }.encode(correlation, out);
            }
            AdminRequest::AlterTopic { name, changes } => {
                TopicAlter { name: name.clone(), changes: *changes, timeout_ms }
                    .encode(correlation, out);
            }
            AdminRequest::Offsets { partition, at, .. } => {
                let queues = asked.waits_for.map(|topic| &self.topics[topic].queues);
                let Some(&queue) = queues.and_then(|queues| queues.get(*partition as usize)) else {
                    return false;
                };
                let timestamp = match at {
                    Position::Time(time) => Some(*time),
                    _ => None,
                };
                let partition = self.producer.queues[queue].id;
                Offsets { partitions: vec![OffsetsQuery { partition, timestamp }] }
                    .encode(correlation, out);
            }
            AdminRequest::Status { prefix } => {
                Status { prefix: prefix.clone() }.encode(correlation, out);
            }
            AdminRequest::Cluster => ClusterStatus.encode(correlation, out),
            AdminRequest::Operate { operation, check_only } => {
                let (operation, check_only) = (operation.clone(), *check_only);
                Operate { operation, check_only, timeout_ms }.encode(correlation, out);
            }
        }
        true
    }

    pub(super) fn on_admin_reply(
        &mut self,
        now: Now,
        door: usize,
        id: RequestId,
        (refusal, kind, control): (Option<Refusal>, FrameKind, &[u8]),
        effects: &mut Effects<T>,
    ) -> Result<(), Wrong> {
        let Some(asked) = self.requests.get_mut(&id) else { return Ok(()) };
        if let Some(refusal) = refusal {
            self.on_admin_refused(now, id, refusal, effects);
            return Ok(());
        }
        let read = read_answer(&asked.request, kind, control);
        match read {
            Ok(Answer::Reply(reply)) => {
                if let AdminReply::Created(info)
                | AdminReply::Altered(info)
                | AdminReply::Topic(info) = &reply
                {
                    self.learn_brokers(door, info);
                }
                if let AdminReply::Created(info) | AdminReply::Altered(info) = &reply {
                    // Whoever waits for this topic need not wait for its failure first, and new
                    // partitions take records.
                    if let Some(&topic) = self.topic_by_name.get(&*info.name) {
                        self.describe_topic(topic);
                    }
                }
                self.answer(id, Ok(reply), effects);
                Ok(())
            }
            Ok(Answer::Page { topics, more }) => {
                let progress = match (asked.listed.last(), topics.first()) {
                    (Some(last), Some(first)) => first.name > last.name,
                    _ => true,
                };
                let more = more && !topics.is_empty();
                if !progress || asked.listed.len() + topics.len() > TOPICS_LISTED_MAX {
                    let wrong = "an endless list";
                    self.answer(id, Err(Error::Protocol(wrong)), effects);
                    return Err(wrong);
                }
                asked.listed.extend(topics);
                if more {
                    self.ask(id, effects);
                } else {
                    let topics = std::mem::take(&mut asked.listed);
                    self.answer(id, Ok(AdminReply::Topics(topics)), effects);
                }
                Ok(())
            }
            Ok(Answer::Obstructed(obstacle)) => {
                self.answer(id, Err(Error::Obstructed(obstacle)), effects);
                Ok(())
            }
            Ok(Answer::Refused(code)) => {
                let refusal = Refusal { code, retry_after_ms: 0, message: Box::from("") };
                self.on_admin_refused(now, id, refusal, effects);
                Ok(())
            }
            Err(wrong) => {
                self.answer(id, Err(Error::Protocol(wrong)), effects);
                Err(wrong)
            }
        }
    }

    fn on_admin_refused(
        &mut self,
        now: Now,
        id: RequestId,
        refusal: Refusal,
        effects: &mut Effects<T>,
    ) {
        let Some(asked) = self.requests.get(&id) else { return };
        let Asked { deadline, redirects, waits_for, .. } = *asked;
        // A view of the metadata may lag behind the places that it told.
        let place_unknown =
            asked.waits_for.is_some() && is_place_unknown(refusal.code, self.cluster.is_known());
        let hint = refusal.hint_nanos();
        let mut wait = hint.max(RETRY_NANOS);
        if self.cluster.is_known() {
            wait = wait.max(self.redirect_nanos(redirects));
        }
        let at = now.monotonic.after(wait);
        // A broker that may be behind says so: the leader of the metadata knows.
        let is_behind =
            refusal.code == ErrorCode::UnknownTopic && hint > 0 && redirects < DENIALS_MAX;
        if (refusal.code.may_retry() || place_unknown || is_behind) && at < deadline {
            self.retries.insert((at, Retry::Request(id)));
            if let Some(asked) = self.requests.get_mut(&id) {
                asked.redirects = redirects.saturating_add(1);
                asked.refusal = Some(refusal.clone());
            }
            self.turn_address(now, &refusal, effects);
            match waits_for {
                Some(topic) if place_unknown => self.describe_topic(topic),
                Some(_) => {}
                // Another broker may know who decides.
                None => self.turn_guide(now),
            }
            return;
        }
        let Some(asked) = self.requests.get(&id) else { return };
        let error = match (&asked.request, refusal.code) {
            (
                AdminRequest::DescribeTopic { name }
                | AdminRequest::DeleteTopic { name }
                | AdminRequest::AlterTopic { name, .. },
                ErrorCode::UnknownTopic,
            ) => Error::UnknownTopic(name.as_str().into()),
            _ => Error::Refused(refusal),
        };
        self.answer(id, Err(error), effects);
    }

    pub(super) fn on_admin_retry(&mut self, id: RequestId, effects: &mut Effects<T>) {
        if let Some(asked) = self.requests.get_mut(&id)
            && asked.refusal.is_some()
        {
            asked.refusal = None;
            self.ask(id, effects);
        }
    }

    /// The connection of a request was lost, after it had `left` whole or before.
    pub(super) fn on_admin_lost(&mut self, id: RequestId, left: bool, effects: &mut Effects<T>) {
        let Some(asked) = self.requests.get(&id) else { return };
        if left && !asked.request.is_question() {
            self.answer(id, Err(Error::ConnectionLost), effects);
        } else {
            self.ask(id, effects);
        }
    }

    pub(super) fn on_timer_requests(&mut self, now: Now, effects: &mut Effects<T>) {
        let late: Vec<RequestId> = self
            .requests
            .iter()
            .filter(|(_, asked)| asked.deadline <= now.monotonic)
            .map(|(&id, _)| id)
            .collect();
        for id in late {
            let sent = self.doors.iter().any(|door| door.asks_for(id));
            let question = self.requests.get(&id).is_none_or(|asked| asked.request.is_question());
            let refusal = self.requests.get_mut(&id).and_then(|asked| asked.refusal.take());
            let connected = self.doors.iter().any(|door| door.is_open());
            let error = match refusal {
                Some(refusal) => Error::Refused(refusal),
                None if sent || connected => Error::DeadlineExceeded { sent: sent && !question },
                None => self.unreachable(),
            };
            self.answer(id, Err(error), effects);
        }
    }

    pub(super) fn next_wake_of_requests(&self) -> Option<Monotonic> {
        self.requests.values().map(|asked| asked.deadline).min()
    }

    fn answer(
        &mut self,
        id: RequestId,
        answer: Result<AdminReply, Error>,
        effects: &mut Effects<T>,
    ) {
        if self.requests.remove(&id).is_some() {
            effects.push(Effect::Answered { request: id, answer });
        }
    }
}

enum Answer {
    Reply(AdminReply),
    Page { topics: Vec<TopicSummary>, more: bool },
    Refused(ErrorCode),
    Obstructed(Obstacle),
}

fn read_answer(request: &AdminRequest, kind: FrameKind, control: &[u8]) -> Result<Answer, Wrong> {
    const MALFORMED: Wrong = "a malformed answer";
    let reply = match (request, kind) {
        (AdminRequest::CreateTopic { .. }, FrameKind::TopicCreateReply) => {
            let reply = TopicCreateReply::decode(control).map_err(|_| MALFORMED)?;
            AdminReply::Created(reply.topic)
        }
        (AdminRequest::DescribeTopic { .. }, FrameKind::TopicDescribeReply) => {
            AdminReply::Topic(super::wire::describe_reply(kind, control)?)
        }
        (AdminRequest::DeleteTopic { .. }, FrameKind::TopicDeleteReply) => {
            TopicDeleteReply::decode(control).map_err(|_| MALFORMED)?;
            AdminReply::Deleted
        }
        (AdminRequest::AlterTopic { .. }, FrameKind::TopicAlterReply) => {
            let reply = TopicAlterReply::decode(control).map_err(|_| MALFORMED)?;
            AdminReply::Altered(reply.topic)
        }
        (AdminRequest::ListTopics, FrameKind::TopicListReply) => {
            let reply = TopicListReply::decode(control).map_err(|_| MALFORMED)?;
            return Ok(Answer::Page { topics: reply.topics, more: reply.more });
        }
        (AdminRequest::Status { .. }, FrameKind::StatusReply) => {
            AdminReply::Status(StatusReply::decode(control).map_err(|_| MALFORMED)?)
        }
        (AdminRequest::Cluster, FrameKind::ClusterStatusReply) => {
            AdminReply::Cluster(ClusterStatusReply::decode(control).map_err(|_| MALFORMED)?)
        }
        (AdminRequest::Operate { check_only, .. }, FrameKind::OperateReply) => {
            match OperateReply::decode(control).map_err(|_| MALFORMED)?.result {
                Ok(version) if (version == 0) == *check_only => AdminReply::Operated(version),
                Ok(_) => return Err("an operation that was begun and only asked about"),
                Err(obstacle) => return Ok(Answer::Obstructed(obstacle)),
            }
        }
        (AdminRequest::Offsets { at, .. }, FrameKind::OffsetsReply) => {
            let answer = super::wire::offsets_reply(kind, control)?;
            if let Some(code) = answer.error {
                return Ok(Answer::Refused(code));
            }
            let found = match at {
                Position::Beginning => answer.log_start,
                Position::End => answer.committed_end,
                Position::Offset(offset) => *offset,
                Position::Time(_) => answer.offset_at.unwrap_or(answer.committed_end),
            };
            let (log_start, committed_end) = (answer.log_start, answer.committed_end);
            AdminReply::Offsets(PartitionOffsets { log_start, committed_end, found })
        }
        _ => return Err("an answer of the wrong kind"),
    };
    Ok(Answer::Reply(reply))
}
