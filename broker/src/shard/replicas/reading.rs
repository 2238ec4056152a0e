//! Readers of a replica that follows: those who take any replica are served what it knows to be committed, while that is
//! not old. They wait as at the leader, and are sent away when it serves no more.

use super::Seat;
use crate::log::Log;
use crate::memory::Memory;
use crate::replica::Replica;
use crate::shard::{Cx, Shard};
use crate::time::Monotonic;

impl Seat {
    /// Whether readers that take any replica are served here now, though another broker leads.
    pub fn serves_as_follower(&self, now: Monotonic) -> bool {
        self.replica.as_ref().is_some_and(|replica| replica.serves_as_follower(now))
    }
}

impl Shard {
    /// More of a lane is known to be committed here, or more of that is durable: who waits for it at a follower is woken.
    pub(super) fn on_more_readable(&mut self, lane: usize) {
        let target = &mut self.lanes[lane];
        let Some(replica) = target.seat.as_mut().and_then(|seat| seat.replica.as_mut()) else {
            return;
        };
        replica.on_readable(target.log.committed_end());
        for (partition, bytes) in target.log.take_grown() {
            self.wake_waiters(partition, bytes);
        }
    }

    /// If a lane that was followed here is followed no more, or not well enough: who waits for its records has to ask the
    /// leader.
    pub(super) fn look_after_readers(&mut self, lane: usize, now: Monotonic) {
        let Some(seat) = &mut self.lanes[lane].seat else { return };
        let serves = seat.serves_as_follower(now);
        if std::mem::replace(&mut seat.served_as_follower, serves) && !serves {
            let waiters = self.partitions.take_waiters_of(lane as u16);
            self.hurry_waiters(waiters);
        }
    }

    /// A reader has met damage in a lane that is followed here. What is known of it already is repaired, if that has not
    /// begun; else it is being looked for.
    pub(in crate::shard) fn repair_follower<M: Memory>(&mut self, cx: &mut Cx<'_, M>, lane: usize) {
        let mut is_repaired = false;
        let repair = |replica: &mut Replica, log: &Log, now| {
            is_repaired = log.is_damaged() && replica.on_damaged(log, now);
        };
        self.with_replica(cx, lane, repair);
        self.counters.repairs += u64::from(is_repaired);
    }
}
