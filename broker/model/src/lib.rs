//! Corelog's lane replication, model-checked: one lane, its replicas, the metadata authority, and everything that can go wrong.

pub mod action;
mod authority;
pub mod config;
pub mod explorations;
mod faults;
mod leader;
pub mod log;
pub mod model;
pub mod planted;
pub mod properties;
mod repair;
mod replica;
pub mod search;
pub mod state;
