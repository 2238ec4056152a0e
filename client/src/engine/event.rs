//! What happens to the engine, and what it orders. See `mod.rs` for the rules of both.

use super::consumer::ConsumerId;
use super::{AdminReply, FlushId, LinkId, ObjectiveReport, RequestId};
use crate::{Durability, Error, Leader, StageTimes};
use corelog_protocol::ids::{Offset, ShardId};
use corelog_protocol::produce::Produce;
use std::net::SocketAddr;
use std::sync::Arc;

/// What happened to a connection, or that time has passed.
///
/// Events of a link that the engine has closed, or never opened, are ignored: the driver need not
/// filter what was under way.
#[derive(Debug)]
pub enum Event<'a> {
    /// The connection stands. The engine sends its preamble and hello next.
    Connected { link: LinkId },
    /// Bytes came. Any cut is fine. The engine copies what it keeps.
    Received { link: LinkId, bytes: &'a [u8] },
    /// This many more bytes of what was ordered by [`Effect::Send`] were taken by the socket.
    ///
    /// Must be told before `Closed`, and before the bytes that answer what was sent: a request
    /// that did not leave whole is a definite failure and is tried again, one that did is not.
    Sent { link: LinkId, bytes: u64 },
    /// The connection could not be made, was lost, or was ended by the other side.
    Closed { link: LinkId },
    /// [`Engine::next_wake`](super::Engine::next_wake) has come.
    Timer,
}

/// An order to the driver. Orders for one link are carried out in their order.
#[derive(Debug)]
pub enum Effect<T> {
    /// Open a connection, without delay of small packets (TCP_NODELAY). `shard` is told for traces: the preamble that names it
    /// is the first thing that the engine sends.
    Connect { link: LinkId, address: SocketAddr, shard: ShardId },
    /// Send these bytes after those ordered before. The engine bounds what is outstanding.
    Send { link: LinkId, bytes: Outgoing },
    /// Close at once, unsent bytes included. No event need follow.
    Close { link: LinkId },
    /// A batch of records reached its durability level.
    Delivered(Delivered<T>),
    /// A batch of records did not, or is not known to have.
    Failed(Failed<T>),
    /// Every record that was accepted before this flush is delivered or failed.
    Flushed { flush: FlushId },
    /// An admin request is answered.
    Answered { request: RequestId, answer: Result<AdminReply, Error> },
    /// A producer's objective has become infeasible, or is feasible again.
    Objective(ObjectiveReport),
    /// [`Engine::take`](super::Engine::take) has something for this consumer, and had nothing before.
    Readable { consumer: ConsumerId },
}

/// The effects of a step, in order. The driver drains and reuses it.
pub type Effects<T> = Vec<Effect<T>>;

/// Bytes to send: a short head, then perhaps a batch that is shared with the engine until its fate
/// is known. A driver sends both with one vectored call.
#[derive(Clone, Debug)]
pub struct Outgoing {
    head: Head,
    body: Option<Arc<Vec<u8>>>,
}

#[derive(Clone, Debug)]
enum Head {
    /// Of a produce request: no allocation for it.
    Produce([u8; Produce::HEAD_BYTES]),
    Frames(Vec<u8>),
}

impl Outgoing {
    pub(crate) fn frames(bytes: Vec<u8>) -> Self {
        Self { head: Head::Frames(bytes), body: None }
    }

    pub(crate) fn produce(head: [u8; Produce::HEAD_BYTES], batch: Arc<Vec<u8>>) -> Self {
        Self { head: Head::Produce(head), body: Some(batch) }
    }

    /// The two pieces, in order. Either may be empty.
    #[must_use]
    pub fn pieces(&self) -> [&[u8]; 2] {
        let head = match &self.head {
            Head::Produce(bytes) => &bytes[..],
            Head::Frames(bytes) => bytes,
        };
        [head, self.body.as_ref().map_or(&[][..], |body| &body[..])]
    }

    /// Bytes of both pieces.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces().iter().map(|piece| piece.len()).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A batch that reached its level. Record `i` of the batch has `tokens[i]`.
#[derive(Debug)]
pub struct Delivered<T> {
    pub topic: Arc<str>,
    pub partition: u32,
    /// Of the first record; the others follow densely. None at level `none`: nobody told.
    pub base_offset: Option<Offset>,
    /// The level reached: at least the one asked for.
    pub level: Durability,
    /// When the leader appended it, ms since the Unix epoch. 0 at level `none`.
    pub append_time_ms: i64,
    /// Who acknowledged it. None at level `none`: nobody told.
    pub leader: Option<Leader>,
    /// Where the time went at the broker, if a record of the batch asked.
    pub stages: Option<StageTimes>,
    pub tokens: Vec<T>,
}

/// A batch that failed, or whose fate is unknown: see [`Error::is_definite`].
#[derive(Debug)]
pub struct Failed<T> {
    pub topic: Arc<str>,
    /// Unknown if the topic is.
    pub partition: Option<u32>,
    pub error: Error,
    pub tokens: Vec<T>,
}
