//! The simulator: a broker and its clients on one thread, on a virtual clock, from one seed.
//!
//! Enter at [`run::run_seed`]. [`plan`] draws what a seed does, [`world`] lets it happen, [`check`] judges it.
//! [`disk`] is the disk that loses, tears and flips, [`memory`] the pool that finds leaks. Nothing
//! here decides anything for a broker: it carries out effects, as the driver does, and delivers
//! events, at times and with faults that the seed chose. [`sweep`] leaves nothing to chance instead, and so does
//! [`scene`], in which tests and fuzz targets say what happens next; [`cluster`] is several of those and a network.

pub mod check;
pub mod cluster;
pub mod coverage;
pub mod disk;
pub mod fleet;
pub mod lost_acks;
pub mod memory;
pub mod plan;
pub mod queue;
pub mod run;
pub mod scene;
mod steps;
pub mod stories;
pub mod sweep;
pub mod tally;
pub mod threads;
pub mod trace;
pub mod wiretap;
pub mod world;
