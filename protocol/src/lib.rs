//! What Corelog sends and stores: preamble, frames, control tables, batches, entries.
//!
//! Invariant: nothing here does IO, reads a clock, or allocates from a length that it was sent.

pub mod ids;
