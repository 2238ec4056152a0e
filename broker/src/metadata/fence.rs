//! A lane without a leader: what its replicas answered, and who may lead by that. Rule 6 of
//! `model/README.md`. Pure.
//!
//! ```text
//! answers in epoch 3     has       perhaps          may lead: A. B and C are a quorum, and nothing that they ever
//!   A                  (2, 40)    (2, 40)           acknowledged lies above (2, 40); B and C may not: of what A and
//!   B                  (2, 31)    (2, 35)           the other acknowledged, each of them may lack something
//!   C                  (1, 90)    (1, 90)
//! ```
//! An answer stays valid for its epoch, however late it comes: a replica that has promised acknowledges
//! nothing more of an earlier one.

use std::collections::BTreeMap;

use corelog_protocol::ids::{BrokerId, Epoch};

use super::command::Command;
use super::lane::{LaneRecord, LaneReplica};
use crate::planted::{Bug, is_planted};
use crate::replica::{FenceAnswer, Position};
use crate::time::{Monotonic, Nanos};

/// How long somebody else who may lead waits for the preferred leader.
pub const PREFERRED_WAIT: Nanos = Nanos::from_millis(100);

/// What one replica answered in the epoch, all in all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Answers {
    newest: FenceAnswer,
    /// The least of all answers: each of them is true of what was acknowledged before.
    has_min: Position,
    perhaps_min: Position,
}

/// The answers of one lane's replicas in one epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fence {
    epoch: Epoch,
    answers: BTreeMap<BrokerId, Answers>,
    /// When somebody was first found who may lead, but is not the preferred leader.
    found_at: Option<Monotonic>,
    /// When an answer last told something new.
    news_at: Monotonic,
}

impl Fence {
    pub fn new(epoch: Epoch, now: Monotonic) -> Self {
        Self { epoch, answers: BTreeMap::new(), found_at: None, news_at: now }
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// When an answer last told something new, or the fence began.
    pub fn news_at(&self) -> Monotonic {
        self.news_at
    }

    /// Until when the preferred leader is waited for, if it is.
    pub fn waits_until(&self) -> Option<Monotonic> {
        self.found_at.map(|found_at| found_at + PREFERRED_WAIT)
    }

    /// An answer of this epoch; of another one, it says nothing here.
    pub fn on_answer(&mut self, from: BrokerId, answer: &FenceAnswer, now: Monotonic) {
        if answer.epoch != self.epoch {
            return;
        }
        let FenceAnswer { has, perhaps, .. } = *answer;
        // What can be read was not acknowledged beyond what was perhaps acknowledged: nobody says so.
        let perhaps = perhaps.max(has);
        let new = Answers { newest: *answer, has_min: has, perhaps_min: perhaps };
        let is_news = match self.answers.get_mut(&from) {
            None => {
                self.answers.insert(from, new);
                true
            }
            Some(known) => {
                let before = *known;
                known.newest = *answer;
                known.has_min = known.has_min.min(has);
                known.perhaps_min = known.perhaps_min.min(perhaps);
                *known != before
            }
        };
        if is_news {
            self.news_at = now;
        }
    }

    /// A quorum of each set that counts has answered.
    pub fn has_quorum(&self, lane: &LaneRecord) -> bool {
        sets(lane).all(|set| {
            let answered = set.iter().filter(|one| self.answers.contains_key(&one.broker));
            answered.count() >= quorum(set)
        })
    }

    /// Whether a log that is whole through this position has all that was ever committed.
    pub fn covers_all(&self, lane: &LaneRecord, position: Position) -> bool {
        sets(lane).all(|set| self.covers(set, position))
    }

    fn covers(&self, set: &[LaneReplica], position: Position) -> bool {
        let answers = |one: &LaneReplica| self.answers.get(&one.broker);
        let perhaps = |answers: &Answers| match is_planted(Bug::PerhapsIgnored) {
            true => answers.has_min,
            false => answers.perhaps_min,
        };
        let decided = set
            .iter()
            .filter(|one| answers(one).is_some_and(|answers| perhaps(answers) <= position));
        // All have answered and none has more that can be read: had more been committed, each of its
        // copies, a quorum, would be bad. More than a minority is more than is provided for.
        let has_no_more =
            |one: &LaneReplica| answers(one).is_some_and(|answers| answers.has_min <= position);
        decided.count() >= quorum(set) || set.iter().all(has_no_more)
    }

    /// The command that names a leader, as soon as there is one who may lead and answers now. The target
    /// of a move or else the preferred one, if it may within [`PREFERRED_WAIT`]; else who can read the most. `is_unwanted`: it had
    /// better not lead, if somebody else can just as well.
    pub fn decide(
        &mut self,
        lane: &LaneRecord,
        now: Monotonic,
        is_alive: impl Fn(BrokerId) -> bool,
        is_unwanted: impl Fn(BrokerId) -> bool,
    ) -> Option<Command> {
        if lane.epoch != self.epoch || lane.leader.is_some() {
            return None;
        }
        let candidate = |one: &LaneReplica| {
            let position = self.answers.get(&one.broker)?.newest.has;
            let may_lead = is_alive(one.broker) && self.covers_all(lane, position);
            may_lead.then_some((one.broker, position))
        };
        // The first in line among equals.
        let candidates = lane.replicas.iter().rev().filter_map(candidate);
        let best = candidates.max_by_key(|(id, position)| (*position, !is_unwanted(*id)));
        let is_favored = lane.moving.is_some() || !is_unwanted(lane.favored());
        let favored = lane.replica(lane.favored()).filter(|_| is_favored).and_then(candidate);
        let chosen = match (favored, best) {
            (Some(preferred), _) => Some(preferred),
            (None, None) => {
                self.found_at = None;
                None
            }
            (None, Some(other)) => {
                let found_at = *self.found_at.get_or_insert(now);
                let is_over = now >= found_at + PREFERRED_WAIT;
                (is_over || !is_favored || !is_alive(lane.favored())).then_some(other)
            }
        };
        let (broker, position) = chosen?;
        Some(Command::LaneLeader { lane: lane.id, epoch: self.epoch, broker, position })
    }
}

/// The sets that count: the present one, and the one before until that is settled.
fn sets(lane: &LaneRecord) -> impl Iterator<Item = &[LaneReplica]> {
    let before = lane.before.as_deref().filter(|_| !is_planted(Bug::OldSetNotAsked));
    std::iter::once(&lane.replicas[..]).chain(before)
}

fn quorum(set: &[LaneReplica]) -> usize {
    set.len() / 2 + 1
}

#[cfg(test)]
mod tests;
