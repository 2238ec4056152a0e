//! Made by flatc from `protocol/schema`, and committed as it came: see the README there.
//!
//! Only `message/` and the tests of `produce` name anything here. Roots are read by
//! `flatbuffers::root_with_opts` alone; `clippy.toml` bans the rest.

#![allow(
    unsafe_code,
    unused,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::disallowed_methods
)]

#[rustfmt::skip]
#[path = "cluster_generated.rs"]
pub(crate) mod cluster;
#[rustfmt::skip]
#[path = "data_generated.rs"]
pub(crate) mod data;
#[cfg(test)]
#[rustfmt::skip]
#[path = "produce_generated.rs"]
pub(crate) mod produce;
#[rustfmt::skip]
#[path = "session_generated.rs"]
pub(crate) mod session;
#[rustfmt::skip]
#[path = "status_generated.rs"]
pub(crate) mod status;
#[rustfmt::skip]
#[path = "topics_generated.rs"]
pub(crate) mod topics;
