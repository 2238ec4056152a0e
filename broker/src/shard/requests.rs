//! Frames to requests: each is read once, at this door, into types that are right.

use corelog_protocol::ErrorCode;
use corelog_protocol::frame::{FrameHeader, FrameKind};
use corelog_protocol::message::{
    ClusterStatus, Fetch, Hello, Offsets, Operate, Status, TopicAlter, TopicCreate, TopicDelete,
    TopicDescribe, TopicList,
};
use corelog_protocol::peer::PeerHello;
use corelog_protocol::produce::Produce;

use super::event::Conn;
use super::fetch::has_duplicates;
use super::lane::Origin;
use super::message::Refusal;
use super::receive::Flow;
use super::{Cx, Shard};
use crate::limits::REQUESTS_PER_SESSION_MAX;
use crate::memory::{Memory, Piece};
use crate::session::{Phase, Role};

/// Reads the control part, or answers that it is malformed.
macro_rules! read {
    ($shard:ident, $cx:ident, $conn:ident, $header:ident, $type:ty, $control:expr) => {
        match <$type>::decode($control) {
            Ok(request) => request,
            Err(error) => return $shard.on_malformed($cx, $conn, $header, error.reason),
        }
    };
}

impl Shard {
    /// A whole frame whose control part matches its checksum.
    pub(super) fn on_frame<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        header: &FrameHeader,
        frame: Piece,
    ) -> Flow {
        let Some(session) = self.sessions.answerable(conn) else { return Flow::Done };
        let role = session.role;
        if role != Role::Client {
            return self.on_frame_of_peer(cx, conn, role, header, frame);
        }
        let is_open = session.phase == Phase::Open;
        let requests = session.requests;
        let bytes = cx.memory.piece(frame);
        let control = &bytes[header.control_range()];
        if header.kind == FrameKind::Produce && is_open {
            let produce = read!(self, cx, conn, header, Produce, control);
            return self.on_produce(cx, conn, header, produce, frame);
        }
        if header.kind == FrameKind::PeerHello && !is_open && header.payload_len == 0 {
            let hello = read!(self, cx, conn, header, PeerHello, control);
            return self.on_peer_hello(cx, conn, header, &hello);
        }
        if (header.kind == FrameKind::Hello) == is_open {
            return self.on_untimely(cx, conn, header, is_open);
        }
        if header.kind.is_of_peers() {
            // Brokers say it to each other, and clients never.
            self.counters.frames_unsupported += 1;
            self.refuse_unsupported(cx, conn, header.correlation, header.kind.to_wire());
            return Flow::Done;
        }
        if header.payload_len > 0 {
            return self.on_malformed(cx, conn, header, "a payload where none belongs");
        }
        let origin = Origin::Conn { conn, correlation: header.correlation };
        let may_wait = requests < REQUESTS_PER_SESSION_MAX;
        match header.kind {
            FrameKind::Hello => {
                let hello = read!(self, cx, conn, header, Hello, control);
                return self.on_hello(cx, conn, header, &hello);
            }
            FrameKind::TopicList => {
                let list = read!(self, cx, conn, header, TopicList, control);
                self.on_topic_list(cx, conn, header.correlation, &list);
            }
            FrameKind::TopicDescribe => {
                let describe = read!(self, cx, conn, header, TopicDescribe, control);
                self.on_topic_describe(cx, conn, header.correlation, &describe);
            }
            _ if self.stopping.is_some() => {
                self.refuse(cx, origin, header.kind.to_wire(), super::replies::STOPPING);
            }
            _ if self.view.is_out() => {
                self.refuse(cx, origin, header.kind.to_wire(), super::metadata_keeper::REMOVED);
            }
            _ if !may_wait => self.refuse_overloaded(cx, conn, header),
            FrameKind::Fetch => {
                let fetch = read!(self, cx, conn, header, Fetch, control);
                if has_duplicates(&fetch) {
                    return self.on_malformed(cx, conn, header, "a partition named twice");
                }
                self.on_fetch_request(cx, conn, header, fetch);
            }
            FrameKind::Offsets => {
                let offsets = read!(self, cx, conn, header, Offsets, control);
                self.on_offsets_request(cx, conn, header, offsets.partitions);
            }
            FrameKind::TopicCreate => {
                let create = read!(self, cx, conn, header, TopicCreate, control);
                self.on_topic_create(cx, conn, header.correlation, create);
            }
            FrameKind::TopicDelete => {
                let delete = read!(self, cx, conn, header, TopicDelete, control);
                self.on_topic_delete(cx, conn, header.correlation, delete);
            }
            FrameKind::TopicAlter => {
                let alter = read!(self, cx, conn, header, TopicAlter, control);
                self.on_topic_alter(cx, conn, header.correlation, alter);
            }
            FrameKind::Status => {
                let status = read!(self, cx, conn, header, Status, control);
                self.on_status_request(cx, conn, header.correlation, status.prefix);
            }
            FrameKind::ClusterStatus => {
                let ClusterStatus = read!(self, cx, conn, header, ClusterStatus, control);
                self.on_cluster_status(cx, conn, header.correlation);
            }
            FrameKind::Operate => {
                let operate = read!(self, cx, conn, header, Operate, control);
                self.on_operate(cx, conn, header.correlation, operate);
            }
            // Answers are not for a broker to receive.
            FrameKind::HelloReply
            | FrameKind::Error
            | FrameKind::Produce
            | FrameKind::ProduceAck
            | FrameKind::FetchReply
            | FrameKind::OffsetsReply
            | FrameKind::TopicCreateReply
            | FrameKind::TopicListReply
            | FrameKind::TopicDescribeReply
            | FrameKind::TopicDeleteReply
            | FrameKind::TopicAlterReply
            | FrameKind::StatusReply
            | FrameKind::ClusterStatusReply
            | FrameKind::OperateReply
            | FrameKind::PeerHello
            | FrameKind::PeerHelloReply
            | FrameKind::PeerMetadata
            | FrameKind::PeerLane
            | FrameKind::PeerFence
            | FrameKind::PeerChange
            | FrameKind::PeerChangeReply
            | FrameKind::PeerSurvey
            | FrameKind::PeerSurveyReply => {
                return self.on_malformed(cx, conn, header, "an answer instead of a request");
            }
        }
        Flow::Done
    }

    /// A request before hello, or a second hello.
    fn on_untimely<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        header: &FrameHeader,
        is_open: bool,
    ) -> Flow {
        if is_open {
            return self.on_malformed(cx, conn, header, "a second hello");
        }
        let refusal = Refusal::new(ErrorCode::HelloRequired, "say hello first");
        self.refuse_conn(cx, conn, header.correlation, header.kind.to_wire(), refusal);
        self.close(cx, conn, true);
        Flow::Done
    }
}
