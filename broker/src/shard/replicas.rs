//! What brokers say to each other of a lane.

use corelog_protocol::ids::BrokerId;

use super::receive::Flow;
use super::{Cx, Shard};
use crate::memory::{Memory, Piece};

impl Shard {
    /// A message of a lane's replication. No lane has a second replica yet: it is counted, and lost.
    pub(super) fn on_peer_lane<M: Memory>(
        &mut self,
        _cx: &mut Cx<'_, M>,
        _from: BrokerId,
        _control: &[u8],
        _payload: Piece,
    ) -> Flow {
        self.counters.peer_frames_dropped += 1;
        Flow::Done
    }
}
