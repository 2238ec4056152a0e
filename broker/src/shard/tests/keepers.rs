//! The metadata of three brokers: they register, agree, and go on without one of them.

use corelog_protocol::ErrorCode;
use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{BrokerId, Epoch, LaneId};
use corelog_protocol::message::{
    ErrorReply, Message, TopicCreate, TopicCreateReply, TopicDelete, TopicSettings,
};

use super::world::Client;
use crate::metadata::State;
use crate::shard::event::Event;
use crate::sim::cluster::{Cluster, number};
use crate::time::Nanos;

fn state(cluster: &Cluster, broker: usize) -> State {
    cluster.brokers[broker].world.nodes[0].shard.view().state().clone()
}

/// The broker that leads the metadata, as itself thinks, among those that are alive.
fn leader(cluster: &Cluster) -> Option<usize> {
    let leads = |at: &usize| {
        let member = &cluster.brokers[*at];
        member.is_alive && member.world.nodes[0].shard.is_leading_metadata()
    };
    (0..cluster.brokers.len()).find(leads)
}

fn follower(cluster: &Cluster) -> usize {
    let leader = leader(cluster).expect("somebody leads");
    (0..cluster.brokers.len()).find(|&at| at != leader && cluster.brokers[at].is_alive).unwrap()
}

/// Three brokers with a shard each that have dealt their lanes.
fn begun() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.pass(Nanos::from_secs(3));
    assert!(leader(&cluster).is_some());
    cluster
}

fn create(name: &str) -> TopicCreate {
    let settings =
        TopicSettings { partitions: 3, replicas: 0, retention_ms: None, retention_bytes: None };
    TopicCreate { name: name.into(), settings, timeout_ms: 0 }
}

fn ask(cluster: &mut Cluster, broker: usize, message: &impl Message) -> Client {
    let client = cluster.world(broker).client(0);
    cluster.world(broker).ask(client, 7, message);
    cluster.run();
    client
}

/// The topic is made, as that broker says, which knows it then.
fn create_at(cluster: &mut Cluster, broker: usize, name: &str) {
    let client = ask(cluster, broker, &create(name));
    cluster.pass(Nanos::from_millis(500));
    let frame = cluster.world(broker).take_one(client);
    assert_eq!(frame.kind, FrameKind::TopicCreateReply, "{:?}", ErrorReply::decode(&frame.control));
    let topic = TopicCreateReply::decode(&frame.control).unwrap().topic;
    assert_eq!((&*topic.name, topic.places.len()), (name, 3));
    assert!(state(cluster, broker).topic(name).is_some());
}

fn refusal(cluster: &mut Cluster, broker: usize, client: Client) -> ErrorCode {
    cluster.world(broker).take_one(client).error().code
}

/// All that are alive are of one mind.
fn agreed(cluster: &Cluster) -> State {
    let alive = (0..cluster.brokers.len()).filter(|&at| cluster.brokers[at].is_alive);
    let states: Vec<State> = alive.map(|at| state(cluster, at)).collect();
    assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "{states:#?}");
    states[0].clone()
}

#[test]
fn three_brokers_register_and_deal_their_lanes() {
    let cluster = begun();
    let state = agreed(&cluster);
    let brokers: Vec<u32> = state.brokers().map(|broker| broker.id.0).collect();
    assert_eq!(brokers, [1, 2, 3]);
    let sets: Vec<String> = state
        .lanes()
        .iter()
        .map(|lane| lane.replicas.iter().map(|one| one.broker.to_string()).collect())
        .collect();
    assert_eq!(sets, ["123", "132", "231", "213", "312", "321"]);
    assert!(state.lanes().iter().all(|lane| lane.epoch >= Epoch(1)));
}

#[test]
fn nothing_begins_before_all_first_brokers_are_there() {
    let mut cluster = Cluster::new(3);
    cluster.kill(2);
    cluster.pass(Nanos::from_secs(3));
    assert!(leader(&cluster).is_some(), "two are a quorum");
    assert!(agreed(&cluster).lanes().is_empty());
    let broker = follower(&cluster);
    let client = ask(&mut cluster, broker, &create("early"));
    assert_eq!(refusal(&mut cluster, broker, client), ErrorCode::Recovering);
    cluster.restart(2);
    cluster.pass(Nanos::from_secs(3));
    assert_eq!(agreed(&cluster).lanes().len(), 6);
}

#[test]
fn a_topic_is_created_by_way_of_any_broker_which_knows_it_when_it_answers() {
    let mut cluster = begun();
    for broker in 0..3 {
        create_at(&mut cluster, broker, &format!("by-{broker}"));
    }
    cluster.pass(Nanos::from_secs(1));
    let state = agreed(&cluster);
    assert_eq!(state.topics().size(), 3);
    // Each of its partitions is led by another broker.
    let topic = state.topic("by-0").unwrap();
    let led = topic.links.iter().map(|link| state.lane(link.lane).unwrap().preferred());
    assert_eq!(led.collect::<Vec<_>>(), [BrokerId(1), BrokerId(2), BrokerId(3)]);

    let broker = follower(&cluster);
    let client = ask(&mut cluster, broker, &create("by-0"));
    assert_eq!(refusal(&mut cluster, broker, client), ErrorCode::TopicExists);
    let client = ask(&mut cluster, broker, &TopicDelete { name: "nobody".into(), timeout_ms: 0 });
    assert_eq!(refusal(&mut cluster, broker, client), ErrorCode::UnknownTopic);
}

#[test]
fn the_others_go_on_without_the_leader_which_catches_up_when_it_is_back() {
    let mut cluster = begun();
    let first = leader(&cluster).unwrap();
    create_at(&mut cluster, first, "before");
    cluster.kill(first);
    cluster.pass(Nanos::from_secs(2));
    let second = leader(&cluster).expect("another leads");
    assert_ne!(first, second);
    let broker = follower(&cluster);
    create_at(&mut cluster, broker, "meanwhile");
    cluster.restart(first);
    cluster.pass(Nanos::from_secs(3));
    let state = agreed(&cluster);
    assert!(state.topic("before").is_some() && state.topic("meanwhile").is_some());
    // It has registered its new life.
    assert_eq!(state.broker(number(first)).unwrap().life % 1_000, 2);
}

#[test]
fn without_a_majority_nothing_is_promised_and_all_is_as_it_was_when_it_is_back() {
    let mut cluster = begun();
    let broker = leader(&cluster).unwrap();
    let others: Vec<usize> = (0..3).filter(|&at| at != broker).collect();
    others.iter().for_each(|&other| cluster.cut(broker, other));
    let client = ask(&mut cluster, broker, &create("alone"));
    cluster.pass(Nanos::from_secs(3));
    assert!(cluster.world(broker).take(client).is_empty(), "nobody knows what becomes of it");
    assert!(leader(&cluster).is_some_and(|leader| leader != broker));
    let late = ask(&mut cluster, broker, &create("later"));
    assert_eq!(refusal(&mut cluster, broker, late), ErrorCode::NotLeader);
    others.iter().for_each(|&other| cluster.mend(broker, other));
    cluster.pass(Nanos::from_secs(5));
    let frame = cluster.world(broker).take_one(client);
    assert!(
        matches!(frame.error().code, ErrorCode::NotLeader | ErrorCode::OutcomeUnknown),
        "another leader's entry is in its place"
    );
    assert!(agreed(&cluster).topic("alone").is_none());
}

#[test]
fn a_change_whose_leader_is_lost_may_have_been_made() {
    let mut cluster = begun();
    let (first, broker) = (leader(&cluster).unwrap(), follower(&cluster));
    let other = (0..3).find(|&at| at != first && at != broker).unwrap();
    // The leader hears the question, and can neither have it committed nor answer.
    cluster.cut(first, other);
    let client = cluster.world(broker).client(0);
    cluster.world(first).is_disk_held = true;
    cluster.world(broker).ask(client, 7, &create("perhaps"));
    cluster.run();
    cluster.kill(first);
    cluster.world(first).is_disk_held = false;
    cluster.mend(first, other);
    assert_eq!(refusal(&mut cluster, broker, client), ErrorCode::OutcomeUnknown);
}

#[test]
fn a_leader_that_nobody_hears_stops_without_waiting_for_a_quorum() {
    let mut cluster = begun();
    let first = leader(&cluster).unwrap();
    let others = (0..3).filter(|&at| at != first).collect::<Vec<_>>();
    others.iter().for_each(|&other| cluster.kill(other));
    let client = ask(&mut cluster, first, &create("perhaps"));
    cluster.world(first).tell(0, Event::Stop);
    cluster.pass(Nanos::from_millis(200));
    assert!(cluster.brokers[first].world.nodes[0].is_stopped);
    assert_eq!(refusal(&mut cluster, first, client), ErrorCode::OutcomeUnknown);
}

#[test]
fn a_lane_is_led_by_who_answers_and_led_on_by_another_when_its_broker_is_gone() {
    let mut cluster = begun();
    let lane_of = |cluster: &Cluster, lane: u32| {
        let alive = (0..3).find(|&at| cluster.brokers[at].is_alive).unwrap();
        let record = state(cluster, alive).lane(LaneId(lane)).unwrap().clone();
        (record.epoch.0, record.leader_id())
    };
    let broker = follower(&cluster);
    let lane = 2 * broker as u32 + 1;
    let (epoch, _) = lane_of(&cluster, lane);
    cluster.pass(Nanos::from_secs(1));
    assert_eq!(lane_of(&cluster, lane), (epoch, Some(number(broker))));
    cluster.pass(Nanos::from_secs(5));
    assert_eq!(lane_of(&cluster, lane), (epoch, Some(number(broker))), "it is heard");
    cluster.kill(broker);
    cluster.pass(Nanos::from_secs(2));
    let (now, led_by) = lane_of(&cluster, lane);
    assert!(now > epoch && led_by.is_some_and(|id| id != number(broker)), "{now} {led_by:?}");
}

#[test]
fn who_is_far_behind_is_sent_the_state_as_it_is() {
    let mut cluster = begun();
    let broker = follower(&cluster);
    create_at(&mut cluster, broker, "first");
    cluster.kill(broker);
    // More than a leader keeps for those that are behind.
    let leader = leader(&cluster).unwrap();
    let client = cluster.world(leader).client(0);
    for n in 0..400 {
        let name = format!("t{n}");
        cluster.world(leader).ask(client, 1, &create(&name));
        cluster.run();
        cluster.world(leader).ask(client, 2, &TopicDelete { name, timeout_ms: 0 });
        cluster.run();
    }
    cluster.pass(Nanos::from_secs(1));
    cluster.restart(broker);
    cluster.pass(Nanos::from_secs(5));
    let state = agreed(&cluster);
    assert!(state.version() > 800, "{}", state.version());
    create_at(&mut cluster, broker, "last");
}

#[test]
fn who_leads_the_metadata_and_has_a_disk_that_stands_still_lets_another_lead() {
    let mut cluster = begun();
    let first = leader(&cluster).expect("somebody leads");
    cluster.world(first).is_disk_held = true;
    ask(&mut cluster, first, &create("meanwhile"));
    cluster.pass(Nanos::from_secs(5));
    let next = leader(&cluster).expect("somebody leads");
    assert_ne!(next, first);
    create_at(&mut cluster, next, "afterwards");
    let made = ["meanwhile", "afterwards"];
    assert!(made.iter().all(|name| state(&cluster, next).topic(name).is_some()));
    cluster.world(first).release_disk();
    cluster.pass(Nanos::from_secs(2));
    assert!((0..3).all(|at| made.iter().all(|name| state(&cluster, at).topic(name).is_some())));
}
