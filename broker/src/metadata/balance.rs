//! Leadership goes where less is to do, by itself: whoever leads the metadata looks now and then at what lanes cost their
//! leaders, and has one lane transferred if that is worth it. Pure: what is known in, at most one command out.
//!
//! ```text
//! broker 1: 60 + 40    broker 2: 10    broker 3: 10    mean 40, and 1 has 90 more than 3: more than a quarter of the mean
//!        at the next look as well: the 40 go to 2     1 has 60 then, 40 less than before: more than a tenth
//! broker 1: 60         broker 2: 50    broker 3: 10    nothing that 1 could give makes the most that a broker has a
//!                                                      tenth less, so all stays as it is
//! ```
//! It is slow on purpose. Nothing is done while anything is moving, or is not known; what was seen has to be seen again at
//! the next look; and after a transfer it looks twice again before the next. A transfer is an operator's: nothing is lost by
//! it, and its target is the preferred leader from then on. It cannot be undone by the same figures, because
//! the greatest load of the two brokers fell by it.

use std::collections::BTreeMap;

use corelog_protocol::ids::{BrokerId, LaneId};

use super::command::Command;
use super::failover::Failover;
use super::lane::LaneRecord;
use super::operation::transfer;
use super::state::State;
use crate::limits::{BALANCE_EVERY_NS, LOAD_NOISE};
use crate::time::{Monotonic, Nanos};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BalanceConfig {
    /// From one look to the next.
    pub every: Nanos,
    /// Less than this is no difference.
    pub noise: u64,
}

impl Default for BalanceConfig {
    fn default() -> Self {
        Self { every: Nanos(BALANCE_EVERY_NS), noise: LOAD_NOISE }
    }
}

/// See the file's page. Asked only while this broker leads the metadata.
#[derive(Clone, Debug)]
pub struct Balancer {
    config: BalanceConfig,
    next_look: Monotonic,
    /// Who had too much at the last look.
    burdened: Option<BrokerId>,
}

impl Balancer {
    pub fn new(config: BalanceConfig) -> Self {
        Self { config, next_look: Monotonic(0) + config.every, burdened: None }
    }

    /// The leadership of the metadata was gained: nothing was seen yet.
    pub fn reset(&mut self, now: Monotonic) {
        self.next_look = now + self.config.every;
        self.burdened = None;
    }

    /// When to look next.
    pub fn next_look(&self) -> Monotonic {
        self.next_look
    }

    /// Looks. The command is to be proposed; if it is not, the next look comes to the same.
    pub fn look(&mut self, now: Monotonic, state: &State, failover: &Failover) -> Option<Command> {
        self.next_look = now + self.config.every;
        let before = self.burdened.take();
        let spread = Spread::of(state, failover, now)?;
        let burdened = spread.burdened(self.config.noise)?;
        let best = spread.best_transfer(burdened, self.config.noise);
        let Some((lane, to)) = best.filter(|_| before == Some(burdened)) else {
            self.burdened = Some(burdened);
            return None;
        };
        transfer(state, (lane, to), failover, now).ok()
    }
}

/// Who bears what.
struct Spread<'a> {
    /// Of each broker that is heard.
    totals: BTreeMap<BrokerId, u64>,
    lanes: Vec<Burden<'a>>,
}

struct Burden<'a> {
    lane: &'a LaneRecord,
    load: u64,
    /// All its followers keep up.
    is_free: bool,
}

impl<'a> Spread<'a> {
    /// None while something is moving or about to move, or is not known.
    fn of(state: &'a State, failover: &Failover, now: Monotonic) -> Option<Self> {
        if state.brokers().any(|broker| failover.is_unwanted(broker.id, now, state)) {
            return None;
        }
        let could_lead = |id: BrokerId| failover.could_lead(id, now);
        let able = state.brokers().map(|broker| broker.id).filter(|id| could_lead(*id));
        let mut totals: BTreeMap<BrokerId, u64> = able.map(|id| (id, 0)).collect();
        let mut lanes = Vec::new();
        for lane in state.lanes().iter().filter(|lane| lane.is_replicated()) {
            let leader = lane.leader_id()?;
            let goes_back = leader != lane.preferred() && could_lead(lane.preferred());
            if lane.moving.is_some() || lane.before.is_some() || goes_back {
                return None;
            }
            let progress = failover.progress(lane, now)?;
            let load = failover.load(lane.id).filter(|load| load.epoch == lane.epoch)?;
            let load = load.rates.load(lane.replicas.len() - 1);
            let total = totals.get_mut(&leader)?;
            *total = total.saturating_add(load);
            let is_free = progress.followers.iter().all(|follower| follower.is_caught_up);
            lanes.push(Burden { lane, load, is_free });
        }
        Some(Self { totals, lanes })
    }

    /// Who has the most, if that is more than the least that one has by a quarter of the mean.
    fn burdened(&self, noise: u64) -> Option<BrokerId> {
        let least = *self.totals.values().min()?;
        let (most, burdened) =
            self.totals.iter().map(|(id, total)| (*total, *id)).max_by_key(|(total, _)| *total)?;
        let sum: u128 = self.totals.values().map(|total| u128::from(*total)).sum();
        let difference = most - least;
        // 4 x difference > mean
        let is_skewed = 4 * u128::from(difference) * self.totals.len() as u128 > sum;
        (is_skewed && difference > noise).then_some(burdened)
    }

    /// Which of its lanes had better be led by whom, if the more loaded one of the two has at least a tenth less after that
    /// than this one has now.
    fn best_transfer(&self, from: BrokerId, noise: u64) -> Option<(LaneId, BrokerId)> {
        let most = *self.totals.get(&from)?;
        let of_it = self.lanes.iter().filter(|it| it.is_free && it.lane.leader_id() == Some(from));
        let transfers = of_it.flat_map(|it| {
            let targets = it.lane.replicas.iter().map(|replica| replica.broker);
            targets.filter(|to| *to != from).filter_map(|to| {
                let comes_to = self.totals.get(&to)?.saturating_add(it.load);
                Some((comes_to.max(most.saturating_sub(it.load)), it.lane.id, to))
            })
        });
        let (after, lane, to) = transfers.min()?;
        let gain = most.saturating_sub(after);
        let is_worth_it = gain > noise && u128::from(gain) * 10 >= u128::from(most);
        is_worth_it.then_some((lane, to))
    }
}

#[cfg(test)]
mod tests;
