//! What only a follower keeps: whom it follows, and what it has told.

use corelog_protocol::ids::{BrokerId, Epoch, Lsn};

use super::history::{common_end, epoch_at};
use super::order::{LaneLog, Resume};
use super::position::Position;
use crate::limits::FOLLOWER_AGE_NS;
use crate::planted::{Bug, is_planted};
use crate::time::{Monotonic, Nanos};

/// A leader that has introduced itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lead {
    pub from: BrokerId,
    pub epoch: Epoch,
    pub history: Vec<(Epoch, Lsn)>,
    /// Nobody has anything of the leader's from here on.
    pub end: Lsn,
}

#[derive(Debug)]
pub struct Follower {
    pub leader: BrokerId,
    pub epoch: Epoch,
    /// The durable LSN that the leader was told last.
    pub acked: Lsn,
    /// The leader has been asked to send from here, and entries from beyond have come since.
    pub asked_from: Option<Lsn>,
    /// As the leader told it.
    pub committed: Lsn,
    /// The leader was told of so much in memory.
    pub told_received: Lsn,
    /// It wants to know what is in memory, too.
    pub wants_received: bool,
    /// What the leader called committed at this moment cannot all be read here yet.
    awaited: Option<(Lsn, Monotonic)>,
    /// All that the leader called committed at this moment can be read here.
    as_of: Option<Monotonic>,
}

impl Follower {
    pub fn new(lead: &Lead) -> Self {
        Self {
            leader: lead.from,
            epoch: lead.epoch,
            acked: Lsn(0),
            asked_from: None,
            committed: Lsn(0),
            told_received: Lsn(0),
            wants_received: false,
            awaited: None,
            as_of: None,
        }
    }

    /// The leader calls everything below committed. 0, before its epoch start is: nothing yet.
    pub fn on_told(&mut self, committed: Lsn, now: Monotonic) {
        self.committed = self.committed.max(committed);
        if committed > Lsn(0) && self.awaited.is_none() {
            self.awaited = Some((self.committed, now));
        }
    }

    /// What is committed and below `end` can be read here.
    pub fn on_readable(&mut self, end: Lsn) {
        if let Some((_, told_at)) = self.awaited.take_if(|(wanted, _)| *wanted <= end) {
            self.as_of = Some(told_at);
        }
    }

    /// Whether what can be read here is all that was called committed not long ago. A leader that is silent, a disk that
    /// does not keep up: in either case it is not.
    pub fn is_fresh(&self, now: Monotonic) -> bool {
        self.as_of.is_some_and(|told_at| now <= told_at + Nanos(FOLLOWER_AGE_NS))
    }
}

/// What a replica has to do with its log before it follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Matching {
    /// Nothing: it is equal as it stands.
    Equal,
    /// Go on from its end: nothing is truncated.
    Resume(Resume),
    /// Truncate.
    Reopen(Resume),
}

/// Compares a log with its leader's. `accepted`: the last epoch in which the replica took entries, or led.
///
/// The rules are 15 to 18 of the model: from the first difference everything goes; before the first match in the
/// leader's epoch also everything from the epoch start on; and the mark of what cannot be read stays as far as it was
/// not given up.
pub fn match_log(lead: &Lead, log: &impl LaneLog, accepted: Epoch) -> Matching {
    let start = lead.history.last().map_or(Lsn(0), |(_, first)| *first);
    let has = log.has();
    let bad_end = log.bad_end();
    // What lies above something bad is fetched again.
    let is_whole = !log.is_dormant() && !log.is_damaged();
    let end = if is_whole { log.next_lsn() } else { has.end };
    let is_new = accepted < lead.epoch;
    let mut keep = common_end(log.history(), end, &lead.history);
    if is_new || is_planted(Bug::EqualTruncated) {
        keep = keep.min(start);
    }
    // All that was committed before this epoch lies below its start; and what was acknowledged in it, below the leader's
    // end.
    let bound = if is_new { start } else { lead.end };
    let still_bad = bad_end.map(|bad_end| bad_end.min(bound));
    let still_bad = still_bad.filter(|end| *end > keep && !is_planted(Bug::MarkForgotten));
    let resume = Resume { at: keep, accepted: lead.epoch, bad_end: still_bad };
    match log.is_dormant() {
        true if keep == end && bad_end.is_none() => Matching::Resume(resume),
        false if keep == end && is_whole => Matching::Equal,
        _ => Matching::Reopen(resume),
    }
}

/// Whether the log has the very entry before `position.end`, and all below.
pub fn reads_through(log: &impl LaneLog, position: Position) -> bool {
    if position.end > log.has().end {
        return false;
    }
    let Some(last) = position.end.0.checked_sub(1) else { return true };
    epoch_at(log.history(), Lsn(last)) == Some(position.epoch)
}
