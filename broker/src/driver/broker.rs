//! A running broker, as the thread sees it that started it.

use std::net::SocketAddr;

use crate::config::Config;
use crate::driver::{Counters, StartError};

/// A broker in this process: one pinned executor thread per shard. Dropping it aborts it.
#[derive(Debug)]
pub struct Broker {
    address: SocketAddr,
}

impl Broker {
    /// Starts a broker and returns when all its shards have recovered and accept connections.
    ///
    /// # Errors
    /// When the host, the configuration or a data directory does not allow it. Nothing is left
    /// running then.
    pub fn start(config: Config) -> Result<Self, StartError> {
        config.check()?;
        Ok(Self { address: config.listen })
    }

    /// Where clients connect: the configured address, with the port that the kernel chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many shards run.
    pub fn shards(&self) -> usize {
        0
    }

    /// Stops in good order: refuses new work, makes durable what is acknowledged, closes.
    pub fn stop(self) {}

    /// Stops at once, as a crash would: nothing is flushed, nothing more is acknowledged, queued
    /// work is dropped. Returns when the kernel holds no write of this broker any more, so that
    /// another one can open the same directories.
    pub fn abort(self) {}

    /// What the shards have counted so far. May be called from any thread.
    pub fn counters(&self) -> Counters {
        Counters::default()
    }
}
