//! What a shard orders its driver to do.
//!
//! The effects of one step are unordered, with one exception: `Send`s of one connection leave in
//! the order given, and `Close { after_sends: true }` after them. An effect owns the slots that it
//! names until it is complete; then the driver gives the reference back (`Receive` excepted: its
//! slot stays the shard's).

use std::net::SocketAddr;
use std::ops::Range;

use corelog_protocol::ids::ShardId;

use crate::disk::{DiskOrder, OpId};
use crate::memory::Piece;
use crate::shard::event::{Conn, DialId};
use crate::shard::message::ShardMessage;
use crate::time::Monotonic;

#[derive(Debug)]
pub enum Effect {
    /// Read from the connection from now on: into the shared receive buffer, or, with a target,
    /// into that range (once: after one `Received` the shard says where to read next).
    Receive {
        conn: Conn,
        target: Option<Piece>,
    },
    /// Read no more until the next `Receive`: the peer feels it as TCP back-pressure.
    Pause {
        conn: Conn,
    },
    /// Send `Effects::pieces[pieces]`, in order, and report `Sent`.
    Send {
        conn: Conn,
        pieces: Range<u32>,
    },
    Close {
        conn: Conn,
        after_sends: bool,
    },
    /// Connect to a shard of another broker, and report `Dialed`, within about a second.
    Dial {
        dial: DialId,
        address: SocketAddr,
        shard: ShardId,
    },
    Disk {
        op: OpId,
        order: DiskOrder,
    },
    Tell {
        to: ShardId,
        message: Box<ShardMessage>,
    },
    /// Deliver `Event::Turn` once what is ready now has been delivered.
    Turn,
    /// Deliver `Event::Woken` at this time. Replaces the deadline given before.
    Wake {
        at: Monotonic,
    },
    /// Recovery is over: connections are welcome.
    Ready,
    /// Everything is durable and closed; the shard takes no more events.
    Stopped,
}

/// The effects of a step, in buffers that are reused from step to step.
#[derive(Debug, Default)]
pub struct Effects {
    pub list: Vec<Effect>,
    pub pieces: Vec<Piece>,
}

impl Effects {
    pub fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }

    /// Orders a send of these pieces.
    pub fn send(&mut self, conn: Conn, pieces: impl IntoIterator<Item = Piece>) {
        let start = self.pieces.len() as u32;
        self.pieces.extend(pieces);
        let end = self.pieces.len() as u32;
        assert!(end > start, "an empty send would never complete");
        self.list.push(Effect::Send { conn, pieces: start..end });
    }

    /// Empties both lists and keeps their room.
    pub fn clear(&mut self) {
        self.list.clear();
        self.pieces.clear();
    }
}
