//! Topics: listed and described from the view, created, altered and deleted by shard 0. And what a new view
//! means for the partitions that are led here.

use std::sync::Arc;

use corelog_protocol::ErrorCode;
use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{ShardId, TopicId};
use corelog_protocol::message::{
    TOPIC_LIST_MAX, TopicAlter, TopicAlterReply, TopicCreate, TopicCreateReply, TopicDelete,
    TopicDeleteReply, TopicDescribe, TopicDescribeReply, TopicInfo, TopicList, TopicListReply,
    TopicSummary,
};

use super::effect::Effect;
use super::event::Conn;
use super::lane::Origin;
use super::message::{Answer, Change, Refusal, ShardMessage};
use super::places::{TOPIC_BYTES, replicas_of, replicas_of_new, reply_bytes, topic_info};
use super::replies::OVERLOADED;
use super::route::{Forward, ForwardKind, METADATA_LOST};
use super::{Cx, Shard};
use crate::limits::RETRY_AFTER_MS;
use crate::log::Retention;
use crate::memory::Memory;
use crate::metadata::topic::is_valid_name;
use crate::metadata::view::View;
use crate::metadata::{Topic, TopicChanges, TopicSettings};

impl Shard {
    pub(super) fn on_topic_create<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        correlation: u64,
        create: TopicCreate,
    ) {
        let kind = FrameKind::TopicCreate.to_wire();
        let settings = TopicSettings {
            partitions: create.settings.partitions,
            retention_ms: create.settings.retention_ms,
            retention_bytes: create.settings.retention_bytes,
        };
        let refusal = if !is_valid_name(&create.name) {
            Some(Refusal::new(ErrorCode::InvalidTopic, "1 to 249 of [a-zA-Z0-9._-]"))
        } else if !settings.is_valid() {
            Some(Refusal::new(ErrorCode::InvalidConfig, "a setting is out of its bounds"))
        } else if create.settings.replicas > 0
            && self.view.version() > 0
            && create.settings.replicas != replicas_of_new(&self.view)
        {
            Some(Refusal::new(ErrorCode::InvalidConfig, "topics have as many replicas as lanes do"))
        } else if self.view.topic(&create.name).is_some() {
            Some(Refusal::new(ErrorCode::TopicExists, "a topic of this name exists"))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return self.refuse_conn(cx, conn, correlation, kind, refusal);
        }
        let name: Box<str> = create.name.into();
        let change = Change::TopicCreate { name: name.clone(), settings };
        self.ask_change(cx, conn, ForwardKind::Create { conn, correlation, name }, change);
    }

    pub(super) fn on_topic_delete<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        correlation: u64,
        delete: TopicDelete,
    ) {
        let change = Change::TopicDelete { name: delete.name.into() };
        self.ask_change(cx, conn, ForwardKind::Delete { conn, correlation }, change);
    }

    pub(super) fn on_topic_alter<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        correlation: u64,
        alter: TopicAlter,
    ) {
        let changes = TopicChanges {
            partitions: alter.changes.partitions,
            retention_ms: alter.changes.retention_ms,
            retention_bytes: alter.changes.retention_bytes,
        };
        let name: Box<str> = alter.name.into();
        let change = Change::TopicAlter { name: name.clone(), changes };
        self.ask_change(cx, conn, ForwardKind::Alter { conn, correlation, name }, change);
    }

    /// Asks shard 0, which may be this one: then the question is kept all the same, and answered
    /// without a message.
    pub(super) fn ask_change<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        kind: ForwardKind,
        change: Change,
    ) {
        if let Some(session) = self.sessions.answerable(conn) {
            session.requests += 1;
        }
        let shard = ShardId(0);
        let (correlation, kind_number) = match &kind {
            ForwardKind::Create { correlation, .. } => (*correlation, FrameKind::TopicCreate),
            ForwardKind::Delete { correlation, .. } => (*correlation, FrameKind::TopicDelete),
            ForwardKind::Alter { correlation, .. } => (*correlation, FrameKind::TopicAlter),
            ForwardKind::Operate { correlation, .. } => (*correlation, FrameKind::Operate),
            kind => unreachable!("{kind:?} is no change"),
        };
        let kind_number = kind_number.to_wire();
        let forward = Forward { shard, kind, held_bytes: 512 };
        if self.config.shard == shard {
            self.held_bytes += forward.held_bytes;
            let id = self.forwards.insert(forward);
            return self.on_change(cx, Origin::Gather(id), change);
        }
        let message = |token| ShardMessage::Change { token, change };
        if self.forward(cx, forward, message).is_none() {
            self.end_request(conn);
            self.refuse_conn(cx, conn, correlation, kind_number, OVERLOADED);
        }
    }

    /// A change that was asked for on shard 0 itself is answered.
    pub(super) fn on_own_change<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        origin: Origin,
        answer: Answer,
    ) {
        if let Origin::Gather(id) = origin {
            self.on_answer(cx, super::message::Token(id.pack()), answer);
        }
    }

    pub(super) fn on_created<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        correlation: u64,
        name: &str,
        answer: Answer,
    ) {
        match self.changed_topic(name, answer, "created, and deleted meanwhile") {
            Ok(topic) => self.send_message(cx, conn, correlation, &TopicCreateReply { topic }),
            Err(refusal) => {
                let kind = FrameKind::TopicCreate.to_wire();
                self.refuse_conn(cx, conn, correlation, kind, refusal);
            }
        }
    }

    pub(super) fn on_altered<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        correlation: u64,
        name: &str,
        answer: Answer,
    ) {
        match self.changed_topic(name, answer, "altered, and deleted meanwhile") {
            Ok(topic) => self.send_message(cx, conn, correlation, &TopicAlterReply { topic }),
            Err(refusal) => {
                let kind = FrameKind::TopicAlter.to_wire();
                self.refuse_conn(cx, conn, correlation, kind, refusal);
            }
        }
    }

    /// The topic as it is after a change, unless someone has deleted it before the answer.
    fn changed_topic(
        &self,
        name: &str,
        answer: Answer,
        meanwhile: &'static str,
    ) -> Result<TopicInfo, Refusal> {
        match answer {
            Answer::Changed(id) => match self.view.topic(name) {
                Some(topic) if topic.id == id => Ok(self.topic_info(topic)),
                _ => Err(Refusal::new(ErrorCode::UnknownTopic, meanwhile)),
            },
            Answer::Refused(refusal) => Err(refusal),
            answer => unreachable!("a change of a topic was answered with {answer:?}"),
        }
    }

    pub(super) fn on_deleted<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        correlation: u64,
        id: TopicId,
    ) {
        self.send_message(cx, conn, correlation, &TopicDeleteReply { id });
    }

    pub(super) fn on_topic_list<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        correlation: u64,
        list: &TopicList,
    ) {
        let most = match list.count_max as usize {
            0 => TOPIC_LIST_MAX,
            count => count.min(TOPIC_LIST_MAX),
        };
        // Names are up to 249 bytes: what fits the frame cap is counted as if all were.
        let fits = (self.config.frame_bytes_max / TOPIC_BYTES).max(1);
        let count = self.view.state().topics().size().min(most).min(fits);
        if !self.can_hold(cx.memory, count * TOPIC_BYTES) {
            let kind = FrameKind::TopicList.to_wire();
            return self.refuse_conn(cx, conn, correlation, kind, OVERLOADED);
        }
        let mut after = self.view.state().topics_after(&list.after);
        let summary = |topic: &Arc<Topic>| TopicSummary {
            id: topic.id,
            name: topic.name.to_string(),
            partitions: topic.settings.partitions,
            replicas: replicas_of(&self.view, topic),
        };
        let topics = after.by_ref().take(most.min(fits)).map(summary).collect();
        let reply = TopicListReply { topics, more: after.next().is_some() };
        drop(after);
        self.send_message(cx, conn, correlation, &reply);
    }

    pub(super) fn on_topic_describe<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        correlation: u64,
        describe: &TopicDescribe,
    ) {
        let refusal = match self.view.topic(&describe.name) {
            Some(topic) => {
                if self.can_hold(cx.memory, reply_bytes(&self.view, topic)) {
                    let reply = TopicDescribeReply { topic: self.topic_info(topic) };
                    return self.send_message(cx, conn, correlation, &reply);
                }
                OVERLOADED
            }
            None if self.view.is_lost() => METADATA_LOST,
            None if !self.is_view_of_this_life() => super::replies::RECOVERING,
            None => Refusal {
                code: ErrorCode::UnknownTopic,
                // Who does not lead the metadata may be behind: a reason to ask others before it is believed.
                retry_after_ms: match self.config.is_clustered() && !self.is_leading_metadata() {
                    true => RETRY_AFTER_MS,
                    false => 0,
                },
                message: "no topic of this name",
            },
        };
        let kind = FrameKind::TopicDescribe.to_wire();
        self.refuse_conn(cx, conn, correlation, kind, refusal);
    }

    fn topic_info(&self, topic: &Topic) -> TopicInfo {
        let epoch_here =
            |lane| self.lane_index(lane).map(|at| self.lanes[usize::from(at)].log.epoch());
        topic_info(&self.view, topic, self.config.shards, epoch_here)
    }

    /// Whether the view has everything that was decided before this broker started. It learns so from the record that it
    /// made of itself: before that, what it does not know may well be there.
    fn is_view_of_this_life(&self) -> bool {
        if !self.config.is_clustered() {
            return self.view.version() > 0;
        }
        let own = self.view.broker(self.config.broker);
        own.is_some_and(|record| record.life == self.config.life)
    }

    /// A new view is in force here from now on: partitions come and go.
    pub(super) fn on_view<M: Memory>(&mut self, cx: &mut Cx<'_, M>, view: Arc<View>) {
        let version = view.version();
        let is_first = !self.has_view;
        let is_news = view.is_lost() || view.is_out() && !self.view.is_out();
        if !is_first && version <= self.view.version() && !is_news {
            return;
        }
        self.counters.views_applied += 1;
        self.has_view = true;
        let old = std::mem::replace(&mut self.view, view);
        if version > 0 && self.lanes_are_due() {
            self.make_lanes(cx);
        } else if version > 0 {
            self.adopt_lanes(cx);
        }
        let new = Arc::clone(&self.view);
        let lanes = new.lanes_changed_since(&old);
        for id in new.changed_since(&old) {
            match (old.state().topic_with_id(id), new.state().topic_with_id(id)) {
                (Some(was), None) => self.close_partitions(was),
                // What did not change is shared between the versions.
                (Some(was), Some(is)) if Arc::ptr_eq(was, is) => {}
                (_, Some(is)) => self.open_partitions(is),
                (None, None) => {}
            }
        }
        self.see_lanes(cx, &lanes);
        if new.is_out() && !old.is_out() {
            self.is_turning_away = true;
        }
        if self.config.shard != ShardId(0) {
            let message = Box::new(ShardMessage::ViewApplied { version });
            cx.effects.push(Effect::Tell { to: ShardId(0), message });
        }
    }

    /// Serves the partitions that are new here, and tells the lanes the settings of all.
    fn open_partitions(&mut self, topic: &Topic) {
        let retention = retention_of(topic);
        for (partition, link) in topic.partitions() {
            if let Some(lane) = self.lane_index(link.lane) {
                if self.partitions.get(partition).is_none() {
                    self.partitions.insert(partition, lane);
                }
                self.lanes[usize::from(lane)].log.open_partition(partition, retention);
            }
        }
    }

    fn close_partitions(&mut self, topic: &Topic) {
        for (partition, _) in topic.partitions() {
            let Some(closed) = self.partitions.remove(partition) else { continue };
            self.lanes[usize::from(closed.lane)].log.delete_partition(partition);
            // Whoever waits for its records is told that there is no such partition.
            self.hurry_waiters(closed.waiters);
        }
    }
}

/// What a lane's log has to know of a topic's settings.
pub(super) fn retention_of(topic: &Topic) -> Retention {
    Retention { age_ms: topic.settings.retention_ms, bytes: topic.settings.retention_bytes }
}
