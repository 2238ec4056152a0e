//! The world of a shard: executors, sockets, disks, clocks. Carries out the effects of
//! `Shard::step` on glommio and reports completions; decides nothing.
//!
//! Enter at [`Broker`]. `core` is one shard's state and the loop around `step`; `executor`
//! the tasks around it; `serve` one connection's, `dial` those to other brokers; `disk`, `conn` and `memory` what effects are carried out on.
//! The only folder that may name glommio, socket2 or libc.

mod accept;
mod broker;
mod clock;
mod cluster;
mod conn;
mod core;
mod counters;
#[cfg(feature = "delays")]
mod delays;
mod dial;
mod disk;
mod executor;
mod identity;
mod log_limit;
mod machine;
mod memory;
mod names;
mod open_files;
mod serve;
mod signal;
mod start;
mod start_error;
#[cfg(test)]
mod tests;
mod watchdog;

pub use broker::Broker;
pub use cluster::{LOCAL_BROKERS_MAX, LocalCluster};
pub use counters::{Counters, ShardCounters};
pub use signal::StopSignal;
pub use start_error::StartError;
