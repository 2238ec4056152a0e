//! What the members of the metadata's group say to each other, on its way out and in.

use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{BrokerId, ShardId};

use super::MetadataKeeper;
use crate::memory::{Memory, Piece};
use crate::metadata::consensus::{PeerBody, PeerMessage, Refused, ReplicaId};
use crate::metadata::membership::{broker_of, member};
use crate::shard::{Cx, Shard};

impl MetadataKeeper {
    fn on_not_sent(&mut self, to: ReplicaId, has_snapshot: bool) {
        let Some(group) = &mut self.group else { return };
        group.on_unreachable(to);
        if has_snapshot {
            group.on_snapshot_sent(to, false);
        }
    }
}

impl Shard {
    /// A message of this broker's member. If it cannot be sent, the group is told.
    pub(super) fn send_group_message<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        message: &PeerMessage,
    ) {
        // Members are brokers.
        let Some(to) = broker_of(message.to) else { return };
        let kind = FrameKind::PeerMetadata;
        if !self.send_peer(cx, to, ShardId(0), kind, &message.encode(), &[])
            && let Some(keeper) = &mut self.keeper
        {
            keeper.on_not_sent(message.to, matches!(message.body, PeerBody::Snapshot(_)));
        }
    }

    /// A message of another member.
    pub(in crate::shard) fn on_peer_metadata<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        from: BrokerId,
        control: &[u8],
        _payload: Piece,
    ) {
        let Some(keeper) = &mut self.keeper else {
            self.counters.peer_frames_dropped += 1;
            return;
        };
        keeper.on_heard(from);
        let message =
            PeerMessage::decode(control).ok().filter(|message| message.from == member(from));
        let Some(message) = message else {
            self.counters.frames_malformed += 1;
            return;
        };
        // Not recovered yet, or failed: it takes part in nothing.
        let Some(group) = &mut keeper.group else {
            self.counters.peer_frames_dropped += 1;
            return;
        };
        match group.on_message(&message) {
            Ok(()) => {}
            Err(Refused::Amnesia { .. }) => {
                // Its disk was lost, or is an old one: nothing that it says counts.
                self.fail_keeper(cx);
                return self.publish_view(cx);
            }
            Err(_) => self.counters.peer_frames_dropped += 1,
        }
        self.drain_group(cx);
    }

    /// The link to shard 0 of a broker is gone: what is on its way there is lost.
    pub(in crate::shard) fn on_metadata_peer_down<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        broker: BrokerId,
    ) {
        let Some(keeper) = &mut self.keeper else { return };
        keeper.on_not_sent(member(broker), true);
        self.drain_group(cx);
        self.give_up_asked_of(cx, broker);
    }
}
