//! How a cluster begins and grows: each broker registers until the metadata says of it what is true, and when all first
//! brokers have, the leader deals the lanes.
//!
//! One that joins knows no leader. It tells those brokers that it knows, one after the other, and who hears of it passes it
//! on, and tells it who else is there. When it is registered the others connect to it, and the leader makes it a member.
//!
//! ```text
//! 4 → 1: I am 4, there      1 → 3 (leads): 4 is there      3: registered; all connect to 4, which is a learner
//! 4 → 1: I am 4, there      1 → 4: 2 is there, 3 is there      3 → 4: all of the metadata      4 → 3: I have it
//! ```

use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{BrokerId, ShardId};

use super::{NotProposed, Proposer};
use crate::memory::Memory;
use crate::metadata::boot::boot;
use crate::metadata::membership::member;
use crate::metadata::{AskedChange, BrokerRecord, Change};
use crate::shard::{Cx, Shard};

/// A registration that is not heard of is tried again after so many ticks of the group, half a second.
const REGISTER_TICKS: u32 = 10;

/// Whether the metadata says of a broker what it says itself. How many directories it has is never changed.
fn is_registered(known: Option<&BrokerRecord>, record: &BrokerRecord) -> bool {
    known.is_some_and(|known| {
        *known == BrokerRecord { directories: known.directories, ..record.clone() }
    })
}

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
        let is_known = is_registered(keeper.state.broker(record.id), &record);
        if is_known || keeper.is_failed || keeper.is_out || keeper.state.is_removed(record.id) {
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
        } else if keeper.is_joining() {
            self.ask_to_join(cx, change);
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

    /// A link to shard 0 of another broker is up: that one is told who is here, and where. It may have been down when this
    /// one joined, and its configuration need not list it.
    pub(in crate::shard) fn introduce_self<M: Memory>(&mut self, cx: &mut Cx<'_, M>, to: BrokerId) {
        let record = self.own_record();
        let is_in = self.keeper.as_ref().is_some_and(|keeper| {
            !keeper.is_failed && !keeper.is_out && keeper.state.broker(record.id).is_some()
        });
        if is_in {
            let change = Change::BrokerRegister { record };
            let body = AskedChange { token: 0, change }.encode();
            self.send_peer(cx, to, ShardId(0), FrameKind::PeerChange, &body, &[]);
        }
    }

    /// Tells the next of the brokers that can be reached who would like to join.
    fn ask_to_join<M: Memory>(&mut self, cx: &mut Cx<'_, M>, change: Change) {
        let me = self.config.broker;
        let others = self.config.cluster_brokers.iter().map(|(id, _)| *id);
        let others: Vec<BrokerId> = others.filter(|id| *id != me).collect();
        let body = AskedChange { token: 0, change }.encode();
        for _ in 0..others.len() {
            let Some(keeper) = &mut self.keeper else { return };
            let Some(to) = others.get(keeper.join_turn % others.len()).copied() else { return };
            keeper.join_turn += 1;
            if self.send_peer(cx, to, ShardId(0), FrameKind::PeerChange, &body, &[]) {
                if let Some(keeper) = &mut self.keeper {
                    keeper.register_ticks = REGISTER_TICKS;
                }
                return;
            }
        }
    }

    /// A broker is told of, by itself or to one that joins. True: that is all, since this broker does not lead.
    pub(super) fn on_registration_heard<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        from: BrokerId,
        record: &BrokerRecord,
    ) -> bool {
        let Some(keeper) = &self.keeper else { return false };
        let (is_leading, is_joining) = (keeper.is_leading(), keeper.is_joining());
        let leader = keeper.leader_elsewhere().filter(|leader| *leader != from);
        let known = keeper.state.broker(record.id);
        let is_known = is_registered(known, record);
        if record.id != from {
            if is_joining {
                self.peers.introduce(record.id, record.address);
            }
            return !is_leading;
        }
        if known.is_none() {
            // It came while this broker was down, and may lead by now: it has to be answered.
            self.peers.introduce(from, record.address);
        }
        // It may be a learner by now, and unable to answer. A voter knows the others, and may lead.
        let is_voter = keeper.members().is_some_and(|members| members.is_voter(member(from)));
        if !is_voter {
            self.introduce_others(cx, from);
        }
        if is_known {
            return true;
        }
        // It speaks of itself, so it is passed on once, and not around for ever.
        if let Some(leader) = leader.filter(|_| !is_leading) {
            let change = Change::BrokerRegister { record: record.clone() };
            let body = AskedChange { token: 0, change }.encode();
            self.send_peer(cx, leader, ShardId(0), FrameKind::PeerChange, &body, &[]);
        }
        !is_leading
    }

    /// Tells one that joins who is there: whoever leads must be answered, and it may know others only.
    fn introduce_others<M: Memory>(&mut self, cx: &mut Cx<'_, M>, to: BrokerId) {
        let Some(keeper) = &self.keeper else { return };
        let others: Vec<BrokerRecord> =
            keeper.state.brokers().filter(|record| record.id != to).cloned().collect();
        for record in others {
            let change = Change::BrokerRegister { record };
            let body = AskedChange { token: 0, change }.encode();
            self.send_peer(cx, to, ShardId(0), FrameKind::PeerChange, &body, &[]);
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
        let first = &self.config.cluster_brokers;
        let is_first = |it: &&BrokerRecord| first.iter().any(|(id, _)| *id == it.id);
        let known: Vec<&BrokerRecord> = match self.config.is_clustered() {
            // Nobody asks where a broker alone is: it is not registered.
            false => vec![&own],
            // Not those that join already: they are no members yet.
            true => keeper.state.brokers().filter(is_first).collect(),
        };
        let replicas = usize::from(self.config.replicas_default);
        let command = boot(&known, self.config.lanes_per_shard, replicas);
        self.propose(cx, Proposer::Nobody, &command)
    }
}
