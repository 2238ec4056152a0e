//! Brokers come to a cluster that is in use, and go from it. What was acknowledged is there, whoever has come or gone.

use corelog_protocol::ErrorCode;
use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{BrokerId, LaneId};
use corelog_protocol::message::{Hello, Obstacle, Operation, TopicCreate, TopicSettings};

use super::moving::Story;
use crate::sim::cluster::number;
use crate::time::Nanos;

fn ids(numbers: &[u32]) -> Vec<BrokerId> {
    numbers.iter().copied().map(BrokerId).collect()
}

impl Story {
    /// Three brokers, and a fourth that has joined them: it knows one.
    fn with_a_fourth(knows: &[usize]) -> Self {
        let mut story = Self::new();
        story.go_on(10);
        assert_eq!(story.cluster.join(knows), 3);
        story.go_on(60);
        story
    }

    fn members(&mut self, asked: usize) -> (Vec<BrokerId>, Vec<BrokerId>) {
        let status = self.status(asked);
        (status.voters, status.learners)
    }

    /// Of the metadata, as this broker has it.
    fn version(&self, broker: usize) -> u64 {
        self.cluster.brokers[broker].world.nodes[0].shard.view().version()
    }

    /// All lanes of this broker are put on the one that has none of them. It leads nothing then.
    fn empty(&mut self, broker: usize) {
        let id = number(broker);
        let keeper = self.keeper();
        for lane in self.status(keeper).lanes {
            if self.leader(lane.lane) == Some(broker) {
                let to = lane.replicas.iter().map(|it| it.broker).find(|it| *it != id);
                let to = to.expect("three replicas");
                self.operate(Operation::Transfer { lane: lane.lane, to });
                self.go_on(30);
                assert_ne!(self.leader(lane.lane), Some(broker));
            }
            let mut replicas: Vec<BrokerId> = lane.replicas.iter().map(|it| it.broker).collect();
            let Some(at) = replicas.iter().position(|it| *it == id) else { continue };
            let brokers = (0..self.cluster.brokers.len()).map(number);
            let comes = brokers.rev().find(|it| !replicas.contains(it)).expect("one of four");
            replicas[at] = comes;
            self.operate(Operation::Replace { lane: lane.lane, replicas });
            self.go_on(60);
            let record = self.lane(lane.lane);
            assert!(record.before.is_none() && record.replica(id).is_none(), "{record:?}");
        }
    }

    /// Why this broker refuses the hello of a client. None: it does not.
    fn refusal_of(&mut self, broker: usize) -> Option<ErrorCode> {
        let client = self.cluster.world(broker).connect(0);
        self.cluster.world(broker).ask(client, 1, &Hello::new("test"));
        let frame = self.cluster.world(broker).take(client).pop()?;
        match frame.kind {
            FrameKind::HelloReply => None,
            _ => Some(frame.error().code),
        }
    }

    fn is_out(&self, broker: usize) -> bool {
        self.cluster.brokers[broker].world.nodes[0].shard.view().is_out()
    }
}

#[test]
fn a_broker_joins_learns_everything_and_gets_lanes() {
    for knows in [&[0][..], &[1, 2], &[0, 1, 2]] {
        let mut story = Story::with_a_fourth(knows);
        for asked in 0..4 {
            let status = story.status(asked);
            assert_eq!(status.brokers.len(), 4, "told by {asked}");
            let are_heard = status.brokers.iter().all(|broker| broker.is_alive == Some(true));
            assert!(are_heard, "told by {asked}, who knew {knows:?}: {status:?}");
            assert_eq!(story.members(asked), (ids(&[1, 2, 3]), ids(&[4])));
        }
        // It joins in the first start only: with its records it goes on as any other.
        story.cluster.kill(3);
        story.go_on(20);
        story.cluster.restart(3);
        story.go_on(60);
        assert_eq!(story.version(3), story.version(0));
        // A lane goes there, and it can lead it.
        let (_, lane) = story.partitions[0];
        let mut replicas: Vec<BrokerId> =
            story.lane(lane).replicas.iter().map(|it| it.broker).collect();
        let leader = story.lane(lane).leader_id();
        let leaves = replicas.iter().rposition(|id| Some(*id) != leader).expect("a follower");
        replicas[leaves] = number(3);
        story.operate(Operation::Replace { lane, replicas });
        story.go_on(60);
        story.operate(Operation::Transfer { lane, to: number(3) });
        story.go_on(40);
        assert_eq!(story.leader(lane), Some(3));
        story.check();
    }
}

#[test]
fn lanes_that_are_added_take_new_partitions_and_fail_over_like_the_others() {
    let mut story = Story::with_a_fourth(&[0]);
    let keeper = story.keeper();
    let had = story.status(keeper).lanes.len() as u32;
    let (broker, up_to) = (number(3), LaneId(had + 2));
    let add = Operation::AddLanes { broker, up_to };
    assert_eq!(story.ask(keeper, add.clone(), true), Ok(0));
    // Whoever is asked.
    let other = (0..3).find(|at| *at != keeper).expect("three others");
    let version = story.ask(other, add.clone(), false).expect("nothing is in its way");
    assert!(version > 0);
    story.go_on(40);
    for asked in 0..4 {
        let again = story.ask(asked, add.clone(), false);
        assert_eq!(again, Err(Obstacle::LaneExists { lane: up_to }));
        let status = story.status(asked);
        assert_eq!(status.lanes.len() as u32, had + 2, "told by {asked}");
        for lane in status.lanes.iter().filter(|lane| lane.lane.0 > had) {
            assert_eq!(
                (lane.leader, lane.is_serving, lane.replicas.len()),
                (Some(broker), true, 3)
            );
        }
    }
    let places = story.create("grown", had + 2);
    for lane in had + 1..=had + 2 {
        assert_eq!(places.iter().filter(|(_, it)| it.0 == lane).count(), 1, "{places:?}");
    }
    story.go_on(20);
    assert_eq!(story.create("small", 1)[0].1, LaneId(had + 1), "the emptiest");
    // What was acknowledged in memory only is lost with its leader: that is handed over before.
    story.operate(Operation::Drain { broker });
    story.go_on(40);
    story.cluster.kill(3);
    story.go_on(40);
    assert!(story.leader(up_to).is_some_and(|leader| leader != 3));
    story.cluster.restart(3);
    story.go_on(60);
    story.check();
}

#[test]
fn a_joiner_without_a_vote_is_not_in_the_way_of_who_drains_and_could_lead_the_metadata() {
    let mut story = Story::with_a_fourth(&[0]);
    let first = story.keeper();
    for at in (0..3).filter(|at| *at != first) {
        story.operate(Operation::Drain { broker: number(at) });
        story.go_on(40);
    }
    assert_eq!(story.keeper(), first);
    story.cluster.world(first).is_disk_held = true;
    let client = story.cluster.world(first).client(0);
    let settings =
        TopicSettings { partitions: 1, replicas: 0, retention_ms: None, retention_bytes: None };
    let create = TopicCreate { name: "meanwhile".into(), settings, timeout_ms: 0 };
    story.cluster.world(first).ask(client, 2, &create);
    story.cluster.pass(Nanos::from_secs(5));
    let leads = |at: &usize| {
        story.cluster.brokers[*at].world.nodes[0].shard.is_leading_metadata() && *at != first
    };
    assert!((0..3).any(|at| leads(&at)), "somebody whose disk goes");
    story.cluster.world(first).release_disk();
    story.cluster.pass(Nanos::from_secs(3));
    story.check();
}

#[test]
fn brokers_that_start_together_with_one_that_joins_deal_the_lanes_without_it() {
    let mut cluster = crate::sim::cluster::Cluster::new(3);
    cluster.join(&[0, 1, 2]);
    cluster.pass(Nanos::from_secs(5));
    for broker in 0..4 {
        let view = std::sync::Arc::clone(cluster.brokers[broker].world.nodes[0].shard.view());
        assert_eq!(view.state().brokers().count(), 4);
        assert!(!view.state().lanes().is_empty());
        let all = view.state().lanes().iter().flat_map(|lane| lane.replicas.iter());
        assert!(all.clone().all(|replica| replica.broker != number(3)));
    }
}

#[test]
fn with_a_fifth_broker_two_more_decide() {
    let mut story = Story::with_a_fourth(&[0]);
    assert_eq!(story.cluster.join(&[1, 3]), 4);
    story.go_on(80);
    for asked in 0..5 {
        assert_eq!(story.members(asked), (ids(&[1, 2, 3, 4, 5]), vec![]));
    }
    // Two of five may go.
    let keeper = story.keeper();
    let gone: Vec<usize> = (0..5).filter(|at| *at != keeper).take(2).collect();
    gone.iter().for_each(|at| story.cluster.kill(*at));
    story.go_on(60);
    let created = story.keeper();
    story.operate(Operation::Drain { broker: number(gone[0]) });
    story.go_on(10);
    assert!(story.status(created).broker(number(gone[0])).unwrap().is_draining);
    gone.iter().for_each(|at| story.cluster.restart(*at));
    story.check();
}

#[test]
fn a_broker_that_is_removed_learns_it_and_serves_nobody_whoever_it_is() {
    // Once one that leads the metadata, once another one.
    for leads in [true, false] {
        let mut story = Story::with_a_fourth(&[0, 1]);
        let keeper = story.keeper();
        let goes = if leads { keeper } else { (0..3).find(|at| *at != keeper).unwrap() };
        let broker = number(goes);
        let remove = Operation::Remove { broker };
        let refused = story.ask(keeper, remove.clone(), true);
        assert!(matches!(refused, Err(Obstacle::HasReplicas { .. })), "{refused:?}");
        story.empty(goes);
        assert_eq!(story.keeper(), keeper, "a leader of the metadata is removed as such");
        assert_eq!(story.refusal_of(goes), None);
        let client = story.cluster.world(goes).client(0);
        for asked in 0..4 {
            assert_eq!(story.ask(asked, remove.clone(), true), Ok(0));
        }
        story.operate(remove.clone());
        story.go_on(60);
        let stay: Vec<usize> = (0..4).filter(|at| *at != goes).collect();
        for &asked in &stay {
            let status = story.status(asked);
            assert!(status.broker(broker).is_none() && !status.is_member(broker), "{status:?}");
            assert_eq!((status.voters.len(), status.learners.len()), (3, 0));
            assert!(status.metadata_leader.is_some_and(|leader| leader != broker));
        }
        assert!(story.is_out(goes) && story.cluster.world(goes).is_closed(client));
        assert_eq!(story.refusal_of(goes), Some(ErrorCode::BrokerRemoved));
        assert_eq!(story.cluster.links_up(goes, 0), 0);
        for &asked in &stay {
            assert_eq!(story.cluster.links_up(asked, 0), 2);
            let again = story.ask(asked, remove.clone(), false);
            assert_eq!(again, Err(Obstacle::UnknownBroker { broker }));
        }
        // It comes back, with its disk and then without, and is told so each time.
        story.cluster.kill(goes);
        story.go_on(10);
        story.cluster.restart(goes);
        story.go_on(40);
        assert!(story.is_out(goes));
        assert_eq!(story.refusal_of(goes), Some(ErrorCode::BrokerRemoved));
        story.cluster.kill(goes);
        story.cluster.restart_wiped(goes);
        story.go_on(40);
        assert!(story.is_out(goes));
        assert_eq!(story.cluster.links_up(goes, 0), 0);
        for &asked in &stay {
            assert_eq!(story.status(asked).brokers.len(), 3);
        }
        story.check();
    }
}

#[test]
fn a_broker_that_is_gone_for_good_is_replaced_by_one_with_another_number() {
    let mut story = Story::new();
    story.go_on(20);
    let keeper = story.keeper();
    let gone = (0..3).find(|at| *at != keeper).unwrap();
    story.cluster.kill(gone);
    story.go_on(30);
    assert_eq!(story.cluster.join(&[gone, keeper]), 3);
    story.go_on(60);
    assert_eq!(story.members(keeper), (ids(&[1, 2, 3]), ids(&[4])), "dead, but a voter");
    story.empty(gone);
    story.operate(Operation::Remove { broker: number(gone) });
    story.go_on(60);
    let mut voters = ids(&[1, 2, 3, 4]);
    voters.retain(|id| *id != number(gone));
    assert_eq!(story.members(keeper), (voters, vec![]));
    // From now on one of the others may go.
    let next = (0..3).find(|at| *at != keeper && *at != gone).unwrap();
    story.cluster.kill(next);
    story.go_on(60);
    story.check();
}

#[test]
fn a_wiped_broker_of_the_same_number_counts_nowhere() {
    // A first broker, which begins anew; and one that had joined, which would join again.
    for joined in [false, true] {
        let mut story = Story::with_a_fourth(&[0, 1, 2]);
        let keeper = story.keeper();
        let wiped = if joined { 3 } else { (0..3).find(|at| *at != keeper).unwrap() };
        story.cluster.kill(wiped);
        story.go_on(20);
        let incarnation = story.status(keeper).broker(number(wiped)).unwrap().incarnation;
        story.cluster.restart_wiped(wiped);
        story.go_on(60);
        let told = story.status(keeper);
        let told = told.broker(number(wiped)).unwrap();
        assert_eq!((told.is_alive, told.incarnation), (Some(false), incarnation));
        assert_eq!(story.cluster.links_up(wiped, 0), 0);
        assert_eq!(story.version(wiped), 0, "it knows nothing");
        assert!(!story.is_out(wiped), "it was not removed");
        if !joined {
            // Two of three voters would be needed, and it is none.
            let other = (0..3).find(|at| *at != keeper && *at != wiped).unwrap();
            story.cluster.kill(other);
            story.cluster.pass(Nanos::from_secs(3));
            let leads =
                |at: usize| story.cluster.brokers[at].world.nodes[0].shard.is_leading_metadata();
            assert!(!leads(keeper) && !leads(wiped) && !leads(3));
            story.cluster.restart(other);
        }
        story.go_on(60);
        story.check();
    }
}

#[test]
fn a_removed_voter_that_was_cut_off_meanwhile_neither_leads_nor_decides_when_it_comes_back() {
    let mut story = Story::with_a_fourth(&[0, 1]);
    let old = story.keeper();
    for other in (0..4).filter(|at| *at != old) {
        story.cluster.cut(old, other);
    }
    story.cluster.pass(Nanos::from_secs(3));
    // It is there, and hears nothing of what follows.
    story.empty(old);
    story.operate(Operation::Remove { broker: number(old) });
    story.go_on(60);
    let keeper = story.keeper();
    assert_ne!(keeper, old);
    assert!(!story.status(keeper).is_member(number(old)));
    let version = story.version(old);
    assert!(version < story.version(keeper) && !story.is_out(old));
    for other in (0..4).filter(|at| *at != old) {
        story.cluster.mend(old, other);
    }
    for _ in 0..60 {
        story.go_on(1);
        assert!(!story.cluster.brokers[old].world.nodes[0].shard.is_leading_metadata());
    }
    assert_eq!(story.keeper(), keeper, "it disturbed nobody");
    assert!(story.is_out(old));
    assert_eq!(story.refusal_of(old), Some(ErrorCode::BrokerRemoved));
    story.check();
}

#[test]
fn two_brokers_that_are_removed_at_once_leave_the_group_one_after_the_other() {
    let mut story = Story::with_a_fourth(&[0]);
    story.cluster.join(&[0]);
    story.cluster.join(&[0]);
    story.go_on(100);
    assert_eq!(story.members(0), (ids(&[1, 2, 3, 4, 5]), ids(&[6])));
    // Those that joined have no lanes yet. Both are voters.
    let gone = [number(3), number(4)];
    for broker in gone {
        story.operate(Operation::Remove { broker });
    }
    story.go_on(80);
    let (voters, learners) = story.members(0);
    assert_eq!((voters, learners), (ids(&[1, 2, 3]), vec![BrokerId(6)]));
    assert!(story.is_out(3) && story.is_out(4));
    story.check();
}
