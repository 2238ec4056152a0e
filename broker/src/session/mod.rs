//! One connection: what came in and is not used up yet ([`incoming`]), what goes out
//! ([`outgoing`]), and which of its habits count against it.
//!
//! Invariant: a session knows frames and slots, and nothing of topics, lanes or other sessions.

pub mod incoming;
pub mod outgoing;
pub mod table;

use corelog_protocol::ids::{BrokerId, ShardId};

use crate::shard::event::{Conn, Peer};
use crate::shard::jobs::JobId;
use incoming::Incoming;
use outgoing::Outgoing;

/// How far the conversation has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Nothing but a hello is welcome.
    BeforeHello,
    Open,
    /// `Effect::Close` was ordered: whatever comes is dropped, until `Event::Closed`.
    Closing,
}

/// Who is on the other side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// A client, or somebody who has not said hello yet.
    Client,
    /// A shard of another broker, which speaks.
    Peer { broker: BrokerId, shard: ShardId },
    /// A shard of another broker, to which this one speaks.
    Dialed { broker: BrokerId, shard: ShardId },
}

/// Whether the driver is reading from the connection, as ordered last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// Into the shared receive buffer, until paused.
    Shared,
    /// Into the session's own slot, once.
    Own,
    /// Not at all.
    Paused,
}

/// What a session that has frames waits for before it takes the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Nothing: it takes frames as they come.
    No,
    /// Its turn: it had more than its share in one step.
    Turn,
    /// Room in a lane (by its index on this shard).
    Lane(u16),
    /// The peer, to read what it was sent.
    Sends,
}

#[derive(Debug)]
pub struct Session {
    pub conn: Conn,
    pub peer: Peer,
    pub role: Role,
    pub phase: Phase,
    pub reading: Reading,
    pub wait: Wait,
    pub incoming: Incoming,
    pub outgoing: Outgoing,
    /// Bytes that it may still use up before others have their turn; below 0 after a large frame.
    pub credit: i64,
    /// Frames of unknown kinds or versions, and frames that broke a rule of their kind.
    pub frames_unsupported: u32,
    pub frames_malformed: u32,
    /// Requests under way that may take long: fetches, and what other shards were asked.
    pub requests: u32,
    /// Those of them that are fetches of partitions led here.
    pub fetches: Vec<JobId>,
    /// Those of them that have parts on several shards.
    pub gathers: Vec<JobId>,
    /// Ticks that it has been before hello, within a frame, or not reading, as far as it goes.
    pub ticks_hello: u32,
    pub ticks_frame: u32,
    pub ticks_send: u32,
    /// Bytes that came since the last tick.
    pub bytes_since_tick: u64,
    /// It is on the list of those whose ticks are counted.
    pub is_watched: bool,
    /// It is on the list of those that have something to send at the end of the step.
    pub is_dirty: bool,
}

impl Session {
    pub fn new(conn: Conn, peer: Peer) -> Self {
        Self {
            conn,
            peer,
            role: Role::Client,
            phase: Phase::BeforeHello,
            reading: Reading::Paused,
            wait: Wait::No,
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
            credit: 0,
            frames_unsupported: 0,
            frames_malformed: 0,
            requests: 0,
            fetches: Vec::new(),
            gathers: Vec::new(),
            ticks_hello: 0,
            ticks_frame: 0,
            ticks_send: 0,
            bytes_since_tick: 0,
            is_watched: false,
            is_dirty: false,
        }
    }
}
