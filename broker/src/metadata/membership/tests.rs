//! Who is in the group, what is known of the brokers, and the one step that follows.

use std::sync::Arc;

use super::*;
use crate::disk::DirectoryId;
use crate::metadata::{BrokerRecord, Command, LaneReplica};
use crate::random::Random;

/// Brokers 1 to `count`, without those that were removed, and one lane.
fn state(count: u32, removed: &[u32]) -> State {
    with_racks(count, removed, |_| "")
}

fn with_racks(count: u32, removed: &[u32], rack: impl Fn(u32) -> &'static str) -> State {
    let mut state = State::default();
    for id in 1..=count {
        let record = BrokerRecord::of_a_test(BrokerId(id), 1);
        let record = BrokerRecord { rack: rack(id).into(), ..record };
        state.apply(&Command::BrokerRegister { record });
    }
    let stays = (1..=count).find(|id| !removed.contains(id)).expect("one stays");
    let replica = LaneReplica { broker: BrokerId(stays), directory: DirectoryId(0) };
    state.apply(&Command::Boot { lanes: vec![Arc::from([replica])] });
    for &id in removed {
        state.apply(&Command::BrokerRemove { id: BrokerId(id) });
        assert!(state.is_removed(BrokerId(id)));
    }
    state
}

fn members(voters: &[u64], learners: &[u64]) -> Members {
    let ids = |ids: &[u64]| ids.iter().copied().map(ReplicaId).collect();
    Members { voters: ids(voters), learners: ids(learners), ..Members::default() }
}

/// What broker 1 does next as the leader.
fn next(state: &State, members: &Members, silent: &[u32], behind: &[u32]) -> Option<Step> {
    next_step(&Facts {
        leader: BrokerId(1),
        members,
        state,
        is_alive: &|id| !silent.contains(&id.0),
        is_caught_up: &|id| !behind.contains(&id.0),
    })
}

fn change(changes: &[Change]) -> Option<Step> {
    Some(Step::Change(changes.to_vec()))
}

fn add(id: u64) -> Change {
    Change::AddVoter(ReplicaId(id))
}

fn learn(id: u64) -> Change {
    Change::AddLearner(ReplicaId(id))
}

fn remove(id: u64) -> Change {
    Change::Remove(ReplicaId(id))
}

#[test]
fn who_registers_is_a_learner_first_and_a_voter_when_one_is_wanted_and_it_has_everything() {
    let three = members(&[1, 2, 3], &[]);
    assert_eq!(next(&state(3, &[]), &three, &[], &[]), None);
    assert_eq!(next(&state(4, &[]), &three, &[], &[]), change(&[learn(4)]));
    // Four survive no more than three.
    assert_eq!(next(&state(4, &[]), &members(&[1, 2, 3], &[4]), &[], &[]), None);
    // With five, two more are wanted, and come together.
    let five = state(5, &[]);
    assert_eq!(next(&five, &members(&[1, 2, 3], &[4]), &[], &[]), change(&[learn(5)]));
    let all = members(&[1, 2, 3], &[4, 5]);
    assert_eq!(next(&five, &all, &[], &[]), change(&[add(4), add(5)]));
    assert_eq!(next(&five, &all, &[], &[5]), None, "it lacks something");
    assert_eq!(next(&five, &all, &[4], &[]), None, "nothing is heard of it");
    assert_eq!(next(&five, &members(&[1, 2, 3, 4, 5], &[]), &[3, 4], &[]), None);
    // A cluster that grows from one.
    let two = state(2, &[]);
    assert_eq!(next(&two, &members(&[1], &[2]), &[], &[]), change(&[add(2)]));
    assert_eq!(next(&two, &members(&[1, 2], &[]), &[], &[]), None);
    let three = state(3, &[]);
    assert_eq!(next(&three, &members(&[1, 2], &[3]), &[], &[]), change(&[add(3)]));
}

#[test]
fn before_the_lanes_are_dealt_and_while_a_change_is_under_way_there_is_no_step() {
    let mut early = State::default();
    for id in 1..=2 {
        let record = BrokerRecord::of_a_test(BrokerId(id), 1);
        early.apply(&Command::BrokerRegister { record });
    }
    // The third is listed, and has not registered yet.
    assert_eq!(next(&early, &members(&[1, 2, 3], &[]), &[], &[]), None);
    assert_eq!(next(&state(2, &[]), &members(&[1, 2, 3], &[]), &[3], &[]), None, "it may come");
    let mut joint = members(&[1, 2, 4], &[]);
    joint.voters_outgoing = [1, 2, 3].map(ReplicaId).to_vec();
    assert_eq!(next(&state(5, &[3]), &joint, &[], &[]), None);
}

#[test]
fn a_silent_voter_stays_until_its_broker_is_removed_and_then_a_learner_takes_its_place() {
    let four = members(&[1, 2, 3], &[4]);
    assert_eq!(next(&state(4, &[]), &four, &[3], &[]), None, "it may come back");
    let removed = state(4, &[3]);
    assert_eq!(next(&removed, &four, &[3], &[]), change(&[add(4), remove(3)]));
    assert_eq!(next(&removed, &four, &[3], &[4]), None, "it will have everything soon");
    // Nobody can take its place: those that stay are heard, or else nothing is done.
    assert_eq!(next(&removed, &four, &[3, 4], &[]), change(&[remove(3)]));
    assert_eq!(next(&removed, &four, &[2, 4], &[]), None, "one of two would be left");
    assert_eq!(next(&state(3, &[3]), &members(&[1, 2, 3], &[]), &[], &[]), change(&[remove(3)]));
    // A learner just goes.
    assert_eq!(next(&state(4, &[4]), &four, &[], &[]), change(&[remove(4)]));
}

#[test]
fn a_leader_that_was_removed_lets_another_one_lead_first() {
    let removed = state(4, &[1]);
    let four = members(&[1, 2, 3], &[4]);
    assert_eq!(next(&removed, &four, &[], &[]), Some(Step::HandOver));
    // Nobody else could: a learner becomes a voter before.
    let two = state(2, &[1]);
    assert_eq!(next(&two, &members(&[1], &[2]), &[], &[]), change(&[add(2)]));
    assert_eq!(next(&two, &members(&[1, 2], &[]), &[], &[]), Some(Step::HandOver));
    assert_eq!(next(&two, &members(&[1], &[2]), &[2], &[]), None);
}

#[test]
fn too_many_voters_become_fewer_when_all_of_them_are_heard() {
    let four = members(&[1, 2, 3, 4], &[]);
    assert_eq!(next(&state(4, &[]), &four, &[], &[]), change(&[learn(4)]));
    assert_eq!(next(&state(4, &[]), &four, &[2], &[]), None);
    let seven = members(&[1, 2, 3, 4, 5, 6, 7], &[]);
    assert_eq!(next(&state(7, &[]), &seven, &[], &[]), change(&[learn(7), learn(6)]));
    // One of five goes for good: then three are enough.
    let five = members(&[1, 2, 3, 4, 5], &[]);
    assert_eq!(next(&state(5, &[2]), &five, &[2], &[]), change(&[remove(2)]));
    let left = members(&[1, 3, 4, 5], &[]);
    assert_eq!(next(&state(5, &[2]), &left, &[], &[]), change(&[learn(5)]));
}

#[test]
fn the_voter_that_comes_is_of_a_rack_without_one() {
    let racks = ["a", "b", "c", "a", "c"];
    let state = with_racks(5, &[3], |id| racks[id as usize - 1]);
    let four = members(&[1, 2, 3], &[4, 5]);
    assert_eq!(next(&state, &four, &[], &[]), change(&[add(5), remove(3)]));
}

#[test]
fn removing_a_broker_leaves_a_majority_that_is_heard() {
    let can = |broker, members: &Members, state: &State, silent: &[u32]| {
        can_decide_without(BrokerId(broker), members, state, |id| !silent.contains(&id.0))
    };
    let three = members(&[1, 2, 3], &[]);
    assert!(can(3, &three, &state(3, &[]), &[3]));
    assert!(!can(3, &three, &state(3, &[]), &[2]), "one of two");
    let four = members(&[1, 2, 3], &[4]);
    assert!(can(3, &four, &state(4, &[]), &[2]), "the learner takes its place");
    assert!(!can(3, &four, &state(4, &[]), &[2, 4]));
    assert!(can(4, &four, &state(4, &[]), &[3, 4]));
}

/// Whatever comes, goes, falls silent or is slow: one step after the other leads to the voters that are wanted, and no
/// step leaves voters of whom less than a majority is heard, if one was heard before.
#[test]
fn steps_lead_to_the_voters_that_are_wanted_and_never_to_a_minority() {
    let mut random = Random::new(5);
    let mut steps = 0;
    for round in 0..2_000 {
        let count = 1 + random.below(7) as u32;
        let first = 1 + random.below(u64::from(count)) as u32;
        let mut removed: Vec<u32> = (1..=count).filter(|_| random.below(4) == 0).collect();
        removed.truncate(count as usize - 1);
        let state = state(count, &removed);
        let mut now =
            Members::of_voters(&(1..=u64::from(first)).map(ReplicaId).collect::<Vec<_>>());
        let mut silent: Vec<u32> = (2..=count).filter(|_| random.below(3) == 0).collect();
        for turn in 0..40 {
            if turn == 20 {
                // In the end all that stay are heard.
                silent.retain(|id| removed.contains(id));
            }
            let is_alive = |id: &ReplicaId| !silent.contains(&(id.0 as u32));
            let heard = |members: &Members| {
                2 * members.voters.iter().filter(|id| is_alive(id)).count() > members.voters.len()
            };
            // The leader is one that is heard; who was removed only while nobody else is a voter.
            let mut could = now.voters.iter().filter(|id| is_alive(id)).map(|id| id.0 as u32);
            let Some(leader) = could.clone().find(|id| !removed.contains(id)).or(could.next())
            else {
                continue;
            };
            if !heard(&now) {
                continue;
            }
            let facts = Facts {
                leader: BrokerId(leader),
                members: &now,
                state: &state,
                is_alive: &|id| is_alive(&member(id)),
                is_caught_up: &|_| true,
            };
            let Some(Step::Change(changes)) = next_step(&facts) else { continue };
            steps += 1;
            let mut then = now.clone();
            for change in changes {
                let (Change::AddVoter(id) | Change::AddLearner(id) | Change::Remove(id)) = change;
                then.voters.retain(|it| *it != id);
                then.learners.retain(|it| *it != id);
                match change {
                    Change::AddVoter(_) => then.voters.push(id),
                    Change::AddLearner(_) => then.learners.push(id),
                    Change::Remove(_) => {}
                }
            }
            then.voters.sort_unstable();
            then.learners.sort_unstable();
            assert!(then.is_valid(), "round {round}: {now:?} → {then:?}");
            assert!(heard(&then), "round {round}: {now:?} → {then:?}, silent {silent:?}");
            now = then;
        }
        let stay = count as usize - removed.len();
        let is_there = |id: &ReplicaId| !state.is_removed(BrokerId(id.0 as u32));
        let has_stuck = now.voters.iter().any(|id| !is_there(id));
        if !has_stuck {
            assert_eq!(now.voters.len(), voters_wanted(stay), "round {round}: {now:?}");
            assert_eq!(now.all().len(), stay, "round {round}: {now:?}");
        }
    }
    assert!(steps > 2_000, "{steps}");
}
