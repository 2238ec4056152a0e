//! What the shards of one broker say to each other. Owned data: a message crosses cores.

use std::sync::Arc;

use crate::metadata::view::View;

/// Not on the path of a client that talks to the right core.
#[derive(Debug)]
pub enum ShardMessage {
    /// From shard 0: the metadata as of now. Answered with `ViewApplied`.
    View(Arc<View>),
    /// To shard 0: this version is in force here.
    ViewApplied { version: u64 },
}
