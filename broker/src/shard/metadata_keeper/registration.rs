//! How a cluster begins: each broker registers until the metadata says of it what is true, and when all first
//! brokers have, the leader deals the lanes.

use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{BrokerId, ShardId};

use super::{NotProposed, Proposer};
use crate::memory::Memory;
use crate::metadata::boot::boot;
use crate::metadata::{AskedChange, BrokerRecord, Change};
use crate::shard::{Cx, Shard};

/// A registration that is not heard of is tried again after so many ticks of the group, half a second.
const REGISTER_TICKS: u32 = 10;

impl Shard {
    pub(in crate::shard) fn own_record(&self) -> BrokerRecord {
        let config = &self.config;
        BrokerRecord {
            id: config.broker,
            incarnation: config.incarnation,
            life: config.life,
            address: config.advertise,
            rack: config.rack.clone(),
            shards: config.shards,
            directories: config.directories,
        }
    }

    /// Says who and where this broker is, if the metadata says something else.
    pub(super) fn register_broker<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        if !self.config.is_clustered() || self.stopping.is_some() {
            return;
        }
        let record = self.own_record();
        let Some(keeper) = &mut self.keeper else { return };
        let is_known = keeper.state.broker(record.id).is_some_and(|known| {
            *known == BrokerRecord { directories: known.directories, ..record.clone() }
        });
        if is_known || keeper.is_failed {
            return;
        }
        if keeper.register_ticks > 0 {
            keeper.register_ticks -= 1;
            return;
        }
        let change = Change::BrokerRegister { record };
        if keeper.is_leading() {
            keeper.register_ticks = REGISTER_TICKS;
            if let Ok(command) = change.command(&keeper.state, None) {
                // Not now: it is tried again.
                _ = self.propose(cx, Proposer::Nobody, &command);
            }
        } else if let Some(leader) = keeper.leader_elsewhere() {
            let body = AskedChange { token: 0, change }.encode();
            let kind = FrameKind::PeerChange;
            if self.send_peer(cx, leader, ShardId(0), kind, &body, &[])
                && let Some(keeper) = &mut self.keeper
            {
                keeper.register_ticks = REGISTER_TICKS;
            }
        }
    }

    /// Whether the lanes can be dealt: there are none, and everybody who gets some is known.
    pub(super) fn is_boot_due(&self) -> bool {
        let Some(keeper) = &self.keeper else { return false };
        let is_known = |id: BrokerId| keeper.state.broker(id).is_some();
        keeper.state.lanes().is_empty()
            && keeper.proposed.is_empty()
            && self.stopping.is_none()
            && (!self.config.is_clustered() || keeper.is_leading())
            && self.config.cluster_brokers.iter().all(|(id, _)| is_known(*id))
    }

    /// The first command about lanes: which there are.
    pub(super) fn propose_boot<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
    ) -> Result<(), NotProposed> {
        let own = self.own_record();
        let Some(keeper) = &self.keeper else { return Err(NotProposed::Later) };
        let known: Vec<&BrokerRecord> = match self.config.is_clustered() {
            // Nobody asks where a broker alone is: it is not registered.
            false => vec![&own],
            true => keeper.state.brokers().collect(),
        };
        let replicas = usize::from(self.config.replicas_default);
        let command = boot(&known, self.config.lanes_per_shard, replicas);
        self.propose(cx, Proposer::Nobody, &command)
    }
}
