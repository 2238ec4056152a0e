//! Which lane had better be led by whom, by what lanes cost their leaders.

use std::collections::BTreeMap;

use corelog_protocol::ids::{BrokerId, LaneId};

use super::{Lane, Model};

/// Less than this is no difference: 64 KiB a second, or 16 requests.
const NOISE: u64 = 64 << 10;

impl Model {
    /// Who bears a lane's load: its preferred leader, or who leads while that one cannot.
    fn bearer(&self, lane: &Lane) -> Option<BrokerId> {
        lane.replicas.first().copied().filter(|id| self.places.contains(id)).or(lane.leader)
    }

    /// What each broker that may have more bears.
    fn loads(&self) -> BTreeMap<BrokerId, u64> {
        let mut loads: BTreeMap<BrokerId, u64> = self.places.iter().map(|id| (*id, 0)).collect();
        for lane in self.lanes.values() {
            let total = self.bearer(lane).and_then(|id| loads.get_mut(&id));
            if let (Some(total), Some(load)) = (total, lane.load) {
                *total = total.saturating_add(load);
            }
        }
        loads
    }

    /// Whether there is any load worth the name.
    pub(super) fn is_loaded(&self) -> bool {
        self.loads().values().any(|load| *load > NOISE)
    }

    /// One that is led, and whose load is not known. Nobody measures what has one copy, which cannot be led elsewhere.
    pub(super) fn lane_not_measured(&self) -> Option<LaneId> {
        let is_measured =
            |lane: &Lane| lane.load.is_some() || lane.replicas.len() < 2 || lane.leader.is_none();
        self.lanes.iter().find(|(_, lane)| !is_measured(lane)).map(|(id, _)| *id)
    }

    /// A transfer by which one of the most loaded gets less to do, and nobody as much as it had: by at least a tenth of the
    /// greatest load. So none can be followed by its opposite, and there is an end to them.
    pub(super) fn next_by_load(&self) -> Option<(LaneId, BrokerId)> {
        let loads = self.loads();
        let most = *loads.values().max()?;
        let tenth = most.div_ceil(10).max(NOISE);
        let mut by_load: Vec<(u64, BrokerId)> = loads.iter().map(|(id, it)| (*it, *id)).collect();
        by_load.sort_by_key(|(load, id)| (std::cmp::Reverse(*load), *id));
        // Of who has hardly less than the most as well: two that have the most take a transfer each.
        let of_the_most = by_load.into_iter().filter(|(load, _)| most - load < tenth);
        of_the_most.into_iter().find_map(|(has, from)| {
            let (after, lane, to) = self.best_of(from, has, &loads)?;
            (has.saturating_sub(after) >= tenth).then_some((lane, to))
        })
    }

    /// What the more loaded of the two would have, of its lanes and those that may lead them the least.
    fn best_of(
        &self,
        from: BrokerId,
        has: u64,
        loads: &BTreeMap<BrokerId, u64>,
    ) -> Option<(u64, LaneId, BrokerId)> {
        let of_it = self.lanes.iter().filter(|(_, lane)| lane.replicas.first() == Some(&from));
        let transfers = of_it.flat_map(|(id, lane)| {
            let load = lane.load.unwrap_or(0);
            let others = lane.replicas.iter().skip(1);
            others.filter_map(move |to| {
                let comes_to = loads.get(to)?.saturating_add(load);
                Some((comes_to.max(has.saturating_sub(load)), *id, *to))
            })
        });
        transfers.min()
    }
}
