//! Which lane takes a new partition: the one with the fewest of its topic, and of those the one with the fewest at all. So the
//! partitions of one topic lie in different lanes, and on different cores, also if some lanes are new and empty.

use corelog_protocol::ids::{BrokerId, LaneId};

/// How many partitions a lane has.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub lane: LaneId,
    /// Of the topic in question.
    pub own: u32,
    /// Of all.
    pub all: u32,
}

/// Chooses a lane for each of `partitions` new partitions of one topic. Among equals the
/// earlier in the list is taken. Without lanes there is no place, and the answer is empty.
pub fn place(lanes: &[Held], partitions: u32) -> Vec<LaneId> {
    let by_count = |(at, held): (usize, &Held)| (held.own, held.all, at, held.lane);
    let mut heap: std::collections::BinaryHeap<_> =
        lanes.iter().enumerate().map(by_count).map(std::cmp::Reverse).collect();
    let mut chosen = Vec::new();
    while chosen.len() < partitions as usize {
        let Some(std::cmp::Reverse((own, all, at, lane))) = heap.pop() else { break };
        chosen.push(lane);
        heap.push(std::cmp::Reverse((own.saturating_add(1), all, at, lane)));
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
    fn a_topic_goes_into_all_lanes_the_emptiest_first() {
        let held = |(lane, own, all)| Held { lane: LaneId(lane), own, all };
        let place = |held: &[Held], partitions| -> Vec<u32> {
            super::place(held, partitions).into_iter().map(|lane| lane.0).collect()
        };
        let new = [(1, 0, 2), (2, 0, 0), (3, 0, 1)].map(held);
        assert_eq!(place(&new, 6), [2, 3, 1, 2, 3, 1]);
        assert_eq!(place(&new, 1), [2]);
        assert!(place(&[], 3).is_empty());
        assert!(place(&new, 0).is_empty());
        // One lane is new: what is added to a topic does not all go there.
        let grown = [(1, 1, 900), (2, 1, 900), (3, 0, 0)].map(held);
        assert_eq!(place(&grown, 5), [3, 3, 1, 2, 3]);
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
