//! More lanes for a cluster that has grown: where the replicas of each are. Pure.
//!
//! As at the beginning ([`super::boot`]), the leader is given and who is next in line differs from lane to lane; but there are
//! lanes already, so the other replicas go where the fewest are, and first into racks without one.

use std::collections::BTreeMap;
use std::sync::Arc;

use corelog_protocol::ids::{BrokerId, LaneId};

use super::boot::directory;
use super::broker::BrokerRecord;
use super::lane::LaneReplica;
use super::state::State;

/// How many replicas the lanes have, the most if they differ.
pub fn replicas(state: &State) -> usize {
    state.lanes().iter().map(|lane| lane.replicas.len()).max().unwrap_or(1)
}

/// The replicas of all lanes that are missing up to this one, the leader first. `None`: there are too few others.
pub fn sets(
    state: &State,
    leader: &BrokerRecord,
    others: &[&BrokerRecord],
    up_to: LaneId,
) -> Option<Vec<Arc<[LaneReplica]>>> {
    let count = replicas(state);
    let mut copies: BTreeMap<BrokerId, usize> = BTreeMap::new();
    for replica in state.lanes().iter().flat_map(|lane| lane.replicas.iter()) {
        *copies.entry(replica.broker).or_default() += 1;
    }
    let first = state.lanes().len() as u32 + 1;
    (first..=up_to.0)
        .map(|lane| {
            let mut set = vec![leader];
            while set.len() < count {
                let numbered = others.iter().enumerate();
                let free = numbered.filter(|(_, it)| set.iter().all(|member| member.id != it.id));
                let (_, next) = free.min_by_key(|(at, it)| {
                    let shares_rack = !it.rack.is_empty() && set.iter().any(|m| m.rack == it.rack);
                    // Among equals, another one from lane to lane.
                    let turn = (at + lane as usize) % others.len();
                    (shares_rack, copies.get(&it.id).copied().unwrap_or_default(), turn)
                })?;
                set.push(*next);
            }
            for member in &set {
                *copies.entry(member.id).or_default() += 1;
            }
            // `boot` deals directories by lane numbers from 0.
            let replica = |member: &&BrokerRecord| LaneReplica {
                broker: member.id,
                directory: directory(member, lane - 1),
            };
            Some(set.iter().map(replica).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Command;
    use crate::metadata::boot::boot;

    /// Brokers with these racks, `-` for none, of which so many began the cluster with one lane each.
    fn state(racks: &str, first: usize) -> State {
        let mut state = State::default();
        for (id, rack) in (1..).zip(racks.chars()) {
            let rack = if rack == '-' { "".into() } else { rack.to_string().into() };
            let record = BrokerRecord { rack, ..BrokerRecord::of_a_test(BrokerId(id), 1) };
            state.apply(&Command::BrokerRegister { record });
        }
        let brokers: Vec<&BrokerRecord> = state.brokers().take(first).collect();
        let command = boot(&brokers, 1, 3);
        state.apply(&command);
        state
    }

    fn grown(state: &State, leader: u32, up_to: u32) -> Option<String> {
        let record = state.broker(BrokerId(leader)).expect("known");
        let others: Vec<&BrokerRecord> = state.brokers().filter(|it| it.id != record.id).collect();
        let sets = sets(state, record, &others, LaneId(up_to))?;
        let text = |set: &Arc<[LaneReplica]>| set.iter().map(|it| it.broker.to_string()).collect();
        Some(sets.iter().map(text).collect::<Vec<String>>().join(" "))
    }

    #[test]
    fn copies_go_where_the_fewest_are_and_into_other_racks() {
        let state = state("-----", 3);
        assert_eq!(state.lanes().len(), 3);
        assert_eq!(grown(&state, 4, 5).as_deref(), Some("451 452"));
        let racks = self::state("aabbc", 3);
        assert_eq!(grown(&racks, 4, 4).as_deref(), Some("451"), "4 is in the rack of 3");
    }

    #[test]
    fn too_few_brokers_get_no_lanes() {
        let state = state("---", 3);
        let record = state.broker(BrokerId(1)).expect("known");
        let other = state.broker(BrokerId(2)).expect("known");
        assert_eq!(sets(&state, record, &[other], LaneId(4)), None);
        assert_eq!(grown(&state, 1, 3).as_deref(), Some(""), "they are there");
    }
}
