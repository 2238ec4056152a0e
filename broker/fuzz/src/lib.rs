//! Fuzz targets: each takes any bytes and must neither panic nor hang (I15).
//!
//! Three directions: what a stranger sends to a broker ([`protocol`], [`shard`]), what a broker sends
//! to a client ([`client`], [`unpack`]), what a disk gives back ([`images`], [`metadata`],
//! [`segment`], [`consensus`], which is also what a broker sends to a broker).
//! A target reads its input as a [`tape`] of actions where bytes alone would not get far: behind a
//! checksum, or into a state that takes a conversation to reach.
//!
//! `broker/fuzz/corpus/<target>/` holds inputs that together reach what fuzzing has reached, and every
//! input that once was a finding. A plain `cargo test` replays them. `.ci/fuzz` looks for more.

pub mod client;
pub mod consensus;
pub mod images;
pub mod metadata;
pub mod protocol;
pub mod segment;
pub mod shard;
pub mod tape;
pub mod unpack;

/// One thing to be fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Also the name of its folder in the corpus.
    pub name: &'static str,
    /// Panics on a finding.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 11] = [
    Target { name: "frame", run: protocol::frame, seeds: protocol::frame_seeds },
    Target { name: "message", run: protocol::message, seeds: protocol::message_seeds },
    Target { name: "batch", run: protocol::batch, seeds: protocol::batch_seeds },
    Target { name: "entries", run: protocol::entries, seeds: protocol::entries_seeds },
    Target { name: "images", run: images::run, seeds: images::seeds },
    Target { name: "metadata", run: metadata::run, seeds: metadata::seeds },
    Target { name: "consensus", run: consensus::run, seeds: consensus::seeds },
    Target { name: "segment", run: segment::run, seeds: segment::seeds },
    Target { name: "shard", run: shard::run, seeds: shard::seeds },
    Target { name: "client", run: client::run, seeds: client::seeds },
    Target { name: "unpack", run: unpack::run, seeds: unpack::seeds },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
