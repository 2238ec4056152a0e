//! What is said to another broker.

use corelog_protocol::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use corelog_protocol::ids::{BrokerId, ShardId};

use crate::limits::{FRAME_BYTES_HARD, PEER_SEND_BYTES_MAX, REPLICATION_FRAME_BYTES};
use crate::memory::{Memory, Piece};
use crate::shard::event::Conn;
use crate::shard::{Cx, Shard};

impl Shard {
    /// Sends a frame to a shard of another broker. The payload's slots are retained until it is sent. False: there is
    /// no link, or too much waits on it: the message is lost, as it may be on its way.
    ///
    /// # Panics
    /// If control and payload are longer than `FRAME_BYTES_HARD`.
    pub(in crate::shard) fn send_peer<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        to: BrokerId,
        shard: ShardId,
        kind: FrameKind,
        control: &[u8],
        payload: &[Piece],
    ) -> bool {
        let payload_bytes: usize = payload.iter().map(|piece| piece.len as usize).sum();
        assert!(control.len() + payload_bytes <= FRAME_BYTES_HARD, "{kind} is too long");
        let conn = self.peers.conn_to((to, shard));
        let Some(session) = conn.and_then(|conn| self.sessions.answerable(conn)) else {
            self.counters.peer_frames_lost += 1;
            return false;
        };
        if session.outgoing.pending_bytes() > PEER_SEND_BYTES_MAX {
            self.counters.peer_frames_lost += 1;
            return false;
        }
        let header = FrameHeader::new(kind, 0, control, payload_bytes);
        let head = session.outgoing.frame(cx.memory, header.payload_range().start);
        let (first, rest) = head.split_at_mut(FRAME_HEADER_BYTES);
        first.copy_from_slice(&header.encode());
        let (filled, padding) = rest.split_at_mut(control.len());
        filled.copy_from_slice(control);
        padding.fill(0);
        for &piece in payload {
            cx.memory.retain(piece.slot);
            session.outgoing.payload(cx.memory, piece);
        }
        if !session.is_dirty {
            session.is_dirty = true;
            self.dirty.extend(conn);
        }
        self.counters.peer_frames_out += 1;
        self.counters.frames_out += 1;
        true
    }

    /// Whether a payload of the greatest usual size can be sent there now without being refused.
    pub(in crate::shard) fn has_peer_room(&self, to: BrokerId, shard: ShardId) -> bool {
        let conn = self.peers.conn_to((to, shard));
        let session = conn.and_then(|conn| self.sessions.get(conn));
        session.is_some_and(|session| {
            session.outgoing.pending_bytes() + REPLICATION_FRAME_BYTES <= PEER_SEND_BYTES_MAX
        })
    }

    /// A frame that is whole already.
    pub(super) fn send_bytes<M: Memory>(&mut self, cx: &mut Cx<'_, M>, conn: Conn, frame: &[u8]) {
        let Some(session) = self.sessions.answerable(conn) else { return };
        session.outgoing.frame(cx.memory, frame.len()).copy_from_slice(frame);
        if !session.is_dirty {
            session.is_dirty = true;
            self.dirty.push(conn);
        }
        self.counters.frames_out += 1;
    }
}
