//! What only a leader does: it begins its epoch, appends, and counts acknowledgments.

use crate::config::Config;
use crate::log::{Entry, Slot};
use crate::planted::Planted;
use crate::replica::truncate;
use crate::state::{Broken, Committed, Role, State};

/// Whether `who` may begin the epoch for which it was named: it has promised exactly that, has not begun it before, and
/// can read its log through the position for which it was chosen.
pub(crate) fn may_begin(state: &State, config: &Config, who: usize) -> bool {
    let replica = &state.replicas[who];
    let Some((epoch, position)) = replica.named else { return false };
    let promised = replica.promised == epoch || config.has(Planted::BeginsBelowPromise);
    let fresh = replica.accepted < epoch || config.has(Planted::LeaderResumes);
    let whole = replica.log.reads_through(position) || config.has(Planted::BeginsFromLess);
    replica.role == Role::Waiting
        && !replica.wiped
        && promised
        && fresh
        && whole
        && replica.undone.is_none()
        && replica.log.readable() < config.entries
}

/// `who` begins its epoch: what it cannot read above its log is given up (the fence has decided that), it records that
/// it has begun, and writes the epoch-start entry.
pub(crate) fn begin(state: &mut State, config: &Config, who: usize) {
    let (epoch, _) = state.replicas[who].named.expect("named");
    let life = u8::from(!state.leader_logs[usize::from(epoch)].is_empty());
    if life == 1 && !config.has(Planted::LeaderResumes) {
        return state.break_with(Broken::SecondLeader);
    }
    let readable = state.replicas[who].log.readable();
    truncate(state, config, who, readable);
    let replica = &mut state.replicas[who];
    // Durable before the first entry leaves: a leader has no acknowledgment of its own that could wait for it.
    replica.undone = None;
    replica.accepted = replica.accepted.max(epoch);
    replica.role = Role::Leading { epoch, life };
    if !config.has(Planted::LeaderResumes) {
        replica.named = None;
    }
    let mut sent = crate::log::Log::default();
    for slot in replica.log.iter() {
        sent.push(Slot::Durable(slot.entry().expect("readable")));
    }
    state.leader_logs[usize::from(epoch)] = sent;
    check_committed(state, epoch);
    append(state, who);
}

/// Whether `who` leads and has room.
pub(crate) fn may_append(state: &State, config: &Config, who: usize) -> bool {
    let replica = &state.replicas[who];
    let Role::Leading { epoch, .. } = replica.role else { return false };
    let serves = epoch == replica.promised || config.has(Planted::BeginsBelowPromise);
    serves && replica.log.len() < config.entries
}

/// `who` writes an entry, and sends it at the same time.
pub(crate) fn append(state: &mut State, who: usize) {
    let replica = &mut state.replicas[who];
    let Role::Leading { epoch, life } = replica.role else { return };
    let entry = Entry { epoch, life };
    replica.log.push(Slot::Written(entry));
    state.leader_logs[usize::from(epoch)].push(Slot::Durable(entry));
}

/// The leader of `epoch` commits what a quorum of its set has: the quorum-th largest of acknowledgments and its own
/// durable LSN, if that is an entry of its own epoch.
pub(crate) fn commit(state: &mut State, config: &Config, epoch: u8) {
    let Some(leader) = state.leader_of(epoch) else { return };
    let replica = &state.replicas[leader];
    let below_promise =
        config.has(Planted::FencedLeaderCounts) || config.has(Planted::BeginsBelowPromise);
    if replica.promised != epoch && !below_promise {
        return;
    }
    let own = if replica.undone.is_some() { 0 } else { replica.log.durable() };
    let members = state.replicas.iter().filter(|replica| replica.is_member(epoch)).count();
    let mut through: Vec<u8> = (state.replicas.iter().enumerate())
        .filter(|(_, replica)| replica.is_member(epoch) || config.has(Planted::LearnerCounts))
        .map(|(who, replica)| if who == leader { own } else { replica.acked[usize::from(epoch)] })
        .collect();
    through.sort_unstable_by(|left, right| right.cmp(left));
    let end = through[members / 2];
    let log = state.leader_logs[usize::from(epoch)];
    if end == 0 || (log.position(end).epoch != epoch && !config.has(Planted::CommitOlderEpoch)) {
        return;
    }
    for lsn in 1..=end {
        let entry = log.at(lsn).entry().expect("a leader's log can be read");
        let committed = &mut state.committed[usize::from(lsn) - 1];
        match committed {
            Some(before) if before.entry != entry => {
                return state.break_with(Broken::CommittedChanged);
            }
            Some(before) => before.epoch = before.epoch.min(epoch),
            None => *committed = Some(Committed { entry, epoch }),
        }
    }
    for later in epoch + 1..=state.epoch {
        if !state.leader_logs[usize::from(later)].is_empty() {
            check_committed(state, later);
        }
    }
}

/// The leader of `epoch` must have what leaders of lower epochs committed.
fn check_committed(state: &mut State, epoch: u8) {
    let log = state.leader_logs[usize::from(epoch)];
    let lost = (1..).zip(state.committed).any(|(lsn, committed)| {
        committed.is_some_and(|committed| {
            committed.epoch < epoch && log.at(lsn).entry() != Some(committed.entry)
        })
    });
    if lost {
        state.break_with(Broken::CommittedLost);
    }
}
