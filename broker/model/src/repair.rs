//! How a bad or missing entry is fetched from a peer: under a leader, from its log; in a fence, from whoever has more.
//!
//! The mark of a bad entry goes only when its replacement is durable: until then the replica perhaps acknowledged it.

use crate::config::{Config, EPOCH_MAX};
use crate::log::{Entry, Slot};
use crate::planted::Planted;
use crate::replica::{answer, is_gone, truncate};
use crate::state::{Role, State};

/// The entry that replaces the bad one of `who` at `lsn`: a follower has it from its leader, a leader from a follower.
pub(crate) fn replacement(state: &State, who: usize, lsn: u8) -> Option<Entry> {
    let replica = &state.replicas[who];
    if lsn > replica.log.len() || replica.log.at(lsn) != Slot::Bad || is_gone(state, who) {
        return None;
    }
    let (epoch, leads) = match replica.role {
        Role::Waiting => return None,
        Role::Following(epoch) => (epoch, false),
        Role::Leading { epoch, .. } => (epoch, true),
    };
    let leader_log = &state.leader_logs[usize::from(epoch)];
    let entry = (epoch == replica.promised).then(|| leader_log.at(lsn).entry()).flatten()?;
    let somewhere = state
        .replicas
        .iter()
        .any(|other| !other.wiped && other.log.at(lsn) == Slot::Durable(entry));
    (!leads || somewhere).then_some(entry)
}

/// `who` writes the replacement beside the bad entry.
pub(crate) fn repair(state: &mut State, config: &Config, who: usize, lsn: u8) {
    let Some(entry) = replacement(state, who, lsn) else { return };
    let log = &mut state.replicas[who].log;
    if config.has(Planted::MarkDroppedBeforeRepair) {
        log.cut(lsn - 1);
        log.push(Slot::Written(entry));
    } else {
        log.set(lsn, Slot::Rewritten(entry));
    }
}

/// Whether `who` may take the log of `from` in a fence: it has more that is whole, and covers whatever `who` perhaps had.
pub(crate) fn may_fetch(state: &State, config: &Config, who: usize, from: usize) -> bool {
    let (Some(ours), Some(theirs)) = (fenced(state, config, who), fenced(state, config, from))
    else {
        return false;
    };
    let log = &state.replicas[who].log;
    log.position(log.readable()) < theirs.has && ours.perhaps <= theirs.has
}

fn fenced(state: &State, config: &Config, who: usize) -> Option<crate::state::Answer> {
    let replica = &state.replicas[who];
    let idle = replica.role == Role::Waiting && replica.accepted < state.epoch;
    if idle { answer(state, config, who) } else { None }
}

/// `who` truncates what differs from the log of `from`, and writes what it lacks.
pub(crate) fn fetch(state: &mut State, config: &Config, who: usize, from: usize) {
    let theirs = state.replicas[from].log;
    let end = theirs.durable();
    let ours = state.replicas[who].log;
    let entries = |lsn: u8| (ours.at(lsn).entry(), theirs.at(lsn).entry());
    let differs =
        |lsn: &u8| matches!(entries(*lsn), (Some(our), Some(their)) if our.epoch != their.epoch);
    let keep = match (1..=ours.len().min(end)).find(differs) {
        Some(lsn) => lsn - 1,
        // The same entry at the end of theirs: what we have above continues the same log.
        None if ours.at(end).entry().is_some() => ours.len(),
        None => ours.len().min(end),
    };
    truncate(state, config, who, keep);
    let replica = &mut state.replicas[who];
    for lsn in 1..=end {
        let entry = theirs.at(lsn).entry().expect("durable");
        if lsn > replica.log.len() {
            replica.log.push(Slot::Written(entry));
        } else if replica.log.at(lsn) == Slot::Bad {
            replica.log.set(lsn, Slot::Rewritten(entry));
        }
    }
    replica.accepted = replica.accepted.max(theirs.position(end).epoch);
}

/// The LSN of a hole of `who` that `from` can fill in a fence: the entry above the hole has the epoch of the one that `from` has in
/// its place, and the leader of that epoch wrote only one log.
pub(crate) fn may_fill(state: &State, who: usize, from: usize) -> Option<u8> {
    let (ours, theirs) = (&state.replicas[who], &state.replicas[from].log);
    let fenced = |replica: &crate::state::Replica| {
        !replica.wiped
            && replica.role == Role::Waiting
            && replica.promised == state.epoch
            && replica.undone.is_none()
    };
    if state.has_leader
        || ours.accepted >= state.epoch
        || !fenced(ours)
        || !fenced(&state.replicas[from])
    {
        return None;
    }
    let hole = ours.log.readable() + 1;
    let above = (hole..=ours.log.len()).find_map(|lsn| ours.log.at(lsn).entry())?;
    let fits = hole <= theirs.durable() && theirs.position(hole).epoch == above.epoch;
    fits.then_some(hole)
}

/// `who` writes the entry of `from` beside its hole.
pub(crate) fn fill(state: &mut State, who: usize, from: usize) {
    let Some(lsn) = may_fill(state, who, from) else { return };
    let entry = state.replicas[from].log.at(lsn).entry().expect("durable");
    state.replicas[who].log.set(lsn, Slot::Rewritten(entry));
}

const _: () = assert!(EPOCH_MAX < 8, "a bit of `member` for each epoch");
