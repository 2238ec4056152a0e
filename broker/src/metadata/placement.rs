//! Which lane takes a new partition: always the one with the fewest, the first among equals.

use corelog_protocol::ids::{BrokerId, LaneId};

/// Chooses a lane for each of `partitions` new partitions, given how many each lane has. Among equals the
/// earlier in the list is taken. Without lanes there is no place, and the answer is empty.
pub fn place(counts: &[(LaneId, u32)], partitions: u32) -> Vec<LaneId> {
    let by_count = |(at, &(lane, count)): (usize, &(LaneId, u32))| (count, at, lane);
    let mut heap: std::collections::BinaryHeap<_> =
        counts.iter().enumerate().map(by_count).map(std::cmp::Reverse).collect();
    let mut chosen = Vec::new();
    while chosen.len() < partitions as usize {
        let Some(std::cmp::Reverse((count, at, lane))) = heap.pop() else { break };
        chosen.push(lane);
        heap.push(std::cmp::Reverse((count.saturating_add(1), at, lane)));
    }
    chosen
}

/// Deals lanes so that brokers take turns: the first lane of each, then the second of each, and so on.
/// Lanes come with their preferred leaders, and a broker's keep their order.
pub fn by_turns(lanes: impl Iterator<Item = (BrokerId, LaneId)>) -> Vec<LaneId> {
    let mut dealt = std::collections::BTreeMap::new();
    let mut order = Vec::new();
    for (broker, lane) in lanes {
        let turn: &mut u32 = dealt.entry(broker).or_default();
        order.push((*turn, lane));
        *turn += 1;
    }
    order.sort();
    order.into_iter().map(|(_, lane)| lane).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_emptiest_lane_is_next_and_equals_take_turns() {
        let counts = [(LaneId(1), 2), (LaneId(2), 0), (LaneId(3), 1)];
        let chosen: Vec<u32> = place(&counts, 6).into_iter().map(|lane| lane.0).collect();
        assert_eq!(chosen, [2, 2, 3, 1, 2, 3]);
        assert!(place(&[], 3).is_empty());
        assert!(place(&counts, 0).is_empty());
    }

    #[test]
    fn brokers_take_turns_also_if_one_has_fewer_lanes() {
        let lanes = [(7, 1), (7, 2), (7, 3), (9, 4), (8, 5), (8, 6)];
        let lanes = lanes.into_iter().map(|(broker, lane)| (BrokerId(broker), LaneId(lane)));
        let order: Vec<u32> = by_turns(lanes).into_iter().map(|lane| lane.0).collect();
        assert_eq!(order, [1, 4, 5, 2, 6, 3]);
        let alone = (1..=4).map(|lane| (BrokerId(1), LaneId(lane)));
        assert_eq!(by_turns(alone), (1..=4).map(LaneId).collect::<Vec<_>>());
    }
}
