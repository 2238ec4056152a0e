//! What can happen to a shard.

use std::net::SocketAddr;

use corelog_protocol::ids::{BrokerId, ShardId};

use crate::disk::{DiskDone, OpId};
use crate::memory::Piece;
use crate::shard::message::ShardMessage;

/// A connection of this shard. The driver chooses `index` (small, reused) and a `generation` that
/// differs at each reuse, so that a late completion cannot hit a newcomer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Conn {
    pub index: u32,
    pub generation: u32,
}

/// Where a connection comes from, for limits and log lines. IPv4 is mapped into IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Peer {
    pub address: [u8; 16],
    pub port: u16,
}

/// A connection that a shard has ordered, and that is not there yet. Never used twice in a shard's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DialId(pub u64);

#[derive(Debug)]
pub enum Event {
    /// The first event of a shard's life: recover, then serve.
    Start,
    /// A connection whose preamble was read and whose socket is now this shard's.
    Opened { conn: Conn, peer: Peer },
    /// `Effect::Dial` is done. With a connection it is the shard's from now on, as one that was opened to it is: its
    /// preamble is sent, and nothing else.
    Dialed { dial: DialId, conn: Option<Conn> },
    /// Bytes from a connection. They lie in the shared receive buffer, which is the shard's only
    /// during this step, or in the target of the connection's last `Effect::Receive`.
    Received { conn: Conn, piece: Piece },
    /// The oldest `Send` of the connection was handed to the kernel whole.
    Sent { conn: Conn },
    /// The peer is gone, or `Effect::Close` was carried out. The last event of a connection.
    /// Its sends that are not complete never will be; the driver has given back their pieces.
    Closed { conn: Conn },
    /// A disk order is complete.
    Disk { op: OpId, done: DiskDone },
    /// A message from another shard of this broker.
    Told { from: ShardId, message: Box<ShardMessage> },
    /// Names of the configuration have other addresses than before. Of brokers that are not listed there nothing is said.
    Located { brokers: Vec<(BrokerId, SocketAddr)> },
    /// Asked for by `Effect::Turn`: what was ready has been delivered; do the work that was put off.
    Turn,
    /// The deadline of the last `Effect::Wake` has passed.
    Woken,
    /// Stop in good order: refuse new work, make what is acknowledged durable, then `Effect::Stopped`.
    Stop,
}
