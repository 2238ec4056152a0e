//! Who of the brokers is in the metadata's group, and as what. Pure: the leader of the group asks for the next step, and
//! takes one at a time.
//!
//! ```text
//! registered ──► learner ──caught up, heard of, and a voter is wanted──► voter
//!                   ▲  └──────────────── removed ──► no member ◄── removed ──┘
//!                   └── more voters than wanted, all of them heard of ───────┘
//! ```
//! Of one or two brokers all are voters, of three or four three, of more five: an even number of voters survives no more
//! losses than the odd one below. A voter that is silent stays a voter until its broker is removed: whether it comes back
//! is not known here. One that leaves and one that takes its place change in one step, by way of a joint majority.

use corelog_protocol::ids::BrokerId;

use super::broker::BROKERS_MAX;
use super::consensus::{Change, MEMBERS_MAX, Members, ReplicaId};
use super::state::State;

const _: () = assert!(2 * BROKERS_MAX <= MEMBERS_MAX);

/// What the leader of the group does next about its members.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// To be proposed: one change of the members.
    Change(Vec<Change>),
    /// Somebody else has to lead before: the leader itself is to go.
    HandOver,
}

/// What the leader knows of the others.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    pub leader: BrokerId,
    pub members: &'a Members,
    pub state: &'a State,
    /// It was heard of lately.
    pub is_alive: &'a dyn Fn(BrokerId) -> bool,
    /// It has everything that is committed.
    pub is_caught_up: &'a dyn Fn(BrokerId) -> bool,
}

/// Voters of a group of so many brokers.
pub const fn voters_wanted(brokers: usize) -> usize {
    match brokers {
        0..=2 => brokers,
        3 | 4 => 3,
        _ => 5,
    }
}

/// The next step, if there is something to do that can be done now. Not to be asked while a change is under way.
pub fn next_step(facts: &Facts<'_>) -> Option<Step> {
    let Facts { members, state, .. } = *facts;
    // Those that are listed at the beginning are members before they register; lanes are dealt when all have.
    if members.is_joint() || state.lanes().is_empty() {
        return None;
    }
    let all = members.all();
    if let Some(new) = state.brokers().map(|it| it.id).find(|id| !all.contains(&member(*id))) {
        return Some(Step::Change(vec![Change::AddLearner(member(new))]));
    }
    let (voters, leaving) = apart(&members.voters, state);
    let (learners, gone) = apart(&members.learners, state);
    let wanted = voters_wanted(voters.len() + learners.len());
    if !leaving.is_empty() {
        return facts.let_go(&leaving, &voters, &learners, wanted);
    }
    if let Some(gone) = gone.first() {
        return Some(Step::Change(vec![Change::Remove(member(*gone))]));
    }
    if voters.len() < wanted {
        // From an odd number to an odd one.
        let count = if voters.len().is_multiple_of(2) { 1 } else { 2.min(wanted - voters.len()) };
        let next = facts.candidates(&learners, &voters);
        let changes: Vec<Change> =
            next.iter().take(count).map(|id| Change::AddVoter(member(*id))).collect();
        return (changes.len() == count).then_some(Step::Change(changes));
    }
    if voters.len() > wanted && voters.iter().all(|id| (facts.is_alive)(*id)) {
        let count = if voters.len().is_multiple_of(2) { 1 } else { 2.min(voters.len() - wanted) };
        let others = voters.iter().rev().filter(|id| **id != facts.leader);
        let demote = others.take(count).map(|id| Change::AddLearner(member(*id)));
        return Some(Step::Change(demote.collect()));
    }
    None
}

/// Whether those who are left can decide about the metadata if this broker is removed: a majority of the voters without
/// it, or with a learner in its place, is heard of.
pub fn can_decide_without(
    broker: BrokerId,
    members: &Members,
    state: &State,
    is_alive: impl Fn(BrokerId) -> bool,
) -> bool {
    let others = |ids: &[ReplicaId]| {
        let (mut stay, _) = apart(ids, state);
        stay.retain(|id| *id != broker);
        stay
    };
    let mut voters = others(&members.voters);
    let learners = others(&members.learners);
    let wanted = voters_wanted(voters.len() + learners.len());
    if voters.len() < wanted {
        voters.extend(learners.iter().find(|id| is_alive(**id)));
    }
    is_majority_alive(&voters, &is_alive)
}

impl Facts<'_> {
    /// One voter of a broker that was removed goes.
    fn let_go(
        &self,
        leaving: &[BrokerId],
        voters: &[BrokerId],
        learners: &[BrokerId],
        wanted: usize,
    ) -> Option<Step> {
        let next = self.candidates(learners, voters);
        let is_short = voters.len() < wanted;
        let Some(goes) = leaving.iter().copied().find(|id| *id != self.leader) else {
            if voters.iter().any(|id| (self.is_alive)(*id)) {
                return Some(Step::HandOver);
            }
            // Nobody could lead instead.
            return next.first().map(|id| Step::Change(vec![Change::AddVoter(member(*id))]));
        };
        let takes_its_place = next.first().copied().filter(|_| is_short);
        // It will be there soon.
        if is_short && takes_its_place.is_none() && learners.iter().any(|id| (self.is_alive)(*id)) {
            return None;
        }
        let stay = leaving.iter().chain(voters).copied().filter(|id| *id != goes);
        let left: Vec<BrokerId> = stay.chain(takes_its_place).collect();
        // What is left could not even take this back.
        if !is_majority_alive(&left, self.is_alive) {
            return None;
        }
        let add = takes_its_place.map(|id| Change::AddVoter(member(id)));
        Some(Step::Change(add.into_iter().chain([Change::Remove(member(goes))]).collect()))
    }

    /// The learners that could be voters now, those first in whose racks the fewest voters are.
    fn candidates(&self, learners: &[BrokerId], voters: &[BrokerId]) -> Vec<BrokerId> {
        let rack = |id: BrokerId| self.state.broker(id).map_or("", |record| &record.rack);
        let in_rack = |of: BrokerId| voters.iter().filter(|id| rack(**id) == rack(of)).count();
        let could = |id: &BrokerId| (self.is_alive)(*id) && (self.is_caught_up)(*id);
        let mut could: Vec<BrokerId> = learners.iter().copied().filter(could).collect();
        could.sort_by_key(|id| (in_rack(*id), *id));
        could
    }
}

/// Those who stay, and those whose brokers were removed.
fn apart(ids: &[ReplicaId], state: &State) -> (Vec<BrokerId>, Vec<BrokerId>) {
    // Members are brokers.
    let brokers = ids.iter().copied().filter_map(broker_of);
    brokers.partition(|id| !state.is_removed(*id))
}

fn is_majority_alive(voters: &[BrokerId], is_alive: impl Fn(BrokerId) -> bool) -> bool {
    2 * voters.iter().filter(|id| is_alive(**id)).count() > voters.len()
}

/// A broker has its own number in the group: it never comes back under it with another disk.
pub fn member(id: BrokerId) -> ReplicaId {
    ReplicaId(u64::from(id.0))
}

/// The other way round. `None`: no broker has this number.
pub fn broker_of(id: ReplicaId) -> Option<BrokerId> {
    u32::try_from(id.0).ok().map(BrokerId)
}

#[cfg(test)]
mod tests;
