//! What only a leader keeps: how far each follower is, and what is committed.
//!
//! Commit is the rule of Raft (Ongaro and Ousterhout, 2014, section 5.4.2) with durable acknowledgments: the
//! quorum-th largest of them and of the leader's own durable LSN, if it covers an entry of the leader's epoch.

use std::collections::VecDeque;

use corelog_protocol::ids::{BrokerId, Epoch, Lsn};

use crate::limits::{
    COMMITTED_EVERY_NS, DISK_STALL_TICKS, READY_AFTER_NS, REPLICATION_WINDOW_BYTES,
};
use crate::planted::{Bug, is_planted};
use crate::time::{Monotonic, Nanos};

#[derive(Debug)]
pub struct Leader {
    pub epoch: Epoch,
    /// The LSN of the epoch start, once it is appended.
    pub start: Option<Lsn>,
    /// Members with this one, which is not among `followers`.
    members: usize,
    pub followers: Vec<Progress>,
    /// Everything below is committed; 0 until the epoch start is.
    pub committed: Lsn,
    /// In the memory of a quorum, as far as that is asked for.
    pub received: Lsn,
    /// Somebody waits until everything below is in the memory of a quorum.
    pub memory_wanted: Lsn,
    pub is_serving: bool,
    /// It cannot read all that it has: it serves no more in this epoch.
    pub is_resigning: bool,
    /// When it was told how far the followers are, and which of them kept up.
    pub told: Option<(Monotonic, Vec<BrokerId>)>,
    /// The end of the log at the last tick.
    end_at_tick: Lsn,
    /// What was durable here at the last tick, and at how many in a row it was the same and not all.
    durable_at_tick: Lsn,
    stalled_ticks: u32,
    /// The disk here stands still, and a follower's does not.
    pub is_disk_overtaken: bool,
    now: Monotonic,
}

/// A follower, as its leader sees it.
#[derive(Debug)]
pub struct Progress {
    pub broker: BrokerId,
    /// Its log equals this one's below `sent`; nothing may be sent before.
    pub is_matched: bool,
    /// The next LSN to send.
    pub sent: Lsn,
    pub received: Lsn,
    pub durable: Lsn,
    /// The committed LSN that it was told last, and when.
    pub told: Lsn,
    pub told_at: Monotonic,
    /// It is further behind than this log reaches back.
    pub is_stranded: bool,
    pub heard_at: Monotonic,
    /// Since when it has had at each tick all that there was at the tick before.
    pub caught_up_since: Option<Monotonic>,
    /// When it was asked to follow.
    pub asked_at: Option<Monotonic>,
    /// Sent and not received there: LSN after the last entry, bytes.
    flight: VecDeque<(Lsn, u32)>,
    flight_bytes: usize,
    /// When the oldest of it was sent, or the one before it was received.
    moved_at: Monotonic,
}

impl Progress {
    fn new(broker: BrokerId, now: Monotonic) -> Self {
        Self {
            broker,
            is_matched: false,
            sent: Lsn(0),
            received: Lsn(0),
            durable: Lsn(0),
            told: Lsn(0),
            told_at: now,
            is_stranded: false,
            heard_at: now,
            caught_up_since: None,
            asked_at: None,
            flight: VecDeque::new(),
            flight_bytes: 0,
            moved_at: now,
        }
    }

    /// How many bytes may be sent to it now.
    pub fn room(&self) -> usize {
        if !self.is_matched || self.is_stranded {
            return 0;
        }
        REPLICATION_WINDOW_BYTES.saturating_sub(self.flight_bytes)
    }

    /// Entries below `end` are on their way.
    pub fn on_sent(&mut self, end: Lsn, bytes: u32, now: Monotonic) {
        if self.flight.is_empty() {
            self.moved_at = now;
        }
        self.sent = end;
        self.flight.push_back((end, bytes));
        self.flight_bytes += bytes as usize;
    }

    fn on_received(&mut self, end: Lsn, now: Monotonic) {
        if end > self.received {
            self.received = end;
            self.moved_at = now;
        }
        while let Some(&(sent, bytes)) = self.flight.front()
            && sent <= end
        {
            self.flight.pop_front();
            self.flight_bytes -= bytes as usize;
        }
    }

    /// What was under way is lost, or was not taken: it goes on from here.
    pub fn restart_at(&mut self, next: Lsn, now: Monotonic) {
        self.heard_at = now;
        self.is_matched = true;
        self.is_stranded = false;
        self.sent = next;
        self.flight.clear();
        self.flight_bytes = 0;
        self.asked_at = None;
    }

    /// Whether what was sent has come to nothing for this long.
    pub fn is_stalled(&self, patience: Nanos, now: Monotonic) -> bool {
        !self.flight.is_empty() && self.moved_at + patience <= now
    }

    /// Its link is down: nothing can be sent before it has said anew where it is.
    pub fn on_lost(&mut self) {
        self.is_matched = false;
        self.caught_up_since = None;
        self.flight.clear();
        self.flight_bytes = 0;
        self.asked_at = None;
    }
}

impl Leader {
    pub fn new(epoch: Epoch, me: BrokerId, members: &[BrokerId], now: Monotonic) -> Self {
        let others = members.iter().filter(|member| **member != me);
        Self {
            epoch,
            start: None,
            members: members.len(),
            followers: others.map(|member| Progress::new(*member, now)).collect(),
            committed: Lsn(0),
            received: Lsn(0),
            memory_wanted: Lsn(0),
            is_serving: false,
            is_resigning: false,
            told: None,
            end_at_tick: Lsn(0),
            durable_at_tick: Lsn(0),
            stalled_ticks: 0,
            is_disk_overtaken: false,
            now,
        }
    }

    pub fn follower(&mut self, broker: BrokerId) -> Option<&mut Progress> {
        self.followers.iter_mut().find(|follower| follower.broker == broker)
    }

    pub fn on_ack(
        &mut self,
        from: BrokerId,
        (received, durable): (Lsn, Lsn),
        end: Lsn,
        now: Monotonic,
    ) {
        if let Some(follower) = self.follower(from) {
            // Nobody has more of this epoch than its leader.
            follower.on_received(received.min(end), now);
            follower.durable = follower.durable.max(durable.min(end));
        }
    }

    /// The quorum-th largest of what the followers say and of `own`.
    fn quorum(&self, own: Lsn, of: impl Fn(&Progress) -> Lsn) -> Lsn {
        let mut ends: Vec<Lsn> = self.followers.iter().map(of).collect();
        ends.push(own);
        ends.sort_unstable_by(|left, right| right.cmp(left));
        let place = match is_planted(Bug::MinorityCommits) {
            true => 0,
            false => self.members / 2,
        };
        ends.get(place).copied().unwrap_or(Lsn(0))
    }

    /// Everything below has left for as many followers as a quorum needs. `next`: after the log's last entry.
    pub fn sent_end(&self, next: Lsn) -> Lsn {
        self.quorum(next, |follower| follower.sent)
    }

    /// Commits what it may. True if that is more than before.
    pub fn advance(&mut self, durable: Lsn, next: Lsn) -> bool {
        let Some(start) = self.start else { return false };
        let received = self.quorum(next, |follower| follower.received.max(follower.durable));
        self.received = self.received.max(received);
        let end = self.quorum(durable, |follower| follower.durable);
        let is_own = end > start || is_planted(Bug::OlderEpochCommitted);
        if !is_own || end <= self.committed {
            return false;
        }
        self.committed = end;
        true
    }

    /// A tick: notes which followers keep up. `heard_since`: one that was silent since then does not.
    pub fn look_who_is_caught_up(&mut self, end: Lsn, heard_since: Monotonic, now: Monotonic) {
        let wanted = std::mem::replace(&mut self.end_at_tick, end);
        self.now = now;
        for follower in &mut self.followers {
            let has = follower.received.max(follower.durable);
            let is_there = follower.is_matched && follower.heard_at >= heard_since;
            follower.caught_up_since = match is_there && wanted > Lsn(0) && has >= wanted {
                true => follower.caught_up_since.or(Some(now)),
                false => None,
            };
        }
    }

    /// A tick: looks whether the disk here stands still, and a follower's does not.
    pub fn look_at_disk(&mut self, durable: Lsn, end: Lsn) {
        let before = std::mem::replace(&mut self.durable_at_tick, durable);
        let is_stalled = durable == before && durable < end;
        self.stalled_ticks = if is_stalled { self.stalled_ticks.saturating_add(1) } else { 0 };
        // Entries leave with their commit, once the disk takes that: if it does not, who has all that was sent waits for more.
        let waits = |it: &Progress| it.durable >= durable && it.durable == it.sent && it.sent < end;
        let is_ahead = |it: &Progress| it.is_matched && (it.durable > durable || waits(it));
        self.is_disk_overtaken =
            self.stalled_ticks >= DISK_STALL_TICKS && self.followers.iter().any(is_ahead);
    }

    /// Whether this follower has kept up for so long that it may lead just as well.
    pub fn is_ready(&self, broker: BrokerId) -> bool {
        let follower = self.followers.iter().find(|follower| follower.broker == broker);
        let since = follower.and_then(|follower| follower.caught_up_since);
        since.is_some_and(|since| self.now >= since + Nanos(READY_AFTER_NS))
    }

    /// Which followers are to be told now what is committed, and up to where they were sent: there is more than they were told,
    /// or they serve readers, who have to know that there is not.
    pub fn to_be_told(&self, now: Monotonic) -> Vec<(BrokerId, Lsn)> {
        let is_old = |at: Monotonic| self.is_serving && at + Nanos(COMMITTED_EVERY_NS) <= now;
        let is_due = |it: &&Progress| it.told < self.committed || is_old(it.told_at);
        let followers = self.followers.iter().filter(|it| it.is_matched).filter(is_due);
        followers.map(|it| (it.broker, it.sent)).collect()
    }

    /// Whether a quorum, with this one, was heard at this time or later.
    pub fn has_quorum_since(&self, time: Monotonic) -> bool {
        let heard = self.followers.iter().filter(|follower| follower.heard_at >= time).count();
        heard + 1 > self.members / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of three, with follower 2 matched: sent and durable there through these.
    fn leader(sent: u64, durable: u64) -> Leader {
        let members = [1, 2, 3].map(BrokerId);
        let mut leader = Leader::new(Epoch(4), members[0], &members, Monotonic(0));
        let follower = leader.follower(members[1]).expect("a member");
        follower.restart_at(Lsn(sent), Monotonic(0));
        follower.durable = Lsn(durable);
        leader
    }

    fn is_overtaken_after(mut leader: Leader, ticks: u32, durable: u64, end: u64) -> bool {
        (0..ticks).for_each(|_| leader.look_at_disk(Lsn(durable), Lsn(end)));
        leader.is_disk_overtaken
    }

    #[test]
    fn a_disk_that_stands_still_is_overtaken_by_a_follower_that_has_more_or_waits_for_it() {
        let patience = DISK_STALL_TICKS + 1;
        assert!(is_overtaken_after(leader(6, 6), patience, 5, 6), "it has more");
        assert!(is_overtaken_after(leader(5, 5), patience, 5, 6), "the disk takes no commit here");
        assert!(!is_overtaken_after(leader(5, 5), patience - 1, 5, 6), "not yet");
        assert!(!is_overtaken_after(leader(6, 5), patience, 5, 6), "its disk stands still as well");
        assert!(!is_overtaken_after(leader(5, 5), patience, 5, 5), "nothing is written");
        assert!(!is_overtaken_after(leader(5, 4), patience, 5, 6), "it is behind");
        let mut lost = leader(6, 6);
        lost.follower(BrokerId(2)).expect("a member").on_lost();
        assert!(!is_overtaken_after(lost, patience, 5, 6), "nobody hears of it");
    }
}
