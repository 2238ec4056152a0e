//! The simulator: a broker and its clients on one thread, on a virtual clock, from one seed.
//!
//! Enter at [`disk`] for the disk that loses, tears and flips, and at [`memory`] for the pool that
//! finds leaks. Nothing here decides anything for a broker: it carries out effects, as the driver does,
//! and delivers events, at times and with faults that the seed chose.

pub mod disk;
pub mod memory;
pub mod sweep;
