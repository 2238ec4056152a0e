//! The world of a shard: executors, sockets, disks, clocks. Carries out the effects of
//! `Shard::step` on glommio and reports completions; decides nothing.
//!
//! Enter at [`Broker`]. The only folder that may name glommio, socket2 or libc.

mod broker;
mod counters;
mod start_error;

pub use broker::Broker;
pub use counters::{Counters, ShardCounters};
pub use start_error::StartError;
