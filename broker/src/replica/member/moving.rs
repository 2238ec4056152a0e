//! A leader that is to lead no more: it offers its lane to who is caught up, takes no batches once it has to hand over,
//! and says when there is nothing left that the next one lacks.

use corelog_protocol::ids::{BrokerId, Epoch};

use super::{Phase, Replica};
use crate::replica::order::{LaneLog, Order};

impl Replica {
    /// Whether it takes batches: it serves, and hands over to nobody.
    pub fn takes_batches(&self) -> bool {
        self.serves().is_some_and(|epoch| self.moving_in(epoch).is_none())
    }

    /// The move that the leader of this epoch has to carry out.
    fn moving_in(&self, epoch: Epoch) -> Option<(BrokerId, u64)> {
        self.view.moving.filter(|_| self.view.epoch == epoch)
    }

    /// Whether its broker wants to lead no more. What it leads is offered to the others as long as that is so.
    pub fn set_leaving(&mut self, is_leaving: bool) {
        let is_news = is_leaving && !self.is_leaving;
        self.is_leaving = is_leaving;
        if is_news {
            self.offer();
        }
    }

    /// Says so when there is nothing left that the target of a move lacks, or whose fate is open.
    pub(super) fn hand_over(&mut self, log: &impl LaneLog) {
        let Phase::Leading(leader) = &self.phase else { return };
        let Some((to, number)) = self.moving_in(leader.epoch) else { return };
        let end = log.next_lsn();
        // To itself, if the lane gets other replicas.
        let has_all =
            to == self.me || leader.followers.iter().any(|it| it.broker == to && it.durable == end);
        let is_news = self.handed_over != Some(number);
        if is_news && has_all && leader.committed == end && log.has().end == end {
            self.handed_over = Some(number);
            self.orders.push_back(Order::HandedOver { epoch: leader.epoch, number });
        }
    }

    /// Names those who are caught up, if this one had better not lead.
    pub(super) fn offer(&mut self) {
        let Phase::Leading(leader) = &self.phase else { return };
        if !leader.is_serving || self.moving_in(leader.epoch).is_some() {
            return;
        }
        let (epoch, is_leaving) = (leader.epoch, self.is_leaving);
        let caught_up = |id: &&BrokerId| {
            let follower = leader.followers.iter().find(|it| it.broker == **id);
            follower.is_some_and(|it| it.caught_up_since.is_some())
        };
        let to: Vec<BrokerId> = match is_leaving {
            true => self.view.members.iter().filter(caught_up).copied().collect(),
            false => self
                .view
                .members
                .first()
                .filter(|id| leader.is_ready(**id))
                .copied()
                .into_iter()
                .collect(),
        };
        if !to.is_empty() {
            self.orders.push_back(Order::Offer { epoch, to, is_leaving });
        }
    }
}
