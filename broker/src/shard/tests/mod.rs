//! Stories of a shard: the state before, one event, what it did.

mod altering;
mod bad_input;
mod balancing;
mod conversation;
mod data;
mod followers;
mod forwarding;
mod idempotence;
mod keepers;
mod lifecycle;
mod members;
mod moving;
mod peers;
mod polling;
mod pressure;
mod rebuilding;
mod replication;
mod status;

use crate::sim::scene as world;
