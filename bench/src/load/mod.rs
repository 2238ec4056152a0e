//! The load generator: one plain thread, raw sockets, frames as the protocol says. It is the same
//! code for the floor and for the real broker, so that their ratio says something about the broker.
//!
//! Enter at [`run`]. What to send is a [`Shape`]; to whom, a [`Target`].

pub mod admin;
pub mod connection;
mod generator;
pub mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use corelog_protocol::Durability;
use corelog_protocol::ids::{PartitionId, ShardId};

use crate::latency::Latencies;
pub use generator::run;

/// How much is sent, how often, and how many requests wait for their answer at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// For tables.
    pub name: &'static str,
    pub connections: usize,
    pub pace: Pace,
    pub records_per_batch: usize,
    pub record_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Closed loop: each connection keeps so many batches in flight. Good for rates, and for the
    /// latency of one at a time; its tails flatter.
    InFlight(usize),
    /// Open loop: so many batches per second over all connections, each at its intended time, from
    /// which its latency counts, however late it could be sent.
    PerSecond(f64),
}

impl Shape {
    pub const ONE_AT_A_TIME: Self = Self {
        name: "1 connection x 1 in flight, 100 B",
        connections: 1,
        pace: Pace::InFlight(1),
        records_per_batch: 1,
        record_bytes: 100,
    };
    pub const SINGLES: Self = Self {
        name: "16 connections x 16 in flight, 100 B",
        connections: 16,
        pace: Pace::InFlight(16),
        records_per_batch: 1,
        record_bytes: 100,
    };
    pub const BATCHES: Self = Self {
        name: "4 connections x 4 in flight, 64 x 1 KiB",
        connections: 4,
        pace: Pace::InFlight(4),
        records_per_batch: 64,
        record_bytes: 1024,
    };
    pub const OPEN: Self = Self {
        name: "open loop, 20,000/s over 4 connections, 100 B",
        connections: 4,
        pace: Pace::PerSecond(20_000.0),
        records_per_batch: 1,
        record_bytes: 100,
    };
    pub const ALL: [Self; 4] = [Self::ONE_AT_A_TIME, Self::SINGLES, Self::BATCHES, Self::OPEN];
}

/// Who is asked.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: SocketAddr,
    /// The shard that the preamble names.
    pub shard: ShardId,
    pub partitions: Vec<PartitionId>,
    pub spread: Spread,
    /// The durability asked for. At level `none` nothing would ever come back.
    pub level: Durability,
}

/// Which partitions a connection writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Connection `n` writes to partition `n` modulo their number.
    One,
    /// All partitions are dealt out among the connections, and each writes to its own in turn.
    All,
}

impl Target {
    fn of_connection(&self, index: usize, connections: usize) -> Vec<PartitionId> {
        let count = self.partitions.len();
        match self.spread {
            Spread::All if count > connections => {
                self.partitions.iter().skip(index).step_by(connections).copied().collect()
            }
            _ => vec![self.partitions[index % count]],
        }
    }
}

/// How long to run.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Sent, but not counted.
    pub warm_up: Duration,
    pub measured: Duration,
}

/// What came back within the measured time.
#[derive(Clone, Default)]
pub struct Outcome {
    pub batches: u64,
    pub records: u64,
    /// Bytes of the records' values.
    pub value_bytes: u64,
    pub seconds: f64,
    pub latencies: Latencies,
    /// Batches acknowledged in all, warm-up and drain included.
    pub batches_in_all: u64,
}

impl Outcome {
    pub fn records_per_second(&self) -> f64 {
        self.records as f64 / self.seconds
    }

    /// In units of 10^6 bytes.
    pub fn megabytes_per_second(&self) -> f64 {
        self.value_bytes as f64 / self.seconds / 1e6
    }
}

/// [`run`] on a thread of its own, pinned to `cpu`, while the caller waits.
pub fn run_beside(
    shape: &Shape,
    target: &Target,
    span: Span,
    cpu: usize,
) -> std::io::Result<Outcome> {
    std::thread::scope(|scope| {
        let load = scope.spawn(|| run(shape, target, span, Some(cpu)));
        load.join().unwrap_or_else(|_| Err(std::io::Error::other("the load generator panicked")))
    })
}
