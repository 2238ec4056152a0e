//! The Corelog client.

pub mod engine;
mod error;
mod partition;
mod record;

pub use error::{Error, Refusal};
pub use partition::{Partitioner, murmur2, partition_of_key};
pub use record::Record;

/// How safe a record must be before it is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Durability {
    None = 0,
    LeaderMemory = 1,
    LeaderDurable = 2,
    QuorumMemory = 3,
    QuorumDurable = 4,
}

/// Where the time of a produce request went at the broker, ns each.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Stages {
    pub socket: u32,
    pub queue: u32,
    pub append: u32,
    pub write: u32,
    pub flush: u32,
    pub replicate: u32,
    pub quorum: u32,
    pub reply: u32,
}
