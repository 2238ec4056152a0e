//! Connections: bytes in order, delayed, cut anywhere, through bounded sockets.
//!
//! ```text
//! end 0 (who dialed) ─ sends ─▶ socket ─▶ end 1        way 0
//! end 0 ◀─ socket ◀─ sends ─ end 1 (who accepted)      way 1
//! ```
//! Nothing is lost but with the connection. Where the network does not pass, bytes wait in the socket; if they wait too
//! long, whoever sent them hears that the connection is broken, and the other end hears nothing until the way is
//! free again.

use std::collections::VecDeque;
use std::net::SocketAddr;

use corelog::engine::LinkId;
use corelog_protocol::ids::ShardId;
use corelog_protocol::preamble::{PREAMBLE_BYTES, Preamble};

use super::{Action, BrokerAction, World};
use crate::limits::RECEIVE_BYTES;
use crate::memory::{Memory, Piece};
use crate::shard::event::{Conn, DialId, Event, Peer};
use crate::sim::wiretap::Wiretap;
use crate::sim::world::bytes::Bytes;

/// More than this waiting moves as fast as the sockets allow.
const BACKLOG_BYTES: usize = 32 << 10;
/// How long a connection attempt waits for an answer.
const DIAL_NANOS: u64 = 1_000_000_000;
/// Bytes that do not pass break the connection after this, at least and at most.
const BREAK_NANOS: (u64, u64) = (300_000_000, 4_000_000_000);

/// Where a shard wants the next bytes of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    Off,
    Shared,
    /// Once.
    Target(Piece),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    Client {
        client: usize,
        id: LinkId,
    },
    /// A shard that has not been told that the connection stands.
    Dialer {
        broker: usize,
        life: u64,
        shard: usize,
        dial: DialId,
    },
    Shard {
        broker: usize,
        life: u64,
        shard: usize,
        conn: Conn,
    },
    /// The kernel of a broker: the preamble has not come.
    Kernel {
        broker: usize,
        life: u64,
    },
    Nobody,
}

#[derive(Debug)]
pub struct End {
    pub host: usize,
    pub owner: Owner,
    /// It closed, or was told, or will be any moment.
    pub is_over: bool,
    reading: Reading,
    /// It closes once everything is sent.
    is_closing: bool,
}

/// One ordered send: what is left of it.
#[derive(Debug)]
struct Send {
    pieces: Vec<Piece>,
    /// Bytes of it that the socket has taken.
    taken: usize,
    bytes: Vec<u8>,
}

/// From one end to the other.
#[derive(Debug, Default)]
pub struct Way {
    sends: VecDeque<Send>,
    socket: Bytes,
    is_pumping: bool,
    /// Grows with each time that bytes begin to wait for the network, and when they go on.
    stall: u64,
    is_stalled: bool,
    /// What the sender says, in the moment in which it says it.
    pub tap: Wiretap,
    /// What arrives.
    pub tap_arrived: Wiretap,
}

#[derive(Debug)]
pub struct Stream {
    pub ends: [End; 2],
    pub ways: [Way; 2],
    /// Both ends may send.
    is_up: bool,
    preamble: Vec<u8>,
    wanted: Option<ShardId>,
}

impl Stream {
    pub fn is_over(&self) -> bool {
        self.ends[0].is_over && self.ends[1].is_over
    }

    /// The pieces of all sends that will never be complete.
    fn take_sends(&mut self, way: usize) -> Vec<Piece> {
        self.ways[way].sends.drain(..).flat_map(|send| send.pieces).collect()
    }
}

impl World {
    /// Somebody wants a connection. `wanted`: the shard that a broker dials; a client says it itself.
    pub(super) fn open_stream(
        &mut self,
        from: usize,
        owner: Owner,
        address: SocketAddr,
        wanted: Option<ShardId>,
    ) -> usize {
        let stream = self.streams.len();
        let to = self.broker_at(address).unwrap_or(from);
        let end = |host, owner| End {
            host,
            owner,
            is_over: false,
            reading: Reading::Off,
            is_closing: false,
        };
        let mut ways = [Way::default(), Way::default()];
        if wanted.is_none() {
            ways[0].tap = Wiretap::behind(PREAMBLE_BYTES);
        }
        self.streams.push(Stream {
            ends: [end(from, owner), end(to, Owner::Nobody)],
            ways,
            is_up: false,
            preamble: Vec::new(),
            wanted,
        });
        let delay = self.draw_delay(self.plan.net_latency);
        self.after(delay, Action::Dial { stream });
        stream
    }

    pub(super) fn dial_arrives(&mut self, stream: usize) {
        let [from, to] = [self.streams[stream].ends[0].host, self.streams[stream].ends[1].host];
        if self.streams[stream].ends[0].is_over {
            return;
        }
        if from == to || !self.passes(from, to) || !self.passes(to, from) {
            self.tally.one("dials without an answer");
            self.after(DIAL_NANOS, Action::DialFailed { stream });
            return;
        }
        let until = self.network.dials_fail_until.get(&to).copied().unwrap_or_default();
        let is_unlucky = self.now < until && self.random.chance(1, 2);
        let delay = self.draw_delay(self.plan.net_latency);
        let process = self.machines[to].process.as_ref();
        let life = process.filter(|process| process.is_open() && !is_unlucky).map(|it| it.life);
        match life {
            Some(life) => {
                self.streams[stream].ends[1].owner = Owner::Kernel { broker: to, life };
                self.after(delay, Action::Established { stream });
            }
            None => {
                self.tally.one("dials refused");
                self.after(delay, Action::DialFailed { stream });
            }
        }
    }

    pub(super) fn dial_failed(&mut self, stream: usize) {
        self.streams[stream].ends[1].is_over = true;
        match self.streams[stream].ends[0].owner {
            Owner::Dialer { broker, life, shard, dial } => {
                self.streams[stream].ends[0].is_over = true;
                let what = BrokerAction::DialFailed { dial };
                self.queue.at(self.now, Action::Broker { broker, life, shard, what });
            }
            _ => self.tell_over(stream, 0),
        }
    }

    pub(super) fn established(&mut self, stream: usize) {
        if self.streams[stream].ends[1].is_over {
            return self.dial_failed(stream);
        }
        if self.streams[stream].ends[0].is_over {
            return self.pump_soon(stream, 0);
        }
        self.tally.one("connections made");
        match self.streams[stream].ends[0].owner {
            Owner::Dialer { broker, life, shard, dial } => {
                if self.machines[broker].paused_until.is_some() {
                    return self.machines[broker].held.push(Action::Established { stream });
                }
                let conn = match self.machines[broker].life() == Some(life) {
                    true => self.new_conn(broker, shard, (stream, 0)),
                    false => None,
                };
                let Some(conn) = conn else {
                    self.streams[stream].ends[0].is_over = true;
                    return self.pump_soon(stream, 0);
                };
                let wanted = self.streams[stream].wanted.unwrap_or_default();
                self.streams[stream].ends[0].owner = Owner::Shard { broker, life, shard, conn };
                self.streams[stream].ways[0].socket.push(&Preamble { shard: wanted }.encode());
                self.streams[stream].is_up = true;
                self.pump_soon(stream, 0);
                self.step(broker, shard, Event::Dialed { dial, conn: Some(conn) });
            }
            Owner::Client { .. } => {
                self.streams[stream].is_up = true;
                self.client_connected(stream);
            }
            _ => {}
        }
    }

    /// An end that did not close itself hears that the connection is over.
    fn tell_over(&mut self, stream: usize, end: usize) {
        if std::mem::replace(&mut self.streams[stream].ends[end].is_over, true) {
            return;
        }
        match self.streams[stream].ends[end].owner {
            Owner::Client { .. } => self.client_disconnected(stream),
            Owner::Shard { broker, life, shard, conn } => {
                let what = BrokerAction::Closed { conn };
                self.queue.at(self.now, Action::Broker { broker, life, shard, what });
            }
            Owner::Dialer { .. } => self.dial_failed(stream),
            Owner::Kernel { .. } | Owner::Nobody => {}
        }
        self.pump_soon(stream, end);
    }

    /// The shard hears of a connection's end, and its number is free.
    pub(super) fn conn_closed(&mut self, broker: usize, shard: usize, conn: Conn) {
        let Some((stream, end)) = self.stream_of(broker, shard, conn) else { return };
        let pieces = self.streams[stream].take_sends(end);
        let Some(sim) = self.machines[broker].shard(shard) else { return };
        sim.conns[conn.index as usize] = None;
        for piece in pieces {
            sim.memory.unpin(piece.slot);
            sim.memory.release(piece.slot);
        }
        self.streams[stream].ends[end].is_over = true;
        self.checks.answers.on_closed(stream as u64);
        self.pump_soon(stream, end);
        self.step(broker, shard, Event::Closed { conn });
    }

    /// Both ends hear that it is over, as soon as the network lets them; what is under way is lost.
    pub(super) fn reset_stream(&mut self, stream: usize) {
        for end in 0..2 {
            self.streams[stream].ways[end].socket.clear();
        }
        for end in 0..2 {
            self.tell_over(stream, end);
        }
    }

    /// The process at an end is gone.
    pub(super) fn owner_died(&mut self, stream: usize, end: usize, keeps_socket: bool) {
        let state = &mut self.streams[stream];
        state.ends[end].is_over = true;
        state.ways[end].sends.clear();
        if !keeps_socket {
            state.ways[end].socket.clear();
        }
        self.checks.answers.on_closed(stream as u64);
        self.pump_soon(stream, end);
    }

    pub(super) fn pump_soon(&mut self, stream: usize, way: usize) {
        if !std::mem::replace(&mut self.streams[stream].ways[way].is_pumping, true) {
            let delay = self.draw_delay(self.plan.net_latency);
            self.after(delay, Action::Pump { stream, way });
        }
    }

    /// Something that held bytes back is gone.
    pub(super) fn pump_everything(&mut self) {
        for stream in 0..self.streams.len() {
            if !self.streams[stream].is_over() {
                self.pump_soon(stream, 0);
                self.pump_soon(stream, 1);
            }
        }
    }

    /// How much of `have` moves at once, if `behind` waits in all.
    fn draw_chunk(&mut self, have: usize, behind: usize) -> usize {
        if behind > BACKLOG_BYTES {
            return have;
        }
        let most = have.min(self.plan.chunk_bytes) as u64;
        let drawn = if self.random.chance(1, 4) { most } else { 1 + self.random.below(most) };
        drawn.max(most / 16).max(1) as usize
    }

    pub(super) fn pump(&mut self, stream: usize, way: usize) {
        self.streams[stream].ways[way].is_pumping = false;
        let has_taken = self.fill_socket(stream, way);
        let has_moved = self.carry(stream, way);
        let state = &self.streams[stream];
        let has_more = !state.ways[way].socket.is_empty() || !state.ways[way].sends.is_empty();
        if has_more && (has_taken || has_moved) {
            self.pump_soon(stream, way);
        }
    }

    /// The socket takes bytes of what its end ordered.
    fn fill_socket(&mut self, stream: usize, way: usize) -> bool {
        let socket_bytes = self.plan.socket_bytes;
        let state = &mut self.streams[stream];
        let target = &mut state.ways[way];
        let room = socket_bytes.saturating_sub(target.socket.len());
        if !state.is_up || state.ends[way].is_over {
            return false;
        }
        let Some(send) = target.sends.front() else { return false };
        let have = (send.bytes.len() - send.taken).min(room);
        let behind = target.sends.iter().map(|send| send.bytes.len() - send.taken).sum();
        let owner = state.ends[way].owner;
        if let Owner::Shard { broker, .. } = owner
            && self.machines[broker].paused_until.is_some()
        {
            return false;
        }
        if have == 0 {
            return false;
        }
        let take = self.draw_chunk(have, behind);
        let target = &mut self.streams[stream].ways[way];
        let Some(send) = target.sends.front_mut() else { return false };
        target.socket.push(&send.bytes[send.taken..send.taken + take]);
        send.taken += take;
        let is_whole = send.taken == send.bytes.len();
        let pieces = match is_whole {
            true => target.sends.pop_front().map(|send| send.pieces).unwrap_or_default(),
            false => Vec::new(),
        };
        match owner {
            Owner::Client { .. } => self.client_sent(stream, take as u64),
            Owner::Shard { broker, shard, conn, .. } if is_whole => {
                let Some(sim) = self.machines[broker].shard(shard) else { return true };
                for piece in pieces {
                    sim.memory.unpin(piece.slot);
                    sim.memory.release(piece.slot);
                }
                let is_last = self.streams[stream].ways[way].sends.is_empty();
                if is_last && self.streams[stream].ends[way].is_closing {
                    self.tell_over(stream, way);
                }
                self.step(broker, shard, Event::Sent { conn });
            }
            _ => {}
        }
        true
    }

    /// The network takes bytes from the socket to the other end.
    fn carry(&mut self, stream: usize, way: usize) -> bool {
        let state = &self.streams[stream];
        let [from, to] = [state.ends[way].host, state.ends[1 - way].host];
        if !self.passes(from, to) || !self.passes(to, from) && state.ways[way].socket.len() > 4096 {
            // The second: nothing tells the sender that bytes have arrived.
            self.stall(stream, way);
            return false;
        }
        let state = &mut self.streams[stream];
        state.ways[way].stall += u64::from(std::mem::take(&mut state.ways[way].is_stalled));
        if state.ways[way].socket.is_empty() {
            if state.ends[way].is_over && !state.ends[1 - way].is_over && state.is_up {
                self.tell_over(stream, 1 - way);
            }
            return false;
        }
        if state.ends[1 - way].is_over {
            // Nobody reads it any more, and the sender hears so.
            state.ways[way].socket.clear();
            self.pump_soon(stream, 1 - way);
            return false;
        }
        match state.ends[1 - way].owner {
            Owner::Client { .. } => {
                let have = state.ways[way].socket.len();
                let take = self.draw_chunk(have, have);
                let bytes = self.streams[stream].ways[way].socket.take(take);
                self.client_received(stream, &bytes);
                true
            }
            Owner::Kernel { broker, life } => self.read_preamble(stream, broker, life),
            Owner::Shard { broker, shard, conn, .. } => {
                self.carry_to_shard(stream, way, (broker, shard, conn))
            }
            Owner::Dialer { .. } | Owner::Nobody => false,
        }
    }

    fn carry_to_shard(
        &mut self,
        stream: usize,
        way: usize,
        (broker, shard, conn): (usize, usize, Conn),
    ) -> bool {
        if self.machines[broker].paused_until.is_some() {
            return false;
        }
        let state = &mut self.streams[stream];
        let (limit, target) = match state.ends[1 - way].reading {
            Reading::Off => return false,
            Reading::Shared => (RECEIVE_BYTES, None),
            Reading::Target(piece) => (piece.len as usize, Some(piece)),
        };
        let have = state.ways[way].socket.len().min(limit);
        let behind = state.ways[way].socket.len();
        if target.is_some() {
            state.ends[1 - way].reading = Reading::Off;
        }
        let take = self.draw_chunk(have, behind);
        let bytes = self.streams[stream].ways[way].socket.take(take);
        self.overhear_arrival(stream, way, &bytes);
        self.deliver(broker, shard, conn, &bytes, target);
        true
    }

    /// The driver's part: 16 bytes say which shard shall have the socket.
    fn read_preamble(&mut self, stream: usize, broker: usize, life: u64) -> bool {
        let machine = &self.machines[broker];
        if machine.paused_until.is_some() {
            return false;
        }
        let state = &mut self.streams[stream];
        let missing = PREAMBLE_BYTES - state.preamble.len();
        let take = missing.min(state.ways[0].socket.len());
        let bytes = state.ways[0].socket.take(take);
        state.preamble.extend(bytes);
        if state.preamble.len() < PREAMBLE_BYTES {
            return true;
        }
        let preamble = Preamble::decode(&state.preamble).expect("only honest ones are here");
        let Some(process) = machine.process.as_ref().filter(|process| process.life == life) else {
            return false;
        };
        let count = process.shards.len();
        let shard = match usize::from(preamble.shard.0) {
            shard if shard < count => shard,
            _ => self.random.below(count as u64) as usize,
        };
        let Some(conn) = self.new_conn(broker, shard, (stream, 1)) else { return false };
        self.streams[stream].ends[1].owner = Owner::Shard { broker, life, shard, conn };
        let host = self.streams[stream].ends[0].host;
        let is_broker = u8::from(host >= self.plan.brokers);
        let mut address = [0; 16];
        let number = if is_broker == 0 { host as u8 + 1 } else { host as u8 };
        address[10..].copy_from_slice(&[0xff, 0xff, 10, 0, is_broker, number]);
        let peer = Peer { address, port: 1000 + (stream % 60_000) as u16 };
        self.step(broker, shard, Event::Opened { conn, peer });
        true
    }

    fn stall(&mut self, stream: usize, way: usize) {
        let target = &mut self.streams[stream].ways[way];
        if target.socket.is_empty() || std::mem::replace(&mut target.is_stalled, true) {
            return;
        }
        target.stall += 1;
        let stall = target.stall;
        let delay = BREAK_NANOS.0 + self.random.below(BREAK_NANOS.1 - BREAK_NANOS.0);
        self.after(delay, Action::Break { stream, way, stall });
    }

    pub(super) fn break_stalled(&mut self, stream: usize, way: usize, stall: u64) {
        let target = &mut self.streams[stream].ways[way];
        if target.is_stalled && target.stall == stall && !self.streams[stream].ends[way].is_over {
            self.tally.one("connections broken by silence");
            self.streams[stream].ways[way].socket.clear();
            self.tell_over(stream, way);
        }
    }

    pub(super) fn set_reading(
        &mut self,
        broker: usize,
        shard: usize,
        conn: Conn,
        reading: Reading,
    ) {
        let Some((stream, end)) = self.stream_of(broker, shard, conn) else { return };
        self.streams[stream].ends[end].reading = reading;
        if reading != Reading::Off {
            self.pump_soon(stream, 1 - end);
        }
    }

    pub(super) fn shard_sends(
        &mut self,
        broker: usize,
        shard: usize,
        conn: Conn,
        pieces: &[Piece],
    ) {
        let found = self.stream_of(broker, shard, conn);
        let Some(sim) = self.machines[broker].shard(shard) else { return };
        let Some((stream, end)) = found else {
            // The connection ended in the meantime: nothing leaves, and the references come back.
            pieces.iter().for_each(|piece| sim.memory.release(piece.slot));
            return;
        };
        let mut bytes = Vec::new();
        for piece in pieces {
            sim.memory.pin(piece.slot);
            bytes.extend_from_slice(sim.memory.piece(*piece));
        }
        self.overhear(stream, end, &bytes);
        let send = Send { pieces: pieces.to_vec(), taken: 0, bytes };
        self.streams[stream].ways[end].sends.push_back(send);
        self.pump_soon(stream, end);
    }

    pub(super) fn shard_closes(
        &mut self,
        broker: usize,
        shard: usize,
        conn: Conn,
        after_sends: bool,
    ) {
        let Some((stream, end)) = self.stream_of(broker, shard, conn) else { return };
        self.tally.one("connections closed by a broker");
        if after_sends && !self.streams[stream].ways[end].sends.is_empty() {
            self.streams[stream].ends[end].is_closing = true;
            self.pump_soon(stream, end);
        } else {
            self.tell_over(stream, end);
        }
    }

    pub(super) fn client_sends(&mut self, stream: usize, pieces: [&[u8]; 2]) {
        let bytes = pieces.concat();
        self.overhear_client(stream, &bytes);
        let send = Send { pieces: Vec::new(), taken: 0, bytes };
        self.streams[stream].ways[0].sends.push_back(send);
        self.pump_soon(stream, 0);
    }

    /// The client closes at once; what it had not sent is gone. What is under way may arrive.
    pub(super) fn client_closes(&mut self, stream: usize) {
        let state = &mut self.streams[stream];
        state.ends[0].is_over = true;
        state.ways[0].sends.clear();
        if self.random.chance(1, 2) {
            self.streams[stream].ways[0].socket.clear();
        }
        self.checks.order.on_given_up(stream as u64, self.now);
        self.pump_soon(stream, 0);
    }
}
