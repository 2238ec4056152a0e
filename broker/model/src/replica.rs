//! What every replica does: it promises, answers a fence, matches a leader, takes its entries, flushes, acknowledges.
//!
//! Each function is one step; where the protocol says "durable before", the step that needs it is the later one.

use crate::config::Config;
use crate::log::{Log, Position, Slot};
use crate::planted::Planted;
use crate::state::{Answer, Before, Broken, Role, State};

/// Removes slots above `keep` from the log of `who`. In force at once; durable at once unless the bounds say otherwise.
pub(crate) fn truncate(state: &mut State, config: &Config, who: usize, keep: u8) {
    let log = state.replicas[who].log;
    if log.len() <= keep {
        return;
    }
    // What a leader of a higher epoch committed may go from a replica that still obeys a lower one: it was never counted there.
    let promised = state.replicas[who].promised;
    let takes_committed = (keep + 1..=log.len()).any(|lsn| {
        let committed = state.committed[usize::from(lsn) - 1];
        committed.is_some_and(|committed| {
            committed.epoch <= promised && log.at(lsn).entry() == Some(committed.entry)
        })
    });
    if takes_committed {
        state.break_with(Broken::CommittedTruncated);
    }
    let replica = &mut state.replicas[who];
    if config.lazy_truncation {
        replica.undone.get_or_insert(Before { log, accepted: replica.accepted });
    }
    replica.log.cut(keep);
}

/// The truncation becomes durable: a crash cannot undo it any more.
pub(crate) fn sync_truncation(state: &mut State, config: &Config, who: usize) {
    state.replicas[who].undone = None;
    acknowledge(state, config, who);
}

/// Whether `who` may promise `epoch`: metadata has begun it, and it is above what was promised.
pub(crate) fn may_promise(state: &State, config: &Config, who: usize, epoch: u8) -> bool {
    let replica = &state.replicas[who];
    let takes_part = replica.member != 0 || config.learners;
    takes_part && !is_gone(state, who) && replica.promised < epoch && epoch <= state.epoch
}

/// A fence, or a leader's first message, reaches `who`: it promises `epoch`. After this no acknowledgment of a lower
/// epoch leaves, and a leader of a lower epoch counts nothing any more.
pub(crate) fn promise(state: &mut State, config: &Config, who: usize, epoch: u8) {
    let replica = &mut state.replicas[who];
    replica.promised = epoch;
    if !config.has(Planted::PromiseNotDurable) {
        replica.promised_durably = epoch;
    }
    replica.role = match replica.role {
        leading @ Role::Leading { .. } if config.has(Planted::FencedLeaderCounts) => leading,
        following @ Role::Following(_) if config.has(Planted::LateAck) => following,
        _ => Role::Waiting,
    };
    if !config.has(Planted::BeginsBelowPromise) {
        replica.named = replica.named.filter(|(named, _)| *named >= epoch);
    }
    if let Some(answer) = answer(state, config, who) {
        give(state, who, answer);
    }
}

/// What `who` would answer to the fence of the current epoch now. Nothing before its promise, nor while a crash could
/// undo a truncation.
pub(crate) fn answer(state: &State, config: &Config, who: usize) -> Option<Answer> {
    let replica = &state.replicas[who];
    let open = !state.has_leader || config.has(Planted::TwoProposals);
    if !open || is_gone(state, who) || replica.promised != state.epoch || replica.undone.is_some() {
        return None;
    }
    let log = &replica.log;
    let has = log.position(log.durable());
    let perhaps = if !log.has_bad() || config.has(Planted::HoleIsEnd) {
        has
    } else if config.has(Planted::UndecidedOfEpochBelow) {
        Position { epoch: has.epoch, lsn: log.len() }
    } else {
        // The epoch of a bad entry cannot be read; it is at most the last one in which this replica took entries.
        Position { epoch: replica.accepted, lsn: log.len() }
    };
    Some(Answer { has, perhaps })
}

/// Sends an answer, unless the same one is under way.
pub(crate) fn give(state: &mut State, who: usize, answer: Answer) {
    let answers = &mut state.replicas[who].answers;
    if let Err(place) = answers.binary_search(&answer) {
        answers.insert(place, answer);
    }
}

/// Whether `who` can match the leader of the epoch that it promised, whose messages may be old.
pub(crate) fn may_match(state: &State, who: usize) -> bool {
    let replica = &state.replicas[who];
    let epoch = replica.promised;
    let free = match replica.role {
        Role::Waiting => true,
        Role::Following(e) => e < epoch,
        Role::Leading { .. } => false,
    };
    free && !is_gone(state, who) && !state.leader_logs[usize::from(epoch)].is_empty()
}

/// `who` compares its log with that of the leader of its epoch, from the start, and truncates from where they differ.
/// What is bad is compared with nothing: an entry above it that is equal proves that it was equal, too.
pub(crate) fn match_leader(state: &mut State, config: &Config, who: usize) {
    let replica = &state.replicas[who];
    let epoch = replica.promised;
    let leader_log = state.leader_logs[usize::from(epoch)];
    let start = leader_log.first_of(epoch).expect("a leader's log has its epoch start");
    // Before its first match in this epoch a replica has nothing of it; what it has from the epoch start on is another's,
    // and a mark there is void: all that was committed lies below.
    let limit = if replica.accepted < epoch || config.has(Planted::TruncatesEqual) {
        start - 1
    } else {
        u8::MAX
    };
    let keep = common_end(&replica.log, &leader_log).min(limit);
    if !config.has(Planted::AckBeforeMatch) {
        truncate(state, config, who, keep);
    }
    let replica = &mut state.replicas[who];
    replica.accepted = epoch;
    replica.role = Role::Following(epoch);
    acknowledge(state, config, who);
}

/// LSN through which nothing in `ours` is known to differ from `theirs`.
fn common_end(ours: &Log, theirs: &Log) -> u8 {
    let mut lsn = 0;
    while lsn < ours.len() {
        let our = ours.at(lsn + 1).entry();
        let their = theirs.at(lsn + 1).entry();
        let differ = matches!((our, their), (Some(our), Some(their)) if our.epoch != their.epoch);
        if differ {
            break;
        }
        lsn += 1;
    }
    lsn
}

/// Whether the next entry of its leader can be written by `who`.
pub(crate) fn may_receive(state: &State, who: usize) -> bool {
    let replica = &state.replicas[who];
    let Role::Following(epoch) = replica.role else { return false };
    epoch == replica.promised && replica.log.len() < state.leader_logs[usize::from(epoch)].len()
}

/// `who` writes the next entry of its leader.
pub(crate) fn receive(state: &mut State, who: usize) {
    let replica = &mut state.replicas[who];
    let leader_log = state.leader_logs[usize::from(replica.promised)];
    let next =
        leader_log.at(replica.log.len() + 1).entry().expect("a leader sends what it can read");
    replica.log.push(Slot::Written(next));
}

/// A flush of `who` completes. It covers all that was written.
pub(crate) fn flush(state: &mut State, config: &Config, who: usize) {
    state.replicas[who].log.flush();
    match state.replicas[who].role {
        Role::Waiting => {}
        Role::Following(_) => acknowledge(state, config, who),
        Role::Leading { epoch, .. } => crate::leader::commit(state, config, epoch),
    }
}

/// `who` acknowledges what is durable, as soon as it may: later is never more.
fn acknowledge(state: &mut State, config: &Config, who: usize) {
    let replica = &state.replicas[who];
    let epoch = match replica.role {
        Role::Following(epoch) => epoch,
        Role::Leading { epoch, .. } => return crate::leader::commit(state, config, epoch),
        Role::Waiting => return,
    };
    if replica.undone.is_some() && !config.has(Planted::TruncationNotDurable) {
        return;
    }
    let leader_log = state.leader_logs[usize::from(epoch)];
    let through = replica.log.durable().min(leader_log.len());
    if (1..=through).any(|lsn| replica.log.at(lsn).entry() != leader_log.at(lsn).entry()) {
        state.break_with(Broken::AckUnequal);
    }
    let acked = &mut state.replicas[who].acked[usize::from(epoch)];
    *acked = through.max(*acked);
    crate::leader::commit(state, config, epoch);
}

/// Whether `who` must not be heard: its disk was lost.
pub(crate) fn is_gone(state: &State, who: usize) -> bool {
    state.replicas[who].wiped
}
