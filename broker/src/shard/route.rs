//! Requests that came to the wrong shard: passed on, counted, and answered when the right one has.

use corelog_protocol::ErrorCode;
use corelog_protocol::frame::{FrameHeader, FrameKind};
use corelog_protocol::ids::{PartitionId, ShardId};
use corelog_protocol::produce::Produce;

use super::batch::CheckedBatch;
use super::effect::Effect;
use super::event::Conn;
use super::jobs::JobId;
use super::lane::{LaneState, Origin};
use super::message::{Answer, Refusal, ShardMessage, Token};
use super::replies::{OVERLOADED, RECOVERING};
use super::{Cx, Shard};
use crate::limits::FORWARDS_MAX;
use crate::memory::{Memory, Piece};

/// A question to another shard that has not been answered yet.
#[derive(Debug)]
pub(super) struct Forward {
    pub shard: ShardId,
    pub kind: ForwardKind,
    /// Heap bytes that are on their way.
    pub held_bytes: usize,
}

#[derive(Debug)]
pub(super) enum ForwardKind {
    Produce {
        conn: Conn,
        correlation: u64,
    },
    Create {
        conn: Conn,
        correlation: u64,
        name: Box<str>,
    },
    Alter {
        conn: Conn,
        correlation: u64,
        name: Box<str>,
    },
    Delete {
        conn: Conn,
        correlation: u64,
    },
    Operate {
        conn: Conn,
        correlation: u64,
    },
    Cluster {
        conn: Conn,
        correlation: u64,
    },
    /// Part of a request with parts on several shards: the places of its items in the request.
    Part {
        gather: JobId,
        places: Vec<u16>,
    },
}

impl Shard {
    /// Which other shard serves a partition that is not served here.
    pub(super) fn home_elsewhere(&self, partition: PartitionId) -> Result<ShardId, Refusal> {
        match self.view.home(partition, self.config.shards) {
            Some(home) if home.broker != Some(self.view.me()) => Err(LED_ELSEWHERE),
            Some(home) if home.shard != self.config.shard => Ok(home.shard),
            _ => Err(self.unknown_partition(partition)),
        }
    }

    /// Why a partition that is not in the table cannot be served.
    pub(super) fn unknown_partition(&self, partition: PartitionId) -> Refusal {
        if self.view.is_lost() {
            return METADATA_LOST;
        }
        // In the view but not in the table: the view came before the lanes were made.
        if self.view.version() == 0 || self.view.home(partition, self.config.shards).is_some() {
            return RECOVERING;
        }
        Refusal::new(ErrorCode::UnknownPartition, "no such partition")
    }

    /// Asks another shard. `None`: too many questions are open.
    pub(super) fn forward<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        forward: Forward,
        message: impl FnOnce(Token) -> ShardMessage,
    ) -> Option<Token> {
        if self.forwards.len() >= FORWARDS_MAX {
            return None;
        }
        self.held_bytes += forward.held_bytes;
        let to = forward.shard;
        assert!(to != self.config.shard, "a shard asks itself nothing");
        let token = Token(self.forwards.insert(forward).pack());
        cx.effects.push(Effect::Tell { to, message: Box::new(message(token)) });
        Some(token)
    }

    #[expect(clippy::too_many_arguments, reason = "the request, in its parts")]
    pub(super) fn forward_produce<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        shard: ShardId,
        conn: Conn,
        header: &FrameHeader,
        produce: Produce,
        checked: CheckedBatch,
        batch: Piece,
    ) {
        let correlation = header.correlation;
        let held_bytes = batch.len as usize;
        if self.can_hold(cx.memory, held_bytes) {
            let bytes = cx.memory.piece(batch).to_vec();
            let kind = ForwardKind::Produce { conn, correlation };
            let forward = Forward { shard, kind, held_bytes };
            let message = |token| ShardMessage::Produce { token, produce, checked, batch: bytes };
            if self.forward(cx, forward, message).is_some() {
                self.counters.requests_forwarded += 1;
                return;
            }
        }
        self.refuse_conn(cx, conn, correlation, header.kind.to_wire(), OVERLOADED);
    }

    pub(super) fn on_told<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        from: ShardId,
        message: ShardMessage,
    ) {
        let origin = |token| Origin::Shard { shard: from, token };
        match message {
            ShardMessage::View(view) => self.on_view(cx, view),
            ShardMessage::ViewApplied { version } => self.on_view_applied(cx, from, version),
            ShardMessage::Produce { token, produce, checked, batch } => {
                self.on_forwarded_produce(cx, origin(token), produce, checked, &batch);
            }
            ShardMessage::Fetch { token, fetch } => self.on_forwarded_fetch(cx, from, token, fetch),
            ShardMessage::FetchHurry { token } => {
                if let Some(&id) = self.adopted_fetches.get(&(from.0, token)) {
                    self.hurry_fetch(id);
                }
            }
            ShardMessage::PayloadTaken { bytes } => self.held_bytes -= bytes,
            ShardMessage::Offsets { token, queries } => {
                self.counters.requests_adopted += 1;
                self.start_offsets(cx, origin(token), queries);
            }
            ShardMessage::Change { token, change } => {
                self.counters.requests_adopted += 1;
                self.on_change(cx, origin(token), change);
            }
            ShardMessage::Status { token } => {
                let values = self.counter_values(cx);
                self.answer(cx, origin(token), Answer::Counters(values));
            }
            ShardMessage::Cluster { token } => {
                self.counters.requests_adopted += 1;
                self.survey_cluster(cx, origin(token));
            }
            ShardMessage::LaneReport(report) => self.report_lane(cx, report),
            ShardMessage::Answer { token, answer } => {
                if let Answer::Fetched { payload, .. } = &answer
                    && !payload.is_empty()
                {
                    let message = Box::new(ShardMessage::PayloadTaken { bytes: payload.len() });
                    cx.effects.push(Effect::Tell { to: from, message });
                }
                self.on_answer(cx, token, answer);
            }
            ShardMessage::DirectoryFailed { directory } => self.fail_directory(directory),
        }
    }

    pub(super) fn on_answer<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        token: Token,
        answer: Answer,
    ) {
        let Some(forward) = self.forwards.remove(JobId::unpack(token.0)) else { return };
        self.held_bytes -= forward.held_bytes;
        match (forward.kind, answer) {
            (ForwardKind::Produce { conn, correlation }, Answer::Produced(ack)) => {
                self.ack(cx, Origin::Conn { conn, correlation }, &ack);
            }
            (ForwardKind::Produce { .. }, Answer::Nothing) => {}
            (ForwardKind::Produce { conn, correlation }, Answer::Refused(refusal)) => {
                let kind = FrameKind::Produce.to_wire();
                self.refuse_conn(cx, conn, correlation, kind, refusal);
            }
            (ForwardKind::Create { conn, correlation, name }, answer) => {
                self.end_request(conn);
                self.on_created(cx, conn, correlation, &name, answer);
            }
            (ForwardKind::Alter { conn, correlation, name }, answer) => {
                self.end_request(conn);
                self.on_altered(cx, conn, correlation, &name, answer);
            }
            (ForwardKind::Delete { conn, correlation }, Answer::Changed(id)) => {
                self.end_request(conn);
                self.on_deleted(cx, conn, correlation, id);
            }
            (ForwardKind::Delete { conn, correlation }, Answer::Refused(refusal)) => {
                self.end_request(conn);
                let kind = FrameKind::TopicDelete.to_wire();
                self.refuse_conn(cx, conn, correlation, kind, refusal);
            }
            (ForwardKind::Operate { conn, correlation }, answer) => {
                self.end_request(conn);
                self.on_operated(cx, conn, correlation, answer);
            }
            (ForwardKind::Cluster { conn, correlation }, answer) => {
                self.end_request(conn);
                self.on_cluster_told(cx, conn, correlation, answer);
            }
            (ForwardKind::Part { gather, places }, answer) => {
                self.gather_answer(cx, gather, forward.shard, token, &places, answer);
            }
            (kind, answer) => unreachable!("{kind:?} answered with {answer:?}"),
        }
    }

    /// One of the connection's requests that may take long is answered.
    pub(super) fn end_request(&mut self, conn: Conn) {
        if let Some(session) = self.sessions.answerable(conn) {
            session.requests -= 1;
        }
    }

    /// The disk is failed: every lane in this directory is.
    pub(super) fn fail_directory(&mut self, directory: crate::disk::DirectoryId) {
        for lane in &mut self.lanes {
            if lane.log.config().directory == directory
                && matches!(lane.state, LaneState::Serving | LaneState::Recovering)
            {
                lane.log.fail();
            }
        }
    }
}

pub(super) const METADATA_LOST: Refusal =
    Refusal::new(ErrorCode::StorageUnavailable, "the metadata of this broker cannot be read");

/// Nothing was appended: another broker leads, or soon will.
pub(super) const LED_ELSEWHERE: Refusal = Refusal {
    code: ErrorCode::NotLeader,
    retry_after_ms: crate::limits::RETRY_AFTER_MS,
    message: "the partition is not led here",
};
