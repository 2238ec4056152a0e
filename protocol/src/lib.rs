//! What Corelog sends and stores: preamble, frames, control messages, batches, entries.
//!
//! - A connection starts with a [`preamble`] that names the wanted core, then carries frames.
//! - A [`frame`] is a fixed header, a small control part and a raw payload. The controls of the hot
//!   path are the fixed structs of [`produce`], those with which brokers greet each other of [`peer`]; all others that
//!   clients know are the tables of [`message`].
//! - A [`batch`] of records is built once by the producer, and is stored and fetched as it is. An
//!   [`entry`] header in front of it says where it lies.
//!
//! Invariant: nothing here does IO, reads a clock, or allocates from a length that it was sent.
//! Every decoder takes arbitrary bytes and answers with a typed error. The exact bytes are in
//! `protocol/WIRE.md`.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod batch;
pub mod checksum;
pub mod durability;
pub mod entry;
pub mod error_code;
pub mod frame;
mod generated;
pub mod ids;
mod layout;
pub mod malformed;
pub mod message;
pub mod peer;
pub mod preamble;
pub mod produce;

pub use durability::Durability;
pub use error_code::ErrorCode;
pub use malformed::MalformedError;
