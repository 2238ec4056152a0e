//! What survives on one replica of several: everything below the first hole. What was torn and what has rotted look
//! the same, and another replica may have what is missing: so nothing above the hole counts, nothing of it is
//! dropped, and the verdict says how far it reached.

use corelog_protocol::ids::Lsn;

use super::decide::{Accepted, Found, Headed, Verdict, durable_end};

/// No LSN is known that is not reached.
pub const UNBOUNDED: Lsn = Lsn(u64::MAX);

/// `found` is in the order of segments and positions, `limits` says from where each segment is void. `is_ruined`:
/// behind the last commit there is one of which nothing can be read.
pub fn decide_replica(
    headed: &[Headed],
    limits: &[Lsn],
    found: &[Found],
    is_ruined: bool,
) -> Verdict {
    let durable_end = durable_end(headed, limits, found);
    let mut verdict = Verdict { durable_end, ..Verdict::default() };
    let first = headed.first().and_then(|header| header.supersedes);
    // A log may have been cut back to below where it began.
    let first = first.map(|first| limits.first().map_or(first, |limit| first.min(*limit)));
    let mut next = first.or(found.first().map(|found| found.commit.first_lsn)).unwrap_or_default();
    let mut epoch = 0;
    // From the first hole on.
    let mut bad_end: Option<Lsn> = None;
    let mut place = (0, 0);
    for Found { segment, commit } in found {
        let limit = limits[*segment];
        let is_at_limit = commit.first_lsn == limit;
        let tells = commit.has_checkpoint && commit.is_whole();
        let number = if place.0 == *segment { place.1 } else { 0 };
        place = (*segment, number.max(commit.number) + 1);
        if commit.first_lsn > limit || is_at_limit && !tells {
            continue;
        }
        let end_lsn = commit.end_lsn.min(limit);
        if let Some(bad_end) = &mut bad_end {
            *bad_end = end_lsn.max(*bad_end);
            verdict.commits_truncated += 1;
            continue;
        }
        let is_local = end_lsn == commit.first_lsn;
        if is_local && !commit.is_whole() {
            if end_lsn < durable_end {
                verdict.entries_corrupt += commit.lost + commit.damaged;
                verdict.damaged_segments.push(*segment);
            }
            continue;
        }
        if commit.first_lsn < next {
            // Stale: what has these LSNs was found.
            continue;
        }
        let falls_back = commit.epoch_first != 0 && commit.epoch_first < epoch;
        let is_headless = verdict.accepted.is_empty() && !tells && commit.first_lsn > Lsn(0);
        if commit.first_lsn > next || falls_back || is_headless {
            // Headless: of what was dropped below nobody tells.
            next = if is_headless { Lsn(0) } else { next };
            bad_end = Some(end_lsn);
            verdict.commits_truncated += 1;
            continue;
        }
        let mut kept_end = end_lsn;
        if !commit.is_whole() {
            // Torn, if nothing attests it: then not even what seems whole counts.
            let whole_end =
                if end_lsn <= durable_end { commit.whole_end } else { commit.first_lsn };
            kept_end = whole_end.min(limit);
            if kept_end < end_lsn {
                bad_end = Some(end_lsn);
                verdict.commits_truncated += 1;
            }
        } else if commit.number > number && commit.first_lsn < durable_end {
            // A commit of local entries is gone.
            verdict.entries_corrupt += 1;
            verdict.damaged_segments.push(*segment);
        }
        if kept_end == commit.first_lsn && !is_local {
            continue;
        }
        if tells {
            verdict.checkpoint = Some(*segment);
        }
        verdict.accepted.push(Accepted {
            segment: *segment,
            position: commit.position,
            end_position: commit.end_position,
            first_lsn: commit.first_lsn,
            end_lsn: kept_end,
        });
        // Of a commit that is cut, the last epoch may be void.
        let epoch_kept =
            if kept_end < commit.end_lsn { commit.epoch_first } else { commit.epoch_last };
        epoch = epoch_kept.max(epoch);
        next = kept_end;
    }
    if verdict.accepted.is_empty() && next > Lsn(0) {
        // It began there, with a checkpoint that is not here: of what was below nobody tells.
        bad_end = Some(bad_end.unwrap_or_default().max(next));
        next = Lsn(0);
    }
    if durable_end > next {
        bad_end = Some(bad_end.unwrap_or_default().max(durable_end));
    }
    if is_ruined {
        bad_end = Some(UNBOUNDED);
    }
    verdict.next_lsn = next;
    verdict.bad_end = bad_end;
    verdict
}
