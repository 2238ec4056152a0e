//! How long a partition was without service: the longest time between two acknowledgments around a fault.

use std::time::Duration;

use crate::latency::show;

/// Beyond it a partition counts as down until then.
const WINDOW: u64 = 10_000_000_000;

/// `times`: acknowledgments, ascending; `from`: when the fault came; `until`: when the next one came; all ns.
pub fn longest_gap(times: &[u64], from: u64, until: u64) -> Option<Duration> {
    let until = until.min(from + WINDOW);
    let first = times.partition_point(|at| *at < from).checked_sub(1)?;
    let mut longest = 0;
    for pair in times[first..].windows(2) {
        if pair[0] >= until {
            break;
        }
        longest = longest.max(pair[1] - pair[0]);
    }
    // Nothing came any more.
    if times.last().is_none_or(|last| *last < from) {
        longest = until - from;
    }
    Some(Duration::from_nanos(longest))
}

/// p50, p99 and the most, in words.
pub fn summary(gaps: &mut [Duration]) -> String {
    gaps.sort_unstable();
    let at = |percent: usize| {
        let last = gaps.len().saturating_sub(1);
        let gap = gaps.get((gaps.len() * percent / 100).min(last));
        gap.map_or("-".into(), |gap| show(gap.as_nanos() as u64))
    };
    format!("p50 {}, p99 {}, most {} ({} measured)", at(50), at(99), at(100), gaps.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn the_gap_is_the_longest_that_touches_the_fault_or_follows_it() {
        let times = [1, 2, 3, 8, 9, 11].map(|at| at * SECOND);
        let gap = |from, until| longest_gap(&times, from, until).map(|gap| gap.as_secs());
        assert_eq!(gap(3 * SECOND + 5, 20 * SECOND), Some(5));
        assert_eq!(gap(8 * SECOND + 5, 20 * SECOND), Some(2));
        assert_eq!(gap(8 * SECOND + 5, 9 * SECOND), Some(1));
        assert_eq!(gap(0, 20 * SECOND), None, "never served before");
        assert_eq!(gap(12 * SECOND, 15 * SECOND), Some(3), "never served again");
    }
}
