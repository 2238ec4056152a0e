//! Answers, to whoever asked: a connection, another shard, or a request of this shard that has
//! parts on several.

use corelog_protocol::ErrorCode;
use corelog_protocol::frame::FrameHeader;
use corelog_protocol::message::{ErrorReply, Message, PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN};
use corelog_protocol::produce::ProduceAck;

use super::effect::Effect;
use super::event::Conn;
use super::lane::Origin;
use super::message::{Answer, Refusal, ShardMessage};
use super::{Cx, Shard};
use crate::limits::RETRY_AFTER_MS;
use crate::memory::{Memory, Piece};
use crate::planted::{Bug, is_planted};

pub(super) const OVERLOADED: Refusal = Refusal {
    code: ErrorCode::Overloaded,
    retry_after_ms: RETRY_AFTER_MS,
    message: "the shard's memory budget is used up",
};

pub(super) const STOPPING: Refusal =
    Refusal { code: ErrorCode::Stopping, retry_after_ms: 1_000, message: "the broker is stopping" };

pub(super) const RECOVERING: Refusal = Refusal {
    code: ErrorCode::Recovering,
    retry_after_ms: RETRY_AFTER_MS,
    message: "the lane is being recovered",
};

impl Shard {
    /// The ack of a batch.
    #[inline]
    pub(super) fn ack<M: Memory>(&mut self, cx: &mut Cx<'_, M>, origin: Origin, ack: &ProduceAck) {
        match origin {
            Origin::Nobody => {}
            Origin::Conn { conn, correlation } => {
                let Some(session) = self.sessions.answerable(conn) else { return };
                let frame = session.outgoing.frame(cx.memory, ProduceAck::FRAME_BYTES);
                frame.copy_from_slice(&ack.encode_frame(correlation));
                if !session.is_dirty {
                    session.is_dirty = true;
                    self.dirty.push(conn);
                }
                self.counters.acks_out += 1;
                self.counters.frames_out += 1;
            }
            Origin::Shard { .. } => self.answer(cx, origin, Answer::Produced(*ack)),
            Origin::Gather(_) => unreachable!("a batch has one partition"),
        }
    }

    /// Tells whoever asked that it will not be done.
    pub(super) fn refuse<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        origin: Origin,
        kind: u8,
        refusal: Refusal,
    ) {
        match origin {
            Origin::Conn { conn, correlation } => {
                self.refuse_conn(cx, conn, correlation, kind, refusal);
            }
            Origin::Nobody => {}
            Origin::Shard { .. } | Origin::Gather(_) => {
                self.answer(cx, origin, Answer::Refused(refusal));
            }
        }
    }

    /// An answer to another shard.
    pub(super) fn answer<M: Memory>(&mut self, cx: &mut Cx<'_, M>, origin: Origin, answer: Answer) {
        if let Origin::Shard { shard, token } = origin {
            let message = Box::new(ShardMessage::Answer { token, answer });
            cx.effects.push(Effect::Tell { to: shard, message });
        }
    }

    pub(super) fn refuse_conn<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        correlation: u64,
        kind: u8,
        refusal: Refusal,
    ) {
        if refusal.code == ErrorCode::Overloaded {
            self.counters.requests_overloaded += 1;
            if is_planted(Bug::RefusalDropped) {
                return;
            }
        }
        let mut error = ErrorReply::new(refusal.code, kind, refusal.message);
        error.retry_after_ms = refusal.retry_after_ms;
        self.send_error(cx, conn, correlation, &error);
    }

    pub(super) fn refuse_overloaded<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        header: &FrameHeader,
    ) {
        self.refuse_conn(cx, conn, header.correlation, header.kind.to_wire(), OVERLOADED);
    }

    pub(super) fn refuse_unsupported<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        correlation: u64,
        kind: u8,
    ) {
        let mut error = ErrorReply::new(ErrorCode::Unsupported, kind, "not known to this broker");
        error.versions = (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX);
        self.send_error(cx, conn, correlation, &error);
    }

    fn send_error<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        correlation: u64,
        error: &ErrorReply,
    ) {
        self.counters.errors_out += 1;
        self.send_message(cx, conn, correlation, error);
    }

    /// A message that is all control.
    pub(super) fn send_message<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        correlation: u64,
        message: &impl Message,
    ) {
        self.send_with_payload(cx, conn, correlation, message, &mut Vec::new());
    }

    /// A message and the pieces of its payload, whose references are taken over.
    pub(super) fn send_with_payload<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        correlation: u64,
        message: &impl Message,
        pieces: &mut Vec<Piece>,
    ) {
        let Some(session) = self.sessions.answerable(conn) else {
            for piece in pieces.drain(..) {
                cx.memory.release(piece.slot);
            }
            return;
        };
        let bytes = self.encoder.encode(message, correlation);
        session.outgoing.frame(cx.memory, bytes.len()).copy_from_slice(bytes);
        for piece in pieces.drain(..) {
            session.outgoing.payload(cx.memory, piece);
        }
        if !session.is_dirty {
            session.is_dirty = true;
            self.dirty.push(conn);
        }
        self.counters.frames_out += 1;
    }
}
