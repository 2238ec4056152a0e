//! What other brokers say of the metadata. The group has one member yet: it is counted, and lost.

use corelog_protocol::ids::BrokerId;

use crate::memory::{Memory, Piece};
use crate::shard::{Cx, Shard};

impl Shard {
    /// A message of the group.
    pub(in crate::shard) fn on_peer_metadata<M: Memory>(
        &mut self,
        _cx: &mut Cx<'_, M>,
        _from: BrokerId,
        _control: &[u8],
        _payload: Piece,
    ) {
        self.counters.peer_frames_dropped += 1;
    }

    /// What a replica's log holds.
    pub(in crate::shard) fn on_peer_fence<M: Memory>(
        &mut self,
        _cx: &mut Cx<'_, M>,
        _from: BrokerId,
        _control: &[u8],
    ) {
        self.counters.peer_frames_dropped += 1;
    }

    /// A change that somebody asked of the other broker.
    pub(in crate::shard) fn on_peer_change<M: Memory>(
        &mut self,
        _cx: &mut Cx<'_, M>,
        _from: BrokerId,
        _control: &[u8],
    ) {
        self.counters.peer_frames_dropped += 1;
    }

    /// What became of a change that was asked of the other broker.
    pub(in crate::shard) fn on_peer_change_reply<M: Memory>(
        &mut self,
        _cx: &mut Cx<'_, M>,
        _from: BrokerId,
        _control: &[u8],
    ) {
        self.counters.peer_frames_dropped += 1;
    }
}
