//! One event at a time, and what follows.

use super::rig::{Rig, id};
use crate::metadata::consensus::*;

fn committed(rig: &mut Rig, leader: u64) -> u64 {
    let command = rig.propose(leader).expect("it leads");
    rig.run(6);
    assert!(rig.is_acknowledged(command));
    command
}

fn all(voters: &[u64]) -> Vec<ReplicaId> {
    voters.iter().copied().map(id).collect()
}

#[test]
fn a_group_of_one_elects_itself_and_commits_when_its_disk_has_it() {
    let mut rig = Rig::new(1, 1, 1);
    rig.is_disk_instant = false;
    rig.group(1).campaign();
    let command = rig.propose(1).expect("elected without a word from anyone");
    rig.run(3);
    assert!(!rig.is_acknowledged(command), "nothing is durable yet");
    // Snapshot, hard state, hard state of the election, the leader's first entry, and the command.
    rig.make_durable(1, 6);
    assert_eq!(rig.nodes[&1].disk.len(), 5);
    assert!(rig.is_acknowledged(command));
    assert!(!rig.group(1).wants_ticks(), "there is nobody to talk to");
}

#[test]
fn a_group_of_one_knows_after_a_restart_what_was_durable_before_it_leads_again() {
    let mut rig = Rig::new(2, 1, 1);
    rig.group(1).campaign();
    for _ in 0..5 {
        let command = rig.propose(1).unwrap();
        assert!(rig.is_acknowledged(command));
    }
    rig.crash(1);
    rig.is_disk_instant = false;
    rig.start(1);
    assert_eq!(rig.group(1).status().role, Role::Follower);
    assert_eq!(rig.agreement(&all(&[1])), Some(rig.nodes[&1].chain.last_command));
}

#[test]
fn three_elect_one_and_all_apply_what_it_commits() {
    let mut rig = Rig::new(3, 3, 3);
    let leader = rig.elect();
    for _ in 0..20 {
        committed(&mut rig, leader);
    }
    assert!(rig.agreement(&all(&[1, 2, 3])).is_some());
    assert_eq!(rig.seen.leaders.len(), 1, "nobody else stood");
}

#[test]
fn a_minority_commits_nothing_and_its_leader_steps_down() {
    let mut rig = Rig::new(4, 5, 5);
    let old = rig.elect();
    committed(&mut rig, old);
    let friend = (1..=5).find(|node| *node != old).unwrap();
    for a in 1..=5 {
        for b in 1..=5 {
            if [old, friend].contains(&a) != [old, friend].contains(&b) {
                rig.cut.insert((a, b));
            }
        }
    }
    let lost = rig.propose(old).expect("it does not know yet");
    rig.run(30);
    assert!(!rig.is_acknowledged(lost));
    assert_ne!(rig.group(old).status().role, Role::Leader, "it hears of no quorum");
    let new = rig.elect();
    assert!(![old, friend].contains(&new));
    committed(&mut rig, new);
    rig.cut.clear();
    rig.run(60);
    assert!(rig.seen.lost.contains(&lost), "its proposer is told");
    rig.check_lost();
    assert!(rig.agreement(&all(&[1, 2, 3, 4, 5])).is_some());
}

#[test]
fn who_was_cut_off_comes_back_without_an_election() {
    let mut rig = Rig::new(5, 3, 3);
    let leader = rig.elect();
    let other = (1..=3).find(|node| *node != leader).unwrap();
    for node in 1..=3 {
        rig.cut.insert((other, node));
        rig.cut.insert((node, other));
    }
    rig.run(200);
    let term = rig.group(leader).status().term;
    rig.cut.clear();
    committed(&mut rig, leader);
    rig.run(20);
    assert_eq!(rig.group(leader).status().term, term, "asking before standing disturbs nobody");
    assert!(rig.agreement(&all(&[1, 2, 3])).is_some());
}

#[test]
fn a_vote_leaves_only_when_it_is_durable_and_is_not_given_twice() {
    let mut rig = Rig::new(6, 3, 3);
    rig.is_disk_instant = false;
    // Bootstrap is durable on all.
    (1..=3).for_each(|node| rig.make_durable(node, usize::MAX));
    let request = |from: u64| PeerMessage {
        from: id(from),
        to: id(1),
        term: 9,
        body: PeerBody::VoteRequest {
            ballot: Ballot::Real,
            is_transfer: false,
            last_index: 1,
            last_term: 1,
            commit: 1,
            commit_term: 1,
        },
    };
    let replies = |rig: &mut Rig| -> Vec<Output> {
        let mut replies = Vec::new();
        while let Some(output) = rig.group(1).poll() {
            if let Output::Append { number, body } = &output {
                rig.nodes.get_mut(&1).unwrap().written.push_back((*number, body.clone()));
            } else {
                replies.push(output);
            }
        }
        replies.retain(|output| matches!(output, Output::Send(_)));
        replies
    };
    rig.group(1).on_message(&request(2)).unwrap();
    assert_eq!(replies(&mut rig), [], "the vote is on its way to the disk");
    let node = rig.nodes.get_mut(&1).unwrap();
    let number = node.written.back().unwrap().0;
    let bodies: Vec<_> = node.written.drain(..).map(|(_, body)| body).collect();
    node.disk.extend(bodies);
    rig.group(1).on_durable(number);
    let is_granted = |outputs: &[Output], to: u64| {
        outputs.iter().any(|output| {
            let Output::Send(message) = output else { return false };
            let PeerBody::VoteReply { is_granted, .. } = message.body else { return false };
            message.to == id(to) && is_granted
        })
    };
    assert!(is_granted(&replies(&mut rig), 2));
    rig.crash(1);
    rig.start(1);
    rig.group(1).on_message(&request(3)).unwrap();
    let to_other = replies(&mut rig);
    assert!(!to_other.is_empty() && !is_granted(&to_other, 3), "2 has the vote of this term");
    rig.group(1).on_message(&request(2)).unwrap();
    assert!(is_granted(&replies(&mut rig), 2), "said again, it is the same vote");
}

#[test]
fn one_that_joins_gets_a_snapshot_then_entries_then_a_vote() {
    let mut rig = Rig::new(7, 2, 1);
    rig.group(1).campaign();
    for _ in 0..10 {
        committed(&mut rig, 1);
    }
    rig.checkpoint(1);
    rig.change(1, &[Change::AddLearner(id(2))]).unwrap();
    rig.run(20);
    assert_eq!(rig.seen.installs, 1, "the members of the bootstrap are in no entry");
    assert_eq!(rig.group(2).members().learners, [id(2)]);
    committed(&mut rig, 1);
    assert!(rig.agreement(&all(&[1, 2])).is_some());
    rig.change(1, &[Change::AddVoter(id(2))]).unwrap();
    rig.run(5);
    assert_eq!(rig.group(2).members(), &Members::of_voters(&all(&[1, 2])));
    rig.crash(2);
    let command = rig.propose(1).unwrap();
    rig.run(5);
    assert!(!rig.is_acknowledged(command), "its ack is needed from now on");
    rig.start(2);
    rig.elect();
    rig.run(30);
    assert!(rig.is_acknowledged(command));
}

#[test]
fn a_snapshot_that_is_lost_on_the_way_is_sent_again() {
    let mut rig = Rig::new(8, 2, 1);
    rig.group(1).campaign();
    committed(&mut rig, 1);
    rig.change(1, &[Change::AddLearner(id(2))]).unwrap();
    rig.cut.insert((1, 2));
    rig.run(10);
    rig.cut.clear();
    rig.run(150);
    assert!(rig.agreement(&all(&[1, 2])).is_some());
}

#[test]
fn several_members_change_at_once_by_way_of_both_majorities() {
    let mut rig = Rig::new(9, 5, 3);
    let leader = rig.elect();
    let out = (1..=3).find(|node| *node != leader).unwrap();
    let steps = [Change::AddVoter(id(4)), Change::AddVoter(id(5)), Change::Remove(id(out))];
    rig.change(leader, &steps).unwrap();
    assert_eq!(rig.change(leader, &steps), Err(ProposeError::Busy));
    rig.run(60);
    let members = rig.group(leader).members().clone();
    assert!(!members.is_joint() && members.voters.len() == 4 && !members.is_voter(id(out)));
    committed(&mut rig, leader);
    assert!(rig.agreement(&members.voters).is_some());
    let term = rig.group(leader).status().term;
    rig.run(300);
    assert_eq!(rig.group(leader).status().term, term, "who was removed disturbs nobody");
}

#[test]
fn a_leader_hands_over_and_does_not_remove_itself() {
    let mut rig = Rig::new(10, 3, 3);
    let leader = rig.elect();
    let next = (1..=3).find(|node| *node != leader).unwrap();
    let remove = [Change::Remove(id(leader))];
    assert_eq!(rig.change(leader, &remove), Err(ProposeError::TransferFirst));
    rig.group(leader).transfer_leader(id(next)).unwrap();
    assert_eq!(rig.group(leader).propose(vec![1], 99), Err(ProposeError::Busy));
    rig.run(5);
    assert_eq!(rig.leader(), Some(next), "without waiting for a timeout");
    rig.change(next, &remove).unwrap();
    rig.run(10);
    committed(&mut rig, next);
    let known = Some(id(next));
    let not_leader = Err(ProposeError::NotLeader { leader: known });
    let follower = (1..=3).find(|node| ![leader, next].contains(node)).unwrap();
    assert_eq!(rig.group(follower).propose(vec![1], 99), not_leader);
}

#[test]
fn a_replica_whose_disk_was_lost_is_told_so_and_takes_part_in_nothing() {
    let mut rig = Rig::new(11, 3, 3);
    let leader = rig.elect();
    committed(&mut rig, leader);
    let other = (1..=3).find(|node| *node != leader).unwrap();
    rig.crash(other);
    rig.nodes.get_mut(&other).unwrap().disk.clear();
    rig.start(other);
    let heartbeat = PeerMessage {
        from: id(leader),
        to: id(other),
        term: rig.group(leader).status().term,
        body: PeerBody::Heartbeat { commit: 3 },
    };
    let refused = rig.group(other).on_message(&heartbeat);
    assert_eq!(refused, Err(Refused::Amnesia { known: 3, last: 1 }));
    let vote = PeerMessage {
        from: id(leader),
        to: id(other),
        term: 50,
        body: PeerBody::VoteRequest {
            ballot: Ballot::Real,
            is_transfer: false,
            last_index: 9,
            last_term: 9,
            commit: 1,
            commit_term: 1,
        },
    };
    assert_eq!(rig.group(other).on_message(&vote), refused, "no vote, whoever asks");
    for _ in 0..50 {
        rig.group(other).tick();
    }
    assert_ne!(rig.group(other).status().role, Role::Candidate);
}

#[test]
fn what_no_member_says_is_refused() {
    let mut rig = Rig::new(12, 3, 3);
    let leader = rig.elect();
    let other = (1..=3).find(|node| *node != leader).unwrap();
    let term = rig.group(leader).status().term;
    let from = |from: u64, to: u64, body| PeerMessage { from: id(from), to: id(to), term, body };
    let ack = PeerBody::AppendReply { index: 1_000, commit: 1, hint: None };
    let refused = rig.group(leader).on_message(&from(other, leader, ack.clone()));
    assert_eq!(refused, Err(Refused::AheadOfLeader { from: id(other), index: 1_000 }));
    let refused = rig.group(leader).on_message(&from(other, other + 7, ack));
    assert_eq!(refused, Err(Refused::NotForUs { to: id(other + 7) }));
    let ack = PeerBody::AppendReply { index: 1, commit: 1, hint: None };
    let refused = rig.group(leader).on_message(&from(9, leader, ack));
    assert_eq!(refused, Err(Refused::Stranger { from: id(9) }));
    let snapshot = Snapshot {
        index: 100,
        term,
        members: Members::of_voters(&all(&[8, 9])),
        image: bytes::Bytes::new(),
    };
    let refused = rig.group(other).on_message(&from(leader, other, PeerBody::Snapshot(snapshot)));
    assert_eq!(refused, Err(Refused::NotAMember));
    committed(&mut rig, leader);
}

/// A leader that is cut off, and the two that go on without it, with the fourth that waits to be added.
fn cut_off_leader(seed: u64) -> (Rig, u64, u64) {
    let mut rig = Rig::new(seed, 4, 3);
    let old = rig.elect();
    committed(&mut rig, old);
    for node in 1..=4 {
        rig.cut.insert((old, node));
        rig.cut.insert((node, old));
    }
    let new = loop {
        rig.run(10);
        let leads = |node: &u64| {
            *node != old && rig.nodes[node].group.as_ref().unwrap().status().role == Role::Leader
        };
        if let Some(new) = (1..=3).find(leads) {
            break new;
        }
    };
    (rig, old, new)
}

#[test]
fn an_old_leader_that_is_removed_while_it_is_cut_off_neither_commits_nor_is_elected() {
    let mut rig = Rig::new(13, 4, 3);
    let old = rig.elect();
    committed(&mut rig, old);
    for node in 1..=4 {
        rig.cut.insert((old, node));
        rig.cut.insert((node, old));
    }
    // It does not know yet, and would change the members as well.
    let lost = rig.propose(old).expect("it leads, as far as it knows");
    rig.change(old, &[Change::AddVoter(id(4))]).expect("it leads, as far as it knows");
    rig.run(60);
    let new = rig.elect();
    assert_ne!(new, old);
    rig.change(new, &[Change::AddLearner(id(4))]).unwrap();
    rig.run(30);
    rig.change(new, &[Change::AddVoter(id(4)), Change::Remove(id(old))]).unwrap();
    rig.run(60);
    let members = rig.group(new).members().clone();
    assert!(!members.is_joint() && members.voters.len() == 3 && !members.is_voter(id(old)));
    let command = committed(&mut rig, new);
    // Now it hears the others again, and they it. Its own members still have it, and the other two of three.
    rig.cut.clear();
    let term = rig.group(new).status().term;
    rig.run(300);
    assert!(!rig.is_acknowledged(lost) && rig.is_acknowledged(command));
    assert_ne!(rig.group(old).status().role, Role::Leader);
    let status = rig.group(new).status();
    assert_eq!((status.role, status.term), (Role::Leader, term), "who was removed disturbs nobody");
    // Even with one of its friends gone it is nobody's leader, and the others go on.
    let friend = (1..=3).find(|node| ![old, new].contains(node)).unwrap();
    rig.crash(friend);
    committed(&mut rig, new);
    rig.run(100);
    assert_ne!(rig.group(old).status().role, Role::Leader);
}

#[test]
fn no_change_of_the_members_begins_before_the_last_one_is_applied_also_under_the_next_leader() {
    let (mut rig, old, new) = cut_off_leader(14);
    let friend = (1..=3).find(|node| ![old, new].contains(node)).unwrap();
    // The change is in the log of the leader alone when it goes.
    rig.cut.insert((new, friend));
    rig.change(new, &[Change::AddLearner(id(4))]).unwrap();
    for changes in
        [&[Change::Remove(id(old))][..], &[Change::AddVoter(id(4)), Change::Remove(id(old))]]
    {
        assert_eq!(rig.change(new, changes), Err(ProposeError::Busy));
    }
    rig.run(3);
    assert_eq!(rig.change(new, &[Change::Remove(id(old))]), Err(ProposeError::Busy));
    rig.cut.remove(&(new, friend));
    rig.run(20);
    let leader = rig.elect();
    assert_eq!(rig.group(leader).members().learners, [id(4)]);
    // A restart in between changes nothing.
    rig.change(leader, &[Change::AddVoter(id(4)), Change::Remove(id(old))]).unwrap();
    assert_eq!(rig.change(leader, &[Change::Remove(id(friend))]), Err(ProposeError::Busy));
    rig.crash(leader);
    rig.run(60);
    rig.start(leader);
    rig.cut.clear();
    rig.run(60);
    let leader = rig.elect();
    let members = rig.group(leader).members().clone();
    assert!(!members.is_joint(), "{members:?}");
    committed(&mut rig, leader);
    assert!(rig.agreement(&members.voters).is_some());
}

#[test]
fn two_that_join_one_after_the_other_each_get_a_snapshot_that_names_them() {
    let mut rig = Rig::new(15, 3, 1);
    rig.group(1).campaign();
    committed(&mut rig, 1);
    // The first gets its snapshot late: it is on offer when the second comes.
    rig.cut.insert((1, 2));
    rig.change(1, &[Change::AddLearner(id(2))]).unwrap();
    rig.run(3);
    rig.change(1, &[Change::AddLearner(id(3))]).unwrap();
    rig.run(30);
    rig.cut.clear();
    rig.run(150);
    assert!(rig.agreement(&all(&[1, 2, 3])).is_some());
}
