//! The metadata authority: epochs, the replica set, who may lead.
//!
//! It is a Raft group, so here it is one state machine that always answers. What reaches it may be old: a proposal rests on any
//! answers that were ever given in its epoch, and is applied at any later moment, if at all.

use crate::config::Config;
use crate::log::{Position, Slot};
use crate::planted::Planted;
use crate::repair;
use crate::state::{Replica, State};

/// Whether another epoch is within bounds.
pub(crate) fn may_enter(state: &State, config: &Config) -> bool {
    state.epoch < config.epochs
}

/// The lane enters the next epoch, without a leader, with the same set.
pub(crate) fn enter(state: &mut State) {
    state.epoch += 1;
    state.has_leader = false;
    for replica in &mut state.replicas {
        replica.answers.clear();
        if replica.is_member(state.epoch - 1) {
            replica.member |= 1 << state.epoch;
        }
    }
}

/// Whether `out` may give its place to `joiner`: one change at a time, and an id that once left does not come back.
pub(crate) fn may_change(state: &State, config: &Config, out: usize, joiner: usize) -> bool {
    state.changes > 0
        && may_enter(state, config)
        && state.replicas.iter().all(|replica| !replica.member_before)
        && state.replicas[out].is_member(state.epoch)
        && state.replicas[joiner].member == 0
        && !state.replicas[joiner].wiped
}

/// The lane enters the next epoch with `joiner` in the place of `out`. The set before is kept beside the new one.
pub(crate) fn change(state: &mut State, config: &Config, out: usize, joiner: usize) {
    state.changes -= 1;
    for replica in &mut state.replicas {
        replica.member_before = replica.is_member(state.epoch) && !config.has(Planted::NewSetOnly);
    }
    enter(state);
    let bit = 1 << state.epoch;
    state.replicas[out].member &= !bit;
    state.replicas[joiner].member |= bit | 1;
}

/// Whether the set before can be forgotten: the leader of exactly this epoch has told that its epoch start is committed,
/// so a quorum of the new set has all that was ever committed.
pub(crate) fn may_settle(state: &State) -> bool {
    let start_committed =
        state.committed.iter().flatten().any(|committed| committed.entry.epoch == state.epoch);
    state.has_leader
        && start_committed
        && state.replicas.iter().any(|replica| replica.member_before)
}

/// The set before is forgotten.
pub(crate) fn settle(state: &mut State) {
    for replica in &mut state.replicas {
        replica.member_before = false;
    }
}

/// Whether the proposal "`who` leads this epoch from `position`" can have been made and would be applied.
pub(crate) fn may_name(state: &State, config: &Config, who: usize, position: Position) -> bool {
    let open = !state.has_leader || config.has(Planted::TwoProposals);
    open && state.epoch > 1
        && state.replicas[who].is_member(state.epoch)
        && covers_all(state, config, position)
}

/// Whether a leader whose log is whole through `position` has all that was ever committed: so say a quorum of the set,
/// and of the set before, or all replicas of it.
fn covers_all(state: &State, config: &Config, position: Position) -> bool {
    let now = |replica: &Replica| replica.is_member(state.epoch);
    let before = |replica: &Replica| replica.member_before;
    let changing = state.replicas.iter().any(before);
    covers(state, config, position, now) && (!changing || covers(state, config, position, before))
}

fn covers(
    state: &State,
    config: &Config,
    position: Position,
    member: impl Fn(&Replica) -> bool,
) -> bool {
    let members: Vec<&Replica> = state.replicas.iter().filter(|replica| member(replica)).collect();
    let decided = members.iter().filter(|replica| {
        replica.answers.iter().any(|answer| {
            if config.has(Planted::GreatestLsn) {
                answer.has.lsn <= position.lsn
            } else if config.has(Planted::UndecidedByLsn) {
                answer.has <= position && answer.perhaps.lsn <= position.lsn
            } else {
                answer.perhaps <= position
            }
        })
    });
    // All have answered and none has more that can be read. Had an entry above been committed, all its copies, a
    // quorum, would be bad: more than a minority, which is more than the protocol stands.
    let none_has_more =
        members.iter().all(|replica| replica.answers.iter().any(|answer| answer.has <= position));
    decided.count() > members.len() / 2
        || (none_has_more && !config.has(Planted::OnlyIntactQuorumDrops))
}

/// `who` is named leader of this epoch, and will hear of it some time.
pub(crate) fn name(state: &mut State, config: &Config, who: usize, position: Position) {
    state.has_leader = true;
    state.replicas[who].named = Some((state.epoch, position));
    if config.has(Planted::OldSetForgottenAtOnce) {
        settle(state);
    }
    if !config.has(Planted::TwoProposals) {
        for replica in &mut state.replicas {
            replica.answers.clear();
        }
    }
}

/// I14: as many answered as can be waited for, and still nobody may lead, nor fetch what would let it.
pub(crate) fn waits_for_ever(state: &State, config: &Config) -> bool {
    if state.has_leader {
        return false;
    }
    // All of a set, or a quorum in which nothing is bad.
    let enough = |member: &dyn Fn(&Replica) -> bool| {
        let members: Vec<&Replica> =
            state.replicas.iter().filter(|replica| member(replica)).collect();
        let answered = |replica: &&&Replica| !replica.wiped && !replica.answers.is_empty();
        let intact =
            |replica: &&&Replica| replica.answers.iter().any(|answer| answer.perhaps == answer.has);
        members.iter().all(|replica| answered(&replica))
            || members.iter().filter(answered).filter(intact).count() > members.len() / 2
    };
    let answered = enough(&|replica| replica.is_member(state.epoch))
        && enough(&|replica| replica.member_before);
    let everyone = || 0..state.replicas.len();
    // A flush, a sync or another answer is due, and may tell more.
    let more_to_come = everyone().any(|who| {
        let replica = &state.replicas[who];
        let news = crate::replica::answer(state, config, who)
            .is_some_and(|answer| !replica.answers.contains(&answer));
        news || replica.undone.is_some() || replica.log.iter().any(Slot::is_volatile)
    });
    let can_be_named = |who: usize| {
        state.replicas[who].answers.iter().any(|answer| may_name(state, config, who, answer.has))
    };
    let can_fetch = |who: usize| {
        everyone().any(|from| {
            repair::may_fetch(state, config, who, from)
                || repair::may_fill(state, who, from).is_some()
        })
    };
    answered && !more_to_come && !everyone().any(|who| can_be_named(who) || can_fetch(who))
}
