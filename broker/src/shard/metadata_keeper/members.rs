//! Who is in the metadata's group: its leader looks at each tick whether something is to be done, and a broker that was
//! removed learns it and takes no more part. What is to be done is decided in `metadata/membership.rs`.
//!
//! ```text
//! removed: committed ──► its voter goes by a change of the members ──► nobody speaks to it any more
//!             └─ it hears so: no clients            └─ it hears so, or is refused where it dials: it leaves
//! ```
//! As long as it is a member its word may be needed to let it go: so links to it stay until then.

use corelog_protocol::ErrorCode;
use corelog_protocol::ids::BrokerId;

use super::{MetadataKeeper, Proposer};
use crate::memory::Memory;
use crate::metadata::consensus::{Change, Group, Members};
use crate::metadata::membership::{Facts, Step, member, next_step};
use crate::shard::message::Refusal;
use crate::shard::{Cx, Shard};

/// A change of the members as it is in a record, at most: each step takes 9 bytes, and there are few.
const CHANGE_BYTES_MAX: usize = 256;

pub(in crate::shard) const REMOVED: Refusal =
    Refusal::new(ErrorCode::BrokerRemoved, "this broker was removed from the cluster");

impl MetadataKeeper {
    /// The members of the group as they are known here. None: it is not known, or this broker takes no part.
    pub(in crate::shard) fn members(&self) -> Option<&Members> {
        self.group.as_ref().map(Group::members)
    }

    pub(super) fn is_joining(&self) -> bool {
        self.group.as_ref().is_some_and(Group::is_joining)
    }

    fn is_member(&self, id: BrokerId) -> bool {
        self.members().is_some_and(|members| members.all().contains(&member(id)))
    }

    fn next_step(&self) -> Option<Step> {
        let (Some(group), Some(failover)) = (&self.group, &self.failover) else { return None };
        let now = self.group_time();
        next_step(&Facts {
            leader: self.me,
            members: group.members(),
            state: &self.state,
            is_alive: &|id| failover.is_alive(id, now),
            is_caught_up: &|id| group.has_everything(member(id)),
        })
    }
}

impl Shard {
    /// Proposes the next change of the members, if one is due.
    pub(super) fn keep_members<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let keeper = self.keeper.as_ref().filter(|keeper| {
            keeper.is_leading() && !keeper.is_failed && !keeper.has_records_waiting()
        });
        let Some(keeper) = keeper.filter(|_| self.stopping.is_none()) else { return };
        match keeper.next_step() {
            Some(Step::Change(changes)) => self.change_members(cx, &changes),
            // Done by `hand_over_group`, as by a broker that drains.
            Some(Step::HandOver) | None => {}
        }
    }

    fn change_members<M: Memory>(&mut self, cx: &mut Cx<'_, M>, changes: &[Change]) {
        if self.make_room_for_record(cx, CHANGE_BYTES_MAX).is_err() {
            return;
        }
        let Some(keeper) = &mut self.keeper else { return };
        let Some(group) = &mut keeper.group else { return };
        let context = keeper.next_context;
        // Refused while the last one is not applied: then a later tick tries again.
        if group.change_members(changes, context).is_ok() {
            tracing::info!(?changes, "the members of the metadata's group change");
            keeper.next_context += 1;
            keeper.proposed.push_back((context, Proposer::Nobody));
            self.drain_group(cx);
        }
    }

    /// The members are others than before: whom this broker speaks to may be, too.
    pub(super) fn on_members_changed<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        self.peers.look_again();
        let me = self.config.broker;
        let has_left = self.keeper.as_ref().is_some_and(|keeper| {
            keeper.state.is_removed(me) && keeper.group.is_some() && !keeper.is_member(me)
        });
        if has_left {
            self.leave_cluster(cx);
        }
    }

    /// This broker was removed, by word of others or by what it has seen itself: it takes part in nothing any more.
    pub(in crate::shard) fn leave_cluster<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let Some(keeper) = self.keeper.as_mut().filter(|keeper| !keeper.is_out) else { return };
        keeper.is_out = true;
        let unknown =
            Refusal::new(ErrorCode::OutcomeUnknown, "the broker was removed from the cluster");
        self.leave_group(cx, REMOVED, unknown);
        self.publish_view(cx);
        self.peers.look_again();
    }

    /// Whether a broker was removed and has nothing more to say: nobody here speaks to it.
    pub(in crate::shard) fn is_gone(&self, broker: BrokerId) -> bool {
        let is_member = self.keeper.as_ref().is_some_and(|keeper| keeper.is_member(broker));
        self.view.state().is_removed(broker) && !is_member
    }

    /// Whether this broker was removed and its word is not needed any more.
    pub(in crate::shard) fn has_left(&self) -> bool {
        self.view.is_out() && self.keeper.as_ref().is_none_or(|keeper| keeper.is_out)
    }

    /// This broker was removed: clients find others. Those who asked for that are answered first; nothing new is begun.
    pub(in crate::shard) fn turn_clients_away<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        if !self.is_turning_away || !self.forwards.is_empty() {
            return;
        }
        self.is_turning_away = false;
        if self.keeper.is_some() {
            let broker = self.config.broker;
            tracing::error!(
                %broker,
                "this broker was removed from the cluster: it serves nobody any more, its number does not come back, and it can be stopped"
            );
        }
        for conn in self.sessions.conns().collect::<Vec<_>>() {
            if self.sessions.get(conn).is_some_and(|it| it.role == crate::session::Role::Client) {
                self.close(cx, conn, true);
            }
        }
    }
}
