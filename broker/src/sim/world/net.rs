//! Streams between clients and shards: delay, arbitrary cuts, bounded sockets, stalls, resets, silence.
//!
//! ```text
//! client ─ up_out ─▶ up_wire ─▶ shard        ordered by the client │ in the sockets between
//! client ◀─ down_wire ◀─ sends ─ shard       in the sockets between │ ordered by the shard
//! ```

use std::collections::VecDeque;

use corelog::engine::LinkId;
use corelog_protocol::batch::BatchView;
use corelog_protocol::frame::FrameKind;
use corelog_protocol::preamble::{PREAMBLE_BYTES, Preamble};

use super::bytes::Bytes;
use super::{Action, BrokerAction, World};
use crate::limits::RECEIVE_BYTES;
use crate::memory::{Memory, Piece};
use crate::shard::event::{Conn, DialId, Event, Peer};
use crate::sim::check::record::record_ids;
use crate::sim::wiretap::Wiretap;

/// The shard has answered a request within this, whatever its disk and its neighbours do: a long poll
/// takes half a second at most here, a stalled disk as much.
pub const ANSWER: u64 = 4_000_000_000;

/// More than this waiting moves as fast as the sockets allow.
const BACKLOG_BYTES: usize = 32 << 10;

/// Where a shard wants the next bytes of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    Off,
    Shared,
    /// Once.
    Target(Piece),
}

/// One ordered send: what is left of it.
#[derive(Debug)]
struct Send {
    pieces: Vec<Piece>,
    /// Bytes of it that the socket has taken.
    taken: usize,
    bytes: Vec<u8>,
}

/// A connection, from the attempt to the end of both sides.
#[derive(Debug)]
pub struct Link {
    pub client: usize,
    pub id: LinkId,
    /// The client has been told that it stands.
    pub is_up: bool,
    /// The client's side is over: it closed, or was told.
    pub client_gone: bool,
    /// The broker's side: none before the preamble and after the end.
    pub served: Option<(usize, Conn)>,
    /// The broker closes once everything is sent.
    closing: bool,
    /// No byte passes, and nobody is told.
    pub silent: bool,
    /// Over for both: neither hears anything more of the other.
    is_reset: bool,
    pub stalled_until: u64,
    /// Sends nonsense on purpose: it is not listened to.
    pub is_hostile: bool,
    pub corrupt_next: bool,
    pub reads_nothing: bool,
    preamble: Vec<u8>,
    up_out: Bytes,
    up_wire: Bytes,
    down_wire: Bytes,
    sends: VecDeque<Send>,
    reading: Reading,
    pumping_up: bool,
    pumping_down: bool,
    /// What the client hands over, before any of it travels.
    tap_out: Wiretap,
    pub tap_up: Wiretap,
    pub tap_down: Wiretap,
}

impl Link {
    fn new(client: usize, id: LinkId) -> Self {
        Self {
            client,
            id,
            is_up: false,
            client_gone: false,
            served: None,
            closing: false,
            silent: false,
            is_reset: false,
            stalled_until: 0,
            is_hostile: false,
            corrupt_next: false,
            reads_nothing: false,
            preamble: Vec::new(),
            up_out: Bytes::default(),
            up_wire: Bytes::default(),
            down_wire: Bytes::default(),
            sends: VecDeque::new(),
            reading: Reading::Off,
            pumping_up: false,
            pumping_down: false,
            tap_out: Wiretap::behind(PREAMBLE_BYTES),
            tap_up: Wiretap::default(),
            tap_down: Wiretap::default(),
        }
    }

    /// The pieces of all sends that will never be complete.
    pub fn take_sends(&mut self) -> Vec<Piece> {
        self.sends.drain(..).flat_map(|send| send.pieces).collect()
    }

    pub fn is_over(&self) -> bool {
        self.client_gone && self.served.is_none()
    }
}

impl World {
    /// A client wants a connection.
    pub(super) fn open_link(&mut self, client: usize, id: LinkId) -> usize {
        self.links.push(Link::new(client, id));
        let link = self.links.len() - 1;
        let delay = self.draw_delay(self.plan.net_latency * 2);
        self.after(delay, Action::Connect { link });
        link
    }

    /// A shard looks for another broker. There is none in this world: it hears so, sooner or later.
    pub(super) fn dial(&mut self, shard: usize, dial: DialId) {
        self.tally.one("dials without an answer");
        let delay = self.draw_delay(1_000_000_000);
        let what = BrokerAction::Dialed { dial };
        self.after(delay, Action::Broker { life: self.lives, shard, what });
    }

    pub(super) fn connect(&mut self, link: usize) {
        if self.links[link].client_gone {
            return;
        }
        if !self.broker.as_ref().is_some_and(|broker| broker.is_ready()) {
            self.tally.one("connections refused");
            self.link_closed(link);
            return;
        }
        self.tally.one("connections made");
        self.links[link].is_up = true;
        self.client_connected(link);
    }

    /// The client's side ends, if it has not.
    pub(super) fn link_closed(&mut self, link: usize) {
        if !std::mem::replace(&mut self.links[link].client_gone, true) {
            self.checks.order.on_given_up(link as u64, self.now);
            self.client_disconnected(link);
        }
    }

    pub(super) fn client_sends(&mut self, link: usize, pieces: [&[u8]; 2]) {
        let stream = &mut self.links[link];
        for piece in pieces {
            stream.up_out.push(piece);
            if !stream.is_hostile {
                stream.tap_out.feed(piece);
            }
        }
        while let Some((header, frame)) = self.links[link].tap_out.frame() {
            if header.kind == FrameKind::Produce {
                let batch =
                    header.payload(frame).ok().and_then(|batch| BatchView::parse(batch).ok());
                for id in batch.iter().flat_map(record_ids) {
                    self.checks.order.on_sent(id, link as u64, self.now);
                }
            }
        }
        self.plan_pump_up(link);
    }

    /// The client closes at once; what it had not sent is gone. What is under way may arrive.
    pub(super) fn client_closes(&mut self, link: usize) {
        self.checks.order.on_given_up(link as u64, self.now);
        let checked = self.checks.answers.on_given_up(link as u64, self.now, ANSWER);
        self.check(checked);
        let stream = &mut self.links[link];
        stream.client_gone = true;
        stream.up_out.clear();
        if self.random.chance(1, 2) {
            stream.up_wire.clear();
        }
        self.links[link].down_wire.clear();
        self.plan_conn_closed(link, 50_000_000);
        self.plan_pump_up(link);
    }

    /// Both sides are over now; bytes under way are lost, and none come after them.
    pub(super) fn reset_link(&mut self, link: usize) {
        let stream = &mut self.links[link];
        stream.is_reset = true;
        stream.up_out.clear();
        stream.up_wire.clear();
        stream.down_wire.clear();
        self.plan_conn_closed(link, 1_000_000);
        let delay = self.draw_delay(1_000_000);
        self.after(delay, Action::LinkClosed { link });
    }

    fn plan_conn_closed(&mut self, link: usize, within: u64) {
        if let Some((shard, conn)) = self.links[link].served {
            let delay = self.draw_delay(within);
            self.after(delay, Action::ConnClosed { life: self.lives, shard, conn });
        }
    }

    pub(super) fn plan_pump_up(&mut self, link: usize) {
        if !std::mem::replace(&mut self.links[link].pumping_up, true) {
            let delay = self.draw_delay(self.plan.net_latency);
            let at = (self.now + delay).max(self.links[link].stalled_until);
            self.queue.at(at, Action::PumpUp { link });
        }
    }

    pub(super) fn plan_pump_down(&mut self, link: usize) {
        if !std::mem::replace(&mut self.links[link].pumping_down, true) {
            let delay = self.draw_delay(self.plan.net_latency);
            let at = (self.now + delay).max(self.links[link].stalled_until);
            self.queue.at(at, Action::PumpDown { link });
        }
    }

    /// How much of `have` moves at once, if `behind` waits in all.
    fn draw_chunk(&mut self, have: usize, behind: usize) -> usize {
        if behind > BACKLOG_BYTES {
            // Backlogs are not dripped: a flood would take for ever.
            return have;
        }
        let most = have.min(self.plan.chunk_bytes) as u64;
        // A quarter of the time everything at once; else any cut.
        let drawn = if self.random.chance(1, 4) { most } else { 1 + self.random.below(most) };
        drawn.max(most / 16).max(1) as usize
    }

    pub(super) fn pump_up(&mut self, link: usize) {
        let socket_bytes = self.plan.socket_bytes;
        let stream = &mut self.links[link];
        stream.pumping_up = false;
        if stream.silent || stream.is_reset || !stream.is_up {
            return;
        }
        let room = socket_bytes.saturating_sub(stream.up_wire.len());
        let have = stream.up_out.len().min(room);
        if have > 0 {
            let take = self.draw_chunk(have, self.links[link].up_out.len());
            let stream = &mut self.links[link];
            let moved = stream.up_out.take(take);
            stream.up_wire.push(&moved);
            self.client_sent(link, take as u64);
        }
        self.pump_into_shard(link);
        let stream = &self.links[link];
        let readable = !stream.up_wire.is_empty()
            && (stream.served.is_none() && stream.preamble.len() < PREAMBLE_BYTES
                || stream.served.is_some() && stream.reading != Reading::Off);
        if !stream.up_out.is_empty() && stream.up_wire.len() < socket_bytes || readable {
            self.plan_pump_up(link);
        }
    }

    fn pump_into_shard(&mut self, link: usize) {
        let stream = &mut self.links[link];
        if stream.up_wire.is_empty() {
            return;
        }
        let Some((shard, conn)) = stream.served else {
            self.pump_preamble(link);
            return;
        };
        let (limit, target) = match stream.reading {
            Reading::Off => return,
            Reading::Shared => (RECEIVE_BYTES, None),
            Reading::Target(piece) => (piece.len as usize, Some(piece)),
        };
        let have = stream.up_wire.len().min(limit);
        let behind = stream.up_out.len();
        let take = self.draw_chunk(have, behind);
        let stream = &mut self.links[link];
        let mut bytes = stream.up_wire.take(take);
        if target.is_some() {
            stream.reading = Reading::Off;
        }
        if std::mem::take(&mut stream.corrupt_next) {
            let bit = self.random.below(bytes.len() as u64 * 8) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
            self.tally.one("bits flipped on the network");
        }
        self.overhear_up(link, &bytes);
        self.deliver(shard, conn, &bytes, target);
    }

    fn overhear_up(&mut self, link: usize, bytes: &[u8]) {
        if self.links[link].is_hostile {
            return;
        }
        let stream = &mut self.links[link];
        let mut tap = std::mem::take(&mut stream.tap_up);
        tap.feed(bytes);
        while let Some((header, frame)) = tap.frame() {
            let checked = self.checks.answers.on_request(link as u64, self.now, &header, frame);
            self.check(checked);
            if matches!(
                header.kind,
                FrameKind::Hello | FrameKind::Fetch | FrameKind::TopicDescribe | FrameKind::Offsets
            ) {
                self.record_honest(frame);
            }
        }
        self.links[link].tap_up = tap;
    }

    /// The driver's part: 16 bytes say which shard shall have the socket.
    fn pump_preamble(&mut self, link: usize) {
        let stream = &mut self.links[link];
        if stream.preamble.len() == PREAMBLE_BYTES {
            // Served once, and over.
            stream.up_wire.clear();
            return;
        }
        let missing = PREAMBLE_BYTES - stream.preamble.len();
        let take = missing.min(stream.up_wire.len());
        let bytes = stream.up_wire.take(take);
        stream.preamble.extend(bytes);
        if stream.preamble.len() < PREAMBLE_BYTES {
            return;
        }
        let Ok(preamble) = Preamble::decode(&stream.preamble) else {
            self.reset_link(link);
            return;
        };
        let Some((shard, conn)) = self.accept(link, preamble.shard) else {
            self.reset_link(link);
            return;
        };
        self.links[link].served = Some((shard, conn));
        let mut address = [0; 16];
        address[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, self.links[link].client as u8]);
        self.step(shard, Event::Opened { conn, peer: Peer { address, port: 1000 + link as u16 } });
    }

    pub(super) fn set_reading(&mut self, shard: usize, conn: Conn, reading: Reading) {
        let Some(link) = self.link_of(shard, conn) else { return };
        self.links[link].reading = reading;
        if reading != Reading::Off {
            self.plan_pump_up(link);
        }
    }

    pub(super) fn send(&mut self, shard: usize, conn: Conn, pieces: &[Piece]) {
        let link = self.link_of(shard, conn);
        let Some(broker) = &mut self.broker else { return };
        let memory = &mut broker.shards[shard].memory;
        let Some(link) = link else {
            // The connection ended in the meantime: nothing leaves, and the references come back.
            pieces.iter().for_each(|piece| memory.release(piece.slot));
            return;
        };
        let mut bytes = Vec::new();
        for piece in pieces {
            memory.pin(piece.slot);
            bytes.extend_from_slice(memory.piece(*piece));
        }
        self.overhear(link, &bytes);
        self.links[link].sends.push_back(Send { pieces: pieces.to_vec(), taken: 0, bytes });
        self.plan_pump_down(link);
    }

    pub(super) fn broker_closes(&mut self, shard: usize, conn: Conn, after_sends: bool) {
        let Some(link) = self.link_of(shard, conn) else { return };
        self.tally.one("connections closed by the broker");
        if after_sends && !self.links[link].sends.is_empty() {
            self.links[link].closing = true;
            self.plan_pump_down(link);
            return;
        }
        self.broker_side_ends(link);
    }

    /// The shard is told soon; the client after it has read what is under way.
    fn broker_side_ends(&mut self, link: usize) {
        self.links[link].closing = true;
        self.plan_conn_closed(link, 1_000);
        self.plan_pump_down(link);
    }

    pub(super) fn pump_down(&mut self, link: usize) {
        let socket_bytes = self.plan.socket_bytes;
        self.links[link].pumping_down = false;
        if self.links[link].silent || self.links[link].is_reset {
            return;
        }
        self.take_from_sends(link, socket_bytes);
        let stream = &self.links[link];
        if !stream.down_wire.is_empty() && !stream.client_gone && !stream.reads_nothing {
            let behind = stream.down_wire.len()
                + stream.sends.iter().map(|send| send.bytes.len() - send.taken).sum::<usize>();
            let take = self.draw_chunk(stream.down_wire.len(), behind);
            let bytes = self.links[link].down_wire.take(take);
            self.client_received(link, &bytes);
        }
        let stream = &self.links[link];
        if stream.closing && stream.sends.is_empty() && stream.down_wire.is_empty() {
            self.link_closed(link);
        } else if !stream.client_gone
            && !stream.reads_nothing
            && (!stream.down_wire.is_empty() || !stream.sends.is_empty())
        {
            self.plan_pump_down(link);
        }
    }

    /// The socket takes bytes of the oldest send.
    fn take_from_sends(&mut self, link: usize, socket_bytes: usize) {
        let stream = &mut self.links[link];
        let room = socket_bytes.saturating_sub(stream.down_wire.len());
        let (Some(send), Some((shard, conn))) = (stream.sends.front(), stream.served) else {
            return;
        };
        let have = (send.bytes.len() - send.taken).min(room);
        if have == 0 || stream.client_gone {
            return;
        }
        let behind = stream.sends.iter().map(|send| send.bytes.len() - send.taken).sum();
        let take = self.draw_chunk(have, behind);
        let stream = &mut self.links[link];
        let Some(send) = stream.sends.front_mut() else { return };
        stream.down_wire.push(&send.bytes[send.taken..send.taken + take]);
        send.taken += take;
        if send.taken < send.bytes.len() {
            return;
        }
        let pieces = stream.sends.pop_front().map(|send| send.pieces).unwrap_or_default();
        let closes = stream.closing && stream.sends.is_empty();
        let Some(broker) = &mut self.broker else { return };
        for piece in pieces {
            broker.shards[shard].memory.unpin(piece.slot);
            broker.shards[shard].memory.release(piece.slot);
        }
        self.step(shard, Event::Sent { conn });
        if closes {
            self.plan_conn_closed(link, 1_000);
        }
    }
}
