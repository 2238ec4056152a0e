//! How long a partition acknowledged nothing: what its producers saw of a failover.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::verify::Partition;

/// When each partition acknowledged something.
#[derive(Default)]
pub(super) struct Pauses {
    of: BTreeMap<Partition, Pause>,
}

struct Pause {
    acks: u64,
    last: Instant,
    longest: Duration,
}

impl Pauses {
    pub fn on_ack(&mut self, partition: Partition, at: Instant) {
        let new = Pause { acks: 0, last: at, longest: Duration::ZERO };
        let pause = self.of.entry(partition).or_insert(new);
        pause.acks += 1;
        pause.longest = pause.longest.max(at.saturating_duration_since(pause.last));
        pause.last = pause.last.max(at);
    }

    /// Forgets the longest pauses so far. One that lasts is measured from its beginning.
    pub fn measure_anew(&mut self) {
        for pause in self.of.values_mut() {
            pause.longest = Duration::ZERO;
        }
    }

    pub fn longest(&self, partitions: &[Partition]) -> Duration {
        let longest = |partition| self.of.get(partition).map(|pause| pause.longest);
        partitions.iter().filter_map(longest).max().unwrap_or_default()
    }

    pub fn silent_since(&self, since: Instant, partitions: &[Partition]) -> Option<Partition> {
        let is_silent =
            |partition: &&Partition| self.of.get(partition).is_none_or(|pause| pause.last <= since);
        partitions.iter().find(is_silent).copied()
    }

    pub fn acks_of(&self, partition: Partition) -> u64 {
        self.of.get(&partition).map_or(0, |pause| pause.acks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pause_is_between_two_acks_of_one_partition() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pauses = Pauses::default();
        for (partition, ms) in [(0, 0), (1, 5), (0, 10), (1, 30), (0, 17)] {
            pauses.on_ack((0, partition), at(ms));
        }
        assert_eq!(pauses.longest(&[(0, 0)]), Duration::from_millis(10));
        assert_eq!(pauses.longest(&[(0, 0), (0, 1)]), Duration::from_millis(25));
        assert_eq!(pauses.silent_since(at(17), &[(0, 1), (0, 0)]), Some((0, 0)));
        assert_eq!(pauses.silent_since(at(16), &[(0, 1), (0, 0)]), None);
        assert_eq!(pauses.silent_since(at(0), &[(7, 7)]), Some((7, 7)));
        pauses.measure_anew();
        pauses.on_ack((0, 1), at(31));
        pauses.on_ack((0, 0), at(40));
        assert_eq!(pauses.longest(&[(0, 0), (0, 1)]), Duration::from_millis(23));
        assert_eq!(pauses.acks_of((0, 0)), 4);
    }
}
