//! Which lane takes a new partition: always the one with the fewest, the lowest id among equals.

use corelog_protocol::ids::LaneId;

/// Chooses a lane for each of `partitions` new partitions, given how many each lane has.
/// Without lanes there is no place, and the answer is empty.
pub fn place(counts: &[(LaneId, u32)], partitions: u32) -> Vec<LaneId> {
    let mut heap: std::collections::BinaryHeap<_> =
        counts.iter().map(|&(lane, count)| std::cmp::Reverse((count, lane))).collect();
    let mut chosen = Vec::new();
    while chosen.len() < partitions as usize {
        let Some(std::cmp::Reverse((count, lane))) = heap.pop() else { break };
        chosen.push(lane);
        heap.push(std::cmp::Reverse((count.saturating_add(1), lane)));
    }
    chosen
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
}
