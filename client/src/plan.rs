//! Plans of several operations: what empties a broker so that it can go, and what spreads lanes over those that are there.
//! Pure functions of a status.
//!
//! A plan is made anew from each status, and only its first step is carried out: so it goes on from whatever there is, also
//! after it was interrupted, and takes what has changed meanwhile as it is. [`Admin::carry_out_plan`] does that.
//!
//! [`Admin::carry_out_plan`]: crate::Admin::carry_out_plan

mod load;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use corelog_protocol::ids::{BrokerId, LaneId};
use corelog_protocol::message::{ClusterStatusReply, LaneStatus, Operation};

/// Why there is no plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum NoPlan {
    /// No broker has this number, and none that had is still about to go.
    UnknownBroker {
        /// Which one.
        broker: BrokerId,
    },
    /// The leader of the metadata could not be asked, so nobody knows who is there. Passes.
    NobodyKnows,
    /// There is load, and of this lane it is not known how much. Passes some seconds after its leader began.
    LoadNotKnown {
        /// Which one.
        lane: LaneId,
    },
    /// No broker that is there, leads whatever it is given and has no copy of the lane yet could take this one.
    NoPlace {
        /// What cannot be put anywhere.
        lane: LaneId,
        /// Where it is.
        broker: BrokerId,
    },
    /// There is one copy, and no operation moves that.
    OnlyCopy {
        /// Of this lane.
        lane: LaneId,
        /// Where it is.
        broker: BrokerId,
    },
}

impl fmt::Display for NoPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownBroker { broker } => write!(f, "there is no broker {broker}"),
            Self::NobodyKnows => {
                f.write_str("nobody leads the metadata: who is alive is not known")
            }
            Self::LoadNotKnown { lane } => {
                write!(f, "what lane {lane} costs its leader is not known yet")
            }
            Self::NoPlace { lane, broker } => write!(
                f,
                "no other broker that is alive and does not drain could take the copy of lane {lane} on broker \
                 {broker}: each copy is on a broker of its own"
            ),
            Self::OnlyCopy { lane, broker } => {
                write!(f, "broker {broker} has the only copy of lane {lane}, which cannot be moved")
            }
        }
    }
}

impl std::error::Error for NoPlan {}

/// The steps after which this broker belongs to the cluster no more: it is drained if it is alive, each lane that it has a
/// copy of gets another one, on the brokers `onto` (on any, if it is empty), and then it is removed. None: it is gone.
///
/// A copy goes where no other copy of the lane is in the same rack, if there is such a place, and there to the broker with
/// the fewest copies. It takes the place of the old one, so that what the broker led is led by as many others.
///
/// # Errors
/// [`NoPlan`] says what is in the way.
pub fn plan_removal(
    status: &ClusterStatusReply,
    broker: BrokerId,
    onto: &[BrokerId],
) -> Result<Vec<Operation>, NoPlan> {
    let remove = Operation::Remove { broker };
    let Some(known) = status.broker(broker) else {
        return match status.is_member(broker) {
            true => Ok(vec![remove]),
            false => Err(NoPlan::UnknownBroker { broker }),
        };
    };
    if let Some(unknown) = onto.iter().find(|id| status.broker(**id).is_none()) {
        return Err(NoPlan::UnknownBroker { broker: *unknown });
    }
    let mut model = Model::of(status)?;
    let mut steps = Vec::new();
    let leads = status.led_by(broker).next().is_some() || status.metadata_leader == Some(broker);
    if known.is_alive == Some(true) && (leads || !known.is_draining) {
        steps.push(Operation::Drain { broker });
    }
    model.places.retain(|id| *id != broker && (onto.is_empty() || onto.contains(id)));
    for lane in &status.lanes {
        let at = lane.replicas.iter().position(|it| it.broker == broker);
        if lane.replicas.len() == 1 && at.is_some() {
            return Err(NoPlan::OnlyCopy { lane: lane.lane, broker });
        }
        if let Some(wait) =
            waits_for(lane).filter(|_| at.is_some() || lane.before.contains(&broker))
        {
            steps.push(wait);
        }
        let Some(at) = at else { continue };
        let no_place = NoPlan::NoPlace { lane: lane.lane, broker };
        let takes_it = model.best_place(lane.lane, broker).ok_or(no_place)?;
        model.put(lane.lane, at, takes_it);
        steps.push(model.replace(lane.lane));
    }
    steps.push(remove);
    Ok(steps)
}

/// The steps after which the numbers of copies on each broker differ by at most one, as far as racks permit, and no transfer of
/// a lane makes the greatest load of a broker a tenth less. Without any load worth the name, the numbers of
/// lanes that prefer to be led by a broker differ by at most one instead. Brokers that are silent or drain keep what they have,
/// and get nothing. If there are fewer lanes than the brokers have cores, then a broker with a core that leads nothing gets
/// new ones: one for each of its shards.
///
/// Load is what the leaders of lanes have measured.
///
/// # Errors
/// [`NoPlan::NobodyKnows`]; and [`NoPlan::LoadNotKnown`] if nothing is left to do but to look at that.
pub fn plan_balance(status: &ClusterStatusReply) -> Result<Vec<Operation>, NoPlan> {
    let mut model = Model::of(status)?;
    let mut steps: Vec<Operation> = status.lanes.iter().filter_map(waits_for).collect();
    while let Some((lane, from, to)) = model.next_copy() {
        let at = model.lanes[&lane].replicas.iter().position(|id| *id == from);
        let Some(at) = at else { break };
        if model.lanes[&lane].leader == Some(from) {
            // Its leader stays when a lane gets other copies: so another one leads first.
            let Some(leads) = model.next_leader(lane, from) else { break };
            steps.push(model.transfer(lane, leads));
        }
        let at = model.lanes[&lane].replicas.iter().position(|id| *id == from).unwrap_or(at);
        model.put(lane, at, to);
        steps.push(model.replace(lane));
    }
    if !model.is_loaded() {
        while let Some(moves) = model.next_leads() {
            for (lane, to) in moves {
                steps.push(model.transfer(lane, to));
            }
        }
    } else if let Some(lane) = model.lane_not_measured() {
        return if steps.is_empty() { Err(NoPlan::LoadNotKnown { lane }) } else { Ok(steps) };
    } else {
        while let Some((lane, to)) = model.next_by_load() {
            steps.push(model.transfer(lane, to));
        }
    }
    while let Some(broker) = model.next_to_grow() {
        steps.push(model.grow(broker));
    }
    Ok(steps)
}

/// A change of the lane's copies that is under way is waited for.
fn waits_for(lane: &LaneStatus) -> Option<Operation> {
    let is_changing =
        !lane.before.is_empty() || lane.leader.is_some() && lane.moving_to == lane.leader;
    let replicas = lane.replicas.iter().map(|it| it.broker).collect();
    is_changing.then_some(Operation::Replace { lane: lane.lane, replicas })
}

/// Where everything is, and will be after the steps so far.
struct Model {
    lanes: BTreeMap<LaneId, Lane>,
    racks: BTreeMap<BrokerId, String>,
    shards: BTreeMap<BrokerId, usize>,
    /// Brokers that may get something: alive, and they do not drain.
    places: Vec<BrokerId>,
}

struct Lane {
    replicas: Vec<BrokerId>,
    leader: Option<BrokerId>,
    /// If it is known.
    load: Option<u64>,
}

impl Model {
    fn of(status: &ClusterStatusReply) -> Result<Self, NoPlan> {
        if status.brokers.iter().all(|broker| broker.is_alive.is_none()) {
            return Err(NoPlan::NobodyKnows);
        }
        let lane = |lane: &LaneStatus| {
            let replicas = lane.replicas.iter().map(|it| it.broker).collect();
            let load = lane.load.map(|load| load.load);
            (lane.lane, Lane { replicas, leader: lane.leader, load })
        };
        let may_have =
            status.brokers.iter().filter(|it| it.is_alive == Some(true) && !it.is_draining);
        Ok(Self {
            lanes: status.lanes.iter().map(lane).collect(),
            racks: status.brokers.iter().map(|it| (it.id, it.rack.clone())).collect(),
            shards: status.brokers.iter().map(|it| (it.id, usize::from(it.shards))).collect(),
            places: may_have.map(|it| it.id).collect(),
        })
    }

    fn copies(&self, broker: BrokerId) -> usize {
        self.lanes.values().filter(|lane| lane.replicas.contains(&broker)).count()
    }

    /// Lanes that prefer to be led by it. What has one copy is led by it in any case.
    fn leads(&self, broker: BrokerId) -> usize {
        self.lanes.values().filter(|lane| lane.replicas.first() == Some(&broker)).count()
    }

    /// Whether a copy here, in place of that one, would be in the rack of another copy.
    fn shares_rack(&self, lane: &Lane, leaves: BrokerId, comes: BrokerId) -> bool {
        let rack = |id| self.racks.get(&id).filter(|rack| !rack.is_empty());
        let others = lane.replicas.iter().filter(|id| **id != leaves);
        rack(comes).is_some_and(|new| others.into_iter().any(|id| rack(*id) == Some(new)))
    }

    fn best_place(&self, id: LaneId, leaves: BrokerId) -> Option<BrokerId> {
        let lane = self.lanes.get(&id)?;
        let free = self.places.iter().filter(|place| !lane.replicas.contains(place));
        free.copied().min_by_key(|place| {
            (self.shares_rack(lane, leaves, *place), self.copies(*place), *place)
        })
    }

    fn put(&mut self, id: LaneId, at: usize, broker: BrokerId) {
        if let Some(place) = self.lanes.get_mut(&id).and_then(|lane| lane.replicas.get_mut(at)) {
            *place = broker;
        }
    }

    fn replace(&self, lane: LaneId) -> Operation {
        Operation::Replace { lane, replicas: self.lanes[&lane].replicas.clone() }
    }

    /// Its target is preferred from then on.
    fn transfer(&mut self, id: LaneId, to: BrokerId) -> Operation {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.leader = Some(to);
            lane.replicas.sort_by_key(|replica| *replica != to);
        }
        Operation::Transfer { lane: id, to }
    }

    /// A broker with a core that leads nothing, if there are fewer lanes than cores. Lanes with one copy are as they are, and
    /// more of them would be no gain for those that there are.
    fn next_to_grow(&self) -> Option<BrokerId> {
        let copies = self.copies_of_a_lane();
        let shards = |id: &BrokerId| self.shards.get(id).copied().unwrap_or_default();
        let cores: usize = self.places.iter().map(shards).sum();
        if copies < 2 || self.places.len() < copies || self.lanes.len() >= cores {
            return None;
        }
        self.places.iter().copied().find(|id| self.leads(*id) < shards(id))
    }

    fn copies_of_a_lane(&self) -> usize {
        self.lanes.values().map(|lane| lane.replicas.len()).max().unwrap_or_default()
    }

    /// As the broker that leads the metadata will do it, about.
    fn grow(&mut self, broker: BrokerId) -> Operation {
        let copies = self.copies_of_a_lane();
        let mut last = self.lanes.keys().last().copied().unwrap_or(LaneId(0));
        for _ in 0..self.shards.get(&broker).copied().unwrap_or(1) {
            last = LaneId(last.0 + 1);
            self.lanes
                .insert(last, Lane { replicas: vec![broker], leader: Some(broker), load: None });
            for _ in 1..copies {
                let Some(next) = self.best_place(last, BrokerId(0)) else { break };
                if let Some(lane) = self.lanes.get_mut(&last) {
                    lane.replicas.push(next);
                }
            }
        }
        Operation::AddLanes { broker, up_to: last }
    }

    /// Who leads a lane if this one does no more: of those that may, who leads the fewest.
    fn next_leader(&self, id: LaneId, leaves: BrokerId) -> Option<BrokerId> {
        let others = self.lanes.get(&id)?.replicas.iter().filter(|it| **it != leaves);
        let may_lead = others.filter(|it| self.places.contains(it));
        may_lead.copied().min_by_key(|it| (self.leads(*it), *it))
    }

    /// A copy that goes from one with at least two more to one with fewer: from the fullest, to the emptiest, and one that
    /// does not lead if there is such a copy.
    fn next_copy(&self) -> Option<(LaneId, BrokerId, BrokerId)> {
        let mut by_count = self.places.clone();
        by_count.sort_by_key(|id| (self.copies(*id), *id));
        for &from in by_count.iter().rev() {
            for &to in &by_count {
                if self.copies(from) < self.copies(to) + 2 {
                    break;
                }
                let could = self.lanes.iter().filter(|(_, lane)| {
                    let is_there = lane.replicas.len() > 1 && lane.replicas.contains(&from);
                    let is_worse =
                        self.shares_rack(lane, from, to) && !self.shares_rack(lane, from, from);
                    is_there && !lane.replicas.contains(&to) && !is_worse
                });
                let has_heir = |id: &LaneId, lane: &Lane| {
                    lane.leader != Some(from) || self.next_leader(*id, from).is_some()
                };
                let best =
                    could.filter(|(id, lane)| has_heir(id, lane)).min_by_key(|(id, lane)| {
                        (lane.leader == Some(from), lane.replicas.first() == Some(&from), **id)
                    });
                if let Some((lane, _)) = best {
                    return Some((*lane, from, to));
                }
            }
        }
        None
    }

    /// Transfers, one after the other, after which one that leads the most leads one lane less, and one that leads at least
    /// two fewer one more. Those in between give one and get one.
    fn next_leads(&self) -> Option<Vec<(LaneId, BrokerId)>> {
        let mut by_count = self.places.clone();
        by_count.sort_by_key(|id| (std::cmp::Reverse(self.leads(*id)), *id));
        by_count.iter().find_map(|from| self.chain_from(*from))
    }

    fn chain_from(&self, from: BrokerId) -> Option<Vec<(LaneId, BrokerId)>> {
        let most = self.leads(from).checked_sub(2)?;
        // By whom it is reached: the lane, and who gives it.
        let mut reached: BTreeMap<BrokerId, Option<(LaneId, BrokerId)>> = BTreeMap::new();
        reached.insert(from, None);
        let mut queue = VecDeque::from([from]);
        while let Some(gives) = queue.pop_front() {
            if self.leads(gives) <= most {
                let mut chain = Vec::new();
                let mut at = gives;
                while let Some(Some((lane, before))) = reached.get(&at) {
                    chain.push((*lane, at));
                    at = *before;
                }
                chain.reverse();
                return Some(chain);
            }
            for (id, lane) in &self.lanes {
                if lane.replicas.first() != Some(&gives) {
                    continue;
                }
                for gets in lane.replicas.iter().skip(1).filter(|it| self.places.contains(it)) {
                    if !reached.contains_key(gets) {
                        reached.insert(*gets, Some((*id, gives)));
                        queue.push_back(*gets);
                    }
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
