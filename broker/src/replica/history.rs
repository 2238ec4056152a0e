//! Where two logs part, told from their epoch histories alone.
//!
//! An entry is known by its epoch and LSN, and a leader writes one log in its epoch; so two logs that have the same
//! epoch at an LSN are the same up to there. Which epoch each LSN has is a step function: (epoch, LSN of its first entry).

use corelog_protocol::ids::{Epoch, Lsn};

/// The epochs of a log's entries, each with the LSN of its first, both ascending.
pub type History = [(Epoch, Lsn)];

/// The epoch of the entry at this LSN; `None` below the history.
pub fn epoch_at(history: &History, lsn: Lsn) -> Option<Epoch> {
    let after = history.partition_point(|(_, first)| *first <= lsn);
    after.checked_sub(1).and_then(|at| history.get(at)).map(|(epoch, _)| *epoch)
}

/// The LSN below which `ours`, which ends at `end`, equals `theirs`, whose last epoch is taken to go on for ever.
///
/// What lies below the start of either history was compacted away there, and is not compared.
pub fn common_end(ours: &History, end: Lsn, theirs: &History) -> Lsn {
    let Some(their_start) = theirs.first().map(|(_, first)| *first) else { return Lsn(0) };
    let Some(our_start) = ours.first().map(|(_, first)| *first) else { return Lsn(0).min(end) };
    let mut at = our_start.max(their_start);
    while at < end {
        if epoch_at(ours, at) != epoch_at(theirs, at) {
            return at;
        }
        // Both stay as they are until the next step of either.
        let next = |history: &History| {
            let after = history.partition_point(|(_, first)| *first <= at);
            history.get(after).map_or(Lsn(u64::MAX), |(_, first)| *first)
        };
        at = next(ours).min(next(theirs)).min(end);
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(steps: &[(u64, u64)]) -> Vec<(Epoch, Lsn)> {
        steps.iter().map(|&(epoch, first)| (Epoch(epoch), Lsn(first))).collect()
    }

    fn common(ours: &[(u64, u64)], end: u64, theirs: &[(u64, u64)]) -> u64 {
        common_end(&history(ours), Lsn(end), &history(theirs)).0
    }

    #[test]
    fn equal_histories_have_everything_in_common() {
        assert_eq!(common(&[(1, 0), (3, 7)], 9, &[(1, 0), (3, 7)]), 9);
        assert_eq!(common(&[(1, 0)], 5, &[(1, 0), (3, 7)]), 5);
        assert_eq!(common(&[], 0, &[(1, 0)]), 0);
    }

    #[test]
    fn logs_part_at_the_first_entry_of_another_epoch() {
        assert_eq!(
            common(&[(1, 0)], 9, &[(1, 0), (3, 7)]),
            7,
            "our entries 7 and 8 are of epoch 1"
        );
        assert_eq!(common(&[(1, 0), (2, 4)], 9, &[(1, 0), (3, 7)]), 4);
        assert_eq!(common(&[(2, 0)], 3, &[(1, 0), (3, 7)]), 0);
        assert_eq!(common(&[(1, 0), (2, 4)], 6, &[(1, 0), (2, 5)]), 4);
    }

    #[test]
    fn every_small_pair_agrees_with_a_comparison_entry_by_entry() {
        // All logs of up to 5 entries whose epochs rise from 1 to 3.
        let mut logs: Vec<Vec<u64>> = vec![vec![]];
        for at in 0.. {
            let Some(log) = logs.get(at).cloned() else { break };
            if log.len() < 5 {
                for epoch in log.last().copied().unwrap_or(1)..=3 {
                    logs.push(log.iter().copied().chain([epoch]).collect());
                }
            }
        }
        let steps = |log: &[u64]| {
            let mut steps: Vec<(u64, u64)> = Vec::new();
            for (lsn, epoch) in (0..).zip(log) {
                if steps.last().is_none_or(|(last, _)| last != epoch) {
                    steps.push((*epoch, lsn));
                }
            }
            steps
        };
        for ours in &logs {
            for theirs in logs.iter().filter(|log| !log.is_empty()) {
                let last = theirs[theirs.len() - 1];
                let their = |lsn: usize| theirs.get(lsn).copied().unwrap_or(last);
                let expected =
                    (0..ours.len()).find(|&lsn| ours[lsn] != their(lsn)).unwrap_or(ours.len());
                let found = common(&steps(ours), ours.len() as u64, &steps(theirs));
                assert_eq!(found, expected as u64, "{ours:?} {theirs:?}");
            }
        }
    }
}
