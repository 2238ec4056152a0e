//! Bytes to frames. Whole frames are taken where they lie; the rest waits in the session's own
//! slot. A session that must wait is not read from: its peer feels it as TCP back-pressure.

use corelog_protocol::ErrorCode;
use corelog_protocol::frame::{FrameError, FrameHeader, UnsupportedFrame};

use super::event::{Conn, Peer};
use super::message::Refusal;
use super::{Cx, Shard};
use crate::limits::{
    FRAME_BYTES_HARD, FRAME_BYTES_PRE_HELLO, FRAMES_MALFORMED_MAX, FRAMES_UNSUPPORTED_MAX,
    PEER_CONNECTIONS_RESERVED, RECEIVE_BYTES, SEND_BYTES_MAX, SEND_BYTES_SHORT,
    SESSION_QUANTUM_BYTES,
};
use crate::memory::{Memory, Piece};
use crate::planted::{Bug, is_planted};
use crate::session::{Phase, Reading, Role, Session, Wait};
use crate::shard::effect::Effect;

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flow {
    /// Used up: answered, or under way.
    Done,
    /// Not touched: the same frame comes again when the wait is over.
    Wait(Wait),
}

/// Why the work on a session's bytes ended.
enum Stop {
    /// All used up.
    Empty,
    /// Part of a frame of this many bytes is left.
    Partial(usize),
    Waiting(Wait),
    Closed,
}

impl Shard {
    pub(super) fn on_opened<M: Memory>(&mut self, cx: &mut Cx<'_, M>, conn: Conn, peer: Peer) {
        // Clients must not keep other brokers out: from their hosts a few more may say who they are.
        let reserved = match self.is_host_of_broker(peer) {
            true => PEER_CONNECTIONS_RESERVED,
            false => 0,
        };
        let is_full = self.is_full_of_clients(peer, reserved);
        if is_full || self.stopping.is_some() {
            self.counters.connections_refused += 1;
            cx.effects.push(Effect::Close { conn, after_sends: false });
            return;
        }
        self.counters.connections_opened += 1;
        self.sessions.insert(Session::new(conn, peer));
        self.order_receive(cx, conn, None);
        self.watch(conn);
    }

    pub(super) fn on_closed<M: Memory>(&mut self, cx: &mut Cx<'_, M>, conn: Conn) {
        let Some(mut session) = self.sessions.remove(conn) else { return };
        self.counters.connections_closed += 1;
        if !is_planted(Bug::SlotLeaked) {
            session.incoming.release(cx.memory);
        }
        session.outgoing.release(cx.memory);
        self.on_peer_closed(cx, conn, session.role);
        self.abandon_requests(cx, session.fetches, session.gathers);
    }

    /// Whether there are as many clients as there may be, and `reserved` more.
    pub(super) fn is_full_of_clients(&self, peer: Peer, reserved: u32) -> bool {
        let (all, from) = (self.sessions.client_count(), self.sessions.count_from(peer));
        let config = &self.config;
        all >= config.connections_max.saturating_add(reserved)
            || from >= config.connections_per_address_max.saturating_add(reserved)
    }

    pub(super) fn on_sent<M: Memory>(&mut self, _cx: &mut Cx<'_, M>, conn: Conn) {
        let Some(session) = self.sessions.get_mut(conn) else { return };
        session.outgoing.sent();
        session.ticks_send = 0;
        if session.wait == Wait::Sends && session.outgoing.pending_bytes() <= SEND_BYTES_MAX / 2 {
            session.wait = Wait::Turn;
            self.sessions_ready.push_back(conn);
        }
    }

    pub(super) fn on_received<M: Memory>(&mut self, cx: &mut Cx<'_, M>, conn: Conn, piece: Piece) {
        let Some(session) = self.sessions.get_mut(conn) else { return };
        self.counters.bytes_in += u64::from(piece.len);
        let now = cx.now.monotonic;
        let incoming = &mut session.incoming;
        if incoming.held_bytes() == 0 && incoming.skip == 0 {
            incoming.first_byte_at = now;
        }
        incoming.last_byte_at = now;
        incoming.last_bytes = piece.len as usize;
        session.bytes_since_tick += u64::from(piece.len);
        if incoming.is_own(piece) {
            incoming.received_own(piece);
            session.reading = Reading::Paused;
        }
        if session.phase == Phase::Closing {
            return;
        }
        let own = session.incoming.is_own(piece);
        if session.wait != Wait::No {
            // Was under way when the pause was ordered.
            if !own {
                session.incoming.hold(cx.memory, piece);
            }
            return;
        }
        session.credit = RECEIVE_BYTES as i64;
        if own {
            self.work_on_held(cx, conn);
        } else if session.incoming.held_bytes() > 0 {
            session.incoming.hold(cx.memory, piece);
            self.work_on_held(cx, conn);
        } else {
            let (used, stop) = self.work(cx, conn, piece);
            let rest = piece.len as usize - used;
            if let Some(session) = self.sessions.get_mut(conn)
                && rest > 0
                && session.phase != Phase::Closing
            {
                let start = piece.start as usize + used;
                session.incoming.hold(cx.memory, Piece::new(piece.slot, start, rest));
            }
            self.after_work(cx, conn, stop);
        }
    }

    /// Goes on with what a session has in its own slot.
    pub(super) fn work_on_held<M: Memory>(&mut self, cx: &mut Cx<'_, M>, conn: Conn) {
        let Some(session) = self.sessions.get(conn) else { return };
        let Some(piece) = session.incoming.held() else {
            return self.after_work(cx, conn, Stop::Empty);
        };
        let (used, stop) = self.work(cx, conn, piece);
        if let Some(session) = self.sessions.get_mut(conn) {
            session.incoming.use_up(cx.memory, used);
        }
        self.after_work(cx, conn, stop);
    }

    /// Takes frames from the start of `piece` until something is in the way. Returns how many
    /// bytes were used up.
    fn work<M: Memory>(&mut self, cx: &mut Cx<'_, M>, conn: Conn, piece: Piece) -> (usize, Stop) {
        let len = piece.len as usize;
        let mut used = 0;
        loop {
            let is_roomy = self.can_hold(cx.memory, 0);
            let Some(session) = self.sessions.answerable(conn) else { return (used, Stop::Closed) };
            if session.incoming.skip > 0 {
                let skipped = session.incoming.skip.min((len - used) as u64);
                session.incoming.skip -= skipped;
                used += skipped as usize;
            }
            if used == len {
                return (used, Stop::Empty);
            }
            if session.credit <= 0 {
                return (used, Stop::Waiting(Wait::Turn));
            }
            // When memory is short, who does not read what it was sent is not sent more.
            let pending_max = if is_roomy { SEND_BYTES_MAX } else { SEND_BYTES_SHORT };
            if session.outgoing.pending_bytes() > pending_max {
                return (used, Stop::Waiting(Wait::Sends));
            }
            let role = session.role;
            let cap = match (session.phase, role) {
                (Phase::BeforeHello, _) | (_, Role::Dialed { .. }) => FRAME_BYTES_PRE_HELLO,
                (_, Role::Client) => self.config.frame_bytes_max,
                (_, Role::Peer { .. }) => FRAME_BYTES_HARD,
            };
            let frame = Piece::new(piece.slot, piece.start as usize + used, len - used);
            let bytes = cx.memory.piece(frame);
            let header = match FrameHeader::decode(bytes, cap as u32) {
                Ok(header) => header,
                Err(FrameError::Incomplete { need, .. }) => {
                    return (used, Stop::Partial(need as usize));
                }
                Err(error) => {
                    used += self.on_bad_frame(cx, conn, error, len - used);
                    continue;
                }
            };
            let frame_bytes = header.frame_bytes();
            if frame_bytes > len - used {
                let granted = session.incoming.grant(len - used, frame_bytes);
                // Other brokers are few, and what they send may be what frees memory: they are not refused.
                if role == Role::Client && !self.can_hold(cx.memory, granted) {
                    // It cannot be kept until it is whole: refused now, and the rest dropped.
                    let session = self.sessions.answerable(conn).expect("looked up above");
                    session.incoming.skip = (frame_bytes - (len - used)) as u64;
                    self.refuse_overloaded(cx, conn, &header);
                    return (len, Stop::Empty);
                }
                return (used, Stop::Partial(frame_bytes));
            }
            if let Err(error) = header.control(bytes) {
                used += self.on_bad_frame(cx, conn, error, len - used);
                continue;
            }
            session.incoming.frame_is_whole(frame_bytes);
            let frame = Piece { len: frame_bytes as u32, ..frame };
            match self.on_frame(cx, conn, &header, frame) {
                Flow::Done => {
                    self.counters.frames_in += 1;
                    used += frame_bytes;
                    if let Some(session) = self.sessions.get_mut(conn) {
                        session.credit -= frame_bytes as i64;
                        session.ticks_frame = 0;
                        session.incoming.first_byte_at = session.incoming.last_byte_at;
                    }
                }
                Flow::Wait(wait) => return (used, Stop::Waiting(wait)),
            }
        }
    }

    /// Says where to read next, or not to.
    fn after_work<M: Memory>(&mut self, cx: &mut Cx<'_, M>, conn: Conn, stop: Stop) {
        let is_roomy = self.can_hold(cx.memory, self.config.memory_bytes / 4);
        let Some(session) = self.sessions.answerable(conn) else { return };
        match stop {
            Stop::Closed => {}
            Stop::Empty => {
                session.wait = Wait::No;
                self.order_receive(cx, conn, None);
                let session = self.sessions.get(conn).expect("looked up above");
                if session.incoming.skip > 0 {
                    self.watch(conn);
                }
            }
            Stop::Partial(frame_bytes) => {
                session.wait = Wait::No;
                let target = session.incoming.target(cx.memory, frame_bytes, is_roomy);
                self.order_receive(cx, conn, Some(target));
                self.watch(conn);
            }
            Stop::Waiting(wait) => {
                session.wait = wait;
                session.ticks_frame = 0;
                if session.reading == Reading::Shared {
                    session.reading = Reading::Paused;
                    cx.effects.push(Effect::Pause { conn });
                }
                match wait {
                    Wait::Turn => self.sessions_ready.push_back(conn),
                    Wait::Lane(lane) => self.lanes[usize::from(lane)].waiting.push_back(conn),
                    Wait::No | Wait::Sends => {}
                }
            }
        }
    }

    pub(super) fn order_receive<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        target: Option<Piece>,
    ) {
        let Some(session) = self.sessions.answerable(conn) else { return };
        let reading = if target.is_some() { Reading::Own } else { Reading::Shared };
        if reading == Reading::Shared && session.reading == Reading::Shared {
            return;
        }
        session.reading = reading;
        cx.effects.push(Effect::Receive { conn, target });
    }

    /// Answers bytes that are no frame for us, as far as an answer makes sense. Returns how many of
    /// the `rest` are used up.
    fn on_bad_frame<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        error: FrameError,
        rest: usize,
    ) -> usize {
        match error {
            FrameError::Unsupported(frame) => return self.on_unsupported(cx, conn, frame, rest),
            FrameError::TooLarge { kind, correlation, .. } => {
                self.counters.frames_too_large += 1;
                let refusal = Refusal::new(ErrorCode::FrameTooLarge, "above the frame cap");
                self.refuse_conn(cx, conn, correlation, kind, refusal);
            }
            FrameError::ControlCrc { correlation } => {
                self.counters.frames_malformed += 1;
                let refusal = Refusal::new(ErrorCode::Malformed, "control checksum");
                self.refuse_conn(cx, conn, correlation, 0, refusal);
            }
            FrameError::Incomplete { .. } | FrameError::HeaderCrc | FrameError::Magic => {
                self.counters.frames_garbled += 1;
            }
        }
        self.close(cx, conn, true);
        rest
    }

    fn on_unsupported<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        frame: UnsupportedFrame,
        rest: usize,
    ) -> usize {
        self.counters.frames_unsupported += 1;
        self.refuse_unsupported(cx, conn, frame.correlation, frame.kind);
        let Some(session) = self.sessions.answerable(conn) else { return rest };
        session.frames_unsupported += 1;
        let whole = corelog_protocol::frame::FRAME_HEADER_BYTES as u64 + frame.skip_bytes;
        if session.phase == Phase::BeforeHello
            && session.frames_unsupported >= FRAMES_UNSUPPORTED_MAX
        {
            self.close(cx, conn, true);
            return rest;
        }
        let used = whole.min(rest as u64);
        session.incoming.skip = whole - used;
        session.credit -= used as i64;
        used as usize
    }

    /// A frame whose control part breaks a rule of its kind.
    pub(super) fn on_malformed<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        header: &FrameHeader,
        reason: &'static str,
    ) -> Flow {
        self.counters.frames_malformed += 1;
        let refusal = Refusal::new(ErrorCode::Malformed, reason);
        self.refuse_conn(cx, conn, header.correlation, header.kind.to_wire(), refusal);
        let Some(session) = self.sessions.answerable(conn) else { return Flow::Done };
        session.frames_malformed += 1;
        if session.phase == Phase::BeforeHello || session.frames_malformed >= FRAMES_MALFORMED_MAX {
            self.close(cx, conn, true);
        }
        Flow::Done
    }

    /// Orders the end of a connection. Its slots are kept until the driver says that it is gone.
    pub(super) fn close<M: Memory>(&mut self, cx: &mut Cx<'_, M>, conn: Conn, after_sends: bool) {
        let Some(session) = self.sessions.answerable(conn) else { return };
        // What was written in this step goes out before the close is ordered.
        let bytes = session.outgoing.flush(cx.memory, cx.effects, conn);
        session.phase = Phase::Closing;
        session.wait = Wait::No;
        session.ticks_send = 0;
        self.counters.bytes_out += bytes as u64;
        self.counters.sends += u64::from(bytes > 0);
        cx.effects.push(Effect::Close { conn, after_sends });
        if after_sends {
            self.watch(conn);
        }
    }

    /// Those who had to wait for their turn or for room in a lane go on, in order, each with a
    /// bounded share, until this step has touched enough.
    pub(super) fn resume_waiting<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let mut left = RECEIVE_BYTES as i64;
        for lane in 0..self.lanes.len() {
            while left > 0 && self.lanes[lane].can_serve_waiting() {
                if self.lanes[lane].adopted.front().is_some() {
                    left -= self.resume_adopted(cx, lane);
                    continue;
                }
                let Some(conn) = self.lanes[lane].waiting.pop_front() else { break };
                let (touched, has_moved) = self.resume(cx, conn, Wait::Lane(lane as u16));
                left -= touched;
                // There was not room for it after all: it stays the first.
                let waiting = &mut self.lanes[lane].waiting;
                if !has_moved && waiting.back() == Some(&conn) {
                    waiting.rotate_right(1);
                }
            }
        }
        for _ in 0..self.sessions_ready.len() {
            if left <= 0 {
                break;
            }
            let Some(conn) = self.sessions_ready.pop_front() else { break };
            left -= self.resume(cx, conn, Wait::Turn).0;
        }
    }

    /// Lets a session go on for its share, if it still waits for this. Returns the bytes touched,
    /// and whether a frame was used up.
    pub(super) fn resume<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        wait: Wait,
    ) -> (i64, bool) {
        let Some(session) = self.sessions.answerable(conn) else { return (0, false) };
        if session.wait != wait {
            return (0, false);
        }
        // A frame larger than the share is paid back in later rounds: deficit round robin.
        session.credit = session.credit.min(0) + SESSION_QUANTUM_BYTES as i64;
        if session.credit <= 0 {
            self.sessions_ready.push_back(conn);
            session.wait = Wait::Turn;
            return (1, false);
        }
        session.wait = Wait::No;
        let before = session.incoming.held_bytes();
        self.work_on_held(cx, conn);
        let after = self.sessions.get(conn).map_or(0, |session| session.incoming.held_bytes());
        // At least 1, so that a long list of sessions without progress ends the step, too.
        (before.saturating_sub(after).max(1) as i64, after < before)
    }
}
