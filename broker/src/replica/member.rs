//! One replica of a lane: it promises, answers a fence, leads or follows.
//!
//! Everything that comes in is noted, and then [`Replica::advance`] does what is possible in the state as it is. So the
//! order in which a view, a leader's message, a flush and the end of a recovery come does not matter.
//!
//! Invariant: from the moment of deciding to promise an epoch, nothing of a lower one leaves.

mod moving;
mod telling;

use std::collections::VecDeque;

use corelog_protocol::ids::{BrokerId, Epoch, LaneId, Lsn};

use super::follower::{Follower, Lead, Matching, match_log, reads_through};
use super::leader::{Leader, Progress};
use super::message::LaneMessage;
use super::order::{LaneLog, Order, Resume};
use super::position::{FenceAnswer, Position};
use super::vote::Vote;
use crate::limits::{LEAD_AGAIN_NS, QUORUM_SILENCE_NS, REPLICATION_STALL_NS};
use crate::planted::{Bug, is_planted};
use crate::time::{Monotonic, Nanos};

/// What metadata says of a lane.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct LaneView {
    pub epoch: Epoch,
    /// Who leads this epoch, and the position for which it was chosen.
    pub leader: Option<(BrokerId, Position)>,
    pub members: Vec<BrokerId>,
    /// An older set of replicas still counts.
    pub is_changing: bool,
    /// Who shall lead next, and the number of the move.
    pub moving: Option<(BrokerId, u64)>,
}

#[derive(Debug)]
enum Phase {
    /// It obeys its promise, and waits for a leader.
    Fenced,
    /// It is becoming one of the two; the record of that is on its way to the disk.
    Accepting(Next),
    Leading(Leader),
    Following(Follower),
    /// Its directory or its vote failed: it says nothing any more.
    Failed,
}

#[derive(Debug)]
enum Next {
    Lead(Epoch),
    Follow(Lead),
}

/// See the file's page.
#[derive(Debug)]
pub struct Replica {
    lane: LaneId,
    me: BrokerId,
    view: LaneView,
    /// Durable.
    vote: Vote,
    storing: Option<Vote>,
    phase: Phase,
    is_log_open: bool,
    orders: VecDeque<Order>,
    /// The last leader that introduced itself and was not followed yet.
    lead: Option<Lead>,
    /// What was said to the fence of this epoch.
    answered: Option<FenceAnswer>,
    resigned: Epoch,
    /// It shall hand over what it leads.
    is_leaving: bool,
    /// The move that was said to be carried out.
    handed_over: Option<u64>,
}

impl Replica {
    /// `vote`: what the disk remembers.
    pub fn new(lane: LaneId, me: BrokerId, vote: Vote) -> Self {
        Self {
            lane,
            me,
            view: LaneView::default(),
            vote,
            storing: None,
            phase: Phase::Fenced,
            is_log_open: false,
            orders: VecDeque::new(),
            lead: None,
            answered: None,
            resigned: Epoch(0),
            is_leaving: false,
            handed_over: None,
        }
    }

    pub fn poll(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    pub fn lane(&self) -> LaneId {
        self.lane
    }

    pub fn view(&self) -> &LaneView {
        &self.view
    }

    pub fn vote(&self) -> Vote {
        self.vote
    }

    pub fn is_failed(&self) -> bool {
        matches!(self.phase, Phase::Failed)
    }

    /// The epoch in which it takes batches, if it does.
    pub fn serves(&self) -> Option<Epoch> {
        self.leading().filter(|leader| leader.is_serving).map(|leader| leader.epoch)
    }

    pub fn leading(&self) -> Option<&Leader> {
        match &self.phase {
            Phase::Leading(leader) => Some(leader),
            _ => None,
        }
    }

    pub fn leading_mut(&mut self) -> Option<&mut Leader> {
        match &mut self.phase {
            Phase::Leading(leader) => Some(leader),
            _ => None,
        }
    }

    pub fn following(&self) -> Option<&Follower> {
        match &self.phase {
            Phase::Following(follower) => Some(follower),
            _ => None,
        }
    }

    /// The greatest epoch that it obeys, also if that is not durable yet.
    fn decided(&self) -> Epoch {
        self.storing.map_or(self.vote.promised, |storing| storing.promised)
    }

    fn accepted(&self, log: &impl LaneLog) -> Epoch {
        self.vote.accepted.max(log.accepted())
    }

    /// The directory failed, or nobody knows what was promised.
    pub fn fail(&mut self) {
        self.retire();
        self.phase = Phase::Failed;
        self.orders.clear();
        self.orders.push_back(Order::Yield);
    }

    // What happens to it.

    pub fn on_view(&mut self, view: LaneView, log: &impl LaneLog, now: Monotonic) {
        if view.epoch < self.view.epoch {
            return;
        }
        self.view = view;
        self.advance(log, now);
        self.hand_over(log);
    }

    /// The order to store is carried out.
    pub fn on_stored(&mut self, log: &impl LaneLog, now: Monotonic) {
        let Some(vote) = self.storing.take() else { return };
        self.vote = vote;
        // A log that must be opened says by itself when it is.
        if self.is_log_open {
            self.take_office(log, now);
        }
        self.advance(log, now);
    }

    /// The log is recovered, or was opened as ordered.
    pub fn on_log_open(&mut self, log: &impl LaneLog, now: Monotonic) {
        self.is_log_open = true;
        if log.is_dormant() && matches!(self.phase, Phase::Accepting(_)) {
            // It could not be opened as ordered: more of it cannot be read than was known. Once more, from what is.
            self.phase = Phase::Fenced;
        }
        if self.storing.is_none() {
            self.take_office(log, now);
        }
        self.advance(log, now);
    }

    /// The epoch start was appended at this LSN.
    pub fn on_begun(&mut self, start: Lsn, log: &impl LaneLog, now: Monotonic) {
        if let Phase::Leading(leader) = &mut self.phase {
            leader.start = Some(start);
            self.introduce(log, now);
        }
    }

    /// More of the log is durable.
    pub fn on_durable(&mut self, log: &impl LaneLog, now: Monotonic) {
        self.count(log);
        self.advance(log, now);
    }

    /// Entries of the leader were appended.
    pub fn on_copied(&mut self) {
        if let Phase::Following(follower) = &mut self.phase {
            follower.asked_from = None;
        }
    }

    /// Its link came up: what was under way before is lost.
    pub fn on_peer_up(&mut self, peer: BrokerId, log: &impl LaneLog, now: Monotonic) {
        self.on_peer_down(peer);
        self.introduce(log, now);
        match &mut self.phase {
            Phase::Following(follower) if follower.leader == peer => self.ask(log),
            _ => {}
        }
    }

    pub fn on_peer_down(&mut self, peer: BrokerId) {
        if let Phase::Leading(leader) = &mut self.phase
            && let Some(follower) = leader.follower(peer)
        {
            follower.on_lost();
        }
    }

    /// Something came from this broker's shard that has the lane. Counts of one that follows: another may have promised a
    /// later epoch.
    pub fn on_heard(&mut self, peer: BrokerId, now: Monotonic) {
        if let Phase::Leading(leader) = &mut self.phase
            && let Some(follower) = leader.follower(peer)
            && follower.is_matched
        {
            follower.heard_at = now;
        }
    }

    /// A message of another replica, but for `Append` and `Anew`: see [`Self::takes`] and [`Self::begins_anew`].
    pub fn on_message(
        &mut self,
        from: BrokerId,
        epoch: Epoch,
        message: LaneMessage,
        log: &impl LaneLog,
        now: Monotonic,
    ) {
        match message {
            LaneMessage::Lead { history, end } => {
                let is_news = self.lead.as_ref().is_none_or(|lead| lead.epoch <= epoch);
                let names_other = self.view.epoch == epoch
                    && self.view.leader.is_some_and(|(leader, _)| leader != from);
                let is_whole = history.last().is_some_and(|(last, _)| *last == epoch);
                if let Phase::Following(follower) = &self.phase
                    && follower.epoch == epoch
                    && follower.leader == from
                {
                    self.ask(log);
                } else if is_news && is_whole && from != self.me && !names_other {
                    self.lead = Some(Lead { from, epoch, history, end });
                    self.advance(log, now);
                }
            }
            LaneMessage::Follow { next, durable } => {
                let end = log.next_lsn();
                if let Phase::Leading(leader) = &mut self.phase
                    && leader.epoch == epoch
                    && next <= end
                {
                    leader.on_ack(from, (durable, durable), end, now);
                    if let Some(follower) = leader.follower(from) {
                        follower.restart_at(next, now);
                    }
                    self.count(log);
                }
            }
            LaneMessage::Ack { received, durable } => {
                let end = log.next_lsn();
                if let Phase::Leading(leader) = &mut self.phase
                    && leader.epoch == epoch
                {
                    leader.on_ack(from, (received, durable), end, now);
                    self.count(log);
                }
            }
            LaneMessage::Append { .. } | LaneMessage::Anew { .. } | LaneMessage::Beat => {}
        }
    }

    /// Whether entries of this leader, from this LSN on, may be appended now. Asks the leader to go back if some before
    /// them are missing.
    pub fn takes(
        &mut self,
        from: BrokerId,
        epoch: Epoch,
        first: Lsn,
        (committed, wants_received): (Lsn, bool),
        log: &impl LaneLog,
        now: Monotonic,
    ) -> bool {
        let next = log.next_lsn();
        let Phase::Following(follower) = &mut self.phase else { return false };
        if follower.epoch != epoch || follower.leader != from {
            return false;
        }
        follower.wants_received = wants_received;
        follower.on_told(committed, now);
        if first == next {
            return true;
        }
        if follower.asked_from != Some(next) {
            self.ask(log);
        }
        false
    }

    /// It leads, and somebody else says that it has everything that is committed.
    pub fn is_whole_elsewhere(&self) -> bool {
        self.leading().is_some_and(|leader| {
            leader.followers.iter().any(|other| other.durable >= leader.committed)
        })
    }

    /// Something that was durable here cannot be read any more. A leader lets another one lead that has it all; a follower
    /// cuts its log there, and is sent again what lies above. Until that is durable it tells of what it had.
    ///
    /// True if something is done about it.
    pub fn on_damaged(&mut self, log: &impl LaneLog, now: Monotonic) -> bool {
        let (has, Some(bad_end)) = (log.has(), log.bad_end()) else { return false };
        match &self.phase {
            Phase::Leading(_) => {
                let is_elsewhere = self.is_whole_elsewhere();
                if is_elsewhere {
                    self.resign();
                }
                is_elsewhere
            }
            Phase::Following(follower) if self.storing.is_none() => {
                let (from, epoch) = (follower.leader, follower.epoch);
                let lead = Lead { from, epoch, history: Vec::new(), end: bad_end };
                self.phase = Phase::Accepting(Next::Follow(lead));
                let resume = Resume { at: has.end, accepted: epoch, bad_end: Some(bad_end) };
                self.reopen(Order::Reopen(resume));
                true
            }
            // Whoever leads next is matched with, and that sees it.
            _ => {
                self.advance(log, now);
                false
            }
        }
    }

    /// The log of this leader begins at `first`, which is told with a checkpoint of what was below. True if this log lacks
    /// something of that: then it is dropped, and begins anew there.
    ///
    /// What the leader's log has lost below was committed, and so was all that was acknowledged here below: a log that
    /// begins with the checkpoint has what it stands for.
    pub fn begins_anew(
        &mut self,
        from: BrokerId,
        epoch: Epoch,
        (first, end): (Lsn, Lsn),
        log: &impl LaneLog,
    ) -> bool {
        let Phase::Following(follower) = &self.phase else { return false };
        let is_leader = follower.epoch == epoch && follower.leader == from;
        if !is_leader || self.storing.is_some() || first <= log.next_lsn() {
            return false;
        }
        let still_bad = log.bad_end().map(|bad_end| bad_end.min(end));
        let bad_end = still_bad.filter(|bad_end| *bad_end > first);
        let lead = Lead { from, epoch, history: Vec::new(), end };
        self.phase = Phase::Accepting(Next::Follow(lead));
        self.reopen(Order::Rebuild(Resume { at: first, accepted: epoch, bad_end }));
        true
    }

    /// What of the leader's committed LSN holds for this log: everything below is equal to the leader's.
    pub fn committed(&self, log: &impl LaneLog) -> Lsn {
        match &self.phase {
            Phase::Leading(leader) => leader.committed,
            Phase::Following(_) if is_planted(Bug::FollowerServesUncommitted) => log.next_lsn(),
            Phase::Following(follower) => follower.committed.min(log.next_lsn()),
            _ => Lsn(0),
        }
    }

    /// What is committed and below `end` can be read here.
    pub fn on_readable(&mut self, end: Lsn) {
        if let Phase::Following(follower) = &mut self.phase {
            follower.on_readable(end);
        }
    }

    /// Whether readers that take any replica are served here, though another one leads: it follows in the present epoch,
    /// so its log equals the leader's, and it knows what was committed not long ago.
    pub fn serves_as_follower(&self, now: Monotonic) -> bool {
        match &self.phase {
            Phase::Following(follower) => {
                let is_present = follower.epoch == self.decided() && follower.is_fresh(now);
                is_present || is_planted(Bug::FollowerServesStaleEpoch)
            }
            Phase::Fenced => is_planted(Bug::FollowerServesStaleEpoch),
            Phase::Accepting(_) | Phase::Leading(_) | Phase::Failed => false,
        }
    }

    /// What a follower has to tell its leader now: through where it is durable. `None`: nothing new.
    pub fn ack(&mut self, log: &impl LaneLog) -> Option<(BrokerId, Epoch, LaneMessage)> {
        let Phase::Following(follower) = &mut self.phase else { return None };
        let (received, durable) = (log.next_lsn(), log.has().end);
        let is_wanted = follower.wants_received && received > follower.told_received;
        if durable <= follower.acked && !is_wanted {
            return None;
        }
        follower.acked = durable.max(follower.acked);
        follower.told_received = received;
        let message = LaneMessage::Ack { received, durable };
        Some((follower.leader, follower.epoch, message))
    }

    /// What a leader says with entries from `first` on, or with none.
    pub fn append_to(
        &mut self,
        to: BrokerId,
        first: Lsn,
        now: Monotonic,
    ) -> Option<(Epoch, LaneMessage)> {
        let leader = self.leading_mut()?;
        let (epoch, committed) = (leader.epoch, leader.committed);
        let wants_received = leader.memory_wanted > leader.received;
        let follower = leader.follower(to).filter(|follower| follower.is_matched)?;
        follower.told = committed;
        follower.told_at = now;
        Some((epoch, LaneMessage::Append { first, committed, wants_received }))
    }

    /// Called about every 100 ms: says again what may have been lost, and looks whether a quorum is there.
    pub fn on_tick(&mut self, log: &impl LaneLog, now: Monotonic) {
        match &mut self.phase {
            Phase::Leading(leader) => {
                let since = Monotonic(now.0.saturating_sub(QUORUM_SILENCE_NS));
                leader.look_at_disk(log.has().end, log.next_lsn());
                let has_quorum = leader.has_quorum_since(since) && !leader.is_resigning;
                let epoch = leader.epoch;
                if !has_quorum {
                    stop_serving(leader, &mut self.orders);
                } else if !leader.is_serving && leader.committed > Lsn(0) {
                    leader.is_serving = true;
                    self.orders.push_back(Order::Serve(epoch));
                }
                let patience = Nanos(REPLICATION_STALL_NS);
                let stalled = |follower: &&mut Progress| follower.is_stalled(patience, now);
                leader.followers.iter_mut().filter(stalled).for_each(Progress::on_lost);
                leader.look_who_is_caught_up(log.next_lsn(), since, now);
                if self.view.is_changing && self.view.epoch == epoch {
                    self.settle();
                }
                self.introduce(log, now);
                self.handed_over = None;
                self.hand_over(log);
                self.offer();
                self.tell_progress(log, now);
            }
            Phase::Fenced => {
                self.answered = None;
                self.resigned = Epoch(0);
                self.advance(log, now);
            }
            Phase::Following(_) | Phase::Accepting(_) | Phase::Failed => {}
        }
    }

    /// The directory of its log makes nothing durable, while disks of others do: another one shall lead that has all.
    pub fn on_disk_overtaken(&mut self) {
        let is_new = self.leading().is_some_and(|leader| !leader.is_resigning);
        if is_new && self.is_whole_elsewhere() {
            tracing::error!(
                lane = self.lane.0,
                "the disk makes nothing durable, and that of a follower does: another one shall lead"
            );
            self.resign();
        }
    }

    /// It cannot tell all that it has: somebody else must lead.
    pub fn resign(&mut self) {
        if let Phase::Leading(leader) = &mut self.phase {
            leader.is_resigning = true;
            stop_serving(leader, &mut self.orders);
        }
    }

    // What it does.

    /// No role any more. Who waits for a commit is told that nobody knows.
    fn retire(&mut self) {
        if let Phase::Leading(_) = self.phase {
            self.orders.push_back(Order::Yield);
        }
        self.phase = Phase::Fenced;
        self.answered = None;
    }

    /// The next thing that is possible, after whatever happened.
    fn advance(&mut self, log: &impl LaneLog, now: Monotonic) {
        if self.is_failed() || self.storing.is_some() {
            return;
        }
        let led = self.lead.as_ref().map_or(Epoch(0), |lead| lead.epoch);
        let wanted = self.view.epoch.max(led);
        if wanted > self.vote.promised {
            self.promise(wanted);
            return;
        }
        if !self.is_log_open || !matches!(self.phase, Phase::Fenced) {
            return;
        }
        let promised = self.vote.promised;
        match self.lead.take_if(|lead| lead.epoch <= promised) {
            Some(lead) if lead.epoch == promised => self.follow(lead, log, now),
            _ if self.view.epoch != promised => {}
            _ => match self.view.leader {
                Some((broker, position)) if broker == self.me => self.begin(position, log, now),
                // Whoever leads introduces itself.
                Some(_) => {}
                None => self.answer(log),
            },
        }
    }

    fn promise(&mut self, epoch: Epoch) {
        let keeps_role = (is_planted(Bug::FencedLeaderCounts) && self.leading().is_some())
            || (is_planted(Bug::LateAck) && self.following().is_some());
        if !keeps_role {
            self.retire();
        }
        self.answered = None;
        let vote = Vote { promised: epoch, accepted: self.vote.accepted };
        if is_planted(Bug::PromiseNotDurable) {
            self.vote = vote;
        }
        self.store(vote);
    }

    fn store(&mut self, vote: Vote) {
        self.storing = Some(vote);
        self.orders.push_back(Order::Store(vote));
    }

    fn answer(&mut self, log: &impl LaneLog) {
        let has = log.has();
        // The epoch of what cannot be read is at most the last one in which entries were taken.
        let perhaps = log.bad_end().map(|end| Position { epoch: self.accepted(log), end });
        let perhaps = perhaps.unwrap_or(has).max(has);
        let answer = FenceAnswer { lane: self.lane, epoch: self.vote.promised, has, perhaps };
        if self.answered != Some(answer) {
            self.answered = Some(answer);
            self.orders.push_back(Order::Answer(answer));
        }
    }

    /// Begins the promised epoch, for which it was named, if it may: rules 10 to 12 of the model.
    fn begin(&mut self, position: Position, log: &impl LaneLog, now: Monotonic) {
        let epoch = self.vote.promised;
        let is_fresh = self.accepted(log) < epoch || is_planted(Bug::LeaderResumes);
        let is_whole = reads_through(log, position) || is_planted(Bug::BeginsFromLess);
        if !is_fresh || !is_whole || !self.view.members.contains(&self.me) {
            if self.resigned < epoch {
                self.resigned = epoch;
                self.orders.push_back(Order::Resign(epoch));
            }
            return;
        }
        self.phase = Phase::Accepting(Next::Lead(epoch));
        let resume = Resume { at: log.has().end, accepted: epoch, bad_end: None };
        if log.bad_end().is_some() {
            self.reopen(Order::Reopen(resume));
        } else if log.is_dormant() {
            self.reopen(Order::Resume(resume));
        } else {
            self.store(Vote { promised: epoch, accepted: epoch });
            if is_planted(Bug::BeginsBeforeAccepted) {
                self.take_office(log, now);
            }
        }
    }

    fn follow(&mut self, lead: Lead, log: &impl LaneLog, now: Monotonic) {
        let accepted = self.accepted(log);
        if is_planted(Bug::AckBeforeMatch) && !log.is_dormant() {
            self.phase = Phase::Following(Follower::new(&lead));
            return self.ask(log);
        }
        let matching = match_log(&lead, log, accepted);
        let epoch = lead.epoch;
        self.phase = Phase::Accepting(Next::Follow(lead));
        match matching {
            Matching::Resume(resume) => self.reopen(Order::Resume(resume)),
            Matching::Reopen(resume) => self.reopen(Order::Reopen(resume)),
            Matching::Equal if accepted < epoch => {
                self.store(Vote { promised: epoch, accepted: epoch });
            }
            Matching::Equal => self.take_office(log, now),
        }
    }

    fn reopen(&mut self, order: Order) {
        self.is_log_open = false;
        self.orders.push_back(order);
    }

    /// The record of what it is becoming is durable.
    fn take_office(&mut self, log: &impl LaneLog, now: Monotonic) {
        match std::mem::replace(&mut self.phase, Phase::Fenced) {
            Phase::Accepting(Next::Lead(epoch)) => {
                let leader = Leader::new(epoch, self.me, &self.view.members, now);
                self.phase = Phase::Leading(leader);
                self.orders.push_back(Order::Begin(epoch));
            }
            Phase::Accepting(Next::Follow(lead)) => {
                self.phase = Phase::Following(Follower::new(&lead));
                self.ask(log);
            }
            other => self.phase = other,
        }
    }

    /// Asks the leader to send from the end of the log on.
    fn ask(&mut self, log: &impl LaneLog) {
        let Phase::Following(follower) = &mut self.phase else { return };
        let (next, durable) = (log.next_lsn(), log.has().end);
        follower.asked_from = Some(next);
        follower.acked = durable;
        let message = LaneMessage::Follow { next, durable };
        let (to, epoch) = (follower.leader, follower.epoch);
        self.orders.push_back(Order::Send { to, epoch, message });
    }

    /// Tells those who do not follow yet who leads.
    fn introduce(&mut self, log: &impl LaneLog, now: Monotonic) {
        let Phase::Leading(leader) = &mut self.phase else { return };
        if leader.start.is_none() {
            return;
        }
        let epoch = leader.epoch;
        let again = Nanos(LEAD_AGAIN_NS);
        let is_due = |at: Option<Monotonic>| at.is_none_or(|at| at + again <= now);
        for follower in leader.followers.iter_mut().filter(|follower| !follower.is_matched) {
            if is_due(follower.asked_at) {
                follower.asked_at = Some(now);
                let history = log.history().to_vec();
                let (to, end) = (follower.broker, log.next_lsn());
                let message = LaneMessage::Lead { history, end };
                self.orders.push_back(Order::Send { to, epoch, message });
            }
        }
    }

    /// Commits what a quorum has.
    fn count(&mut self, log: &impl LaneLog) {
        let decided = self.decided();
        let Phase::Leading(leader) = &mut self.phase else { return };
        if leader.epoch != decided && !is_planted(Bug::FencedLeaderCounts) {
            return;
        }
        if !leader.advance(log.has().end, log.next_lsn()) {
            self.hand_over(log);
            return;
        }
        self.orders.push_back(Order::Commit(leader.committed));
        if !leader.is_serving {
            leader.is_serving = true;
            self.orders.push_back(Order::Serve(leader.epoch));
            if self.view.is_changing && self.view.epoch == leader.epoch {
                self.settle();
            }
        }
        self.hand_over(log);
    }

    fn settle(&mut self) {
        if let Phase::Leading(leader) = &self.phase
            && leader.committed > Lsn(0)
        {
            self.orders.push_back(Order::Settled(leader.epoch));
        }
    }
}

/// Another epoch is needed, and this one serves no more.
fn stop_serving(leader: &mut Leader, orders: &mut VecDeque<Order>) {
    if std::mem::take(&mut leader.is_serving) {
        orders.push_back(Order::Yield);
    }
    orders.push_back(Order::Resign(leader.epoch));
}
