//! What other brokers say, handed on by its kind.

use corelog_protocol::frame::{FrameHeader, FrameKind};
use corelog_protocol::message::ErrorReply;
use corelog_protocol::peer::PeerHelloReply;

use super::dialing::is_answer;
use crate::memory::{Memory, Piece};
use crate::session::{Phase, Role};
use crate::shard::event::Conn;
use crate::shard::receive::Flow;
use crate::shard::{Cx, Shard};

impl Shard {
    /// A whole frame on a link between brokers, in either direction.
    pub(in crate::shard) fn on_frame_of_peer<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        role: Role,
        header: &FrameHeader,
        frame: Piece,
    ) -> Flow {
        match role {
            Role::Client => unreachable!("a client's frames are requests"),
            Role::Dialed { broker, shard } => {
                self.on_answer_of_peer(cx, conn, (broker, shard), header, frame);
                Flow::Done
            }
            Role::Peer { broker, shard } => {
                self.on_message_of_peer(cx, conn, (broker, shard), header, frame)
            }
        }
    }

    fn on_answer_of_peer<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        place: super::Place,
        header: &FrameHeader,
        frame: Piece,
    ) {
        let Some(session) = self.sessions.answerable(conn) else { return };
        let is_greeted = session.phase == Phase::Open;
        let control = &cx.memory.piece(frame)[header.control_range()];
        let reply = match header.kind {
            FrameKind::PeerHelloReply => PeerHelloReply::decode(control).ok(),
            _ => None,
        };
        let refusal = match header.kind {
            FrameKind::Error => ErrorReply::decode(control).ok(),
            _ => None,
        };
        match reply {
            Some(reply) if !is_greeted && header.payload_len == 0 => {
                self.on_peer_hello_reply(cx, conn, place, &reply);
            }
            // An older broker does not know a kind, and says so.
            _ if is_greeted && header.kind == FrameKind::Error => self.counters.peer_errors += 1,
            _ => {
                if is_answer(header.kind) {
                    self.counters.peer_errors += 1;
                    if let Some(error) = refusal {
                        self.on_hello_refused(cx, place.0, &error);
                    }
                } else {
                    self.counters.frames_malformed += 1;
                }
                self.close_refused(cx, conn, place);
            }
        }
    }

    fn on_message_of_peer<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        (from, shard): super::Place,
        header: &FrameHeader,
        frame: Piece,
    ) -> Flow {
        let payload = Piece {
            start: frame.start + header.payload_range().start as u32,
            len: header.payload_len,
            ..frame
        };
        let mut control = std::mem::take(&mut self.peers.control);
        control.clear();
        control.extend_from_slice(&cx.memory.piece(frame)[header.control_range()]);
        let mut is_known = true;
        let mut flow = Flow::Done;
        match header.kind {
            FrameKind::PeerLane => flow = self.on_peer_lane(cx, (from, shard), &control, payload),
            FrameKind::PeerMetadata => self.on_peer_metadata(cx, from, &control, payload),
            FrameKind::PeerFence => self.on_peer_fence(cx, from, &control),
            FrameKind::PeerChange => self.on_peer_change(cx, from, &control),
            FrameKind::PeerChangeReply => self.on_peer_change_reply(cx, from, &control),
            FrameKind::PeerSurvey => self.on_peer_survey(cx, from, &control),
            FrameKind::PeerSurveyReply => self.on_peer_survey_reply(cx, from, &control),
            // A broker that asks as clients do has lost its way.
            _ => is_known = false,
        }
        if !is_known {
            self.on_malformed(cx, conn, header, "not for a link between brokers");
            self.close(cx, conn, true);
        } else if flow == Flow::Done {
            self.counters.peer_frames_in += 1;
        }
        self.peers.control = control;
        flow
    }
}
