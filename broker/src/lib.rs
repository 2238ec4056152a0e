//! The Corelog broker.
//!
//! Enter at [`shard`]: one core's whole state machine behind one `step`. Everything outside
//! `driver/` is pure: no clock, socket, file, thread or random number that was not handed in.

pub mod config;
pub mod disk;
#[cfg(feature = "driver")]
pub mod driver;
pub mod fatal;
pub mod limits;
pub mod log;
pub mod memory;
pub mod metadata;
pub mod planted;
pub mod random;
pub mod replica;
pub mod session;
pub mod shard;
#[cfg(feature = "sim")]
pub mod sim;
pub mod time;
