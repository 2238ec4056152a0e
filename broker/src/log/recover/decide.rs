//! What survives: pure arithmetic over what the walk found.
//!
//! `D` is the greatest durable LSN that anything intact carries. What is damaged or missing below
//! D is corruption: kept as a hole, never truncated. What is damaged or missing from D on is the
//! torn tail of a crash: the log ends before it, and the next segment says so ("supersedes").

use corelog_protocol::ids::Lsn;

use super::walk::CommitFound;
use crate::planted::{Bug, is_planted};

/// What a segment's header says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headed {
    pub supersedes: Option<Lsn>,
    pub durable_end: Lsn,
}

/// A commit, or the whole of a segment with a footer, and the segment it is in.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub segment: usize,
    pub commit: CommitFound,
}

/// A commit that counts, through `end_lsn` (exclusive).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accepted {
    pub segment: usize,
    pub position: u64,
    pub end_position: u64,
    pub first_lsn: Lsn,
    pub end_lsn: Lsn,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// In LSN order.
    pub accepted: Vec<Accepted>,
    /// The last segment whose checkpoint can be read.
    pub checkpoint: Option<usize>,
    /// Where the log goes on.
    pub next_lsn: Lsn,
    /// D.
    pub durable_end: Lsn,
    /// Entries below D that cannot be read.
    pub entries_corrupt: u64,
    /// Commits from D on that were dropped.
    pub commits_truncated: u64,
    /// Segments in which something below D is damaged or missing.
    pub damaged_segments: Vec<usize>,
    /// Of a replica's log: how far reached what cannot be read. `None`: there is nothing such.
    pub bad_end: Option<Lsn>,
}

/// Per segment, the LSN from which on its entries are void because a later segment says so, or the one who starts
/// the log (`at`).
pub fn limits(headed: &[Headed], at: Option<Lsn>) -> Vec<Lsn> {
    let mut limits = vec![Lsn(u64::MAX); headed.len()];
    if is_planted(Bug::SupersededResurrected) {
        return limits;
    }
    let mut limit = at.unwrap_or(Lsn(u64::MAX));
    for (at, header) in headed.iter().enumerate().rev() {
        limits[at] = limit;
        limit = limit.min(header.supersedes.unwrap_or(limit));
    }
    limits
}

/// `found` is in the order of segments and positions.
pub fn decide(headed: &[Headed], found: &[Found]) -> Verdict {
    let limits = limits(headed, None);
    let durable_end = durable_end(headed, &limits, found);
    let mut verdict = Verdict { durable_end, ..Verdict::default() };
    let first = headed.first().and_then(|header| header.supersedes);
    let mut next = first.or(found.first().map(|found| found.commit.first_lsn));
    let mut epoch = 0;
    let mut stopped = false;
    // The place of the next commit in its segment.
    let mut place = (0, 0);
    for Found { segment, commit } in found {
        let limit = limits[*segment];
        let next_lsn = next.unwrap_or(commit.first_lsn);
        // What a checkpoint tells at the limit is what came below it.
        let is_at_limit = commit.first_lsn == limit;
        let tells = commit.has_checkpoint && commit.is_whole();
        let number = if place.0 == *segment { place.1 } else { 0 };
        place = (*segment, number.max(commit.number) + 1);
        if commit.first_lsn > limit || is_at_limit && !tells {
            continue;
        }
        let is_stale = commit.first_lsn < next_lsn && !is_planted(Bug::StaleBytesAccepted);
        let falls_back = commit.epoch_first != 0
            && commit.epoch_first < epoch
            && !is_planted(Bug::StaleBytesAccepted);
        if stopped || is_stale || falls_back {
            if commit.first_lsn >= durable_end {
                verdict.commits_truncated += 1;
            }
            // An epoch that falls ends the log as a gap would.
            stopped |= falls_back && !is_stale && commit.first_lsn >= durable_end;
            continue;
        }
        let mut end_lsn = commit.end_lsn.min(limit);
        if end_lsn == commit.first_lsn && !commit.is_whole() {
            // No entry that takes an LSN is lost with it; whoever needs its checkpoint goes further back.
            if end_lsn < durable_end {
                verdict.entries_corrupt += commit.lost + commit.damaged;
                verdict.damaged_segments.push(*segment);
            }
            continue;
        }
        if commit.first_lsn > next_lsn && commit.first_lsn > durable_end {
            stopped = true;
            verdict.commits_truncated += 1;
            continue;
        }
        if commit.first_lsn > next_lsn {
            verdict.entries_corrupt += commit.first_lsn.0 - next_lsn.0;
            verdict.damaged_segments.push(*segment);
        }
        let keeps_torn = is_planted(Bug::TornTailKept);
        if !commit.is_whole() && end_lsn > durable_end && !keeps_torn {
            // Not covered, or only in part: what is not covered goes.
            stopped = true;
            verdict.commits_truncated += 1;
            end_lsn = end_lsn.min(durable_end);
            if end_lsn <= commit.first_lsn {
                next = Some(commit.first_lsn);
                continue;
            }
        }
        if !commit.is_whole() {
            verdict.entries_corrupt += commit.lost + commit.damaged;
            verdict.damaged_segments.push(*segment);
        }
        // A commit of local entries leaves no gap in the LSNs. And nobody says where the log begins if not
        // a checkpoint.
        let is_local_lost = commit.number > number && commit.first_lsn < durable_end;
        let is_headless = verdict.accepted.is_empty() && commit.is_whole() && !tells;
        if commit.first_lsn <= next_lsn && (is_local_lost || is_headless) {
            verdict.entries_corrupt += 1;
            verdict.damaged_segments.push(*segment);
        }
        if commit.has_checkpoint {
            verdict.checkpoint = Some(*segment);
        }
        verdict.accepted.push(Accepted {
            segment: *segment,
            position: commit.position,
            end_position: commit.end_position,
            first_lsn: commit.first_lsn,
            end_lsn,
        });
        epoch = commit.epoch_last.max(epoch);
        next = Some(end_lsn);
    }
    let next_lsn = next.unwrap_or(durable_end);
    if next_lsn < durable_end {
        verdict.entries_corrupt += durable_end.0 - next_lsn.0;
        verdict.damaged_segments.push(headed.len().saturating_sub(1));
    }
    verdict.next_lsn = next_lsn.max(durable_end);
    verdict
}

/// D. What a segment attests counts as far as it is not void.
pub fn durable_end(headed: &[Headed], limits: &[Lsn], found: &[Found]) -> Lsn {
    if is_planted(Bug::CorruptionTruncated) {
        return Lsn(0);
    }
    let headers = headed.iter().zip(limits).map(|(header, limit)| header.durable_end.min(*limit));
    let commits = found.iter().map(|found| found.commit.durable_end.min(limits[found.segment]));
    headers.chain(commits).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(segment: usize, lsns: std::ops::Range<u64>, durable_end: u64) -> Found {
        Found {
            segment,
            commit: CommitFound {
                position: 8192 + lsns.start * 4096,
                number: 0,
                end_position: 8192 + lsns.end * 4096,
                first_lsn: Lsn(lsns.start),
                end_lsn: Lsn(lsns.end),
                whole_end: Lsn(lsns.end),
                durable_end: Lsn(durable_end),
                epoch_first: 1,
                epoch_last: 1,
                lost: 0,
                damaged: 0,
                has_checkpoint: lsns.start == 0,
                bound: true,
            },
        }
    }

    fn damaged(mut found: Found) -> Found {
        found.commit.damaged = 1;
        found
    }

    fn accepted(verdict: &Verdict) -> Vec<(u64, u64)> {
        verdict.accepted.iter().map(|commit| (commit.first_lsn.0, commit.end_lsn.0)).collect()
    }

    const PLAIN: Headed = Headed { supersedes: None, durable_end: Lsn(0) };

    #[test]
    fn torn_commit_before_valid_ones_is_truncated_with_all_after_it() {
        let found = [
            commit(0, 0..2, 0),
            commit(0, 2..3, 2),
            damaged(commit(0, 3..5, 2)),
            commit(0, 5..6, 3),
        ];
        let verdict = decide(&[PLAIN], &found);
        assert_eq!(accepted(&verdict), [(0, 2), (2, 3)]);
        assert_eq!((verdict.next_lsn, verdict.durable_end), (Lsn(3), Lsn(3)));
        assert_eq!((verdict.commits_truncated, verdict.entries_corrupt), (2, 0));
    }

    #[test]
    fn damage_below_a_later_durable_lsn_is_corruption_and_stays() {
        let found = [commit(0, 0..2, 0), damaged(commit(0, 2..4, 2)), commit(0, 4..5, 4)];
        let verdict = decide(&[PLAIN], &found);
        assert_eq!(accepted(&verdict), [(0, 2), (2, 4), (4, 5)]);
        assert_eq!((verdict.next_lsn, verdict.entries_corrupt), (Lsn(5), 1));
        assert_eq!(verdict.damaged_segments, [0]);
    }

    #[test]
    fn missing_commit_is_a_hole_below_the_durable_lsn_and_the_end_above_it() {
        let hole = [commit(0, 0..2, 0), commit(0, 4..5, 4)];
        let verdict = decide(&[PLAIN], &hole);
        assert_eq!((verdict.next_lsn, verdict.entries_corrupt), (Lsn(5), 2));
        let torn = [commit(0, 0..2, 0), commit(0, 4..5, 2)];
        let verdict = decide(&[PLAIN], &torn);
        assert_eq!((verdict.next_lsn, verdict.entries_corrupt), (Lsn(2), 0));
        let both = [commit(0, 0..2, 0), commit(0, 5..6, 3)];
        let verdict = decide(&[PLAIN], &both);
        assert_eq!((verdict.next_lsn, verdict.entries_corrupt), (Lsn(3), 1));
        assert_eq!(accepted(&verdict), [(0, 2)]);
    }

    #[test]
    fn durable_tail_that_is_gone_is_a_hole_and_its_lsns_are_not_used_again() {
        let later = Headed { supersedes: Some(Lsn(9)), durable_end: Lsn(9) };
        let verdict = decide(&[PLAIN, later], &[commit(0, 0..4, 0)]);
        assert_eq!((verdict.next_lsn, verdict.entries_corrupt), (Lsn(9), 5));
    }

    #[test]
    fn superseded_entries_stay_dead() {
        let later = Headed { supersedes: Some(Lsn(3)), durable_end: Lsn(3) };
        let found = [commit(0, 0..3, 0), commit(0, 3..6, 3), commit(1, 3..4, 3)];
        let verdict = decide(&[PLAIN, later], &found);
        assert_eq!(accepted(&verdict), [(0, 3), (3, 4)]);
        assert_eq!(verdict.accepted[1].segment, 1);
        assert_eq!(verdict.next_lsn, Lsn(4));
    }

    /// Local entries only, the `number`th commit of its segment.
    fn local(segment: usize, lsn: u64, durable_end: u64, number: u64) -> Found {
        let mut found = commit(segment, lsn..lsn, durable_end);
        found.commit.number = number;
        found
    }

    fn with_checkpoint(mut found: Found) -> Found {
        found.commit.has_checkpoint = true;
        found
    }

    #[test]
    fn damaged_commit_of_local_entries_ends_nothing_and_is_corruption_only_below_the_durable_end() {
        let padding = damaged(local(0, 2, 2, 1));
        // Perhaps torn: what follows it was perhaps acknowledged, and its LSNs are dense.
        let found = [commit(0, 0..2, 0), padding, commit(0, 2..3, 2)];
        let verdict = decide(&[PLAIN], &found);
        assert_eq!(accepted(&verdict), [(0, 2), (2, 3)]);
        assert_eq!((verdict.next_lsn, verdict.entries_corrupt), (Lsn(3), 0));
        let found = [&found[..], &[commit(0, 3..4, 3)]].concat();
        let verdict = decide(&[PLAIN], &found);
        assert_eq!((verdict.next_lsn, verdict.entries_corrupt), (Lsn(4), 1));
    }

    #[test]
    fn commit_of_local_entries_that_is_gone_shows_in_the_numbers_of_the_others() {
        let numbered = |lsns: std::ops::Range<u64>, durable_end, number| {
            let mut found = commit(0, lsns, durable_end);
            found.commit.number = number;
            found
        };
        let whole = [commit(0, 0..2, 0), local(0, 2, 2, 1), numbered(2..3, 2, 2)];
        let later = numbered(3..4, 3, 3);
        let verdict = decide(&[PLAIN], &[&whole[..], &[later]].concat());
        assert_eq!((verdict.next_lsn, verdict.entries_corrupt), (Lsn(4), 0));
        let verdict = decide(&[PLAIN], &[whole[0], whole[2], later]);
        assert_eq!((verdict.next_lsn, verdict.entries_corrupt), (Lsn(4), 1));
        // Nothing says that it was ever durable.
        let verdict = decide(&[PLAIN], &[whole[0], whole[2]]);
        assert_eq!((verdict.next_lsn, verdict.entries_corrupt), (Lsn(3), 0));
    }

    #[test]
    fn checkpoint_where_a_later_segment_begins_is_kept_and_what_follows_it_is_void() {
        let later = Headed { supersedes: Some(Lsn(3)), durable_end: Lsn(3) };
        let shared = with_checkpoint(commit(1, 3..5, 3));
        let verdict = decide(&[PLAIN, PLAIN, later], &[commit(0, 0..3, 0), shared]);
        assert_eq!(accepted(&verdict), [(0, 3), (3, 3)]);
        assert_eq!((verdict.next_lsn, verdict.checkpoint), (Lsn(3), Some(1)));
        // Damaged, it says nothing, and that is no corruption: it was superseded.
        let found = [commit(0, 0..3, 0), damaged(shared), commit(2, 3..9, 3), commit(2, 9..10, 9)];
        let verdict = decide(&[PLAIN, PLAIN, later], &found);
        assert_eq!(accepted(&verdict), [(0, 3), (3, 9), (9, 10)]);
        assert_eq!((verdict.checkpoint, verdict.entries_corrupt), (Some(0), 0));
    }

    #[test]
    fn log_whose_first_checkpoint_is_gone_has_lost_something() {
        let first = Headed { supersedes: Some(Lsn(7)), durable_end: Lsn(7) };
        let verdict = decide(&[first], &[with_checkpoint(commit(0, 7..9, 7))]);
        assert_eq!((verdict.next_lsn, verdict.entries_corrupt), (Lsn(9), 0));
        let verdict = decide(&[first], &[commit(0, 7..9, 7)]);
        assert_eq!((verdict.next_lsn, verdict.entries_corrupt), (Lsn(9), 1));
    }

    #[test]
    fn nothing_found_is_an_empty_log() {
        assert_eq!(decide(&[], &[]), Verdict::default());
    }
}
