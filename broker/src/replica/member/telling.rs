//! A leader that serves tells how far its followers are: each second, and when another one keeps up or does not any more.

use corelog_protocol::ids::BrokerId;

use super::{Phase, Replica};
use crate::limits::PROGRESS_EVERY_NS;
use crate::replica::order::{LaneLog, Order};
use crate::replica::progress::{FollowerProgress, LaneProgress};
use crate::time::{Monotonic, Nanos};

impl Replica {
    pub(super) fn tell_progress(&mut self, log: &impl LaneLog, now: Monotonic) {
        let lane = self.lane;
        let Phase::Leading(leader) = &mut self.phase else { return };
        if !leader.is_serving {
            leader.told = None;
            return;
        }
        let keep_up = leader.followers.iter().filter(|it| it.caught_up_since.is_some());
        let keep_up: Vec<BrokerId> = keep_up.map(|it| it.broker).collect();
        let is_old = |at: Monotonic| at + Nanos(PROGRESS_EVERY_NS) <= now;
        if leader.told.as_ref().is_some_and(|(at, known)| !is_old(*at) && *known == keep_up) {
            return;
        }
        leader.told = Some((now, keep_up));
        let follower = |it: &crate::replica::Progress| FollowerProgress {
            broker: it.broker,
            durable: it.durable,
            is_caught_up: it.caught_up_since.is_some(),
        };
        let followers = leader.followers.iter().map(follower).collect();
        let (epoch, end) = (leader.epoch, log.next_lsn());
        self.orders.push_back(Order::Progress(LaneProgress { lane, epoch, end, followers }));
    }
}
