//! A lane with three replicas: what its leader may tell, and what becomes of a leader that is cut off.

use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{BrokerId, LaneId, PartitionId};
use corelog_protocol::message::{TopicCreate, TopicSettings};
use corelog_protocol::produce::ProduceAck;
use corelog_protocol::{Durability, ErrorCode};

use super::world::{Client, batch, produce};
use crate::limits::LEAVE_MS;
use crate::replica::Position;
use crate::shard::event::Event;
use crate::sim::cluster::{Cluster, number};
use crate::time::Nanos;

const LANE: LaneId = LaneId(1);

/// Three brokers with one lane each, of which broker 0 leads lane 1; and a partition in that lane.
fn begun() -> (Cluster, PartitionId) {
    let mut cluster = Cluster::with(&[1, 1, 1], |config| config.lanes_per_shard = 1);
    cluster.pass(Nanos::from_secs(3));
    assert_eq!(leader(&cluster, 1), Some(number(0)));
    let client = cluster.world(0).client(0);
    let settings =
        TopicSettings { partitions: 3, replicas: 0, retention_ms: None, retention_bytes: None };
    let create = TopicCreate { name: "t".into(), settings, timeout_ms: 0 };
    cluster.world(0).ask(client, 1, &create);
    cluster.run();
    cluster.pass(Nanos::from_secs(1));
    assert_eq!(cluster.world(0).take_one(client).kind, FrameKind::TopicCreateReply);
    let state = cluster.brokers[0].world.nodes[0].shard.view().state();
    let topic = state.topic("t").expect("made");
    let partition = topic.partitions().find(|(_, link)| link.lane == LANE).expect("one each").0;
    (cluster, partition)
}

/// Who leads lane 1, as this broker sees it.
fn leader(cluster: &Cluster, seen_by: usize) -> Option<BrokerId> {
    let view = cluster.brokers[seen_by].world.nodes[0].shard.view();
    view.lane(LANE).and_then(|lane| lane.leader_id())
}

fn has(cluster: &Cluster, broker: usize) -> Position {
    cluster.brokers[broker].world.nodes[0].shard.lane_position(LANE).expect("a replica")
}

fn send(cluster: &mut Cluster, to: usize, partition: PartitionId, level: Durability) -> Client {
    let client = cluster.world(to).client(0);
    let frame = produce(partition, level, 9, &batch("record", 3));
    cluster.world(to).send(client, &frame);
    cluster.run();
    client
}

fn level_of(cluster: &mut Cluster, broker: usize, client: Client) -> Durability {
    cluster.world(broker).take_one(client).ack().level
}

#[test]
fn each_level_is_acknowledged_when_it_is_reached_and_named_in_the_ack() {
    let (mut cluster, partition) = begun();
    // Nobody else can be reached: what needs only the leader is told, and nothing else.
    cluster.cut(0, 1);
    cluster.cut(0, 2);
    let memory = send(&mut cluster, 0, partition, Durability::LeaderMemory);
    assert_eq!(level_of(&mut cluster, 0, memory), Durability::LeaderMemory);
    let durable = send(&mut cluster, 0, partition, Durability::LeaderDurable);
    assert_eq!(level_of(&mut cluster, 0, durable), Durability::LeaderDurable);
    let received = send(&mut cluster, 0, partition, Durability::QuorumMemory);
    let committed = send(&mut cluster, 0, partition, Durability::QuorumDurable);
    cluster.pass(Nanos::from_millis(50));
    assert!(cluster.world(0).take(received).is_empty());
    assert!(cluster.world(0).take(committed).is_empty());
    cluster.mend(0, 1);
    cluster.mend(0, 2);
    cluster.pass(Nanos::from_secs(1));
    let received = level_of(&mut cluster, 0, received);
    assert!(received.is_quorum(), "{received}");
    assert_eq!(level_of(&mut cluster, 0, committed), Durability::QuorumDurable);
}

#[test]
fn a_follower_refuses_what_is_for_the_leader() {
    let (mut cluster, partition) = begun();
    for follower in [1, 2] {
        let client = send(&mut cluster, follower, partition, Durability::QuorumDurable);
        let error = cluster.world(follower).take_one(client).error();
        assert_eq!(error.code, ErrorCode::NotLeader);
    }
}

#[test]
fn a_leader_that_is_cut_off_loses_what_nobody_had_and_leads_again_later() {
    let (mut cluster, partition) = begun();
    let first = send(&mut cluster, 0, partition, Durability::QuorumDurable);
    cluster.pass(Nanos::from_millis(100));
    assert_eq!(level_of(&mut cluster, 0, first), Durability::QuorumDurable);
    cluster.cut(0, 1);
    cluster.cut(0, 2);
    let lonely = send(&mut cluster, 0, partition, Durability::QuorumDurable);
    cluster.pass(Nanos::from_secs(3));
    let error = cluster.world(0).take_one(lonely).error();
    assert_eq!(error.code, ErrorCode::OutcomeUnknown, "it serves no more, and nobody knows");
    let heir = leader(&cluster, 1).expect("another leads");
    assert_ne!(heir, number(0));
    let heir = heir.0 as usize - 1;
    let second = send(&mut cluster, heir, partition, Durability::QuorumDurable);
    cluster.pass(Nanos::from_millis(500));
    let ack: ProduceAck = cluster.world(heir).take_one(second).ack();
    assert_eq!((ack.base_offset.0, ack.level), (3, Durability::QuorumDurable));
    cluster.mend(0, 1);
    cluster.mend(0, 2);
    cluster.pass(Nanos::from_secs(3));
    assert_eq!(has(&cluster, 0), has(&cluster, heir), "what nobody had is gone");
    assert!(cluster.counter(0, 0, "lane_truncations") > 0);
    // The others go, one by one; in the end it leads in a log of which it had led a part before.
    let other = 3 - heir;
    cluster.cut(heir, 0);
    cluster.cut(heir, other);
    cluster.pass(Nanos::from_secs(4));
    let next = leader(&cluster, 0).expect("one of two leads").0 as usize - 1;
    assert_ne!(next, heir);
    let third = send(&mut cluster, next, partition, Durability::QuorumDurable);
    cluster.pass(Nanos::from_millis(500));
    let ack = cluster.world(next).take_one(third).ack();
    assert_eq!((ack.base_offset.0, ack.level), (6, Durability::QuorumDurable));
    cluster.mend(heir, 0);
    cluster.mend(heir, other);
    cluster.pass(Nanos::from_secs(3));
    assert!((1..3).all(|broker| has(&cluster, broker) == has(&cluster, 0)));
}

/// The log of one lane stops at once; that of another is waited for, and meanwhile the first learns that its tail is void.
#[test]
fn a_broker_that_stops_comes_to_an_end_also_with_a_tail_that_is_void() {
    let mut cluster = Cluster::with(&[1, 1, 1], |config| config.lanes_per_shard = 2);
    cluster.pass(Nanos::from_secs(3));
    let client = cluster.world(0).client(0);
    let settings =
        TopicSettings { partitions: 6, replicas: 0, retention_ms: None, retention_bytes: None };
    let create = TopicCreate { name: "t".into(), settings, timeout_ms: 0 };
    cluster.world(0).ask(client, 1, &create);
    cluster.pass(Nanos::from_secs(1));
    let view = cluster.brokers[0].world.nodes[0].shard.view();
    let topic = view.state().topic("t").expect("made");
    let is_led = |lane| view.lane(lane).is_some_and(|lane| lane.leader_id() == Some(number(0)));
    let led: Vec<_> = (topic.partitions())
        .filter(|(_, link)| is_led(link.lane))
        .map(|(partition, link)| (partition, link.lane))
        .collect();
    let [(void, lane), (slow, other)] = led[..] else { panic!("{led:?}") };

    cluster.cut(0, 1);
    cluster.cut(0, 2);
    cluster.world(0).held_lane = Some(other);
    cluster.world(0).is_disk_held = true;
    send(&mut cluster, 0, void, Durability::QuorumDurable);
    send(&mut cluster, 0, slow, Durability::LeaderDurable);
    cluster.pass(Nanos::from_secs(3));
    let view = cluster.brokers[1].world.nodes[0].shard.view();
    let heir = view.lane(lane).and_then(|lane| lane.leader_id()).expect("another leads");
    assert_ne!(heir, number(0));
    let heir = heir.0 as usize - 1;
    cluster.world(0).tell(0, Event::Stop);
    // It does not hear that it leads nothing.
    cluster.pass(Nanos::from_millis(LEAVE_MS + 100));
    cluster.mend(0, 1);
    cluster.mend(0, 2);
    cluster.pass(Nanos::from_secs(1));
    assert!(!cluster.brokers[0].world.nodes[0].is_stopped, "its disk still has something to do");
    cluster.world(0).release_disk();
    cluster.pass(Nanos::from_secs(10));
    assert!(cluster.brokers[0].world.nodes[0].is_stopped);

    cluster.kill(0);
    cluster.restart(0);
    cluster.pass(Nanos::from_secs(5));
    let position = |cluster: &Cluster, broker: usize| {
        cluster.brokers[broker].world.nodes[0].shard.lane_position(lane)
    };
    assert_eq!(position(&cluster, 0), position(&cluster, heir));
}

#[test]
fn a_leader_whose_disk_stands_still_lets_another_lead_and_gets_the_lane_back() {
    let (mut cluster, partition) = begun();
    let first = send(&mut cluster, 0, partition, Durability::QuorumDurable);
    cluster.pass(Nanos::from_secs(1));
    assert_eq!(level_of(&mut cluster, 0, first), Durability::QuorumDurable);
    cluster.world(0).is_disk_held = true;
    let stuck = send(&mut cluster, 0, partition, Durability::QuorumDurable);
    cluster.pass(Nanos::from_secs(5));
    let error = cluster.world(0).take_one(stuck).error();
    assert_eq!(error.code, ErrorCode::OutcomeUnknown, "the others have it: it is not lost");
    let heir = leader(&cluster, 1).expect("another leads");
    assert_ne!(heir, number(0));
    let heir = heir.0 as usize - 1;
    let second = send(&mut cluster, heir, partition, Durability::QuorumDurable);
    cluster.pass(Nanos::from_millis(500));
    assert_eq!(cluster.world(heir).take_one(second).ack().base_offset.0, 6);
    cluster.world(0).release_disk();
    cluster.pass(Nanos::from_secs(20));
    assert_eq!(leader(&cluster, 1), Some(number(0)), "it is the preferred one");
    assert!((1..3).all(|broker| has(&cluster, broker) == has(&cluster, 0)));
}

/// All disks are one, or all are slow: a change of leader would mend nothing.
#[test]
fn a_leader_whose_disk_stands_still_leads_on_if_the_others_do_too() {
    let (mut cluster, partition) = begun();
    for broker in 0..3 {
        cluster.world(broker).is_disk_held = true;
    }
    let sent = send(&mut cluster, 0, partition, Durability::QuorumDurable);
    cluster.pass(Nanos::from_secs(10));
    assert!(cluster.world(0).take(sent).is_empty());
    for broker in 0..3 {
        cluster.world(broker).release_disk();
    }
    cluster.pass(Nanos::from_secs(1));
    assert_eq!(level_of(&mut cluster, 0, sent), Durability::QuorumDurable);
    assert_eq!(leader(&cluster, 0), Some(number(0)));
}

#[test]
fn a_leader_whose_log_is_no_different_follows_without_a_truncation_and_leads_again() {
    let (mut cluster, partition) = begun();
    for turn in 0..4 {
        let led_by = leader(&cluster, 1).expect("somebody leads").0 as usize - 1;
        let sent = send(&mut cluster, led_by, partition, Durability::QuorumDurable);
        cluster.pass(Nanos::from_secs(1));
        let ack = cluster.world(led_by).take_one(sent).ack();
        assert_eq!(ack.base_offset.0, 3 * turn, "turn {turn}, broker {led_by}");
        // Silent for a while, and nothing was under way.
        let others: Vec<usize> = (0..3).filter(|other| *other != led_by).collect();
        others.iter().for_each(|&other| cluster.cut(led_by, other));
        cluster.pass(Nanos::from_secs(3));
        assert_ne!(leader(&cluster, others[0]), Some(number(led_by)));
        others.iter().for_each(|&other| cluster.mend(led_by, other));
        cluster.pass(Nanos::from_secs(3));
        assert!((1..3).all(|broker| has(&cluster, broker) == has(&cluster, 0)), "turn {turn}");
    }
    let truncated: u64 = (0..3).map(|at| cluster.counter(at, 0, "lane_truncations")).sum();
    assert_eq!(truncated, 0);
}
