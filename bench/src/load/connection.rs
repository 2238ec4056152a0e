//! One connection of the load generator: frames queued for sending, requests that wait for their
//! answer, and the bytes of answers.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::PartitionId;
use corelog_protocol::{Durability, ErrorCode};

use super::Target;
use super::wire::{self, Reply};
use crate::os::{Epoll, uninterrupted};

/// Frames up to this size are gathered, so that one call sends many; larger ones are sent from
/// where they lie.
const GATHER_BYTES_MAX: usize = 4096;

pub struct Connection {
    pub socket: TcpStream,
    /// The frames that are sent over and over, one per partition in turn; only their correlation changes.
    frames: Vec<Vec<u8>>,
    turn: usize,
    level: Durability,
    /// Small frames that are ready to go, from `sent` on.
    gathered: Vec<u8>,
    sent: usize,
    /// Large frames to be sent, by correlation and place in `frames`; how far the first of them is sent.
    large: VecDeque<(u64, usize)>,
    large_sent: usize,
    /// When each request was due, oldest first, until it is answered. The front's correlation is `oldest`.
    waiting: VecDeque<Option<Instant>>,
    oldest: u64,
    received: Vec<u8>,
    filled: usize,
    /// Waits until the socket takes more.
    wants_write: bool,
}

impl Connection {
    /// Connects and says hello. The socket blocks until the generator, which needs many at once, says otherwise.
    pub fn open(target: &Target, partitions: &[PartitionId], batch: &[u8]) -> io::Result<Self> {
        let mut socket = TcpStream::connect(target.address)?;
        socket.set_nodelay(true)?;
        socket.write_all(&wire::opening(target.shard))?;
        let mut connection = Self {
            socket,
            frames: partitions
                .iter()
                .map(|&partition| wire::produce(partition, target.level, batch))
                .collect(),
            turn: 0,
            level: target.level,
            gathered: Vec::new(),
            sent: 0,
            large: VecDeque::new(),
            large_sent: 0,
            waiting: VecDeque::new(),
            oldest: 0,
            received: vec![0; 64 << 10],
            filled: 0,
            wants_write: false,
        };
        connection.await_hello()?;
        Ok(connection)
    }

    fn await_hello(&mut self) -> io::Result<()> {
        loop {
            let count = uninterrupted(|| self.socket.read(&mut self.received[self.filled..]))?;
            if count == 0 {
                return Err(io::Error::other("the broker closed the connection at hello"));
            }
            self.filled += count;
            match wire::reply(&self.received[..self.filled]).map_err(io::Error::other)? {
                Some((Reply::Other(FrameKind::HelloReply), len)) => {
                    self.received.copy_within(len..self.filled, 0);
                    self.filled -= len;
                    return Ok(());
                }
                Some((other, _)) => {
                    return Err(io::Error::other(format!("no hello but {other:?}")));
                }
                None => {}
            }
        }
    }

    pub fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    /// Puts one request into the queue; `due` is where its latency starts.
    pub fn ask(&mut self, due: Instant) {
        let correlation = self.oldest + self.waiting.len() as u64;
        self.waiting.push_back(Some(due));
        let turn = self.turn;
        self.turn = if turn + 1 == self.frames.len() { 0 } else { turn + 1 };
        let frame = &mut self.frames[turn];
        if frame.len() <= GATHER_BYTES_MAX {
            wire::set_correlation(frame, correlation);
            self.gathered.extend_from_slice(frame);
        } else {
            self.large.push_back((correlation, turn));
        }
    }

    /// True if the socket did not take all that is to be sent.
    pub fn wants_write(&self) -> bool {
        self.wants_write
    }

    /// Sends what the socket takes, and has `epoll` tell under `token` when it takes the rest.
    pub fn flush(&mut self, epoll: &Epoll, token: usize) -> io::Result<()> {
        let left = self.send()?;
        if left != self.wants_write {
            self.wants_write = left;
            epoll.want_write(&self.socket, token, left)?;
        }
        Ok(())
    }

    /// True if something is left.
    fn send(&mut self) -> io::Result<bool> {
        while self.sent < self.gathered.len() {
            match uninterrupted(|| self.socket.write(&self.gathered[self.sent..])) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        self.gathered.clear();
        self.sent = 0;
        while let Some(&(correlation, at)) = self.large.front() {
            let frame = &mut self.frames[at];
            if self.large_sent == 0 {
                wire::set_correlation(frame, correlation);
            }
            let rest = [IoSlice::new(&frame[self.large_sent..])];
            match uninterrupted(|| self.socket.write_vectored(&rest)) {
                Ok(count) => self.large_sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
            if self.large_sent == frame.len() {
                self.large_sent = 0;
                self.large.pop_front();
            }
        }
        Ok(false)
    }

    /// Reads once, and tells of each acknowledged request when it was due. A refusal is an error.
    pub fn receive(&mut self, mut acknowledged: impl FnMut(Instant)) -> io::Result<()> {
        self.receive_all(|answer| match answer {
            Ok(due) => {
                acknowledged(due);
                Ok(())
            }
            Err((_, text)) => Err(io::Error::other(text)),
        })
    }

    /// Reads once, and tells of each answered request when it was due, or why it was refused.
    pub fn receive_all(
        &mut self,
        mut answered: impl FnMut(Result<Instant, (ErrorCode, String)>) -> io::Result<()>,
    ) -> io::Result<()> {
        let count = match uninterrupted(|| self.socket.read(&mut self.received[self.filled..])) {
            Ok(0) => return Err(io::Error::other("the broker closed the connection")),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        self.filled += count;
        let mut at = 0;
        while let Some((reply, len)) =
            wire::reply(&self.received[at..self.filled]).map_err(io::Error::other)?
        {
            at += len;
            let answer = self.settle(reply)?;
            answered(answer)?;
        }
        self.received.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }

    fn settle(&mut self, reply: Reply) -> io::Result<Result<Instant, (ErrorCode, String)>> {
        let (correlation, refused) = match reply {
            Reply::Ack { correlation, level } => {
                if level.to_wire() < self.level.to_wire() {
                    let asked = self.level;
                    return Err(io::Error::other(format!(
                        "asked for level {asked}, acknowledged {level}"
                    )));
                }
                (correlation, None)
            }
            // Refusals are told at once, acknowledgments in order: a refusal may come first.
            Reply::Refused { correlation, code, text } => (correlation, Some((code, text))),
            Reply::Other(kind) => {
                return Err(io::Error::other(format!("ack expected, got {kind}")));
            }
        };
        let at = correlation.wrapping_sub(self.oldest);
        let is_next = at == 0;
        let due = usize::try_from(at).ok().and_then(|at| self.waiting.get_mut(at)?.take());
        let Some(due) = due else {
            return Err(io::Error::other(format!(
                "an answer to {correlation}, which nobody awaits"
            )));
        };
        if refused.is_none() && !is_next {
            let expected = self.oldest;
            return Err(io::Error::other(format!("ack of {correlation} instead of {expected}")));
        }
        while self.waiting.front().is_some_and(Option::is_none) {
            self.waiting.pop_front();
            self.oldest += 1;
        }
        Ok(refused.map_or(Ok(due), Err))
    }
}
