//! Who acknowledged a record.

use corelog_protocol::ids::{BrokerId, ShardId};

/// The broker and the shard of it that acknowledged: they led the partition at that moment. A later record of the
/// partition may have another leader.
///
/// The shard is the one that the client is connected to, which is the leader unless the client insists on another one.
/// Broker 0 is one that has told of no cluster.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Leader {
    pub broker: BrokerId,
    pub shard: ShardId,
}
