//! Waits that are put into a stage of the shard on purpose, so that a measurement can be shown to find them. Exists with
//! the feature `delays` only, which no release has; those of the driver are in `driver/delays.rs`.
//!
//! Nobody stands still for one: whoever waits is left out until his time has come, and everybody else goes on.

use corelog_protocol::ids::Lsn;

use super::{Cx, Shard};
use crate::memory::Memory;
use crate::time::{Monotonic, Nanos};

/// How long, by the stage's name in an acknowledgment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Delays {
    /// A batch that has come whole waits so long for its turn.
    pub queue: Nanos,
    /// Entries wait so long before they leave for a follower.
    pub replicate: Nanos,
    /// Answers wait so long after the flush, where there are no other replicas.
    pub reply: Nanos,
}

/// Through where a lane is durable, since when, and when the write before was done: answered when the time has come.
#[derive(Clone, Copy, Debug)]
pub struct Unanswered {
    at: Monotonic,
    through: Lsn,
    write_done_at: Monotonic,
    flush_done_at: Monotonic,
}

impl Shard {
    /// Whether a batch that came whole at this time has to wait for its turn.
    pub(super) fn is_put_off(&self, received_at: Monotonic, now: Monotonic) -> bool {
        now < received_at + self.config.delays.queue
    }

    /// Whether what the follower at this place lacks has to wait. What comes meanwhile leaves with it.
    pub(super) fn is_held_back(&mut self, now: Monotonic, lane: usize, at: usize) -> bool {
        let delay = self.config.delays.replicate;
        let target = &mut self.lanes[lane];
        let end = target.log.building_first_lsn().unwrap_or(target.log.next_lsn());
        let Some(follower) = target.leading().and_then(|leader| leader.followers.get(at)) else {
            return false;
        };
        let (to, sent) = (follower.broker, follower.sent);
        if sent >= end || delay == Nanos(0) {
            target.held.remove(&to);
            return false;
        }
        now < *target.held.entry(to).or_insert(now + delay)
    }

    /// When the next of them may leave, or be answered.
    pub(super) fn next_departure(&self, now: Monotonic) -> Monotonic {
        let held = self.lanes.iter().flat_map(|lane| lane.held.values().copied());
        let unanswered = self.lanes.iter().filter_map(|lane| lane.unanswered.front());
        let all = held.chain(unanswered.map(|it| it.at));
        all.filter(|&until| until > now).min().unwrap_or(Monotonic(u64::MAX))
    }

    /// True if what is durable is to be answered later.
    pub(super) fn put_off_answers(
        &mut self,
        now: Monotonic,
        lane: usize,
        (through, write_done_at, flush_done_at): (Lsn, Monotonic, Monotonic),
    ) -> bool {
        let delay = self.config.delays.reply;
        if delay == Nanos(0) {
            return false;
        }
        let new = Unanswered { at: now + delay, through, write_done_at, flush_done_at };
        self.lanes[lane].unanswered.push_back(new);
        true
    }

    /// Answers what has waited long enough.
    pub(super) fn answer_put_off<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let now = cx.now.monotonic;
        for lane in 0..self.lanes.len() {
            while let Some(due) = self.lanes[lane].unanswered.pop_front_if(|due| due.at <= now) {
                self.on_durable(cx, lane, due.through, due.write_done_at, due.flush_done_at);
            }
        }
    }
}
