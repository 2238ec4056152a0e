//! Stories of the engine and a scripted broker.

mod altering;
mod bad_broker;
mod compressing;
mod consuming;
mod hostile;
mod idempotence;
pub mod peer;
mod producing;
