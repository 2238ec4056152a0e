//! What the shards of one broker say to each other. Owned data: a message crosses cores.

/// Not on the path of a client that talks to the right core.
#[derive(Debug)]
pub enum ShardMessage {
    /// Placeholder until the shard is composed.
    Hello,
}
