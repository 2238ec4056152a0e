//! A lane is led by another broker on purpose: nothing is lost, not even what only the leader's memory had.

use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{BrokerId, LaneId, PartitionId};
use corelog_protocol::message::{
    ClusterStatus, ClusterStatusReply, Obstacle, Operate, OperateReply, Operation, TopicCreate,
    TopicCreateReply, TopicSettings,
};
use corelog_protocol::{Durability, ErrorCode};

use super::data::{fetch_of, records};
use super::world::{batch, produce};
use crate::limits::{LEAVE_MS, STOP_GRACE_MS, STOP_SPEAKING_MS};
use crate::metadata::LaneRecord;
use crate::replica::LaneReport;
use crate::shard::event::Event;
use crate::sim::cluster::{Cluster, number};
use crate::time::Nanos;

pub(super) struct Story {
    pub(super) cluster: Cluster,
    pub(super) partitions: Vec<(PartitionId, LaneId)>,
    /// What was acknowledged at the level `leader_memory`: partition, offset, value.
    acked: Vec<(PartitionId, u64, String)>,
    refused: u32,
    sent: u32,
}

impl Story {
    /// Three brokers with a topic that has a partition in each of three lanes.
    pub(super) fn new() -> Self {
        Self::of(3)
    }

    /// The same of more brokers.
    pub(super) fn of(brokers: usize) -> Self {
        Self::with(Cluster::new(brokers), 3)
    }

    /// Of brokers that have just started, and a topic of so many partitions.
    pub(super) fn with(mut cluster: Cluster, partitions: u32) -> Self {
        cluster.pass(Nanos::from_secs(3));
        let mut story =
            Self { cluster, partitions: Vec::new(), acked: Vec::new(), refused: 0, sent: 0 };
        story.create("moved", partitions);
        story
    }

    /// Another topic, whose partitions are written from now on, too. Where they are.
    pub(super) fn create(&mut self, name: &str, partitions: u32) -> Vec<(PartitionId, LaneId)> {
        let client = self.cluster.world(0).client(0);
        let settings =
            TopicSettings { partitions, replicas: 0, retention_ms: None, retention_bytes: None };
        let create = TopicCreate { name: name.into(), settings, timeout_ms: 0 };
        self.cluster.world(0).ask(client, 2, &create);
        self.cluster.pass(Nanos::from_millis(500));
        let frame = self.cluster.world(0).take_one(client);
        assert_eq!(frame.kind, FrameKind::TopicCreateReply);
        let topic = TopicCreateReply::decode(&frame.control).unwrap().topic;
        let places: Vec<_> =
            topic.places.iter().map(|place| (place.partition, place.lane)).collect();
        self.partitions.extend(&places);
        places
    }

    /// What the brokers that are alive know best.
    pub(super) fn lane(&self, id: LaneId) -> LaneRecord {
        let alive = self.cluster.brokers.iter().filter(|member| member.is_alive);
        let views = alive.map(|member| member.world.nodes[0].shard.view());
        let view = views.max_by_key(|view| view.version()).unwrap();
        view.lane(id).unwrap().clone()
    }

    pub(super) fn leader(&self, id: LaneId) -> Option<usize> {
        self.lane(id).leader_id().map(|id| id.0 as usize - 1)
    }

    pub(super) fn leaders(&self) -> Vec<Option<usize>> {
        self.partitions.iter().map(|(_, lane)| self.leader(*lane)).collect()
    }

    /// The broker that leads the metadata.
    pub(super) fn keeper(&self) -> usize {
        let leads = |at: &usize| {
            let member = &self.cluster.brokers[*at];
            member.is_alive && member.world.nodes[0].shard.is_leading_metadata()
        };
        (0..self.cluster.brokers.len()).find(leads).expect("somebody leads")
    }

    /// Asks this broker for an operation, as a user does.
    pub(super) fn ask(
        &mut self,
        broker: usize,
        operation: Operation,
        check_only: bool,
    ) -> Result<u64, Obstacle> {
        let client = self.cluster.world(broker).client(0);
        let operate = Operate { operation, check_only, timeout_ms: 0 };
        self.cluster.world(broker).ask(client, 3, &operate);
        self.cluster.run();
        let frame = self.cluster.world(broker).take_one(client);
        assert_eq!(frame.kind, FrameKind::OperateReply, "{frame:?}");
        self.cluster.world(broker).hang_up(client);
        OperateReply::decode(&frame.control).unwrap().result
    }

    pub(super) fn operate(&mut self, operation: Operation) {
        let keeper = self.keeper();
        let version = self.ask(keeper, operation, false).expect("nothing is in its way");
        assert!(version > 0);
    }

    /// What this broker says of the cluster.
    pub(super) fn status(&mut self, broker: usize) -> ClusterStatusReply {
        let client = self.cluster.world(broker).client(0);
        self.cluster.world(broker).ask(client, 4, &ClusterStatus);
        self.cluster.run();
        let frame = self.cluster.world(broker).take_one(client);
        assert_eq!(frame.kind, FrameKind::ClusterStatusReply, "{frame:?}");
        self.cluster.world(broker).hang_up(client);
        ClusterStatusReply::decode(&frame.control).unwrap()
    }

    /// A batch to each partition, where its leader is by what is known.
    pub(super) fn load(&mut self) {
        for (partition, lane) in self.partitions.clone() {
            let Some(leader) = self.leader(lane) else { continue };
            if !self.cluster.brokers[leader].is_alive {
                continue;
            }
            let value = format!("value {}", self.sent);
            self.sent += 1;
            let client = self.cluster.world(leader).client(0);
            let frame = produce(partition, Durability::LeaderMemory, 9, &batch(&value, 1));
            self.cluster.world(leader).send(client, &frame);
            let answer = self.cluster.world(leader).take_one(client);
            if answer.kind == FrameKind::Error {
                let error = answer.error();
                assert_eq!(error.code, ErrorCode::NotLeader, "{error:?}");
                self.refused += 1;
            } else {
                self.acked.push((partition, answer.ack().base_offset.0, value));
            }
            self.cluster.world(leader).hang_up(client);
            self.cluster.run();
        }
    }

    /// Time passes under load.
    pub(super) fn go_on(&mut self, rounds: u32) {
        for _ in 0..rounds {
            self.load();
            self.cluster.pass(Nanos::from_millis(50));
        }
    }

    /// Everything acknowledged is there, and batches are taken.
    pub(super) fn check(&mut self) {
        self.cluster.pass(Nanos::from_secs(2));
        let (acked, refused) = (self.acked.len(), self.refused);
        self.load();
        assert_eq!(self.refused, refused);
        assert_eq!(self.acked.len(), acked + self.partitions.len());
        self.cluster.pass(Nanos::from_secs(1));
        for (partition, lane) in self.partitions.clone() {
            let leader = self.leader(lane).expect("it is led");
            let client = self.cluster.world(leader).client(0);
            let mut found: Vec<(u64, String)> = Vec::new();
            loop {
                let next = found.last().map_or(0, |(offset, _)| offset + 1);
                self.cluster.world(leader).ask(client, 4, &fetch_of(&[(partition, next)], 0, 1));
                self.cluster.run();
                let frame = self.cluster.world(leader).take_one(client);
                let more = records(&frame).remove(0).1;
                if more.is_empty() {
                    break;
                }
                found.extend(more);
            }
            for (_, offset, value) in self.acked.iter().filter(|(id, ..)| *id == partition) {
                let there = found.iter().find(|(at, _)| at == offset).map(|(_, value)| value);
                assert_eq!(there, Some(value), "at {offset} of {partition:?}");
            }
        }
    }

    /// A lane that is led by another broker than this one, its leader, and the third broker.
    pub(super) fn lane_away_from(&self, broker: usize) -> (LaneId, usize, usize) {
        let found = self.partitions.iter().find_map(|(_, lane)| {
            let leader = self.leader(*lane).filter(|leader| *leader != broker)?;
            let target = (0..3).find(|at| *at != leader && *at != broker)?;
            Some((*lane, leader, target))
        });
        found.expect("each broker leads some")
    }

    /// From now on only this lane's partition is written and looked at.
    pub(super) fn only(&mut self, lane: LaneId) {
        self.partitions.retain(|(_, other)| *other == lane);
    }

    pub(super) fn begin_move(&mut self, lane: LaneId, target: usize) {
        let leader = self.leader(lane).expect("it is led");
        let (epoch, to) = (self.lane(lane).epoch, vec![number(target)]);
        // As a leader does that had better not lead.
        let offer = LaneReport::Offered { lane, epoch, to, is_leaving: false };
        self.cluster.world(leader).act(0, |shard, cx| shard.report_lane(cx, offer));
        self.cluster.run();
    }
}

#[test]
fn a_lane_is_moved_under_load_when_its_target_has_everything() {
    let mut story = Story::new();
    let keeper = story.keeper();
    let (lane, leader, target) = story.lane_away_from(keeper);
    let epoch = story.lane(lane).epoch;
    story.go_on(10);
    assert_eq!(story.refused, 0);
    story.only(lane);
    story.go_on(3);
    // What the target receives, it cannot make durable.
    story.cluster.world(target).is_disk_held = true;
    story.go_on(1);
    story.begin_move(lane, target);
    story.go_on(4);
    assert_eq!((story.leader(lane), story.lane(lane).epoch), (Some(leader), epoch));
    assert_eq!(story.refused, 4, "batches of a lane that moves were taken");
    story.cluster.world(target).release_disk();
    story.cluster.run();
    story.go_on(10);
    assert_eq!((story.leader(lane), story.lane(lane).epoch), (Some(target), epoch.next()));
    // Nobody needs the old leader any more.
    story.cluster.kill(leader);
    story.go_on(40);
    story.check();
}

#[test]
fn a_move_that_takes_too_long_is_taken_back() {
    let mut story = Story::new();
    let keeper = story.keeper();
    let (lane, leader, target) = story.lane_away_from(keeper);
    let epoch = story.lane(lane).epoch;
    story.only(lane);
    // It is there, but hears nothing of the leader.
    story.cluster.cut(leader, target);
    story.go_on(3);
    story.begin_move(lane, target);
    assert_eq!(story.lane(lane).moving.map(|moving| moving.to), Some(number(target)));
    story.go_on(45);
    let record = story.lane(lane);
    assert_eq!((record.leader_id(), record.epoch), (Some(number(leader)), epoch));
    assert_eq!(record.moving, None);
    let refused = story.refused;
    story.go_on(5);
    assert!(refused >= 35);
    assert_eq!(story.refused, refused, "it takes batches again");
    story.cluster.mend(leader, target);
    story.check();
}

#[test]
fn a_target_that_dies_gets_nothing() {
    let mut story = Story::new();
    let keeper = story.keeper();
    let (lane, leader, target) = story.lane_away_from(keeper);
    let epoch = story.lane(lane).epoch;
    story.only(lane);
    story.cluster.world(target).is_disk_held = true;
    story.go_on(3);
    story.begin_move(lane, target);
    story.cluster.kill(target);
    story.go_on(30);
    let record = story.lane(lane);
    assert_eq!((record.leader_id(), record.epoch), (Some(number(leader)), epoch));
    assert_eq!(record.moving, None);
    story.check();
}

#[test]
fn a_move_outlives_the_leader_of_the_metadata_or_is_taken_back() {
    let mut story = Story::new();
    let keeper = story.keeper();
    let (lane, _, target) = story.lane_away_from(keeper);
    story.only(lane);
    story.cluster.world(target).is_disk_held = true;
    story.go_on(3);
    story.begin_move(lane, target);
    story.cluster.kill(keeper);
    story.go_on(5);
    story.cluster.world(target).release_disk();
    story.go_on(80);
    assert_eq!(story.lane(lane).moving, None);
    story.cluster.restart(keeper);
    story.check();
}

#[test]
fn a_broker_that_stops_hands_over_everything_first_and_gets_its_lanes_back() {
    let mut story = Story::new();
    let stops = story.keeper();
    let before = story.leaders();
    assert!(before.contains(&Some(stops)), "{before:?}");
    story.go_on(10);
    story.cluster.world(stops).tell(0, Event::Stop);
    story.cluster.run();
    for _ in 0..200 {
        if story.cluster.brokers[stops].world.nodes[0].is_stopped {
            break;
        }
        story.load();
        story.cluster.pass(Nanos::from_millis(10));
    }
    assert!(story.cluster.brokers[stops].world.nodes[0].is_stopped);
    assert!(story.keeper() != stops);
    assert!(story.leaders().iter().all(|leader| leader.is_some_and(|leader| leader != stops)));
    // It was not found to be gone: one epoch for each lane that it led.
    let epochs: Vec<u64> =
        story.partitions.iter().map(|(_, lane)| story.lane(*lane).epoch.0).collect();
    assert!(epochs.iter().all(|epoch| *epoch <= 2), "{epochs:?}");
    story.cluster.kill(stops);
    story.go_on(20);
    story.cluster.restart(stops);
    story.go_on(160);
    for (_, lane) in story.partitions.clone() {
        let record = story.lane(lane);
        assert_eq!(record.leader_id(), Some(record.preferred()));
    }
    story.check();
}

/// Nobody may have what it leads, and nothing is written that would show that its disk stands still.
#[test]
fn a_broker_that_stops_with_a_disk_that_stands_still_keeps_nobody_from_leading() {
    let mut story = Story::new();
    for broker in 0..2 {
        story.operate(Operation::Drain { broker: number(broker) });
        story.cluster.pass(Nanos::from_secs(2));
    }
    assert_eq!(story.keeper(), 2);
    assert!(story.leaders().iter().all(|leader| *leader == Some(2)), "{:?}", story.leaders());
    let client = story.cluster.world(2).client(0);
    story.cluster.world(2).tell(0, Event::Stop);
    story.cluster.world(2).is_disk_held = true;
    story.cluster.pass(Nanos::from_millis(LEAVE_MS + STOP_SPEAKING_MS + 3_000));
    assert!(!story.cluster.brokers[2].world.nodes[0].is_stopped);
    assert!(story.leaders().iter().all(|leader| leader.is_some_and(|leader| leader != 2)));
    story.go_on(3);
    assert_eq!((story.refused, story.acked.len()), (0, 3 * story.partitions.len()));
    // Who waits for it looks elsewhere, and its end comes with that of its orders.
    story.cluster.pass(Nanos::from_millis(STOP_GRACE_MS));
    assert!(story.cluster.world(2).is_closed(client));
    story.cluster.world(2).release_disk();
    story.cluster.run();
    assert!(story.cluster.brokers[2].world.nodes[0].is_stopped);
}

/// Who drains is better than who cannot.
#[test]
fn two_disks_of_five_that_stand_still_keep_nobody_from_leading_though_the_others_drain() {
    let cluster = Cluster::with(&[1; 5], |config| config.replicas_default = 5);
    let mut story = Story::with(cluster, 5);
    let keeper = story.keeper();
    let other = (keeper + 1) % 5;
    let able: Vec<usize> = (0..5).filter(|at| *at != keeper && *at != other).collect();
    for &broker in &able {
        story.operate(Operation::Drain { broker: number(broker) });
        story.go_on(20);
    }
    assert_eq!(story.keeper(), keeper);
    for broker in [keeper, other] {
        story.cluster.world(broker).is_disk_held = true;
    }
    story.go_on(200);
    let leaders = story.leaders();
    assert!(leaders.iter().flatten().all(|leader| able.contains(leader)), "{leaders:?}");
    assert!(!leaders.contains(&None), "{leaders:?}");
}

#[test]
fn a_draining_broker_leads_nothing_until_it_need_not_drain() {
    let mut story = Story::new();
    let drained = story.leaders()[0].unwrap();
    let broker: BrokerId = number(drained);
    let leads = |story: &Story| story.leaders().contains(&Some(drained));
    assert!(leads(&story));
    story.operate(Operation::Drain { broker });
    story.go_on(20);
    assert!(!leads(&story));
    story.go_on(140);
    assert!(!leads(&story), "it is preferred, but drains");
    story.operate(Operation::Undrain { broker });
    story.go_on(160);
    assert!(leads(&story));
    story.check();
}

#[test]
fn a_transfer_is_asked_of_any_broker_loses_nothing_and_stays() {
    let mut story = Story::new();
    let keeper = story.keeper();
    let (lane, leader, target) = story.lane_away_from(keeper);
    story.go_on(25);
    let transfer = Operation::Transfer { lane, to: number(target) };
    let before = story.lane(lane);
    // Asking whether it could be done changes nothing.
    for asked in 0..3 {
        assert_eq!(story.ask(asked, transfer.clone(), true), Ok(0));
    }
    assert_eq!(story.lane(lane), before);
    // Of the leader of the lane, which does not lead the metadata.
    let version = story.ask(leader, transfer.clone(), false).expect("nothing is in its way");
    assert!(version > 0);
    story.go_on(20);
    let status = story.status(leader);
    assert!(status.version >= version);
    let told = status.lane(lane).unwrap();
    assert_eq!((told.leader, told.moving_to), (Some(number(target)), None));
    assert!(told.is_serving);
    assert_eq!(told.preferred(), Some(number(target)));
    // The old leader is there, and would have been given the lane back.
    story.go_on(200);
    let record = story.lane(lane);
    assert_eq!((record.leader_id(), record.epoch), (Some(number(target)), before.epoch.next()));
    story.check();
}

#[test]
fn what_is_in_the_way_of_an_operation_is_named_and_nothing_changes() {
    let mut story = Story::new();
    let keeper = story.keeper();
    let (lane, leader, target) = story.lane_away_from(keeper);
    story.go_on(25);
    let version = story.status(keeper).version;
    let transfer = |lane, to| Operation::Transfer { lane, to };
    let (nobody, nowhere) = (BrokerId(9), LaneId(99));
    let unknown = Err(Obstacle::UnknownBroker { broker: nobody });
    for asked in 0..3 {
        assert_eq!(story.ask(asked, transfer(lane, nobody), false), unknown);
        assert_eq!(story.ask(asked, Operation::Drain { broker: nobody }, false), unknown);
        let answer = story.ask(asked, transfer(nowhere, number(target)), false);
        assert_eq!(answer, Err(Obstacle::UnknownLane { lane: nowhere }));
    }
    // It hears nothing of the leader, and so keeps up no more; everybody else hears it.
    story.cluster.cut(leader, target);
    story.go_on(30);
    let behind = story.ask(keeper, transfer(lane, number(target)), false);
    assert!(matches!(behind, Err(Obstacle::Behind { entries: 1.., .. })), "{behind:?}");
    assert_eq!(story.status(keeper).version, version);
    story.cluster.mend(leader, target);
    story.go_on(30);
    // With the third one gone and the second draining, nobody but the first could lead.
    let third = (0..3).find(|at| *at != keeper && *at != target).unwrap();
    story.cluster.kill(third);
    story.go_on(40);
    story.operate(Operation::Drain { broker: number(target) });
    story.go_on(20);
    let silent = story.ask(target, transfer(lane, number(third)), false);
    assert_eq!(silent, Err(Obstacle::Silent { broker: number(third) }));
    let draining = story.ask(target, transfer(lane, number(target)), false);
    assert_eq!(draining, Err(Obstacle::Draining { broker: number(target) }));
    let last = story.ask(target, Operation::Drain { broker: number(keeper) }, false);
    assert!(matches!(last, Err(Obstacle::NoOtherLeader { .. })), "{last:?}");
    story.cluster.restart(third);
    story.operate(Operation::Undrain { broker: number(target) });
    story.go_on(40);
    story.check();
}

#[test]
fn the_cluster_is_told_by_any_broker_also_without_a_leader_of_the_metadata() {
    let mut story = Story::new();
    story.go_on(25);
    let keeper = story.keeper();
    for asked in 0..3 {
        let status = story.status(asked);
        assert_eq!(status.me, number(asked));
        assert_eq!(status.metadata_leader, Some(number(keeper)));
        let ids: Vec<u32> = status.brokers.iter().map(|broker| broker.id.0).collect();
        assert_eq!(ids, [1, 2, 3]);
        assert!(status.brokers.iter().all(|broker| broker.is_alive == Some(true)));
        for lane in &status.lanes {
            assert!(lane.is_serving, "{lane:?}");
            assert!(lane.replicas.iter().all(|replica| replica.is_caught_up), "{lane:?}");
        }
    }
    // One of three is gone: it is known to be, and behind.
    let gone = (0..3).find(|at| *at != keeper).unwrap();
    let asked = 3 - keeper - gone;
    story.cluster.kill(gone);
    story.go_on(60);
    let status = story.status(asked);
    assert_eq!(status.broker(number(gone)).unwrap().is_alive, Some(false));
    for (_, lane) in story.partitions.clone() {
        let told = status.lane(lane).unwrap();
        let replica = told.replicas.iter().find(|it| it.broker == number(gone)).unwrap();
        assert!(told.is_serving && !replica.is_caught_up && replica.behind > Some(0), "{told:?}");
    }
    // Nobody leads the metadata any more: what this one knows is told, and that the rest is not known.
    story.cluster.kill(keeper);
    story.cluster.pass(Nanos::from_secs(3));
    let status = story.status(asked);
    assert_eq!(status.metadata_leader, None);
    assert_eq!(status.broker(number(gone)).unwrap().is_alive, None);
    assert!(status.lanes.iter().all(|lane| !lane.is_serving));
    assert_eq!(status.brokers.len(), 3);
}

#[test]
fn a_lane_is_put_on_another_broker_under_load_and_back_again() {
    let mut story = Story::of(4);
    story.go_on(25);
    let (_, lane) = story.partitions[0];
    story.only(lane);
    let before = story.lane(lane);
    let old: Vec<BrokerId> = before.replicas.iter().map(|replica| replica.broker).collect();
    let leader = before.leader_id().expect("it is led");
    let joins = (0..4).map(number).find(|id| !old.contains(id)).expect("it is on three of four");
    let leaves = *old.iter().find(|id| **id != leader).unwrap();
    let stays = *old.iter().find(|id| **id != leader && **id != leaves).unwrap();
    let at = |id: BrokerId| id.0 as usize - 1;
    let position =
        |story: &Story, id| story.cluster.brokers[at(id)].world.nodes[0].shard.lane_position(lane);
    let replace = |replicas: [BrokerId; 3]| Operation::Replace { lane, replicas: replicas.into() };
    let keeper = story.keeper();
    for (replicas, obstacle) in [
        ([leader, stays, leader], Obstacle::BadReplicas { lane, count: 3 }),
        ([stays, leaves, leader], Obstacle::SameReplicas { lane }),
        ([leaves, stays, joins], Obstacle::LeaderLeaves { lane, broker: leader }),
        ([leader, stays, BrokerId(9)], Obstacle::UnknownBroker { broker: BrokerId(9) }),
    ] {
        assert_eq!(story.ask(keeper, replace(replicas), false), Err(obstacle));
    }
    // Nobody but the leader keeps up: with the new one the lane would have to wait for a copy.
    story.cluster.cut(at(leader), at(stays));
    story.go_on(15);
    let change = replace([leader, stays, joins]);
    let refused = story.ask(keeper, change.clone(), false);
    assert!(matches!(refused, Err(Obstacle::Behind { .. })), "{refused:?}");
    story.cluster.mend(at(leader), at(stays));
    story.go_on(30);
    assert_eq!(position(&story, joins), None);
    assert_eq!(story.ask(keeper, change.clone(), true), Ok(0));
    assert_eq!(story.lane(lane).next, None);
    let epoch = story.lane(lane).epoch;
    story.operate(change);
    story.go_on(60);
    let record = story.lane(lane);
    let now: Vec<BrokerId> = record.replicas.iter().map(|replica| replica.broker).collect();
    assert_eq!((now, record.before.clone()), (vec![leader, stays, joins], None));
    assert_eq!((record.leader_id(), record.epoch), (Some(leader), epoch.next()));
    assert_eq!(position(&story, leaves), None, "it has parted with the lane");
    assert_eq!(position(&story, joins), position(&story, leader), "it has everything");
    // Without the third one nothing is committed but by the one that came.
    story.cluster.kill(at(stays));
    story.go_on(40);
    story.check();
    story.cluster.restart(at(stays));
    story.go_on(40);
    // Who was here before goes on from what it has.
    story.operate(replace([leader, leaves, joins]));
    story.go_on(60);
    assert_eq!(position(&story, stays), None);
    assert_eq!(position(&story, leaves), position(&story, leader));
    story.cluster.kill(at(joins));
    story.go_on(40);
    story.check();
}

#[test]
fn a_change_of_the_set_survives_restarts_of_those_who_leave_and_come() {
    let mut story = Story::of(4);
    story.go_on(25);
    let (_, lane) = story.partitions[0];
    story.only(lane);
    let before = story.lane(lane);
    let old: Vec<BrokerId> = before.replicas.iter().map(|replica| replica.broker).collect();
    let leader = before.leader_id().expect("it is led");
    let joins = (0..4).map(number).find(|id| !old.contains(id)).expect("it is on three of four");
    let leaves = *old.iter().find(|id| **id != leader).unwrap();
    let stays = *old.iter().find(|id| **id != leader && **id != leaves).unwrap();
    let at = |id: BrokerId| id.0 as usize - 1;
    // The new one is there, and hears nothing of the leader: the change comes about without it.
    story.cluster.cut(at(leader), at(joins));
    story.go_on(5);
    let keeper = story.keeper();
    let change = Operation::Replace { lane, replicas: vec![leader, stays, joins] };
    if story.ask(keeper, change, false).is_err() {
        // The leader of the metadata is the one that does not hear it.
        return;
    }
    story.go_on(30);
    assert_eq!(story.lane(lane).before, None);
    for id in [joins, leaves] {
        story.cluster.kill(at(id));
        story.go_on(10);
        story.cluster.restart(at(id));
        story.go_on(10);
    }
    story.cluster.mend(at(leader), at(joins));
    story.go_on(60);
    let shard = |story: &Story, id: BrokerId| {
        story.cluster.brokers[at(id)].world.nodes[0].shard.lane_position(lane)
    };
    assert_eq!(shard(&story, leaves), None);
    assert_eq!(shard(&story, joins), shard(&story, leader));
    story.cluster.kill(at(leader));
    story.go_on(60);
    assert!(story.leader(lane).is_some_and(|leads| leads != at(leader)));
}
