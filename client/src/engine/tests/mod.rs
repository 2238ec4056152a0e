//! Stories of the engine and a scripted broker.

mod altering;
mod bad_broker;
mod compressing;
mod consuming;
mod failover;
mod hostile;
mod idempotence;
mod near;
pub mod peer;
mod producing;
mod trio;
