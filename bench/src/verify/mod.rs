//! Proves what a run claims: every byte, order and offset of what came back, against what was sent
//! and acknowledged.
//!
//! [`content`] makes records whose bytes follow from their producer and number, so that nothing
//! must be remembered to check them. [`ledger`] remembers what became of each, and names what is
//! wrong: lost, duplicate, reordered, corrupt, misplaced, invented. Pure: no clock, no sockets.

pub mod content;
mod ledger;

pub use ledger::{Ledger, Level, Partition, Spot, Verdict};
