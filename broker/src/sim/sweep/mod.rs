//! Every crash and every bit flip, without chance: what the simulator tries at random on a whole
//! broker, this tries exhaustively on the log alone.
//!
//! - [`crash`]: a life of a log is recorded step by step ([`life`], [`workloads`]); after each step the power fails,
//!   with every choice of what the disk keeps; each image is recovered ([`survey`]) and compared with what
//!   was promised by then ([`ledger`]). Recoveries are crashed in turn.
//! - [`flips`]: each bit of a data directory, one at a time.
//! - [`images`]: any bytes at all as each part of a segment, with checksums that are right.
//!
//! [`long`] runs both at length. [`cow`] is the disk that makes millions of recoveries cheap; [`rig`] drives a log on it.

pub mod cow;
pub mod crash;
pub mod flips;
pub mod images;
pub mod ledger;
pub mod life;
pub mod long;
pub mod rig;
pub mod survey;
pub mod workloads;

use crate::sim::threads::caught;

/// What a check says; the error is for a human.
pub type Checked<T> = Result<T, String>;

/// Runs a check in which a panic is a violation (I15), and names its place.
pub fn guarded<T>(place: &dyn Fn() -> String, check: impl FnOnce() -> Checked<T>) -> Checked<T> {
    match caught(check) {
        Ok(told) => told.map_err(|error| format!("{}: {error}", place())),
        Err(text) => Err(format!("{}: I15: {text}", place())),
    }
}
